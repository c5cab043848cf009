"""The randomness of one step, from each sample's own generator."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from hdzoo.errors import HDZooError
from hdzoo.generators import Generator as Generator
from hdzoo.generators import OneGenerator
from hdzoo.text import counted


class Noise:
    """What a sampler draws from in `Sampler.update` and `Sampler.first_state`.

    With a list of generators, the numbers of sample ``i`` come from generator ``i`` alone, so they
    are the same in whatever batch it is.

    Args:
        generator: one generator, a list with one for each sample, or None for torch's global one.
        device: where the numbers go; they are drawn where the generator is.
        dtype: of the numbers, floating.
    """

    def __init__(
        self,
        generator: Generator,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.generator = generator
        self.device = torch.device(device)
        self.dtype = dtype

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Independent standard normal numbers.

        Args:
            shape: (batch, ...); any shape after the batch, none too.
        """
        return randn_tensor(tuple(shape), self.generator, device=self.device, dtype=self.dtype)

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        """Independent numbers between 0 and 1, 1 excluded.

        Args:
            shape: (batch, ...); any shape after the batch, none too.
        """
        if not isinstance(self.generator, list):
            return self._uniform(tuple(shape), self.generator)
        if len(self.generator) != shape[0]:
            raise HDZooError(
                f"generator is a list of {len(self.generator)} for "
                f"{counted(shape[0], 'sample')}; give one generator, or one for each sample"
            )
        return torch.stack([self._uniform(tuple(shape[1:]), one) for one in self.generator])

    def _uniform(self, shape: tuple[int, ...], generator: OneGenerator | None) -> torch.Tensor:
        source = self.device if generator is None else generator.device
        # PyTorch's types know no class with `__torch_function__`.
        given: Any = generator
        drawn = torch.rand(shape, generator=given, device=source, dtype=self.dtype)
        return drawn.to(self.device)
