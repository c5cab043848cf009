r"""One denoising step of noisy data: half of it, or the full one, on regular and on singular data.

Beyler and Bach (arXiv 2503.12966) compare :math:`y + \frac12 \sigma^2 s(y, \sigma)` with
:math:`y + \sigma^2 s(y, \sigma) = E[x | y]`. Every distance here is found by quadrature or from
exact Gaussian laws, through the samplers' own ``step``.

On a Gaussian of variance :math:`s^2`, with :math:`V = s^2 + \sigma^2`, both are exact:

.. math::
    W_2 = \frac{V - \sigma^2 / 2}{\sqrt V} - s \; \text{(half)}, \quad
    W_2 = s - \frac{s^2}{\sqrt V} \; \text{(full)}

so they are equal at :math:`\sigma = 2 \sqrt 2 s`. Between two points at :math:`\pm 1` the full step
is off by :math:`W_2^2 \approx (4 - \pi) \sigma e^{-1 / 2 \sigma^2} / \sqrt{2 \pi}`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import brentq

from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.literature.denoising import PowerLaw, label_axes, power_law
from hdzoo.literature.one_step import (
    READOUTS,
    Curves,
    Distances,
    curves,
    mmd,
    on_a_circle,
    on_gaussian,
    subspace,
    two_wide_points,
)
from hdzoo.targets.named import two_gaussians

SIGMAS = (0.4, 0.3, 0.2, 0.15, 0.1, 0.075, 0.05)
# Below 0.15 the full step is off by less than the rounding of a distribution function.
POINTS_SIGMAS = (0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15)
WIDTH_SIGMAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
WIDE_SIGMAS = tuple(np.geomspace(0.2, 6.4, 16).tolist())
DIMENSIONS = (16, 64, 256)
# Where full is worst on the circle, compared with half.
CIRCLE_CLOSEST = 1.12

Columns = dict[str, list[float]]


# ---- where they cross ---------------------------------------------------------------------------


def balance(distances: Distances) -> float:
    """The logarithm of half's distance over full's: negative where half is better."""
    return math.log(distances["half"] / distances["full"])


def crossing(curve: Callable[[float], Distances], low: float, high: float) -> float:
    """Where half and full are equally good, between two noise levels or widths."""
    return float(brentq(lambda value: balance(curve(value)), low, high, rtol=1e-8))


def width_crossing(curve: Callable[[float, float], Distances], sigma: float) -> float:
    """The same for a curve of width and noise level; the width may be up to that level."""
    return crossing(lambda width: curve(width, sigma), 0.1 * sigma, sigma)


def crossings(functions: Curves) -> dict[str, Any]:
    """Noise levels, and widths of singular data, at which half and full are equally good."""
    wide: dict[str, Callable[[float, float], Distances]] = {
        "two points": two_wide_points,
        "circle": on_a_circle,
    }
    # The directions in the subspace are regular, and outnumber the singular ones.
    almost_all = partial(on_gaussian, subspace(64, 60))
    return {
        "sigma": {
            "Gaussian": crossing(functions["Gaussian"], 1.0, 8.0),
            "two Gaussians": crossing(functions["two Gaussians"], 1.0, 8.0),
            "Laplace": crossing(functions["Laplace"], 1.0, 8.0),
            "uniform": crossing(functions["uniform"], 0.4, 6.0),
        },
        # From the first to the second half is better, though there is no density.
        "circle": [
            crossing(functions["circle"], 0.6, CIRCLE_CLOSEST),
            crossing(functions["circle"], CIRCLE_CLOSEST, 3.0),
        ],
        "subspace of 60 in 64 dimensions": [
            crossing(almost_all, 0.05, 1.0),
            crossing(almost_all, 1.0, 8.0),
        ],
        "width_sigmas": WIDTH_SIGMAS,
        "width": {
            name: [width_crossing(curve, sigma) for sigma in WIDTH_SIGMAS]
            for name, curve in wide.items()
        },
    }


# ---- the reproduction ---------------------------------------------------------------------------


def run(progress: Progress) -> Reproduction:
    """Measures all curves, fits their powers, and finds where they cross."""
    functions = curves()
    results: dict[str, dict[str, list[float]]] = {}
    ratios: dict[str, list[float]] = {}
    for done, (name, curve) in enumerate(functions.items(), 1):
        results[name] = _columns(curve, _sigmas(name))
        if name != "point":
            ratios[name] = [math.exp(balance(curve(sigma))) for sigma in WIDE_SIGMAS]
        progress(
            f"{name}: W2 half {results[name]['half'][2]:.3g}, full {results[name]['full'][2]:.3g} "
            f"at sigma = {_sigmas(name)[2]:g}",
            done,
            len(functions),
        )
    discrepancies = _columns(partial(mmd, two_gaussians(), 6.5), SIGMAS)
    growth = {d: on_gaussian(subspace(d, 8), 0.2) for d in DIMENSIONS}
    progress("crossings, by root finding")
    numbers = {
        "sigmas": {name: _sigmas(name) for name in results},
        "wasserstein2": results,
        "slopes": {
            name: {
                readout: power_law(_sigmas(name), values)._asdict()
                for readout, values in columns.items()
                if min(values) > 1e-15 and (name, readout) != ("two points", "full")
            }
            for name, columns in results.items()
        },
        "mmd_two_gaussians": discrepancies,
        "mmd_slopes": {r: power_law(SIGMAS, v)._asdict() for r, v in discrepancies.items()},
        "subspace_of_8_at_0.2": growth,
        "wide_sigmas": WIDE_SIGMAS,
        "half_over_full": ratios,
        "crossings": crossings(functions),
    }
    return Reproduction(
        title="Half or full denoising, in one step",
        source="Beyler and Bach, Optimal denoising in score-based generative models: the role of "
        "data regularity, arXiv 2503.12966",
        claims=_claims(numbers),
        numbers=numbers,
        draw=lambda figure: draw(figure, numbers),
        conclusion="Which is better is a matter of the noise against the data's own width in each "
        "direction: on a Gaussian half wins up to sigma = 2 sqrt(2) s. Points, curves and "
        "subspaces have no width, and there full wins while the noise is small. Both rates of "
        "regular data need a smooth density: with a kink half is O(sigma^2.5), with a jump both "
        "are O(sigma^1.5) and half is better by a factor of 2.",
        settings={
            "slope_error": "standard error of the least-squares fit of the logarithms, over sigmas",
            "mmd": "Gaussian kernel of bandwidth 1",
            "data": "N(0, 1); .5 N(-1, .6^2) + .5 N(1, .5^2); Laplace(1); uniform on [-1, 1]; "
            "a point; points at -1 and 1; the unit circle; N(0, I) on 8 of 64 dimensions",
        },
    )


def _sigmas(name: str) -> tuple[float, ...]:
    return POINTS_SIGMAS if name == "two points" else SIGMAS


def _columns(curve: Callable[[float], Distances], sigmas: Sequence[float]) -> Columns:
    rows = [curve(sigma) for sigma in sigmas]
    return {readout: [row[readout] for row in rows] for readout in READOUTS}


def _claims(numbers: dict[str, Any]) -> list[Claim]:
    results, slopes, cross = numbers["wasserstein2"], numbers["slopes"], numbers["crossings"]

    def powers(name: str) -> str:
        half, full = (PowerLaw(**slopes[name][readout]) for readout in READOUTS[1:])
        return f"{name} {half} (half) and {full} (full)"

    def at(name: str, sigma: float) -> str:
        place = _sigmas(name).index(sigma)
        half, full = (results[name][readout][place] for readout in READOUTS[1:])
        return f"{name} {half:.3g} and {full:.3g}" if full > 1e-15 else f"{name} {half:.3g} and 0"

    regular, singular = ("Gaussian", "two Gaussians"), ("point", "two points", "circle", "subspace")
    moments = [PowerLaw(**numbers["mmd_slopes"][readout]) for readout in READOUTS[1:]]
    growth = numbers["subspace_of_8_at_0.2"]
    last = {
        (name, readout): power_law(SIGMAS[-3:], results[name][readout][-3:]).exponent
        for name in regular
        for readout in READOUTS[1:]
    }
    sigma, width = cross["sigma"], cross["width"]
    middle = WIDTH_SIGMAS.index(0.3)
    return [
        Claim(
            "Regular densities: half-denoising is better, O(sigma^4) against O(sigma^2) in W2",
            "half is better for regular enough densities (abstract); the rates from a public "
            "summary; numbers not public",
            "; ".join(map(powers, regular))
            + "; on the three smallest sigma "
            + ", ".join(f"{power:.2f}" for power in last.values()),
            all(abs(p - (4 if r == "half" else 2)) < 0.15 for (_, r), p in last.items())
            and all(h < f for n in regular for h, f in _pairs(results[n])),
        ),
        Claim(
            "The same in maximum mean discrepancy, on two Gaussians",
            "O(sigma^4) against O(sigma^2), from a public summary; numbers not public",
            f"{moments[0]} (half) and {moments[1]} (full)",
            abs(moments[0].exponent - 4) < 0.25 and abs(moments[1].exponent - 2) < 0.25,
        ),
        Claim(
            "Singular data: full-denoising is better",
            "better for mixtures of Dirac measures and on subspaces (abstract); numbers not public",
            "at sigma = 0.2, half and full: " + ", ".join(at(name, 0.2) for name in singular),
            all(h > f for n in singular for h, f in _pairs(results[n])),
        ),
        Claim(
            "Full-denoising alleviates the curse of dimension on a linear subspace",
            "it can (abstract); numbers not public",
            "8 dimensions, sigma = 0.2: "
            + ", ".join(
                f"half {growth[d]['half']:.3f} and full {growth[d]['full']:.4f} in d = {d}"
                for d in DIMENSIONS
            ),
            bool(np.ptp([growth[d]["full"] for d in DIMENSIONS]) < 1e-9),
        ),
        Claim(
            "Between the two: a kink (Laplace) and a jump (uniform)",
            "not public",
            f"{powers('Laplace')}; {powers('uniform')}; at sigma = 0.1, half and full: "
            f"{at('Laplace', 0.1)}, {at('uniform', 0.1)}",
        ),
        Claim(
            "The noise level from which full is better",
            "not public",
            f"Gaussian {sigma['Gaussian']:.6f} s, which is 2 sqrt(2) s; two Gaussians "
            f"{sigma['two Gaussians']:.2f}, Laplace {sigma['Laplace']:.2f}, uniform "
            f"{sigma['uniform']:.2f}; two points and 8 of 64 dimensions: at every level up to "
            f"{WIDE_SIGMAS[-1]:g}; circle: but for {_span(cross['circle'])}; 60 of 64 dimensions: "
            f"but for {_span(cross['subspace of 60 in 64 dimensions'])}",
        ),
        Claim(
            "The width of singular data from which half is better",
            "not public",
            f"at sigma = 0.3: {width['two points'][middle]:.4f} around two points, "
            f"{width['circle'][middle]:.4f} around a circle, sigma / 2 sqrt(2) = "
            f"{0.3 / math.sqrt(8):.4f} on a Gaussian",
        ),
    ]


def _span(ends: list[float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def _pairs(columns: Columns) -> list[tuple[float, float]]:
    return list(zip(columns["half"], columns["full"], strict=True))


# ---- the picture --------------------------------------------------------------------------------

COLOURS = {
    "Gaussian": "C0",
    "two Gaussians": "C9",
    "Laplace": "C2",
    "uniform": "C1",
    "point": "k",
    "two points": "C3",
    "circle": "C4",
    "subspace": "C5",
}
LABELS = {"subspace": "8 of 64 dimensions", "point": "one point"}


def draw(figure: Any, numbers: dict[str, Any]) -> None:
    """Four panels: data with a density, singular data, half over full, and where they cross."""
    figure.set_size_inches(13, 10.5)
    panels = figure.subplots(2, 2)
    names = list(COLOURS)
    for axes, chosen, title in (
        (panels[0, 0], names[:4], "Data with a density"),
        (panels[0, 1], names[4:], "Singular data"),
    ):
        for name in chosen:
            for readout, style in (("half", "o-"), ("full", "s--")):
                _draw_curve(axes, numbers, name, readout, style)
        label_axes(
            axes,
            f"{title} (in brackets: the fitted power of $\\sigma$)",
            r"noise level $\sigma$",
            "$W_2$ to the data",
        )
        axes.set_xticks([0.05, 0.1, 0.2, 0.3, 0.4, 0.6])

    ratio, widths = panels[1]
    for name, values in numbers["half_over_full"].items():
        label = LABELS.get(name, name)
        ratio.plot(numbers["wide_sigmas"], values, color=COLOURS[name], label=label)
        if name in numbers["crossings"]["sigma"]:
            ratio.plot(numbers["crossings"]["sigma"][name], 1, "o", color=COLOURS[name])
    ratio.axhline(1, color="k", linewidth=1)
    label_axes(
        ratio,
        "Below 1 half is better, above 1 full (dots: where they are equal)",
        r"noise level $\sigma$",
        "$W_2$ of half over $W_2$ of full",
    )
    ratio.set_xticks([0.2, 0.5, 1, 2, 5])

    cross = numbers["crossings"]
    sigmas = np.array(cross["width_sigmas"])
    for name, values in cross["width"].items():
        label = f"{name}, with Gaussians around"
        widths.plot(sigmas, np.array(values) / sigmas, "o-", color=COLOURS[name], label=label)
    widths.axhline(1 / math.sqrt(8), color="k", label=r"Gaussian: $1 / 2 \sqrt{2}$")
    widths.set(
        title="The width from which half is better",
        xlabel=r"noise level $\sigma$",
        ylabel=r"standard deviation / $\sigma$",
        ylim=(0, 0.6),
    )
    widths.grid(alpha=0.3)
    widths.legend(fontsize=8)


def _draw_curve(axes: Any, numbers: dict[str, Any], name: str, readout: str, style: str) -> None:
    values = numbers["wasserstein2"][name][readout]
    # On one point the full step is exact, up to roundings.
    if max(values) < 1e-15:
        return
    slope = numbers["slopes"][name].get(readout)
    power = f"{slope['exponent']:.2f}" if slope else r"as $e^{-1/4\sigma^2}$"
    label = f"{LABELS.get(name, name)}, {readout} ({power})"
    colour = COLOURS[name]
    axes.plot(numbers["sigmas"][name], values, style, color=colour, label=label, markersize=5)
