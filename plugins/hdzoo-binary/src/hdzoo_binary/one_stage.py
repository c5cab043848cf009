"""Discrete Langevin dynamics in one stage, with and without an accept test."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.noise import Noise
from hdzoo_binary.signs import draw_signs, jump, posterior_mean
from hdzoo_binary.walk import SignsWalk, too_few


class DiscreteLangevinSampler(SignsWalk):
    r"""Discrete Langevin dynamics on the noisy signs (DULA, unadjusted).

    A Langevin step, :math:`N(y + \alpha s, 2 \alpha)`, restricted to signs: each is drawn anew,

    .. math:: P(y'_i = 1) = \mathrm{sigmoid}(s_i(y) + y_i / \alpha).

    So a sign is turned over about once in :math:`e^{1 / \alpha}` steps. It is biased: on
    independent signs of log odds :math:`2 b` its stationary odds are

    .. math::
        \frac{\mathrm{sigmoid}(b - 1 / \alpha)}{\mathrm{sigmoid}(-b - 1 / \alpha)},

    :math:`e^{b}` where :math:`\alpha` is large, :math:`e^{2 b}` in the limit where it is small. In
    that limit it is exact on any law with ``score="difference"``, and on log-quadratic ones with
    ``score="gradient"``, as published.

    With :math:`s` one of the two scores of `hdzoo_binary.signs.signs_score`. In the papers the step
    is :math:`\eta = 2 \alpha`; for data in {0, 1}, :math:`\alpha / 2`.

    Axes: walk on signs, one rung, no hand-off; the read-out is an option (``jump``).

    Source: Zhang, Liu and Liu (arXiv 2206.09914), equation 4; Bach and Saremi (arXiv 2502.00557).

    Args:
        step_size: :math:`\alpha`; 0.4 by default, Zhang et al.'s 0.2 on {0, 1}.

    The other options are those of `SignsWalk`.
    """

    source = "Zhang et al. 2022"
    limit = Limit("noisy data", "step_size")

    def default_step_size(self, sigma: float) -> float:
        return 0.4

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        mean = posterior_mean(x, score, self.levels[k])
        if self.jumps_at(k):
            return jump(mean, self.config.jump, noise)
        return draw_signs(self.score_of(x, mean) + x / self.moves[k].alpha, noise)


class DiscreteMALASampler(SignsWalk):
    r"""Discrete Langevin dynamics with an accept test of each step (DMALA).

    The step of `DiscreteLangevinSampler`, of probability :math:`t(y' | y)`, is a proposal, which is
    accepted with probability

    .. math:: \min \left(1, \frac{q(y')\, t(y | y')}{q(y)\, t(y' | y)} \right),

    so that the noisy signs are left as they are, exactly, at every step size. :math:`q(y') / q(y)`
    is from the energy of a network that gives one, as exact targets do. Of other networks it is the
    trapezoid of the scores, :math:`\frac12 (y' - y) \cdot (s(y) + s(y'))`, exact for independent
    signs with ``score="difference"``.

    The state that a pipeline carries is the proposal; what is accepted is in ``memory``, and
    returned, or jumped from, by the last evaluation. So ``n`` evaluations are ``n - 1`` proposals.

    Axes: adjusted walk on signs, one rung, no hand-off; the read-out is an option (``jump``).

    Source: Zhang, Liu and Liu (arXiv 2206.09914), section 4.2.

    Args:
        step_size: :math:`\alpha`; 0.4 by default, Zhang et al.'s 0.2 on {0, 1}.

    The other options are those of `SignsWalk`.
    """

    source = "Zhang et al. 2022"
    limit = Limit("noisy data", "num_inference_steps")
    leaves_invariant = "noisy data"
    uses: ClassVar[Sequence[str]] = ("energy",)

    def default_step_size(self, sigma: float) -> float:
        return 0.4

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if sum(counts) < 2:
            raise too_few(self, sum(counts), 2, "one at the first state and one at the proposal")
        return super().plan(sigmas, counts)

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        alpha, mean = self.moves[k].alpha, posterior_mean(x, score, self.levels[k])
        asked = {"x": x, "mean": mean, "score": self.score_of(x, mean), **self.extras}
        # The first state is compared with itself, and so accepted.
        kept = self.memory or asked
        accept = noise.uniform(x.shape[:1]).log() < log_acceptance(kept, asked, alpha)
        self.memory = {
            name: torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, kept[name])
            for name, new in asked.items()
        }
        if self.levels[k + 1]:
            return draw_signs(self.memory["score"] + self.memory["x"] / alpha, noise)
        if self.config.jump is None:
            return self.memory["x"]
        return jump(self.memory["mean"], self.config.jump, noise)


def log_acceptance(old: dict[str, Any], new: dict[str, Any], alpha: float) -> torch.Tensor:
    r"""The logarithm of :math:`q(y') t(y | y') / q(y) t(y' | y)`.

    Args:
        old: ``x``, signs of shape (batch, ...), and their ``score``; ``energy`` of shape (batch,),
            or none for the trapezoid of the scores.
        new: the same of the proposal.
        alpha: the step size.

    Returns:
        Shape (batch,).
    """

    def log_proposal(start: dict[str, Any], end: dict[str, Any]) -> torch.Tensor:
        logits = start["score"] + start["x"] / alpha
        return torch.nn.functional.logsigmoid(end["x"] * logits).flatten(1).sum(1)

    if "energy" in new:
        gain = old["energy"] - new["energy"]
    else:
        trapezoid = (new["x"] - old["x"]) * (old["score"] + new["score"]) / 2
        gain = trapezoid.flatten(1).sum(1)
    return gain + log_proposal(new, old) - log_proposal(old, new)
