"""Implicit score matching: from samples alone, by the derivatives of the score."""

import torch

from hdzoo.checks import COUNT, Maybe, OneOf, checked
from hdzoo.training.objectives.base import Network, NoisyObjective
from hdzoo.training.objectives.derivatives import (
    PROBES,
    Score,
    along,
    divergence,
    draw_probes,
    estimated_divergence,
)


class Implicit(NoisyObjective):
    """`implicit_score_matching` of noisy images.

    Args:
        probes: random directions for each image; None for the exact trace, which costs as many
            derivatives as an image has values.
        probe_law: their law, one of `PROBES`.
    """

    @checked(probes=Maybe(COUNT), probe_law=OneOf(PROBES))
    def __init__(self, probes: int | None = 1, probe_law: str = "rademacher") -> None:
        self.probes = probes
        self.probe_law = probe_law

    def draw(self, network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        noise_and_levels = super().draw(network, images)
        if self.probes is None:
            return noise_and_levels
        return *noise_and_levels, draw_probes(images, self.probes, self.probe_law)

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        noisy = clean + sigmas.view(-1, 1, 1, 1) * noise
        return implicit_score_matching(network.score_at(sigmas), noisy, *others)


class Sliced(Implicit):
    """`sliced_score_matching` of noisy images.

    Args:
        probes: random directions for each image.
        probe_law: their law, one of `PROBES`.
    """

    @checked(probes=COUNT)
    def __init__(self, probes: int = 1, probe_law: str = "rademacher") -> None:
        super().__init__(probes, probe_law)

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        noisy = clean + sigmas.view(-1, 1, 1, 1) * noise
        return sliced_score_matching(network.score_at(sigmas), noisy, *others)


def implicit_score_matching(
    score: Score, x: torch.Tensor, probes: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Implicit score matching, of each sample.

    .. math:: \mathrm{tr}\, \nabla s(x) + \tfrac12 \| s(x) \|^2

    Its mean over samples of ``p`` is that of `explicit_score_matching`, less
    :math:`\tfrac12 E \| \nabla \log p \|^2`. With probes ``u`` the trace is estimated by the mean
    of :math:`u^T \nabla s(x)\, u` (Hutchinson), unbiased where :math:`E u u^T = I`; its variance
    is :math:`2 \| A \|_F^2` for normal probes and :math:`2 \sum_{i \ne j} A_{ij}^2` for signs,
    where ``A`` is the symmetric part of the Jacobian, divided by their number.

    Source: Hyvärinen (JMLR 6, 2005), theorem 1; with probes, it is sliced score matching with
    variance reduction: Song, Garg, Shi, Ermon (arXiv 1905.07088), section 3.

    Args:
        score: ``s``.
        x: samples, shape (batch, ...).
        probes: from `draw_probes`, shape (batch, number, ...); None for the exact trace.

    Returns:
        Shape (batch,).
    """
    value, trace = (
        divergence(score, x) if probes is None else estimated_divergence(score, x, probes)
    )
    return trace + 0.5 * value.square().flatten(1).sum(1)


def sliced_score_matching(score: Score, x: torch.Tensor, probes: torch.Tensor) -> torch.Tensor:
    r"""Sliced score matching, of each sample, averaged over its probes.

    .. math:: u^T \nabla s(x)\, u + \tfrac12 (u^T s(x))^2

    Its mean is that of `implicit_score_matching` where :math:`E u u^T = I`. With variance reduction
    the second term is :math:`\tfrac12 \| s(x) \|^2`: that is `implicit_score_matching` with probes.

    Source: Song, Garg, Shi, Ermon (arXiv 1905.07088), section 3.

    Args:
        score: ``s``.
        x: samples, shape (batch, ...).
        probes: from `draw_probes`, shape (batch, number, ...).

    Returns:
        Shape (batch,).
    """
    losses = []
    for probe in probes.unbind(1):
        value, slope = along(score, x, probe)
        across = (probe * slope).flatten(1).sum(1)
        losses.append(across + 0.5 * (probe * value).flatten(1).sum(1).square())
    return torch.stack(losses).mean(0)
