"""`hdzoo verify`: every registered sampler passes, and no broken one does."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import zoo

from hdzoo import get_sampler, plugins
from hdzoo.errors import HDZooError
from hdzoo.samplers import metropolis
from hdzoo.samplers.base import Move, Sampler
from hdzoo.verification import closed_form
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.verify import (
    CHECKS,
    Verdict,
    conclusions,
    run_check,
    summary_rows,
    verify,
)

# The contract's clauses have tests of their own.
LAWS = [check for check in CHECKS if check not in CONTRACT]
# What a sampler has no say on: one that adjusts is not affine, and no other declares what it stays
# in.
SILENT = {"mala": {"exact-law", "limit", "bias", "monte-carlo"}}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 200 configurations in each kind of coordinates, which `hdzoo verify` tries."""
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 15)


@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_every_sampler_passes(name: str, few: None) -> None:
    verdicts = [run_check(name, check) for check in LAWS]
    silent = SILENT.get(name, {"stationary-law"})
    for verdict in verdicts:
        expected = "not applicable" if verdict.check in silent else "pass"
        assert verdict.outcome == expected, verdict.message
    assert conclusions(verdicts) == {name: "pass"}
    if "exact-law" not in silent:
        (numbers,) = [verdict.numbers for verdict in verdicts if verdict.check == "exact-law"]
        assert numbers["coordinates"] == ["VE", "VP"]
        assert numbers["largest_relative_deviation"] <= 1e-10


# ---- broken samplers ------------------------------------------------------------------------

Moves = list[Move]


def louder(moves: Moves) -> Moves:
    """Twice the variance of the noise."""
    return [move._replace(noise=2**0.5 * move.noise) for move in moves]


def published_as_standard_deviation(moves: Moves) -> Moves:
    """2 alpha taken for the standard deviation of the noise."""
    return [move._replace(noise=move.noise**2) for move in moves]


def next_level(moves: Moves) -> Moves:
    """The network is asked at the level that comes after; on one level, at a little less."""
    levels = [*[move.sigma for move in moves[1:]], 0.9 * moves[-1].sigma]
    return [m._replace(sigma=sigma) for m, sigma in zip(moves, levels, strict=True)]


def first_level_step(moves: Moves) -> Moves:
    """A step size in proportion to sigma, not to its square."""
    return [m._replace(alpha=m.alpha * 0.7 * m.sigma**-0.5) for m in moves]


def noise_at_the_end(moves: Moves) -> Moves:
    """Noise after the last step; none, where there should be some."""
    last = moves[-1]
    return [*moves[:-1], last._replace(noise=0.0 if last.noise else last.sigma)]


def swapped(moves: Moves) -> Moves:
    """The coefficients of score and noise in each other's place."""
    return [move._replace(alpha=move.noise + 0.01, noise=move.alpha) for move in moves]


def no_drift_at_the_end(moves: Moves) -> Moves:
    return [*moves[:-1], moves[-1]._replace(alpha=0.5 * moves[-1].alpha)]


def last_level_left_out(moves: Moves) -> Moves:
    """The loop ends one evaluation early, and repeats the first."""
    return [moves[0], *moves[:-1]]


def percent(moves: Moves) -> Moves:
    """One in a thousand off, which no picture shows."""
    return [move._replace(alpha=1.001 * move.alpha) for move in moves]


def planned(change: Callable[[Moves], Moves]) -> Callable[[type[Sampler]], type[Sampler]]:
    def broken(base: type[Sampler]) -> type[Sampler]:
        class Broken(base):  # type: ignore[misc, valid-type]
            def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Moves:
                return change(super().plan(sigmas, counts))

        return Broken

    return broken


def batch_mean_step(base: type[Sampler]) -> type[Sampler]:
    """The step is scaled by a norm that is averaged over the batch, as in published code."""

    class Broken(base):  # type: ignore[misc, valid-type]
        def step(self, model_output: Any, timestep: Any, sample: Any, *args: Any, **kw: Any) -> Any:
            norms = model_output.flatten(1).norm(dim=1)
            scale = norms.mean() / norms.clamp(min=1e-30).view(-1, *[1] * (sample.ndim - 1))
            return super().step(model_output * scale, timestep, sample, *args, **kw)

    return Broken


def wrong_parametrisation(base: type[Sampler]) -> type[Sampler]:
    """The noise prediction is divided by the variance."""

    class Broken(base):  # type: ignore[misc, valid-type]
        def _score_weights(self, sigma: float) -> tuple[float, float]:
            a, b = super()._score_weights(sigma)
            return (a / sigma, b) if self.config.prediction_type == "epsilon" else (a, b)

    return Broken


def uniform_noise(base: type[Sampler]) -> type[Sampler]:
    """Noise of the right mean and variance that is not normal."""

    class Broken(base):  # type: ignore[misc, valid-type]
        def step(self, model_output: Any, timestep: Any, sample: Any, *args: Any, **kw: Any) -> Any:
            kw["generator"] = None
            state = torch.random.get_rng_state()
            moved = super().step(model_output, timestep, sample, *args, **kw)[0]
            torch.random.set_rng_state(state)
            still = 12**0.5 * (torch.rand(sample.shape, dtype=sample.dtype) - 0.5)
            return (moved + 0.3 * still,)

    return Broken


