"""Walk-jump sampling at one noise level, underdamped and overdamped."""

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import HDZooError
from hdzoo.checks import COUNT, POSITIVE, Maybe, OneOf, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_level
from hdzoo.samplers.langevin import LangevinSampler
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import SINGLE_LEVEL_RULES
from hdzoo.samplers.underdamped import FRICTION_UNITS, UnderdampedLangevinSampler


class ConvergentWalk(SingleLevelSampler):
    """A walk at one noise level that converges whatever the data are."""

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        (alpha,) = super().step_sizes(sigmas)
        most = 2 * sigmas[0] ** 2
        if not alpha < most:
            raise HDZooError(
                f"step_size is {alpha:g} at noise level {sigmas[0]:g}; where the data do not vary "
                f"the walk converges below 2 sigma^2 = {most:g} only"
            )
        return [alpha]


class WalkJumpSampler(ConvergentWalk, UnderdampedLangevinSampler):
    r"""Walk-jump sampling: underdamped Langevin dynamics on :math:`p_\sigma`, then the denoiser.

    The walk is that of `UnderdampedLangevinSampler`. The jump, at the end of a step, is the
    empirical-Bayes estimate of the clean sample,

    .. math:: \hat x = y + \sigma^2 s(y, \sigma) = E[x_0 \mid y]

    The walk never sees it. A jump is one network evaluation, the very last one always; with
    ``steps_per_jump`` there are others along the walk, from which it goes on as if they had not
    been: ``samples_every=steps_per_jump + 1`` of `HDPipeline` returns them.

    On Gaussian data of variance :math:`s^2`, with :math:`V = s^2 + \sigma^2`, the walk leaves
    :math:`V` as it is and the jump has the variance :math:`s^4 / V`: less than the data's by
    :math:`s^2 \sigma^2 / V`. The smaller :math:`\sigma`, the nearer to the data, and the longer the
    way of the walk from one mode to another.

    Axes: underdamped walk, one rung, no hand-off, full read-out.

    Source: Saremi and Hyvärinen (arXiv 1903.02334); underdamped, Frey et al. (dWJS, arXiv
    2306.12360): :math:`\delta = \sigma / 2`, friction 1 per step, which is the default, and 20 to
    100 steps; Saremi and Srivastava (arXiv 2112.09822): friction 1/2 per time, 10 steps between
    jumps. :math:`\delta^2 / 2` is :math:`\alpha`.

    Args:
        steps_per_jump: steps of the walk from one jump to the next; None for one jump, at the end.

    The other options are those of `UnderdampedLangevinSampler`.

    Raises:
        HDZooError: an option is out of its range, or the step size is above :math:`2 \sigma^2`.
    """

    source = "Saremi and Hyvärinen 2019; Frey et al. 2024"
    starts_from_noise = True
    limit = Limit("data", "sigma")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        **UnderdampedLangevinSampler.option_choices,
        "steps_per_jump": (None, 1, 3, 10),
    }

    @checked(
        **SINGLE_LEVEL_RULES,
        friction=POSITIVE,
        friction_per=OneOf(FRICTION_UNITS),
        steps_per_jump=Maybe(COUNT),
    )
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.5,
        step_size: float | None = None,
        friction: float = 1.0,
        friction_per: str = "step",
        steps_per_jump: int | None = None,
        num_steps: int = 100,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def jumps_at(self, k: int) -> bool:
        """Whether evaluation ``k`` is a jump, and not a step of the walk."""
        every = (self.config.steps_per_jump or self.num_inference_steps) + 1
        return (k + 1) % every == 0 or k + 1 == self.num_inference_steps

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        if not self.levels[k + 1]:
            return x + self.levels[k] ** 2 * score
        moved = x if self.jumps_at(k) else super().update(k, x, score, noise)
        # Jumps are made where a step ends; the walk is asked for in the middle of one.
        half = math.sqrt(self.moves[k].alpha / 2) * self.memory.get("velocity", 0.0)
        turns = int(self.jumps_at(k)) - int(self.jumps_at(k + 1))
        return moved + turns * half

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, every = published_level(self.config), self.config.steps_per_jump
        jumps = 1 if every is None else -(-self.num_inference_steps // (every + 1))
        walk = copy(self)
        walk.num_inference_steps = self.num_inference_steps - jumps
        law = UnderdampedLangevinSampler.closed_form(walk, start)
        return (law if walk.num_inference_steps else start).gradient(sigma**2, sigma)


class OverdampedWalkJumpSampler(ConvergentWalk, LangevinSampler):
    r"""Walk-jump sampling: the unadjusted Langevin algorithm, then the denoiser.

    .. math:: y \leftarrow y + \alpha s(y, \sigma) + \sqrt{2 \alpha} z; \quad
        \hat x = y + \sigma^2 s(y, \sigma)

    One evaluation gives the jump and the next step, so jumps along the walk cost nothing:
    ``samples_every`` of `HDPipeline`. On Gaussian data of variance :math:`s^2`, with
    :math:`V = s^2 + \sigma^2`, the jump from a long walk has the variance
    :math:`(s^2 / V)^2 V / (1 - \alpha / 2V)`.

    Axes: walk with fresh noise, one rung, no hand-off, full read-out.

    Source: Saremi and Hyvärinen (arXiv 1903.02334), Algorithm 1, with
    :math:`\sqrt{2 \alpha} = \delta`; :math:`\delta = \sigma / 2`, the default, is that of their
    later code (Saremi and Srivastava, arXiv 2112.09822).

    The options are those of `LangevinSampler`; :math:`\sigma^2 / 8` is the default step size.
    """

    source = "Saremi and Hyvärinen 2019"
    starts_from_noise = True
    limit = Limit("data", "sigma")

    @checked(**SINGLE_LEVEL_RULES)
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.5,
        step_size: float | None = None,
        num_steps: int = 100,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 8

    def read_out(self, walk: Move) -> Move:
        return Move(walk.sigma, walk.sigma**2)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        alpha = sigma**2 / 8 if alpha is None else alpha
        walked = start.langevin(alpha, sigma, self.num_inference_steps - 1)
        return walked.gradient(sigma**2, sigma)
