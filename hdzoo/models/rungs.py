"""Noise levels as class indices: what networks that know only the rungs of a ladder share."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from hdzoo.checks import (
    COUNT,
    LEVELS,
    MAX_LEVELS,
    NOT_NEGATIVE,
    POSITIVE,
    Flag,
    Interval,
    Maybe,
    Number,
    OneOf,
    Rule,
    Whole,
    as_float64,
    floating,
    refuse,
)
from hdzoo.errors import HDZooError

ROUNDINGS = ("strict", "nearest")


def losses(name: str, value: Any) -> Any:
    """The rule of ``held_out_loss``: as many numbers as noise levels, or None."""
    if value is None:
        return None
    keys = ("sigmas", "loss")
    if not isinstance(value, Mapping) or not all(isinstance(value.get(k), list) for k in keys):
        refuse(name, value, '{"sigmas": [...], "loss": [...]}, or None')
    sigmas, loss = (len(value[key]) for key in keys)
    if sigmas != loss:
        raise HDZooError(f"{name} has {sigmas} sigmas and {loss} losses; give one for each")
    return value


# The rules of options that all networks for images have...
IMAGE_RULES: dict[str, Rule] = {
    "sample_size": Whole(1, 2**16),
    "in_channels": COUNT,
    "data_range": Interval(),
    "held_out_loss": losses,
}
# ... and all that know a ladder.
LADDER_RULES: dict[str, Rule] = {
    **IMAGE_RULES,
    "sigma_max": POSITIVE,
    "sigma_min": POSITIVE,
    "num_levels": Whole(1, MAX_LEVELS),
    "sigma_levels": Maybe(LEVELS),
    "centered": Flag(),
    "sigma_rounding": OneOf(ROUNDINGS),
}


def noise_levels(
    timestep: Any,
    batch: int,
    device: Any,
    num_rungs: int | None = None,
    allowed: Number = POSITIVE,
) -> Tensor:
    """What a network is told, as one number, or one for each sample.

    Args:
        timestep: noise levels, or class indices where ``num_rungs`` is given: a number, a scalar
            tensor, or a tensor of one for each sample. The values of one on an accelerator are not
            looked at, for that would wait.
        batch: number of samples.
        device: where it is to be.
        num_rungs: how many rungs the network knows; None if integers are noise levels as well.
        allowed: the rule of a noise level.

    Returns:
        Shape (1,) or (batch,).

    Raises:
        HDZooError: it is no such number, or a noise level is not allowed.
    """
    if isinstance(timestep, Tensor):
        if timestep.dtype == torch.bool or timestep.is_complex():
            refuse("timestep", timestep, "a tensor of real numbers")
        if timestep.numel() not in (1, batch):
            raise HDZooError(
                f"{timestep.numel()} timesteps are given for {batch} samples; give one, or one for "
                "each sample"
            )
        if timestep.device.type == "cpu":
            for extreme in (timestep.min(), timestep.max()):
                noise_levels(extreme.item(), batch, "cpu", num_rungs, allowed)
        return timestep.to(device).reshape(-1)
    if num_rungs is not None and isinstance(timestep, Integral):
        timestep = Whole(0, num_rungs - 1)("timestep, a class index,", timestep)
    else:
        timestep = allowed("timestep, a noise level,", timestep)
    return torch.as_tensor(timestep, device=device).reshape(-1)


def images(sample: Any, channels: int, multiple: int, network: str) -> Tensor:
    """Checks the images that a network is given.

    Args:
        sample: the images.
        channels: how many they must have.
        multiple: what their height and width must be a multiple of.
        network: the name of its class.

    Raises:
        HDZooError: they are of another dtype or shape.
    """
    floating("sample", sample, f"shape (batch, {channels}, height, width)")
    shape = tuple(sample.shape)
    fits = len(shape) == 4 and shape[1] == channels and 0 not in shape
    if not fits or shape[2] % multiple or shape[3] % multiple:
        sizes = f" of multiples of {multiple}" if multiple > 1 else ""
        raise HDZooError(
            f"sample has the shape {shape}; this {network} needs (batch, {channels}, height, width)"
            f"{sizes}"
        )
    return sample


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


class LadderModel(ModelMixin, ConfigMixin):
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
        level = noise_levels(timestep, batch, ladder.device, len(ladder), NOT_NEGATIVE)
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
                f"the sampler asks for the noise level {asked[strays][0]:g}, and this network "
                f"knows only its {len(ladder)} levels from {ladder[0]:g} to {ladder[-1]:g} "
                f"(nearest: {nearest[strays][0]:g}, tolerance 0.1%); sample at the network's own "
                "levels (model.sigmas), or load it with sigma_rounding='nearest'"
            )
