r"""Generalised score matching: an operator in the place of the gradient.

For a linear operator ``L`` on densities, the function :math:`f^* = L p / p` is found from samples
of ``p`` alone, for

.. math::
    \tfrac12 E \| f - L p / p \|^2
    = E \left[ \tfrac12 \| f \|^2 - L^\dagger f \right] + \tfrac12 E \| L p / p \|^2,
    \quad \int f \cdot L p = \int p\, L^\dagger f.

================  =====================================  ===========================================
adjoint           ``L p / p``                            what the loss then is
================  =====================================  ===========================================
`gradient`        the score                              implicit score matching
`directional`     the score along ``u``                  sliced score matching, of ``u . s``
`of_noise`        the score of noisy data                denoising score matching, less
                                                         :math:`\| z \|^2 / 2 \sigma^2`
`tweedie`         the denoiser :math:`E[x_0 | x]`        :math:`SURE / 2`, plus
                                                         :math:`(d \sigma^2 - \| x \|^2) / 2`
`flips`           :math:`p(x^{(i)}) / p(x)`, with sign   a score of signs: what discrete walks need
                  ``i`` turned over
================  =====================================  ===========================================

Source: Lyu (arXiv 1205.2629), "Interpretation and generalization of score matching", which has the
operator and its adjoint; Hyvärinen (CSDA 51, 2007), "Some extensions of score matching", for
signs.
"""

from collections.abc import Callable

import torch

from hdzoo.training.objectives.derivatives import Score, along, divergence

# From ``f`` and samples to the values of ``f``, shape (batch, ...), and of its image, (batch,).
Adjoint = Callable[[Score, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def generalised_score_matching(function: Score, x: torch.Tensor, adjoint: Adjoint) -> torch.Tensor:
    r"""Generalised score matching, of each sample: :math:`\tfrac12 \| f \|^2 - L^\dagger f`.

    Args:
        function: ``f``.
        x: samples, shape (batch, ...).
        adjoint: :math:`L^\dagger`, one of those in this module, or another.

    Returns:
        Shape (batch,).
    """
    value, image = adjoint(function, x)
    return 0.5 * value.square().flatten(1).sum(1) - image


def gradient(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The adjoint of :math:`\nabla`, which is :math:`- \nabla \cdot f`."""
    value, spread = divergence(function, x)
    return value, -spread


def directional(direction: torch.Tensor) -> Adjoint:
    r"""The adjoint of :math:`u \cdot \nabla`, which is :math:`- u \cdot \nabla f`.

    Args:
        direction: ``u`` of each sample, shape (batch, ...). The function gives one number at each
            point, shape (batch, 1).
    """

    def adjoint(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = along(function, x, direction)
        return value, -slope.flatten(1).sum(1)

    return adjoint


def of_noise(noise: torch.Tensor, sigmas: torch.Tensor) -> Adjoint:
    r"""The adjoint of :math:`\nabla` on noisy data, :math:`- f(x) \cdot z / \sigma`.

    Its mean over the noise is that of `gradient` (Stein), and it needs no derivative.

    Args:
        noise: the standard normal noise ``z`` in the samples, same shape.
        sigmas: the noise level of each, shape (batch,).
    """

    def adjoint(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = function(x)
        return value, -(value * noise).flatten(1).sum(1) / sigmas

    return adjoint


def tweedie(sigmas: torch.Tensor) -> Adjoint:
    r"""The adjoint of :math:`x + \sigma^2 \nabla`: :math:`x \cdot f - \sigma^2 \nabla \cdot f`.

    Args:
        sigmas: the noise level of each sample, shape (batch,).
    """

    def adjoint(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, spread = divergence(function, x)
        return value, (x * value).flatten(1).sum(1) - sigmas**2 * spread

    return adjoint


def flips(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The adjoint of turning signs over, :math:`\sum_i f_i(x^{(i)})`.

    ``L`` takes a law of signs to its values at all neighbours, so that :math:`L p / p` is the ratio
    :math:`p(x^{(i)}) / p(x)` of each sign ``i``. Costs as many values of the function as there are
    signs.
    """
    signs = x.flatten(1)
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i in range(signs.shape[1]):
        turned = signs.clone()
        turned[:, i] *= -1
        total = total + function(turned.view(x.shape)).flatten(1)[:, i]
    return function(x), total
