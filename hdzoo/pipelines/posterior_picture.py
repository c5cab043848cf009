"""An image's posterior as a picture: means, an uncertainty map, and the leading directions."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hdzoo.pipelines.posterior import ImagePosterior

PANEL_INCHES, HEAD_INCHES = 2.1, 0.5
SIGMA, LAMBDA, MINUS = "\N{GREEK SMALL LETTER SIGMA}", "\N{GREEK SMALL LETTER LAMDA}", "\u2212"


def posterior_figure(found: ImagePosterior) -> Figure:
    """The image, noisy and denoised, and the posterior standard deviation of each pixel.

    Below, a row for each direction: the denoised image less and more one standard deviation of
    that, and the direction itself. Of colours, the deviation is the root of their mean variance,
    and a direction is shown as colours around grey, which is 0.

    Args:
        found: the posterior.
    """
    count = found.directions.values.shape[1]
    rows = 1 + count
    figure = Figure((4.6 * PANEL_INCHES, rows * PANEL_INCHES + HEAD_INCHES), layout="constrained")
    axes: Any = figure.subplots(rows, 4, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    top, sigma = axes[0], f"{SIGMA} = {found.numbers['sigma']:g}"
    if found.image is not None:
        _show(top[0], found, found.image, "image")
    _show(top[1], found, found.noisy, f"noisy, {sigma}")
    _show(top[2], found, found.denoised, "denoised")
    deviation = found.diagonal.variances[0].mean(0).clamp(min=0).sqrt()
    shown = top[3].imshow(deviation.numpy(), cmap="viridis", vmin=0)
    top[3].set_title("standard deviation", fontsize=9)
    figure.colorbar(shown, ax=top[3], fraction=0.046, pad=0.04)
    for i in range(count):
        value, vector = float(found.directions.values[0, i]), found.directions.vectors[0, i]
        step = max(value, 0.0) ** 0.5
        left, middle, right, own = axes[i + 1]
        name = f"\u221a{LAMBDA}{i + 1} v{i + 1}"
        _show(left, found, found.denoised - step * vector, f"{MINUS} {name}")
        _show(middle, found, found.denoised, "denoised")
        _show(right, found, found.denoised + step * vector, f"+ {name}")
        _show_direction(figure, own, vector)
        own.set_title(f"v{i + 1}, {LAMBDA}{i + 1} = {value:.3g}", fontsize=9)
    return figure


def _show_direction(figure: Figure, ax: Any, vector: torch.Tensor) -> None:
    """A direction with its signs: a map and its bar, or colours around grey."""
    most = float(vector.abs().max()) or 1.0
    if len(vector) == 3:
        # Their mean would hide a direction from one colour to another.
        ax.imshow((0.5 + vector / (2 * most)).permute(1, 2, 0).numpy())
        return
    drawn = ax.imshow(vector.mean(0).numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
    figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.04)


def _show(ax: Any, found: ImagePosterior, pixels: torch.Tensor, title: str) -> None:
    low, high = found.data_range
    unit = ((pixels - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy()
    if unit.shape[2] not in (1, 3):
        unit = unit.mean(2, keepdims=True)
    grey = unit.shape[2] == 1
    ax.imshow(np.squeeze(unit, 2) if grey else unit, cmap="gray" if grey else None, vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)
