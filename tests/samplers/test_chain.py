"""Chains that are made as they are walked: their moves, and what it takes to plan them."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest

from hdzoo import get_sampler
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Move
from hdzoo.samplers.chain import Chain
from hdzoo.samplers.planning import EDGES_AT_ONCE

SIGMAS, ALPHAS, COUNTS = [4.0, 2.0, 0.5], [0.8, 0.2, 0.01], [1, 3, 2]
WALKS = [Move(s, a, math.sqrt(2 * a)) for s, a in zip(SIGMAS, ALPHAS, strict=True)]


def chain() -> Chain:
    """Hand-offs take the next rung's noise, the read-out none."""
    return Chain(
        SIGMAS,
        ALPHAS,
        COUNTS,
        lambda walk, following: walk._replace(noise=following.noise),
        lambda walk: walk._replace(noise=0.0),
    )


def test_moves() -> None:
    first, second, third = WALKS
    expected = [
        first._replace(noise=second.noise),
        second,
        second,
        second._replace(noise=third.noise),
        third,
        third._replace(noise=0.0),
    ]
    moves = chain()
    assert list(moves) == expected
    assert [moves[k] for k in range(len(moves))] == expected
    assert moves == expected
    assert moves != expected[:-1]
    assert moves[-2] == third
    assert moves[1::2] == expected[1::2]
    assert list(moves.levels) == [4.0, 2.0, 2.0, 2.0, 0.5, 0.5]
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            moves[beyond]


def test_a_read_out_of_several_moves() -> None:
    quiet = Move(0.5)
    moves = Chain(SIGMAS, ALPHAS, [1, 3, 4], lambda walk, _: walk, lambda _: quiet, 3)
    expected = [WALKS[0], *[WALKS[1]] * 3, WALKS[2], *[quiet] * 3]
    assert list(moves) == [moves[k] for k in range(8)] == expected


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ([1.0, 1.0], "3 noise levels, and there are 2 step sizes"),
        ([1.0, -1.0, 1.0], "-1 at noise level 2; a step size is a finite"),
        ([1.0, 1.0, math.nan], "nan at noise level 0.5"),
    ],
)
def test_step_sizes_that_are_none(alphas: list[float], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        Chain(SIGMAS, alphas, COUNTS, lambda walk, _: walk, lambda walk: walk)


@pytest.mark.parametrize("name", ["annealed-langevin", "consistent-annealed-sampling"])
def test_copies_have_the_same_chain(name: str) -> None:
    sampler = get_sampler(name)(num_levels=4, steps_per_level=3)
    for other in (copy.copy(sampler), copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert other.moves == sampler.moves
        assert other.levels == sampler.levels


def calls_of(name: str, num_levels: int, steps_per_level: int) -> int:
    """Calls of functions, Python's and C's, that the constructor takes."""
    sampler_class, calls = get_sampler(name), 0
    options = {"sigma_max": 50.0, "num_levels": num_levels, "steps_per_level": steps_per_level}

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sampler_class(**options)  # What is imported or cached at the first time.
    profiler = sys.getprofile()
    sys.setprofile(count)
    try:
        sampler = sampler_class(**options)
    finally:
        sys.setprofile(profiler)
    assert len(sampler) == num_levels * steps_per_level
    return calls


@pytest.mark.parametrize(
    "name",
    [
        "annealed-langevin",
        "alpha-half-denoising",
        "annealed-half-denoising",
        "consistent-annealed-sampling",
    ],
)
def test_a_constructor_works_on_noise_levels_and_not_on_evaluations(name: str) -> None:
    """A million evaluations on ten thousand levels take a handful of calls for each level."""
    # Of chains longer than those whose edges are worked out at once.
    fixed = calls_of(name, 10, EDGES_AT_ONCE // 5)
    assert calls_of(name, 10, EDGES_AT_ONCE) == pytest.approx(fixed, abs=100)
    assert calls_of(name, 10_000, 100) - fixed < 10 * 10_000


def test_a_million_evaluations_are_those_of_the_formula() -> None:
    """Consistent annealing on a geometric ladder, at either end and in the middle."""
    sampler = get_sampler("consistent-annealed-sampling")(
        sigma_max=50.0, num_levels=10_000, steps_per_level=100
    )
    last = len(sampler) - 1
    ratio = (0.01 / 50) ** (1 / last)
    for k in (0, 1, last // 2, last - 1):
        sigma = 50 * ratio**k
        # The power multiplies the rounding of the ratio by k; 1 - ratio^2, of 1.7e-5, has it too.
        expected = sigma, (1 - ratio**2) * sigma**2, ratio * sigma * math.sqrt(1 - ratio**2)
        np.testing.assert_allclose(sampler.moves[k], expected, rtol=1e-9)
    assert sampler.moves[last].noise == 0
