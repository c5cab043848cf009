r"""Langevin dynamics gets the weights of two far modes wrong; annealing it gets them right.

The target is 0.8 N((5, 5), I) + 0.2 N((-5, -5), I). Turned by 45 degrees it is a product: along
the diagonal a mixture of N(\pm 5 \sqrt 2, 1), across it N(0, 1). So is each Langevin kernel; the
weights are a matter of the diagonal alone, and its law is carried along exactly by quadrature.

In the authors' toy code a "noise level" is the standard deviation :math:`\tau` of the components,
from 20 to 1, and so :math:`\sqrt{\tau^2 - 1}` is the noise added. At :math:`\tau = 1` there is
none; there `CLEAN` stands for it.
"""

import math
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from hdzoo.distances.moments import mode_weights
from hdzoo.distances.wasserstein import sliced_wasserstein2, wasserstein2
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.langevin import AnnealedLangevinSampler, LangevinSampler
from hdzoo.targets import named as targets
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.verification.quadrature_law import GridChain, GridLaw, density_law

# A noise level that changes the variance 1 of a component by 1e-6.
CLEAN = 1e-3
# The paper's step of 0.1 in x + step/2 s + sqrt(step) z.
STEP_SIZE = 0.05
TAUS = np.exp(np.linspace(math.log(20), 0, 10))
STEPS_PER_LEVEL = 100
NUM_SAMPLES = 1280
HALF_WIDTH = 8.0
SEEDS = range(8)

# A chain is made of samplers that follow each other.
Chain = list[tuple[str, Sampler]]


def run(progress: Progress) -> Reproduction:
    """Compares both chains, by quadrature and by simulation."""
    target, diagonal = targets.ncsn_toy(), diagonal_target()
    chains = {"Langevin": langevin(), "annealed Langevin": annealed()}
    numbers: dict[str, Any] = {}
    for before, (name, chain) in enumerate(chains.items()):
        progress(f"{name}: exact weights by quadrature")
        curve, end = exact_weights(chain, diagonal)
        clean = density_law(diagonal, 0.0, np.linspace(-20, 20, 2001))
        numbers[name] = {
            "weight_curve": curve,
            "exact_weight": curve[-1][1],
            # Across the diagonal the stationary law is N(0, 1 / (1 - alpha / 2)).
            "exact_wasserstein2": math.hypot(
                end.wasserstein2(clean), (1 - STEP_SIZE / 2) ** -0.5 - 1
            ),
            "samples": [],
        }
        for seed in SEEDS:
            progress(
                f"{name}: {NUM_SAMPLES} samples, seed {seed}",
                before * len(SEEDS) + seed,
                len(chains) * len(SEEDS),
            )
            numbers[name]["samples"].append(measured(simulate(chain, target, seed), target, seed))
    numbers["exact samples"] = {
        "samples": [
            measured(target.sample(NUM_SAMPLES, generator(1000 + seed)), target, seed)
            for seed in SEEDS
        ]
    }
    progress("annealed Langevin with four times the steps: exact weights by quadrature")
    patient = exact_weights(annealed(4 * STEPS_PER_LEVEL), diagonal)[0][-1][1]
    numbers["annealed Langevin"]["exact_weight_with_four_times_the_steps"] = patient
    pictures = {name: simulate(chain, target, 0) for name, chain in chains.items()}
    plain, noisy = numbers["Langevin"], numbers["annealed Langevin"]
    return Reproduction(
        title="Langevin and annealed Langevin on two far modes",
        source="Song and Ermon (arXiv 1907.05600), section 3.2.2, figure 3",
        claims=[
            Claim(
                "Langevin dynamics on the exact score: weight of the mode (5, 5), truth 0.8",
                "wrong relative weights, read off a figure",
                _found(plain),
                agrees=abs(plain["exact_weight"] - 0.8) > 0.1,
            ),
            Claim(
                "annealed Langevin dynamics: weight of the mode (5, 5)",
                "faithful relative weights, read off a figure",
                _found(noisy),
                agrees=abs(noisy["exact_weight"] - 0.8) < 0.05,
            ),
            Claim(
                "the same with four times the steps on each level, exactly",
                "not public",
                f"{patient:.3f}",
            ),
            Claim(
                "exact Wasserstein-2 distance to the target, Langevin / annealed",
                "not public",
                f"{plain['exact_wasserstein2']:.3f} / {noisy['exact_wasserstein2']:.3f}",
            ),
            Claim(
                f"the same between {NUM_SAMPLES} samples of each; two exact samples",
                "not public",
                " / ".join(
                    f"{_mean(numbers[name], 'wasserstein2'):.2f}"
                    for name in ("Langevin", "annealed Langevin", "exact samples")
                ),
            ),
        ],
        numbers=numbers,
        draw=partial(draw, numbers, pictures),
        conclusion=(
            f"After {STEPS_PER_LEVEL * len(TAUS)} steps on the exact score the heavier mode has "
            f"{plain['exact_weight']:.3f} of the mass, as it had after the first 20: what started "
            "on its side of the ridge. With the noise levels taken in turn it has "
            f"{noisy['exact_weight']:.3f} of 0.8. What is missing is time at the levels where "
            "chains cross slowly (once the components are narrower than 3 hardly any does): with "
            f"four times the steps it is {patient:.3f}. These weights are exact; nothing in them "
            "is a network's error, or a sample's."
        ),
        settings={
            "step_size": STEP_SIZE,
            "component_standard_deviations": TAUS.tolist(),
            "added_noise": [sigma for _, sigma, _ in _levels()],
            "steps_per_level": STEPS_PER_LEVEL,
            "start": f"uniform on [-{HALF_WIDTH:g}, {HALF_WIDTH:g}]^2",
            "num_samples": NUM_SAMPLES,
            "seeds": list(SEEDS),
        },
    )


