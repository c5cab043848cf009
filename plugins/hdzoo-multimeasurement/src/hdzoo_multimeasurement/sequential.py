"""One measurement after the other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import checked
from hdzoo.samplers.base import Limit, Move, Sampler
from hdzoo.samplers.configurations import keep_own_step_size
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.ladders import EVALUATIONS
from hdzoo.samplers.noise import Noise
from hdzoo_multimeasurement.inner import RULES, inner_walk, walked
from hdzoo_multimeasurement.laws import sequential_law


class Stage(NamedTuple):
    """What a network evaluation is for.

    Attributes:
        level: the noise level of the mean, where the network is asked.
        walk: of the measurement; None where none is made.
        step: of the walk.
        sigma: the noise level of the measurement.
        share: its part of the mean.
        spread: the standard deviation of the mean before it, given the mean with it.
    """

    level: float
    walk: Any
    step: int
    sigma: float
    share: float
    spread: float

    @property
    def move(self) -> Move:
        """As the plan of the chain has it."""
        return Move(self.level, self.walk.moves[0].alpha if self.walk else 0.0)


def stages_of(
    config: Mapping[str, Any], sigmas: Sequence[float], counts: Sequence[int]
) -> list[Stage]:
    """What each network evaluation is for.

    Args:
        config: of the sampler.
        sigmas: the noise levels of the mean, descending.
        counts: evaluations on each.
    """
    stages, walks = list[Stage](), dict[tuple[str, int], Any]()
    for level, above, count in zip(sigmas, [math.inf, *sigmas[:-1]], counts, strict=True):
        share = 1 - (level / above) ** 2
        sigma = level / math.sqrt(share)
        spread = 0.0 if math.isinf(above) else math.sqrt(above**2 - level**2)
        # Measurements of the same noise have the same walk, but for roundings.
        like = f"{sigma:.12g}", count
        if like not in walks:
            # Of the evaluations on a level the last is the denoiser's.
            walks[like] = inner_walk(config, sigma, count - 1) if count > 1 else None
        stages += [Stage(level, walks[like], step, sigma, share, spread) for step in range(count)]
    return stages


class SequentialMultimeasurementSampler(Sampler):
    r"""Sequential multimeasurement sampling: each noisy measurement is drawn given those before.

    The measurements are :math:`y_t = x_0 + \sigma z_t`, and the mean of the first ``t``,
    :math:`\bar y_t`, has the noise :math:`\sigma_t = \sigma / \sqrt t`. In turn, each is drawn by a
    walk on

    .. math:: \nabla_{y_t} \log p(y_t \mid y_1, \dots, y_{t-1}) = \frac1{\sigma^2} \left(
        \bar y_t - y_t + \frac{\sigma^2}{t} s(\bar y_t, \sigma_t) \right), \quad
        \bar y_t = \bar y_{t-1} + \frac{y_t - \bar y_{t-1}}{t}

    which begins at :math:`E[x_0 \mid y_1, \dots, y_{t-1}] + \sigma z`. The density of the first is
    log-concave where :math:`\sigma` is large, and those after it more and more. At the end

    .. math:: \hat x = \bar y_m + \sigma_m^2 s(\bar y_m, \sigma_m) = E[x_0 \mid y_1, \dots, y_m]

    The state that a pipeline carries is :math:`\bar y_t`, where the network is asked, so the noise
    levels descend; ``memory`` has :math:`\bar y_{t-1}`. The last evaluation on a level is the
    denoiser's, :math:`E[x_0 \mid y_1, \dots, y_t]`, the others are steps of the walk. With one on
    each there is no walk: :math:`y_{t+1} = E[x_0 \mid y_1, \dots, y_t] + \sigma z`, which is
    stochastic localization by Euler's scheme.

    On another ladder (``set_timesteps(sigmas=...)``, or where the network knows but some levels)
    measurement ``t`` has the noise of variance
    :math:`1 / (\sigma_t^{-2} - \sigma_{t-1}^{-2})`, and the mean is weighted by the inverse of it.

    On Gaussian data of variance :math:`s^2`, walks that are exact end in the variance
    :math:`s^4 / (s^2 + \sigma_m^2)`. In any case
    :math:`W_2(x_0, \hat x)^2 \le d \sigma^2 / m`.

    Axes: the walk is an option; a ladder; denoise and renoise as the hand-off; full read-out.

    Source: Saremi, Park and Bach (chain of log-concave Markov chains, arXiv 2305.19473), Algorithm
    1 with the score estimated by the denoiser; the beginning of the walks is that of the authors'
    code when it is told no other.

    Args:
        sigma: :math:`\sigma`, the noise level of one measurement.
        num_measurements: :math:`m`.
        steps_per_measurement: network evaluations for each, when no number is asked for.
        walk: the name of a registered sampler that walks on the noisy data at one level. An
            accepting one (``"mala"``) takes the trapezoid of the scores.
        walk_options: options of its own; None for its defaults.
        step_size: :math:`\alpha` of the walk; the walk's own for the noise of the measurement by
            default.
        prediction_type, timestep_type, sigma_data: as in every sampler.

    Raises:
        HDZooError: an option is out of its range, or of no such walk.
    """

    source = "Saremi, Park and Bach 2024"
    limit = Limit("data", "sigma")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "num_measurements": (1, 2, 4),
        "walk": ("langevin", "averaged-noise-langevin", "underdamped-langevin"),
    }

    @checked(**RULES, steps_per_measurement=EVALUATIONS)
    @register_to_config
    def __init__(
        self,
        sigma: float = 1.0,
        num_measurements: int = 16,
        steps_per_measurement: int = 6,
        walk: str = "underdamped-langevin",
        walk_options: dict[str, Any] | None = None,
        step_size: float | None = None,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        return keep_own_step_size(
            config, "num_levels", "ladder_step_size", "single_level_step_size"
        )

    @property
    def default_num_inference_steps(self) -> int:
        return self.config.num_measurements * self.config.steps_per_measurement

    def rungs(self, num_inference_steps: int) -> list[float]:
        sigma, m = self.config.sigma, self.config.num_measurements
        return [sigma / math.sqrt(t) for t in range(1, m + 1)]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        self.stages = stages_of(self.config, sigmas, counts)
        return [stage.move for stage in self.stages]

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        level, walk, step, sigma, share, spread = self.stages[k]
        memory = dict(self.memory)
        if self.levels[k + 1] < level:
            denoised = x + level**2 * score
            if not self.levels[k + 1]:
                return denoised
            self.memory, below = {"past": x}, self.stages[k + 1]
            fresh = denoised + below.sigma * noise.normal(x.shape)
            return x + below.share * (fresh - x)
        # What the mean was before the last measurement; given the mean, it is that and noise.
        past = memory.pop("past", None)
        past = x + spread * noise.normal(x.shape) if past is None else past
        y = past + (x - past) / share
        y, memory = walked(walk, step, y, (x - y) / sigma**2 + share * score, noise, memory)
        self.memory = memory | {"past": past}
        return past + share * (y - past)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        return sequential_law(self.config, self.num_inference_steps, start)
