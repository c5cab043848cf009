"""Training objectives and distributions of noise levels, as pure functions."""

import torch

from hdzoo.errors import HDZooError
from hdzoo.scores.conversions import score_weights

SIGMA_DISTRIBUTIONS = ("ladder", "log-uniform", "log-normal")


def denoising_score_matching(
    score: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    r"""Denoising score matching, summed over pixels and averaged over the batch.

    .. math:: \frac12 E\, \lambda(\sigma) \| s(x_0 + \sigma z, \sigma) + z / \sigma \|^2

    Source: Vincent (2011); Song and Ermon (arXiv 1907.05600), equations 5 and 6, whose weight is
    :math:`\lambda(\sigma) = \sigma^2`.

    Args:
        score: the network's score at the noisy samples, shape (batch, ...).
        noise: the standard normal noise ``z`` in them, same shape.
        sigmas: the noise level of each sample, shape (batch,).
        weight: ``lambda(sigma)`` of each sample, shape (batch,).

    Returns:
        The loss, a scalar.
    """
    sigma = sigmas.view(-1, *[1] * (score.ndim - 1))
    error = (score + noise / sigma).square().flatten(1).sum(1)
    return 0.5 * (weight * error).mean()


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


def draw_sigmas(
    distribution: str,
    batch_size: int,
    ladder: torch.Tensor,
    log_mean: float,
    log_std: float,
) -> torch.Tensor:
    """Draws one noise level for each sample from torch's global generator.

    Args:
        distribution: ``"ladder"`` (a rung, each as likely: Song and Ermon 2019), ``"log-uniform"``
            between the ladder's ends, or ``"log-normal"`` clipped to them (Karras et al. 2022,
            with ``log_mean`` and ``log_std`` of ``log sigma``).
        batch_size: how many.
        ladder: descending noise levels, shape (levels,); its device is where the draw happens.
        log_mean: mean of ``log sigma`` for ``"log-normal"``.
        log_std: its standard deviation.

    Returns:
        Shape (batch_size,), in the ladder's dtype and on its device.

    Raises:
        HDZooError: the distribution is unknown.
    """
    shape, device = (batch_size,), ladder.device
    if distribution == "ladder":
        return ladder[torch.randint(len(ladder), shape, device=device)]
    if distribution == "log-uniform":
        position = torch.rand(shape, device=device)
        return (ladder[0].log() + position * (ladder[-1] / ladder[0]).log()).exp()
    if distribution == "log-normal":
        draw = log_mean + log_std * torch.randn(shape, device=device)
        return torch.minimum(torch.maximum(draw.exp(), ladder[-1]), ladder[0])
    raise HDZooError(
        f"unknown sigma distribution {distribution!r}; allowed are "
        + ", ".join(SIGMA_DISTRIBUTIONS)
    )


def song_ermon_weight(sigmas: torch.Tensor) -> torch.Tensor:
    """``sigma^2``: the weight of Song and Ermon (arXiv 1907.05600), section 4.2.

    Args:
        sigmas: noise levels, any shape.

    Returns:
        Same shape.
    """
    return sigmas**2


def karras_weight(sigmas: torch.Tensor, data_std: float) -> torch.Tensor:
    """``sigma^2 (1 + sigma^2 / data_std^2)``: gives a preconditioned network unit output weights.

    Source: Karras et al. (arXiv 2206.00364), table 1: their ``lambda`` weighs the error of the
    denoiser, which is ``sigma^4`` times that of the score. Divided by the dimensionless
    ``data_std^2``, it is the same up to a constant.

    Args:
        sigmas: noise levels, any shape.
        data_std: standard deviation of the data.

    Returns:
        Same shape.
    """
    return sigmas**2 * (1 + (sigmas / data_std) ** 2)
