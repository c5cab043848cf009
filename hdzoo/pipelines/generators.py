"""The randomness of a set of samples."""

from collections.abc import Iterable

import numpy as np
import torch

from hdzoo.checks import IMAGES, SEED, Whole, check_device
from hdzoo.errors import HDZooError
from hdzoo.generators import GreatCircle


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

    Raises:
        HDZooError: a number is out of its range, or there is no such device.
    """
    SEED("seed", seed)
    check_device(device)
    return [
        torch.Generator(device).manual_seed(
            int(
                np.random.SeedSequence([seed, SEED("index", index)]).generate_state(1, np.uint64)[0]
                >> np.uint64(1)
            )
        )
        for index in indices
    ]


def interpolated_generators(
    a: int, b: int, count: int, device: str | torch.device = "cpu"
) -> list[GreatCircle]:
    """One generator for each of some samples that turn from one seed's into another's.

    Args:
        a: the seed of the first sample, which is that of ``sample_generators(a, [0])``, bit for
            bit.
        b: the seed of the last.
        count: of samples, both ends included; at least 2. They are the same distance apart on a
            great circle (`GreatCircle`).
        device: where the noise is drawn.

    Raises:
        HDZooError: a number is out of its range, or the seeds are equal.
    """
    a, b, count = SEED("a", a), SEED("b", b), Whole(2, IMAGES.high)("count", count)
    if a == b:
        raise HDZooError(f"both seeds are {a}; give two, between which samples can turn")
    (first,), (last,) = (sample_generators(seed, [0], device) for seed in (a, b))
    return [GreatCircle(first, last, i / (count - 1)) for i in range(count)]
