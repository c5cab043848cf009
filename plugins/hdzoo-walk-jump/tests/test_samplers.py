"""Walk-jump sampling: published numbers, jumps along a walk, and what is refused."""

import math
from typing import Any

import pytest
import torch
from hdzoo_walk_jump.samplers import OverdampedWalkJumpSampler, WalkJumpSampler

from hdzoo import HDPipeline, HDZooError, UnderdampedLangevinSampler, get_sampler, list_samplers
from hdzoo.plugins import provider
from hdzoo.targets.named import gaussian
from hdzoo.verification import Gaussian, exact_law

# Data N(1.3, 0.8^2) and noise of 0.6: V = 1.
DATA, SIGMA = Gaussian.of(1.3, 0.64), 0.6


def law(sampler: Any, steps: int, start: Gaussian) -> tuple[float, float]:
    sampler.set_timesteps(steps)
    mean, covariance = exact_law(sampler, DATA, start)
    return mean.item(), covariance.item()


def test_registered() -> None:
    for name, found in (
        ("walk-jump", WalkJumpSampler),
        ("overdamped-walk-jump", OverdampedWalkJumpSampler),
    ):
        assert name in list_samplers()
        assert get_sampler(name) is found
        assert provider("samplers", name).distribution == "hdzoo-walk-jump"
    assert provider("reproductions", "walk-jump").distribution == "hdzoo-walk-jump"


def test_the_jump_from_a_long_overdamped_walk() -> None:
    """(s^2 / V)^2 V / (1 - alpha / 2V) = 0.450110 at alpha = sigma^2 / 2, worked out elsewhere."""
    sampler = OverdampedWalkJumpSampler(sigma=SIGMA, step_size=0.18)
    mean, variance = law(sampler, 200, Gaussian.of(0.0, 3.0))
    # Of the start 0.82^199 is left; the number has six digits.
    assert mean == pytest.approx(1.3, abs=1e-12)
    assert variance == pytest.approx(0.450110, abs=5e-7)


@pytest.mark.parametrize("step_size", [0.045, 0.18, 0.7])
@pytest.mark.parametrize("friction", [{}, {"friction": 0.5, "friction_per": "time"}])
def test_the_jump_from_a_long_underdamped_walk(step_size: float, friction: dict[str, Any]) -> None:
    """s^4 / V = 0.4096 at every step size and with either published friction."""
    sampler = WalkJumpSampler(sigma=SIGMA, step_size=step_size, **friction)
    _, variance = law(sampler, 600, Gaussian.of(0.0, 3.0))
    assert variance == pytest.approx(0.4096, abs=1e-10)


@pytest.mark.parametrize("steps", [2, 9])
def test_the_walk_is_the_underdamped_one(steps: int) -> None:
    """One jump after it, on the same noise."""
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    walk, jump = UnderdampedLangevinSampler(sigma=SIGMA), WalkJumpSampler(sigma=SIGMA)
    walk.set_timesteps(steps - 1)
    jump.set_timesteps(steps)
    ends = []
    for sampler in (walk, jump):
        state, generator = x, torch.Generator().manual_seed(1)
        for t in sampler.timesteps:
            state = sampler.step(-torch.tanh(state), t, state, generator).prev_sample
        ends.append(state)
    expected = ends[0] - SIGMA**2 * torch.tanh(ends[0])
    # A step's half is taken off again: two roundings of numbers of order 1.
    torch.testing.assert_close(ends[1], expected, rtol=0, atol=1e-14)


def test_jumps_along_a_walk_do_not_disturb_it() -> None:
    """The ends of the steps, with jumps after every second, are those without."""
    target = gaussian()
    start = target.sample(6, torch.Generator().manual_seed(0), sigma=SIGMA).float()

    def run(steps: int, every: int | None, **options: Any) -> torch.Tensor:
        pipe = HDPipeline(target, WalkJumpSampler(sigma=SIGMA, **options))
        pipe.set_progress_bar_config(disable=True)
        found: torch.Tensor = pipe(
            latents=start,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(3),
            samples_every=every,
        ).images
        return found

    along = run(9, 3, steps_per_jump=2).view(6, 3, 1)
    for jump in range(3):
        # Two steps to each jump, and one evaluation for the jump alone.
        alone = run(2 * (jump + 1) + 1, None)
        torch.testing.assert_close(along[:, jump], alone, rtol=1e-5, atol=1e-6)


def test_a_walk_of_no_steps_is_the_denoiser() -> None:
    for sampler in (WalkJumpSampler(sigma=SIGMA), OverdampedWalkJumpSampler(sigma=SIGMA)):
        mean, variance = law(sampler, 1, Gaussian.of(1.3, 1.0))
        assert (mean, variance) == pytest.approx((1.3, 0.64**2))


def test_the_published_friction() -> None:
    """What the velocity keeps in a step of delta = sigma / 2: 1/e, and exp(-1/2 sigma / 2)."""
    kept = []
    for options in ({}, {"friction": 0.5, "friction_per": "time"}):
        sampler = WalkJumpSampler(sigma=2.0, **options)
        sampler.set_timesteps(3)
        generator, x = torch.Generator().manual_seed(0), torch.zeros(1, 1, dtype=torch.float64)
        sampler.step(x, sampler.timesteps[0], x, generator)
        before = sampler.memory["velocity"].item()
        generator.manual_seed(0)
        sampler.step(x, sampler.timesteps[1], x, generator)
        # The same noise as at rest: what is more than it was kept.
        kept.append(sampler.memory["velocity"].item() / before - 1)
    assert kept == pytest.approx([math.exp(-1), math.exp(-0.5)], rel=1e-12)


@pytest.mark.parametrize("sampler", [WalkJumpSampler, OverdampedWalkJumpSampler])
def test_steps_that_do_not_converge_are_refused(sampler: type[Any]) -> None:
    with pytest.raises(HDZooError, match=r"step_size is 0\.5 at noise level 0\.5; .* = 0\.5 only"):
        sampler(sigma=0.5, step_size=0.5)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", True])
def test_steps_per_jump_is_a_number(steps: Any) -> None:
    with pytest.raises(HDZooError, match="steps_per_jump"):
        WalkJumpSampler(steps_per_jump=steps)
