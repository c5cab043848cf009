"""Comparisons: equal cost and noise for all, failures as entries, the same result when resumed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import zoo
from PIL import Image

from hdzoo import HDPipeline, get_sampler, plugins
from hdzoo.errors import HDZooError
from hdzoo.generation import generate as generation
from hdzoo.generation.manifest import read_manifest
from hdzoo.images.sources import load_images
from hdzoo.leaderboard import compare as comparing
from hdzoo.leaderboard.compare import compare
from hdzoo.leaderboard.pages import PICTURES, rows, write_page, write_pictures
from hdzoo.leaderboard.settings import Settings
from hdzoo.leaderboard.tuning import candidates, search_space
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.reference import make_reference
from hdzoo.samplers.langevin import AnnealedLangevinSampler

SAMPLERS = ("alpha-half-denoising", "example-ddim", "half-denoising")
SETTINGS = {
    "samplers": SAMPLERS,
    "num_inference_steps": (8, 12),
    "num_images": 40,
    "trials": 2,
    "trial_images": 20,
    "chunk_size": 20,
    "metrics": ("fid",),
}
# A part of it: one that starts from noise, and one from images of another.
FEW = SETTINGS | {"samplers": (SAMPLERS[0], SAMPLERS[2]), "num_inference_steps": (8,)}


class DivergingSampler(AnnealedLangevinSampler):
    """Doubles the state at each step, hundreds of times."""

    def step(self, *args, **kwargs):
        (state,) = super().step(*args, **kwargs | {"return_dict": False})
        return (state * 1e30,)


class BrokenSampler(AnnealedLangevinSampler):
    """Raises what no user should see."""

    def step(self, *args, **kwargs):
        return {}["a bug in a plugin"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def model(tiny_model):
    """The tiny model with a reference."""
    folder = tiny_model
    images = load_images("digits").select(range(200))
    images.to_parquet(folder / "digits.parquet")
    extractor = get_extractor("digits", device="cpu")
    real = open_images(folder / "digits.parquet")
    make_reference(real, extractor).save(folder / "reference-digits.safetensors")
    return folder


@pytest.fixture(scope="module")
def told():
    """What `board` has told meanwhile: notes, and progress over all."""
    return {"notes": [], "progress": []}


@pytest.fixture(scope="module")
def board(model, told, tmp_path_factory):
    """A comparison in one go; not to be changed."""
    folder = tmp_path_factory.mktemp("boards") / "whole"

    def on_progress(what, done, total):
        if what == comparing.ALL:
            told["progress"].append((done, total))

    board = compare(
        model,
        folder,
        on_entry=write_page,
        on_progress=on_progress,
        on_note=told["notes"].append,
        **SETTINGS,
    )
    write_pictures(board)
    return board


def part(board):
    """What `FEW` makes of it."""
    entries = [entry for entry in board.at(8) if entry.sampler in FEW["samplers"]]
    return dataclasses.replace(board, entries=entries)


def summary(board):
    """What a comparison says, but for times and folders."""
    content = json.loads(json.dumps(board.to_dict()))
    for entry in content["entries"]:
        del entry["images"]
        if entry["report"] is not None:
            del entry["report"]["seconds"], entry["report"]["images"]["source"]
    del content["protocol"]["command"]
    return content


# ---- what is compared -----------------------------------------------------------------------


def test_every_sampler_has_the_same_cost_seed_and_number_of_images(board):
    assert [(e.num_inference_steps, e.sampler) for e in sorted(board.entries, key=str)]
    assert len(board.entries) == 6
    for entry in board.entries:
        manifest = read_manifest(entry.images)
        spent = manifest["num_inference_steps"] + manifest["start_num_inference_steps"]
        assert spent == entry.num_inference_steps
        assert (manifest["seed"], manifest["num_images"]) == (0, 40)
        assert entry.report.images["num_images"] == 40
        assert manifest["started_from"] == (
            "AnnealedLangevinSampler" if entry.sampler == "half-denoising" else "noise"
        )


def test_trials_have_another_seed_and_equal_budgets(board):
    for entry in board.entries:
        assert len(entry.trials) <= 2
        for number, trial in enumerate(entry.trials):
            name = f"{entry.sampler}-{entry.num_inference_steps}-{number}"
            manifest = read_manifest(board.folder / "trials" / name)
            spent = manifest["num_inference_steps"] + manifest["start_num_inference_steps"]
            assert spent == entry.num_inference_steps
            assert (manifest["seed"], manifest["num_images"]) == (1, 20)
            for key, value in trial.options.items():
                assert manifest["sampler_options"][key] == value
        if entry.trials:
            best = min(entry.trials, key=lambda trial: trial.value)
            assert entry.options == best.options
    # Step sizes of the one, ends of the ladder of the other.
    tried = {entry.sampler: len(entry.trials) for entry in board.entries}
    assert tried["alpha-half-denoising"] == tried["example-ddim"] == 2


def test_entries_are_ranked_and_differences_have_both_signs(board):
    for cost in (8, 12):
        values = [entry.objective.value for entry in board.at(cost)]
        assert values == sorted(values)
    for found in board.to_dict()["differences"]:
        assert found["value"] >= 0
        assert found["tie"] == (found["value"] <= found["spread"] or min(found["halves"]) < 0)


def test_the_pages_say_it_all(board):
    text = (board.folder / "leaderboard.md").read_text()
    for entry in board.entries:
        assert f"| {entry.sampler} |" in text
        assert f"{entry.objective.value:.4g} ± {entry.objective.spread:.2g}" in text
    assert "40 images of each, seed 0" in text
    assert "at most 2 configurations of 20 images, seed 1" in text
    saved = json.loads((board.folder / "leaderboard.json").read_text())
    assert saved == json.loads(json.dumps(board.to_dict()))
    with Image.open(board.folder / "samples.png") as picture:
        # A row for each sampler, a column for each image.
        assert picture.width / picture.height > PICTURES / len(SAMPLERS)


def test_a_column_starts_from_the_same_noise(model, monkeypatch, tmp_path):
    starts = {}
    first_state = HDPipeline._first_state

    def record(self, batch_size, *args):
        state = first_state(self, batch_size, *args)
        starts.setdefault(type(self.scheduler).__name__, state / self.scheduler.init_noise_sigma)
        return state

    monkeypatch.setattr(HDPipeline, "_first_state", record)
    settings = FEW | {"trials": 0, "num_images": 20}
    settings["samplers"] = (*SAMPLERS[:2], "annealed-langevin")
    compare(model, tmp_path / "board", **settings)
    one, *others = starts.values()
    assert len(others) == 2
    for other in others:
        torch.testing.assert_close(one, other)


# ---- failures -------------------------------------------------------------------------------


def test_a_sampler_that_fails_is_an_entry_that_says_so(model, tmp_path, monkeypatch):
    registered = plugins._registry().things["samplers"]
    info = plugins.provider("samplers", "langevin")
    monkeypatch.setitem(registered, "diverging", (info, DivergingSampler))
    monkeypatch.setitem(registered, "broken", (info, BrokenSampler))
    settings = SETTINGS | {"samplers": ["diverging", "broken", "annealed-langevin"]}
    # What is tuned by is what is ranked by, and more of it is better.
    settings |= {"rank_by": "precision"}
    board = compare(
        model,
        tmp_path / "board",
        on_entry=write_page,
        **settings | {"num_inference_steps": (2, 8), "num_images": 20},
    )
    (alone,) = board.at(8)
    assert (alone.sampler, alone.objective.metric) == ("annealed-langevin", "precision")
    assert alone.options == max(alone.trials, key=lambda trial: trial.value).options
    assert {result.metric for result in alone.report.results} == {"fid", "precision", "recall"}
    found = {(e.sampler, e.num_inference_steps): e.failure for e in board.entries}
    assert "not finite" in found["diverging", 8]
    assert "KeyError: 'a bug in a plugin'" in found["broken", 8]
    # Two evaluations are too few for four levels, but not for a tuned ladder.
    assert found["annealed-langevin", 2] is None
    shown = rows(board, 8)
    assert [row["sampler"] for row in shown] == ["annealed-langevin", "diverging", "broken"]
    assert shown[1]["minus the best"].startswith("failed: ")
    assert "failed: " in (tmp_path / "board" / "leaderboard.md").read_text()


def test_a_comparison_of_failures_alone_is_a_page(model, tmp_path):
    settings = SETTINGS | {"samplers": ["alpha-half-denoising"], "num_inference_steps": (2,)}
    board = compare(model, tmp_path / "board", on_entry=write_page, **settings | {"trials": 0})
    write_pictures(board)
    assert "needs at least 4" in board.entries[0].failure
    assert "needs at least 4" in (tmp_path / "board" / "leaderboard.md").read_text()
    assert not (tmp_path / "board" / "quality.png").exists()


# ---- how long it takes ----------------------------------------------------------------------


def evaluations_of(board):
    """What the sets of a comparison have cost, from their manifests."""
    return sum(
        manifest["num_images"]
        * (manifest["num_inference_steps"] + manifest["start_num_inference_steps"])
        for kind in ("sets", "trials")
        for manifest in map(read_manifest, (board.folder / kind).iterdir())
    )


def test_what_is_left_is_told_in_network_evaluations(board, told):
    # 3 samplers, (2 x 20 + 40) images of each, at 8 and at 12 evaluations.
    assert any("at most 4,800 network evaluations" in note for note in told["notes"])
    assert told["progress"][0] == (0, 4800)
    done, total = zip(*told["progress"], strict=True)
    assert list(done) == sorted(done)
    # It may become less, never more. Each of these has options for two trials.
    assert list(total) == sorted(total, reverse=True)
    assert done[-1] == total[-1] == evaluations_of(board) == 4800


@pytest.mark.parametrize(
    ("given", "used"),
    [({}, 250), ({"num_images": 64}, 64), ({"num_images": 64, "trial_images": 20}, 20)],
)
def test_samplers_are_tuned_on_no_more_images_than_are_judged(given, used):
    assert Settings(**given).trial_images == used
    with pytest.raises(HDZooError, match="trial_images is 65 and num_images is 64"):
        Settings(num_images=64, trial_images=65)


# ---- going on -------------------------------------------------------------------------------


def test_a_finished_comparison_draws_and_judges_nothing(model, board, monkeypatch, tmp_path):
    folder = shutil.copytree(board.folder, tmp_path / "copy")

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr(generation, "draw_batch", refuse)
    monkeypatch.setattr(comparing, "evaluate", refuse)
    assert summary(compare(model, folder, **SETTINGS)) == summary(board)


def test_an_interrupted_comparison_ends_with_the_same_result(model, board, monkeypatch, tmp_path):
    draw, calls = generation.draw_batch, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) in (2, 5, 8):
            raise KeyboardInterrupt
        return draw(*args, **kwargs)

    monkeypatch.setattr(generation, "draw_batch", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            compare(model, tmp_path / "board", **FEW)
    told = []
    again = compare(model, tmp_path / "board", on_progress=lambda *work: told.append(work), **FEW)
    assert summary(again) == summary(part(board))
    # What was there already is no work that is left.
    (*_, last) = (work[1:] for work in told if work[0] == comparing.ALL)
    assert 0 < last[0] == last[1] < evaluations_of(again)


def test_two_processes_find_the_same(model, board, start_processes, tmp_path):
    processes = start_processes(
        2,
        "compare",
        model,
        *("-O", tmp_path / "board", "-n", 40, "--chunk-size", 20),
        *("--trials", 2, "--trial-images", 20),
        *(f"-s{name}" for name in FEW["samplers"]),
        *("-t", 8, "--metric", "fid"),
    )
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], start_processes.log.read_text()
    found = json.loads((tmp_path / "board" / "leaderboard.json").read_text())
    for one, other in zip(found["entries"], part(board).to_dict()["entries"], strict=True):
        assert one["sampler"] == other["sampler"]
        assert one["options"] == other["options"]
        value = one["report"]["results"][0]["value"]
        # Features are computed by as many threads as a process has.
        assert value == pytest.approx(other["report"]["results"][0]["value"], rel=1e-4)
    for folder in ("sets", "trials"):
        shards = list((tmp_path / "board" / folder).rglob("*.parquet"))
        # Two of each set in `sets`, and one of each of the two trials.
        assert len(shards) == 4
        for shard in shards:
            twin = board.folder / shard.relative_to(tmp_path / "board")
            assert twin.read_bytes() == shard.read_bytes()


def test_another_protocol_is_refused(model, board, tmp_path):
    folder = shutil.copytree(board.folder, tmp_path / "copy")
    with pytest.raises(HDZooError, match="another protocol: seed was 0 and is 2"):
        compare(model, folder, **SETTINGS | {"seed": 2})
    config = model / "unet" / "config.json"
    before = config.read_text()
    # The same weights, and another network.
    config.write_text(json.dumps(json.loads(before) | {"data_std": 0.4}))
    try:
        with pytest.raises(HDZooError, match=r"network_options\.data_std was .* and is 0\.4"):
            compare(model, folder, **SETTINGS)
    finally:
        config.write_text(before)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").touch()
    with pytest.raises(HDZooError, match=r"not empty and has no protocol\.json"):
        compare(model, tmp_path / "other", **SETTINGS)
    assert json.loads((folder / "protocol.json").read_text())["seed"] == 0


def test_a_link_in_the_place_of_a_set_is_not_followed(model, board, tmp_path):
    folder = shutil.copytree(board.folder, tmp_path / "copy")
    victim, linked = tmp_path / "victim", folder / "sets" / "example-ddim-8"
    victim.mkdir()
    shutil.rmtree(linked)
    linked.symlink_to(victim)
    made = compare(model, folder, **FEW | {"samplers": ("example-ddim",)})
    (failed,) = (entry for entry in made.entries if entry.failure)
    assert (failed.sampler, failed.num_inference_steps) == ("example-ddim", 8)
    assert "example-ddim-8 is a link, to " in failed.failure
    assert not list(victim.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1}, "seed and trial_seed are both 1"),
        ({"trials": -1}, "trials is -1"),
        ({"rank_by": "kid"}, "rank_by is 'kid'; allowed are 'fid', 'wfid', 'tv', 'precision'"),
        ({"rank_by": ["tv"]}, "rank_by is"),
        ({"num_inference_steps": (1, 8)}, "a whole number from 2"),
        ({"samplers": ["no-such-sampler"]}, "no-such-sampler"),
        ({"reference": "nowhere.safetensors"}, "there is no reference 'nowhere.safetensors'"),
        ({"options": {"step_sise": 1e-5}}, "none of .* has an option 'step_sise'"),
    ],
)
def test_what_does_not_fit_is_refused(model, tmp_path, arguments, message):
    with pytest.raises(HDZooError, match=message):
        compare(model, tmp_path / "board", **SETTINGS | arguments)
    assert not (tmp_path / "board").exists()


def test_a_model_without_a_reference_needs_one(model, tmp_path):
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "reference-digits.safetensors").unlink()
    with pytest.raises(HDZooError, match=r"features none.*or give a reference yourself: images"):
        compare(bare, tmp_path / "board", **SETTINGS)
    settings = {"reference": str(bare / "digits.parquet"), "reference_split": "train"}
    with pytest.raises(HDZooError, match="need the name of their features"):
        compare(bare, tmp_path / "board", **SETTINGS | settings)
    board = compare(
        bare,
        tmp_path / "board",
        **FEW | settings | {"features": "digits", "samplers": ["langevin"], "trials": 0},
    )
    assert board.entries[0].report.reference["num_images"] == 200


# ---- the search -----------------------------------------------------------------------------


@pytest.fixture
def pipe(model):
    return HDPipeline.from_pretrained(model)


@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_every_candidate_is_possible_and_in_its_range(pipe, name):
    pipe.scheduler = get_sampler(name).from_config(pipe.scheduler.config)
    space = search_space(pipe.scheduler, 60)
    found = candidates(pipe, 60, 8, {})
    assert len(found) <= 8
    assert found[0] == {}
    for options in found:
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **options)
        scheduler.set_timesteps(60)
        assert len(scheduler.timesteps) == 60
        last = float(scheduler.sigmas[-2])
        for key, value in options.items():
            low, high = space[key]
            found_value = value / last**2 if key == "step_size" else value
            assert low * 0.99 <= found_value <= high * 1.01
    assert len({str(options) for options in found}) == len(found)
    if space and name != "example-ddim":
        assert len(found) == 8


def test_given_options_are_not_tuned(pipe):
    found = candidates(pipe, 60, 8, {"step_size": 3e-5})
    assert all("step_size" not in options for options in found)
    assert len(found) == 8


FIXED = {"num_levels": 4, "sigma_max": 2.0, "sigma_min": 0.01}


def test_a_step_size_is_in_units_of_the_last_level_that_is_tried(pipe):
    for options in candidates(pipe, 60, 30, {})[1:]:
        assert 0.049 < options["step_size"] / options["sigma_min"] ** 2 < 1.01
    assert len({options["sigma_min"] for options in candidates(pipe, 60, 30, {})[1:]}) == 29


def test_amounts_of_noise_are_tuned_where_there_is_some(pipe):
    solver = HDPipeline(
        pipe.unet, get_sampler("dpm-solver-pp-2m").from_config(pipe.scheduler.config)
    )
    ranges = {"sigma_max", "sigma_min"}
    assert set(search_space(solver.scheduler, 10)) == ranges | {"eta", "noise_scale"}
    found = candidates(solver, 10, 20, {})
    assert len({options.get("eta") for options in found}) == 20
    assert all(1 <= o["eta"] <= 16 and 1 <= o["noise_scale"] <= 1.1 for o in found[1:])
    # Of one ladder, so that the amounts alone tell the chains apart.
    alike = candidates(solver, 10, 20, {"sigma_max": 2.0, "sigma_min": 0.1})
    assert len({options.get("eta") for options in alike}) == len(alike) == 20
    silent = type(solver.scheduler).from_config(solver.scheduler.config, eta=0.0, noise_scale=0.0)
    assert set(search_space(silent, 10)) == ranges


def test_step_sizes_are_spread_evenly_over_their_range(pipe):
    etas = np.array(
        [options["step_size"] / 1e-4 for options in candidates(pipe, 60, 17, FIXED)[1:]]
    )
    # Sixteen points of a Sobol sequence: one in each sixteenth.
    places = np.log(etas / 0.05) / np.log(20) * 16
    assert sorted(places.astype(int)) == list(range(16))


# ---- the command ----------------------------------------------------------------------------


def test_the_command_prints_a_table_and_goes_on(run, model, board, tmp_path, monkeypatch):
    folder = shutil.copytree(board.folder, tmp_path / "copy")
    arguments = ["-O", folder, "-n", 40, "--chunk-size", 20, "--trials", 2, "--trial-images", 20]
    arguments += [f"-s{name}" for name in FEW["samplers"]] + ["-t", 8, "-t", 12, "--metric", "fid"]
    monkeypatch.setenv("COLUMNS", "200")
    code, printed, _ = run("compare", model, *arguments)
    assert code == 0
    assert printed.count("minus the best") == 2
    assert str(folder / "leaderboard.md") in printed.replace("\n", "")
