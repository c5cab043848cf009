"""Predictor-corrector sampling as the authors of score_sde run it."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import Number, OneOf, checked
from hdzoo.samplers.base import Move
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.ladders import EVALUATIONS
from hdzoo.samplers.noise import Noise
from hdzoo_reverse_diffusion.discretization import vp_betas
from hdzoo_reverse_diffusion.published import predicted, published_betas, published_times
from hdzoo_reverse_diffusion.reverse_sde import SDE_RULES, ReverseSDESampler
from hdzoo_reverse_diffusion.times import end_of_time

CORRECTORS, NORMS = ("ald", "langevin"), ("sample", "batch")


class ScoreSDEPCSampler(ReverseSDESampler):
    r"""Predictor-corrector sampling of score_sde: Langevin steps, and then one of the reverse SDE.

    At each level come ``correct_steps`` corrections, and then the step of `ReverseSDESampler`. A
    correction is, in VE coordinates and for both SDEs,

    .. math:: x \leftarrow x + \alpha_k s(x, \sigma_k) + \sqrt{2 \alpha_k} z

    with one of two step sizes,

    .. math::
        \alpha_k = 2 a_k (r \sigma_k)^2 \quad (\text{ald}), \qquad
        \alpha_k = 2 a_k \left( r \frac{\|z\|}{\|s\|} \right)^2 \quad (\text{langevin})

    and :math:`a_k = 1` for the VE SDE, :math:`1 - \beta_k` for the VP one. Every correction and
    every step is an evaluation, so that ``L`` levels take ``L (1 + correct_steps)`` of them; with
    fewer, the larger noise levels are corrected less.

    The authors ran ``"langevin"``, with both norms averaged over the batch, so that an image
    depends on the others that it is drawn with. That is ``norms="batch"``, for comparison with what
    they published. With ``"sample"`` each image has its own norms, and depends on its own seed
    alone; for a batch of one the two are the same. The default is ``"ald"``, which "langevin" comes
    near to where a sample has many numbers, since a score is then about as long as
    :math:`z / \sigma`: its law is known, and that of "langevin" is not.

    Axes: Langevin walk with fresh noise, a ladder refined to the number of evaluations, hand-off by
    the reverse SDE, a read-out that leaves out the last noise, or none.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), Algorithms 2 to 5,
    in the order of their code.

    Args:
        snr: :math:`r`, between 0 and 1; 0.16 is theirs for CIFAR-10.
        correct_steps: corrections at each level.
        corrector: ``"ald"`` or ``"langevin"``.
        norms: of ``"langevin"``: ``"sample"`` or ``"batch"``.

    The other options are those of `ReverseSDESampler`; 1,000 levels are as published.

    Raises:
        HDZooError: an option is out of its range, or as for `ReverseSDESampler`.
    """

    source = "Song et al. 2021, Algorithms 2 to 5"
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        **ReverseSDESampler.option_choices,
        "snr": (0.16, 0.5, 0.9),
        "correct_steps": (1, 2, 5),
    }

    @checked(
        **SDE_RULES,
        snr=Number(above=0, below=1),
        correct_steps=EVALUATIONS,
        corrector=OneOf(CORRECTORS),
        norms=OneOf(NORMS),
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        sde: str | None = None,
        predictor: str = "reverse-diffusion",
        denoise: bool = True,
        sampling_eps: float = 1e-5,
        snr: float = 0.16,
        correct_steps: int = 1,
        corrector: str = "ald",
        norms: str = "sample",
        num_steps: int = 200,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def levels_for(self, num_inference_steps: int) -> int:
        return math.ceil(num_inference_steps / (1 + self.config.correct_steps))

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        predictions = super().plan(sigmas, [1] * len(sigmas))
        shares = np.ones(len(sigmas))
        if self.sde == "vp":
            shares -= vp_betas(sigmas, end_of_time(self.config, sigmas), self.clock)
        moves, keeps = list[Move](), list[float]()
        for move, keep, share, count in zip(
            predictions, self.keeps, shares.tolist(), counts, strict=True
        ):
            alpha = 2 * share * (self.config.snr * move.sigma) ** 2
            moves += [Move(move.sigma, alpha, math.sqrt(2 * alpha))] * (count - 1) + [move]
            keeps += [1.0] * (count - 1) + [keep]
        self.keeps = keeps
        return moves

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        move = self.moves[k]
        if self.config.corrector == "ald" or self.levels[k + 1] != move.sigma:
            return super().update(k, x, score, noise)
        z, together = noise.normal(x.shape), self.config.norms == "batch"
        ratio = lengths(z, together) / (move.sigma * lengths(score, together))
        return x + ratio**2 * move.alpha * score + ratio * move.noise * z

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        if self.config.corrector != "ald":
            return None
        law, each = start, 1 + self.config.correct_steps
        levels = published_times(self.config, -(-self.num_inference_steps // each))
        shares = 1 - published_betas(self.config, levels) if self.sde == "vp" else 1 + 0 * levels
        evaluations, rest = divmod(self.num_inference_steps, len(levels))
        for k, (sigma, share) in enumerate(zip(levels, shares, strict=True)):
            corrections = evaluations - 1 + (k >= len(levels) - rest)
            law = law.langevin(2 * share * (self.config.snr * sigma) ** 2, sigma, corrections)
            law = predicted(law, self.config, self.sde, k, levels)
        return law


def lengths(x: torch.Tensor, together: bool) -> torch.Tensor:
    """The length of each sample, or of all the mean, in a shape that multiplies samples.

    Args:
        x: shape (batch, ...).
        together: whether the mean of the batch is taken.
    """
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1)
    norms = norms.mean().expand(len(x)) if together else norms
    return norms.view(-1, *[1] * (x.ndim - 1))
