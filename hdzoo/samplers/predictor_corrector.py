"""Predictor-corrector sampling."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import Number, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_curve
from hdzoo.samplers.ladders import EVALUATIONS
from hdzoo.samplers.options import LADDER_RULES


class PredictorCorrectorSampler(RefinedLadderSampler):
    r"""Predictor-corrector sampling: steps of the reverse SDE, and Langevin steps between them.

    From one level to the next a step of reverse diffusion predicts,

    .. math:: x \leftarrow x + \Delta_i s(x, \sigma_i) + \sqrt{\Delta_i} z, \quad
        \Delta_i = \sigma_i^2 - \sigma_{i+1}^2

    and ``correct_steps`` Langevin steps correct,

    .. math:: x \leftarrow x + \alpha_i s(x, \sigma_i) + \sqrt{2 \alpha_i} z, \quad
        \alpha_i = 2 (r \sigma_i)^2

    At each level the corrections come first, and at the last one the step to 0 adds no noise: it
    denoises. Every evaluation is a step of its own, so that :math:`L` levels take
    :math:`L (1 + M)` of them, with :math:`M` corrections; with fewer, the larger noise levels are
    corrected less.

    The published step size is :math:`2 (r \|z\| / \|s\|)^2`, with norms averaged over the batch, by
    which images depend on one another. At noise level :math:`\sigma` the score of noisy data is
    about as large as :math:`z / \sigma`, which gives the one above.

    Axes: Langevin walk with fresh noise, a ladder refined to the number of evaluations, hand-off by
    reverse diffusion, full read-out.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), Algorithms 2 and
    4, in the order of their code, which denoises at the end. A VP network is sampled by the same
    steps in VE coordinates, which are not those of Algorithm 3.

    Args:
        snr: :math:`r`, the signal-to-noise ratio of a correction, between 0 and 1; by default that
            of diffusers' `ScoreSdeVeScheduler`.
        correct_steps: :math:`M`, corrections at each level.

    The other options are those of `RefinedLadderSampler`.

    Raises:
        HDZooError: ``snr`` is out of its range, beyond which the corrections diverge.
    """

    source = "Song et al. 2021, Algorithm 2"
    family = "SDE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "rho": (None, 7.0),
        "snr": (0.15, 0.5, 0.9),
        "correct_steps": (1, 2, 5),
    }

    @checked(**LADDER_RULES, snr=Number(above=0, below=1), correct_steps=EVALUATIONS)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = None,
        num_steps: int = 200,
        snr: float = 0.15,
        correct_steps: int = 1,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def levels_for(self, num_inference_steps: int) -> int:
        return math.ceil(num_inference_steps / (1 + self.config.correct_steps))

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        return [2 * (self.config.snr * sigma) ** 2 for sigma in sigmas]

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        difference = walk.sigma**2 - next_walk.sigma**2
        return Move(walk.sigma, difference, math.sqrt(difference))

    def read_out(self, walk: Move) -> Move:
        return Move(walk.sigma, walk.sigma**2)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        snr, each = self.config.snr, 1 + self.config.correct_steps
        num_levels = -(-self.num_inference_steps // each)
        levels = published_curve(self.config, num_levels)
        evaluations, rest = divmod(self.num_inference_steps, num_levels)
        law = start
        for i, (sigma, below) in enumerate(pairwise([*levels, 0.0])):
            corrections = evaluations - 1 + (i >= num_levels - rest)
            law = law.langevin(2 * snr**2 * sigma**2, sigma, corrections)
            law = law.gradient(sigma**2 - below**2, sigma)
            if below > 0:
                law = law.noise(sigma**2 - below**2)
        return law
