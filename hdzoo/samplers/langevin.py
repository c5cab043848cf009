"""Langevin dynamics, at one noise level and annealed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import OneOf, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import (
    GaussianLaw,
    published_fraction,
    published_hand_off,
    published_level,
    published_moves,
    published_rungs,
)
from hdzoo.samplers.held_out import SOME_LOSS, loss_at
from hdzoo.samplers.options import LADDER_RULES, READOUT_CHOICES, READOUT_RULES
from hdzoo.samplers.read_out import ReadOutSampler, denoise

HAND_OFFS = ("own", "next", "half", "variance-matched")


class LangevinSampler(SingleLevelSampler):
    r"""Unadjusted Langevin algorithm on :math:`p_\sigma`.

    .. math:: x \leftarrow x + \alpha s(x, \sigma) + \sqrt{2 \alpha} z

    It ends on the noisy variable. On Gaussian data of variance :math:`s^2`, with
    :math:`V = s^2 + \sigma^2`, its stationary variance is :math:`V / (1 - \alpha / 2V)`.

    Axes: walk with fresh noise, one rung, no hand-off, no read-out.

    Source: Roberts and Tweedie (1996); on a denoiser's score, Song and Ermon (arXiv 1907.05600),
    equation 4, whose :math:`\epsilon / 2` is :math:`\alpha`.

    The default step size is :math:`0.2 \sigma^2`.
    """

    source = "Roberts and Tweedie 1996"
    limit = Limit("noisy data", "step_size")

    def default_step_size(self, sigma: float) -> float:
        return 0.2 * sigma**2

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        alpha = 0.2 * sigma**2 if alpha is None else alpha
        return start.langevin(alpha, sigma, self.num_inference_steps)


class AnnealedLangevinSampler(ReadOutSampler):
    r"""Annealed Langevin dynamics.

    On each rung in turn, ``steps_per_level`` times

    .. math:: x \leftarrow x + \alpha_i s(x, \sigma_i) + \sqrt{2 \alpha_i} z, \quad
        \alpha_i = \epsilon \sigma_i^2 / \sigma_L^2

    and at the end, with a read-out, one more evaluation
    :math:`x \leftarrow x + \lambda \sigma_L^2 s(x, \sigma_L)`.

    Axes: walk with fresh noise; a ladder; the hand-off and the read-out are options.

    Source: Song and Ermon (arXiv 1907.05600), Algorithm 1, in the convention of their code: their
    :math:`\alpha / 2` is :math:`\alpha` here. ``readout="full"`` is the final denoising step of
    Song and Ermon (arXiv 2006.09011), Algorithm 1.

    Args:
        hand_off: the last step on a rung. ``"own"``: a step like the others (published).
            ``"next"``: with the noise :math:`\sqrt{2 \alpha_{i+1}} z` of the next rung.
            ``"half"``: half-denoising of the variance difference,
            :math:`x + \frac12 \Delta_i s(x, \sigma_i)`,
            :math:`\Delta_i = \sigma_i^2 - \sigma_{i+1}^2`, without noise: a step of Euler's method
            on the probability-flow ODE in :math:`\sigma^2`, which makes the chain a
            predictor-corrector (Song et al., arXiv 2011.13456) of that predictor.
            ``"variance-matched"``: the same with :math:`1 / (1 + \sqrt{1 - q_i \Delta_i})` in the
            place of 1/2, :math:`q_i = (1 - c(\sigma_i)) / \sigma_i^2`, after which the total
            variance is that of the next rung, whatever the data, if it was that of this one.
            On a single point (:math:`c = 0`) it is the step of DDIM.
        readout: :math:`\lambda`: None for no read-out (the sample keeps the noise of the last
            rung), ``"alpha"`` for :math:`\alpha_L / \sigma_L^2`, ``"half"`` for 1/2, ``"full"``
            for 1, or a number from 0 to 1. ``"half-corrected"`` for :math:`1/2 + \eta / 4`,
            :math:`\eta = \alpha_L / \sigma_L^2`: on smooth data, half-denoising less what a walk
            with fresh noise inflates the variance by, to first order. ``"variance-matched"`` for
            :math:`1 / (1 + \sqrt{c(\sigma_L)})`, after which the total variance is that of the
            data; where they are smooth in some directions and singular in others, it suits neither.
            ``"matrix"`` for the read-out that suits both, `ReadOutSampler`'s, which takes
            ``readout_steps`` evaluations more; float32 or float16 networks only.
        readout_steps: products of the denoiser's Jacobian for ``readout="matrix"``, an evaluation
            each; they are counted in ``num_inference_steps``.
        held_out_loss: :math:`c(\sigma) = E |\sigma s + z|^2 / d` as the network records it
            (``unet.config.held_out_loss``), for what is variance-matched.

    The other options are those of `LadderSampler`.
    """

    source = "Song and Ermon 2019, Algorithm 1"
    limit = Limit("noisy data", "step_size")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "hand_off": HAND_OFFS,
        **READOUT_CHOICES,
        "held_out_loss": (SOME_LOSS,),
    }

    @checked(**LADDER_RULES, **READOUT_RULES, hand_off=OneOf(HAND_OFFS))
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 100,
        step_size: float | list[float] | str | None = None,
        hand_off: str = "own",
        readout: float | str | None = None,
        readout_steps: int = 2,
        held_out_loss: dict[str, list[float]] | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @property
    def default_num_inference_steps(self) -> int:
        return super().default_num_inference_steps + (self.config.readout is not None)

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        if self.config.hand_off == "own":
            return walk
        if self.config.hand_off == "next":
            return walk._replace(noise=next_walk.noise)
        share, lost = 0.5, walk.sigma**2 - next_walk.sigma**2
        if self.config.hand_off == "variance-matched":
            left = 1 - (1 - loss_at(self.config.held_out_loss, walk.sigma)) * lost / walk.sigma**2
            share = 1 / (1 + math.sqrt(left))
        return Move(walk.sigma, share * lost, 0.0)

    def read_out(self, walk: Move) -> Move:
        readout, loss = self.config.readout, self.config.held_out_loss
        return denoise(walk, readout, loss) if readout is not None else walk

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        law, readout = start, self.config.readout
        rungs = published_rungs(self.config, published_moves(self.config, self.num_inference_steps))
        for rung, below in pairwise(rungs):
            law = law.langevin(rung.alpha, rung.sigma, rung.steps - 1)
            if self.config.hand_off in ("half", "variance-matched"):
                law = law.gradient(published_hand_off(self.config, rung, below), rung.sigma)
            else:
                kept = below if self.config.hand_off == "next" else rung
                law = law.gradient(rung.alpha, rung.sigma).noise(2 * kept.alpha)
        sigma, alpha, steps = rungs[-1]
        if readout is None:
            return law.langevin(alpha, sigma, steps)
        fraction = published_fraction(self.config, sigma, alpha, start)
        return law.langevin(alpha, sigma, steps - 1).gradient(fraction * sigma**2, sigma)
