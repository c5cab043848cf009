"""The Ornstein-Uhlenbeck process, backwards."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import Flag, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.gaussian import GaussianLaw, trained_at
from hdzoo.samplers.ladders import asked_once, check_ladder
from hdzoo.samplers.options import LADDER_RULES
from hdzoo_reverse_diffusion.discretization import Steps
from hdzoo_reverse_diffusion.published import vp_step
from hdzoo_reverse_diffusion.times import EvenTimeSampler


class OrnsteinUhlenbeckSampler(EvenTimeSampler):
    r"""The Ornstein-Uhlenbeck process backwards, by Euler's scheme.

    Forwards, :math:`dy = -y\, dt + \sqrt 2\, dw` takes the data at :math:`t = 0` to nearly
    :math:`N(0, I)` at :math:`t = T`; with :math:`r_t` the law there, :math:`K` steps of
    :math:`\gamma = T / K` at :math:`t_k = T - k \gamma` lead back,

    .. math::
        y \leftarrow y + \gamma y + 2 \gamma \nabla \log r_{t_k}(y) + \sqrt{2 \gamma}\, z.

    :math:`y = e^{-t} x` with noise level :math:`\sigma = \sqrt{e^{2t} - 1}`, and
    :math:`\nabla \log r_t(y) = e^t s(x, \sigma)`. The score is asked last at
    :math:`t = \gamma`, and the end has the last noise still, of variance :math:`2 \gamma`. With
    ``denoise`` the last step is the denoising step instead, :math:`x + \sigma^2 s`.

    The first state is drawn at noise level ``sigma_max``, that is of variance
    :math:`1 - e^{-2T}` about the data's centre; the published one has 1.

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by the reverse SDE, no
    read-out, or full.

    Source: the time reversal of Anderson (1982) and Haussmann and Pardoux (1986), in Euler's
    scheme as in Bach's lectures on sampling by denoising.

    Args:
        sigma_max: the noise level at :math:`T = \frac12 \log(1 + \sigma^2)`.
        denoise: whether the last step denoises.
        num_steps: :math:`K`, when no number is asked for.
        start: the law of the first state, as in `LadderSampler`.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: an option is out of its range, or a schedule of one's own repeats a level.
    """

    source = "Anderson 1982"
    family = "SDE"
    limit = Limit("data", "num_inference_steps")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {"denoise": (False, True)}

    @checked(**LADDER_RULES, denoise=Flag())
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        denoise: bool = False,
        num_steps: int = 200,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def ladder_of(self, num_levels: int) -> list[float]:
        return check_ladder([self.config.sigma_max])

    def rungs(self, num_inference_steps: int) -> list[float]:
        (sigma,), left = self.ladder, np.arange(num_inference_steps, 0, -1) / num_inference_steps
        return np.sqrt(np.expm1(left * np.log1p(sigma**2))).tolist()

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        asked_once(counts, "the Ornstein-Uhlenbeck process backwards")
        gamma = -np.diff(np.log1p(np.square(sigmas)), append=0.0) / 2
        steps = Steps(1 + gamma, 2 * gamma, np.sqrt(2 * gamma)).in_ve(sigmas, "vp")
        self.keeps, rows = steps.keep.tolist(), [*zip(sigmas, *steps[1:], strict=True)]
        if self.config.denoise:
            self.keeps[-1], rows[-1] = 1.0, (sigmas[-1], sigmas[-1] ** 2, 0.0)
        return [Move(*map(float, row)) for row in rows]

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        steps, end = self.num_inference_steps, np.log(1 + self.config.sigma_max**2) / 2
        levels = np.sqrt(np.exp(2 * np.linspace(end, 0, steps, endpoint=False)) - 1)
        levels = np.append(trained_at(self.config, levels), 0.0)
        law, t = start, np.log(1 + levels**2) / 2
        for k, gamma in enumerate(t[:-1] - t[1:]):
            if self.config.denoise and k == steps - 1:
                return law.contract(start.data_variance / start.total(levels[k]))
            law = vp_step(law, (levels[k], levels[k + 1]), 1 + gamma, 2 * gamma, 2 * gamma)
        return law
