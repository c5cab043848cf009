"""What a run says of its loss: the log, the held-out loss, and the curve."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from matplotlib.figure import Figure

from hdzoo.files import whole_file, writing
from hdzoo.training.data import data_range_of, dequantized
from hdzoo.training.objectives import loss_per_dimension
from hdzoo.training.setup import has_own_ladder, network_ladder, prediction_type, seed_step

LOG = "losses.jsonl"
HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class LossLog:
    """Lines of JSON in an output folder, ``{"step": ..., ...}``, as they come.

    Args:
        path: of the file, whose content is replaced; None to keep the lines and write nothing.
        lines: that a run has written before it was stopped.
    """

    def __init__(self, path: Path | None, lines: Iterable[dict[str, Any]] = ()) -> None:
        self.path = path
        self.lines = list(lines)
        if path is not None:
            with whole_file(path) as partial:
                partial.write_text("".join(map(_line, self.lines)))

    def add(self, step: int, **values: Any) -> None:
        """Adds a line.

        Args:
            step: of the run.
            **values: what to say of it.
        """
        self.lines.append({"step": step, **values})
        if self.path is not None:
            with writing(self.path), self.path.open("a") as file:
                file.write(_line(self.lines[-1]))

    def last(self, key: str) -> Any:
        """The last value of a key; None if there is none."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"


def save_curve(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the loss against the steps, and the held-out loss beside it where there is one.

    Args:
        lines: of the log.
        path: of the PNG.
    """
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held_out = [(line["step"], line["held_out_loss"]) for line in lines if "held_out_loss" in line]
    figure = Figure(figsize=(4.8 * (1 + bool(held_out)), 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + bool(held_out), squeeze=False)[0]
    panels[0].plot(*zip(*train, strict=True), color="#0072b2")
    # Not every objective is positive.
    scale = "log" if all(loss > 0 for _, loss in train) else "linear"
    panels[0].set(xlabel="step", ylabel="loss", yscale=scale, title="training images")
    if held_out:
        steps = [step for step, _ in held_out]
        for i, sigma in enumerate(held_out[0][1]["sigmas"]):
            panels[1].plot(steps, [loss["loss"][i] for _, loss in held_out], label=f"{sigma:.3g}")
        panels[1].set(xlabel="step", ylabel="loss per dimension", yscale="log", title="held out")
        panels[1].legend(
            title="noise level", fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1)
        )
    for panel in panels:
        panel.grid(alpha=0.3)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


@torch.no_grad()
def held_out_loss(
    model: ModelMixin,
    loader: Any,
    seed: int,
    sigmas: tuple[float, ...] = HELD_OUT_SIGMAS,
    most_levels: int | None = None,
    dequantize: bool = False,
) -> dict[str, list[float]]:
    """The denoising loss per dimension on held-out images, at each noise level in turn.

    Args:
        model: a score network.
        loader: batches of images.
        seed: of the noise, which is the same at every level.
        sigmas: noise levels; those outside the network's range are left out. A network with a
            ladder of its own, or of a single level, has that one's in their place.
        most_levels: of such a ladder, evenly spread; all by default.
        dequantize: whether noise within one grey level is added to the images first.

    Returns:
        ``{"sigmas": [...], "loss": [...]}``, plain floats.
    """
    ladder = network_ladder(model)
    levels = [sigma for sigma in sigmas if ladder[-1] <= sigma <= ladder[0]]
    if has_own_ladder(model) or len(ladder) == 1:
        levels = ladder[:: -(-len(ladder) // (most_levels or len(ladder)))]
    device = next(model.parameters()).device
    totals = torch.zeros(len(levels), dtype=torch.float64, device=device)
    count = 0
    with torch.random.fork_rng():
        seed_step(seed, 0, 0)
        for images in loader:
            images = images.to(device)
            if dequantize:
                images = dequantized(images, data_range_of(model))
            noise = torch.randn_like(images)
            for i, sigma in enumerate(levels):
                noisy = images + sigma * noise
                # A tensor: UNet2DModel truncates plain numbers to integers.
                told = torch.full((len(images),), sigma, device=device)
                prediction = model(noisy, told, return_dict=False)[0]
                loss = loss_per_dimension(prediction, noisy, noise, sigma, prediction_type(model))
                totals[i] += loss.sum()
            count += len(images)
    return {"sigmas": levels, "loss": [round(loss, 6) for loss in (totals / count).tolist()]}
