"""Objectives against one another: means on laws of the line, their gradients and minimisers."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from hdzoo.scores.conversions import from_score
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.training.objectives import (
    bit_flip_cross_entropy,
    denoising_score_matching,
    energy_score,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    stein_unbiased_risk,
)
from hdzoo.training.objectives.derivatives import Score

# Of the random weights at which values and gradients are compared.
NUM_WEIGHTS = 5


class Points(NamedTuple):
    """Clean points, their noise and their weights: a law of both that integrals are sums over."""

    clean: Tensor
    noise: Tensor
    weights: Tensor
    sigmas: Tensor
    score: Tensor

    @classmethod
    def of(cls, law: GaussianMixtureScore, sigma: float) -> "Points":
        """All pairs of a grid of clean points and one of noise, on which both have all their mass.

        Args:
            law: of the data, on the line.
            sigma: the noise level.
        """
        x0 = torch.linspace(-7, 8, 151, dtype=torch.float64)[:, None]
        z = torch.linspace(-8.5, 8.5, 151, dtype=torch.float64)[:, None]
        density = law.log_density(x0).exp()[:, None] * (-(z[:, 0] ** 2) / 2).exp()
        clean, noise = x0.repeat_interleave(len(z), 0), z.repeat(len(x0), 1)
        weights, sigmas = (
            density.flatten() / density.sum(),
            torch.full_like(clean[:, 0], sigma),
        )
        return cls(clean, noise, weights, sigmas, law.score(clean + sigma * noise, sigma))

    def mean(self, values: Tensor) -> Tensor:
        return self.weights @ values

    @property
    def noisy(self) -> Tensor:
        return self.clean + self.sigmas[:, None] * self.noise


def objectives(score: Score, points: Points) -> dict[str, Tensor]:
    """The mean of each objective; over normal probes too, by a rule that is exact for squares.

    Args:
        score: of the points.
        points: the law.
    """
    x, sigma = points.noisy, points.sigmas[:, None]
    # Nodes of Gauss and Hermite: 0 and +-sqrt 3.
    nodes, shares = (0.0, math.sqrt(3), -math.sqrt(3)), (2 / 3, 1 / 6, 1 / 6)
    probes = [torch.full_like(x, node)[:, None] for node in nodes]

    def over_probes(losses: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [p * losses(u) for p, u in zip(shares, probes, strict=True)]
        return torch.stack(parts).sum(0)

    losses = {
        "explicit": explicit_score_matching(score, x, points.score),
        "implicit": implicit_score_matching(score, x),
        "implicit with probes": over_probes(lambda u: implicit_score_matching(score, x, u)),
        "sliced": over_probes(lambda u: sliced_score_matching(score, x, u)),
        "denoising": denoising_score_matching(score, points.clean, points.noise, points.sigmas),
        "sure": stein_unbiased_risk(lambda x: x + sigma**2 * score(x), x, points.sigmas)
        / (2 * points.sigmas**4),
    }
    return {name: points.mean(loss) for name, loss in losses.items()}


def constants(points: Points) -> dict[str, float]:
    """What the theory says that each is above explicit score matching."""
    fisher = points.mean(points.score[:, 0] ** 2).item()
    over = dict.fromkeys(("implicit", "implicit with probes", "sliced"), -fisher / 2)
    level = 1 / (2 * points.sigmas[0].item() ** 2)
    return over | {"denoising": level - fisher / 2, "sure": level - fisher / 2}


def linear(weights: Tensor, x: Tensor) -> Tensor:
    return weights[1] - weights[0] * x


def quadratic_energy(weights: Tensor, x: Tensor) -> Tensor:
    return energy_score(lambda x: (weights[0] * x**2 / 2 - weights[1] * x).sum(1))(x)


def network(weights: Tensor, x: Tensor) -> Tensor:
    a, b, c = weights.view(3, -1)
    return torch.tanh(x * a + b) @ c[:, None]


# With the number of their weights.
MODELS = {
    "linear": (linear, 2),
    "quadratic energy": (quadratic_energy, 2),
    "network": (network, 24),
}


def deviations(points: Points) -> dict[str, dict[str, float]]:
    """How far values and gradients are from those of explicit score matching and the constants."""
    expected, found = constants(points), {}
    generator = torch.Generator().manual_seed(0)
    for name, (model, size) in MODELS.items():
        values, gradients = [0.0], [0.0]
        for _ in range(NUM_WEIGHTS):
            weights = torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
            means = objectives(partial(model, weights), points)
            slopes = {k: torch.autograd.grad(v, weights)[0] for k, v in means.items()}
            for key, constant in expected.items():
                values.append(abs((means[key] - means["explicit"]).item() - constant))
                gradients.append((slopes[key] - slopes["explicit"]).abs().max().item())
        found[name] = {"value": max(values), "gradient": max(gradients)}
    return found


def minimisers(points: Points, model: Callable[[Tensor, Tensor], Tensor]) -> dict[str, list[float]]:
    """The weights at which each objective is least: one step of Newton's, for it is quadratic.

    Args:
        points: the law.
        model: with two weights, of which its score is a linear function.
    """
    start, found = torch.tensor([1.0, 0.0], dtype=torch.float64), {}
    for name in objectives(partial(model, start), points):

        def mean(weights: Tensor, name: str = name) -> Tensor:
            return objectives(partial(model, weights), points)[name]

        slope = torch.autograd.functional.jacobian(mean, start)
        curvature = torch.autograd.functional.hessian(mean, start)
        found[name] = (start - torch.linalg.solve(curvature, slope)).tolist()
    return found


def ddpm_deviation(law: GaussianMixtureScore) -> float:
    """How far DDPM's loss is from twice NCSN's at the same level, over some of DDPM's."""
    schedule, worst = DDPMScheduler(), 0.0
    weights = torch.randn(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in (100, 500, 900):
        kept = schedule.alphas_cumprod[step].double()
        sigma = ((1 - kept) / kept).sqrt()
        points = Points.of(law, sigma.item())
        score = partial(network, weights)
        ncsn = denoising_score_matching(score, points.clean, points.noise, points.sigmas)
        state = kept.sqrt() * points.clean + (1 - kept).sqrt() * points.noise
        predicted = from_score(score(state / kept.sqrt()), state, sigma, "epsilon", "vp")
        ddpm = (points.noise - predicted).square().sum(1)
        gap = points.mean(ddpm) - 2 * sigma**2 * points.mean(ncsn)
        worst = max(worst, abs(gap.item()))
    return worst


def signs_slope(sigma: float) -> float:
    """The slope of cross-entropy at the exact denoiser of a law of two signs, by all its points.

    Args:
        sigma: the noise level.
    """
    points = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    law = torch.tensor([0.5, 0.1, 0.15, 0.25]).double()
    joint = law[:, None] * torch.sigmoid(2 * points[:, None] * points / sigma**2).prod(2)
    posterior = (joint.T @ points) / joint.sum(0)[:, None]
    half = torch.atanh(posterior).requires_grad_()
    losses = torch.stack([bit_flip_cross_entropy(half, x0.expand(4, 2)) for x0 in points])
    (slope,) = torch.autograd.grad((joint * losses).sum(), half)
    return slope.abs().max().item()
