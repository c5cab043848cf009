"""A sampler in the wind tunnel: its exact law on Gaussian data, and its bias."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from hdzoo import plugins
from hdzoo.app.limits import check_samplers, whole
from hdzoo.app.worker import Tell, in_steps
from hdzoo.checks import NOISE_LEVEL, NOT_NEGATIVE, POSITIVE, Maybe, Whole
from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.plots import COLOURS
from hdzoo.verification.bias import bias_curves
from hdzoo.verification.laws import Gaussian, laws_along
from hdzoo.verification.small import option_names

# The cost of a law is the square of their number.
MOST_EVALUATIONS = 200
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
DPI = 110

Curves = dict[str, dict[float, float]]


@dataclass(frozen=True)
class Setting:
    """What a visitor asks for, checked.

    Attributes:
        sampler: a registered name.
        num_inference_steps: network evaluations.
        spreads: the standard deviations of the data, in three directions.
        options: of the sampler, over its defaults.
    """

    sampler: str
    num_inference_steps: int
    spreads: tuple[float, ...]
    options: dict[str, Any]

    @property
    def target(self) -> Gaussian:
        """The law of the data."""
        return Gaussian.of([0.0] * len(self.spreads), [spread**2 for spread in self.spreads])


@dataclass(frozen=True)
class Measured:
    """What has been measured.

    Attributes:
        setting: of what.
        sigmas: the noise level of each state, 0 at the end.
        deviations: the standard deviation of each state along each direction.
        distance: the exact Wasserstein-2 distance of the output to the data.
        curves: that distance against the settings, as far as it is known (`bias_curves`).
    """

    setting: Setting
    sigmas: np.ndarray
    deviations: np.ndarray
    distance: float
    curves: Curves

    @property
    def rows(self) -> list[dict[str, str]]:
        """The output's law beside the data's."""
        return [
            {
                "": name,
                "the data's": f"{spread:.4g}",
                "the sampler's": f"{found:.4g}",
                "ratio": f"{found / spread:.3g}" if spread else "",
            }
            for name, spread, found in zip(
                ("broad direction", "narrow direction", "flat direction"),
                self.setting.spreads,
                self.deviations[-1],
                strict=True,
            )
        ]


def knobs(sampler: Any) -> tuple[bool, str | None]:
    """What there is to turn of a sampler: whether a step size, and the name of a noise level."""
    (name,) = check_samplers([sampler], plugins.list_samplers())
    known = option_names(plugins.get_sampler(name))
    level = next((option for option in ("sigma", "sigma_min") if option in known), None)
    return "step_size" in known, level


def check_setting(
    sampler: Any, steps: Any, step_size: Any, level: Any, broad: Any, narrow: Any
) -> Setting:
    """A setting from what is in the fields of the page.

    Args:
        sampler: a registered name.
        steps: network evaluations.
        step_size: in squares of the noise level; None or 0 for the sampler's own.
        level: the only or the lowest noise level; None or 0 for the sampler's own.
        broad: the data's standard deviation in one direction.
        narrow: in another; in the third it is 0.

    Raises:
        HDZooError: something is not allowed.
    """
    has_step_size, level_name = knobs(sampler)
    count = Whole(1, MOST_EVALUATIONS)("the number of evaluations", whole("evaluations", steps))
    spreads = (POSITIVE("broad", broad), POSITIVE("narrow", narrow), 0.0)
    factor = Maybe(NOT_NEGATIVE)("step_size", step_size)
    options: dict[str, Any] = {}
    if level_name is not None and level not in (None, 0):
        options[level_name] = NOISE_LEVEL(level_name, level)
    if has_step_size and level_name is not None and factor:
        default = plugins.get_sampler(sampler)()
        sigma = options.get(level_name, default.config[level_name])
        options["step_size"] = factor * sigma**2
    return Setting(sampler, count, spreads, options)


def measure(setting: Setting) -> Iterator[Measured | None]:
    """Measures, and yields what is known: the law first, then the curves, point by point.

    Raises:
        HDZooError: the sampler has no exact law of this kind, or refuses the setting.
    """

    def work(tell: Tell[Measured]) -> None:
        sampler_class = plugins.get_sampler(setting.sampler)
        sampler = sampler_class(**setting.options)
        sampler.set_timesteps(setting.num_inference_steps)
        laws = laws_along(sampler, setting.target)
        spreads = np.array([np.sqrt(np.diag(law.covariance).clip(min=0)) for law in laws])
        sigmas = np.asarray(sampler.sigmas.tolist(), dtype=float)
        distance = gaussian_wasserstein2(*laws[-1], *setting.target)
        curves: Curves = {}

        def show() -> None:
            tell(Measured(setting, sigmas, spreads, distance, {k: dict(curves[k]) for k in curves}))

        def on_value(option: str, value: float, found: float) -> None:
            curves.setdefault(option, {})[value] = found
            show()

        show()
        bias_curves(
            sampler_class,
            setting.target,
            options=setting.options,
            budget=setting.num_inference_steps,
            on_value=on_value,
        )

    return in_steps(work)


# ---- the pictures ---------------------------------------------------------------------------


def pictures(measured: Measured) -> list[tuple[str, Image.Image]]:
    """The law along the chain, and the distance against each setting; with what they show."""
    found = [(f"Spread along the chain ({measured.setting.sampler})", law_figure(measured))]
    words = {
        "num_inference_steps": "evaluations",
        "step_size": "step size",
        "sigma_min": "lowest noise level",
        "sigma": "noise level",
    }
    for option, word in words.items():
        curve = measured.curves.get(option)
        if curve:
            found.append(
                (f"Distance to the data against the {word}", curve_figure(measured, option, word))
            )
    return [(title, as_image(figure)) for title, figure in found]


def law_figure(measured: Measured) -> Figure:
    """The standard deviation of each state along each direction, and what it should be."""
    figure, axes = _axes()
    steps = np.arange(len(measured.deviations))
    for i, (spread, colour) in enumerate(zip(measured.setting.spreads, COLOURS, strict=False)):
        noisy = np.hypot(spread, np.resize(measured.sigmas, len(steps)))
        axes.plot(steps, noisy, color=colour, ls=":", lw=1.2)
        axes.plot(
            steps, measured.deviations[:, i], color=colour, lw=2, label=f"data's s.d. {spread:g}"
        )
    axes.set(yscale="log", xlabel="evaluations", ylabel="standard deviation of the state")
    axes.plot([], [], color="#555555", ls=":", label=f"data with noise {SIGMA}")
    axes.legend(fontsize=8)
    return figure


def curve_figure(measured: Measured, option: str, word: str) -> Figure:
    """The exact distance to the data against one setting."""
    figure, axes = _axes()
    points = sorted(measured.curves[option].items())
    axes.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o")
    own = (
        measured.setting.num_inference_steps
        if option == "num_inference_steps"
        else measured.setting.options.get(option)
    )
    if own is not None:
        axes.plot([own], [measured.distance], color=COLOURS[1], marker="D", ms=9, ls="")
    # A distance of 0 has no logarithm.
    values = [value for _, value in points]
    scale = "log" if min(values) > 0 and max(values) > 3 * min(values) else "linear"
    axes.set(xscale="log", yscale=scale, xlabel=word, ylabel="exact Wasserstein-2 distance")
    axes.set_xticks([at for at, _ in points], [f"{at:.3g}" for at, _ in points])
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 3.3), dpi=DPI, layout="constrained")
    axes: Any = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def as_image(figure: Figure) -> Image.Image:
    """A figure as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def said(measured: Measured) -> str:
    """The one number, in words."""
    distance = measured.distance
    value = f"{distance:.3g}" if math.isfinite(distance) else "infinite: the chain diverges"
    return f"Exact Wasserstein-2 distance to the data: {value}"
