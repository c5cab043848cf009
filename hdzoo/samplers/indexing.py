"""Which evaluation of a chain comes next."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from hdzoo.checks import Number, Whole
from hdzoo.errors import HDZooError


class Indexing:
    """The place in a chain, as diffusers' pipelines ask for it and set it."""

    config: Any
    starts_from_noise: bool
    timesteps: torch.Tensor
    levels: Sequence[float]
    _step_index: int | None
    _begin_index: int | None

    def __len__(self) -> int:
        return len(self.levels) - 1

    @property
    def step_index(self) -> int | None:
        """The number of the next move; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The number of the first move, if a pipeline has set it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Says with which move the chain begins, so that it need not be looked up."""
        self._begin_index = Whole(0)("begin_index", begin_index)

    def _first_index(self, timestep: float | torch.Tensor) -> int:
        if self._begin_index is not None:
            return self._begin_index
        if not self.starts_from_noise and self.config.get("coordinates") == "vp":
            warnings.warn(
                f"{type(self).__name__} walks at one noise level, {self.levels[0]:g}, and "
                "starts here from pure noise, from where it takes very many steps; take an "
                "annealed sampler, or start from images: image-to-image, or HDPipeline(image=...)",
                stacklevel=3,
            )
        return self.index_for_timestep(timestep)

    def index_for_timestep(self, timestep: float | torch.Tensor) -> int:
        """The first move that is made at a timestep.

        Raises:
            HDZooError: no move is.
        """
        if isinstance(timestep, torch.Tensor) and timestep.numel() == 1:
            timestep = timestep.reshape(())
        timestep = Number()("timestep", timestep)
        # The caller may have passed it through float32.
        gaps = (self.timesteps - timestep).abs()
        nearest = int(gaps.argmin())
        if not gaps[nearest] <= 1e-6 * self.timesteps[nearest].abs():
            raise HDZooError(
                f"timestep {float(timestep):g} is not one of this chain's timesteps; take one of "
                "scheduler.timesteps, or give your own to set_timesteps(timesteps=...)"
            )
        return nearest
