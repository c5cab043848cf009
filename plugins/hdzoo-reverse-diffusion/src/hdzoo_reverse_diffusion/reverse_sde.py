"""The reverse SDE, variance-exploding or variance-preserving."""

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import Flag, Maybe, Number, OneOf, Rule, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.ladders import asked_once
from hdzoo.samplers.options import LADDER_RULES
from hdzoo.scores.clocks import TimeClock, clock_of
from hdzoo_reverse_diffusion.discretization import (
    PREDICTORS,
    Steps,
    check_levels,
    ve_steps,
    vp_steps,
)
from hdzoo_reverse_diffusion.published import predicted, published_times
from hdzoo_reverse_diffusion.times import EvenTimeSampler, end_of_time

SDES = ("ve", "vp")
SDE_RULES: dict[str, Rule] = {
    **LADDER_RULES,
    "sde": Maybe(OneOf(SDES)),
    "predictor": OneOf(PREDICTORS),
    "denoise": Flag(),
    "sampling_eps": Number(low=0, below=1),
}


class ReverseSDESampler(EvenTimeSampler):
    r"""The reverse SDE, step by step, as the authors of score_sde run it without a corrector.

    One evaluation a step. With :math:`\Delta_k = \sigma_k^2 - \sigma_{k+1}^2` and
    :math:`\beta_k = 1 - (1 + \sigma_{k+1}^2) / (1 + \sigma_k^2)`, and with
    :math:`B_k = g(t_k)^2 / n` the SDE's rate over the number of steps,

    ==================  ====================================  ======================================
    predictor           VE, :math:`x`                         VP, :math:`y = x / \sqrt{1+\sigma^2}`
    ==================  ====================================  ======================================
    reverse-diffusion   :math:`x + \Delta s                   :math:`(2 - \sqrt{1 - \beta}) y
                        + \sqrt\Delta z`                      + \beta s_y + \sqrt\beta z`
    euler-maruyama      :math:`x + B s + \sqrt B z`           :math:`(1 + B / 2) y + B s_y
                                                              + \sqrt B z`
    ancestral           :math:`x + \Delta s + \sqrt\Delta     :math:`(y + \beta s_y)
                        (\sigma_{k+1} / \sigma_k) z`          / \sqrt{1 - \beta} + \sqrt\beta z`
    ==================  ====================================  ======================================

    Here :math:`s_y = \sqrt{1 + \sigma^2} s` is the score in VP coordinates. Either SDE runs on a
    network of either kind.

    The network is asked at even times: of the VE SDE in :math:`\log \sigma`, of a network that is
    told the number of a level or the time in that. Of the VE SDE it is asked at times from 1 to
    :math:`\epsilon`, and the steps are between those from 1 to 0, as in score_sde; of a network
    that is told the time, :math:`\beta_k` is that time's rate over ``n``, as there. Ancestral
    steps of the VE SDE are DDPM's with its small variance, on a network of either kind; those of
    the VP SDE are DDPM's with its large one.

    Axes: no walk, a ladder refined to the number of evaluations, hand-off by the reverse SDE, a
    read-out that leaves out the last noise, or none.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), equations 6, 9 and
    11, and appendices E and F.

    Args:
        sigma_max: the first level.
        sigma_min: the last level above 0.
        sigmas: an explicit ladder instead, descending, on whose curve the levels are put.
        sde: ``"ve"`` or ``"vp"``; None for the coordinates that the network is in.
        predictor: one of the table's.
        denoise: whether the last step adds no noise (``noise_removal``).
        sampling_eps: :math:`\epsilon`; :math:`10^{-5}` is score_sde's on VE networks.

    The other options are those of `RefinedLadderSampler`; 1,000 evaluations are as published.

    Raises:
        HDZooError: an option is out of its range, fewer than 2 levels are asked for, a level is
            repeated, or the levels are too few for rates over ``n``.
    """

    source = "Song et al. 2021, eq. 6"
    family = "SDE"
    limit = Limit("data", "sigma_min")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "sde": (None, *SDES),
        "predictor": PREDICTORS,
        "denoise": (True, False),
        "sampling_eps": (1e-5, 0.0, 0.01),
    }

    @checked(**SDE_RULES)
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
        num_steps: int = 200,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @property
    def sde(self) -> str:
        """``"ve"`` or ``"vp"``."""
        return str(self.config.sde or self.config.get("coordinates", "ve"))

    @property
    def clock(self) -> TimeClock | None:
        """Of a network that is told the time, and asked evenly in it."""
        clock = clock_of(self.config)
        return clock if isinstance(clock, TimeClock) and self.config.sigmas is None else None

    def steps(self, sigmas: Sequence[float]) -> Steps:
        """The predictor's, in VE coordinates."""
        check_levels(sigmas)
        kind, eps = self.config.predictor, end_of_time(self.config, sigmas)
        if self.sde == "ve":
            return ve_steps(kind, sigmas, eps)
        return vp_steps(kind, sigmas, eps, self.clock).in_ve(sigmas, "vp")

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        asked_once(counts, "the reverse SDE")
        steps = self.steps(sigmas)
        if self.config.denoise:
            steps.noise[-1] = 0
        self.keeps = steps.keep.tolist()
        rows = zip(sigmas, steps.push.tolist(), steps.noise.tolist(), strict=True)
        return [Move(*row) for row in rows]

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        law, levels = start, published_times(self.config, self.num_inference_steps)
        for k in range(len(levels)):
            law = predicted(law, self.config, self.sde, k, levels)
        return law
