"""Conversions between what a network predicts and the score.

Everything is in variance-exploding (VE) coordinates, ``x = x0 + sigma * z`` with ``z ~ N(0, I)``.
Each supported prediction is linear in the score, so two numbers per noise level say it all:

.. math::
    s(x, \\sigma) = a(\\sigma)\\, f(x, \\sigma) + b(\\sigma)\\, x

=================  ==========================================  ====================================
prediction type    what the network ``f`` predicts             ``a``, ``b``
=================  ==========================================  ====================================
``score``          ``grad log p_sigma(x)``                     ``1``, ``0``
``epsilon``        the noise ``z``                             ``-1 / sigma``, ``0``
``scaled_score``   ``sigma`` times the score                   ``1 / sigma``, ``0``
``sample``         the clean sample ``x0`` (a denoiser)        ``1 / sigma^2``, ``-1 / sigma^2``
``v_prediction``   ``(z - sigma x0) / sqrt(1 + sigma^2)``      ``-1 / (sigma sqrt(1 + sigma^2))``,
                                                               ``-1 / (1 + sigma^2)``
=================  ==========================================  ====================================

Tweedie's formula links the score to the denoiser: ``E[x0 | x] = x + sigma^2 s(x, sigma)``
(Robbins 1956; Efron 2011). ``v`` is that of Salimans and Ho (arXiv 2202.00512), section 4, with
``alpha = 1 / sqrt(1 + sigma^2)``.
"""

from typing import TypeVar

import torch

from hdzoo.errors import HDZooError

PREDICTION_TYPES = ("score", "epsilon", "scaled_score", "sample", "v_prediction")

Sigma = TypeVar("Sigma", float, torch.Tensor)


def score_weights(prediction_type: str, sigma: Sigma) -> tuple[Sigma, Sigma]:
    """The pair ``(a, b)`` with ``score = a * prediction + b * x`` (table in the module docstring).

    Args:
        prediction_type: one of `PREDICTION_TYPES`.
        sigma: noise level, positive; a float, or a tensor of any shape.

    Returns:
        Two values of the type and shape of ``sigma``.

    Raises:
        HDZooError: the prediction type is unknown.
    """
    one = sigma * 0 + 1
    if prediction_type == "score":
        return one, 0 * one
    if prediction_type == "epsilon":
        return -1 / sigma, 0 * one
    if prediction_type == "scaled_score":
        return 1 / sigma, 0 * one
    if prediction_type == "sample":
        return 1 / sigma**2, -1 / sigma**2
    if prediction_type == "v_prediction":
        return -1 / (sigma * (1 + sigma**2) ** 0.5), -1 / (1 + sigma**2)
    raise HDZooError(
        f"unknown prediction_type {prediction_type!r}; allowed are {', '.join(PREDICTION_TYPES)}"
    )
