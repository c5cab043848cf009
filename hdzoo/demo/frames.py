"""The pictures of `hdzoo.demo.demo`: chains in the plane, on the density they see."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from hdzoo.files import whole_file
from hdzoo.targets.analytic import AnalyticScore
from hdzoo.text import counted

Array = npt.NDArray[Any]

# The half side of a picture over that of the box around the data: most of the noise to start from
# is inside.
MARGIN = 1.7
PANEL_INCHES, TITLE_INCHES, HEAD_INCHES, DPI = 4.0, 0.45, 0.3, 100
GRID_POINTS = 120
ARROWS = 17
HIGHLIGHTED = 8
TAIL_STEPS = 8
# Of the law in the background, what the regions hold, from the palest shade on.
HELD = (0.95, 0.8, 0.5)
# Blue and vermilion differ for every kind of colour vision (Okabe and Ito).
SHADES = ("#e1ecf7", "#b3d1ea", "#74add6")
ARROW, CHAIN, TAIL = "#5a6570", "#d55e00", "#000000"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
NUM_COLOURS = 64
MILLISECONDS, FIRST_MILLISECONDS, LAST_MILLISECONDS = 100, 800, 4000


@dataclass(frozen=True)
class Chains:
    """The chains of one sampler.

    Attributes:
        name: of the sampler.
        sigmas: the noise level of each of N network evaluations, and 0; length N + 1.
        states: the start and the state after each evaluation, shape (N + 1, n, 2).
        from_noise: whether the sampler is made to start from nothing but noise.
    """

    name: str
    sigmas: list[float]
    states: torch.Tensor
    from_noise: bool = True


class View(NamedTuple):
    """What the background shows.

    Attributes:
        name: of the target.
        target: the law, of dimension 2.
        centre: the middle of the picture.
        extent: half of the longer side of the box around the data.
    """

    name: str
    target: AnalyticScore
    centre: tuple[float, float]
    extent: float


def draw_frames(
    view: View,
    chains: Sequence[Chains],
    num_frames: int,
    on_frame: Callable[[Image.Image], None] | None = None,
) -> list[Image.Image]:
    """Draws the chains side by side, at most three in a row.

    A panel shows a state, and the law and the score that its sampler is about to use: those at the
    noise level of the next evaluation, and at the end the law of the data.

    Args:
        view: the background.
        chains: all of as many steps.
        num_frames: how many pictures, evenly over the steps, the first and the last included; no
            more than there are states.
        on_frame: called with each.
    """
    rows = math.ceil(len(chains) / 3)
    columns = math.ceil(len(chains) / rows)
    # The captions need the width of one and a half panels.
    width = max(columns, 1.5) * PANEL_INCHES
    caption = _caption(chains)
    foot = 0.15 * (caption.count("\n") + 1) + 0.1
    height = rows * (PANEL_INCHES + TITLE_INCHES) + foot + HEAD_INCHES
    figure = Figure((width, height), DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(view.name, x=0.5, y=1 - 0.1 / height, fontsize=13, weight="bold")
    figure.text(0.5, 0.1 / height, caption, ha="center", fontsize=8, linespacing=1.4)
    figure.subplots_adjust(
        left=0.1 / width,
        right=1 - 0.1 / width,
        bottom=foot / height,
        top=1 - (HEAD_INCHES + TITLE_INCHES) / height,
        wspace=0.04,
        hspace=0.13,
    )
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for unused in axes[len(chains) :]:
        unused.set_axis_off()
    background = _Background(view)
    panels = [_Panel(ax, background, one) for ax, one in zip(axes, chains, strict=False)]
    frames = []
    for step in frame_steps(len(chains[0].states) - 1, num_frames):
        for panel in panels:
            panel.show(step)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
        if on_frame is not None:
            on_frame(frames[-1])
    return frames


def frame_steps(num_steps: int, num_frames: int) -> list[int]:
    """After how many of a chain's evaluations there is a picture of it."""
    count = min(num_frames, num_steps + 1)
    return [round(num_steps * i / (count - 1)) for i in range(count)]


def _caption(chains: Sequence[Chains]) -> str:
    num_samples = chains[0].states.shape[1]
    shades = " / ".join(f"{100 * held:.0f}" for held in HELD)
    lines = [
        f"{counted(num_samples, 'chain')} of each, from the same noise; "
        f"{min(HIGHLIGHTED, num_samples)} with their last {TAIL_STEPS} steps",
        f"shades: hold {shades} % of the target with noise {SIGMA}, that of the next evaluation",
        "arrows: its score, long ones shortened",
    ]
    single = [one.name for one in chains if not one.from_noise]
    if single:
        lines.append(f"made to start from states at their one noise level: {', '.join(single)}")
    return "\n".join(lines)


class _Shown(NamedTuple):
    """A law at a noise level.

    Attributes:
        density: its logarithm on the grid, shape (GRID_POINTS, GRID_POINTS).
        bounds: between the shades, ascending; one more than there are shades.
        arrows: along the two axes, shape (2, ARROWS, ARROWS).
    """

    density: Array
    bounds: list[float]
    arrows: Array


