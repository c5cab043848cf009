"""Images beside their nearest data, and how near real images are, as a picture."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hdzoo.metrics.image_sets import ImageSet
from hdzoo.metrics.neighbours import Distances, Neighbours
from hdzoo.plots import COLOURS

PANEL_INCHES, CHART_INCHES = 0.85, 2.6
BINS = 40
# Points above a picture, beyond its title.
HEADING = 11


def neighbours_figure(found: Neighbours, num_shown: int = 8) -> Figure:
    """Rows of an image and its nearest data, with distances; below, all distances beside real ones.

    The images shown are those that are nearest to the data, by the last of the distances: if one is
    a copy, it is among them.

    Args:
        found: the neighbours.
        num_shown: how many images at most.
    """
    order = np.argsort(found.distances[-1].values[:, 0], kind="stable")[:num_shown]
    k = found.distances[0].values.shape[1]
    # A narrow column parts the groups.
    widths = [1.0] + [0.25, *[1.0] * k] * len(found.distances)
    height = PANEL_INCHES * 1.2 * len(order)
    figure = Figure((PANEL_INCHES * sum(widths) + 0.4, height + CHART_INCHES), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, CHART_INCHES])
    above, below = parts
    axes: Any = above.subplots(len(order), len(widths), squeeze=False, width_ratios=widths)
    for ax in axes.flat:
        ax.set_axis_off()
    above.suptitle(
        f"the nearest to the data by {found.distances[-1].name}, of {len(found.chosen):,}",
        fontsize=9,
    )
    shown = _pictures(found.images, [found.chosen[i] for i in order])
    columns = [slice(2 + g * (k + 1), 2 + g * (k + 1) + k) for g in range(len(found.distances))]
    for row, picture in zip(axes, shown, strict=True):
        _show(row[0], picture, "")
    axes[0, 0].set_title("image", fontsize=7, pad=HEADING)
    for one, places in zip(found.distances, columns, strict=True):
        heading = {"xy": (0, 1), "xytext": (0, HEADING), "textcoords": "offset points"}
        first, text = axes[0, places.start], f"nearest by {one.name}"
        words = first.annotate(text, xycoords="axes fraction", fontsize=7, **heading)
        # It is wider than its column; the title of the first one has made room above.
        words.set_in_layout(False)
        near = _pictures(found.data, one.indices[order].ravel().tolist())
        values = one.values[order].ravel()
        for ax, picture, value in zip(axes[:, places].flat, near, values, strict=True):
            _show(ax, picture, f"{value:.3g}")
    charts: Any = below.subplots(1, len(found.distances), squeeze=False)[0]
    for ax, one in zip(charts, found.distances, strict=True):
        _draw_distances(ax, one)
    return figure


def _draw_distances(ax: Any, one: Distances) -> None:
    found = one.nearest
    both = np.concatenate([found.images, found.real])
    bins = np.linspace(both.min(), both.max(), BINS) if np.ptp(both) else BINS
    sets = [("images", found.images), ("real, not in the data", found.real)]
    for colour, (name, values) in zip(COLOURS, sets, strict=False):
        if len(values):
            # Each adds up to 1, whatever its number of images.
            weights = np.full(len(values), 1 / len(values))
            ax.hist(values, bins, weights=weights, histtype="step", color=colour, label=name)
    for value in found.quantiles.values():
        ax.axvline(value, color="grey", linewidth=0.7, linestyle=":")
    lines = []
    told = ", ".join(f"{q:.0%}" for q in found.quantiles)
    last = f"the same, relative to number {one.values.shape[1]}"
    for what, compared in ((f"nearer than {told} of the real", found), (last, one.relative)):
        shares = [compared.share(q) for q in compared.quantiles]
        if shares:
            said = ", ".join(f"{share:.1%} ± {error:.1%}" for share, error in shares)
            lines.append(f"{what}: {said}")
    ax.set_title("\n".join(lines), fontsize=6)
    ax.set(xlabel=f"distance to the nearest, by {one.name}", ylabel="share")
    ax.xaxis.label.set_size(7)
    ax.yaxis.label.set_size(7)
    ax.tick_params(labelsize=6)
    ax.legend(fontsize=6, loc="upper right")


def _pictures(images: ImageSet, indices: list[int]) -> list[torch.Tensor]:
    """Bytes, shape (height, width, 3) each."""
    return [one for batch in images.batches(64, indices) for one in batch.permute(0, 2, 3, 1)]


def _show(ax: Any, picture: torch.Tensor, title: str) -> None:
    ax.imshow(picture.numpy(), interpolation="nearest")
    ax.set_title(title, fontsize=6, pad=2)
