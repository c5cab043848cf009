"""What share of generated digits does an independent classifier recognise?

    python benchmarks/recognition.py --train TRAIN.parquet --test TEST.parquet

trains a small convolutional network on MNIST (kept in ``runs/``, so that it is trained once), says
how it does on the real test images, and then judges images of each sampler: the share recognised
with p >= 0.9, and how they spread over the ten classes. Data are named as in `hdzoo train`; the
default is the Hub's ``ylecun/mnist``. Prints a table and writes JSON.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import nn

import hdzoo
from hdzoo.catalog import weights_hash
from hdzoo.hub.resolve import resolve_model
from hdzoo.images.sources import load_images
from hdzoo.samplers.presets import PRESETS
from hdzoo.sampling import draw, load_pipeline, protocol, start_of

CONFIDENT = 0.9


def classifier() -> nn.Sequential:
    """Not a score network's relative: no noise, no normalisation of the input, other layers."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(48 * 49, 128),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(128, 10),
    )


def pixels(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(i, np.float32) / 255 for i in images]))[:, None]


def train_classifier(source: str, epochs: int, seed: int) -> nn.Sequential:
    data = load_images(source, "train")
    images, labels = pixels(list(data["image"])), torch.tensor(data["label"])
    torch.manual_seed(seed)
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(images))[: len(images) // 128 * 128].view(-1, 128):
            # Shifts by up to two pixels, so that it does not mind where a digit stands.
            dx, dy = torch.randint(-2, 3, (2,)).tolist()
            shifted = images[batch].roll((dx, dy), (2, 3))
            loss = nn.functional.cross_entropy(model(shifted), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"classifier: epoch {epoch + 1}/{epochs}, last loss {loss.item():.4f}", flush=True)
    return model.eval()


@torch.no_grad()
def judge(model: nn.Sequential, images: list[Image.Image]) -> dict[str, object]:
    """Share recognised, and the classes' shares among all images."""
    probabilities = model(pixels(images)).softmax(1)
    sure, label = probabilities.max(1)
    classes = torch.bincount(label, minlength=10) / len(label)
    return {
        "recognised": round((sure >= CONFIDENT).float().mean().item(), 4),
        "classes": [round(share, 3) for share in classes.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", default="ylecun/mnist")
    parser.add_argument("--test", default="ylecun/mnist")
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument(
        "--samplers", nargs="*", default=["default", *PRESETS, *hdzoo.list_samplers()]
    )
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--classifier", type=Path, default=Path("runs/digit-classifier.safetensors")
    )
    parser.add_argument("--output", type=Path, default=Path("runs/recognition.json"))
    args = parser.parse_args()

    if args.classifier.is_file():
        model = classifier().eval()
        model.load_state_dict(load_file(args.classifier))
    else:
        model = train_classifier(args.train, args.epochs, seed=0)
        args.classifier.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), args.classifier)
    real = load_images(args.test, "test")
    real_images = list(real["image"])
    with torch.no_grad():
        right = model(pixels(real_images)).argmax(1) == torch.tensor(real["label"])
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "model": args.model,
        "weights_sha256": weights_hash(resolve_model(args.model)),
        "classifier_accuracy": round(right.float().mean().item(), 4),
        "num_images": args.num_images,
        "real test images": judge(model, real_images),
        "samplers": {},
    }
    table = Table("images", "NFE", "seconds", "recognised, p >= 0.9", "least, most common class")

    def add(name: str, steps: str, seconds: str, row: dict[str, object]) -> None:
        shares = row["classes"]
        spread = f"{min(shares):.1%}, {max(shares):.1%}"
        table.add_row(name, steps, seconds, f"{row['recognised']:.1%}", spread)

    add("real test images", "", "", report["real test images"])
    for name in args.samplers:
        preset = name if name in PRESETS else None
        sampler = None if preset or name == "default" else name
        pipe = load_pipeline(args.model, sampler, preset=preset)
        start = start_of(pipe, args.model)
        begin = time.perf_counter()
        images = draw(pipe, args.num_images, seed=args.seed, start=start)
        seconds = time.perf_counter() - begin
        row = judge(model, images) | {"seconds": round(seconds, 1)}
        report["samplers"][name] = row | {"made_by": protocol(pipe, args.model, args.seed, start)}
        steps = str(pipe.scheduler.num_inference_steps)
        add(
            name,
            steps if start is None else f"{start.num_inference_steps} + {steps}",
            f"{seconds:.0f}",
            row,
        )
    Console().print(table)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
