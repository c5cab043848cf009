r"""Signs and the score of their law: pure functions that the walks share.

Data :math:`x_0` in :math:`\{-1, 1\}^d`. Bit-flip noise keeps each sign with probability
:math:`1 / (1 + e^{-2 / \sigma^2})`: the noisy signs :math:`y` have the law

.. math:: q(y) \propto \sum_{x_0} p(x_0)\, e^{x_0 \cdot y / \sigma^2},

and since :math:`|x_0|^2 = d`, the posterior of :math:`x_0` given :math:`y` is that given
:math:`x_0 + \sigma z = y`: :math:`E[x_0 | y] = y + \sigma^2 s(y, \sigma)`, with the score that
every sampler of hdzoo is given. Bach and Saremi's :math:`\alpha` is :math:`1 / \sigma^2`.
"""

import math

import torch

from hdzoo.samplers.noise import Noise

SCORES = ("difference", "gradient")
JUMPS = ("rounding", "sign")


def posterior_mean(x: torch.Tensor, score: torch.Tensor, sigma: float) -> torch.Tensor:
    r""":math:`E[x_0 | x]`, kept in [-1, 1], which a learned score may leave.

    Args:
        x: where the network was asked, any shape.
        score: its VE score there, same shape.
        sigma: the noise level.
    """
    return (x + sigma**2 * score).clamp(-1, 1)


def signs_score(y: torch.Tensor, mean: torch.Tensor, sigma: float, kind: str) -> torch.Tensor:
    r"""The score of the noisy signs, with respect to each of them.

    ``"gradient"``: of :math:`\log q` extended to :math:`R^d`, which is
    :math:`E[x_0 | y] / \sigma^2`. ``"difference"``: half of what :math:`\log q` gains when a sign
    goes from -1 to 1, the others as they are. It needs no more than the same mean :math:`\mu`,

    .. math::
        \tfrac12 \log \frac{q(y_i = 1)}{q(y_i = -1)} = - \tfrac12 y_i \log \left(
            \tfrac{1 - \mu_i y_i}{2} e^{2 / \sigma^2}
            + \tfrac{1 + \mu_i y_i}{2} e^{-2 / \sigma^2} \right),

    is exact, and does not depend on :math:`y_i` itself; the gradient is its expansion at
    :math:`y`. They agree as the noise grows.

    Args:
        y: where the mean is of: signs, or on the way from a start that is none any numbers.
        mean: :math:`\mu`, in [-1, 1], same shape.
        sigma: the noise level of one sign.
        kind: one of `SCORES`.
    """
    if kind == "gradient":
        return mean / sigma**2
    side = torch.where(y < 0, -1.0, 1.0).to(y.dtype)
    turned, kept = (1 - mean * side) / 2, (1 + mean * side) / 2
    return -side / 2 * torch.logaddexp(turned.log() + 2 / sigma**2, kept.log() - 2 / sigma**2)


def draw_signs(logits: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Independent signs, each 1 with probability ``sigmoid(logits)``.

    Args:
        logits: shape (batch, ...).
        noise: what they are drawn from.
    """
    up = noise.uniform(logits.shape) < torch.sigmoid(logits)
    return torch.where(up, 1.0, -1.0).to(logits.dtype)


def jump(mean: torch.Tensor, kind: str, noise: Noise) -> torch.Tensor:
    r"""Clean signs from the denoiser.

    ``"sign"``: :math:`\mathrm{sign}\, E[x_0 | y]`, the most likely value of each sign, which the
    fewest are wrong of. ``"rounding"``: 1 with probability :math:`(1 + E[x_0 | y]) / 2`, so that
    each has the law of the data where :math:`y` has that of noisy ones.

    Args:
        mean: :math:`E[x_0 | y]`, in [-1, 1].
        kind: one of `JUMPS`.
        noise: what is drawn from.
    """
    if kind == "sign":
        return torch.where(mean < 0, -1.0, 1.0).to(mean.dtype)
    return draw_signs(torch.special.logit((1 + mean) / 2), noise)


def log_odds_of_noise(clean: torch.Tensor, sigma: float) -> torch.Tensor:
    """The logits of `draw_signs` that make clean signs noisy."""
    return 2 / sigma**2 * clean


def flip_probability(sigma: float) -> float:
    """The probability that bit-flip noise turns a sign over."""
    return 1 / (1 + math.exp(2 / sigma**2))
