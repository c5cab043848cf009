"""The randomness of a set of samples."""

from collections.abc import Iterable

import numpy as np
import torch


def sample_generators(
    seed: int, indices: Iterable[int], device: str | torch.device = "cpu"
) -> list[torch.Generator]:
    """One generator for each sample, a function of (seed, index) alone.

    Args:
        seed: of the whole set, not negative.
        indices: of the samples, not negative.
        device: where the noise is drawn; another device draws other noise.

    Returns:
        As many generators as indices. Sample ``i`` is the same in whatever batch it is drawn.
        PyTorch's generator of a CPU starts from 32 bits of its seed, so that two of n samples have
        the same noise with probability n^2 / 2^33: 1 % at n = 10,000.
    """
    return [
        torch.Generator(device).manual_seed(
            int(
                np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
                >> np.uint64(1)
            )
        )
        for index in indices
    ]
