"""Chains that stay in the law that their sampler leaves as it is, and others that do not."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from toy_samplers import (
    AlwaysAccepts,
    EnergyAlone,
    LeavesSigns,
    LessNoiseSigns,
    Metropolis,
    NeverMoves,
    OneStageSigns,
    SwappedAccept,
    TwoStageSigns,
)

from hdzoo import HDZooError
from hdzoo.verification import stationary
from hdzoo.verification.checks import CheckFailed, NotApplicable
from hdzoo.verification.stationary import Real, Signs, check_stationary_law


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these mutants do wrong shows in 4,000 chains."""
    monkeypatch.setattr(stationary, "NUM_SAMPLES", 4000)


@pytest.mark.parametrize("sampler", [Metropolis, TwoStageSigns])
def test_what_stays(sampler: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stationary, "NUM_SAMPLES", 10_000)
    numbers = check_stationary_law(sampler).numbers
    # One in a thousand samplers of 27 tests at each of 3 step sizes has a smaller one.
    assert numbers["smallest_p_value"] > 1e-5
    assert numbers["left"] < 0.1


@pytest.mark.parametrize(
    "sampler", [SwappedAccept, EnergyAlone, AlwaysAccepts, OneStageSigns, LessNoiseSigns]
)
def test_what_does_not_stay(sampler: type[Any], fewer: None) -> None:
    with pytest.raises(
        CheckFailed, match=r"do not stay there: after 12 evaluations the .* p-value"
    ):
        check_stationary_law(sampler)


def test_what_stays_for_want_of_moving(fewer: None) -> None:
    with pytest.raises(
        CheckFailed, match=r"do not come to the noisy data: .* 100% of the distance"
    ):
        check_stationary_law(NeverMoves)


def test_states_that_are_no_signs(fewer: None) -> None:
    with pytest.raises(
        CheckFailed, match=r"the state is in \{-1, 1\}\^d .* no longer there \[sigma"
    ):
        check_stationary_law(LeavesSigns)


def test_what_is_declared() -> None:
    with pytest.raises(NotApplicable, match=r"no law is declared .* \(Sampler\.leaves_invariant\)"):
        check_stationary_law(type("Undeclared", (Metropolis,), {"leaves_invariant": None}))
    with pytest.raises(CheckFailed, match="leaves_invariant is 'data'; it must be 'noisy data'"):
        check_stationary_law(type("Other", (Metropolis,), {"leaves_invariant": "data"}))

    class Refuses(Metropolis):
        def step_sizes(self, sigmas):
            if self.config.sigma == stationary.SIGMA:
                raise HDZooError("not at this level")
            return super().step_sizes(sigmas)

    with pytest.raises(CheckFailed, match=r"refused at one noise level: not at this level \[sigma"):
        check_stationary_law(Refuses)


# ---- the laws -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [Real(0.7), Signs(0.9)])
def test_exact_samples_have_the_law(data: Real | Signs) -> None:
    """And those of another level do not."""
    sampler = TwoStageSigns(sigma=0.9)
    generator = torch.Generator().manual_seed(0)
    samples = data.sample(sampler, generator)
    assert min(p for _, p in data.p_values(samples)) > 1e-4
    other = type(data)(1.2)
    assert min(p for _, p in other.p_values(samples)) < 1e-9


def test_two_stage_signs_leave_independent_signs_as_they_are() -> None:
    """By enumeration: the kernel of the formula leaves the law as it is, and is the sampler's."""
    sigma, count = 0.9, 50_000
    means = np.array([0.6, -0.3])
    points = np.array(list(product((-1.0, 1.0), repeat=2)))
    keep = 1 / (1 + np.exp(-2 / sigma**2))
    kernel = np.ones((4, 4))
    law = np.ones(4)
    for i, mean in enumerate(means):
        # Of one sign: P(clean) P(noisy | clean), over P(noisy).
        prior = (1 + np.array([-1.0, 1.0]) * mean) / 2
        flips = np.array([[keep, 1 - keep], [1 - keep, keep]])
        noisy = prior @ flips
        once = (flips * prior[:, None] / noisy).T @ flips
        np.testing.assert_allclose(noisy @ once, noisy, rtol=1e-15)
        places = ((points[:, i] + 1) / 2).astype(int)
        kernel *= once[places[:, None], places]
        law *= noisy[places]
    np.testing.assert_allclose(law @ kernel, law, rtol=1e-14)

    sampler = TwoStageSigns(sigma=sigma)
    for place, point in enumerate(points):
        x = torch.tensor(point).repeat(count, 1)
        denoised = torch.tanh(torch.atanh(torch.tensor(means)) + x / sigma**2)
        sampler.set_timesteps(1)
        output, t = (denoised - x) / sigma**2, sampler.timesteps[0]
        moved = sampler.step(output, t, x, torch.Generator().manual_seed(place))[0].numpy()
        found = np.array([(moved == other).all(1).mean() for other in points])
        # Within 5 standard errors of a share.
        slack = 5 * np.sqrt(kernel[place] * (1 - kernel[place]) / count)
        np.testing.assert_array_less(np.abs(found - kernel[place]), slack)
