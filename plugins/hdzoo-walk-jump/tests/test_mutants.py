"""Faults of one sign or factor are found by the exact law."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hdzoo_walk_jump.samplers import OverdampedWalkJumpSampler, WalkJumpSampler

from hdzoo import UnderdampedLangevinSampler
from hdzoo.samplers.base import Move
from hdzoo.verification import run_check

MUTANTS: dict[str, tuple[type[Any], str, Callable[..., Any]]] = {
    "a jump of half the way": (
        OverdampedWalkJumpSampler,
        "read_out",
        lambda self, walk: Move(walk.sigma, walk.sigma**2 / 2),
    ),
    "a jump that sees noise": (
        OverdampedWalkJumpSampler,
        "read_out",
        lambda self, walk: Move(walk.sigma, walk.sigma**2, walk.sigma / 100),
    ),
    "a walk at another step size": (
        OverdampedWalkJumpSampler,
        "default_step_size",
        lambda self, sigma: sigma**2 / 7,
    ),
    "a jump in the middle of a step": (
        WalkJumpSampler,
        "update",
        lambda self, k, x, score, noise: (
            UnderdampedLangevinSampler.update(self, k, x, score, noise)
            if self.levels[k + 1]
            else x + self.levels[k] ** 2 * score
        ),
    ),
    "a jump too many": (
        WalkJumpSampler,
        "jumps_at",
        lambda self, k: k == 0 or k + 1 == self.num_inference_steps,
    ),
    "a walk that goes on from the jump": (
        WalkJumpSampler,
        "update",
        lambda self, k, x, score, noise: (
            x
            + self.levels[k] ** 2 * score
            + (math.sqrt(self.moves[k].alpha) * noise.normal(x.shape) if self.levels[k + 1] else 0)
        ),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, name, fault = MUTANTS[mutant]
    monkeypatch.setattr(sampler, name, fault)
    registered = "walk-jump" if sampler is WalkJumpSampler else "overdamped-walk-jump"
    verdict = run_check(registered, "exact-law")
    assert verdict.outcome == "fail"
    assert "closed form" in verdict.message
