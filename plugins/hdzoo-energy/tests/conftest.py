"""Laws that are not Gaussian, with a distribution known by quadrature, and chains there."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from hdzoo import GaussianMixtureScore, LaplaceScore
from hdzoo.verification import GridLaw, density_law

SIGMA = 0.5


class Target:
    """A law with its energy and its score."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def score(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def sample(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def uniforms(self, x: torch.Tensor) -> Iterator[np.ndarray]:
        """What of the points is uniform on [0, 1], each by itself, if they have the law."""
        raise NotImplementedError

    def p_value(self, x: torch.Tensor) -> float:
        """The smallest of what the uniform numbers give."""
        return min(stats.kstest(uniform, "uniform").pvalue for uniform in self.uniforms(x))

    def chain(
        self, sampler: Any, x: torch.Tensor, steps: int, generator: torch.Generator
    ) -> Iterator[torch.Tensor]:
        """The states after each evaluation."""
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            score, energy = self.score(x), self.energy(x)
            x = sampler.step(score, t, x, generator=generator, energy=energy).prev_sample
            yield x

    def end(self, sampler: Any, x: torch.Tensor, steps: int) -> torch.Tensor:
        """The last of them."""
        *_, last = self.chain(sampler, x, steps, torch.Generator().manual_seed(1))
        return last


class Analytic(Target):
    """A law on the line with a density at a noise level."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.law = density_law(model, SIGMA, np.linspace(-30, 30, 8001))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return -self.model.log_density(x, SIGMA)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.score(x, SIGMA)

    def sample(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        return self.model.sample(num_samples, generator, sigma=SIGMA).double()

    def uniforms(self, x: torch.Tensor) -> Iterator[np.ndarray]:
        yield np.interp(x[:, 0].numpy(), self.law.points, self.law.cdf)


class Banana(Target):
    """Two wells, and valleys that bend: E = 2 (x^2 - 1)^2 + 2 (y - x^2)^2.

    Given x, y is N(x^2, 1/4); so x has the density exp(-2 (x^2 - 1)^2), up to a factor.
    """

    def __init__(self) -> None:
        grid = np.linspace(-3, 3, 6001)
        density = np.exp(-2 * (grid**2 - 1) ** 2)
        # Trapezoids of 1e-3: an error of 1e-6.
        cdf = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        self.law = GridLaw(grid, density / density.sum(), cdf / cdf[-1])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * (x[:, 0] ** 2 - 1) ** 2 + 2 * (x[:, 1] - x[:, 0] ** 2) ** 2

    def score(self, x: torch.Tensor) -> torch.Tensor:
        bent = 4 * (x[:, 1] - x[:, 0] ** 2)
        along = -8 * x[:, 0] * (x[:, 0] ** 2 - 1) + 2 * x[:, 0] * bent
        return torch.stack([along, -bent], 1)

    def sample(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        share = torch.rand(num_samples, generator=generator, dtype=torch.float64)
        x = torch.from_numpy(self.law.quantile(share.numpy()))
        z = torch.randn(num_samples, generator=generator, dtype=torch.float64)
        return torch.stack([x, x**2 + z / 2], 1)

    def uniforms(self, x: torch.Tensor) -> Iterator[np.ndarray]:
        points = x.numpy()
        yield np.interp(points[:, 0], self.law.points, self.law.cdf)
        yield stats.norm.cdf(2 * (points[:, 1] - points[:, 0] ** 2))


class Normal(Target):
    """N(0, V) in each direction."""

    def __init__(self, variance: float) -> None:
        self.variance = variance

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1) / (2 * self.variance)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return -x / self.variance


@pytest.fixture(scope="session")
def targets() -> dict[str, tuple[Target, float]]:
    """By name, each with a step size at which some is not accepted."""
    mixture = GaussianMixtureScore.from_components([[-1.0], [1.5]], [0.04, 0.25], [0.3, 0.7])
    return {
        "mixture": (Analytic(mixture), 0.4),
        "laplace": (Analytic(LaplaceScore.from_parameters(0.5, 1.0)), 1.0),
        "banana": (Banana(), 0.06),
    }


@pytest.fixture(scope="session")
def banana() -> Banana:
    return Banana()


@pytest.fixture(scope="session")
def normal_target() -> type[Normal]:
    return Normal
