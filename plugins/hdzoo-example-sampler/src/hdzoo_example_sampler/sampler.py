"""Deterministic DDIM on a noise ladder."""

from collections.abc import Sequence

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import LadderSampler
from hdzoo.samplers.gaussian import GaussianLaw, published_ladder
from hdzoo.samplers.ladders import asked_once, refine_ladder


class ExampleDDIMSampler(LadderSampler):
    r"""Deterministic DDIM: one evaluation a rung, and no noise but that of the start.

    .. math:: x \leftarrow x + \sigma_i (\sigma_i - \sigma_{i+1}) s(x, \sigma_i), \quad
        \sigma_{L+1} = 0

    The Euler step in :math:`\sigma` of the probability-flow ODE; the last is the denoising step. On
    Gaussian data of variance :math:`s^2`, with :math:`V_i = s^2 + \sigma_i^2`, a state of variance
    :math:`v` goes to one of variance :math:`(1 - \sigma_i (\sigma_i - \sigma_{i+1}) / V_i)^2 v`.

    Axes: no walk, a ladder refined to the number of evaluations, ODE hand-off, full read-out.

    Source: Song, Meng, Ermon (arXiv 2010.02502), equation 13, with :math:`\sigma_t = 0`.

    Args:
        num_levels: levels of the ladder, and network evaluations when no number is asked for.

    The other options are those of `LadderSampler`; there is no step size to choose.
    """

    source = "Song, Meng and Ermon 2021, eq. 13"
    family = "ODE"
    limit = Limit("data", "sigma_min")

    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 50,
        sigmas: list[float] | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @property
    def default_num_inference_steps(self) -> int:
        return len(self.ladder)

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        # The chain starts at the largest noise level, however few its steps.
        if num_inference_steps == 1:
            return self.ladder[:1]
        return refine_ladder(self.ladder, num_inference_steps)

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        pairs = zip(sigmas, [*sigmas[1:], 0.0], strict=True)
        return [sigma * (sigma - following) for sigma, following in pairs]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        asked_once(counts, "DDIM")
        return super().plan(sigmas, counts)

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        return walk._replace(noise=0.0)

    def read_out(self, walk: Move) -> Move:
        return walk._replace(noise=0.0)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        levels = published_ladder(self.config, self.num_inference_steps).tolist()
        law = start
        for sigma, below in zip(levels, [*levels[1:], 0.0], strict=True):
            law = law.contract(1 - sigma * (sigma - below) / law.total(sigma))
        return law
