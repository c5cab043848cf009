"""The frontier: what each contender is, that a run goes on, and what is said of ties."""

import dataclasses
import json
from pathlib import Path

import pytest

from hdzoo import HDPipeline, get_preset, get_sampler
from hdzoo.errors import HDZooError
from hdzoo.generation.manifest import read_manifest
from hdzoo.images.sources import load_images
from hdzoo.leaderboard.board import Entry
from hdzoo.literature.base import reproduce
from hdzoo.literature.frontier import CONTENDERS, LANGEVIN, METRICS, Frontier, contenders, run
from hdzoo.metrics.comparison import EqualSize, Result
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.reference import make_reference
from hdzoo.metrics.report import Report

TWO = ["preset fast", "second-order consistent annealing"]
SMALL = {"num_images": 20, "trials": 2, "trial_images": 20, "chunk_size": 20}


@pytest.fixture(scope="module")
def model(tiny_model):
    images = load_images("digits").select(range(100))
    images.to_parquet(tiny_model / "digits.parquet")
    real = open_images(tiny_model / "digits.parquet")
    reference = make_reference(real, get_extractor("digits", device="cpu"))
    reference.save(tiny_model / "reference-digits.safetensors")
    return tiny_model


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    """A small run: its folder, its result, and what it told."""
    folder, told = tmp_path_factory.mktemp("frontier"), []
    options = {"model": str(model), "budgets": [5, 10], "samplers": TWO, **SMALL}
    result = reproduce("frontier", folder, "hdzoo", lambda *said: told.append(said), options)
    return folder, result, told, options


def test_it_writes_a_figure_numbers_and_tables(found):
    folder, result, _, _ = found
    assert (folder / "frontier.png").stat().st_size > 10_000
    rows = json.loads((folder / "frontier.json").read_text())["numbers"]["entries"]
    at = [(row["contender"], row["num_inference_steps"]) for row in rows]
    # A preset is at its own cost alone.
    assert sorted(at) == [("preset fast", 10), (TWO[1], 5), (TWO[1], 10)]
    # Images of random weights are of one class, so that nothing spreads its share.
    assert all(row[metric]["spread"] > 0 for row in rows for metric in ("fid", "wfid"))
    page = (folder / "frontier.md").read_text()
    assert all(f"## {metric}\n" in page for metric in METRICS)
    assert "20 images of each" in page
    assert [claim.statement for claim in result.claims] == ["10 evaluations: the best of 2 by wfid"]


def test_none_is_judged_on_seeds_that_it_was_tuned_on(found):
    folder, result, _, _ = found
    seeds = {"sets": set(), "trials": set()}
    for path in folder.glob("frontier/*/*/*/manifest.json"):
        seeds[path.parts[-3]].add(read_manifest(path.parent)["seed"])
    assert seeds == {"sets": {0}, "trials": {1}}
    trials = {row["contender"]: len(row["trials"]) for row in result.numbers["entries"]}
    assert trials == {"preset fast": 0, TWO[1]: 2}


def test_it_goes_on_where_it_stopped(found, monkeypatch, tmp_path):
    folder, result, _, options = found

    def fails(*_, **__):
        raise AssertionError("drawn anew")

    monkeypatch.setattr("hdzoo.generation.generate.draw_batch", fails)
    again = reproduce("frontier", folder, "hdzoo", lambda *_: None, options)
    assert again.numbers == result.numbers


def test_contenders_are_what_their_names_say():
    pipe = HDPipeline.from_pretrained("ncsn-mnist")

    def chain(name, steps=10):
        one = contenders("ncsn-mnist")[name]
        sampler = get_sampler(one.sampler).from_config(pipe.scheduler.config, **one.options)
        sampler.set_timesteps(steps)
        return sampler

    for name in CONTENDERS:
        levels = chain(name, 200).levels
        assert levels[0] == 5
        # The last is raised too.
        assert levels[-2] == 0.01 or (name == "Heun, churn" and 0.01 < levels[-2] < 0.0142)
    for name in ("Heun", "DPM-Solver++ 2M", "UniPC"):
        assert all(move.noise == 0 for move in chain(name).moves)
    raised = [move for move in chain("Heun, churn").moves if move.noise > 0]
    assert raised
    sde = chain("DPM-Solver++ 2M SDE")
    # exp(-2h) of the noise below goes, of a variance that is its square.
    ratio = sde.levels[1] / sde.levels[0]
    assert sde.moves[0].noise == pytest.approx(sde.levels[1] * (1 - ratio**2) ** 0.5)
    assert chain(LANGEVIN, 200).config.readout is None
    for preset in ("fast", "balanced", "best"):
        own = get_preset(preset).for_model(pipe)
        number = get_preset(preset).num_inference_steps
        own.set_timesteps(number)
        assert chain(f"preset {preset}", number).moves == own.moves
        assert contenders("ncsn-mnist")[f"preset {preset}"].budgets == (number,)


def test_who_is_none_is_refused(model, tmp_path):
    with pytest.raises(HDZooError, match=r"samplers\[0\] is 'DEIS'; allowed are 'preset fast'"):
        run(lambda *_: None, folder=tmp_path, model=str(model), samplers=["DEIS"])
    with pytest.raises(HDZooError, match="seed and trial_seed are both 1"):
        run(lambda *_: None, folder=tmp_path, model=str(model), samplers=TWO, seed=1)


# ---- what is said ---------------------------------------------------------------------------


def entry(budget: int, value: float, spread: float = 0.01, halves: int = 1) -> Entry:
    """An entry whose every metric is a value; ``spread`` is about that of its differences."""
    blocks = tuple(value + spread * (i % 2 - 0.5) * (1 + value) for i in range(10))
    size = EqualSize(50, value, 0.0, 0.1, 0.0)
    ends = (value, value) if halves == 1 else (value - 10, value + 10)
    results = [
        Result(m, m, value, spread, "2 standard errors", 100, 100, size, ends, blocks)
        for m in METRICS
    ]
    report = Report({}, {}, {}, 0, results, [], {}, None, 0.0)
    return Entry("heun", budget, 0, {}, [], Path("set"), report, None, "wfid")


def test_ties_are_named_and_differences_are_not():
    board = Frontier({"a": [entry(10, 1.0)], "b": [entry(10, 2.0)], "c": [entry(10, 1.5)]}, "wfid")
    assert list(board.at(10)) == ["a", "c", "b"]
    (claim,) = board.claims()
    assert claim.found == "a, 1 ± 0.01; no tie"
    # Another sign in one half.
    board = Frontier({"a": [entry(10, 1.0)], "b": [entry(10, 2.0, halves=2)]}, "wfid")
    (claim,) = board.claims()
    assert claim.found.endswith("cannot be told from it: b")
    assert "tie" in board.page("m", SMALL)
    failed = dataclasses.replace(entry(10, 0.0), report=None, failure="it broke")
    board = Frontier({"a": [entry(10, 1.0)], "b": [failed]}, "wfid")
    assert list(board.at(10)) == ["a"]
    page = board.page("m", SMALL)
    assert "* b at 10: it broke" in page
    assert "| b | failed |" in page


@pytest.mark.parametrize(("few", "agrees"), [(0.5, True), (1.0, True), (1.5, False)])
def test_few_evaluations_against_many(few, agrees):
    entries = {"a": [entry(10, few)], LANGEVIN: [entry(10, 9.0), entry(1000, 1.0)]}
    claims = Frontier(entries, "wfid").claims()
    assert [c.agrees for c in claims if "minus" in c.statement] == [agrees, agrees]
    assert "a at 10 minus annealed Langevin (Algorithm 1) at 1000" in claims[-1].statement
