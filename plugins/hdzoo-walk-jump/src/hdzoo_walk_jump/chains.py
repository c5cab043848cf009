"""Many jumps along one walk, and how far it mixes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hdzoo import HDPipeline, distances, sample_generators
from hdzoo.checks import Whole
from hdzoo.distances.chains import MIN_STEPS

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mixing:
    """How the jumps along a walk depend on one another, in some quantities of them.

    Attributes:
        autocorrelation: at lag 0, 1, ... in jumps, shape (lags, d); the mean over the chains, about
            the mean of all.
        effective_sample_size: of all jumps of all chains together, shape (d,).
        split_rhat: shape (d,); above 1.01 the chains have not mixed.
    """

    autocorrelation: Array
    effective_sample_size: Array
    split_rhat: Array

    def to_dict(self) -> dict[str, list[Any]]:
        """The same as lists."""
        return {name: value.tolist() for name, value in vars(self).items()}


def many_jumps(
    pipe: HDPipeline, num_chains: int, num_jumps: int, steps_per_jump: int = 10, seed: int = 0
) -> torch.Tensor:
    """Walks, and jumps again and again.

    Args:
        pipe: with a `WalkJumpSampler`, whose jumps take an evaluation each, or another sampler at
            one noise level, whose denoised states on the way are the jumps.
        num_chains: walks, each from noise of its own.
        num_jumps: along each.
        steps_per_jump: steps of the walk to each.
        seed: chain ``i`` depends on (seed, i) alone.

    Returns:
        The jumps, shape (num_chains, num_jumps, *sample_shape), in the network's units.

    Raises:
        HDZooError: a number is below 1.
    """
    chains, jumps, steps = (
        Whole(1)(name, value)
        for name, value in (
            ("num_chains", num_chains),
            ("num_jumps", num_jumps),
            ("steps_per_jump", steps_per_jump),
        )
    )
    scheduler, every = pipe.scheduler, steps
    if "steps_per_jump" in scheduler.config:
        scheduler, every = scheduler.from_config(scheduler.config, steps_per_jump=steps), steps + 1
    walking = HDPipeline(pipe.unet, scheduler)
    walking.starter = pipe.starter
    walking.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    (states,) = walking(
        batch_size=chains,
        num_inference_steps=jumps * every,
        generator=sample_generators(seed, range(chains)),
        output_type="latent",
        samples_every=every,
        return_dict=False,
    )
    return torch.as_tensor(states).unflatten(0, (chains, jumps))


def mixing(jumps: torch.Tensor, num_quantities: int = 3) -> Mixing:
    """Autocorrelation, effective sample size and R-hat of the jumps along walks.

    Args:
        jumps: shape (num_chains, num_jumps, ...), from `many_jumps`; at least 2 chains of 10.
        num_quantities: how many are looked at: the jumps' coordinates along their own principal
            directions, the widest first.

    Raises:
        HDZooError: there are too few jumps, or a chain stands still.
    """
    Whole(2)("the number of chains", jumps.shape[0])
    Whole(MIN_STEPS)("the number of jumps of a chain", jumps.shape[1])
    points = jumps.detach().double().cpu().flatten(2)
    centred = points - points.mean((0, 1))
    directions = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False)[2]
    along = (centred @ directions[:num_quantities].T).numpy()
    lags, variance = range(along.shape[1] // 2 + 1), (along**2).mean((0, 1))
    correlation = [
        (along[:, : along.shape[1] - lag] * along[:, lag:]).mean((0, 1)) / variance for lag in lags
    ]
    return Mixing(
        np.array(correlation), distances.effective_sample_size(along), distances.split_rhat(along)
    )


def chain_rows(pipe: HDPipeline, jumps: torch.Tensor, scale: int = 2) -> Image.Image:
    """A picture of walks, each a row, from left to right.

    Args:
        pipe: what they were drawn with.
        jumps: shape (num_chains, num_jumps, channels, height, width).
        scale: each pixel becomes a square of so many.
    """
    rows = [np.concatenate(list(pipe.decode(chain, "np")), axis=1) for chain in jumps]
    pixels = (np.concatenate(rows) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    size = picture.width * scale, picture.height * scale
    return picture.resize(size, Image.Resampling.NEAREST)
