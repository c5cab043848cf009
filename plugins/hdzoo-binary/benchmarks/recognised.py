"""Which share of drawn binary digits does hdzoo's classifier recognise?

    python plugins/hdzoo-binary/benchmarks/recognised.py --real mnist/test.parquet

Draws with each setting below, judges by the classifier `mnist-classifier` (probability at least
0.9), and prints a table; with ``--pictures FOLDER``, 64 of each as a picture.
"""

import argparse
import time
from pathlib import Path

import torch
from hdzoo_binary.train import binary_images
from rich.console import Console
from rich.table import Table

from hdzoo.bundled import bundled_folder
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.pipelines.generators import sample_generators
from hdzoo.sampling import image_grid, load_pipeline

CONFIDENT = 0.9
# A sampler, its options, and network evaluations; the first is the model's own.
SETTINGS = [
    (None, {}, None),
    ("binary-multimeasurement", {"steps_per_measurement": 4}, None),
    ("binary-multimeasurement", {"jump": "rounding", "steps_per_measurement": 4}, None),
    ("two-stage-discrete-langevin", {"sigma": 1.0, "jump": "sign"}, 40),
    ("two-stage-discrete-langevin", {"sigma": 1.5, "jump": "sign"}, 40),
    ("two-stage-discrete-langevin", {"sigma": 1.0, "jump": "sign", "score": "gradient"}, 40),
    ("discrete-langevin", {"sigma": 1.0, "jump": "sign"}, 40),
    ("discrete-mala", {"sigma": 1.0, "jump": "sign"}, 40),
]


@torch.no_grad()
def judge(classifier: DigitClassifier, pixels: torch.Tensor) -> tuple[str, str]:
    """The share recognised, and the shares of the least and the most common class."""
    sure, label = classifier(pixels).logits.softmax(1).max(1)
    classes = torch.bincount(label, minlength=10) / len(label)
    return (
        f"{(sure >= CONFIDENT).float().mean():.1%}",
        f"{classes.min():.1%}, {classes.max():.1%}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", help="test images, as in `hdzoo train`")
    parser.add_argument("--model", default="binary-mnist")
    parser.add_argument("--num-images", type=int, default=256)
    parser.add_argument("--settings", type=int, nargs="*", default=range(len(SETTINGS)))
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    classifier = DigitClassifier.from_pretrained(bundled_folder() / "mnist-classifier").eval()
    table = Table("images", "NFE", "s", "recognised, p >= 0.9", "least, most common class")
    if args.real:
        real = (binary_images(args.real, "test").float() + 1) / 2
        table.add_row("real test images, made binary", "", "", *judge(classifier, real))
    for place in args.settings:
        name, options, steps = SETTINGS[place]
        pipe = load_pipeline(args.model, name, options)
        pipe.set_progress_bar_config(disable=True)
        begin, parts = time.perf_counter(), []
        for indices in torch.arange(args.num_images).split(64):
            generators = sample_generators(0, indices.tolist())
            parts.append(
                pipe(len(indices), steps, generator=generators, output_type="latent").images
            )
        signs = torch.cat(parts)
        seconds = f"{time.perf_counter() - begin:.0f}"
        told = " ".join([name or "its own", *(f"{k}={v}" for k, v in options.items())])
        taken = pipe.scheduler.num_inference_steps
        table.add_row(told, str(taken), seconds, *judge(classifier, pipe.decode(signs, "pt")))
        if args.pictures:
            grid = image_grid(pipe.decode(signs[:64], "pil"), 2)
            args.pictures.mkdir(parents=True, exist_ok=True)
            grid.save(args.pictures / f"{place}-{name or 'own'}.png")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
