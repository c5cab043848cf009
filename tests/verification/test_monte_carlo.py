"""Samples against the law that they should have, and never against one that they need not have."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy_samplers import Metropolis, TwoStageSigns, Velocity

from hdzoo import get_sampler, plugins
from hdzoo.verification import closed_form
from hdzoo.verification.checks import CheckFailed, NotApplicable
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.monte_carlo import check_monte_carlo
from hdzoo.verification.verify import CHECKS, conclusions, run_check

Langevin, Annealed = get_sampler("langevin"), get_sampler("annealed-langevin")
Underdamped = get_sampler("underdamped-langevin")
LAWS = [check for check in CHECKS if check not in CONTRACT]


# ---- chains that remember -------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Velocity, Underdamped])
def test_a_chain_that_remembers(sampler: type[Any]) -> None:
    found = check_monte_carlo(sampler)
    assert "on Gaussian data, variance" in found.message
    variance = found.numbers["variance"]
    gap = variance["found"] - variance["exact"]
    assert abs(gap) <= 5 * variance["standard_error"]
    assert variance["standard_error"] < 0.02 * variance["exact"]


def test_a_memory_that_float32_breaks() -> None:
    """In float64 it has the law that it declares; users draw in float32."""

    class Forgets(Underdamped):
        def update(self, k, x, score, noise):
            if x.dtype == torch.float32:
                self.memory.clear()
            return super().update(k, x, score, noise)

    with pytest.raises(
        CheckFailed, match=r"drawn by HDPipeline do not have the law .* \[sigma=0\.4"
    ):
        check_monte_carlo(Forgets)


# ---- chains that are not affine -------------------------------------------------------------


def clamped_update(base: type[Any], bound: float) -> type[Any]:
    class Clamped(base):
        def update(self, k, x, score, noise):
            return super().update(k, x, score, noise).clamp(-bound, bound)

    return Clamped


def clamped_step(base: type[Any], bound: float) -> type[Any]:
    class Clamped(base):
        def step(self, *args, return_dict=True, **kwargs):
            found = super().step(*args, **kwargs)
            found.prev_sample = found.prev_sample.clamp(-bound, bound)
            return found if return_dict else (found.prev_sample,)

    return Clamped


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("clamped", [clamped_update, clamped_step])
@pytest.mark.parametrize("name", ["langevin", "annealed-langevin", "half-denoising"])
def test_a_clamped_right_sampler_does_not_fail(
    name: str,
    clamped: Callable[[type[Any], float], type[Any]],
    declared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = clamped(get_sampler(name), 1.5)
    if not declared:
        sampler.closed_form = lambda self, start: None
    monkeypatch.setattr(plugins, "get_sampler", lambda _: sampler)
    verdicts = [run_check(name, check) for check in LAWS]
    assert {verdict.outcome for verdict in verdicts} == {"not applicable"}
    assert conclusions(verdicts) == {name: "contract only"}
    (said,) = [verdict.message for verdict in verdicts if verdict.check == "monte-carlo"]
    assert ("not a law to judge it by" if declared else "no closed form is declared") in said


def test_a_clamp_far_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the closed form is compared with samples, and its limit followed."""
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 5)
    far = clamped_update(Langevin, 8.0)
    monkeypatch.setattr(plugins, "get_sampler", lambda _: far)
    verdicts = [run_check("langevin", check) for check in ("limit", "monte-carlo")]
    assert [verdict.outcome for verdict in verdicts] == ["pass", "pass"]


@pytest.mark.parametrize("bound", [1.5, 8.0])
def test_a_clamped_wrong_sampler_fails(bound: float) -> None:
    class Louder(Langevin):
        def plan(self, *args):
            return [m._replace(noise=1.5 * m.noise) for m in super().plan(*args)]

    with pytest.raises(CheckFailed, match="do not have the law"):
        check_monte_carlo(clamped_update(Louder, bound))


def test_noise_that_depends_on_the_state() -> None:
    class Louder(Annealed):
        def update(self, k, x, score, noise):
            move = self.moves[k]
            loud = move.noise * (1 + 0.5 * x.tanh() ** 2)
            return x + move.alpha * score + loud * noise.normal(x.shape)

    with pytest.raises((CheckFailed, NotApplicable)) as caught:
        check_monte_carlo(Louder)
    assert caught.type is CheckFailed


def test_nothing_to_compare_with() -> None:
    with pytest.raises(NotApplicable, match="needs the network's energy"):
        check_monte_carlo(Metropolis)
    with pytest.raises(NotApplicable, match="its states are signs; see stationary-law"):
        check_monte_carlo(TwoStageSigns)


def test_an_exception_in_the_pipeline_names_the_options() -> None:
    class Breaks(Annealed):
        def update(self, k, x, score, noise):
            if x.dtype == torch.float32:
                raise RuntimeError("boom")
            return super().update(k, x, score, noise)

    with pytest.raises(CheckFailed, match=r"RuntimeError: boom \[.*sigma_max=3\.0.*num_inference"):
        check_monte_carlo(Breaks)
