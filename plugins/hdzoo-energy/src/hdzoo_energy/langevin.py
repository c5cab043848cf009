"""Langevin dynamics as it is used on energy models: with a decaying step, and nearly cold."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import NOT_NEGATIVE, POSITIVE, Maybe, Number, checked
from hdzoo.samplers.base import Limit
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_level
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import SINGLE_LEVEL_RULES


class SGLDSampler(SingleLevelSampler):
    r"""Stochastic gradient Langevin dynamics (SGLD) on :math:`p_\sigma`.

    .. math:: x \leftarrow x + \alpha_k s(x, \sigma) + \sqrt{2 \alpha_k} z, \quad
        \alpha_k = \alpha (1 + k / b)^{-\gamma}, \quad k = 0, 1, \dots

    There is no test of acceptance; instead the step decays. With :math:`\tfrac12 < \gamma \le 1`
    the chain goes infinitely far, and comes to :math:`p_\sigma` as the evaluations become many:
    the bias left is that of the last steps, :math:`\alpha_k / 2V` of the variance :math:`V` on
    Gaussian data. With ``decay=0`` it is `LangevinSampler`, whose bias stays.

    In the publication the gradient is an estimate from some of the data, whose error is small
    beside the noise as the step decays. Here it is the network's score. The name is also used for
    dynamics with a step and a noise that do not belong together, of which the law is another:
    `LowTemperatureLangevinSampler`.

    Axes: walk with fresh noise, one rung, no hand-off, no read-out.

    Source: Welling and Teh (2011), equations 2 and 4, where the step is :math:`\epsilon_t / 2`, the
    noise :math:`N(0, \epsilon_t)`, and :math:`\epsilon_t = a (b + t)^{-\gamma}`:
    :math:`\epsilon_t = 2 \alpha_k`.

    Args:
        step_size: :math:`\alpha`, of the first step; :math:`\tfrac12 \sigma^2` by default.
        decay: :math:`\gamma`, from 0 to 1.
        decay_offset: :math:`b`, positive: the number of steps after which the step has decayed by
            :math:`2^{-\gamma}`.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level or the step size is not positive, or another option is out of
            its range.
    """

    source = "Welling and Teh 2011"
    limit = Limit("noisy data", "num_inference_steps")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "decay": (0.0, 0.33, 0.55, 1.0),
        "decay_offset": (0.5, 1.0, 10.0),
    }

    @checked(**SINGLE_LEVEL_RULES, decay=Number(0, 1), decay_offset=POSITIVE)
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        decay: float = 0.55,
        decay_offset: float = 10.0,
        num_steps: int = 50,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 2

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        decayed = (1 + k / self.config.decay_offset) ** -self.config.decay
        alpha = decayed * self.moves[k].alpha
        return x + alpha * score + math.sqrt(2 * alpha) * noise.normal(x.shape)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        sigma, alpha = published_level(self.config), self.config.step_size
        first = sigma**2 if alpha is None else 2 * alpha
        law, b, gamma = start, self.config.decay_offset, self.config.decay
        for t in range(self.num_inference_steps):
            # The publication's a is first b^gamma.
            epsilon = first * b**gamma * (b + t) ** -gamma
            law = law.gradient(epsilon / 2, sigma).noise(epsilon)
        return law


class LowTemperatureLangevinSampler(SingleLevelSampler):
    r"""Langevin dynamics with a step and a noise chosen apart: nearly cold, no sampler of
    :math:`p`.

    What tutorials on energy models draw with, and call SGLD or Langevin dynamics:

    .. math:: x \leftarrow x + \alpha\, \mathrm{clip}(s(x, \sigma)) + \tau z

    Its noise is not :math:`\sqrt{2 \alpha}` but much smaller, so this is the unadjusted Langevin
    algorithm on :math:`p_\sigma^{1 / T}` at the temperature

    .. math:: T = \tau^2 / 2 \alpha,

    :math:`1.25 \cdot 10^{-6}` with the published numbers. A long chain ends in a mode, with next to
    no spread about it, and says nothing of the modes' weights; a short one ends somewhere on the
    way there, which is what such models are trained for. On Gaussian data, without clipping, the
    stationary variance at which the network is asked is :math:`T V / (1 - \alpha / 2V)`, stable for
    :math:`\alpha < 2 V` only; with clipping, a step beyond that jumps back and forth by up to
    :math:`\alpha c`.

    In the tutorials noise comes first. So the state that a pipeline carries is right after it, and
    the last evaluation adds none. What they do besides, to keep states within the range of pixels,
    is left out.

    Axes: walk with fresh noise, one rung, no hand-off, no read-out.

    Source: Lippe, UvA Deep Learning Tutorial 8 (:math:`\alpha = 10`, :math:`\tau = 0.005`,
    :math:`c = 0.03`; 60 steps in training and 256 to draw); Du and Mordatch (arXiv 1903.08689),
    equation 1; Nijkamp et al. (arXiv 1904.09770) on what short chains are.

    Args:
        step_size: :math:`\alpha`; 10 by default, for energies of which the gradient is some
            thousandths, as the tutorial's. For a score, which grows as :math:`1 / \sigma`, at most
            :math:`2 \sigma^2`.
        noise: :math:`\tau`, the standard deviation of the noise, from 0. :math:`\sqrt{2 \alpha}` is
            temperature 1, `LangevinSampler`.
        clip: :math:`c`: each number of the score is brought into :math:`[-c, c]`; None for no
            clipping.
        num_steps: network evaluations, when no number is asked for.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level or the step size is not positive, or another option is out of
            its range.
    """

    source = "Lippe, UvA Deep Learning Tutorial 8"
    starts_from_noise = True
    # Clipped, it has no law in closed form.
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "noise": (0.0, 0.005, 0.1, 1.0),
        "clip": (None,),
    }

    @checked(**SINGLE_LEVEL_RULES, noise=NOT_NEGATIVE, clip=Maybe(POSITIVE))
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        noise: float = 0.005,
        clip: float | None = 0.03,
        num_steps: int = 256,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @property
    def temperature(self) -> float:
        r""":math:`T = \tau^2 / 2 \alpha`."""
        return float(self.config.noise) ** 2 / (2 * self.moves[0].alpha)

    def default_step_size(self, sigma: float) -> float:
        return 10.0

    def first_state(
        self,
        shape: Sequence[int],
        noise: Noise,
        centre: float = 0.0,
        data_range: tuple[float, float] | None = None,
        data_std: float | None = None,
    ) -> torch.Tensor:
        """Uniform on the range of the data, where the samples are images."""
        if data_range is None:
            return super().first_state(shape, noise, centre, data_range, data_std)
        low, high = data_range
        return self.from_ve(low + (high - low) * noise.uniform(shape), self.levels[0])

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        clip = self.config.clip
        pull = score if clip is None else score.clamp(-clip, clip)
        moved = x + self.moves[k].alpha * pull
        if self.levels[k + 1] and self.config.noise > 0:
            moved = moved + self.config.noise * noise.normal(x.shape)
        return moved

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        if self.config.clip is not None:
            return None
        sigma, alpha = published_level(self.config), self.config.step_size
        alpha = 10.0 if alpha is None else alpha
        temperature, total = self.config.noise**2 / (2 * alpha), start.total(sigma)
        walk = self.num_inference_steps - 1
        law = start.relax(alpha, sigma, walk, temperature * total / (1 - alpha / (2 * total)))
        return law.gradient(alpha, sigma)
