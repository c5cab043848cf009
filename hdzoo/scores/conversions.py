"""Conversions between what a network predicts and the score.

The samplers are in variance-exploding (VE) coordinates, ``x = x0 + sigma * z`` with
``z ~ N(0, I)``. Each supported prediction is linear in the score, so two numbers per noise level
say it all:

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

A variance-preserving (VP) network, such as DDPM's (Ho et al., arXiv 2006.11239, equation 4), is
given the same state on another scale:

.. math::
    x_{vp} = \\sqrt{\\bar\\alpha}\\, x_0 + \\sqrt{1 - \\bar\\alpha}\\, z
    = \\frac{x}{\\sqrt{1 + \\sigma^2}}, \\quad
    \\bar\\alpha = \\frac{1}{1 + \\sigma^2}, \\quad
    \\sigma = \\sqrt{\\frac{1 - \\bar\\alpha}{\\bar\\alpha}}

The noise, the clean sample and ``v`` are the same in both, and so is the scaled score, whose scale
is the noise in the network's own coordinates; the score is ``sqrt(1 + sigma^2)`` times larger.
"""

from typing import TypeVar

import torch

from hdzoo.errors import HDZooError

PREDICTION_TYPES = ("score", "epsilon", "scaled_score", "sample", "v_prediction")
COORDINATES = ("ve", "vp")

Sigma = TypeVar("Sigma", float, torch.Tensor)


def score_weights(
    prediction_type: str, sigma: Sigma, coordinates: str = "ve"
) -> tuple[Sigma, Sigma]:
    """The pair ``(a, b)`` with ``score = a * prediction + b * x`` (table in the module docstring).

    Args:
        prediction_type: one of `PREDICTION_TYPES`.
        sigma: noise level, positive; a float, or a tensor of any shape.
        coordinates: of the network, one of `COORDINATES`; ``x`` and the score are VE in any case.

    Returns:
        Two values of the type and shape of ``sigma``.

    Raises:
        HDZooError: the prediction type or the coordinates are unknown.
    """
    one = sigma * 0 + 1
    if prediction_type == "score":
        return one / state_scale(sigma, coordinates), 0 * one
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


def state_scale(sigma: Sigma, coordinates: str) -> Sigma:
    """What a state is multiplied by to be VE: 1, or ``sqrt(1 + sigma^2)`` from VP.

    Args:
        sigma: noise level, not negative; a float, or a tensor of any shape.
        coordinates: of the state, one of `COORDINATES`.

    Returns:
        A value of the type and shape of ``sigma``.

    Raises:
        HDZooError: the coordinates are unknown.
    """
    if coordinates == "ve":
        return sigma * 0 + 1
    if coordinates == "vp":
        return (1 + sigma**2) ** 0.5
    raise HDZooError(f"unknown coordinates {coordinates!r}; allowed are {', '.join(COORDINATES)}")


def to_score(
    prediction: torch.Tensor,
    state: torch.Tensor,
    sigma: Sigma,
    prediction_type: str,
    coordinates: str = "ve",
) -> torch.Tensor:
    """The VE score ``grad log p_sigma(x)`` from what a network predicts.

    Args:
        prediction: the network's output, shape (batch, ...).
        state: its input, same shape, in its own coordinates.
        sigma: noise level, positive; a float, or a tensor that broadcasts with the state.
        prediction_type: one of `PREDICTION_TYPES`.
        coordinates: of the state, one of `COORDINATES`.

    Returns:
        The score at ``x = state * state_scale(sigma, coordinates)``, same shape.

    Raises:
        HDZooError: the prediction type or the coordinates are unknown.
    """
    a, b = score_weights(prediction_type, sigma, coordinates)
    return a * prediction + b * state_scale(sigma, coordinates) * state


def from_score(
    score: torch.Tensor,
    state: torch.Tensor,
    sigma: Sigma,
    prediction_type: str,
    coordinates: str = "ve",
) -> torch.Tensor:
    """What a perfect network would predict, from the VE score; the inverse of `to_score`.

    Args:
        score: the VE score at ``x = state * state_scale(sigma, coordinates)``.
        state: the network's input, same shape, in its own coordinates.
        sigma: noise level, positive; a float, or a tensor that broadcasts with the state.
        prediction_type: one of `PREDICTION_TYPES`.
        coordinates: of the state, one of `COORDINATES`.

    Raises:
        HDZooError: the prediction type or the coordinates are unknown.
    """
    a, b = score_weights(prediction_type, sigma, coordinates)
    return (score - b * state_scale(sigma, coordinates) * state) / a
