"""The second-order multistep DPM-Solver++, as an ODE solver and with noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import MAX_LEVELS, NOT_NEGATIVE, Many, OneOf, checked, refuse
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.configurations import keep_own_solver_type
from hdzoo.samplers.families import OwnLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, JointLaw, published_curve
from hdzoo.samplers.ladders import asked_once
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES

SOLVER_TYPES = ("midpoint", "heun")
Etas = float | Sequence[Sequence[float]]


def etas(name: str, value: Any) -> Any:
    """The rule of how much noise is added: a number, or pairs by noise level."""
    allowed = "a number from 0 up, or a list of pairs [sigma, eta] by descending sigma, to 0"
    if not isinstance(value, list | tuple):
        try:
            return NOT_NEGATIVE(name, value)
        except HDZooError:
            refuse(name, value, allowed)
    pairs = Many(Many(NOT_NEGATIVE, 2, 2), most=MAX_LEVELS)(name, value)
    if pairs[-1][0] != 0 or any(above[0] <= below[0] for above, below in pairwise(pairs)):
        refuse(name, value, f"{allowed}, as in [[1.3, 1.44], [0, 6.76]]")
    return pairs


def eta_at(eta: Etas, sigma: float) -> float:
    """How much noise the step adds that begins at a noise level.

    Args:
        eta: the option of `DPMSolverPP2MSampler`.
        sigma: the level.
    """
    if not isinstance(eta, Sequence):
        return eta
    return next(value for level, value in eta if sigma >= level)


class DPMSolverPP2MSampler(OwnLadderSampler):
    r"""DPM-Solver++ (2M): from one denoised state to the next, along the line through the last two.

    With :math:`D_i = x + \sigma_i^2 s(x, \sigma_i)` and :math:`h_i = \log(\sigma_i / \sigma_{i+1})`

    .. math::
        x \leftarrow e^{-(1 + \eta) h_i} x + \left(1 - e^{-(1 + \eta) h_i}\right)
        D_i + w_i (D_i - D_{i-1}) + \nu \sigma_{i+1} \sqrt{1 - e^{-2 \eta h_i}} z

    .. math::
        w_i = \frac{h_i}{2 h_{i-1}} \left(1 - e^{-(1 + \eta) h_i}\right)
        \quad \text{(midpoint)}, \quad
        w_i = \frac{1}{h_{i-1}} \left(h_i - \frac{1 - e^{-(1 + \eta) h_i}}{1 + \eta}\right)
        \quad \text{(heun)}

    The first step has no :math:`D_{i-1}` and does without; the last, to 0, returns :math:`D_L`.
    With :math:`\eta = 0` it solves the probability-flow ODE and adds no noise; with
    :math:`\eta = 1` it solves the reverse SDE ("DPM-Solver++ 2M SDE"). With more, and on a ladder
    that ends early, noise repairs what a learned score gets wrong: consistent annealed sampling of
    second order. Without :math:`w`, it is `ConsistentAnnealedSampler` with
    :math:`1 - \eta_{CAS} = e^{-(1 + \eta) h}` (and :math:`\nu = 1`).

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by a step of second
    order, full read-out.

    Source: Lu, Zhou, Bao, Chen, Li, Zhu (arXiv 2211.01095), Algorithm 2, and its appendix on SDEs;
    :math:`\eta` as in k-diffusion, which is :math:`\tau^2` in SA-Solver (Xue et al., arXiv
    2309.05019). ``"heun"`` integrates the line exactly, which is the predictor of SA-Solver of
    order 2 on denoised states; both forms are in k-diffusion and diffusers by these names.

    Args:
        eta: :math:`\eta`, how much noise is added; 0 or more. Or, by noise level, a list of pairs
            ``[sigma, eta]`` of descending levels that ends at 0: each is for the steps that begin
            at its level or above, and below that of the pair before.
        solver_type: the form of the second order, ``"midpoint"`` or ``"heun"``.
        noise_scale: :math:`\nu`, what the noise is multiplied by; 0 or more. ``s_noise`` in
            k-diffusion.

    The other options are those of `OwnLadderSampler`.

    Raises:
        HDZooError: ``eta`` is negative, or is not said for all levels, or a schedule of one's own
            asks twice at a level.
    """

    source = "Lu et al. 2022, Algorithm 2"
    family = "SDE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "rho": (7.0, None, 3.0),
        "eta": (1.0, 0.0, 0.3, 4.0, [[1.3, 1.44], [0.3, 6.76], [0.0, 0.0]]),
        "solver_type": SOLVER_TYPES,
        "noise_scale": (1.0, 1.05, 0.0),
        "geomspace": (None, [2.0, 0.3, 5]),
    }

    @checked(**LADDER_RULES, eta=etas, solver_type=OneOf(SOLVER_TYPES), noise_scale=NOT_NEGATIVE)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = 7.0,
        num_steps: int = 50,
        eta: float | list[list[float]] = 1.0,
        solver_type: str = "midpoint",
        noise_scale: float = 1.0,
        geomspace: list[float] | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        return keep_own_solver_type(config, SOLVER_TYPES)

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        asked_once(counts, "DPM-Solver++")
        moves = list[Move]()
        for sigma, below in pairwise([*sigmas, 0.0]):
            ratio, eta = below / sigma, eta_at(self.config.eta, sigma)
            noise = self.config.noise_scale * below * math.sqrt(1 - ratio ** (2 * eta))
            moves.append(Move(sigma, (1 - ratio ** (1 + eta)) * sigma**2, noise))
        return moves

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        sigma, below, denoised = *self.levels[k : k + 2], x + self.levels[k] ** 2 * score
        moved = super().update(k, x, score, noise)
        if below > 0 and "denoised" in self.memory:
            h, share = math.log(sigma / below), self.moves[k].alpha / sigma**2
            steps = h / math.log(self.levels[k - 1] / sigma)
            weight = share * steps / 2
            if self.config.solver_type == "heun":
                weight = steps * (1 - share / (1 + eta_at(self.config.eta, sigma)) / h)
            moved = moved + weight * (denoised - self.memory["denoised"])
        self.memory["denoised"] = denoised
        return moved

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        ladder = dict(self.config)
        if ladder["geomspace"] is not None:
            ladder |= {"sigmas": ladder["geomspace"][:2], "rho": None}
        levels = published_curve(ladder, self.num_inference_steps).tolist()
        law, last, eta = JointLaw.of(start), math.inf, self.config.eta
        by_level = sorted(eta, reverse=True) if isinstance(eta, list | tuple) else [(0.0, eta)]
        for sigma, below in pairwise(levels):
            # Of x - m the denoised state D - m keeps this share.
            share, h = start.data_variance / start.total(sigma), math.log(sigma / below)
            # tau^2, as in SA-Solver, whose coefficients are integrals over h.
            square = next(value for level, value in by_level if sigma >= level)
            kept, whole = math.exp(-(1 + square) * h), -math.expm1(-(1 + square) * h)
            weight = whole * h / (2 * last)
            if self.config.solver_type == "heun":
                weight = (h - whole / (1 + square)) / last
            fresh = self.config.noise_scale * below * math.sqrt(-math.expm1(-2 * square * h))
            law = law.step((kept + (1 - kept + weight) * share, -weight, fresh), (share, 0, 0))
            last = h
        return law.state.contract(start.data_variance / start.total(levels[-1]))
