"""Langevin dynamics with a velocity."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import POSITIVE, OneOf, checked
from hdzoo.samplers.base import Limit
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw, JointLaw, published_level
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import SINGLE_LEVEL_RULES

FRICTION_UNITS = ("step", "time")


class UnderdampedLangevinSampler(SingleLevelSampler):
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

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        delta = math.sqrt(2 * self.moves[k].alpha)
        gamma = self.config.friction * (delta if self.config.friction_per == "time" else 1)
        fresh = math.sqrt(-math.expm1(-2 * gamma)) * noise.normal(x.shape)
        kept = math.exp(-gamma) * (self.memory.get("velocity", 0.0) + delta / 2 * score)
        self.memory["velocity"] = kept + fresh + delta / 2 * score
        # The first half of the next step is made at once; after the last there is none.
        return x + (delta if self.levels[k + 1] else delta / 2) * self.memory["velocity"]

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
