"""Consistent annealed sampling."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import MAX_LEVELS, POSITIVE, Maybe, OneOf, checked
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import root
from hdzoo.samplers.gaussian import (
    GaussianLaw,
    published_fraction,
    published_ladder,
    published_loss,
    published_moves,
)
from hdzoo.samplers.held_out import SOME_LOSS, loss_at
from hdzoo.samplers.ladders import asked_once, floats, refine_ladder
from hdzoo.samplers.options import LADDER_RULES, READOUT_CHOICES, READOUT_RULES
from hdzoo.samplers.read_out import ReadOutSampler, denoise

OF_WHAT = ("point", "data")


class ConsistentAnnealedSampler(ReadOutSampler):
    r"""Consistent annealed sampling: one evaluation a rung, and the noise that the ladder asks for.

    .. math::
        x \leftarrow x + \eta \sigma_i^2 s(x, \sigma_i) + \beta_i \sigma_{i+1} z, \quad
        \beta_i = \sqrt{1 - \left(\frac{1 - \eta}{\gamma_i}\right)^2}, \quad
        \gamma_i = \frac{\sigma_{i+1}}{\sigma_i}

    and at the end :math:`x + \eta \sigma_L^2 s`, without noise. The ladder is refined to one rung
    for each evaluation. On a single point the noise left is exactly :math:`\sigma_i` at each rung.
    With :math:`\eta = 1 - \gamma` it is DDIM; with :math:`\eta = 1 - \gamma^2`, the default, VE
    ancestral sampling. Data that are no point are left with too little variance, by
    :math:`c(\sigma_i) \eta^2 \sigma_i^2` in each dimension at each step; with
    ``consistent_with="data"`` the noise makes up for it,

    .. math:: \beta_i^2 \sigma_{i+1}^2 = 2 \tau - \Delta_i - q_i \tau^2, \quad
        \tau = \eta \sigma_i^2, \quad \Delta_i = \sigma_i^2 - \sigma_{i+1}^2, \quad
        q_i = (1 - c(\sigma_i)) / \sigma_i^2

    and the total variance is right at each rung, whatever the data, if it is at the first. From the
    network's recorded loss, so that no batch is looked at. The deterministic end of that family is
    ``AnnealedLangevinSampler(hand_off="variance-matched")`` with one step a level.

    Axes: no walk, a ladder refined to the number of evaluations, ancestral hand-off, alpha read-out
    (or the one asked for).

    Source: Jolicoeur-Martineau, Piché-Taillefer, Tachet des Combes, Mitliagkas
    (arXiv 2009.05475), Algorithm 2.

    Args:
        step_size: :math:`\epsilon`, from which :math:`\eta = \epsilon / \sigma_L^2` on every rung,
            within :math:`[1 - \gamma_i, 1 + \gamma_i]`; None for :math:`\eta_i = 1 - \gamma_i^2`.
        readout: None for the last step as published, ``"full"`` for the denoising step instead of
            it (their "denoised" samples), or any other of `AnnealedLangevinSampler`'s.
        readout_steps: as in `AnnealedLangevinSampler`, for ``readout="matrix"``.
        consistent_with: ``"point"``: the noise is what a single point asks for, as published; or
            ``"data"``, what these data ask for by ``held_out_loss``.
        held_out_loss: :math:`c(\sigma) = E |\sigma s + z|^2 / d` as the network records it
            (``unet.config.held_out_loss``), for ``consistent_with="data"`` and the
            variance-matched read-out.

    The other options are those of `LadderSampler`.
    """

    source = "Jolicoeur-Martineau et al. 2021, Algorithm 2"
    family = "ancestral"
    limit = Limit("noisy data", "num_inference_steps")
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        **READOUT_CHOICES,
        "consistent_with": OF_WHAT,
        "held_out_loss": (SOME_LOSS,),
    }

    @checked(
        **LADDER_RULES
        | READOUT_RULES
        | {"step_size": Maybe(POSITIVE), "consistent_with": OneOf(OF_WHAT)}
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 100,
        step_size: float | None = None,
        readout: float | str | None = None,
        readout_steps: int = 2,
        consistent_with: str = "point",
        held_out_loss: dict[str, list[float]] | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        levels = num_inference_steps - self.probes
        if levels < 2:
            needs = f"2, and readout_steps={self.probes} more" if self.probes else "2"
            raise HDZooError(
                f"num_inference_steps is {num_inference_steps}; consistent annealed sampling goes "
                f"from one noise level to another and needs at least {needs}"
            )
        return refine_ladder(self.ladder, levels)

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        levels, step_size = np.asarray(sigmas), self.config.step_size
        ratios = levels[1:] / levels[:-1]
        if step_size is None:
            # The last rung has no next; it steps as the one before.
            ratios = np.append(ratios, ratios[-1:] if len(ratios) else 0.0)
            return floats((1 - ratios**2) * levels**2)
        etas = np.full(len(levels), step_size / levels[-1] ** 2)
        low, high = (1 - ratios) * (1 - 1e-12), (1 + ratios) * (1 + 1e-12)
        outside = np.flatnonzero((etas[:-1] < low) | (etas[:-1] > high))
        if len(outside):
            ratio, eta = ratios[outside[0]], etas[outside[0]]
            raise HDZooError(
                f"step_size gives eta = {eta:g} between noise levels of ratio {ratio:g}; "
                f"consistent annealed sampling needs {1 - ratio:g} <= eta <= {1 + ratio:g}, so "
                f"a step_size from {(1 - ratio) * sigmas[-1] ** 2:g} to "
                f"{(1 + ratio) * sigmas[-1] ** 2:g}{self._enough_steps(eta)}"
            )
        return floats(etas * levels**2)

    def _enough_steps(self, eta: float) -> str:
        """The number of steps that would let one ``eta`` through on every rung, for a message."""

        def fits(num_levels: int) -> bool:
            levels = np.asarray(refine_ladder(self.ladder, num_levels))
            return bool((levels[1:] / levels[:-1]).min() >= abs(1 - eta))

        # A ladder of more levels has ratios nearer to 1.
        most = 2
        while most < MAX_LEVELS and not fits(most):
            most *= 2
        if len(self.ladder) < 2 or most >= MAX_LEVELS:
            return ""
        return f", or at least {bisect_left(range(most), True, lo=2, key=fits)} steps"

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        moves = array("q", counts)
        moves[-1] -= self.probes
        asked_once(moves, "consistent annealed sampling")
        return super().plan(sigmas, counts)

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        kept, spread = (1 - walk.alpha / walk.sigma**2) * walk.sigma / next_walk.sigma, 0.0
        if self.config.consistent_with == "data":
            loss = loss_at(self.config.held_out_loss, walk.sigma)
            spread = loss * (walk.alpha / walk.sigma / next_walk.sigma) ** 2
        return walk._replace(noise=next_walk.sigma * root(1 - kept**2 + spread))

    def read_out(self, walk: Move) -> Move:
        readout = "alpha" if self.config.readout is None else self.config.readout
        return denoise(walk, readout, self.config.held_out_loss)

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        moves = published_moves(self.config, self.num_inference_steps)
        levels = published_ladder(self.config, moves)
        gammas = levels[1:] / levels[:-1]
        epsilon = self.config.step_size
        etas = 1 - gammas**2 if epsilon is None else 0 * gammas + epsilon / levels[-1] ** 2
        law, last = start, levels[-1]
        for sigma, below, eta in zip(levels, levels[1:], etas, strict=False):
            tau, loss = eta * sigma**2, 0.0
            if self.config.consistent_with == "data":
                loss = published_loss(self.config, sigma)
            fresh = 2 * tau - (sigma**2 - below**2) - (1 - loss) * (tau / sigma) ** 2
            law = law.gradient(tau, sigma).noise(np.maximum(0, fresh))
        if self.config.readout is None:
            return law.gradient(etas[-1] * last**2, last)
        fraction = published_fraction(self.config, last, etas[-1] * last**2, start)
        return law.gradient(fraction * last**2, last)
