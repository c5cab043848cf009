"""What do Fréchet and kernel distances on some features say of pictures spoilt in known ways?

    python benchmarks/features.py --train TRAIN.parquet --test TEST.parquet

compares training images with other training images, as they are and spoilt, and with test images,
on the features of ``--extractor``. Data are named as in `hdzoo train`. Prints a table and writes
JSON.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import tqdm
from datasets import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

import hdzoo
from hdzoo.images.sources import load_images
from hdzoo.metrics.features import get_extractor


class Pictures(Dataset):
    """Images as torch-fidelity takes them: uint8, shape (3, height, width)."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images.round().clip(0, 255).astype(np.uint8))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.images[i]


def load(source: str, split: str, num_images: int, seed: int) -> np.ndarray:
    """Images drawn without repetition, float64, shape (num_images, 3, height, width)."""
    data = load_images(source, split)
    column = next(name for name, f in data.features.items() if isinstance(f, Image))
    chosen = np.random.default_rng(seed).permutation(len(data))[:num_images]
    images = [np.asarray(image.convert("RGB"), float) for image in data.select(chosen)[column]]
    return np.stack(images).transpose(0, 3, 1, 2)


def noisy(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """With Gaussian noise, the same in all channels of a grey picture."""
    grey = (images == images[:, :1]).all()
    noise = rng.normal(0, sd, images[:, :1].shape if grey else images.shape)
    return images + noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", default="ylecun/mnist")
    parser.add_argument("--test", default="ylecun/mnist")
    parser.add_argument("--extractor", default="digits")
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/features.json"))
    args = parser.parse_args()

    extractor = get_extractor(args.extractor)
    images = load(args.train, "train", 2 * args.num_images, args.seed)
    real, other = images[: args.num_images], images[args.num_images :]
    rng = np.random.default_rng(args.seed)
    sets = {
        "other training images": other,
        "test images": load(args.test, "test", args.num_images, args.seed),
        "the others, noise of sd 10": noisy(other, 10, rng),
        "the others, noise of sd 25": noisy(other, 25, rng),
        "the others, blur of sd 1 pixel": gaussian_filter(other, (0, 0, 1, 1)),
        "the others, mirrored": other[..., ::-1],
        "uniform noise": rng.uniform(0, 255, other.shape),
    }
    options = extractor.options() | {
        "fid": True,
        "kid": True,
        "isc": True,
        "kid_subset_size": args.num_images // 2,
        # Without processes of its own.
        "save_cpu_ram": True,
        "verbose": False,
    }
    report = {
        "machine": platform.processor() or platform.machine(),
        "hdzoo": hdzoo.__version__,
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "num_images": args.num_images,
        "seed": args.seed,
        "images": {},
    }
    headings = [extractor.metric_name(name).partition(" (")[0] for name in ("fid", "kid", "isc")]
    table = Table("images", *headings, title=extractor.label)
    for name, pictures in tqdm(sets.items(), desc="sets of images"):
        found = calculate_metrics(input1=Pictures(pictures), input2=Pictures(real), **options)
        report["images"][name] = found
        table.add_row(
            name,
            f"{found['frechet_inception_distance']:.4g}",
            f"{found['kernel_inception_distance_mean']:.4f}",
            f"{found['inception_score_mean']:.2f}",
        )
    Console().print(table)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
