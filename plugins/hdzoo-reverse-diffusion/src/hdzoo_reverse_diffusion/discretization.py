r"""The reverse SDEs in steps, as pure functions of the noise levels at which a network is asked.

.. math::
    dx = -\dot{(\sigma^2)} s(x, \sigma) dt + \sqrt{\dot{(\sigma^2)}} dw \quad (VE), \qquad
    dy = -\tfrac12 \beta y\, dt - \beta \nabla \log p_t(y) dt + \sqrt\beta dw \quad (VP)

run backwards from :math:`t = 1`, with :math:`y = x / \sqrt{1 + \sigma^2}` and
:math:`\beta = d \log(1 + \sigma^2) / dt`. A step is ``keep * y + push * score + noise * z``.

The authors of score_sde ask the network at ``n`` times evenly from 1 to :math:`\epsilon`, and make
steps of the length ``1 / n`` of the rates there (Euler-Maruyama), or steps between ``n`` levels
whose times are evenly from 1 to 0 (the others). So it is done here, from the levels alone: time is
the number of the level; rates are known where the network is told the time, and found by
differences elsewhere, which are exact for the logarithm of a geometric ladder; and the ladder from
:math:`\epsilon` is stretched to that from 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hdzoo import HDZooError
from hdzoo.scores.clocks import TimeClock

PREDICTORS = ("reverse-diffusion", "euler-maruyama", "ancestral")


class Steps(NamedTuple):
    """Steps at each noise level, arrays of shape (n,), in the coordinates of the SDE."""

    keep: np.ndarray
    push: np.ndarray
    noise: np.ndarray

    def in_ve(self, sigmas: Sequence[float], sde: str) -> "Steps":
        r"""The same for states :math:`x` and their scores.

        Args:
            sigmas: noise levels, shape (n,); after the last comes 0.
            sde: ``"ve"``, whose coordinates are those, or ``"vp"``.
        """
        if sde == "ve":
            return self
        scale = np.sqrt(1 + np.append(sigmas, 0.0) ** 2)
        before, after = scale[:-1], scale[1:]
        return Steps(self.keep * after / before, self.push * before * after, self.noise * after)


def ve_steps(predictor: str, sigmas: Sequence[float], eps: float) -> Steps:
    r"""Steps of the VE SDE.

    Args:
        predictor: one of `PREDICTORS`.
        sigmas: at least 2 levels, descending, evenly from 1 to ``eps`` in time.
        eps: the time of the last.
    """
    levels, logs = np.asarray(sigmas), np.log(sigmas)
    if predictor == "euler-maruyama":
        rates = 2 * levels**2 * _rates(logs, eps)
        return Steps(np.ones_like(levels), rates, np.sqrt(rates))
    levels = np.exp(_stretched(logs, eps))
    below = np.append(levels[1:], 0.0)
    difference = levels**2 - below**2
    noise = np.sqrt(difference) * (below / levels if predictor == "ancestral" else 1)
    return Steps(np.ones_like(levels), difference, noise)


def vp_steps(predictor: str, sigmas: Sequence[float], eps: float, clock: TimeClock | None) -> Steps:
    """Steps of the VP SDE; arguments as in `vp_betas`, and one of `PREDICTORS`."""
    if predictor == "euler-maruyama":
        rates = vp_rates(sigmas, eps, clock)
        return Steps(1 + rates / 2, rates, np.sqrt(rates))
    betas = vp_betas(sigmas, eps, clock)
    left = np.sqrt(1 - betas)
    if predictor == "ancestral":
        return Steps(1 / left, betas / left, np.sqrt(betas))
    return Steps(2 - left, betas, np.sqrt(betas))


def vp_rates(sigmas: Sequence[float], eps: float, clock: TimeClock | None) -> np.ndarray:
    r""":math:`\beta(t_k) / n`; arguments as in `vp_betas`."""
    if clock is None:
        return _rates(np.log1p(np.square(sigmas)), eps)
    t = clock.timesteps(sigmas) / clock.factor
    return np.asarray(t[0] * (clock.beta_min + clock.growth * t) / len(t))


def vp_betas(sigmas: Sequence[float], eps: float, clock: TimeClock | None) -> np.ndarray:
    r"""DDPM's :math:`\beta` at each level.

    Args:
        sigmas: as in `ve_steps`.
        eps: as there.
        clock: of a network that is told the time, and asked evenly in it: then it is the rate over
            ``n``. None for what leads from one level to the next,
            :math:`1 - (1 + \sigma_{k+1}^2) / (1 + \sigma_k^2)`, which it is of the levels that a
            DDPM was trained at.

    Raises:
        HDZooError: the levels are too few for rates over ``n`` to be below 1.
    """
    if clock is None:
        return -np.expm1(np.diff(np.log1p(np.square(sigmas)), append=0.0))
    betas = _stretched(vp_rates(sigmas, eps, clock), eps)
    if not betas[0] < 1:
        least = int(betas[0] * len(betas) * (1 + 1e-9)) + 1
        raise HDZooError(
            f"{len(betas)} noise levels are too few for steps as in score_sde: beta is "
            f"{betas[0]:.3g} at the first, and must be below 1; ask for at least {least} levels, "
            "or take predictor='euler-maruyama'"
        )
    return betas


def check_levels(sigmas: Sequence[float]) -> None:
    """Refuses a single noise level, between which and another there is no step.

    Raises:
        HDZooError: there is one alone.
    """
    if len(sigmas) < 2:
        raise HDZooError(
            "the reverse process goes from one noise level to another; ask for at least 2 levels"
        )


def _rates(values: np.ndarray, eps: float) -> np.ndarray:
    """How fast they fall in a step of 1 / n, the times being evenly from 1 to eps."""
    n = len(values)
    falling = -np.gradient(values)
    return np.asarray(falling * (n - 1) / (n * (1 - eps)))


def _stretched(values: np.ndarray, eps: float) -> np.ndarray:
    """Values at times evenly from 1 to eps, made those from 1 to 0, as if they were linear."""
    return np.asarray(values[0] + (values - values[0]) / (1 - eps))