# ---- the chains -----------------------------------------------------------------------------


def langevin() -> Chain:
    """1000 steps at no noise."""
    steps = STEPS_PER_LEVEL * len(TAUS)
    return [("clean", LangevinSampler(sigma=CLEAN, step_size=STEP_SIZE, num_steps=steps))]


def annealed(steps_per_level: int = STEPS_PER_LEVEL) -> Chain:
    """The levels with noise on a ladder, then as many steps at no noise as on each of them."""
    noisy = _levels()[:-1]
    ladder = AnnealedLangevinSampler(
        sigmas=[sigma for _, sigma, _ in noisy],
        step_size=[alpha for _, _, alpha in noisy],
        steps_per_level=steps_per_level,
    )
    # Not on the ladder, where alpha < 2 sigma^2 is asked for as if the data were points.
    last = LangevinSampler(CLEAN, STEP_SIZE, steps_per_level)
    return [("ladder", ladder), ("clean", last)]


def _levels() -> list[tuple[float, float, float]]:
    """The component's standard deviation, the noise added, and the step size on each level."""
    return [
        (tau, math.sqrt(tau**2 - 1) if tau > 1 + 1e-9 else CLEAN, STEP_SIZE * tau**2)
        for tau in TAUS.tolist()
    ]


def pieces(chain: Chain, length: int = 20) -> list[LangevinSampler]:
    """The same chain in pieces of at most so many steps at one noise level."""
    found = []
    for _, sampler in chain:
        moves = sampler.moves
        for first in range(0, len(moves), length):
            level, steps = moves[first], min(length, len(moves) - first)
            found.append(LangevinSampler(level.sigma, level.alpha, steps))
    return found


# ---- exactly --------------------------------------------------------------------------------


def diagonal_target() -> GaussianMixtureScore:
    """The target along the diagonal, ``(x + y) / sqrt(2)``."""
    centre = 5 * math.sqrt(2)
    return GaussianMixtureScore.from_components([[centre], [-centre]], 1.0, weights=[0.8, 0.2])


