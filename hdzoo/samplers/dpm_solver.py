"""The second-order multistep DPM-Solver++, as an ODE solver and with noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import NOT_NEGATIVE, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, JointLaw, published_curve
from hdzoo.samplers.ladders import asked_once
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES


class DPMSolverPP2MSampler(RefinedLadderSampler):
    r"""DPM-Solver++ (2M): from one denoised state to the next, along the line through the last two.

    With :math:`D_i = x + \sigma_i^2 s(x, \sigma_i)` and :math:`h_i = \log(\sigma_i / \sigma_{i+1})`

    .. math::
        x \leftarrow e^{-(1 + \eta) h_i} x + \left(1 - e^{-(1 + \eta) h_i}\right)
        \left(D_i + \frac{h_i}{2 h_{i-1}} (D_i - D_{i-1})\right)
        + \sigma_{i+1} \sqrt{1 - e^{-2 \eta h_i}} z

    The first step has no :math:`D_{i-1}` and does without; the last, to 0, returns :math:`D_L`.
    With :math:`\eta = 0` it solves the probability-flow ODE and adds no noise; with
    :math:`\eta = 1` it solves the reverse SDE ("DPM-Solver++ 2M SDE").

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by a step of second
    order, full read-out.

    Source: Lu, Zhou, Bao, Chen, Li, Zhu (arXiv 2211.01095), Algorithm 2, and its appendix on SDEs;
    :math:`\eta` as in k-diffusion, which is :math:`\tau^2` in SA-Solver (Xue et al., arXiv
    2309.05019). The form of the second order is the midpoint's.

    Args:
        eta: :math:`\eta`, how much noise is added; 0 or more.

    The other options are those of `RefinedLadderSampler`.

    Raises:
        HDZooError: ``eta`` is negative, or a schedule of one's own asks twice at a level.
    """

    source = "Lu et al. 2022, Algorithm 2"
    family = "SDE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "rho": (7.0, None, 3.0),
        "eta": (1.0, 0.0, 0.3, 4.0),
    }

    @checked(**LADDER_RULES, eta=NOT_NEGATIVE)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = 7.0,
        num_steps: int = 50,
        eta: float = 1.0,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        asked_once(counts, "DPM-Solver++")
        eta, moves = self.config.eta, list[Move]()
        for sigma, below in pairwise([*sigmas, 0.0]):
            ratio = below / sigma
            noise = below * math.sqrt(1 - ratio ** (2 * eta))
            moves.append(Move(sigma, (1 - ratio ** (1 + eta)) * sigma**2, noise))
        return moves

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        sigma, below, denoised = *self.levels[k : k + 2], x + self.levels[k] ** 2 * score
        moved = super().update(k, x, score, noise)
        if below > 0 and "denoised" in self.memory:
            steps = math.log(sigma / below) / math.log(self.levels[k - 1] / sigma)
            weight = self.moves[k].alpha / sigma**2 * steps / 2
            moved = moved + weight * (denoised - self.memory["denoised"])
        self.memory["denoised"] = denoised
        return moved

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        levels = published_curve(self.config, self.num_inference_steps).tolist()
        law, eta, last = JointLaw.of(start), self.config.eta, math.inf
        for sigma, below in pairwise(levels):
            # Of x - m the denoised state D - m keeps this share.
            share, h = start.data_variance / start.total(sigma), math.log(sigma / below)
            kept = math.exp(-(1 + eta) * h)
            weight = (1 - kept) * h / (2 * last)
            fresh = below * math.sqrt(-math.expm1(-2 * eta * h))
            law = law.step((kept + (1 - kept + weight) * share, -weight, fresh), (share, 0, 0))
            last = h
        return law.state.contract(start.data_variance / start.total(levels[-1]))
