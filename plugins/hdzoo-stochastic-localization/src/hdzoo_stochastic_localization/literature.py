"""Localization by Euler's scheme is other samplers, converges, and gets weights of modes wrong.

Three things are found: that Euler's scheme is consistent annealed sampling and sequential
measurements denoised and renoised; how its law comes near to that of exact measurements, and how
soon with the posterior's covariance; and what both do to the weights of two far modes.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from hdzoo import get_sampler
from hdzoo.distances import gaussian_wasserstein2
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.targets import GaussianMixtureScore
from hdzoo.verification import Gaussian, exact_law
from hdzoo_stochastic_localization.euler import StochasticLocalizationSampler
from hdzoo_stochastic_localization.second_order import StochasticLocalization2Sampler

# Time T of the last measurement, of data N(1.3, 0.8^2).
DATA, TIME = Gaussian.of(1.3, 0.8**2), 20.0
STEPS = (5, 10, 20, 40, 80)
# Two Gaussians of standard deviation 1, 6 apart in each coordinate.
WEIGHT, MEASUREMENTS, CHAINS = 0.2, 60, 4000
DIMENSIONS = (2, 8, 32)


def run(progress: Progress) -> Reproduction:
    """Compares laws on a Gaussian, and the weights of two modes."""
    progress("identities and laws on a Gaussian")
    same, errors = identity(), {name: gaussian_errors(name) for name in ("Euler", "second order")}
    weights: dict[str, dict[int, float]] = {"Euler": {}, "second order": {}}
    for done, dimension in enumerate(DIMENSIONS):
        progress(f"modes in {dimension} dimensions", done, len(DIMENSIONS))
        for name in weights:
            weights[name][dimension] = weight(name, dimension)
    slope = math.log2(errors["Euler"][STEPS[-2]] / errors["Euler"][STEPS[-1]])
    deviation = math.sqrt(WEIGHT * (1 - WEIGHT) / CHAINS)
    off = {name: max(abs(w - WEIGHT) for w in row.values()) for name, row in weights.items()}
    largest = DIMENSIONS[-1]
    return Reproduction(
        title="Stochastic localization by Euler's scheme, and with the posterior's covariance",
        source=(
            "Montanari (arXiv 2305.10690), on the convergence of the discretised process; Saremi, "
            "Park and Bach (arXiv 2305.19473), on measurements and on two far modes"
        ),
        claims=[
            Claim(
                "Euler's scheme at t = k delta, and consistent annealed sampling on 1 / "
                "sqrt(k delta) with a full read-out: largest difference of their laws",
                "not said; the two are of different papers",
                f"{same:.0e}",
                agrees=same < 1e-12,
            ),
            Claim(
                f"as delta falls with T = {TIME:g}, the law tends to that of the posterior mean",
                "it does (proved, under conditions on the steps)",
                f"W2 falls from {errors['Euler'][STEPS[0]]:.3f} at {STEPS[0]} steps to "
                f"{errors['Euler'][STEPS[-1]]:.4f} at {STEPS[-1]}, in the end as the power "
                f"{slope:.2f} of delta",
                agrees=slope > 0.8,
            ),
            Claim(
                f"the same with the covariance, one product a step, at {STEPS[0]} and "
                f"{STEPS[-1]} steps",
                "not public; exact with the exact root",
                " and ".join(f"{errors['second order'][n]:.1e}" for n in (STEPS[0], STEPS[-1])),
            ),
            Claim(
                f"weight of the lesser mode in {largest} dimensions, {MEASUREMENTS} measurements: "
                "Euler",
                f"{WEIGHT} is right; sequential measurements by long chains come near to it",
                f"{weights['Euler'][largest]:.3f} +- {deviation:.3f}",
                agrees=abs(weights["Euler"][largest] - WEIGHT) < 4 * deviation,
            ),
            Claim(
                f"the same with the covariance, at {2 * MEASUREMENTS - 1} evaluations",
                "not public",
                f"{weights['second order'][largest]:.3f} +- {deviation:.3f}",
            ),
        ],
        numbers={
            "largest difference of laws": same,
            "wasserstein2": {k: {str(n): w for n, w in row.items()} for k, row in errors.items()},
            "weights": {k: {str(d): w for d, w in row.items()} for k, row in weights.items()},
            "standard error of a weight": deviation,
        },
        draw=partial(draw, errors, weights, deviation),
        conclusion=(
            "Euler's scheme is consistent annealed sampling on Montanari's ladder, exactly, and "
            f"converges to the posterior mean as its steps shrink. On two far modes it is off by "
            f"up to {off['Euler']:.3f} in their weights with {MEASUREMENTS} measurements; with the "
            f"posterior's covariance, by difference quotients, by {off['second order']:.3f}, at "
            "twice the evaluations."
        ),
        settings={
            "data": "N(1.3, 0.8^2), T = 20; and 0.2 N(-3, I) + 0.8 N(3, I)",
            "noise of a measurement of the modes": "sqrt(9 d - 1)",
            "start": "the mean and the covariance of the data, known; Euler's of the mean alone",
            "chains": CHAINS,
            "seed": 0,
        },
    )


def chain(name: str, steps: int, time: float) -> Any:
    """The sampler of so many measurements, evenly up to a time."""
    options: dict[str, Any] = {
        "spacing": "uniform",
        "sigma_max": math.sqrt(steps / time),
        "sigma_min": time**-0.5,
    }
    if name == "Euler":
        sampler: Any = StochasticLocalizationSampler(**options)
        sampler.set_timesteps(steps)
    else:
        sampler = StochasticLocalization2Sampler(**options)
        sampler.set_timesteps(2 * steps - 1)
    return sampler


def identity() -> float:
    """The largest difference in law from consistent annealed sampling."""
    sampler = chain("Euler", 50, TIME)
    consistent = get_sampler("consistent-annealed-sampling")(
        sigmas=sampler.sigmas[:-1].tolist(), readout="full"
    )
    consistent.set_timesteps(50)
    start = DATA.noisy(float(sampler.sigmas[0]))
    one, other = exact_law(sampler, DATA, start), exact_law(consistent, DATA, start)
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def gaussian_errors(name: str) -> dict[int, float]:
    """The exact distance to the law of the posterior mean at the last time, by steps."""
    spread = DATA.covariance.item()
    exact = Gaussian.of(DATA.mean, spread - spread / (1 + spread * TIME))
    errors = {}
    for steps in STEPS:
        sampler = chain(name, steps, TIME)
        first = float(sampler.sigmas[0])
        start = Gaussian.of(DATA.mean, first**2) if name == "Euler" else DATA.noisy(first)
        errors[steps] = gaussian_wasserstein2(*exact_law(sampler, DATA, start), *exact)
    return errors


def weight(name: str, dimension: int) -> float:
    """The share of samples in the lesser of the two modes."""
    centre = 3 * torch.ones(dimension, dtype=torch.float64)
    model = GaussianMixtureScore.from_components(
        torch.stack([-centre, centre]), 1.0, [WEIGHT, 1 - WEIGHT]
    )
    sigma = math.sqrt(9 * dimension - 1)
    sampler = chain(name, MEASUREMENTS, MEASUREMENTS / sigma**2)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(CHAINS, dimension, generator=rng, dtype=torch.float64)
    x = model.mean + sigma * z
    if name != "Euler":
        values, vectors = torch.linalg.eigh(model.covariance)
        x = model.mean + z @ (vectors * (values + sigma**2).sqrt()) @ vectors.T
    for t in sampler.timesteps:
        score = model.score(x, float(t))
        x = sampler.step(score, t, x, generator=rng, return_dict=False)[0]
    return float((x.mean(1) < 0).double().mean())


def draw(
    errors: dict[str, dict[int, float]],
    weights: dict[str, dict[int, float]],
    deviation: float,
    figure: Any,
) -> None:
    """The distance against steps, and the weight against the dimension."""
    figure.set_size_inches(9, 3.8)
    left, right = figure.subplots(1, 2)
    for name, row in errors.items():
        left.loglog(list(row), list(row.values()), marker="o", label=name)
    left.set(
        title=r"N(1.3, 0.8$^2$), T = 20",
        xlabel="measurements",
        ylabel="exact W2 to the posterior mean's law",
    )
    left.set_xticks(list(STEPS), [str(n) for n in STEPS])
    left.minorticks_off()
    for name, row in weights.items():
        places = [str(d) for d in row]
        right.errorbar(places, list(row.values()), yerr=2 * deviation, marker="o", label=name)
    right.axhline(WEIGHT, color="black", linestyle=":", label="right")
    right.set(title="two modes, 60 measurements", xlabel="dimension", ylabel="lesser mode's weight")
    for panel in (left, right):
        panel.grid(which="major", alpha=0.3)
        panel.legend(fontsize=8)
