"""Cross-entropy of clean signs given noisy ones, as a training objective."""

import math
from typing import Any

import torch

from hdzoo import HDZooError
from hdzoo.training.objectives import Network, Objective, bit_flip_cross_entropy

MEASUREMENTS = (1, 2, 4, 8, 16)
# Of a single one.
LOWEST = 0.6


class BitFlipCrossEntropy(Objective):
    """`bit_flip_cross_entropy`, a sign, on images made binary: 1 where they are lighter than half.

    Noise: of each image, ``m`` measurements, ``m`` 1 to 16 with equal chances of doublings, at a
    level of all of them that is log-uniform in the network's range, but none of them at one below
    0.6, where hardly a sign is turned over.

    Source: Bach and Saremi (arXiv 2502.00557); its minimum is the exact denoiser.
    """

    def check(self, network: Any, config: Any) -> None:
        if not hasattr(network, "half_log_odds") or tuple(network.config.data_range) != (-1, 1):
            raise HDZooError(
                "cross-entropy of signs needs a network that gives their log odds, such as "
                f"'binary-unet', and {type(network).__name__} gives none"
            )

    def draw(self, network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        config = network.network.config
        levels = draw_levels(len(images), config.sigma_min, config.sigma_max)
        return tuple(one.to(images.device) for one in levels)

    def loss(self, network: Network, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        sigma, count = draws
        clean = torch.where(images > 0, 1.0, -1.0)
        noisy = measure(clean, sigma, count)
        half = network.network.half_log_odds(noisy, sigma)
        return bit_flip_cross_entropy(half, clean).mean() / clean[0].numel()


def measure(clean: torch.Tensor, sigma: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The mean of ``count`` measurements, each at level ``sigma * sqrt(count)``.

    Args:
        clean: signs, shape (batch, ...).
        sigma: the noise level of all together, shape (batch,).
        count: how many, shape (batch,).
    """
    each = (-1, *[1] * (clean.ndim - 1))
    kept = torch.sigmoid(2 / (sigma**2 * count)).view(each).expand(clean.shape)
    count = count.view(each).expand(clean.shape).to(clean.dtype)
    return clean * (2 * torch.binomial(count, kept) / count - 1)


def draw_levels(batch: int, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A noise level of all measurements, and how many they are, for each image."""
    sigma = torch.exp(math.log(low) + torch.rand(batch) * math.log(high / low))
    count = torch.tensor(MEASUREMENTS)[torch.randint(len(MEASUREMENTS), (batch,))]
    needed = (LOWEST / sigma).square().ceil().long().clamp(min=1)
    return sigma, torch.maximum(count, needed)
