"""Langevin dynamics whose noise is averaged over two steps."""

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import OneOf, checked
from hdzoo.samplers.base import Limit, Sampler
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import (
    GaussianLaw,
    JointLaw,
    published_descent,
    published_last_move,
    published_level,
)
from hdzoo.samplers.langevin import HAND_OFFS, AnnealedLangevinSampler
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES, READOUT_RULES


class AveragedNoise(Sampler):
    """The walk that its samplers share: `AveragedNoiseLangevinSampler` has the formula.

    Moves without noise are made as they are, and the noise before them is used once more after
    them.
    """

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        move = self.moves[k]
        moved, share = x + move.alpha * score, move.noise / 2
        if share == 0:
            return moved
        if "noise" not in self.memory:
            self.memory["noise"] = noise.normal(x.shape) - share * score
        old, self.memory["noise"] = self.memory["noise"], noise.normal(x.shape)
        return moved + share * (old + self.memory["noise"])


class AveragedNoiseLangevinSampler(AveragedNoise, SingleLevelSampler):
    r"""Langevin dynamics in which each noise is used twice, half in one step and half in the next.

    .. math:: x_{k+1} = x_k + \alpha s(x_k, \sigma) + \sqrt{\alpha / 2}\, (z_k + z_{k+1})

    On Gaussian data of variance :math:`s^2` its stationary variance is :math:`V = s^2 + \sigma^2`
    at every :math:`\alpha < 2 V`, where it is stable; on other data the bias is of order
    :math:`\alpha^2`, against :math:`\alpha` for `LangevinSampler` at the same cost. So its step may
    be several times as long.

    The first state is given without the noise :math:`z_0` that is part of it in a chain that has
    run for long. That is drawn given the state, :math:`z_0 = -\sqrt{\alpha / 2}\, s(x_0, \sigma)`
    (its mean, by Tweedie's formula) :math:`+ z`: a first step of half the length,
    :math:`x_0 + \frac12 \alpha s + \sqrt \alpha z`. Chains that start from :math:`p_\sigma` stay
    close to it from the first step on; with a :math:`z_0` that knows nothing of the state, they
    lose a variance of :math:`\alpha` there.

    With :math:`\alpha = \sigma^2 / 2`, the default, it is iterated half-denoising
    (`HalfDenoisingSampler`) with half of the noise recycled. It ends on the noisy variable.

    Axes: walk with averaged noise, one rung, no hand-off, no read-out.

    Source: Leimkuhler and Matthews (arXiv 1203.5428), the limit of their method BAOAB for large
    friction; their :math:`\delta t^2 / 2` is :math:`\alpha`.

    The options are those of `SingleLevelSampler`.
    """

    source = "Leimkuhler and Matthews 2013"
    limit = Limit("noisy data", "num_inference_steps")

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 2

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        alpha = sigma**2 / 2 if alpha is None else alpha
        begun = start.gradient(alpha / 2, sigma).noise(alpha)
        return begun.relax(alpha, sigma, self.num_inference_steps - 1, start.total(sigma))


class AveragedNoiseAnnealedLangevinSampler(AveragedNoise, AnnealedLangevinSampler):
    r"""Annealed Langevin dynamics in which each noise is used twice, half in each of two steps.

    On each rung in turn

    .. math::
        x \leftarrow x + \alpha_i s(x, \sigma_i) + \sqrt{\alpha_i / 2}\, (z_k + z_{k+1}), \quad
        \alpha_i = \epsilon \sigma_i^2 / \sigma_L^2

    the last move of which is the hand-off, by default half-denoising of the variance difference,

    .. math:: x \leftarrow x + \tfrac12 (\sigma_i^2 - \sigma_{i+1}^2) s(x, \sigma_i)

    and at the end the read-out, by default denoising in full. The noise before a hand-off without
    noise is used again after it, by the first step of the next rung. :math:`z_0` is drawn given the
    first state, as by `AveragedNoiseLangevinSampler`, which this is on each rung: on Gaussian data
    its walk leaves no bias at any :math:`\alpha < 2 V`, so that its steps may be several times as
    long as `AnnealedLangevinSampler`'s.

    Of the noise of an ``"own"`` or ``"next"`` hand-off, too, half is from the step before; with
    ``"next"`` both halves are the next rung's in size. The walk inflates nothing that the read-out
    ``"half-corrected"`` would correct.

    Axes: walk with averaged noise; a ladder; the hand-off and the read-out are options.

    Source: Leimkuhler and Matthews (arXiv 1203.5428) for the walk, Song and Ermon (arXiv
    1907.05600) for the ladder; the hand-off is the Euler predictor, in :math:`\sigma^2`, of a
    predictor-corrector (Song et al., arXiv 2011.13456).

    Args:
        step_size: :math:`\epsilon`, as in `LadderSampler`; None for :math:`\sigma_L^2`, with which
            each step forgets a single point.
        steps_per_level: network evaluations on each level, when no number is asked for: with 5,
            four steps and a hand-off.

    The other options are those of `AnnealedLangevinSampler`.
    """

    source = "Leimkuhler and Matthews 2013, annealed"
    limit = Limit("data", "sigma_min")
    default_eta = 1.0

    @checked(**LADDER_RULES, **READOUT_RULES, hand_off=OneOf(HAND_OFFS))
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 5,
        step_size: float | list[float] | str | None = None,
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
        config, law, begun = self.config, JointLaw.of(start), False
        for rung, below, quiet in published_descent(config, self.num_inference_steps, 1.0):
            total, sizes = start.total(rung.sigma), [rung.alpha] * rung.steps
            if below is not None and config.hand_off == "next":
                sizes[-1] = below.alpha
            for size in sizes[: rung.steps - quiet]:
                half = (size / 2) ** 0.5
                if not begun:
                    law, begun = law.step((1, 0, 0), (half / total, 0, 1)), True
                law = law.step((1 - rung.alpha / total, half, half), (0, 0, 1))
            if quiet:
                reach = published_last_move(config, rung, below, start)
                law = law.step((1 - reach / total, 0, 0), (0, 1, 0))
        return law.state
