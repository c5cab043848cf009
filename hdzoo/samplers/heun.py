"""Heun's method on the probability-flow ODE, with and without churn."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import NOT_NEGATIVE, Maybe, checked
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_curve, trained_at
from hdzoo.samplers.ladders import churned_ladder
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES
from hdzoo.scores.clocks import clock_of


class HeunSampler(RefinedLadderSampler):
    r"""Heun's method: a step and its correction, one evaluation each.

    From :math:`\sigma_i` to :math:`\sigma_{i+1}` goes an Euler step in :math:`\sigma` of the
    probability-flow ODE, and at its end its slope is averaged with the slope there:

    .. math::
        x' = x + \hat\sigma_i (\hat\sigma_i - \sigma_{i+1}) s(x, \hat\sigma_i), \quad
        x \leftarrow x' + \tfrac12 (\hat\sigma_i - \sigma_{i+1})
        \left(\sigma_{i+1} s(x', \sigma_{i+1}) - \hat\sigma_i s(x, \hat\sigma_i)\right)

    The last step, to 0, is the Euler step alone, which denoises. So :math:`L` levels take
    :math:`2 L - 1` evaluations; with one less, the first step is an Euler step too.

    With churn (``churn`` above 0) each step starts by raising the noise level,

    .. math::
        \hat\sigma_i = (1 + \gamma_i) \sigma_i, \quad
        x \leftarrow x + \sqrt{\hat\sigma_i^2 - \sigma_i^2} S_{noise} z, \quad
        \gamma_i = \min(S_{churn} / L, \sqrt 2 - 1)

    where :math:`S_{min} \le \sigma_i \le S_{max}`, and 0 elsewhere. That noise is added at the end
    of the evaluation before, and the levels of a schedule given to `set_timesteps` are raised too.
    Unlike published, no level is raised above the first, where the network may know nothing; and a
    network of a noise schedule is asked at the nearest level that it was trained at.

    A chain that is begun at a correction, as image-to-image may do, has nothing to correct and goes
    on from there.

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by a corrected Euler
    step, full read-out.

    Source: Karras, Aittala, Aila, Laine (arXiv 2206.00364), Algorithms 1 and 2.

    Args:
        churn: :math:`S_{churn}`, how much noise is added in all; 0 for Algorithm 1, which is
            deterministic.
        churn_min: :math:`S_{min}`.
        churn_max: :math:`S_{max}`; None for no limit.
        churn_noise: :math:`S_{noise}`.

    The other options are those of `RefinedLadderSampler`; 35 evaluations are the 18 levels of the
    paper for CIFAR-10.

    Raises:
        HDZooError: one of them is negative, or a schedule of one's own asks thrice at a level, or
            twice at the first.
    """

    source = "Karras et al. 2022, Algorithms 1 and 2"
    family = "ODE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "rho": (7.0, None, 3.0),
        "churn": (0.0, 2.0, 40.0),
        "churn_min": (0.0, 0.2),
        "churn_max": (None, 1.0),
        "churn_noise": (1.0, 1.007, 0.5),
    }

    @checked(
        **LADDER_RULES,
        churn=NOT_NEGATIVE,
        churn_min=NOT_NEGATIVE,
        churn_max=Maybe(NOT_NEGATIVE),
        churn_noise=NOT_NEGATIVE,
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = 7.0,
        num_steps: int = 35,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        churn_noise: float = 1.0,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def levels_for(self, num_inference_steps: int) -> int:
        return num_inference_steps // 2 + 1

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if counts[0] > 1 or max(counts) > 2:
            raise HDZooError(
                "a noise level is repeated; Heun asks once at the first, and at most twice below"
            )
        config, moves = self.config, list[Move]()
        churned = churned_ladder(sigmas, config.churn, config.churn_min, config.churn_max)
        steps = zip(sigmas, [*sigmas[1:], 0.0], churned, counts, strict=True)
        for sigma, below, raised, count in steps:
            moves += [Move(sigma)] * (count - 1)
            if raised > sigma:
                raised = max(sigma, *clock_of(config).known([raised]))
                added = config.churn_noise * math.sqrt(raised**2 - sigma**2)
                moves[-1] = moves[-1]._replace(noise=added)
            moves.append(Move(raised, raised * (raised - below)))
        return moves

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        slope = self.levels[k] * score
        if self.moves[k].alpha > 0:
            self.memory["slope"] = slope
        elif "slope" in self.memory:
            x = x + (self.levels[k - 1] - self.levels[k]) / 2 * (slope - self.memory["slope"])
        return super().update(k, x, score, noise)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        config, evaluations = self.config, self.num_inference_steps
        levels = published_curve(config, evaluations // 2 + 1)
        corrected = evaluations - len(levels)
        gamma = min(config.churn / len(levels), np.sqrt(2) - 1)
        churn_max = np.inf if config.churn_max is None else config.churn_max
        law = start
        for i, (sigma, below) in enumerate(pairwise([*levels, 0.0])):
            raised = sigma
            if i > 0 and gamma > 0 and config.churn_min <= sigma <= churn_max:
                raised = trained_at(config, np.minimum((1 + gamma) * sigma, levels[:1])).item()
                raised = max(sigma, raised)
                law = law.noise(config.churn_noise**2 * (raised**2 - sigma**2))
            # On Gaussian data the slope of the ODE is the noise level over V, times x - m.
            slope = raised / law.total(raised)
            euler = 1 + (below - raised) * slope
            if len(levels) - corrected - 1 <= i < len(levels) - 1:
                slope = (slope + below / law.total(below) * euler) / 2
            law = law.contract(1 + (below - raised) * slope)
        return law
