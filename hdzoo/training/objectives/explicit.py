"""Explicit score matching: where the score is known."""

from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.checks import refuse
from hdzoo.errors import HDZooError
from hdzoo.training.objectives.base import Network, NoisyObjective
from hdzoo.training.objectives.derivatives import Score


class Explicit(NoisyObjective):
    """`explicit_score_matching`, of a registered target whose samples the images are.

    Args:
        target: its registered name, such as ``"digits-empirical"``.
    """

    def __init__(self, target: str | None = None) -> None:
        if not isinstance(target, str):
            refuse(
                "target",
                target,
                "the registered name of a law whose noisy score is known, such as "
                "'digits-empirical': give objective_options, --objective-option target=NAME",
            )
        self.law: Any = plugins.get("targets", target)()
        self.name = target

    def check(self, network: ModelMixin, config: Any) -> None:
        super().check(network, config)
        side, channels = network.config.sample_size, network.config.in_channels
        drawn, shown = tuple(self.law.sample_shape), (channels, side, side)
        if drawn != shown:
            raise HDZooError(
                f"samples of the target {self.name!r} have the shape {drawn}, and the network is "
                f"for {shown}; choose a target that the images are samples of"
            )

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        self.law = self.law.to(clean.device)
        noisy = clean + sigmas.view(-1, 1, 1, 1) * noise
        known = self.law.score(noisy, sigmas)
        return explicit_score_matching(network.score_at(sigmas), noisy, known)


def explicit_score_matching(score: Score, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    r"""Explicit score matching: half the squared error of the score, of each sample.

    .. math:: \tfrac12 \| s(x) - \nabla \log p(x) \|^2

    Source: Hyvärinen (JMLR 6, 2005), section 2.

    Args:
        score: ``s``.
        x: samples, shape (batch, ...).
        known: their score, same shape.

    Returns:
        Shape (batch,).
    """
    return 0.5 * (score(x) - known).square().flatten(1).sum(1)
