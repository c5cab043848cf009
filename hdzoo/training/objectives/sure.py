"""Stein's unbiased estimate of the risk of a denoiser: from noisy data alone."""

from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo.checks import Flag, checked
from hdzoo.errors import HDZooError
from hdzoo.training.objectives.base import Network
from hdzoo.training.objectives.derivatives import Score, divergence, estimated_divergence
from hdzoo.training.objectives.implicit import Implicit
from hdzoo.training.setup import network_ladder


class Sure(Implicit):
    r"""`stein_unbiased_risk` of the network's denoiser, divided by :math:`2 \sigma^4`.

    So it is a loss of the score, as the others are, and weighted as they are.

    Args:
        probes: random directions for each image; None for the exact divergence, which costs as many
            derivatives as an image has values.
        probe_law: their law, one of `PROBES`.
        noisy_data: whether the images have noise already, of the one level that the network is
            for. Else noise is added to them afresh whenever they are shown.
    """

    @checked(noisy_data=Flag())
    def __init__(
        self, probes: int | None = 1, probe_law: str = "rademacher", noisy_data: bool = False
    ) -> None:
        super().__init__(probes, probe_law)
        self.noisy_data = noisy_data

    def check(self, network: ModelMixin, config: Any) -> None:
        super().check(network, config)
        ladder = network_ladder(network)
        if self.noisy_data and len(ladder) > 1:
            raise HDZooError(
                f"noisy images have one noise level, and {type(network).__name__} is for levels "
                f"from {ladder[-1]:g} to {ladder[0]:g}; make sigma_min and sigma_max of the "
                "network, or the one of its sigma_levels, the level of the images"
            )

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        score, variance = network.score_at(sigmas), sigmas.view(-1, 1, 1, 1) ** 2
        noisy = clean if self.noisy_data else clean + variance.sqrt() * noise

        def denoiser(x: torch.Tensor) -> torch.Tensor:
            return x + variance * score(x)

        return stein_unbiased_risk(denoiser, noisy, sigmas, *others) / (2 * sigmas**4)


def stein_unbiased_risk(
    denoiser: Score, x: torch.Tensor, sigmas: torch.Tensor, probes: torch.Tensor | None = None
) -> torch.Tensor:
    r"""An estimate of :math:`\| D(x) - x_0 \|^2` from :math:`x = x_0 + \sigma z` alone.

    .. math:: \| D(x) - x \|^2 + 2 \sigma^2 \nabla \cdot D(x) - d \sigma^2

    Its mean over the noise is that of the squared error, whatever :math:`x_0` is. For
    :math:`D(x) = x + \sigma^2 s(x)` it is :math:`2 \sigma^4` times `implicit_score_matching` of
    ``s``, plus :math:`d \sigma^2`.

    Source: Stein (1981), "Estimation of the mean of a multivariate normal distribution", theorem 1;
    with probes, Ramani, Blu, Unser (2008), "Monte-Carlo SURE".

    Args:
        denoiser: ``D``, of a batch of points, shape (batch, ...), to that shape.
        x: noisy samples, shape (batch, ...).
        sigmas: the noise level of each, shape (batch,).
        probes: from `draw_probes`, shape (batch, number, ...); None for the exact divergence.

    Returns:
        Shape (batch,).
    """
    if probes is None:
        value, spread = divergence(denoiser, x)
    else:
        value, spread = estimated_divergence(denoiser, x, probes)
    moved = (value - x).square().flatten(1).sum(1)
    return moved + 2 * sigmas**2 * spread - x[0].numel() * sigmas**2
