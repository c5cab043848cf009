"""Stochastic localization by Euler's scheme."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import OneOf, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_curve
from hdzoo.samplers.ladders import asked_once, refine_ladder
from hdzoo.samplers.options import LADDER_RULES

SPACINGS = ("log", "uniform")


class StochasticLocalizationSampler(RefinedLadderSampler):
    r"""Stochastic localization by Euler's scheme: denoise, and measure the denoised state anew.

    The process :math:`Z_t = t x_0 + B_t`, :math:`B` a Brownian motion, is simulated by its own
    drift, the posterior mean,

    .. math::
        Z \leftarrow Z + \delta_k E[x_0 | Z, t_k] + \sqrt{\delta_k} z, \quad
        \delta_k = t_{k+1} - t_k,

    and at the end :math:`E[x_0 | Z, t_L]` is returned. :math:`x = Z / t` is the data with noise
    :math:`\sigma = 1 / \sqrt t`, so that the posterior mean is the denoiser there, and a step is

    .. math::
        x \leftarrow x + (\sigma_k^2 - \sigma_{k+1}^2) s(x, \sigma_k)
        + \sigma_{k+1} \sqrt{1 - \sigma_{k+1}^2 / \sigma_k^2}\, z.

    That is consistent annealed sampling with :math:`\eta = 1 - \gamma^2` and a full read-out, and
    sequential measurements :math:`y` with noise :math:`1 / \sqrt{\delta}`, each drawn by "denoise,
    renoise", :math:`y = E[x_0 | y_{1:k}] + z / \sqrt{\delta}`, in place of a chain. It leaves out
    the covariance of the posterior: on data :math:`N(m, s^2)` a step from the variance
    :math:`V = s^2 + \sigma_k^2` ends
    :math:`(\sigma_k^2 - \sigma_{k+1}^2)^2 s^2 / (\sigma_k^2 V)` below the next,
    :math:`s^2 + \sigma_{k+1}^2`. `StochasticLocalization2Sampler` puts it back.

    At :math:`t = 0` the posterior mean is that of the data, and asks no network: so the first state
    is the data's centre with the noise :math:`\sigma_1`, as everywhere in hdzoo.

    Axes: no walk, a ladder refined to the number of evaluations, ancestral hand-off, full read-out.

    Source: Montanari (arXiv 2305.10690); El Alaoui, Montanari and Sellke (arXiv 2203.05093).

    Args:
        spacing: of time :math:`t = 1 / \sigma^2` between the two ends: ``"log"``, by equal factors;
            or ``"uniform"``, as published, which takes about :math:`(\sigma_1 / \sigma_L)^2`
            evaluations: with :math:`\sigma_1 = 1 / \sqrt\delta`,
            :math:`\sigma_L = 1 / \sqrt{L \delta}` and ``L`` evaluations, time is
            :math:`t_k = k \delta`.

    The other options are those of `RefinedLadderSampler`.

    Raises:
        HDZooError: the ladder does not descend, or a schedule of one's own repeats a level.
    """

    source = "Montanari 2023"
    family = "SDE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {"spacing": SPACINGS}

    @checked(**LADDER_RULES, spacing=OneOf(SPACINGS))
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        spacing: str = "log",
        num_steps: int = 50,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def rungs(self, num_inference_steps: int) -> list[float]:
        ladder, num_levels = self.ladder, self.levels_for(num_inference_steps)
        if num_levels == 1:
            return ladder[:1]
        refined = refine_ladder(ladder, num_levels)
        if self.config.spacing == "log":
            return [*refined]
        places, times = np.arange(len(ladder)), np.asarray(ladder) ** -2
        times = np.interp(np.linspace(0, len(ladder) - 1, num_levels)[1:-1], places, times)
        return [ladder[0], *(times**-0.5).tolist(), ladder[-1]]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        asked_once(counts, "stochastic localization")
        return [step(*levels) for levels in pairwise([*sigmas, 0.0])]

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        rho = {"log": None, "uniform": -0.5}[self.config.spacing]
        levels = published_curve({**self.config, "rho": rho}, self.num_inference_steps)
        law = start
        for t, after in pairwise(levels**-2.0):
            # Of Z / t - m the posterior mean keeps this share.
            share = start.data_variance / start.total(t**-0.5)
            law = law.contract((t + (after - t) * share) / after).noise((after - t) / after**2)
        return law.contract(start.data_variance / start.total(levels[-1]))


def step(sigma: float, below: float) -> Move:
    """Euler's step from one noise level to the next; to 0, the posterior mean."""
    difference = sigma**2 - below**2
    return Move(sigma, difference, below / sigma * math.sqrt(difference))
