"""How evaluations are shared among rungs, where a sampler says so."""

from collections.abc import Sequence

import pytest

from hdzoo import HDZooError
from hdzoo.samplers.families import LadderSampler


class FirstRungOften(LadderSampler):
    def counts(self, num_inference_steps: int, num_levels: int) -> Sequence[int]:
        return [num_inference_steps - num_levels + 1, *[1] * (num_levels - 1)]


def test_a_sampler_shares_its_evaluations() -> None:
    sampler = FirstRungOften(sigmas=[1.0, 0.5, 0.2])
    sampler.set_timesteps(6)
    assert sampler.sigmas.tolist() == [1.0] * 4 + [0.5, 0.2, 0.0]
    with pytest.raises(HDZooError, match="needs at least 3"):
        sampler.set_timesteps(2)


def test_a_schedule_that_is_given_is_kept() -> None:
    sampler = FirstRungOften(sigmas=[1.0, 0.5, 0.2])
    sampler.set_timesteps(sigmas=[1.0, 0.5, 0.5, 0.2])
    assert sampler.sigmas.tolist() == [1.0, 0.5, 0.5, 0.2, 0.0]


def test_by_default_the_smaller_levels_get_the_rest() -> None:
    sampler = LadderSampler(sigmas=[1.0, 0.5, 0.2])
    sampler.set_timesteps(5)
    assert sampler.sigmas.tolist() == [1.0, 0.5, 0.5, 0.2, 0.2, 0.0]
