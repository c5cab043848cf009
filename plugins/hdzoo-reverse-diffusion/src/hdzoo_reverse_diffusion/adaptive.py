"""The probability-flow ODE of each image by scipy's adaptive solver, within a budget."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import RK45

from hdzoo import HDZooError
from hdzoo.checks import POSITIVE, Whole
from hdzoo.samplers.coordinates import NETWORK_OPTIONS
from hdzoo.scores.clocks import clock_of
from hdzoo.scores.conversions import state_scale, to_score

Score = Callable[[torch.Tensor, float], torch.Tensor]


class Solved(NamedTuple):
    """What `solve` returns.

    Attributes:
        samples: in the shape and dtype of the first states.
        evaluations: of the network, for each sample, the denoising step included.
    """

    samples: torch.Tensor
    evaluations: list[int]


def solve(
    score: Score,
    latents: torch.Tensor,
    sigma_max: float,
    sigma_min: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 1000,
    together: bool = False,
    denoise: bool = True,
) -> Solved:
    r"""Solves :math:`dx / d \log \sigma = -\sigma^2 s(x, \sigma)` by `scipy.integrate.RK45`.

    The steps are as long as the error of each image allows: how many evaluations that takes is
    another number for each, so that this is a function and no sampler.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), section D.4; with
    ``together`` for the VE SDE the black-box sampler of their code.

    Args:
        score: ``score(x, sigma)``, of states of shape (batch, ...), in VE coordinates; `score_of`
            makes one of a pipeline.
        latents: the first states, at ``sigma_max``, in VE coordinates, shape (batch, ...).
        sigma_max: the first noise level.
        sigma_min: the last.
        rtol: relative tolerance; 1e-5 as published.
        atol: absolute tolerance.
        max_evaluations: the budget of each image.
        together: one solver for the whole batch, as published, so that an image depends on the
            others.
        denoise: whether the denoising step, one evaluation, ends it.

    Raises:
        HDZooError: an argument is out of its range, or the budget does not suffice.
    """
    budget = Whole(RK45.n_stages + 2)("max_evaluations", max_evaluations)
    ends = math.log(POSITIVE("sigma_max", sigma_max)), math.log(POSITIVE("sigma_min", sigma_min))
    if not sigma_min < sigma_max:
        raise HDZooError(f"sigma_min is {sigma_min}; it must be below sigma_max, {sigma_max}")
    groups = [latents] if together else latents.split(1)
    samples, evaluations = [], list[int]()
    for group in groups:

        def slope(u: float, flat: np.ndarray, group: torch.Tensor = group) -> np.ndarray:
            x = torch.from_numpy(flat).to(group).view(group.shape)
            return (-math.exp(2 * u) * score(x, math.exp(u))).double().cpu().numpy().ravel()

        flat = group.double().cpu().numpy().ravel()
        solver = RK45(slope, ends[0], flat, ends[1], rtol=rtol, atol=atol)
        while solver.status == "running":
            if solver.nfev + RK45.n_stages + denoise > budget:
                raise HDZooError(
                    f"max_evaluations is {budget}, and at noise level {math.exp(solver.t):.3g} of "
                    f"{sigma_max:g} to {sigma_min:g} they are spent; give more, or larger rtol and "
                    "atol"
                )
            solver.step()
        x = torch.from_numpy(solver.y).to(group).view(group.shape)
        samples.append(x + sigma_min**2 * score(x, sigma_min) if denoise else x)
        evaluations += [solver.nfev + denoise] * len(group)
    return Solved(torch.cat(samples), evaluations)


def score_of(pipe: Any) -> Score:
    """The score of a pipeline's network, in VE coordinates.

    Args:
        pipe: an `hdzoo.HDPipeline`, whose sampler's configuration says what the network predicts.

    Raises:
        HDZooError: the network is preconditioned by its sampler (``sigma_data``).
    """
    config = {key: pipe.scheduler.config.get(key) for key in NETWORK_OPTIONS}
    config = {key: value for key, value in config.items() if value is not None}
    if "sigma_data" in config:
        raise HDZooError("sigma_data is set: this network is preconditioned by its sampler alone")
    kind, space = config["prediction_type"], config.get("coordinates", "ve")

    @torch.no_grad()
    def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
        state = (x / state_scale(sigma, space)).to(pipe.unet.dtype)
        told = torch.tensor(clock_of(config).timestep(sigma), dtype=x.dtype, device=x.device)
        prediction = pipe.unet(state, told, return_dict=False)[0]
        return to_score(prediction.to(x.dtype), state.to(x.dtype), sigma, kind, space)

    return score
