"""The probability-flow ODE by scipy's Runge-Kutta method, within a budget of evaluations."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from scipy.integrate import RK45, solve_ivp

from hdzoo import HDZooError
from hdzoo.checks import POSITIVE, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, trained_at
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES
from hdzoo_reverse_diffusion.published import runge_kutta

STAGES = RK45.n_stages


class ProbabilityFlowRK45Sampler(RefinedLadderSampler):
    r"""The probability-flow ODE by the Runge-Kutta method of Dormand and Prince.

    In :math:`u = \log \sigma` the ODE is :math:`dx / du = -\sigma^2 s(x, \sigma)`. A step of length
    :math:`h` asks the network at the six places :math:`u + c_i h`,

    .. math::
        k_i = -\sigma_i^2\, s \left( x + h \sum_{j < i} a_{ij} k_j,\; \sigma_i \right), \quad
        x \leftarrow x + h \sum_i b_i k_i,

    with the coefficients of `scipy.integrate.RK45`, of order 5. The number of evaluations is the
    budget: as many steps as it has room for, the rest of it in Euler steps
    :math:`x + \sigma (\sigma - \sigma') s` at the smallest levels, and one for the denoising step
    at the last.

    Where the steps go is found by scipy's adaptive solver, once for a ladder, on the ODE of
    Gaussian data: directions of standard deviation :math:`s`, :math:`s / 4` and 0. It cannot be the
    network's own error that decides: images are drawn together, and each must be what it is alone.
    `hdzoo_reverse_diffusion.adaptive` solves the ODE of each image by itself, with the number of
    evaluations that comes of it.

    A network that knows numbered levels is asked at those nearest to the stages. A chain that is
    begun inside a step, as image-to-image may do, takes Euler steps to its end.

    Axes: no walk, a ladder refined to the number of evaluations, ODE hand-off, full read-out.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), section D.4;
    Dormand and Prince (J. Comput. Appl. Math. 6, 1980).

    Args:
        reference_std: :math:`s`.
        num_steps: network evaluations, at least 7, when no number is asked for.

    The other options are those of `RefinedLadderSampler`.

    Raises:
        HDZooError: an option is out of its range, fewer than 7 evaluations are asked for, or a
            schedule of one's own has not two evaluations at the end of each step.
    """

    source = "Song et al. 2021, D.4; Dormand and Prince 1980"
    family = "ODE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {"reference_std": (0.5, 0.1, 2.0)}

    @checked(**LADDER_RULES, reference_std=POSITIVE)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        reference_std: float = 0.5,
        num_steps: int = 49,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def rungs(self, num_inference_steps: int) -> list[float]:
        if num_inference_steps <= STAGES or len(self.ladder) < 2:
            raise HDZooError(
                f"num_inference_steps is {num_inference_steps}; a Runge-Kutta step between two "
                f"noise levels and the denoising step take {STAGES + 1}, so ask for at least that, "
                "on a ladder of at least 2 levels"
            )
        ends = self.ladder[0], self.ladder[-1]
        return stage_levels(*ends, self.config.reference_std, num_inference_steps)

    def counts(self, num_inference_steps: int, num_levels: int) -> list[int]:
        ends = (STAGES - 1) * (num_inference_steps - num_levels)
        return [2 if 0 < i <= ends and i % (STAGES - 1) == 0 else 1 for i in range(num_levels)]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        if [*counts] != self.counts(sum(counts), len(counts)):
            raise HDZooError(
                f"a schedule for {type(self).__name__} has steps of {STAGES} noise levels, of "
                "which the last is asked at once more, and then levels that are asked at once"
            )
        levels = [level for level, c in zip(sigmas, counts, strict=True) for _ in range(c)] + [0.0]
        full = STAGES * (sum(counts) - len(counts))
        return [
            Move(levels[k], levels[k] * (levels[k] - levels[k + 1]) if k >= full else 0.0)
            for k in range(len(levels) - 1)
        ]

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        if self.moves[k].alpha:
            return super().update(k, x, score, noise)
        stage, slope = k % STAGES, -(self.levels[k] ** 2) * score.unsqueeze(1)
        if stage and not self.memory:
            return x + math.log(self.levels[k + 1] / self.levels[k]) * slope[:, 0]
        start = self.memory.get("x", x)
        slopes = torch.cat([self.memory["slopes"], slope], 1) if stage else slope
        self.memory = {"x": start, "slopes": slopes} if stage < STAGES - 1 else {}
        weights = RK45.A[stage + 1, : stage + 1] if stage < STAGES - 1 else RK45.B
        length = math.log(self.levels[k - stage + STAGES - 1] / self.levels[k - stage])
        for weight, one in zip(weights.tolist(), slopes.unbind(1), strict=True):
            start = start + length * weight * one
        return start

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        ladder, evaluations = self.ladder, self.num_inference_steps
        ends = ladder[0], ladder[-1]
        levels = stage_levels(*ends, self.config.reference_std, evaluations)
        levels, law = trained_at(self.config, np.asarray(levels)).tolist(), start
        for i in range(evaluations - len(levels)):
            law = runge_kutta(law, levels[5 * i : 5 * i + 6])
        rest = levels[5 * (evaluations - len(levels)) :]
        for sigma, below in zip(rest, [*rest[1:], 0.0], strict=True):
            law = law.contract(1 - sigma * (sigma - below) / law.total(sigma))
        return law


@lru_cache(maxsize=1024)
def stage_levels(
    sigma_max: float, sigma_min: float, reference_std: float, evaluations: int
) -> list[float]:
    """The noise levels at which a budget of evaluations is spent, each once.

    Args:
        sigma_max: the first.
        sigma_min: the last.
        reference_std: of the data that steps are adapted to.
        evaluations: at least 7.

    Returns:
        Five for each step (its sixth stage is where the next begins), those of the Euler steps, and
        the last.
    """
    full, rest = divmod(evaluations - 1, STAGES)
    ends, spreads = np.log([sigma_max, sigma_min]), reference_std**2 * np.array([1, 1 / 16, 0])
    found = solve_ivp(
        lambda u, x: x * np.exp(2 * u) / (spreads + np.exp(2 * u)),
        # Beyond the end, so that no step is cut short there; and the first is too long, and found
        # as the others are, by being refused.
        (ends[0], ends[1] - 2),
        np.sqrt(spreads + sigma_max**2),
        first_step=2.0,
        rtol=1e-5,
        atol=1e-5,
    ).t
    # Solvers of other tolerances make more or fewer steps of the same proportions.
    steps = np.arange(len(found))
    total = np.interp(-ends[1], -found, steps)
    step = STAGES * total / (evaluations - 1)
    starts = np.interp(step * np.arange(full + 1), steps, found)
    tail = np.interp(step * (full + np.arange(rest + 1) / STAGES), steps, found)
    stages = starts[:-1, None] + np.diff(starts)[:, None] * RK45.C[:-1]
    levels = np.exp(np.concatenate([stages.ravel(), tail])).tolist()
    return [sigma_max, *levels[1:-1], sigma_min]
