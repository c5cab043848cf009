"""Annealed Langevin, annealed half-denoising and alpha-half-denoising at the published settings.

The report on annealed half-denoising compares its Algorithms 1, 2 and 3 on ten noise levels from 1
to 0.01 for data in [0, 1], with epsilon = 2e-5 and T evaluations a level: T = 20 in its code for
MNIST, T = 100 elsewhere. Of Algorithm 1 and of Algorithm 3 it gives, with Inception-v3 features,
FID 54.45 and 46.89 on MNIST, 16.01 and 14.67 on CelebA, 32.90 and 27.60 on CIFAR-10. The third
part gives each its best settings at the cost of T = 20.

    python benchmarks/published_comparison.py
    torchrun --nproc-per-node 2 benchmarks/published_comparison.py --dtype bfloat16

A part that was stopped goes on with the same command. Each is a folder with a leaderboard.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from hdzoo.cli.terminal import note, work_progress
from hdzoo.leaderboard.compare import compare
from hdzoo.leaderboard.pages import write_page, write_pictures

SAMPLERS = ("annealed-langevin", "annealed-half-denoising", "alpha-half-denoising")
LADDER = {"sigma_max": 1.0, "sigma_min": 0.01}
NUM_LEVELS = 10


def published(steps_per_level: int, num_images: int) -> dict[str, Any]:
    """A comparison at the options of the report."""
    options = LADDER | {
        "num_levels": NUM_LEVELS,
        "steps_per_level": steps_per_level,
        "step_size": 2e-5,
    }
    return {"options": options, "num_images": num_images, "trials": 0, "chunk_size": 250}


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("model", nargs="?", default="ncsn-mnist", help="a folder, a name, or a Hub id")
parser.add_argument("--output-dir", "-O", type=Path, default=Path("runs/published"))
parser.add_argument(
    "--parts", nargs="+", choices=("T20", "T100", "tuned"), default=("T20", "T100", "tuned")
)
parser.add_argument("--num-images", type=int, default=10_000, help="of T = 20 and tuned")
parser.add_argument("--num-images-long", type=int, default=2_000, help="of T = 100")
parser.add_argument("--reference", help="real images; what the model has by default")
parser.add_argument("--features", help="an extractor, such as inception-v3-compat")
parser.add_argument("--dtype", default="float32")
parser.add_argument("--backend", default="torch", help="or onnxruntime, faster on CPUs")
options = parser.parse_args()

parts = {
    "T20": published(20, options.num_images),
    "T100": published(100, options.num_images_long),
    "tuned": {"options": LADDER, "num_images": options.num_images, "trials": 8},
}
for name in options.parts:
    with work_progress() as on_progress:
        board = compare(
            options.model,
            options.output_dir / name,
            samplers=SAMPLERS,
            num_inference_steps=(NUM_LEVELS * (100 if name == "T100" else 20),),
            reference=options.reference,
            features=options.features,
            dtype=options.dtype,
            backend=options.backend,
            command=shlex.join(["python", *sys.argv]),
            on_entry=write_page,
            on_progress=on_progress,
            on_note=note,
            **parts[name],
        )
    if os.environ.get("RANK", "0") == "0":
        write_pictures(board)
        print(options.output_dir / name / "leaderboard.md")
