"""Digits forming under several samplers, side by side and from the same noise, as a GIF.

python docs/hdzoo_docs/animation.py docs/pictures/forming.gif
"""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from hdzoo import sampling
from hdzoo.files import whole_file

SAMPLERS: dict[str, dict[str, Any]] = {
    "annealed-half-denoising": {"num_levels": 10, "sigma_max": 1.0},
    "averaged-noise-annealed-langevin": {},
    "consistent-annealed-sampling": {},
}
ROWS, SCALE, GAP, HEAD = 4, 2, 12, 22
# What GitHub shows at once is small: below 700 kB.
FRAMES, GREYS = 16, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument("-t", "--num-inference-steps", type=int, default=100)
    chosen = parser.parse_args()
    panels = [
        frames(chosen.model, name, options, chosen.num_inference_steps)
        for name, options in SAMPLERS.items()
    ]
    made = [beside(list(SAMPLERS), shown) for shown in zip(*panels, strict=True)]
    with whole_file(chosen.output) as partial:
        made[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=made[1:],
            duration=[200] * (len(made) - 1) + [3000],
            loop=0,
        )


def frames(model: str, name: str, options: dict[str, Any], steps: int) -> list[Image.Image]:
    """The grid of one sampler as it forms."""
    pipe = sampling.load_pipeline(model, name, options)
    trajectory = sampling.Trajectory(pipe, steps, SCALE, ROWS)
    sampling.draw(
        pipe,
        ROWS**2,
        num_inference_steps=steps,
        on_step=trajectory.record,
        on_progress=lambda done: None,
    )
    kept = trajectory.frames
    return [kept[round((len(kept) - 1) * i / (FRAMES - 1))] for i in range(FRAMES)]


def beside(names: list[str], panels: Any) -> Image.Image:
    """Panels in a row, with the names above them."""
    side = panels[0].width
    width = len(panels) * side + (len(panels) - 1) * GAP
    page = Image.new("L", (width, side + HEAD), 255)
    pen = ImageDraw.Draw(page)
    for number, (name, panel) in enumerate(zip(names, panels, strict=True)):
        left = number * (side + GAP)
        page.paste(panel.convert("L"), (left, HEAD))
        font = ImageFont.load_default(13)
        pen.text((left + side / 2, HEAD / 2), name, fill=0, font=font, anchor="mm")
    return page.quantize(GREYS)


if __name__ == "__main__":
    main()
