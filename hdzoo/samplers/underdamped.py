"""Langevin dynamics with a velocity."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import POSITIVE, OneOf, checked
from hdzoo.samplers.base import Limit, Sampler
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import (
    GaussianLaw,
    JointLaw,
    Number,
    Rung,
    published_descent,
    published_last_move,
    published_level,
)
from hdzoo.samplers.langevin import HAND_OFFS, AnnealedLangevinSampler
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES, READOUT_RULES, SINGLE_LEVEL_RULES

FRICTION_UNITS = ("step", "time")


class Underdamped(Sampler):
    """The walk that its samplers share: `UnderdampedLangevinSampler` has the formula.

    Moves without noise are made as they are, at the end of a step, and leave the velocity.
    """

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        # delta / 2 of this step and of the next, the first half of which is made at once.
        move, halves = (
            self.moves[k],
            [math.sqrt(one.alpha / 2) * (one.noise > 0) for one in self.moves[k : k + 2]],
        )
        velocity = self.memory.get("velocity", 0.0)
        if move.noise > 0:
            delta = 2 * halves[0]
            gamma = self.config.friction * (delta if self.config.friction_per == "time" else 1)
            fresh = math.sqrt(-math.expm1(-2 * gamma)) * noise.normal(x.shape)
            kept = math.exp(-gamma) * (velocity + delta / 2 * score)
            self.memory["velocity"] = velocity = kept + fresh + delta / 2 * score
        else:
            x = x + move.alpha * score
        return x + sum(halves) * velocity


class UnderdampedLangevinSampler(Underdamped, SingleLevelSampler):
    r"""Underdamped Langevin dynamics on :math:`p_\sigma`, the walk of walk-jump sampling.

    The state has a velocity :math:`v`, at rest in the beginning. With :math:`\delta = \sqrt{2
    \alpha}`,

    .. math::
        x &\leftarrow x + \tfrac12 \delta v \\
        v &\leftarrow v + \tfrac12 \delta s(x, \sigma) \\
        v &\leftarrow e^{-\gamma} v + \sqrt{1 - e^{-2 \gamma}}\, z \\
        v &\leftarrow v + \tfrac12 \delta s(x, \sigma) \\
        x &\leftarrow x + \tfrac12 \delta v

    The state that a pipeline carries is where the score is asked, in the middle of a step; the
    last evaluation ends its step. On Gaussian data of variance :math:`s^2` the stationary variance
    of :math:`x` is :math:`V = s^2 + \sigma^2` at every :math:`\alpha < 2 V`, where the chain is
    stable, whatever the friction. Beyond all friction the velocity is forgotten at every step:
    :math:`x` becomes `AveragedNoiseLangevinSampler`'s, and the states in the middle of a step
    exactly `LangevinSampler`'s, with the same :math:`\alpha`. Denoised states along the way are of
    the middle of a step, and have a bias of the same size.

    In the publications the velocity is :math:`\sqrt u` times this one, :math:`u` an inverse mass,
    and the step :math:`\delta / \sqrt u`: only :math:`\alpha = u \delta^2 / 2` matters, in their
    letters, and it is stable for :math:`u \delta^2 < 4 V`.

    Axes: underdamped walk, one rung, no hand-off, no read-out.

    Source: Sachs, Leimkuhler and Danos (Entropy 19, 647, 2017), splitting ABOBA. In walk-jump
    sampling: Frey et al. (dWJS, arXiv 2306.12360), :math:`\sigma = 1`, :math:`\delta = 1/2`,
    :math:`u = 1`, friction 1 per step, 20 to 100 steps, which is the default but for
    :math:`\sigma`; Saremi and Srivastava (arXiv 2112.09822), :math:`\delta = \sigma / 2`,
    :math:`u = 1`, friction 1/2 per time, 10 steps between jumps.

    Args:
        step_size: :math:`\alpha`; :math:`\sigma^2 / 8` by default, :math:`\delta = \sigma / 2`.
        friction: :math:`\gamma`, positive.
        friction_per: ``"step"``: the velocity keeps :math:`e^{-\gamma}` of itself in a step,
            whatever its length; ``"time"``: :math:`e^{-\gamma \delta}`.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level, the step size or the friction is not positive.
    """

    source = "Sachs et al. 2017"
    limit = Limit("noisy data", "num_inference_steps")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "friction": (0.1, 0.5, 1.0, 3.0, 100.0),
        "friction_per": FRICTION_UNITS,
    }

    @checked(**SINGLE_LEVEL_RULES, friction=POSITIVE, friction_per=OneOf(FRICTION_UNITS))
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        friction: float = 1.0,
        friction_per: str = "step",
        num_steps: int = 50,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 8

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        delta = sigma / 2 if alpha is None else (2 * alpha) ** 0.5
        keep = math.exp(-self.config.friction * delta ** (self.config.friction_per == "time"))
        pull, fresh = (1 + keep) * delta / 2 / start.total(sigma), (1 - keep**2) ** 0.5
        law = JointLaw.of(start)
        for reach in [delta] * (self.num_inference_steps - 1) + [delta / 2]:
            step = 1 - reach * pull, reach * keep, reach * fresh
            law = law.step(step, (-pull, keep, fresh))
        return law.state


class UnderdampedAnnealedLangevinSampler(Underdamped, AnnealedLangevinSampler):
    r"""Underdamped Langevin dynamics down a ladder of noise levels.

    On each rung in turn the steps of `UnderdampedLangevinSampler`, :math:`\delta_i = \sqrt{2
    \alpha_i}`, :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`; the last move of a rung is the
    hand-off, by default half-denoising of the variance difference,

    .. math:: x \leftarrow x + \tfrac12 (\sigma_i^2 - \sigma_{i+1}^2) s(x, \sigma_i)

    and the very last the read-out, by default denoising in full. The velocity, of variance 1 on
    every rung, is kept from each to the next. A hand-off and a read-out are made at the end of a
    step, not in its middle, so that their score is asked at states whose law has no bias on
    Gaussian data.

    Axes: underdamped walk; a ladder; the hand-off and the read-out are options.

    Source: Sachs, Leimkuhler and Danos (Entropy 19, 647, 2017) for the walk, Song and Ermon (arXiv
    1907.05600) for the ladder; the hand-off is that of `AveragedNoiseAnnealedLangevinSampler`.

    Args:
        step_size: :math:`\epsilon`, as in `LadderSampler`; None for :math:`\sigma_L^2 / 2`.
        steps_per_level: network evaluations on each level, when no number is asked for: with 5,
            four steps and a hand-off.
        hand_off: as in `AnnealedLangevinSampler`. ``"next"`` is ``"own"``: the first half of a step
            is of the next rung in any case.
        friction: :math:`\gamma`, positive.
        friction_per: as in `UnderdampedLangevinSampler`.

    The other options are those of `AnnealedLangevinSampler`.
    """

    source = "Sachs et al. 2017, annealed"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        **AnnealedLangevinSampler.option_choices,
        **UnderdampedLangevinSampler.option_choices,
    }
    default_eta = 0.5

    @checked(
        **LADDER_RULES,
        **READOUT_RULES,
        hand_off=OneOf(HAND_OFFS),
        friction=POSITIVE,
        friction_per=OneOf(FRICTION_UNITS),
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 5,
        step_size: float | list[float] | str | None = None,
        friction: float = 1.0,
        friction_per: str = "step",
        hand_off: str = "half",
        readout: float | str | None = "full",
        readout_steps: int = 2,
        held_out_loss: dict[str, list[float]] | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        config, law, moves = self.config, JointLaw.of(start), list[tuple[Rung, float, Number]]()
        for rung, below, quiet in published_descent(config, self.num_inference_steps, 0.5):
            moves += [(rung, (2 * rung.alpha) ** 0.5, 0.0)] * (rung.steps - quiet)
            if quiet:
                moves.append((rung, 0.0, published_last_move(config, rung, below, start)))
        for (at, delta, jump), later in pairwise([*moves, (moves[-1][0], 0.0, 0.0)]):
            total, reach = start.total(at.sigma), (delta + later[1]) / 2
            if delta == 0:
                law = law.step((1 - jump / total, reach, 0), (0, 1, 0))
                continue
            keep = math.exp(-config.friction * delta ** (config.friction_per == "time"))
            pull, fresh = (1 + keep) * delta / 2 / total, (1 - keep**2) ** 0.5
            step = 1 - reach * pull, reach * keep, reach * fresh
            law = law.step(step, (-pull, keep, fresh))
        return law.state
