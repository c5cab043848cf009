"""What walks on signs share: their options."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import HDZooError
from hdzoo.checks import Maybe, OneOf, Rule, checked
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.options import SINGLE_LEVEL_RULES
from hdzoo_binary.signs import JUMPS, SCORES, signs_score

RULES: dict[str, Rule] = {**SINGLE_LEVEL_RULES, "score": OneOf(SCORES)}


class SignsWalk(SingleLevelSampler):
    r"""A walk in :math:`\{-1, 1\}^d` at one level of bit-flip noise, from signs drawn at random.

    Args:
        sigma: the noise level: each sign of the data is turned over with probability
            :math:`1 / (1 + e^{2 / \sigma^2})`.
        step_size: :math:`\alpha`; 1 by default, if the sampler says nothing else.
        score: ``"difference"``, half of what :math:`\log q` gains when a sign goes from -1 to 1; or
            ``"gradient"``, as published (`hdzoo_binary.signs.signs_score`).
        jump: None to end on noisy signs; ``"rounding"`` or ``"sign"`` to spend the last evaluation
            on clean ones: each sign drawn with mean :math:`E[x_0 | y]`, or its sign.
        num_steps: network evaluations, when no number is asked for.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: an option is out of its range.
    """

    state_space = "signs"
    family = "Langevin on signs"
    starts_from_noise = True
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "score": SCORES,
        "jump": (None, *JUMPS),
    }

    @checked(**RULES, jump=Maybe(OneOf(JUMPS)))
    @register_to_config
    def __init__(
        self,
        sigma: float = 1.0,
        step_size: float | None = None,
        score: str = "difference",
        jump: str | None = None,
        num_steps: int = 50,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return 1.0

    def score_of(self, y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """The score of the noisy signs that the walk follows, from the posterior mean there."""
        return signs_score(y, mean, self.levels[0], self.config.score)

    def jumps_at(self, k: int) -> bool:
        """Whether evaluation ``k`` makes clean signs."""
        return self.config.jump is not None and not self.levels[k + 1]


def too_few(sampler: Any, asked: int, least: int, why: str) -> HDZooError:
    """What to say of a chain that has too few evaluations."""
    return HDZooError(
        f"num_inference_steps is {asked}; {type(sampler).__name__} needs at least {least}: {why}"
    )
