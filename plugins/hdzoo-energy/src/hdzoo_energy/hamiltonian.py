"""Hamiltonian dynamics with a test of where it leads: HMC, and underdamped Langevin made exact."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import HDZooError
from hdzoo.checks import COUNT, POSITIVE, OneOf, checked
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import SINGLE_LEVEL_RULES
from hdzoo.samplers.underdamped import FRICTION_UNITS


class HMCSampler(SingleLevelSampler):
    r"""Hamiltonian Monte Carlo (hybrid Monte Carlo) on :math:`p_\sigma`.

    The state has a momentum :math:`v \sim N(0, I)`, drawn anew for each trajectory. With
    :math:`\delta = \sqrt{2 \alpha}`, a trajectory is ``leapfrog_steps`` times

    .. math::
        v &\leftarrow v + \tfrac12 \delta s(x, \sigma) \\
        x &\leftarrow x + \delta v \\
        v &\leftarrow v + \tfrac12 \delta s(x, \sigma)

    which is reversible and keeps volumes. Each sample accepts where its own leads,
    :math:`(x', v')`, with probability

    .. math:: \min \left( 1, e^{H(x, v) - H(x', v')} \right), \quad
        H(x, v) = E(x) + \tfrac12 |v|^2,

    :math:`E = -\log p_\sigma` up to a constant, and stays at :math:`x` otherwise. So
    :math:`p_\sigma` is left as it is, exactly, whatever :math:`\alpha` is; a trajectory that
    diverges is one that is not accepted. It takes a network that gives its energy
    (``provides``); the score must be that of the energy, :math:`-\nabla E`, for the trajectories to
    go anywhere, and need not be for the law to be exact.

    A leapfrog step is one evaluation. The first evaluation is at the first state, so that ``n`` of
    them are ``n - 1`` leapfrog steps; where those do not make whole trajectories the last one is
    shorter, with its own test. The state that a pipeline carries is the point of the trajectory
    where the network is asked, and denoised states along the way are of such points; the accepted
    one is in ``memory``, with the number of trajectories ``accepted`` so far, and is what the last
    evaluation returns.

    On Gaussian data, in a direction of variance :math:`V`, leapfrog is stable for
    :math:`\alpha < 2 V` and keeps :math:`\tfrac12 v^2 + \tfrac12 (1 - \alpha / 2V) x^2 / V`
    exactly. A trajectory as long as half of the period there, :math:`\pi \sqrt V`, leads to the
    mirror image of where it began: of data of one width :math:`\delta` times ``leapfrog_steps``
    should be well below that.

    With ``leapfrog_steps=1`` it is `MALASampler` on a network that gives its energy.

    Axes: adjusted walk along trajectories, one rung, no hand-off, no read-out.

    Source: Duane, Kennedy, Pendleton and Roweth (Physics Letters B 195, 1987); Neal (2011, arXiv
    1206.1901), whose :math:`\epsilon` is :math:`\delta`, with unit masses.

    Args:
        step_size: :math:`\alpha = \delta^2 / 2`; :math:`\sigma^2 d^{-1/2}` by default, ``d``
            numbers in a sample: where the data have no width, and a trajectory ends a quarter of a
            period away, it accepts 80 % as ``d`` grows, and else more. The best rate as ``d`` grows
            is 65 % (Beskos et al. 2013).
        leapfrog_steps: of a trajectory, evaluations each, from 1.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level or the step size is not positive, or fewer than 2 evaluations
            are asked for.
    """

    source = "Duane et al. 1987; Neal 2011"
    family = "Hamiltonian"
    limit = Limit("noisy data", "num_inference_steps")
    leaves_invariant = "noisy data"
    needs: ClassVar[Sequence[str]] = ("energy",)
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {"leapfrog_steps": (1, 2, 5, 20)}

    @checked(**SINGLE_LEVEL_RULES, leapfrog_steps=COUNT)
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        leapfrog_steps: int = 5,
        num_steps: int = 51,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return sigma**2

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if sum(counts) < 2:
            raise HDZooError(
                f"num_inference_steps is {sum(counts)}; {type(self).__name__} needs at least 2, "
                "one at the first state and one at what is proposed from there"
            )
        return super().plan(sigmas, counts)

    def dynamics(self, k: int, dimension: int) -> tuple[float, int, float]:
        """The length of a leapfrog step, how many are a trajectory, and what a momentum keeps of
        itself from one trajectory to the next.

        Args:
            k: the number of the evaluation.
            dimension: the numbers in a sample.
        """
        shrunk = dimension**-0.5 if self.config.step_size is None else 1
        return math.sqrt(2 * self.moves[k].alpha * shrunk), self.config.leapfrog_steps, 0.0

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        delta, steps, keep = self.dynamics(k, x[0].numel())
        asked = {"x": x, "score": score, **self.extras}
        if not self.memory:
            count = torch.zeros_like(self.extras["energy"])
            self.memory = asked | {"momentum": noise.normal(x.shape), "accepted": count}
        else:
            asked["momentum"] = self.memory.pop("velocity") + delta / 2 * score
            if k % steps and self.levels[k + 1]:
                self.memory["velocity"] = asked["momentum"] + delta / 2 * score
                return x + delta * self.memory["velocity"]
            self.memory = accepted(self.memory, asked, noise)
            fresh = math.sqrt(1 - keep**2) * noise.normal(x.shape)
            self.memory["momentum"] = keep * self.memory["momentum"] + fresh
        if not self.levels[k + 1]:
            return self.memory["x"]
        self.memory["velocity"] = self.memory["momentum"] + delta / 2 * self.memory["score"]
        return self.memory["x"] + delta * self.memory["velocity"]


class AdjustedUnderdampedLangevinSampler(HMCSampler):
    r"""Underdamped Langevin dynamics on :math:`p_\sigma` with a test of each step.

    Generalised Hamiltonian Monte Carlo: of its momentum the state keeps a part from one leapfrog
    step to the next. With :math:`\delta = \sqrt{2 \alpha}` and :math:`v \sim N(0, I)` at first,

    .. math::
        v &\leftarrow e^{-\gamma} v + \sqrt{1 - e^{-2 \gamma}}\, z \\
        (x', v') &= \text{one leapfrog step from } (x, v) \\
        (x, v) &\leftarrow (x', v') \text{ with probability }
            \min(1, e^{H(x, v) - H(x', v')}), \text{ else } (x, -v)

    with :math:`H` and leapfrog as in `HMCSampler`. Where a step is not accepted the momentum is
    turned round; otherwise :math:`p_\sigma` would not be left as it is. Then the state goes back
    the way that it came, so a walk with little friction needs steps of which nearly all are
    accepted. Without the test it is the splitting OBABO, which differs from that of
    `UnderdampedLangevinSampler` by where a step begins.

    A step is one evaluation, the first of which is at the first state. The state that a pipeline
    carries is the proposal, as in `HMCSampler`.

    Beyond all friction it is `MALASampler`, on a network that gives its energy.

    Axes: adjusted underdamped walk, one rung, no hand-off, no read-out.

    Source: Horowitz (Physics Letters B 268, 1991); as a splitting of underdamped Langevin dynamics,
    Bou-Rabee and Vanden-Eijnden (2010).

    Args:
        step_size: :math:`\alpha`; :math:`\tfrac12 \sigma^2 d^{-1/3}` by default, ``d`` numbers in a
            sample: where the data have no width it accepts 90 % as ``d`` grows, and more where they
            have.
        friction: :math:`\gamma`, positive.
        friction_per: ``"step"``: the momentum keeps :math:`e^{-\gamma}` of itself from step to
            step, whatever their length; ``"time"``: :math:`e^{-\gamma \delta}`.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level, the step size or the friction is not positive, or fewer than 2
            evaluations are asked for.
    """

    source = "Horowitz 1991"
    family = "Langevin"
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "friction": (0.1, 0.5, 1.0, 3.0, 100.0),
        "friction_per": FRICTION_UNITS,
    }

    @checked(**SINGLE_LEVEL_RULES, friction=POSITIVE, friction_per=OneOf(FRICTION_UNITS))
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        friction: float = 0.5,
        friction_per: str = "step",
        num_steps: int = 51,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 2

    def dynamics(self, k: int, dimension: int) -> tuple[float, int, float]:
        shrunk = dimension ** (-1 / 3) if self.config.step_size is None else 1
        delta = math.sqrt(2 * self.moves[k].alpha * shrunk)
        time = delta if self.config.friction_per == "time" else 1
        return delta, 1, math.exp(-self.config.friction * time)


def accepted(
    start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], noise: Noise
) -> dict[str, torch.Tensor]:
    r"""Where a trajectory ended, with probability :math:`\min(1, e^{H - H'})`, else where it began
    with the momentum turned round; each sample's by itself.

    Args:
        start: ``energy`` of shape (batch,), ``momentum`` of shape (batch, ...), and what else there
            is of the point; ``accepted`` of shape (batch,), how often it was before.
        end: the same there, but for ``accepted``. An energy that is no number is not accepted.
        noise: what decides.
    """

    def total(at: dict[str, torch.Tensor]) -> torch.Tensor:
        return at["energy"] + at["momentum"].square().flatten(1).sum(1) / 2

    accept = noise.uniform(start["energy"].shape).log() < total(start) - total(end)
    turned = start | {"momentum": -start["momentum"]}
    counted = end | {"accepted": start["accepted"] + 1}
    return {
        name: torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, turned[name])
        for name, new in counted.items()
    }
