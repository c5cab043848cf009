"""Every parametrisation converts to the exact score."""

import math
from collections.abc import Callable

import pytest
import torch

from hdzoo import HDZooError
from hdzoo.scores import PREDICTION_TYPES, score_weights

SIGMAS = [1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 50.0, 348.0]
Density = Callable[[torch.Tensor, float], torch.Tensor]

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 1.5], dtype=torch.float64)
STDS = torch.tensor([0.4, 0.8], dtype=torch.float64)


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Log density of N(1.3, 0.8^2 + sigma^2)."""
    scale = math.sqrt(0.8**2 + sigma**2)
    return torch.distributions.Normal(torch.tensor(1.3, dtype=x.dtype), scale).log_prob(x)


def mixture(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Log density of two noisy Gaussians."""
    parts = torch.distributions.Normal(MEANS, (STDS**2 + sigma**2).sqrt())
    return torch.logsumexp(WEIGHTS.log() + parts.log_prob(x[:, None]), 1)


def gaussian_mean(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x], by Bayes' rule: the mean of prior and observation, weighted by precision."""
    precisions = 1 / 0.8**2, 1 / sigma**2
    return (precisions[0] * 1.3 + precisions[1] * x) / sum(precisions)


def mixture_mean(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x], by Bayes' rule in each component."""
    parts = torch.distributions.Normal(MEANS, (STDS**2 + sigma**2).sqrt())
    responsible = (WEIGHTS.log() + parts.log_prob(x[:, None])).softmax(1)
    precisions = 1 / STDS**2, 1 / sigma**2
    means = (precisions[0] * MEANS + precisions[1] * x[:, None]) / sum(precisions)
    return (responsible * means).sum(1)


def points(sigma: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    return 0.3 + draws[0] + sigma * draws[1]


def exact_score(density: Density, x: torch.Tensor, sigma: float) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(density(x, sigma).sum(), x)[0]


def predictions(x: torch.Tensor, denoised: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
    """What each network would learn: the expectation of its target given x = x0 + sigma z."""
    z = (x - denoised) / sigma
    return {
        "score": -z / sigma,
        "scaled_score": -z,
        "epsilon": z,
        "sample": denoised,
        "v_prediction": (z - sigma * denoised) / math.sqrt(1 + sigma**2),
    }


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(
    ("density", "posterior_mean"), [(gaussian, gaussian_mean), (mixture, mixture_mean)]
)
def test_every_prediction_is_the_score(
    density: Density, posterior_mean: Density, sigma: float
) -> None:
    x = points(sigma)
    score = exact_score(density, x, sigma)
    found = predictions(x, posterior_mean(x, sigma), sigma)
    assert set(found) == set(PREDICTION_TYPES)
    for kind, prediction in found.items():
        a, b = score_weights(kind, sigma)
        # A rounding of x and of E[x0 | x], 2e-16 of their size, is divided by sigma^2.
        slack = 1e-15 * float(x.abs().max() + 2) / sigma**2
        torch.testing.assert_close(a * prediction + b * x, score, rtol=1e-10, atol=slack)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_tweedie(sigma: float) -> None:
    x = points(sigma)
    for density, posterior_mean in [(gaussian, gaussian_mean), (mixture, mixture_mean)]:
        denoised = x + sigma**2 * exact_score(density, x, sigma)
        # At large sigma x cancels, of which a rounding is 2e-16.
        slack = 1e-14 * float(x.abs().max())
        torch.testing.assert_close(denoised, posterior_mean(x, sigma), rtol=1e-10, atol=slack)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_tensor_of_noise_levels(kind: str) -> None:
    """A tensor of levels gives level by level what numbers give."""
    levels = torch.tensor(SIGMAS, dtype=torch.float64).view(-1, 1, 1)
    weights = torch.stack(score_weights(kind, levels)).squeeze()
    one_by_one = torch.tensor([score_weights(kind, sigma) for sigma in SIGMAS]).T
    # float32 of the list, 6e-8.
    torch.testing.assert_close(weights, one_by_one.to(weights), rtol=1e-6, atol=0)


def test_unknown_prediction() -> None:
    with pytest.raises(HDZooError, match="unknown prediction_type 'noise'; allowed are score, ep"):
        score_weights("noise", 1.0)
