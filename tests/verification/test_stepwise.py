"""The law of a long chain step by step, against the one by impulses through the whole chain."""

import numpy as np
import pytest
import torch

from hdzoo import LangevinSampler, get_sampler
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import Gaussian, exact_law
from hdzoo.verification.stepwise import stepwise_law

# One direction is singular.
DATA = Gaussian.of([1.0, -1.0], [1.0, 0.0])


@pytest.mark.parametrize(
    "name",
    [
        "annealed-langevin",
        "consistent-annealed-sampling",
        "predictor-corrector",
        # These remember.
        "underdamped-langevin",
        "averaged-noise-langevin",
        "dpm-solver-pp-2m",
        "heun",
        "unipc",
    ],
)
def test_it_is_the_law_of_the_whole_chain(name: str) -> None:
    sampler = get_sampler(name)()
    sampler.set_timesteps(61)
    start = DATA.noisy(float(sampler.sigmas[0]))
    found, expected = stepwise_law(sampler, DATA, start), exact_law(sampler, DATA, start)
    assert found is not None
    # Each of 61 steps rounds numbers below 10 a few times, by 1e-16 of them.
    np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=0, atol=1e-12)


class Counting(LangevinSampler):
    """Remembers a number that is no part of any sample."""

    def update(self, k, x, score, noise):
        self.memory["count"] = k
        return super().update(k, x, score, noise)


def test_what_is_remembered_of_no_sample_has_no_law() -> None:
    sampler = Counting()
    sampler.set_timesteps(20)
    assert stepwise_law(sampler, DATA, DATA.noisy(float(sampler.sigmas[0]))) is None


class Hidden(LangevinSampler):
    """Remembers the state before, and not in its memory."""

    before = None

    def update(self, k, x, score, noise):
        moved = super().update(k, x, score, noise)
        if k and self.before is not None and len(self.before) == len(x):
            moved = moved + 0.1 * self.before
        self.before = torch.clone(x)
        return moved


def test_what_is_remembered_elsewhere_is_found() -> None:
    sampler = Hidden()
    sampler.set_timesteps(20)
    with pytest.raises(NotAffineError, match="remembers what is not in memory"):
        stepwise_law(sampler, DATA, DATA.noisy(float(sampler.sigmas[0])))
