"""The exact law of a long chain, one step's map after another."""

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from hdzoo.verification.draws import Draws, NotAffineError
from hdzoo.verification.laws import AffineMap, Gaussian, each, next_state


def stepwise_law(sampler: Any, target: Gaussian, start: Gaussian) -> Gaussian | None:
    """What `hdzoo.verification.laws.exact_law` gives, at a cost that grows with the evaluations
    and not with their square.

    Impulses go through one step at a time, in the state, in what the chain remembers
    (`Sampler.memory`) and in what it draws: the composed map has to take three random points with
    random noise to where the chain takes them.

    Args:
        sampler: a scheduler, its chain as long as it is to be.
        target: the law of the data.
        start: the law of the first state.

    Returns:
        The law of the last state; None for a sampler that is not hdzoo's, that remembers other than
        numbers of the state's precision, or whose law is not found by impulses.

    Raises:
        NotAffineError: a step is not affine, or not the same when it is made again.
    """
    if not hasattr(sampler, "memory") or sampler.needs or sampler.state_space != "real":
        return None
    name, dimension, score = type(sampler).__name__, len(target.mean), target.score()
    rng = np.random.default_rng(0)
    points = 3 * rng.standard_normal((3, dimension))
    noises: list[np.ndarray] = []

    def noise(_: int, shape: torch.Size) -> torch.Tensor:
        noises.append(3 * rng.standard_normal(each(name, shape, len(points))))
        return torch.from_numpy(noises[-1])

    sampler.set_timesteps(sampler.num_inference_steps)
    sampler.set_begin_index(0)
    generator, levels, draws = torch.Generator(), sampler.sigmas.tolist(), Draws(noise)
    places = list(zip(sampler.timesteps, levels, strict=False))
    before, counts, ends = [copy.copy(sampler)], [0], torch.from_numpy(points)
    for at in places:
        ends = next_state(sampler, score, ends, at, draws, generator)
        before.append(copy.copy(sampler))
        counts.append(len(noises))
        if not all(
            isinstance(kept, torch.Tensor)
            and kept.dtype == torch.float64
            and kept.shape[:1] == points.shape[:1]
            for kept in sampler.memory.values()
        ):
            return None

    # Steps at one timestep that lead to the same two levels are one map, found once, if as much is
    # remembered and drawn; if that is not so, each is found for itself.
    for alike in (True, False):
        law, expected, size = start, points, float(np.abs(points).max())
        found: dict[Any, AffineMap] = {}
        for k, at in enumerate(places):
            drawn = noises[counts[k] : counts[k + 1]]
            each_draws = [numbers.shape[1] for numbers in drawn]
            kept = tuple((key, one.shape) for key, one in before[k].memory.items())
            told = float(at[0]), *levels[k : k + 3], *each_draws, *kept
            key = told if alike else k
            if key not in found:
                found[key] = _map_of_step(before[k], score, at, each_draws, dimension, generator)
            step = found[key]
            law = step.law(law)
            fresh = np.concatenate([points[:, :0], *drawn], 1)
            expected = step.offset + expected @ step.state + fresh @ step.noises
            size = max(size, float(np.abs(expected).max()))
        gap = np.abs(ends.numpy() - expected[:, :dimension]).max()
        # A map is off by roundings of the largest number on the way; so is what is composed of
        # them.
        if gap <= 1e-8 * size:
            return Gaussian(law.mean[:dimension], law.covariance[:dimension, :dimension])
    raise NotAffineError(
        f"{name} is not affine in its state and noise, or remembers what is not in memory: "
        f"random points end {gap:.2g} from where the maps of its steps take them"
    )


def _map_of_step(
    before: Any,
    score: Any,
    at: tuple[torch.Tensor, float],
    each_draws: list[int],
    dimension: int,
    generator: torch.Generator,
) -> AffineMap:
    """What one step does, by impulses in the state, in what is remembered, in the order of its
    names, and in each number that it draws.

    Args:
        before: the sampler at that step, with a memory of the shape that it has there.
        score: the exact score.
        at: timestep and noise level.
        each_draws: how many numbers it draws for a sample, each time.
        dimension: of the state.
        generator: of draws that are replaced.
    """
    name, sampler = type(before).__name__, copy.copy(before)
    shapes = {key: kept.shape[1:] for key, kept in sorted(before.memory.items())}
    begins = 1 + np.cumsum([0, dimension, *(shape.numel() for shape in shapes.values())])
    draws_begin = begins[-1] + np.cumsum([0, *each_draws])
    rows = int(draws_begin[-1])

    def impulses(first: int, count: int) -> torch.Tensor:
        # A copy, which the sampler may write to.
        return _units(rows)[:, first - 1 : first - 1 + count].clone()

    def impulse(draw: int, shape: torch.Size) -> torch.Tensor:
        count = each(name, shape, rows)[1]
        if draw >= len(each_draws) or count != each_draws[draw]:
            raise NotAffineError(f"{name} draws now so often, now more or other noise")
        return impulses(draws_begin[draw], count)

    state = impulses(1, dimension)
    sampler.memory = {
        key: impulses(begin, shape.numel()).reshape(rows, *shape)
        for begin, (key, shape) in zip(begins[1:], shapes.items(), strict=False)
    }
    moved = next_state(sampler, score, state, at, Draws(impulse), generator)
    kept = [sampler.memory[key].reshape(rows, -1) for key in sorted(sampler.memory)]
    reached = torch.cat([moved, *kept], 1).numpy()
    images = reached[1:] - reached[0]
    inputs = begins[-1] - 1
    return AffineMap(reached[0].copy(), images[:inputs], images[inputs:])


@lru_cache
def _units(rows: int) -> torch.Tensor:
    """A row of zeros, and a unit vector in each row after it."""
    return torch.eye(rows, dtype=torch.float64)[:, 1:]
