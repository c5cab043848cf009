"""Cross-entropy: what denoising is for signs with bit-flip noise."""

import torch
from torch.nn import functional as F


def bit_flip_cross_entropy(half_log_odds: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    r"""The logistic loss of clean signs given noisy ones, of each sample, in nats.

    .. math:: - \sum_i \log P(x_{0,i} | x) = \sum_i \log (1 + e^{-2 x_{0,i} \ell_i(x)})

    with the network's half log odds :math:`\ell_i`. It is least in the mean at
    :math:`\ell = \mathrm{artanh}\, E[x_0 | x]`, the exact denoiser, whatever the noise.

    Source: Bach and Saremi (arXiv 2502.00557), whose noise turns each sign over with probability
    :math:`1 / (1 + e^{2 / \sigma^2})`.

    Args:
        half_log_odds: of each clean sign, shape (batch, ...).
        clean: -1 and 1, same shape.

    Returns:
        Shape (batch,).
    """
    return F.softplus(-2 * clean * half_log_odds).flatten(1).sum(1)
