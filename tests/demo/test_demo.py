"""The chains, the pictures and the numbers of `hdzoo demo-2d`."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from hdzoo import HDPipeline, HDZooError, get_sampler, plugins
from hdzoo.demo import demo
from hdzoo.demo.demo import Demo, demo_2d, planar_target, scale_of
from hdzoo.demo.frames import FIRST_MILLISECONDS, LAST_MILLISECONDS, MILLISECONDS
from hdzoo.pipelines.generators import sample_generators
from hdzoo.targets.mixture import GaussianMixtureScore

PLANAR = ("circle", "eight-gaussians", "moons", "ncsn-toy", "segment")
SAMPLERS = ("annealed-langevin", "half-denoising")


@pytest.fixture(scope="module")
def small() -> Demo:
    return demo_2d("ncsn-toy", SAMPLERS, num_samples=12, num_inference_steps=20, num_frames=5)


# ---- the chains -----------------------------------------------------------------------------


def test_chains_are_those_of_the_pipeline(small: Demo) -> None:
    target = planar_target("ncsn-toy")
    scale = scale_of(target)
    annealed = get_sampler("annealed-langevin")(
        sigma_max=scale.extent, sigma_min=scale.finest / 10, num_levels=10
    )
    single = get_sampler("half-denoising")(sigma=scale.finest)
    for chains, sampler in zip(small.chains, (annealed, single), strict=True):
        generators = sample_generators(0, range(12))
        noise = randn_tensor((12, 2), generators, dtype=torch.float32)
        start = target.mean.float() + scale.extent * noise
        pipe = HDPipeline(target, sampler)
        pipe.set_progress_bar_config(disable=True)
        end = pipe(12, 20, generator=generators, latents=start).images
        assert chains.states.shape == (21, 12, 2)
        assert torch.equal(chains.states[0], start)
        assert torch.equal(chains.states[-1], end)
        assert chains.sigmas == sampler.sigmas.tolist()
        assert chains.from_noise == sampler.starts_from_noise


def test_a_chain_does_not_depend_on_the_others(small: Demo) -> None:
    few = demo_2d("ncsn-toy", SAMPLERS, num_samples=3, num_inference_steps=20, num_frames=2)
    for one, other in zip(few.chains, small.chains, strict=True):
        # The score's sums over a batch may differ by roundings of float32.
        torch.testing.assert_close(one.states, other.states[:, :3], rtol=1e-5, atol=1e-5)


def test_options_are_for_all_that_have_them() -> None:
    found = demo_2d(
        "circle",
        SAMPLERS,
        num_samples=2,
        num_inference_steps=6,
        num_frames=2,
        options={"sigmas": [3, 0.5], "sigma": 0.25},
    )
    annealed, single = found.chains
    assert annealed.sigmas == [3.0] * 3 + [0.5] * 3 + [0.0]
    assert single.sigmas == [0.25] * 6 + [0.0]
    # Both start from the noise of the ladder's first level.
    assert torch.equal(annealed.states[0], single.states[0])


@pytest.mark.parametrize("name", PLANAR)
def test_the_ladder_fits_the_target(name: str) -> None:
    extent, finest = {
        "circle": (1.0, 0.05),
        "segment": (1.0, 0.05),
        "moons": (1.75, 0.1),
        "ncsn-toy": (8.5, 1.0),
        "eight-gaussians": (4.9, 0.3),
    }[name]
    scale = scale_of(planar_target(name))
    # The extent is that of a sample, and the scan goes by steps of 15 percent.
    assert scale.extent == pytest.approx(extent, rel=0.1)
    assert scale.finest == pytest.approx(finest, rel=0.2)


# ---- the pictures ---------------------------------------------------------------------------


def test_the_gif_has_the_frames_and_says_what_made_it(small: Demo, tmp_path: Path) -> None:
    small.save(tmp_path / "a.gif")
    small.save_last_frame(tmp_path / "a.png")
    assert len(small.frames) == 5
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        durations = []
        for i, frame in enumerate(small.frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
            assert gif.size == frame.size
            # 64 colours: near each pixel, on average over the picture.
            gap = np.abs(np.asarray(gif.convert("RGB"), float) - np.asarray(frame, float))
            assert gap.mean() < 2
        assert durations == [FIRST_MILLISECONDS, *[MILLISECONDS] * 3, LAST_MILLISECONDS]
        gif.seek(0)
        made_by = json.loads(gif.info["comment"])
    assert made_by["target"] == "ncsn-toy"
    assert made_by["samplers"]["half-denoising"]["sigma"] == small.chains[1].sigmas[0]
    with Image.open(tmp_path / "a.png") as png:
        assert png.tobytes() == small.frames[-1].tobytes()
        assert json.loads(png.text["hdzoo"]) == made_by


def test_no_more_frames_than_states() -> None:
    drawn: list[Image.Image] = []
    found = demo_2d(
        "segment",
        ["annealed-langevin"],
        num_samples=2,
        num_inference_steps=3,
        on_frame=drawn.append,
    )
    assert len(found.frames) == 4
    assert drawn == found.frames


def test_the_shades_hold_what_the_caption_says() -> None:
    from hdzoo.demo.frames import HELD, View, _Background

    target = planar_target("moons")
    background = _Background(View("moons", target, (0.5, 0.25), 1.75))
    level = float(np.hypot(0.3, background.spacing))
    drawn = target.sample(20_000, torch.Generator().manual_seed(5), sigma=level)
    density = target.log_density(drawn, level).numpy()
    for held, bound in zip(HELD, background.at(0.3).bounds, strict=False):
        # Both samples count: 4000 draws for the bound, 20,000 here; 5 standard errors.
        error = (held * (1 - held) * (1 / 4000 + 1 / 20_000)) ** 0.5
        assert (density > bound).mean() == pytest.approx(held, abs=5 * error)


def test_arrows_point_along_the_score() -> None:
    from hdzoo.demo.frames import View, _Background

    target = planar_target("ncsn-toy")
    background = _Background(View("ncsn-toy", target, (0.0, 0.0), 8.0))
    arrows = torch.from_numpy(background.at(1.0).arrows).flatten(1).T
    score = target.score(torch.from_numpy(np.stack(background.feet, -1)).reshape(-1, 2), 1.0)
    cosines = torch.nn.functional.cosine_similarity(arrows, score)
    assert torch.allclose(cosines, torch.ones_like(cosines))
    # The stronger the score, the longer the arrow, and none reaches the next.
    order = score.norm(dim=1).argsort()
    lengths = arrows.norm(dim=1)[order]
    assert (lengths.diff() >= -1e-12).all()
    assert lengths.max() < background.feet[0][0, 1] - background.feet[0][0, 0]


# ---- the numbers ----------------------------------------------------------------------------


def test_the_table_of_a_mixture(small: Demo) -> None:
    first, second, distance = small.table
    assert [row[""] for row in small.table] == ["mode at (5, 5)", "mode at (-5, -5)", "W2"]
    assert (first["exact"], second["exact"]) == ("0.800", "0.200")
    for name in SAMPLERS:
        shares = [float(row[name].split(" ± ")[0]) for row in (first, second)]
        assert sum(shares) == pytest.approx(1, abs=2e-3)
        assert float(distance[name]) > 0


def test_a_good_sampler_is_as_near_as_exact_samples() -> None:
    found = demo_2d("moons", ["annealed-langevin"], num_samples=400, num_frames=2)
    (row,) = found.table
    floor, spread = (float(number) for number in row["exact"].split(" ± "))
    assert abs(float(row["annealed-langevin"]) - floor) < 4 * spread


def test_many_samples_are_compared_by_slices() -> None:
    found = demo_2d("circle", ["langevin"], num_samples=501, num_inference_steps=2, num_frames=2)
    assert [row[""] for row in found.table] == ["sliced W2"]


def test_point_masses_have_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    target = GaussianMixtureScore.from_components([[-1.0, 0.0], [1.0, 0.0]], 0.0)
    monkeypatch.setattr(demo, "planar_target", lambda name: target)
    found = demo_2d("points", ["annealed-langevin"], num_samples=50, num_frames=2)
    shares = [float(row["annealed-langevin"].split(" ± ")[0]) for row in found.table[:2]]
    # A half each, with a standard error of 0.07.
    assert shares == pytest.approx([0.5, 0.5], abs=0.3)


# ---- what is refused ------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown target": ({"target": "moon"}, ["'moon'", "did you mean 'moons'"]),
    "a target on the line": ({"target": "laplace"}, ["'laplace' has dimension 1", *PLANAR]),
    "an unknown sampler": ({"samplers": ["langevine"]}, ["'langevine'", "'langevin'"]),
    "no sampler": ({"samplers": []}, ["at least one"]),
    "a sampler twice": ({"samplers": ["langevin"] * 2}, ["twice", "langevin, langevin"]),
    "one chain": ({"num_samples": 1}, ["num_samples is 1", "from 2"]),
    "one frame": ({"num_frames": 1}, ["num_frames is 1", "from 2"]),
    "no step": ({"num_inference_steps": 0}, ["num_inference_steps is 0", "from 1"]),
    "a negative seed": ({"seed": -1}, ["seed is -1", "from 0"]),
    "an unknown option": (
        {"options": {"step_sise": 1}},
        ["'step_sise'", "annealed-langevin has", "step_size"],
    ),
    "an option of the network": (
        {"options": {"prediction_type": "epsilon"}},
        ["'prediction_type'", "leave it out"],
    ),
    "an option of a wrong type": ({"options": {"num_levels": "many"}}, ["many"]),
    "too few steps": (
        {"options": {"num_levels": 9}, "num_inference_steps": 5},
        ["num_inference_steps is 5", "at least 9"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_refused(case: str) -> None:
    arguments, parts = BAD[case]
    with pytest.raises(HDZooError) as caught:
        demo_2d(**arguments)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_the_planar_targets_are_all_drawn() -> None:
    """So that a new one is tried here as well."""
    planar = [
        name for name in plugins.names("targets") if plugins.get("targets", name)().dimension == 2
    ]
    assert tuple(planar) == PLANAR
    for name in planar:
        found = demo_2d(name, SAMPLERS, num_samples=10, num_inference_steps=4, num_frames=2)
        assert all(chains.states.isfinite().all() for chains in found.chains)


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_same_command_writes_the_same_bytes(run: Any) -> None:
    command = ("demo-2d", "--target", "circle", "-s", "langevin", "-s", "annealed-langevin")
    command += ("-n", 9, "-t", 12, "--frames", 4, "-o", "sigma=0.2", "--seed", 3)
    for name in ("a", "b"):
        code, out, err = run(*command, "-O", f"{name}.gif", "--png", f"{name}.png")
        assert code == 0
        assert out.splitlines()[-1] == f"{name}.gif"
        assert "W2" in out
        assert f"last picture: {name}.png" in err
    assert Path("a.gif").read_bytes() == Path("b.gif").read_bytes()
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    other = run(*command[:-1], 4, "-O", "c.gif")
    assert other[0] == 0
    assert Path("a.gif").read_bytes() != Path("c.gif").read_bytes()


def test_a_mistake_is_one_message_and_writes_nothing(run: Any) -> None:
    code, out, err = run("demo-2d", "--target", "sphere")
    assert (code, out) == (2, "")
    assert err.strip().startswith("error: target 'sphere' has dimension 3")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("package", ["matplotlib", "ot"])
def test_a_missing_package_is_named_with_its_extra(
    run: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "matplotlib":
        for module in ("hdzoo.demo.demo", "hdzoo.demo.frames"):
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr("hdzoo.demo.demo")
    code, out, err = run("demo-2d", "-n", 2, "-t", 2)
    assert (code, out) == (2, "")
    assert f"error: this command needs {package}: pip install 'hdzoo[evaluate]'" in err
