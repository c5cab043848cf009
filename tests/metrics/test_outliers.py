"""Telling other images from a model's data, by a model whose every number is known."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from hdzoo import (
    AnnealedLangevinSampler,
    EnergyModel,
    GaussianMixtureScore,
    HDPipeline,
    HDZooError,
    LangevinSampler,
    NCSNModel,
    UNetScoreModel,
    cli,
    get_sampler,
)
from hdzoo.images.sources import load_images
from hdzoo.metrics.made_images import MADE
from hdzoo.metrics.outliers import find_outliers, judge
from hdzoo.pipelines.generators import sample_generators

SHAPE = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4}
MEAN, STD, NUMBER = 0.3, 0.4, 30


def save(network, folder, **levels):
    sampler = AnnealedLangevinSampler(
        **levels, prediction_type=getattr(network, "prediction_type", "score")
    )
    HDPipeline(network, sampler).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    """An energy about 0.3 that is a parabola, for its inner network gives 0."""
    network = EnergyModel(**SHAPE, data_mean=MEAN, data_std=STD)
    for parameter in network.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    return save(network, tmp_path_factory.mktemp("gaussian"), sigma_max=1.0, sigma_min=0.1)


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """Images with pixels from 155 to 255."""
    folder = tmp_path_factory.mktemp("bright")
    for i in range(NUMBER + 5):
        pixels = np.random.default_rng(i).integers(155, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return str(folder)


def digits(number=NUMBER):
    """As they are read: evenly spread."""
    rows = load_images("digits", "test")["image"]
    chosen = [np.asarray(rows[i * len(rows) // number]) for i in range(number)]
    return torch.from_numpy(np.stack(chosen)).double()[:, None] / 255


def expected(clean, sigma, seed=0):
    """The three statistics, by their formulas."""
    noise = torch.stack(
        [torch.randn(1, 8, 8, generator=one) for one in sample_generators(seed, range(len(clean)))]
    ).double()
    noisy, stiffness = clean + sigma * noise, (sigma / (STD**2 + sigma**2)) ** 2
    score = -stiffness * (noisy - MEAN)
    return {
        "energy": stiffness * (noisy - MEAN).square().flatten(1).sum(1) / 2,
        "score norm": sigma * score.flatten(1).norm(dim=1) / 8,
        "denoising error": (noisy + sigma**2 * score - clean).square().flatten(1).mean(1),
    }


def test_on_a_gaussian_model_all_is_as_the_formulas_say(gaussian, bright):
    seen = []
    report = find_outliers(
        gaussian,
        "digits",
        [bright, "inverted", "flat"],
        sigmas=[0.2, 0.5],
        num_images=NUMBER,
        outside_split="train",
        seed=3,
        batch_size=13,
        on_progress=lambda *step: seen.append(step),
    )
    assert seen[0] == ("evaluations", 0, 240)
    assert seen[-1] == ("evaluations", 240, 240)
    assert len(report.findings) == 18
    pixels = np.stack([np.asarray(rows) for rows in load_images(bright, "train")["image"]])
    chosen = [i * len(pixels) // NUMBER for i in range(NUMBER)]
    others = {
        bright: torch.from_numpy(pixels[chosen]).double()[:, None] / 255,
        "inverted": 1 - digits(),
        "flat": MADE["flat"](digits(), 0.0, 1.0),
    }
    for found in report.findings:
        inside = expected(digits(), found.sigma, 3)[found.statistic]
        outside = expected(others[found.outside], found.sigma, 3)[found.statistic]
        area = roc_auc_score(np.repeat([0, 1], NUMBER), torch.cat([inside, outside]))
        # float32 may turn the order of the two numbers of a pair or two of 900.
        assert found.auroc == pytest.approx(area, abs=2 / 900)
        assert found.inside_median == pytest.approx(float(inside.median()), rel=1e-4)
        assert found.outside_median == pytest.approx(float(outside.median()), rel=1e-4)


def test_the_failure_on_simple_images_is_said(gaussian):
    """Flat greys are nearer to the mean of the data than digits are."""
    report = find_outliers(gaussian, "digits", ["flat", "inverted"], sigmas=[0.5], num_images=200)
    by = {(found.outside, found.statistic): found for found in report.findings}
    assert by["flat", "energy"].is_failure
    assert by["flat", "energy"].auroc < 0.4
    said = [line for line in report.legend() if line.startswith("Below chance")]
    assert len(said) == 1
    assert "flat, taken for more like the data than the data are, by energy at 0.5" in said[0]
    assert not by["inverted", "energy"].is_failure


def test_another_backend_finds_the_same_and_is_said(tmp_path):
    model = save(UNetScoreModel(**SHAPE), tmp_path / "a", sigma_max=1.0, sigma_min=0.1)
    settings = {"sigmas": [0.5], "num_images": 20}
    one, other = (
        find_outliers(model, "digits", ["noise"], backend=backend, **settings)
        for backend in ("torch", "onnxruntime")
    )
    assert one.backend == "torch"
    assert other.backend.startswith("onnxruntime 1.")
    for expected, found in zip(one.findings, other.findings, strict=True):
        # Of some thousand float32 roundings.
        assert found.inside_median == pytest.approx(expected.inside_median, rel=1e-4)


def test_a_denoiser_and_a_ladder_have_no_energy_and_the_rest(tmp_path):
    denoiser = save(UNetScoreModel(**SHAPE), tmp_path / "a", sigma_max=1.0, sigma_min=0.1)
    assert find_outliers(denoiser, "digits", ["noise"], sigmas=[0.5]).num_images == 297
    report = find_outliers(denoiser, "digits", ["noise"], num_images=20)
    assert report.sigmas == [0.05, 0.2, 0.5, 1.0]
    assert {found.statistic for found in report.findings} == {"score norm", "denoising error"}
    ladder = NCSNModel(8, 1, base_channels=8, num_levels=10)
    report = find_outliers(
        save(ladder, tmp_path / "b", sigmas=ladder.sigmas.tolist()),
        "digits",
        ["noise"],
        num_images=20,
    )
    assert report.sigmas == pytest.approx(ladder.sigmas[[0, 3, 6, 9]].tolist())
    for row in report.rows():
        assert list(row) == ["outside", "noise level", "score norm", "denoising error"]


def test_a_network_of_diffusers_in_its_own_coordinates(tmp_path):
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        add_attention=False,
    )
    # It predicts that all of its input is noise, of which there is x / sqrt(1 + sigma^2).
    network.forward = lambda sample, *_, **__: (sample,)
    pipe = HDPipeline(network, get_sampler("heun").from_config(DDPMScheduler().config))
    clean, noise = torch.randn(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = judge(pipe, clean, noise, 0.5)
    assert list(found) == ["score norm", "denoising error"]
    level = (clean + 0.5 * noise) / 1.25**0.5
    expected = level.flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(found["score norm"], expected, rtol=1e-5, atol=0)


def test_images_do_not_depend_on_their_batch(gaussian):
    one, other = (
        find_outliers(
            gaussian, "digits", ["noise"], sigmas=[0.5], num_images=12, batch_size=size
        ).findings
        for size in (5, 12)
    )
    for a, b in zip(one, other, strict=True):
        assert a.auroc == b.auroc
        assert a.inside_median == pytest.approx(b.inside_median, rel=1e-5)


def test_made_images():
    images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made = {name: make(images, -1.0, 1.0) for name, make in MADE.items()}
    for name, pictures in made.items():
        assert pictures.shape == images.shape
        assert pictures.dtype == images.dtype
        assert pictures.min() >= -1
        assert pictures.max() <= 1
        assert not torch.equal(pictures, images)
        assert torch.equal(pictures, MADE[name](images, -1.0, 1.0))
    assert torch.equal(made["inverted"], -images)
    # One order for all images and channels: the places of the 24 pixels are the same.
    assert torch.equal(made["permuted"].flatten(2).sort().values, images.flatten(2).sort().values)
    places = (made["permuted"].flatten(2)[..., None] == images.flatten(2)[..., None, :]).int()
    assert (places == places[0, 0]).all()
    assert made["flat"].flatten(2).std(-1).max() == 0
    assert made["flat"][:, 0, 0, 0].unique().numel() == 5
    # The standard deviation of a uniform law on [-1, 1] is 0.577.
    assert abs(made["noise"].std() - 3**-0.5) < 0.05


def test_the_command(gaussian, tmp_path):
    path = tmp_path / "report.json"
    words = ["ood", gaussian, "--in", "digits", "--out", "noise", "--out", "flat", "-n", "20"]
    done = CliRunner().invoke(cli.app, [*words, "--sigma", "0.5", "--json", "-O", str(path)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report == json.loads(path.read_text())
    assert report["sigmas"] == [0.5]
    assert report["num_images"] == 20
    assert [one["source"] for one in report["outside"]] == ["noise", "flat"]
    assert len(report["weights_sha256"]) == 64
    assert "torch" in report["versions"]
    done = CliRunner().invoke(cli.app, [*words, "--sigma", "0.5"])
    assert "energy" in done.stdout
    assert "AUROC ± standard error, 20 images" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outside": []}, "outside is empty; give each set once"),
        ({"outside": ["noise", "noise"]}, "give each set once: noise, flat"),
        ({"outside": ["nowhere/at all"]}, "cannot load images from 'nowhere/at all'"),
        ({"num_images": 1}, "num_images is 1"),
        ({"num_images": 10**6}, "num_images is 1,000,000 and digits has 297 images"),
        ({"sigmas": [50.0]}, "noise levels from 0.01 to 10"),
        ({"sigmas": [0.0]}, r"sigmas\[0\] is 0"),
        ({"sigmas": []}, "sigmas has 0 values"),
        ({"sigmas": [0.5, 0.2, 0.5]}, "give each noise level once"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"backend": "tpu"}, "unknown backend 'tpu'"),
    ],
)
def test_errors(options, words, gaussian):
    given = {"outside": ["noise"], "num_images": 10} | options
    with pytest.raises(HDZooError, match=words):
        find_outliers(gaussian, "digits", **given)


def test_a_model_of_points_is_refused(tmp_path):
    pipe = HDPipeline(
        GaussianMixtureScore.from_components(torch.zeros(1, 2), torch.ones(1, 2)),
        LangevinSampler(sigma=1.0),
    )
    pipe.save_pretrained(tmp_path)
    with pytest.raises(HDZooError, match="no network for square images of one size"):
        find_outliers(tmp_path, "digits", ["noise"])


def test_an_energy_that_is_not_finite_is_refused(gaussian, monkeypatch):
    energy = EnergyModel.energy
    monkeypatch.setattr(EnergyModel, "energy", lambda *args: energy(*args) / 0)
    with pytest.raises(HDZooError, match=r"energy at noise level 0.5 does not .* finite"):
        find_outliers(gaussian, "digits", ["noise"], sigmas=[0.5], num_images=10)
