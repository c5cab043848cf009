"""The exact law of a long chain, one step's map after another."""

import copy
from typing import Any

import numpy as np
import torch

from hdzoo.verification.draws import Draws, NotAffineError
from hdzoo.verification.laws import AffineMap, Gaussian, chain_states, each, next_state


def stepwise_law(sampler: Any, target: Gaussian, start: Gaussian) -> Gaussian | None:
    """What `hdzoo.verification.laws.exact_law` gives, at a cost that grows with the evaluations
    and not with their square.

    Impulses go through one step at a time, so this is for chains that remember nothing: the
    composed map has to take three random points with random noise to where the chain takes them.

    Args:
        sampler: a scheduler, its chain as long as it is to be.
        target: the law of the data.
        start: the law of the first state.

    Returns:
        The law of the last state; None for a sampler that is not hdzoo's or that remembers, or
        whose law is not found by impulses.

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

    counts, ends = [0], torch.from_numpy(points)
    for state in chain_states(sampler, score, torch.from_numpy(points), Draws(noise)):
        ends = state
        counts.append(len(noises))
        if sampler.memory:
            return None

    generator, levels = torch.Generator(), sampler.sigmas.tolist()
    sampler.set_timesteps(sampler.num_inference_steps)
    # Steps at one timestep and level that lead to one level are one map, found once; if that is
    # not so, each is found for itself.
    for alike in (True, False):
        law, expected, size = start, points, float(np.abs(points).max())
        found: dict[Any, AffineMap] = {}
        for k, at in enumerate(zip(sampler.timesteps, levels, strict=False)):
            drawn = noises[counts[k] : counts[k + 1]]
            each_draws = [numbers.shape[1] for numbers in drawn]
            key = (float(at[0]), *levels[k : k + 2], *each_draws) if alike else k
            if key not in found:
                begins = 1 + dimension + np.cumsum([0, *each_draws])
                beginning = copy.copy(sampler)
                beginning.set_begin_index(k)
                found[key] = _map_of_step(beginning, score, at, begins, dimension, generator)
            step = found[key]
            law = step.law(law)
            fresh = np.concatenate([points[:, :0], *drawn], 1)
            expected = step.offset + expected @ step.state + fresh @ step.noises
            size = max(size, float(np.abs(expected).max()))
        gap = np.abs(ends.numpy() - expected).max()
        # A map is off by roundings of the largest number on the way; so is what is composed of
        # them.
        if gap <= 1e-8 * size:
            return law
    raise NotAffineError(
        f"{name} is not affine in its state and noise, or remembers what is not in memory: "
        f"random points end {gap:.2g} from where the maps of its steps take them"
    )


def _map_of_step(
    sampler: Any,
    score: Any,
    at: tuple[torch.Tensor, float],
    begins: np.ndarray,
    dimension: int,
    generator: torch.Generator,
) -> AffineMap:
    """What one step does, by impulses in the state and in each number that it draws.

    Args:
        sampler: at that step.
        score: the exact score.
        at: timestep and noise level.
        begins: the rows at which the impulses of each draw begin, and their number.
        dimension: of the state.
        generator: of draws that are replaced.
    """
    name, rows = type(sampler).__name__, int(begins[-1])

    def impulse(draw: int, shape: torch.Size) -> torch.Tensor:
        drawn = torch.zeros(each(name, shape, rows), dtype=torch.float64)
        if draw + 1 >= len(begins) or drawn.shape[1] != begins[draw + 1] - begins[draw]:
            raise NotAffineError(f"{name} draws now so often, now more or other noise")
        drawn[begins[draw] : begins[draw + 1]] = torch.eye(drawn.shape[1], dtype=torch.float64)
        return drawn

    state = torch.zeros(rows, dimension, dtype=torch.float64)
    state[1 : 1 + dimension] = torch.eye(dimension, dtype=torch.float64)
    reached = next_state(sampler, score, state, at, Draws(impulse), generator).numpy()
    images = reached[1:] - reached[0]
    return AffineMap(reached[0].copy(), images[:dimension], images[dimension:])
