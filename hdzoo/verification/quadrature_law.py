r"""The law of a sampler on any one-dimensional target, by quadrature, with nothing simulated.

A step of a Markov chain is :math:`x' = f(x) + g(x) z`. Both are read off the sampler's public
``step`` on a grid, and the law is carried along as weighted points:

.. math:: p'(y) = \sum_i w_i N(y; f(x_i), g(x_i)^2)

On smooth laws the trapezoidal rule converges faster than any power of the spacing: with ``g`` at
least 1.5 spacings its error is about :math:`e^{-2 \pi^2 1.5^2} = 10^{-19}`.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.sparse import csc_array
from scipy.special import ndtr

from hdzoo.errors import HDZooError
from hdzoo.verification.draws import Draws, NotAffineError
from hdzoo.verification.laws import Score, network_output

# The spacing is the smallest noise of a chain over this.
POINTS_PER_NOISE = 1.5
# A normal law has 1e-19 of its mass beyond so many standard deviations.
REACH = 9.0
MOST_POINTS = 6000
# Of a chain that forgets its start at all; one that does not never settles.
MOST_DOUBLINGS = 30

Quantile = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GridLaw:
    """A law on the line, as weighted points.

    Attributes:
        points: ascending, shape (n,).
        weights: their probabilities, shape (n,), sum 1.
        cdf: the distribution function at the points, shape (n,).
    """

    points: np.ndarray
    weights: np.ndarray
    cdf: np.ndarray

    @cached_property
    def mean(self) -> float:
        return float(self.weights @ self.points)

    @cached_property
    def variance(self) -> float:
        return float(self.weights @ (self.points - self.mean) ** 2)

    def probability_above(self, threshold: float) -> float:
        """The probability of values above a threshold."""
        return float(1 - np.interp(threshold, self.points, self.cdf))

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """The quantile function, by monotone cubic interpolation of the distribution function."""
        # Where it is flat up to its rounding there is nothing to invert.
        cdf = np.maximum.accumulate(self.cdf)
        inside = np.concatenate([[True], np.diff(cdf) > 0])
        inverse = PchipInterpolator(cdf[inside], self.points[inside])
        return np.asarray(inverse(np.clip(share, *cdf[inside][[0, -1]])))

    def wasserstein2(self, other: "GridLaw | Quantile") -> float:
        r"""The Wasserstein-2 distance, :math:`\int (F^{-1} - G^{-1})^2` over the shares.

        Args:
            other: another law, or its quantile function: point masses have no other form.
        """
        quantile = other.quantile if isinstance(other, GridLaw) else other
        gaps = self.points - quantile(self.cdf)
        return float(np.sqrt(self.weights @ gaps**2))


def normal_law(mean: float, std: float, grid: np.ndarray) -> GridLaw:
    """A normal law on evenly spaced points that hold all of its mass."""
    z = (grid - mean) / std
    density = np.exp(-(z**2) / 2) / (std * np.sqrt(2 * np.pi))
    return GridLaw(grid, density * (grid[1] - grid[0]), ndtr(z))


def density_law(target: Any, sigma: float, grid: np.ndarray) -> GridLaw:
    """The law of the (noisy) data on a grid.

    Args:
        target: a one-dimensional `hdzoo.targets.analytic.AnalyticScore`.
        sigma: noise level; 0 only where the data have a smooth density.
        grid: evenly spaced points that hold all of the mass.
    """
    points = torch.from_numpy(grid)[:, None]
    density = target.log_density(points, sigma).exp().numpy()
    weights = density * (grid[1] - grid[0])
    if abs(weights.sum() - 1) > 1e-9:
        raise HDZooError(
            f"the density at sigma = {sigma:g} sums to {weights.sum():.12g} on the grid from "
            f"{grid[0]:g} to {grid[-1]:g}; take a wider or a finer one, or add noise"
        )
    return GridLaw(grid, weights, CubicSpline(grid, density).antiderivative()(grid))


class GridChain:
    """A sampler's chain on a one-dimensional target, step by step on a grid.

    Args:
        sampler: a scheduler whose chain is fixed (`set_timesteps`).
        score: the exact score, of points of shape (n, 1).
        low: left end of where the chain may be.
        high: right end.

    Raises:
        HDZooError: the chain keeps something beside its state, its noise is not added to a function
            of it, or is too small for the range.
    """

    def __init__(self, sampler: Any, score: Score, low: float, high: float) -> None:
        sampler.set_timesteps(sampler.num_inference_steps)
        self.sampler, self.score = sampler, score
        self.num_steps = sampler.num_inference_steps
        self.noises = [noise.min() for noise in self._checked_noises(np.linspace(low, high, 101))]
        smallest = min((noise for noise in self.noises if noise > 0), default=np.inf)
        spacing = min(smallest / POINTS_PER_NOISE, (high - low) / 400)
        count = int(np.ceil((high - low) / spacing)) + 1
        if count > MOST_POINTS:
            raise HDZooError(
                f"noise of {smallest:g} on the range from {low:g} to {high:g} needs {count} grid "
                f"points, more than {MOST_POINTS}; take a larger step size or noise level"
            )
        self.grid = np.linspace(low, high, count)

    def _checked_noises(self, points: np.ndarray) -> Iterator[np.ndarray]:
        """``g`` of each step at some points; refuses a chain that is no ``f(x) + g(x) z``, by runs
        from there."""
        name = type(self.sampler).__name__
        whole, states = copy(self.sampler), points
        whole.set_begin_index(0)
        for step in range(self.num_steps):
            still, parts = self._parts(step, points)
            z = np.random.default_rng(step).standard_normal((len(parts), 2, len(points)))
            given = [[torch.from_numpy(row)[:, None] for row in rows] for rows in z.swapaxes(0, 1)]
            moved = self._move(step, points, _given(given[0]))
            expected = still + sum(part * row for part, row in zip(parts, z[:, 0], strict=True))
            if not np.allclose(moved, expected, rtol=1e-9, atol=1e-9):
                raise NotAffineError(
                    f"step {step} of {name} does not add its noise to a function of the state; its "
                    "law is not carried along a grid"
                )
            alone = self._move(step, states, _given(given[1]))
            states = self._step(whole, step, states, _given(given[1]))
            if not np.allclose(alone, states, rtol=1e-9, atol=1e-9):
                raise HDZooError(
                    f"{name} keeps more than its state: step {step} depends on what was before; "
                    "its law is not carried along a grid"
                )
            yield _size(parts, points)

    def maps(self, step: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``f`` and ``g`` of one step at some points."""
        still, parts = self._parts(step, points)
        return still, _size(parts, points)

    def _parts(self, step: int, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """``f``, and what each draw of the step is multiplied by."""
        zeros = _only(-1)
        still = self._move(step, points, zeros)
        return still, [self._move(step, points, _only(draw)) - still for draw in range(zeros.count)]

    def _move(self, step: int, points: np.ndarray, draws: Draws) -> np.ndarray:
        # A copy counts its own steps, and costs less than setting up a long chain anew.
        sampler = copy(self.sampler)
        sampler.set_begin_index(step)
        return self._step(sampler, step, points, draws)

    def _step(self, sampler: Any, step: int, points: np.ndarray, draws: Draws) -> np.ndarray:
        state = torch.from_numpy(points)[:, None]
        t, sigma = sampler.timesteps[step], sampler.sigmas[step].item()
        with draws:
            given = sampler.scale_model_input(state, t)
        output = network_output(sampler, self.score, given, sigma)
        generator = torch.Generator()
        with draws:
            moved = sampler.step(output, t, state, generator=generator, return_dict=False)[0]
        return np.asarray(moved[:, 0])

    def run(self, law: GridLaw) -> GridLaw:
        """The law of the last state, given that of the first."""
        last_noisy = max((k for k, noise in enumerate(self.noises) if noise > 0), default=-1)
        previous: tuple[np.ndarray, ...] | None = None
        kernel = csc_array((0, 0))
        for step, smallest in enumerate(self.noises):
            centre, noise = self.maps(step, law.points)
            if smallest == 0:
                law = moved(law, centre)
                continue
            key = (law.points, centre, noise)
            # The steps on one rung are the same, and making their kernel is what costs.
            if previous is None or not all(map(np.array_equal, key, previous)):
                kernel, previous = self._kernel(centre, noise), key
            # Nobody asks for the distribution function on the way.
            law = self._spread(kernel, law.weights, *key[1:], with_cdf=step == last_noisy)
        return law

    def stationary(self, start: GridLaw) -> tuple[GridLaw, int]:
        """The law that the chain's first step leaves as it is, by squaring its kernel.

        Args:
            start: from which it is reached, on the chain's grid.

        Returns:
            The law, and a number of steps such that half of them lead there up to 1e-12 in total
            variation.

        Raises:
            HDZooError: the chain does not forget its start.
        """
        centre, noise = self.maps(0, self.grid)
        once = self._kernel(centre, noise).toarray()
        many, weights, times = once, once @ start.weights, 1
        for _ in range(MOST_DOUBLINGS):
            later, times = many @ weights, 2 * times
            # Squaring doubles the roundings, of which the mass would be the largest.
            later /= later.sum()
            change = np.abs(later - weights).sum() / 2
            weights = later
            if change <= 1e-12:
                return self._spread(once, weights, centre, noise, with_cdf=True), times
            many = many @ many
        raise HDZooError(
            f"after {times} steps like the first the law still moves by {change:.2g} in total "
            "variation; take a larger step size, or modes that are closer"
        )

    def relaxation_time(self) -> float:
        """The number of steps like the first in which memory of the start falls by ``e``.

        It is ``-1 / log |l|``, ``l`` the second eigenvalue of the step's kernel.
        """
        eigenvalues = np.linalg.eigvals(self._kernel(*self.maps(0, self.grid)).toarray())
        return float(-1 / np.log(np.sort(np.abs(eigenvalues))[-2]))

    def _kernel(self, centre: np.ndarray, noise: np.ndarray) -> csc_array:
        """What share of each point goes to each point of the grid in its `REACH`; a column for
        each."""
        count, spacing = len(self.grid), self.grid[1] - self.grid[0]
        low, high = (centre + side * REACH * noise for side in (-1, 1))
        first, end = (np.searchsorted(self.grid, bound) for bound in (low, high))
        each, ends = end - first, np.concatenate([[0], np.cumsum(end - first)])
        rows = np.arange(ends[-1]) + np.repeat(first - ends[:-1], each)
        gaps = (self.grid[rows] - np.repeat(centre, each)) / np.repeat(noise, each)
        shares = np.exp(-(gaps**2) / 2) * np.repeat(spacing / np.sqrt(2 * np.pi) / noise, each)
        return csc_array((shares, rows, ends), shape=(count, len(centre)))

    def _spread(
        self,
        kernel: csc_array | np.ndarray,
        weights: np.ndarray,
        centre: np.ndarray,
        noise: np.ndarray,
        with_cdf: bool,
    ) -> GridLaw:
        moved = kernel @ weights
        if abs(moved.sum() - 1) > 1e-9:
            raise HDZooError(
                f"the law sums to {moved.sum():.12g} on the grid from {self.grid[0]:g} to "
                f"{self.grid[-1]:g}; take a wider range"
            )
        cdf = np.full_like(moved, np.nan)
        if with_cdf:
            cdf = ndtr((self.grid[:, None] - centre) / noise) @ weights
        return GridLaw(self.grid, moved, cdf)


def _size(parts: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """The standard deviation of independent parts."""
    return np.sqrt(sum((part**2 for part in parts), np.zeros_like(points)))


def _only(chosen: int) -> Draws:
    """All noise 0, but for one draw of the step, which is 1 everywhere."""
    return Draws(lambda draw, shape: torch.full(shape, float(draw == chosen)))


def _given(noises: list[torch.Tensor]) -> Draws:
    """Each draw of the step as it is given; a draw too many is 0."""
    zeros = torch.zeros_like(noises[0]) if noises else torch.zeros(1)
    return Draws(
        lambda draw, shape: noises[draw].clone() if draw < len(noises) else zeros.expand(shape)
    )


def moved(law: GridLaw, points: np.ndarray) -> GridLaw:
    """The law of a function of a point."""
    # Where nothing is, order does not matter: the far tails may fold.
    inside = (law.weights > 1e-16 * law.weights.max()).nonzero()[0]
    inside = np.arange(inside[0], inside[-1] + 1)
    points, weights, cdf = points[inside], law.weights[inside], law.cdf[inside]
    # Equal points hold the mass that a step puts on one value.
    if (np.diff(points) >= 0).all():
        return GridLaw(points, weights, cdf)
    order = np.argsort(points)
    weights = weights[order]
    return GridLaw(points[order], weights, np.cumsum(weights) - weights / 2)
