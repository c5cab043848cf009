"""UniPC: a multistep predictor, and a corrector that costs no evaluation."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from numpy.polynomial.legendre import leggauss
from scipy.interpolate import krogh_interpolate
from scipy.special import hyp1f1

from hdzoo.checks import MAX_LEVELS, Many, OneOf, Whole, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.configurations import keep_own_solver_type
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, Number, published_curve
from hdzoo.samplers.ladders import MAX_EVALUATIONS, asked_once
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES

SOLVER_TYPES = ("bh2", "bh1")


class UniPCSampler(RefinedLadderSampler):
    r"""UniPC: each denoised state corrects the step that led to it, and predicts the next.

    With :math:`D_i = x + \sigma_i^2 s(x, \sigma_i)`, :math:`\lambda = -\log \sigma` and
    :math:`h = \lambda_{i+1} - \lambda_i`, the probability-flow ODE is solved by

    .. math::
        x_{i+1} = e^{-h} x_i + \int_0^h e^{u - h} P(u)\, du

    where the polynomial :math:`P` goes through denoised states, each at its :math:`\lambda` less
    :math:`\lambda_i`. To predict the state at which the network is asked next, through the last
    :math:`p`, :math:`D_i, ..., D_{i-p+1}` (UniP-p). Once :math:`D_{i+1}` is there, the step is made
    anew through that as well (UniC-p), and the next starts where it leads to. The network is not
    asked there again: a step is one evaluation.

    Where :math:`P` is a line, for prediction of order 2 and correction of order 1, the integral of
    what it rises in the step is :math:`B / 2` of that, with :math:`B = 1 - e^{-h}` (``"bh2"``) or
    :math:`B = h` (``"bh1"``), and not :math:`1 - (1 - e^{-h}) / h` of it. Of higher degree it is
    exact, and :math:`B` cancels: they are exponential Adams methods, as SA-Solver is without noise
    (Xue et al., arXiv 2309.05019).

    The first steps have fewer denoised states behind them and are of lower order. So are the last,
    of as many as there are steps left; the very last, to 0, returns :math:`D_L`. A chain begun
    midway begins with order 1.

    Without corrections, ``solver_order=1`` is DDIM, and 2 with ``"bh2"`` the midpoint form of
    `DPMSolverPP2MSampler` at ``eta=0``.

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by a corrected multistep
    step, full read-out.

    Source: Zhao, Bai, Rao, Zhou, Lu (arXiv 2302.04867), section 3: multistep UniP-p and UniC-p, for
    data prediction. The states are those of `UniPCMultistepScheduler` in diffusers, whose
    ``predict_x0`` and ``lower_order_final`` are true here, and whose ``"bh1"`` has no step to 0.

    Args:
        solver_order: :math:`p`, 1 to 3. The order of accuracy is one more (Theorem 3.1), but at
            most 3, which is what the first step has.
        solver_type: :math:`B`, ``"bh2"`` or ``"bh1"``.
        disable_corrector: the steps, counted from 0, that are not corrected.

    The other options are those of `RefinedLadderSampler`.

    Raises:
        HDZooError: a schedule of one's own asks twice at a level.
    """

    source = "Zhao et al. 2023, multistep UniPC-p"
    family = "ODE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "rho": (7.0, None, 3.0),
        "solver_order": (2, 1, 3),
        "solver_type": SOLVER_TYPES,
        "disable_corrector": ([], [0, 2], [*range(100)]),
    }

    @checked(
        **LADDER_RULES,
        solver_order=Whole(1, 3),
        solver_type=OneOf(SOLVER_TYPES),
        disable_corrector=Many(Whole(0, MAX_EVALUATIONS), 0, MAX_LEVELS),
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = 7.0,
        num_steps: int = 50,
        solver_order: int = 2,
        solver_type: str = "bh2",
        disable_corrector: list[int] = [],  # noqa: B006  A file gives back a list; it is read alone.
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
        asked_once(counts, "UniPC")
        return [Move(s, s * (s - below)) for s, below in pairwise([*sigmas, 0.0])]

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        config, below = self.config, self.levels[k + 1]
        levels = self.levels[max(0, k - config.solver_order) : k + 1][::-1]
        past = self.memory["denoised"].unbind(1) if self.memory else ()
        known = [x + levels[0] ** 2 * score, *past]
        if below == 0:
            return known[0]
        if past and k - 1 not in config.disable_corrector:
            begun, ends = self.memory["corrected"], (levels[1], levels[0])
            x = advance(begun, *ends, levels, known, config.solver_type)
        known = known[: config.solver_order]
        self.memory |= {"denoised": torch.stack(known, 1), "corrected": x}
        left = len(self.moves) - k
        return advance(x, levels[0], below, levels, known[:left], config.solver_type)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        config, levels = self.config, published_curve(self.config, self.num_inference_steps)
        points, shares = leggauss(48)
        # Of the first state's x - m, whatever it is, what the later ones and their D - m have.
        factor, corrected = np.ones_like(start.total(1.0)), None
        denoised, before = list[Number](), 0

        def step(i: int, state: Any, count: int, last: int) -> Any:
            h, at = np.log(levels[i] / levels[i + 1]), range(last, last - count, -1)
            places, values = np.log(levels[i] / levels[at]), np.stack([denoised[j] for j in at])
            if count == 2:
                rise = (values[0] - values[1]) / (places[0] - places[1]) * h
                size = h if config.solver_type == "bh1" else -np.expm1(-h)
                return np.exp(-h) * state - np.expm1(-h) * denoised[i] + size / 2 * rise
            u = h * (1 + points) / 2
            kernel = h / 2 * shares * np.exp(u - h)
            there = krogh_interpolate(places, values, u)
            return np.exp(-h) * state + np.tensordot(kernel, there, 1)

        for i, sigma in enumerate(levels):
            denoised.append(start.data_variance / start.total(sigma) * factor)
            order = min(config.solver_order, i + 1, len(levels) - i)
            if i > 0 and i - 1 not in config.disable_corrector:
                factor = step(i - 1, corrected, before + 1, i)
            corrected, before = factor, order
            if i < len(levels) - 1:
                factor = step(i, corrected, order, i)
        return start.contract(denoised[-1])


def advance(
    x: torch.Tensor,
    sigma: float,
    below: float,
    levels: Sequence[float],
    denoised: Sequence[torch.Tensor],
    solver_type: str,
) -> torch.Tensor:
    """A step of the probability-flow ODE along the polynomial through denoised states.

    Args:
        x: the state.
        sigma: its noise level.
        below: that to which it goes.
        levels: those of the denoised states, and maybe more after them.
        denoised: one or more, of which one is at ``sigma``.
        solver_type: of `UniPCSampler`.
    """
    h = math.log(sigma / below)
    places = [math.log(sigma / level) / h for level, _ in zip(levels, denoised, strict=False)]
    moved = below / sigma * x
    for weight, one in zip(weights(h, tuple(places), solver_type), denoised, strict=True):
        moved.add_(one, alpha=weight)
    return moved


# The same in the chain of every batch, and 100 microseconds.
@lru_cache(4096)
def weights(h: float, places: tuple[float, ...], solver_type: str) -> tuple[float, ...]:
    """What a step has of each denoised state.

    Args:
        h: the step, in the logarithm of the noise level.
        places: of the denoised states, in steps from its start.
        solver_type: of `UniPCSampler`.
    """
    powers = np.arange(len(places))
    # int_0^1 exp(-h (1 - v)) v^n dv, whose recursion in n loses all digits where h is small.
    moments = h / (powers + 1) * hyp1f1(1, powers + 2, -h)
    if len(places) == 2:
        moments[1] = (h if solver_type == "bh1" else moments[0]) / 2
    solved = np.linalg.solve(np.array(places) ** powers[:, None], moments)
    return tuple(solved.tolist())
