"""Langevin dynamics with a test of each step that makes it exact."""

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.noise import Noise


class MALASampler(SingleLevelSampler):
    r"""Metropolis-adjusted Langevin algorithm (MALA) on :math:`p_\sigma`.

    A Langevin step proposes :math:`y = x + \alpha s(x, \sigma) + \sqrt{2 \alpha} z`, of density
    :math:`q(y | x)`. Each sample accepts its own with probability

    .. math:: \min \left( 1, \frac{p_\sigma(y)\, q(x | y)}{p_\sigma(x)\, q(y | x)} \right)

    and stays at :math:`x` otherwise. So :math:`p_\sigma` is left as it is by every step, exactly,
    whatever :math:`\alpha` is.

    :math:`p_\sigma(y) / p_\sigma(x)` is :math:`e^{E(x) - E(y)}` where the network gives its energy
    :math:`E` beside its prediction (``provides``), as `hdzoo.targets` do. Of other networks it is
    taken by the trapezoid of the scores,

    .. math:: \log \frac{p_\sigma(y)}{p_\sigma(x)} \approx
        \tfrac12 (y - x) \cdot (s(x, \sigma) + s(y, \sigma)),

    which leaves :math:`\min(1, e^{(|s(x)|^2 - |s(y)|^2) \alpha / 4})` to accept with. That is exact
    where the score is affine, on Gaussian data; elsewhere, and on a learned score, it makes the
    bias smaller and not 0.

    The state that a pipeline carries is the proposal, where the score is asked, and denoised states
    along the way are of proposals; what is accepted is in ``memory``, and returned by the last
    evaluation. The first is at the first state, so that ``n`` evaluations are ``n - 1`` proposals.

    Axes: adjusted walk, one rung, no hand-off, no read-out.

    Source: Besag (1994), in the discussion of Grenander and Miller; Roberts and Tweedie (1996).

    Args:
        step_size: :math:`\alpha`; :math:`1.36\, \sigma^2 d^{-1/3}` by default, ``d`` numbers in a
            sample: where the data have no width it accepts 57 %, the best rate as ``d`` grows
            (Roberts and Rosenthal 1998), and more where they have.

    The other options are those of `SingleLevelSampler`.

    Raises:
        HDZooError: the noise level or the step size is not positive, or fewer than 2 evaluations
            are asked for.
    """

    source = "Roberts and Tweedie 1996"
    limit = Limit("noisy data", "num_inference_steps")
    leaves_invariant = "noisy data"
    uses = ("energy",)

    def default_step_size(self, sigma: float) -> float:
        return 1.36 * sigma**2

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if sum(counts) < 2:
            raise HDZooError(
                f"num_inference_steps is {sum(counts)}; MALA needs at least 2, one at the first "
                "state and one at what is proposed there"
            )
        return super().plan(sigmas, counts)

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        alpha = self.moves[k].alpha
        if self.config.step_size is None:
            alpha *= x[0].numel() ** (-1 / 3)
        asked = {"x": x, "score": score, **self.extras}
        # The first state is compared with itself, and so accepted.
        kept = self.memory or asked
        accept = noise.uniform(x.shape[:1]).log() < log_acceptance(kept, asked, alpha)
        self.memory = {
            name: torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, kept[name])
            for name, new in asked.items()
        }
        if not self.levels[k + 1]:
            return self.memory["x"]
        step = alpha * self.memory["score"] + math.sqrt(2 * alpha) * noise.normal(x.shape)
        return self.memory["x"] + step


def log_acceptance(
    old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor], alpha: float
) -> torch.Tensor:
    r"""The logarithm of :math:`p(y) q(x | y) / p(x) q(y | x)` for Langevin proposals.

    With :math:`\delta = y - x`, :math:`\log q(x | y) / q(y | x)` is
    :math:`-\frac12 \delta \cdot (s(x) + s(y)) - \frac14 \alpha (|s(y)|^2 - |s(x)|^2)`.

    Args:
        old: ``x``, the point, and ``score``, both of shape (batch, ...); ``energy`` of shape
            (batch,), or none for the trapezoid of the scores.
        new: the same of the proposal ``y``.
        alpha: the step size.

    Returns:
        Shape (batch,).
    """
    total = old["score"] + new["score"]
    log_ratio = -alpha / 4 * (total * (new["score"] - old["score"])).flatten(1).sum(1)
    if "energy" in new:
        trapezoid = (total * (new["x"] - old["x"])).flatten(1).sum(1) / 2
        log_ratio = log_ratio + old["energy"] - new["energy"] - trapezoid
    return log_ratio
