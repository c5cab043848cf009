"""All measurements at once."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.noise import Noise
from hdzoo_multimeasurement.inner import RULES, inner_walk, walked
from hdzoo_multimeasurement.laws import joint_law


class JointMultimeasurementSampler(SingleLevelSampler):
    r"""Joint multimeasurement sampling: a walk among ``m`` noisy measurements of one sample.

    The measurements are :math:`y_i = x_0 + \sigma z_i`. Of what they say of :math:`x_0` all is in
    their mean :math:`\bar y`, whose noise is :math:`\sigma / \sqrt m`; so from a score at this
    level alone

    .. math:: \nabla_{y_i} \log p(y_1, \dots, y_m) = \frac1{\sigma^2} \left( \bar y - y_i +
        \frac{\sigma^2}{m} s \left( \bar y, \frac{\sigma}{\sqrt m} \right) \right)

    on which a walk of :math:`m d` coordinates is made, and at the end the jump

    .. math:: \hat x = \bar y + \frac{\sigma^2}{m} s \left( \bar y, \frac{\sigma}{\sqrt m} \right)
        = E[x_0 \mid y_1, \dots, y_m]

    The state that a pipeline carries is :math:`\bar y`; ``memory`` has the differences
    :math:`y_i - \bar y`, which are drawn from their law, normal and independent of
    :math:`\bar y`, when the chain begins. So it is begun at the mean of all measurements.

    On Gaussian data of variance :math:`s^2` the measurements have the variance
    :math:`m s^2 + \sigma^2` along :math:`(1, \dots, 1)` and :math:`\sigma^2` across; the walk has
    to be short for these and long for that, by the ratio :math:`1 + m s^2 / \sigma^2`. The jump
    from a long walk that is exact has the variance :math:`s^4 / (s^2 + \sigma^2 / m)`. Along
    :math:`\bar y`, a Langevin or an underdamped walk of step size :math:`\alpha` is one at the
    level :math:`\sigma / \sqrt m` of step size :math:`\alpha / m`: walk-jump sampling there.

    Axes: the walk is an option, one rung, no hand-off, full read-out.

    Source: Saremi and Srivastava (multimeasurement generative models, arXiv 2112.09822). On MNIST
    in [0, 1]: :math:`m = 16`, :math:`\sigma = 1`, the underdamped walk of step
    :math:`\delta = \sigma / 2`, :math:`\alpha = \delta^2 / 2`, friction 1/2 per time.

    Args:
        sigma: :math:`\sigma`, the noise level of one measurement.
        num_measurements: :math:`m`.
        walk: the name of a registered sampler that walks on the noisy data at one level. An
            accepting one (``"mala"``) takes the trapezoid of the scores.
        walk_options: options of its own; None for its defaults.
        step_size: :math:`\alpha` of the walk; the walk's own for noise :math:`\sigma` by default.
        num_steps: network evaluations, when no number is asked for.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: an option is out of its range, or of no such walk.
    """

    source = "Saremi and Srivastava 2022"
    starts_from_noise = True
    limit = Limit("data", "sigma")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "num_measurements": (1, 2, 5),
        "walk": ("langevin", "averaged-noise-langevin", "underdamped-langevin"),
    }

    @checked(**RULES)
    @register_to_config
    def __init__(
        self,
        sigma: float = 1.0,
        num_measurements: int = 4,
        walk: str = "underdamped-langevin",
        walk_options: dict[str, Any] | None = None,
        step_size: float | None = None,
        num_steps: int = 100,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def rungs(self, num_inference_steps: int) -> list[float]:
        return [self.config.sigma / math.sqrt(self.config.num_measurements)]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        # The level is the network's, which may know but some.
        sigma, steps = sigmas[0] * math.sqrt(self.config.num_measurements), sum(counts) - 1
        self.walk = inner_walk(self.config, sigma, steps or None)
        return super().plan(sigmas, counts)

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        return [self.walk.moves[0].alpha / self.config.num_measurements]

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        level, m = self.levels[k], self.config.num_measurements
        if not self.levels[k + 1]:
            return x + level**2 * score
        sigma, mean, memory = level * math.sqrt(m), x[:, None], dict(self.memory)
        apart = memory.pop("apart", None)
        if apart is None:
            z = noise.normal((len(x), m, *x.shape[1:]))
            apart = sigma * (z - z.mean(1, keepdim=True))
        pull = score[:, None] / m - apart / sigma**2
        y, memory = walked(self.walk, k, mean + apart, pull, noise, memory)
        moved = y.mean(1)
        self.memory = memory | {"apart": y - moved[:, None]}
        return moved

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        return joint_law(self.config, self.num_inference_steps, start)