class _Background:
    """The target in the picture, computed once for each noise level."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.half = MARGIN * view.extent
        x, y = view.centre
        side = np.linspace(-self.half, self.half, GRID_POINTS)
        self.grid = np.meshgrid(x + side, y + side)
        self.spacing = side[1] - side[0]
        middles = ((np.arange(ARROWS) + 0.5) / ARROWS * 2 - 1) * self.half
        self.feet = np.meshgrid(x + middles, y + middles)
        generator = torch.Generator().manual_seed(0)
        # The same at all levels, so that the shades do not flicker.
        self.clean = view.target.sample(4000, generator).double()
        self.noise = torch.randn(self.clean.shape, generator=generator).double()
        self.known: dict[float, _Shown] = {}

    def at(self, sigma: float) -> _Shown:
        """The law at a noise level; at 0, that of the data."""
        if sigma not in self.known:
            self.known[sigma] = _Shown(*self._shades(sigma), self._arrows(sigma))
        return self.known[sigma]

    def _shades(self, sigma: float) -> tuple[Array, list[float]]:
        # Noise of the grid's spacing is exact anti-aliasing, and gives data on a curve a density.
        level = math.hypot(sigma, self.spacing)
        density = self.view.target.log_density(self._points(self.grid), level)
        # A region where the density is above its own quantile holds a part of the law that is
        # known, be the region in the picture or not.
        drawn = self.view.target.log_density(self.clean + level * self.noise, level)
        bounds = drawn.quantile(1 - torch.tensor(HELD, dtype=drawn.dtype)).tolist()
        highest = max(float(density.max()), bounds[-1]) + 1
        return density.view(GRID_POINTS, GRID_POINTS).numpy(), [*bounds, highest]

    def _arrows(self, sigma: float) -> Array:
        score = self.view.target.score(self._points(self.feet), sigma or self.spacing).flatten(1)
        norm = score.norm(dim=1, keepdim=True)
        # Scores span orders of magnitude; those below the median are about in proportion.
        longest = 0.85 * 2 * self.half / ARROWS
        arrows = longest * score / (norm + norm.median()).clamp(min=1e-300)
        return arrows.T.reshape(2, ARROWS, ARROWS).numpy()

    def _points(self, grid: Sequence[Array]) -> torch.Tensor:
        points = torch.from_numpy(np.stack(grid, -1).reshape(-1, 2))
        return points.view(-1, *self.view.target.sample_shape)


class _Panel:
    """One sampler's part of the figure."""

    def __init__(self, ax: Any, background: _Background, chains: Chains) -> None:
        self.ax, self.background, self.chains = ax, background, chains
        (x, y), half = background.view.centre, background.half
        ax.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[])
        ax.set_aspect("equal", anchor="N")
        self.sigma: float | None = None
        self.shades: Any = None
        self.arrows = ax.quiver(
            *background.feet,
            *np.zeros((2, ARROWS, ARROWS)),
            color=ARROW,
            alpha=0.75,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0028,
            headwidth=4,
            zorder=2,
        )
        self.dots = ax.scatter([], [], s=7, linewidths=0, alpha=0.8, zorder=3)
        self.tails = LineCollection([], linewidths=0.9, zorder=4)
        ax.add_collection(self.tails, autolim=False)
        self.heads = ax.scatter([], [], s=24, edgecolors=TAIL, linewidths=0.9, zorder=5)
        for points in (self.dots, self.heads):
            # With a single colour they would be stamped at whole pixels, off by up to one.
            points.set_facecolor([CHAIN, CHAIN])

    def show(self, step: int) -> None:
        """Shows the state after so many evaluations."""
        states, sigma = self.chains.states, self.chains.sigmas[step]
        last = len(states) - 1
        level = f"{SIGMA} = {sigma:.3g}" if step < last else f"{SIGMA} = 0: the data"
        self.ax.set_title(f"{self.chains.name}\nNFE {step} of {last}, {level}", fontsize=9.5)
        if sigma != self.sigma:
            self.sigma = sigma
            self._show_law(self.background.at(sigma))
        self.dots.set_offsets(states[step, HIGHLIGHTED:])
        self.heads.set_offsets(states[step, :HIGHLIGHTED])
        # Each step of a tail is a line of its own, the older the paler.
        tails = states[max(0, step - TAIL_STEPS) : step + 1, :HIGHLIGHTED].numpy()
        steps = np.stack([tails[:-1], tails[1:]], axis=2)
        ages = np.arange(len(steps))[::-1].repeat(steps.shape[1])
        self.tails.set_segments(list(steps.reshape(-1, 2, 2)))
        self.tails.set_color([(TAIL, 0.8 * (1 - age / TAIL_STEPS)) for age in ages])

    def _show_law(self, law: _Shown) -> None:
        if self.shades is not None:
            self.shades.remove()
        self.shades = self.ax.contourf(
            *self.background.grid, law.density, levels=law.bounds, colors=SHADES, zorder=1
        )
        self.arrows.set_UVC(*law.arrows)


def save_gif(frames: Sequence[Image.Image], path: Path, made_by: dict[str, Any]) -> None:
    """Writes an animated GIF that waits at its start, and rests on its last frame.

    Args:
        frames: the pictures.
        path: where to.
        made_by: written as JSON into its comment.
    """
    # One palette for all, or the colours would flicker. Its near whites would stand in for white.
    middle = frames[len(frames) // 2].quantize(NUM_COLOURS, dither=Image.Dither.NONE)
    colours = np.reshape(middle.getpalette() or [], (-1, 3))
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *colours[colours.min(1) < 248].flatten().tolist()])
    paletted = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FIRST_MILLISECONDS, *[MILLISECONDS] * (len(frames) - 2), LAST_MILLISECONDS]
    with whole_file(path) as partial:
        paletted[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=paletted[1:],
            duration=durations,
            loop=0,
            comment=json.dumps(made_by).encode(),
        )
