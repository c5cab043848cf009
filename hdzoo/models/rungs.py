"""Noise levels as class indices: what networks that know only the rungs of a ladder share."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from hdzoo.bundled import LoadedByName
from hdzoo.checks import HIGHEST_NOISE, Number, as_float64
from hdzoo.errors import HDZooError
from hdzoo.models.inputs import noise_levels
from hdzoo.scores.denoising import Denoises


def noise_ladder(
    sigma_max: float, sigma_min: float, num_levels: int, levels: Sequence[float] | None = None
) -> list[float]:
    """The noise levels of a network, in descending order.

    Args:
        sigma_max: largest level.
        sigma_min: smallest level.
        num_levels: number of levels.
        levels: the levels themselves, in place of the geometric sequence that the rest defines.

    Raises:
        HDZooError: the levels are not positive and strictly descending.
    """
    if levels is None and sigma_max > 0 and num_levels > 1:
        ratio, last = max(sigma_min, 0) / sigma_max, num_levels - 1
        levels = [sigma_max * ratio ** (i / last) for i in range(num_levels)]
    ladder = [float(sigma) for sigma in levels or ()]
    descending = all(high > low for high, low in pairwise(ladder))
    if not ladder or not descending or not ladder[-1] > 0:
        raise HDZooError(
            f"the noise levels {ladder[:3]}...{ladder[-1:]} (sigma_max {sigma_max:g}, sigma_min "
            f"{sigma_min:g}, num_levels {num_levels}) must be positive and strictly descending; "
            "give sigma_max > sigma_min > 0 and num_levels >= 2, or a descending sigma_levels"
        )
    return ladder


# 0 goes to the last rung.
LEVEL_OR_0 = Number(0, HIGHEST_NOISE)


class LadderModel(Denoises, LoadedByName, ModelMixin, ConfigMixin):
    """A network whose noise levels are class indices into its ladder, the buffer ``sigmas``.

    The options ``sigma_rounding`` (what becomes of noise levels off the ladder) and
    ``sigma_levels`` belong to every such network.
    """

    sigmas: Tensor

    def _set_ladder(self, ladder: Sequence[float] | None, persistent: bool) -> None:
        """Makes the buffer ``sigmas``.

        Args:
            ladder: the noise levels, descending; None for a network that takes any level.
            persistent: whether the state dict holds them.
        """
        if ladder is None:
            self.register_buffer("sigmas", None)
            return
        if self.config["sigma_levels"] is not None:
            # Else the three numbers of the geometric ladder would be recorded untrue.
            self.register_to_config(
                sigma_max=ladder[0], sigma_min=ladder[-1], num_levels=len(ladder)
            )
        # Loading in half precision changes the default dtype while the network is built.
        self.register_buffer(
            "sigmas", torch.tensor(ladder, dtype=torch.float32), persistent=persistent
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        ladder = self.sigmas
        super()._apply(fn, recurse)
        # In half precision neighbouring rungs would coincide, so the ladder changes device only.
        if ladder is not None and self.sigmas.dtype != ladder.dtype:
            self.sigmas = ladder.to(self.sigmas.device)
        return self

    def rungs(self, timestep: Tensor | float | int, batch: int) -> Tensor:
        """Class indices of noise levels, found on the device without waiting for it.

        Args:
            timestep: integers are class indices, 0 for the largest noise level; floating-point
                numbers are noise levels and go to the nearest rung in log sigma. A number, a
                scalar tensor, or a tensor of one for each sample.
            batch: number of samples.

        Returns:
            Integers from 0 to num_levels - 1, shape (batch,).

        Raises:
            HDZooError: it is no such number; see `noise_levels`.
        """
        ladder = self.sigmas
        level = noise_levels(timestep, batch, ladder.device, len(ladder), LEVEL_OR_0)
        if level.is_floating_point():
            # log 0 would be equally far from every rung.
            sigma = level.float().clamp(self.sigmas[-1], self.sigmas[0])
            level = (sigma.log()[:, None] - self.sigmas.log()).abs().argmin(dim=1)
        return level.long().expand(batch)

    def check_sigmas(self, sigmas: Sequence[float] | Tensor) -> None:
        """Refuses noise levels that are no rungs of the ladder, unless the config rounds them.

        Reads the values on the host: call it once before sampling.

        Args:
            sigmas: the noise levels that a sampler is about to ask for.

        Raises:
            HDZooError: one of them is farther than 1e-3, relative, from every rung, and
                ``config.sigma_rounding`` is not ``"nearest"``.
        """
        if self.config["sigma_rounding"] == "nearest":
            return
        ladder = self.sigmas.cpu().double()
        asked = torch.from_numpy(as_float64("sigmas", sigmas).flatten())
        nearest = ladder[(asked[:, None] - ladder).abs().argmin(dim=1)]
        strays = ~((asked - nearest).abs() <= 1e-3 * nearest)
        if strays.any():
            raise HDZooError(
                f"a call asks for the noise level {asked[strays][0]:g}, and this network "
                f"knows only its {len(ladder)} levels from {ladder[0]:g} to {ladder[-1]:g} "
                f"(nearest: {nearest[strays][0]:g}, tolerance 0.1%); sample at the network's own "
                "levels (model.sigmas), or load it with sigma_rounding='nearest'"
            )
