"""Samplers that ask the network at even times of its own process."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hdzoo.samplers.families import RefinedLadderSampler
from hdzoo.samplers.noise import Noise
from hdzoo.scores.clocks import clock_of

NUMBERED = ("discrete", "time")


class EvenTimeSampler(RefinedLadderSampler):
    r"""A sampler whose network is asked at even times, and whose steps are
    :math:`a_k x + b_k s + c_k z`.

    Time is that of the network's own process: of a network that is told the number of a noise level
    or the time, that number; of others :math:`\log \sigma`, in which the VE SDE of Song et al.
    (arXiv 2011.13456) is even. Between the two ends, or along the ladder that is given.

    Attributes:
        keeps: :math:`a_k`.
    """

    keeps: list[float]

    def rungs(self, num_inference_steps: int) -> list[float]:
        num_levels, ladder = self.levels_for(num_inference_steps), self.ladder
        clock, numbered = clock_of(self.config), self.config.timestep_type in NUMBERED
        places = np.asarray(clock.timesteps(ladder)) if numbered else np.log(ladder)
        end = (len(ladder) - 1) * (1 - (0 if numbered else end_of_time(self.config, ladder)))
        even = np.interp(np.linspace(0, end, num_levels), np.arange(len(ladder)), places)
        return [clock.sigma(place) for place in even] if numbered else np.exp(even).tolist()

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        return super().update(k, self.keeps[k] * x, score, noise)


def end_of_time(config: Mapping[str, Any], sigmas: Sequence[float]) -> float:
    r"""The time :math:`\epsilon` of the last noise level, that of the first being 1.

    Args:
        config: of a sampler, with ``sampling_eps``. It is 0 for a ladder that is given and for a
            network of numbered levels, and what it is for one that is told the time.
        sigmas: at which the network is asked.
    """
    kind = config["timestep_type"]
    if kind == "discrete" or config["sigmas"] is not None:
        return 0.0
    if kind == "time":
        first, last = clock_of(config).timesteps([sigmas[0], sigmas[-1]])
        return float(last / first)
    return float(config["sampling_eps"])