MUTANTS: dict[str, Callable[[type[Sampler]], type[Sampler]]] = {
    "factor 2 in the noise": planned(louder),
    "2 alpha as standard deviation": planned(published_as_standard_deviation),
    "sigma of the wrong level": planned(next_level),
    "step size on the wrong power": planned(first_level_step),
    "noise after the last step": planned(noise_at_the_end),
    "swapped coefficients": planned(swapped),
    "half of the last step": planned(no_drift_at_the_end),
    "last evaluation left out": planned(last_level_left_out),
    "step 0.1 % too long": planned(percent),
    "batch-mean step": batch_mean_step,
    "wrong parametrisation": wrong_parametrisation,
    "noise that is not normal": uniform_noise,
}

MOVED = [name for name in zoo.SAMPLERS if get_sampler(name).update is Sampler.update]
# What cannot be seen, because it changes nothing: these have no noise to get wrong, or one level
# and one step on it like all others.
EQUIVALENT = {
    ("example-ddim", "factor 2 in the noise"),
    ("example-ddim", "2 alpha as standard deviation"),
    ("langevin", "last evaluation left out"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("name", MOVED)
def test_broken_sampler_is_caught(
    name: str, mutant: str, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = MUTANTS[mutant](get_sampler(name))
    monkeypatch.setattr(plugins, "get_sampler", lambda _: broken)
    # The exact law first, which needs one configuration to see most of them.
    order = ["exact-law", "batch-independence", "determinism", "monte-carlo"]
    caught = any(run_check(name, check).outcome == "fail" for check in order)
    assert caught != ((name, mutant) in EQUIVALENT)


class Louder:
    """Noise that is half as large again."""

    def __init__(self, noise: Any) -> None:
        self.noise = noise

    def normal(self, shape: Any) -> torch.Tensor:
        return 1.5 * self.noise.normal(shape)

    def uniform(self, shape: Any) -> torch.Tensor:
        return self.noise.uniform(shape)


def updated(change: Callable[..., Any]) -> Callable[[type[Sampler]], type[Sampler]]:
    """What a change makes of an update's sampler, number, state, score and noise."""

    def broken(base: type[Sampler]) -> type[Sampler]:
        class Broken(base):  # type: ignore[misc, valid-type]
            def update(self, k: int, x: Any, score: Any, noise: Any) -> Any:
                return super().update(*change(self, k, x, score, noise))

        return Broken

    return broken


def forgets(sampler: Any, *given: Any) -> Any:
    sampler.memory = {}
    return given


UPDATE_MUTANTS: dict[str, Callable[[type[Sampler]], type[Sampler]]] = {
    "louder noise": updated(lambda self, k, x, score, noise: (k, x, score, Louder(noise))),
    "score 0.1 % too strong": updated(lambda _, k, x, score, noise: (k, x, 1.001 * score, noise)),
    "nothing remembered": updated(forgets),
    "as if it were the step before": updated(lambda _, k, *given: (max(0, k - 1), *given)),
}
UPDATED = sorted(
    {name for name in zoo.SAMPLERS if issubclass(get_sampler(name), Sampler)} - {*MOVED}
)
UPDATE_EQUIVALENT = {
    # Whatever it proposes, with the probabilities that belong to it, is adjusted to the same law.
    ("mala", "score 0.1 % too strong"),
    # At one level all steps are alike.
    ("averaged-noise-langevin", "as if it were the step before"),
    # It has no noise.
    ("unipc", "louder noise"),
}


@pytest.mark.parametrize("mutant", UPDATE_MUTANTS)
@pytest.mark.parametrize("name", UPDATED)
def test_broken_update_is_caught(
    name: str, mutant: str, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = UPDATE_MUTANTS[mutant](get_sampler(name))
    monkeypatch.setattr(plugins, "get_sampler", lambda _: broken)
    order = ["exact-law", "stationary-law"]
    caught = any(run_check(name, check).outcome == "fail" for check in order)
    assert caught != ((name, mutant) in UPDATE_EQUIVALENT)


def test_swapped_accept_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = metropolis.log_acceptance
    # Accepted where it is to be rejected: log(1 - u) < log(1 - ratio).
    monkeypatch.setattr(
        metropolis,
        "log_acceptance",
        lambda *given: torch.log1p(-right(*given).exp().clamp(max=1)),
    )
    verdicts = [run_check("mala", check) for check in CHECKS]
    assert conclusions(verdicts) == {"mala": "fail"}
    assert [v.check for v in verdicts if v.outcome == "fail"] == ["stationary-law"]


@pytest.mark.parametrize("mutant", ["factor 2 in the noise", "batch-mean step"])
def test_which_check_catches_it(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = MUTANTS[mutant](get_sampler("annealed-langevin"))
    monkeypatch.setattr(plugins, "get_sampler", lambda _: broken)
    if mutant == "batch-mean step":
        message = run_check("annealed-langevin", "batch-independence").message
        assert "the others' outputs are made 100 times larger" in message
    else:
        message = run_check("annealed-langevin", "exact-law").message
        assert "not that of the declared closed form: a relative deviation of" in message


# ---- samplers of others ---------------------------------------------------------------------


def test_without_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said to be missing, and the bias is found all the same."""

    class Undeclared(get_sampler("annealed-langevin")):  # type: ignore[misc]
        closed_form = None

    monkeypatch.setattr(plugins, "get_sampler", lambda _: Undeclared)
    verdict = run_check("annealed-langevin", "exact-law")
    assert verdict.outcome == "not applicable"
    assert "no closed form is declared" in verdict.message
    bias = run_check("annealed-langevin", "bias")
    assert conclusions([verdict, bias]) == {"annealed-langevin": "contract only"}
    found = bias.numbers["wasserstein2"]
    monkeypatch.undo()
    assert found == run_check("annealed-langevin", "bias").numbers["wasserstein2"]


def test_whatever_a_sampler_raises_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(name: str) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(plugins, "get_sampler", explode)
    verdict = run_check("langevin", "exact-law")
    assert (verdict.outcome, verdict.message) == ("fail", "RuntimeError: boom")


def test_unknown_name() -> None:
    with pytest.raises(HDZooError, match="unknown sampler 'langvin'; did you mean 'langevin'"):
        verify(["langvin"])


# ---- what it comes to -----------------------------------------------------------------------


def verdicts_of(**outcomes: str) -> list[Verdict]:
    given = dict.fromkeys(CHECKS, "pass") | {
        key.replace("_", "-"): value for key, value in outcomes.items()
    }
    return [Verdict("one", check, outcome, "", {}, 0.0) for check, outcome in given.items()]


NONE = "not applicable"


@pytest.mark.parametrize(
    ("outcomes", "conclusion"),
    [
        ({}, "pass"),
        ({"stationary_law": NONE}, "pass"),
        ({"limit": NONE}, "pass"),
        ({"exact_law": NONE, "limit": NONE, "bias": NONE, "monte_carlo": NONE}, "pass"),
        # A closed form and samples agree with the chain, which may be wrong all the same.
        ({"limit": NONE, "stationary_law": NONE}, "contract only"),
        (dict.fromkeys([law.replace("-", "_") for law in LAWS], NONE), "contract only"),
        ({"nfe": "fail"}, "fail"),
        ({"limit": NONE, "stationary_law": NONE, "bias": "fail"}, "fail"),
    ],
)
def test_what_verdicts_come_to(outcomes: dict[str, str], conclusion: str) -> None:
    verdicts = verdicts_of(**outcomes)
    assert conclusions(verdicts) == {"one": conclusion}
    (row,) = summary_rows(verdicts)
    assert row["verdict"] == conclusion


# ---- the command ----------------------------------------------------------------------------


def command(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return processes.run("-m", "hdzoo", "verify", *arguments, env=environment | {"COLUMNS": "160"})


BROKEN_PACKAGE = """
import math
from diffusers import ModelMixin, SchedulerMixin
from hdzoo import hookimpl
from hdzoo.samplers.langevin import AnnealedLangevinSampler

class BrokenSampler(AnnealedLangevinSampler):
    def plan(self, sigmas, counts):
        return [m._replace(noise=math.sqrt(4 * m.alpha)) for m in super().plan(sigmas, counts)]

@hookimpl
def hdzoo_samplers():
    return {"broken-langevin": BrokenSampler}
"""


def test_command_exits_with_1_when_a_sampler_fails(tmp_path: Path) -> None:
    (tmp_path / "broken_langevin.py").write_text(BROKEN_PACKAGE)
    folder = tmp_path / "broken_langevin-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-langevin\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[hdzoo]\nbroken = broken_langevin\n")
    done = command("broken-langevin", path=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "fail: broken-langevin, exact-law: the law is not that of the declared" in done.stderr
    assert "14 of 14" in done.stdout


def test_command_prints_json(run: Callable[..., tuple[int, str, str]], few: None) -> None:
    code, out, err = run("verify", "example-ddim", "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert printed["samplers"] == {"example-ddim": "pass"}
    verdicts = {verdict["check"]: verdict for verdict in printed["verdicts"]}
    assert list(verdicts) == list(CHECKS)
    outcomes = {check: verdict["outcome"] for check, verdict in verdicts.items()}
    assert outcomes == dict.fromkeys(CHECKS, "pass") | {"stationary-law": "not applicable"}
    assert verdicts["exact-law"]["numbers"]["configurations"] == 15
    assert set(verdicts["bias"]["numbers"]["wasserstein2"]) == {"num_inference_steps", "sigma_min"}


def test_as_many_configurations_are_tried_as_is_said() -> None:
    assert closed_form.CONFIGURATIONS == 200


def test_command_with_an_unknown_name(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("verify", "no-such-sampler")
    assert code == 2
    assert "error: unknown sampler 'no-such-sampler'" in err
