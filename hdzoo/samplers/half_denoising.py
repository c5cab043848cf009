"""Noise-corrected Langevin, half-denoising, and the samplers that carry the name."""

from collections.abc import Sequence

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import checked
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import LadderSampler, SingleLevelSampler, root
from hdzoo.samplers.gaussian import GaussianLaw, published_level, published_rungs
from hdzoo.samplers.options import LADDER_RULES, SINGLE_LEVEL_RULES


class NoiseCorrectedLangevinSampler(SingleLevelSampler):
    r"""Noise-corrected Langevin algorithm: samples of the clean data from the score at one level.

    .. math:: \tilde x = x + \sigma n, \quad
        x \leftarrow \tilde x + \mu s(\tilde x, \sigma) + \sqrt{2 \mu - \sigma^2}\, \nu

    The state here is :math:`\tilde x`, whose two noises are one,
    :math:`\sqrt{2 \mu - \sigma^2} \nu + \sigma n = \sqrt{2 \mu} z`: it is exactly
    `LangevinSampler`'s. Only the last move differs, which reads out :math:`x`. On Gaussian data of
    variance :math:`s^2` the stationary variance of :math:`x` is
    :math:`s^2 + (\mu / 2) / (1 - \mu / 2V)`, :math:`V = s^2 + \sigma^2`.

    Axes: walk with fresh noise, one rung, no hand-off, read-out by one step with less noise.

    Source: Hyvärinen (arXiv 2410.05837), equation 4.

    Args:
        step_size: :math:`\mu`, at least :math:`\sigma^2 / 2`; :math:`\sigma^2` by default.

    The other options are those of `SingleLevelSampler`.
    """

    source = "Hyvärinen 2025, eq. 4"
    family = "half-denoising"
    limit = Limit("data", "sigma")

    def default_step_size(self, sigma: float) -> float:
        return sigma**2

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        alphas = super().step_sizes(sigmas)
        least = sigmas[0] ** 2 / 2
        # sigma**2 / 2 that a caller has computed may miss ours by a rounding.
        if alphas[0] < least * (1 - 1e-12):
            raise HDZooError(
                f"step_size (mu) is {alphas[0]:g} at noise level {sigmas[0]:g}; noise-corrected "
                f"Langevin needs mu >= sigma^2 / 2 = {least:g}"
            )
        return alphas

    def read_out(self, walk: Move) -> Move:
        return walk._replace(noise=walk.sigma * root(2 * walk.alpha / walk.sigma**2 - 1))

    @property
    def _published_mu(self) -> float:
        given = self.config.step_size
        return float(published_level(self.config) ** 2 if given is None else given)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        """In terms of the published ``x``, of which the first state is ``x + sigma n``."""
        sigma, mu = published_level(self.config), self._published_mu
        total = start.total(sigma)
        stationary = start.data_variance + mu / 2 / (1 - mu / (2 * total))
        return start.noise(-(sigma**2)).relax(mu, sigma, self.num_inference_steps, stationary)


class HalfDenoisingSampler(NoiseCorrectedLangevinSampler):
    r"""Iterated half-denoising: noise, then half of the denoising step, at one noise level.

    .. math:: \tilde x = x + \sigma n, \quad
        x \leftarrow \tilde x + \tfrac12 \sigma^2 s(\tilde x, \sigma)

    Noise-corrected Langevin with the smallest step, :math:`\mu = \sigma^2 / 2`, where the second
    noise vanishes. On Gaussian data the stationary variance is
    :math:`s^2 + (\sigma^2 / 4) / (1 - \sigma^2 / 4V)`: the bias of the noise is gone to first
    order, that of the discretisation stays.

    Axes: walk with fresh noise, one rung, no hand-off, half read-out.

    Source: Hyvärinen (arXiv 2410.05837), equation 6.

    The options are those of `SingleLevelSampler` but for the step size, which is fixed.
    """

    source = "Hyvärinen 2025, eq. 6"

    @checked(**SINGLE_LEVEL_RULES)
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        num_steps: int = 50,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        return half_variances(sigmas)

    @property
    def _published_mu(self) -> float:
        return published_level(self.config) ** 2 / 2


class AlphaHalfDenoisingSampler(LadderSampler):
    r"""Annealed Langevin dynamics with the noise first ("alpha-half-denoising").

    On each rung, ``steps_per_level`` times

    .. math:: \tilde x = x + \sqrt{2 \alpha_i} n, \quad
        x \leftarrow \tilde x + \alpha_i s(\tilde x, \sigma_i), \quad
        \alpha_i = \epsilon \sigma_i^2 / \sigma_L^2

    Despite its name this is annealed Langevin dynamics, not half-denoising: the order of noise and
    gradient is swapped, which at equal cost changes two things. The last noise on a rung has the
    next rung's variance, and the very last noise is left out. It does not meet the condition
    :math:`2 \alpha \ge \sigma^2` under which noise correction is valid; on Gaussian data the
    stationary variance is :math:`V / (1 - \alpha / 2V) - 2 \alpha`. The same as
    ``AnnealedLangevinSampler(hand_off="next", readout="alpha")``. The order is also that of
    ``noise_first`` in the code of Jolicoeur-Martineau et al. (arXiv 2009.05475).

    The state here is :math:`\tilde x`; to start from a clean :math:`x`, give
    :math:`x + \sqrt{2 \alpha_1} n`.

    Axes: walk with fresh noise, a ladder, the next rung's noise as hand-off, alpha read-out.

    Source: the report on annealed half-denoising, Algorithm 3.

    The options are those of `LadderSampler`.
    """

    source = "Algorithm 3 of the report on annealed half-denoising"
    family = "Langevin"
    limit = Limit("noisy data", "step_size")
    # alpha over sigma^2, where the publication fixes it.
    _published_eta: float | None = None

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        return walk._replace(noise=next_walk.noise)

    def read_out(self, walk: Move) -> Move:
        return walk._replace(noise=0.0)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        """In terms of the published ``x``, of which the first state is ``x + sqrt(2 alpha) n``."""
        rungs = published_rungs(self.config, self.num_inference_steps, self._published_eta)
        law = start.noise(-2 * rungs[0].alpha)
        for sigma, alpha, steps in rungs:
            law = law.noise_first(alpha, sigma, steps)
        return law


class AnnealedHalfDenoisingSampler(AlphaHalfDenoisingSampler):
    r"""Annealed half-denoising: half-denoising on each rung of a ladder.

    .. math:: \tilde x = x + \sigma_i n, \quad
        x \leftarrow \tilde x + \tfrac12 \sigma_i^2 s(\tilde x, \sigma_i)

    It was published as unstable. It is not: :math:`\eta = 1/2` is well inside the stable range, and
    this is Algorithm 3 with that step. But the unadjusted walk with so large a step inflates the
    variance by up to a third at every rung, which costs more on multimodal data than it gains.

    Axes: walk with fresh noise, a ladder, the next rung's noise as hand-off, half read-out.

    Source: the report on annealed half-denoising, Algorithm 2.

    The options are those of `LadderSampler` but for the step size, which is fixed.
    """

    source = "Algorithm 2 of the report on annealed half-denoising"
    family = "half-denoising"
    limit = Limit("data", "sigma_min")
    _published_eta = 0.5

    @checked(**LADDER_RULES)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 100,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        return half_variances(sigmas)


def half_variances(sigmas: Sequence[float]) -> list[float]:
    """The step size of half-denoising, ``sigma^2 / 2``, at each level."""
    return [sigma**2 / 2 for sigma in sigmas]
