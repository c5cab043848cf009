r"""Discrete Langevin dynamics on noisy signs: one stage, two stages, Metropolis, exactly.

Zhang, Liu and Liu (arXiv 2206.09914) draw all signs at once from a Langevin step restricted to
them; Bach and Saremi (arXiv 2502.00557) walk so on signs with bit-flip noise, in one stage or two,
and jump to clean ones by the denoiser. All numbers here are from transition matrices on all
points, without chance.
"""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from scipy import stats

from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo_binary import exact
from hdzoo_binary.signs import JUMPS, SCORES, flip_probability
from hdzoo_binary.targets import SignsMixtureScore, independent_signs, signs_mixture

STEP_SIZES = tuple(np.geomspace(0.15, 6.0, 14).round(4).tolist())
SIGMAS = (1.0, 2.0)
NOISES = (0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
MEASUREMENTS = (1, 2, 3, 4, 6, 8, 12, 16)
SPIN_STEPS = (1.0, 0.5, 0.25, 0.125)
# Of a single measurement: a third of the signs are turned over.
MEASURED_AT = 1.7

Curve = list[float]


def total_variations(model: SignsMixtureScore, sigma: float) -> dict[str, Curve]:
    """Of the stationary laws to the noisy signs, along the step sizes."""
    law = exact.noisy_law(model, sigma)
    tables = {kind: exact.scores(model, sigma, kind) for kind in SCORES}
    curves: dict[str, Curve] = {}
    for step_size in STEP_SIZES:
        matrices = {
            f"{name}, {kind}": kernel(tables[kind], step_size)
            for name, kernel in (("one stage", exact.one_stage), ("two stages", exact.two_stage))
            for kind in SCORES
        }
        matrices["Metropolis"] = exact.metropolis(tables["difference"], law.log(), step_size)
        for name, matrix in matrices.items():
            distance = exact.total_variation(exact.stationary(matrix), law)
            curves.setdefault(name, []).append(distance)
    return curves


def relaxation_times(model: SignsMixtureScore, step_size: float) -> dict[str, Curve]:
    """In steps, against the noise."""
    times: dict[str, Curve] = {"Metropolis": [], "two stages": []}
    for sigma in NOISES:
        scores = exact.scores(model, sigma, "difference")
        law = exact.noisy_law(model, sigma)
        adjusted = exact.metropolis(scores, law.log(), step_size)
        times["Metropolis"].append(exact.relaxation_time(adjusted))
        times["two stages"].append(exact.relaxation_time(exact.two_stage(scores, step_size)))
    return times


def jumps(model: SignsMixtureScore, sigma: float) -> dict[str, Curve]:
    """The total variation of the jump from ``m`` exact measurements to the data."""
    points, turned = exact.states(model.dimension), flip_probability(sigma)
    data = model.log_density(points, 0.01).softmax(0)
    found: dict[str, Curve] = {kind: [] for kind in JUMPS}
    for m in MEASUREMENTS:
        # How many measurements of a sign are 1, where it is 1 and where it is not.
        ones = np.arange(m + 1)
        law = np.zeros((m + 1) ** model.dimension)
        for weight, means in zip(model.weights.tolist(), model.means.tolist(), strict=True):
            joint = np.array(weight)
            for mean in means:
                up, down = (stats.binom.pmf(ones, m, p) for p in (1 - turned, turned))
                joint = np.multiply.outer(joint, (1 + mean) / 2 * up + (1 - mean) / 2 * down)
            law += joint.ravel()
        counts = list(product(ones.tolist(), repeat=model.dimension))
        averages = 2 * torch.tensor(counts, dtype=torch.float64) / m - 1
        clean = model.denoise(averages, sigma / m**0.5)
        sides = torch.where(clean < 0, -1.0, 1.0).double()
        laws = {"sign": 40 * sides, "rounding": 2 * clean.atanh()}
        for kind, logits in laws.items():
            end = torch.from_numpy(law) @ exact.independent(logits)
            found[kind].append(exact.total_variation(end, data))
    return found


def spins(side: int = 3, coupling: float = 0.2, field: float = 0.1) -> Curve:
    """One stage on Ising spins themselves, without noise: total variation along `SPIN_STEPS`."""
    points = exact.states(side**2)
    square = points.view(-1, side, side)
    around = torch.stack([square.roll(shift, axis) for axis in (1, 2) for shift in (1, -1)]).sum(0)
    scores = field + coupling * around.flatten(1)
    law = ((scores + field) * points).sum(1).div(2).softmax(0)
    matrices = (exact.one_stage(scores, step_size) for step_size in SPIN_STEPS)
    return [exact.total_variation(exact.stationary(matrix), law) for matrix in matrices]


def run(progress: Progress) -> Reproduction:
    """Computes all curves."""
    model, parts = signs_mixture(), len(SIGMAS) + 4
    curves = {}
    for done, sigma in enumerate(SIGMAS, 1):
        curves[f"{sigma:g}"] = total_variations(model, sigma)
        progress(f"total variation at sigma = {sigma:g}", done, parts)
    small = SignsMixtureScore.from_components(
        [[0.8, 0.8, 0.8, 0.8], [0.8, 0.8, -0.8, -0.8], [-0.8] * 4], [0.5, 0.3, 0.2]
    )
    numbers: dict[str, Any] = {
        "step_sizes": STEP_SIZES,
        "total_variation": curves,
        "independent_signs": total_variations(independent_signs(), 1.0),
        "sigmas": NOISES,
        "flip_probabilities": [flip_probability(sigma) for sigma in NOISES],
        "relaxation_time": relaxation_times(model, 1.0),
        "measurements": MEASUREMENTS,
        "jump": jumps(small, MEASURED_AT),
        "spin_step_sizes": SPIN_STEPS,
        "spins": spins(),
    }
    progress("relaxation times, measurements and spins", parts, parts)
    return Reproduction(
        title="Discrete Langevin dynamics: one stage, two stages, Metropolis",
        source="Zhang, Liu and Liu, A Langevin-like sampler for discrete distributions, arXiv "
        "2206.09914; Bach and Saremi, Sampling binary data by denoising through score functions, "
        "arXiv 2502.00557",
        claims=claims(numbers),
        numbers=numbers,
        draw=lambda figure: draw(figure, numbers),
        conclusion="With the gradient of log q, as published, no walk but Metropolis converges to "
        "the noisy signs as the step becomes small, and two stages then have twice the bias of "
        "one: the law is not log-quadratic. With half the difference of log q, exact and from the "
        "same denoiser, both do, and two stages are nearer at every step size.",
        settings={
            "data": "three patterns of 8 signs, each sign wrong with probability 0.1; jumps: of 4 "
            "signs; independent signs: 6 of means -0.8 to 0.9; spins: 3 x 3 on a torus, coupling "
            "0.2, field 0.1",
            "relaxation_time": "step size 1",
            "jump": f"sigma = {MEASURED_AT:g} of one measurement, drawn exactly",
        },
    )


def claims(numbers: dict[str, Any]) -> list[Claim]:
    """What is published, and what is found here."""
    low, high = numbers["total_variation"].values()
    alone, times = numbers["independent_signs"], numbers["relaxation_time"]["Metropolis"]
    place = STEP_SIZES.index(min(STEP_SIZES, key=lambda a: abs(a - 1)))

    def at(curves: dict[str, Curve], index: int, kind: str) -> str:
        one, two = (curves[f"{name}, {kind}"][index] for name in ("one stage", "two stages"))
        return f"{one:.3g} and {two:.3g}"

    return [
        Claim(
            "The bias of a discrete Langevin step vanishes with it on log-quadratic laws",
            "it is zero (abstract); numbers not public",
            "Ising spins, total variation at alpha = " + along(SPIN_STEPS, numbers["spins"]),
            numbers["spins"][-1] < 1e-3,
        ),
        Claim(
            "With an accept test there is none",
            "Metropolis-adjusted (abstract)",
            f"total variation at most {max(low['Metropolis'] + high['Metropolis']):.1g}",
            max(low["Metropolis"] + high["Metropolis"]) < 1e-8,
        ),
        Claim(
            "Two stages leave independent signs as they are, at any step",
            "not public",
            f"one stage and two at alpha = {STEP_SIZES[place]:g}: {at(alone, place, 'difference')} "
            f"by the difference, {at(alone, place, 'gradient')} by the gradient; at most "
            f"{max(alone['two stages, difference']):.0e} at any by the difference",
        ),
        Claim(
            "Two stages are nearer than one on a mixture",
            "both are analysed (abstract); which is nearer is not public",
            "; ".join(
                f"sigma = {sigma}, alpha = {STEP_SIZES[i]:g}: {at(curves, i, kind)} by the {kind}"
                for sigma, curves in numbers["total_variation"].items()
                for i in (0, place)
                for kind in SCORES
            ),
        ),
        Claim(
            "At high noise sampling is easy",
            "akin to log-concave sampling (abstract); numbers not public",
            "relaxation time of Metropolis in steps, at sigma = " + along(NOISES, times),
            all(after < before for before, after in pairwise(times)),
        ),
        Claim(
            "Measurements at a fixed noise bring the effective noise down",
            "they do (abstract); numbers not public",
            "total variation of the jump to the data, by sign and by rounding: "
            + ", ".join(
                f"m = {m}: {sign:.2g} and {rounding:.2g}"
                for m, sign, rounding in zip(
                    MEASUREMENTS, numbers["jump"]["sign"], numbers["jump"]["rounding"], strict=True
                )
            ),
            all(curve[-1] < curve[0] / 4 for curve in numbers["jump"].values()),
        ),
    ]


def along(values: Sequence[float], curve: Curve) -> str:
    """A curve in words."""
    return ", ".join(f"{value:g}: {y:.2g}" for value, y in zip(values, curve, strict=True))


# ---- the picture --------------------------------------------------------------------------------

COLOURS = {"one stage": "C3", "two stages": "C0", "Metropolis": "k"}


def draw(figure: Any, numbers: dict[str, Any]) -> None:
    """Four panels: total variation against the step at two noises, relaxation, measurements."""
    figure.set_size_inches(12, 9)
    panels = figure.subplots(2, 2)
    for axes, (sigma, curves) in zip(panels[0], numbers["total_variation"].items(), strict=True):
        for name, curve in curves.items():
            walk, _, kind = name.partition(", ")
            # Metropolis is exact, and below the picture.
            label = name if kind else f"{name}: below {max(curve):.0e}"
            style = {"gradient": "s--", "difference": "o-", "": "x-"}[kind]
            axes.plot(STEP_SIZES, curve, style, color=COLOURS[walk], label=label, markersize=4)
        axes.set(
            xscale="log",
            yscale="log",
            ylim=(1e-5, 1),
            xticks=(ticks := [0.2, 0.5, 1, 2, 5]),
            xticklabels=[f"{tick:g}" for tick in ticks],
            xlabel=r"step size $\alpha$",
            ylabel="total variation to the noisy signs",
            title=rf"$\sigma$ = {sigma}: {flip_probability(float(sigma)):.0%} are turned over",
        )
        axes.minorticks_off()
    times, jump = panels[1]
    for name, curve in numbers["relaxation_time"].items():
        times.plot(NOISES, curve, "o-", color=COLOURS[name], label=name)
    times.set(
        yscale="log",
        xlabel=r"noise level $\sigma$",
        ylabel="relaxation time, steps",
        title=r"How long a walk remembers ($\alpha$ = 1)",
    )
    for kind, curve in numbers["jump"].items():
        jump.plot(MEASUREMENTS, curve, "o-", label=f"jump by {kind}")
    jump.set(
        yscale="log",
        xlabel="measurements",
        ylabel="total variation to the data",
        title=rf"Exact measurements at $\sigma$ = {MEASURED_AT:g}, then a jump",
    )
    for axes in panels.ravel():
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