def exact_weights(
    chain: Chain, target: GaussianMixtureScore
) -> tuple[list[tuple[int, float]], GridLaw]:
    """The weight of the heavier mode along a chain, and the law of its end, on the diagonal.

    Args:
        chain: samplers that follow each other; steps without read-out, all alike on a level.
        target: `diagonal_target`.

    Returns:
        Pairs of a number of steps and the weight then (mean responsibility, at the noise of
        those steps); and the last law.
    """
    law, done, curve = start_law(), 0, []
    # The pieces on a level are one chain on its grid, again and again.
    for moves, alike in groupby(pieces(chain), lambda sampler: list(sampler.moves)):
        sampler, sigma = next(alike), moves[0].sigma
        reach = 12 * math.hypot(1, sigma) + 2 * HALF_WIDTH
        piece = GridChain(sampler, target.score, -reach, reach)
        for _ in (sampler, *alike):
            law = piece.run(law)
            done += len(moves)
            shares = target.component_probabilities(torch.from_numpy(law.points)[:, None], sigma)
            curve.append((done, float(law.weights @ shares[:, 0].numpy())))
    return curve, law


def start_law() -> GridLaw:
    """The start along the diagonal: the law of ``(x + y) / sqrt(2)`` is a triangle."""
    reach = HALF_WIDTH * math.sqrt(2)
    # An even number of intervals has a point on the tip, where the trapezoidal rule needs one.
    grid = np.linspace(-reach, reach, 4001)
    weights = (1 - np.abs(grid) / reach) / reach * (grid[1] - grid[0])
    return GridLaw(grid, weights / weights.sum(), np.cumsum(weights) - weights / 2)


# ---- by simulation --------------------------------------------------------------------------


def simulate(chain: Chain, target: GaussianMixtureScore, seed: int) -> torch.Tensor:
    """Samples from the plane, shape (NUM_SAMPLES, 2)."""
    draws = generator(seed)
    state = HALF_WIDTH * (2 * torch.rand(NUM_SAMPLES, 2, generator=draws) - 1)
    for _, sampler in chain:
        pipe = HDPipeline(target, sampler)
        pipe.set_progress_bar_config(disable=True)
        state = pipe(latents=state, generator=draws, return_dict=False)[0]
    return state


def measured(samples: torch.Tensor, target: GaussianMixtureScore, seed: int) -> dict[str, float]:
    """Mode weight and distances to an exact sample of the same size."""
    reference = target.sample(NUM_SAMPLES, generator(2000 + seed))
    weights = mode_weights(samples, target)
    return {
        "weight": float(weights.shares[0]),
        "standard_error": float(weights.standard_errors[0]),
        "wasserstein2": wasserstein2(samples, reference),
        "sliced_wasserstein2": sliced_wasserstein2(samples, reference),
    }


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mean(numbers: dict[str, Any], key: str) -> float:
    return float(np.mean([row[key] for row in numbers["samples"]]))


def _found(numbers: dict[str, Any]) -> str:
    error = math.hypot(*(row["standard_error"] for row in numbers["samples"])) / len(SEEDS)
    return (
        f"{numbers['exact_weight']:.3f} exactly; "
        f"{_mean(numbers, 'weight'):.3f} +- {error:.3f} simulated"
    )


# ---- the picture ----------------------------------------------------------------------------


def draw(numbers: dict[str, Any], pictures: dict[str, torch.Tensor], figure: Any) -> None:
    """Both samples, and the weight along both chains."""
    figure.set_size_inches(12, 4)
    axes = figure.subplots(1, 3)
    for panel, (name, points) in zip(axes, pictures.items(), strict=False):
        panel.scatter(*points.T, s=4, alpha=0.5, linewidths=0)
        panel.set_title(f"{name}: {numbers[name]['exact_weight']:.0%} in the upper mode")
        panel.set(xlim=(-9, 9), ylim=(-9, 9), aspect="equal", xlabel="x", ylabel="y")
    for name in pictures:
        steps, weights = zip(*numbers[name]["weight_curve"], strict=True)
        axes[2].plot(steps, weights, label=name)
    axes[2].axhline(0.8, color="black", linestyle=":", label="truth")
    axes[2].set(xlabel="network evaluations", ylabel="mean responsibility", ylim=(0, 1))
    axes[2].set_title("weight of the upper mode, exactly")
    axes[2].legend(loc="lower right")
