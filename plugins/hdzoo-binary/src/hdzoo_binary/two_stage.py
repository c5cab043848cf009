"""Discrete Langevin dynamics in two stages."""

from collections.abc import Sequence

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.noise import Noise
from hdzoo_binary.signs import draw_signs, jump, posterior_mean
from hdzoo_binary.walk import SignsWalk, too_few


class TwoStageDiscreteLangevinSampler(SignsWalk):
    r"""Discrete Langevin dynamics on the noisy signs in two stages.

    First noise, then all signs anew given it:

    .. math::
        P(z_i = 1) &= \mathrm{sigmoid}(y_i / \alpha) \\
        P(y'_i = 1) &= \mathrm{sigmoid}(2 s_i(z) + z_i / \alpha)

    That is a Gibbs sampler of :math:`q(y)\, e^{y \cdot z / 2 \alpha}`, with :math:`\log q` expanded
    at :math:`z`. So on independent signs it is exact at every step size, however large, with
    ``score="difference"``, where one stage is biased at all of them; on others as :math:`\alpha`
    goes to 0.

    The network is asked at :math:`z`. The first evaluation is at the first :math:`y`, and what it
    predicts is not needed; so ``n`` evaluations are ``n - 1`` steps, ``n - 2`` and a jump with
    ``jump``. In the paper the step is :math:`\eta = 2 \alpha`.

    Axes: walk on signs, one rung, no hand-off; the read-out is an option (``jump``).

    Source: Bach and Saremi (arXiv 2502.00557), the two-stage sampler.

    The options are those of `SignsWalk`.

    Raises:
        HDZooError: an option is out of its range, or fewer than 2 evaluations are asked for.
    """

    source = "Bach and Saremi 2025"
    limit = Limit("noisy data", "num_inference_steps")
    leaves_invariant = "noisy data"

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if sum(counts) < 2:
            raise too_few(self, sum(counts), 2, "the first is at the first state")
        return super().plan(sigmas, counts)

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        alpha, mean = self.moves[k].alpha, posterior_mean(x, score, self.levels[k])
        if self.jumps_at(k):
            return jump(mean, self.config.jump, noise)
        y = draw_signs(2 * self.score_of(x, mean) + x / alpha, noise) if k else x
        last = k + 2 if self.config.jump else k + 1
        return draw_signs(y / alpha, noise) if self.levels[last] else y
