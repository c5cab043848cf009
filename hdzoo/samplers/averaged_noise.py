"""Langevin dynamics whose noise is averaged over two steps."""

import math

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.samplers.base import Limit
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_level
from hdzoo.samplers.noise import Noise


class AveragedNoiseLangevinSampler(SingleLevelSampler):
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

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        alpha = self.moves[k].alpha
        share = math.sqrt(alpha / 2)
        if "noise" not in self.memory:
            self.memory["noise"] = noise.normal(x.shape) - share * score
        old, self.memory["noise"] = self.memory["noise"], noise.normal(x.shape)
        return x + alpha * score + share * (old + self.memory["noise"])

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        alpha = sigma**2 / 2 if alpha is None else alpha
        begun = start.gradient(alpha / 2, sigma).noise(alpha)
        return begun.relax(alpha, sigma, self.num_inference_steps - 1, start.total(sigma))
