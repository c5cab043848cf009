r"""Why annealed Langevin dynamics with the noise first beats it with the gradient first.

The report on annealed half-denoising finds better FID with "alpha-half-denoising" (its Algorithm 3)
than with annealed Langevin dynamics (Algorithm 1). At equal cost the two differ in two moves: the
last noise of each level has the next level's variance (the hand-off), and the very last noise is
left out, which is a read-out by :math:`\lambda = \alpha_L / \sigma_L^2 = 0.2` of the denoising
step. Here every hand-off meets every read-out, on targets whose score is exact, with the report's
ladder and step size and the same number of evaluations:

* on Gaussians with the spectrum of images, in closed form;
* on a mixture fitted to digits, by simulation, all chains with the same noise.

The distance is Frechet's, :math:`W_2^2` between the Gaussians of the same mean and covariance, of
pixels and not of features.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from hdzoo.distances.moments import mode_weights
from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.literature.alpha_half_findings import (
    ALG_1,
    ALG_2,
    ALG_3,
    HAND_OFFS,
    LAST_MOVES,
    NUM_SAMPLES,
    Numbers,
    claims,
    conclusion,
    draw,
)
from hdzoo.literature.base import Progress, Reproduction
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.half_denoising import AlphaHalfDenoisingSampler, AnnealedHalfDenoisingSampler
from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.targets import named as targets
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.verification.laws import Gaussian, declared_law, deviation, exact_law

# The samplers' defaults are the report's: 10 levels from 1 to 0.01, 100 steps each, eta = 0.2.
EVALUATIONS = 1000
SIGMA_MIN = 0.01
SINGULAR_FRACTIONS = (0.0, 0.5)
# Uniform on [0, 1].
START_MEAN, START_VARIANCE = 0.5, 1 / 12

# Runs of a thousand fit the cache, and are faster than one of all.
BATCH = 1000
SEEDS = (0, 1)
RESAMPLINGS = 60


def run(progress: Progress) -> Reproduction:
    """Runs the factorial on both kinds of targets."""
    spectrum = {f"{share:g}": on_spectrum(share) for share in SINGULAR_FRACTIONS}
    progress("closed forms against exact laws")
    off = closed_form_deviation()
    digits = on_digits(progress)
    numbers = {
        "spectrum, by singular fraction": spectrum,
        "digits": digits,
        "largest deviation of the closed form": off,
        "residual noise on a point over sigma_L^2": residual_noise(),
        "same moves": same_moves(),
    }
    return Reproduction(
        title="What the gain of alpha-half-denoising over annealed Langevin is made of",
        source="The report on annealed half-denoising, Algorithms 1 to 3 and their FIDs",
        claims=claims(numbers),
        numbers=numbers,
        draw=partial(draw, numbers),
        conclusion=conclusion(numbers),
        settings={
            "ladder": dict(annealed("own", None).config),
            "num_inference_steps": EVALUATIONS,
            "hand_offs": list(HAND_OFFS),
            "last_moves": LAST_MOVES,
            "start": "uniform on [0, 1]",
            "spectrum": "hdzoo.targets.named.spectrum_target: d = 3072, pixel std 0.25",
            "digits": "hdzoo.targets.named.digits: d = 64, 10 Gaussians",
            "num_samples": NUM_SAMPLES,
            "seeds": list(SEEDS),
            "resamplings": RESAMPLINGS,
        },
    )


# ---- the cells ------------------------------------------------------------------------------


def annealed(hand_off: str, readout: float | str | None) -> AnnealedLangevinSampler:
    """A cell of the factorial; a read-out is the last of the same number of evaluations."""
    sampler = AnnealedLangevinSampler(hand_off=hand_off, readout=readout)
    sampler.set_timesteps(EVALUATIONS)
    return sampler


def cells() -> dict[str, Sampler]:
    """All cells, and Algorithm 2."""
    found: dict[str, Sampler] = {
        f"{hand_off}, {last}": annealed(hand_off, readout)
        for hand_off in HAND_OFFS
        for last, readout in LAST_MOVES.items()
    }
    return found | {ALG_2: AnnealedHalfDenoisingSampler()}


def first_noise(sampler: Sampler) -> float:
    """The variance that is added to the start: Algorithm 2 begins with noise."""
    return sampler.moves[0].noise ** 2 if isinstance(sampler, AnnealedHalfDenoisingSampler) else 0.0


def same_moves() -> bool:
    """Whether Algorithm 3 makes the moves of annealed Langevin with its hand-off and read-out."""
    return AlphaHalfDenoisingSampler().moves == annealed("next", "alpha").moves


def residual_noise() -> dict[str, float]:
    """The variance that is left of the noise where the data do not vary."""
    return {
        name: np.asarray(_law(sampler, np.zeros(1)).variance).item() / SIGMA_MIN**2
        for name, sampler in cells().items()
    }


# ---- Gaussians ------------------------------------------------------------------------------


def on_spectrum(singular_fraction: float) -> Numbers:
    """The Frechet distance of each cell on the spectrum of images, in closed form.

    The data are deviations from a mean of 0.5, which is that of the start.
    """
    target = targets.spectrum_target(singular_fraction=singular_fraction)
    variances = target.variances[0].numpy()
    return {name: frechet_closed(sampler, variances) for name, sampler in cells().items()}


def frechet_closed(sampler: Sampler, variances: np.ndarray) -> float:
    """The Frechet distance to independent normal coordinates of mean 0 and these variances."""
    law = _law(sampler, variances)
    return float(np.sum(law.mean**2 + (np.sqrt(law.variance) - np.sqrt(variances)) ** 2))


def _law(sampler: Sampler, variances: np.ndarray) -> GaussianLaw:
    start = START_VARIANCE + first_noise(sampler) + 0 * variances
    law = sampler.closed_form(GaussianLaw(0 * variances, variances, 0 * variances, start))
    assert law is not None
    return law


def closed_form_deviation() -> float:
    """How far the closed forms are from the exact laws, at five eigenvalues of the spectrum."""
    variances = targets.spectrum_target(singular_fraction=0.5).variances[0].numpy()
    some = np.quantile(variances, [0.0, 0.55, 0.7, 0.9, 1.0])
    target = Gaussian.of(0 * some, some)
    found = []
    for sampler in (annealed("own", None), annealed("half", "full"), annealed("next", "alpha")):
        start = Gaussian.of(0 * some, START_VARIANCE)
        declared = declared_law(sampler, target, start)
        assert declared is not None
        found.append(deviation(exact_law(sampler, target, start), declared))
    return max(found)


# ---- digits ---------------------------------------------------------------------------------


def on_digits(progress: Progress) -> Numbers:
    """Every cell on the mixture fitted to digits: distance, mode weights, residual noise."""
    target = targets.digits()
    by_seed: list[dict[str, torch.Tensor]] = []
    chains = len(HAND_OFFS) + 1
    done, total = 0, len(SEEDS) * (NUM_SAMPLES // BATCH) * chains
    for seed in SEEDS:
        batches = []
        for batch in range(NUM_SAMPLES // BATCH):
            stream = 100 * seed + batch
            progress(
                f"digits: seed {seed}, {BATCH} samples from {batch * BATCH} on, {chains} chains of "
                f"{EVALUATIONS} evaluations",
                done,
                total,
            )
            samples: dict[str, torch.Tensor] = {}
            for hand_off in HAND_OFFS:
                samples |= branches(target, hand_off, stream)
                done += 1
                progress(f"  hand-off {hand_off}", done, total)
            samples[ALG_2] = simulate(target, AnnealedHalfDenoisingSampler(), stream)[0]
            done += 1
            progress(f"  {ALG_2}", done, total)
            batches.append(samples)
        by_seed.append({name: torch.cat([b[name] for b in batches]) for name in batches[0]})
    progress("digits: distances and their errors")
    exact = [target.sample(NUM_SAMPLES, _generator(1000 + k)).flatten(1) for k in range(8)]
    floors = [measured(points.double().numpy(), target) for points in exact]
    return {
        "cells": summary([errors(samples, target) for samples in by_seed]),
        "floor": {
            key: {
                "mean": float(np.mean([row[key] for row in floors])),
                "standard_deviation": float(np.std([row[key] for row in floors], ddof=1)),
            }
            for key in ("frechet", "mode_tv")
        },
    }


def branches(target: GaussianMixtureScore, hand_off: str, seed: int) -> dict[str, torch.Tensor]:
    """One chain with each of the last moves; they share all evaluations, the last one too."""
    ends = {}
    for last, readout in LAST_MOVES.items():
        sampler = annealed(hand_off, readout)
        if readout is None:
            ends[last], before = simulate(target, sampler, seed)
            output = target(before, sampler.timesteps[-1], return_dict=False)[0]
        else:
            sampler.set_begin_index(EVALUATIONS - 1)
            moved = sampler.step(output, sampler.timesteps[-1], before, return_dict=False)
            ends[last] = moved[0].flatten(1)
    return {f"{hand_off}, {last}": samples for last, samples in ends.items()}


def simulate(
    target: GaussianMixtureScore, sampler: Sampler, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples, flat, and the state before the last move."""
    draws = _generator(seed)
    state = torch.rand(BATCH, *target.sample_shape, generator=draws)
    state = state + first_noise(sampler) ** 0.5 * torch.randn(state.shape, generator=draws)
    before = state

    def watch(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal before
        # A move without noise draws none; so that all chains have the same noise, skip some.
        if sampler.moves[step].noise == 0:
            torch.randn(state.shape, generator=draws)
        if step == EVALUATIONS - 2:
            before = tensors["latents"]
        return {}

    pipe = HDPipeline(target, sampler)
    pipe.set_progress_bar_config(disable=True)
    samples = pipe(
        num_inference_steps=EVALUATIONS,
        latents=state,
        generator=draws,
        output_type="latent",
        return_dict=False,
        callback_on_step_end=watch,
    )[0]
    return samples.flatten(1), before


def measured(points: np.ndarray, target: GaussianMixtureScore) -> dict[str, float]:
    """The Frechet distance, the error of the mode weights, and the residual noise.

    Args:
        points: samples, shape (n, d).
        target: the mixture; the modes are told apart at the last noise level.
    """
    shares = mode_weights(points.reshape(-1, *target.sample_shape), target, SIGMA_MIN).shares
    values, vectors = np.linalg.eigh(target.covariance.numpy())
    null = vectors[:, values < 1e-12]
    residue = (points - target.mean.numpy()) @ null
    return {
        "frechet": frechet(points, target),
        "mode_tv": float(np.abs(shares - target.weights.numpy()).sum() / 2),
        "residual_noise": float((residue**2).mean() / SIGMA_MIN**2),
    }


def frechet(
    points: np.ndarray, target: GaussianMixtureScore, counts: np.ndarray | None = None
) -> float:
    """The Frechet distance of a sample, or of one in which point i occurs ``counts[i]`` times."""
    mean = np.average(points, axis=0, weights=counts)
    covariance = np.cov(points.T, fweights=counts)
    return gaussian_wasserstein2(mean, covariance, target.mean, target.covariance) ** 2


def errors(samples: dict[str, torch.Tensor], target: GaussianMixtureScore) -> dict[str, Numbers]:
    """What is measured of each cell, with bootstrap errors, and its gain on Algorithms 1 and 3.

    All cells are resampled alike: what two of them have in common cancels in the gain.
    """
    points = {name: x.double().numpy() for name, x in samples.items()}
    rows = {name: measured(x, target) for name, x in points.items()}
    rng = np.random.default_rng(0)
    counts = rng.multinomial(NUM_SAMPLES, np.full(NUM_SAMPLES, 1 / NUM_SAMPLES), RESAMPLINGS)
    resampled = {
        name: np.array([frechet(x, target, count) for count in counts])
        for name, x in points.items()
    }
    for name, row in rows.items():
        row["frechet_error"] = float(resampled[name].std(ddof=1))
        for reference in (ALG_1, ALG_3):
            key = f"gain on {reference}"
            row[key] = rows[reference]["frechet"] - row["frechet"]
            row[f"{key}_error"] = float((resampled[reference] - resampled[name]).std(ddof=1))
    return rows


def summary(by_seed: list[dict[str, Numbers]]) -> dict[str, Numbers]:
    """Means over the seeds, errors of these means, and each seed's distance."""
    found = {}
    for name in by_seed[0]:
        rows = [rows[name] for rows in by_seed]
        found[name] = {
            key: float(np.linalg.norm([row[key] for row in rows]) / len(rows))
            if key.endswith("_error")
            else float(np.mean([row[key] for row in rows]))
            for key in rows[0]
        } | {"frechet_by_seed": [row["frechet"] for row in rows]}
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
