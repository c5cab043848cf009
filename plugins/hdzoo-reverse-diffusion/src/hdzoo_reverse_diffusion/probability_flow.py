"""The probability-flow ODE by Euler's method."""

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import OneOf, checked
from hdzoo.samplers.base import Limit
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo_reverse_diffusion.discretization import Steps
from hdzoo_reverse_diffusion.published import flowed, published_times
from hdzoo_reverse_diffusion.reverse_sde import SDE_RULES, ReverseSDESampler

FLOWS = ("euler-maruyama", "reverse-diffusion")


class ProbabilityFlowSampler(ReverseSDESampler):
    r"""The probability-flow ODE by Euler's method: the reverse SDE with half the score, no noise.

    In the letters of `ReverseSDESampler`, a step is

    ==================  ================================  ==========================================
    predictor           VE                                VP
    ==================  ================================  ==========================================
    euler-maruyama      :math:`x + \tfrac12 B s`          :math:`(1 + B / 2) y + \tfrac12 B s_y`
    reverse-diffusion   :math:`x + \tfrac12 \Delta s`     :math:`(2 - \sqrt{1 - \beta}) y
                                                          + \tfrac12 \beta s_y`
    ==================  ================================  ==========================================

    The first is Euler's method in the SDE's time; the second, of the VE SDE, is Euler's in the
    variance, the half-denoising of :math:`\Delta`. With ``denoise`` the last step is the denoising
    step :math:`x + \sigma_L^2 s` in place of that.

    Axes: no walk, a ladder refined to the number of evaluations, ODE hand-off, full read-out, or
    that of the ODE.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), equation 13 and
    section D.3; ``probability_flow`` in their code.

    Args:
        predictor: one of the table's.
        denoise: whether the last step denoises.

    The other options are those of `ReverseSDESampler`.

    Raises:
        HDZooError: as for `ReverseSDESampler`.
    """

    source = "Song et al. 2021, eq. 13"
    family = "ODE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        **ReverseSDESampler.option_choices,
        "predictor": FLOWS,
    }

    @checked(**SDE_RULES | {"predictor": OneOf(FLOWS)})
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        sde: str | None = None,
        predictor: str = "euler-maruyama",
        denoise: bool = True,
        sampling_eps: float = 1e-5,
        num_steps: int = 50,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def steps(self, sigmas: Sequence[float]) -> Steps:
        steps = super().steps(sigmas)
        push, noise = steps.push / 2, 0 * steps.noise
        if self.config.denoise:
            steps.keep[-1], push[-1] = 1, sigmas[-1] ** 2
        return Steps(steps.keep, push, noise)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        law, levels = start, published_times(self.config, self.num_inference_steps)
        for k in range(len(levels)):
            law = flowed(law, self.config, self.sde, k, levels)
        return law
