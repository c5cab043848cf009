"""Noise levels that a network is trained at, and what each of them weighs."""

import torch

from hdzoo.errors import HDZooError

SIGMA_DISTRIBUTIONS = ("ladder", "log-uniform", "log-normal")
LOSS_WEIGHTINGS = ("song-ermon", "karras")


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
    # From its logarithm a single level would come back rounded.
    if distribution == "ladder" or (len(ladder) == 1 and distribution in SIGMA_DISTRIBUTIONS):
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
