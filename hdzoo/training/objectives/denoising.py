"""Denoising score matching: the score of noisy data from the noise that is in them."""

import torch

from hdzoo.scores.conversions import score_weights
from hdzoo.training.objectives.base import Network, NoisyObjective
from hdzoo.training.objectives.derivatives import Score


class Denoising(NoisyObjective):
    """`denoising_score_matching`, at one noise level or over all of a network's."""

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        return denoising_score_matching(network.score_at(sigmas), clean, noise, sigmas)


def denoising_score_matching(
    score: Score, clean: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor
) -> torch.Tensor:
    r"""Denoising score matching, of each sample, summed over its coordinates.

    .. math:: \tfrac12 \| s(x_0 + \sigma z) + z / \sigma \|^2

    Its mean is that of `explicit_score_matching` on the noisy law, plus a constant. Over a ladder,
    each is weighted with :math:`\lambda(\sigma)`.

    Source: Vincent (Neural Computation 23, 2011), "A connection between score matching and
    denoising autoencoders", section 4; over a ladder, Song and Ermon (arXiv 1907.05600), equations
    5 and 6, with :math:`\lambda(\sigma) = \sigma^2`.

    Args:
        score: of the noisy samples, as a function of them.
        clean: the samples ``x_0``, shape (batch, ...).
        noise: standard normal noise ``z``, same shape.
        sigmas: the noise level of each sample, shape (batch,).

    Returns:
        Shape (batch,).
    """
    sigma = sigmas.view(-1, *[1] * (clean.ndim - 1))
    error = score(clean + sigma * noise) + noise / sigma
    return 0.5 * error.square().flatten(1).sum(1)


def loss_per_dimension(
    prediction: torch.Tensor,
    noisy: torch.Tensor,
    noise: torch.Tensor,
    sigma: float,
    prediction_type: str,
) -> torch.Tensor:
    r"""The scale-free denoising loss of each sample, :math:`\| \sigma s + z \|^2 / d`.

    Its mean is at least ``MMSE / (d sigma^2)``, which lies in [0, 1], and equals it for the exact
    score; it is 1 for a score of zero.

    Args:
        prediction: the network's output, shape (batch, ...).
        noisy: its input ``x0 + sigma z``, same shape.
        noise: ``z``, same shape.
        sigma: the noise level.
        prediction_type: what the network predicts; see `hdzoo.scores.conversions`.

    Returns:
        Shape (batch,).
    """
    a, b = score_weights(prediction_type, sigma)
    return (sigma * (a * prediction + b * noisy) + noise).square().flatten(1).mean(1)
