"""Several noisy measurements of the same signs, one after another."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import HDZooError
from hdzoo.checks import OneOf, Whole, checked
from hdzoo.samplers.base import Limit, Move, Sampler
from hdzoo.samplers.ladders import EVALUATIONS
from hdzoo.samplers.noise import Noise
from hdzoo_binary.signs import JUMPS, SCORES, draw_signs, jump, log_odds_of_noise, posterior_mean
from hdzoo_binary.walk import RULES, SignsWalk

MEASUREMENTS = Whole(1, 10_000)


class BinaryMultimeasurementSampler(SignsWalk):
    r"""Sequential noisy measurements of the same signs, then a jump to clean ones.

    Measurements :math:`y_1, \dots, y_m` of one :math:`x_0` are as good as one with
    :math:`1 / \sigma^2` times ``m``: with their mean :math:`\bar y`,

    .. math::
        q(y_1, \dots, y_m) \propto \sum_{x_0} p(x_0)\, e^{m x_0 \cdot \bar y / \sigma^2}, \quad
        E[x_0 | y_1, \dots, y_m] = \bar y + \frac{\sigma^2}{m}
            s \left(\bar y, \frac{\sigma}{\sqrt m} \right),

    so that the network is asked at :math:`\bar y`, at noise level :math:`\sigma / \sqrt t` with
    ``t`` of them. Each is drawn given those before it by a walk of one or two stages
    (`DiscreteLangevinSampler`, `TwoStageDiscreteLangevinSampler`), that starts from a clean state
    drawn given those before, made noisy. All are easy to draw, at the noise of one; the last
    evaluation jumps at the noise of all. With one measurement it is a walk and a jump.

    The state that a pipeline carries is where the network is asked, a mean of signs.

    Axes: walk on signs, a rung for each measurement, hand-off by denoising and noise, read-out by
    rounding or signs.

    Source: Bach and Saremi (arXiv 2502.00557), multiple measurements; Saremi, Park and Bach (arXiv
    2305.19473).

    Args:
        sigma: the noise level of one measurement: it turns each sign over with probability
            :math:`1 / (1 + e^{2 / \sigma^2})`.
        step_size: :math:`\alpha` of the walk; 1 by default.
        measurements: ``m``.
        steps_per_measurement: network evaluations for each, when no number is asked for. The last
            of them is at the measurement itself.
        stages: of the walk, 1 or 2.
        score: of the walk, as in `SignsWalk`.
        jump: ``"rounding"``, or ``"sign"``.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: an option is out of its range, or the noise levels given are none of
            measurements.
    """

    source = "Bach and Saremi 2025"
    family = "measurements of signs"
    limit = Limit("data", "num_inference_steps")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "measurements": (1, 2, 5),
        "stages": (1, 2),
        "score": SCORES,
        "jump": JUMPS,
    }

    @checked(
        **RULES,
        jump=OneOf(JUMPS),
        measurements=MEASUREMENTS,
        steps_per_measurement=EVALUATIONS,
        stages=Whole(1, 2),
    )
    @register_to_config
    def __init__(
        self,
        sigma: float = 1.0,
        step_size: float | None = None,
        measurements: int = 4,
        steps_per_measurement: int = 16,
        stages: int = 2,
        score: str = "difference",
        jump: str = "rounding",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @property
    def default_num_inference_steps(self) -> int:
        return self.config.measurements * self.config.steps_per_measurement

    def rungs(self, num_inference_steps: int) -> list[float]:
        return [self.config.sigma / t**0.5 for t in range(1, self.config.measurements + 1)]

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        return [*super().step_sizes(sigmas)] * len(sigmas)

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        for t, sigma in enumerate(sigmas, 1):
            # A level may have been through float32, or a logarithm of it.
            if abs(sigmas[0] / sigma / t**0.5 - 1) > 1e-3:
                raise HDZooError(f"level {t} is {sigma:g}; it must be {sigmas[0]:g} / sqrt({t})")
        return Sampler.plan(self, sigmas, counts)

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        here, after = self.levels[k : k + 2]
        mean = posterior_mean(x, score, here)
        if not after:
            return jump(mean, self.config.jump, noise)
        # How many measurements x is the mean of, and the mean of all but the last of them.
        t, past = round((self.levels[0] / here) ** 2), self.memory.get("past", x)
        if after < here:
            clean = jump(mean, "rounding", noise)
            y = draw_signs(log_odds_of_noise(clean, self.levels[0]), noise)
            t, past = t + 1, x
            self.memory["past"] = past
        else:
            asked = t * x - (t - 1) * past
            pull = self.config.stages * self.score_of(asked, mean)
            y = draw_signs(pull + asked / self.moves[k].alpha, noise)
        # The last evaluation of a measurement is at the signs themselves.
        if self.config.stages == 2 and self.levels[k + 2] == after:
            y = draw_signs(y / self.moves[k].alpha, noise)
        return ((t - 1) * past + y) / t
