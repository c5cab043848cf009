r"""Trains a `BinaryUNetModel` by cross-entropy, on images made binary.

.. code-block:: bash

    python -m hdzoo_binary.train --dataset mnist/train.parquet --held-out mnist/test.parquet \
        --output-dir runs/binary-mnist

The loss is Bach and Saremi's (arXiv 2502.00557): the logistic loss of each clean sign given the
noisy ones, whose minimum is the exact denoiser. Noise: of each image, ``m`` measurements, ``m`` 1
to 16 with equal chances of doublings, at a level of all of them that is log-uniform in the
network's range, but none of them at one below 0.6, where hardly a sign is turned over.
"""

import argparse
import math
import platform
import shlex
import sys
import time
from pathlib import Path

import accelerate
import diffusers
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.nn import functional as F

import hdzoo
from hdzoo import HDPipeline, HDZooError
from hdzoo.files import check_folder, write_json
from hdzoo.images.sources import load_images
from hdzoo_binary.measurements import BinaryMultimeasurementSampler
from hdzoo_binary.network import BinaryUNetModel

MEASUREMENTS = (1, 2, 4, 8, 16)
# Of a single one.
LOWEST = 0.6
HELD_OUT = 2000


def binary_images(source: str, split: str) -> torch.Tensor:
    """Images as signs: 1 where a pixel is lighter than half; shape (n, 1, height, width), int8."""
    data = load_images(source, split)
    grey = np.stack([np.asarray(image.convert("L")) for image in data["image"]])
    return torch.from_numpy(np.where(grey > 127, 1, -1).astype(np.int8))[:, None]


def measure(clean: torch.Tensor, sigma: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The mean of ``count`` measurements, each at level ``sigma * sqrt(count)``.

    Args:
        clean: signs, shape (batch, ...).
        sigma: the noise level of all together, shape (batch,).
        count: how many, shape (batch,).
    """
    each = (-1, *[1] * (clean.ndim - 1))
    kept = torch.sigmoid(2 / (sigma**2 * count)).view(each).expand(clean.shape)
    count = count.view(each).expand(clean.shape).to(clean.dtype)
    return clean * (2 * torch.binomial(count, kept) / count - 1)


def draw_levels(batch: int, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A noise level of all measurements, and how many they are, for each image."""
    sigma = torch.exp(math.log(low) + torch.rand(batch) * math.log(high / low))
    count = torch.tensor(MEASUREMENTS)[torch.randint(len(MEASUREMENTS), (batch,))]
    needed = (LOWEST / sigma).square().ceil().long().clamp(min=1)
    return sigma, torch.maximum(count, needed)


def cross_entropy(half_log_odds: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The mean over signs of ``-log P(x_0 | noisy)``, of each image: shape (batch,)."""
    return F.softplus(-2 * clean * half_log_odds).flatten(1).mean(1)


@torch.no_grad()
def held_out_loss(model: BinaryUNetModel, clean: torch.Tensor) -> dict[str, list[float]]:
    """The loss of one measurement at some levels, in nats a sign."""
    levels, losses = [0.75, 1.0, 1.5, 2.0, 3.0], []
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for sigma in levels:
            told = torch.full((len(clean),), sigma)
            noisy = measure(clean, told, torch.ones(len(clean), dtype=torch.long))
            parts = [
                cross_entropy(model.half_log_odds(*part[:2]), part[2]).sum()
                for part in zip(*(each.split(500) for each in (noisy, told, clean)), strict=True)
            ]
            losses.append(round(float(sum(parts)) / len(clean), 6))
    return {"sigmas": levels, "loss": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", required=True, help="as in `hdzoo train`")
    parser.add_argument("--held-out", required=True, help="likewise; its split 'test'")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--max-train-steps", type=int, default=1000)
    parser.add_argument("--train-batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--ema-decay", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    check_folder(args.output_dir)
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise HDZooError(f"{accelerator.num_processes} processes; this script trains in one")
    set_seed(args.seed)
    clean = binary_images(args.dataset, "train")
    network = BinaryUNetModel(sample_size=clean.shape[-1])
    adam = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    network, adam = accelerator.prepare(network, adam)
    rate = get_scheduler(
        "cosine", adam, num_warmup_steps=50, num_training_steps=args.max_train_steps
    )
    ema = EMAModel(network.parameters(), decay=args.ema_decay, use_ema_warmup=True, power=0.75)
    begin, recent = time.perf_counter(), 0.0
    for step in range(1, args.max_train_steps + 1):
        images = clean[torch.randint(len(clean), (args.train_batch_size,))].float()
        sigma, count = draw_levels(len(images), network.config.sigma_min, network.config.sigma_max)
        batch = measure(images, sigma, count), sigma, images
        noisy, sigma, images = (part.to(accelerator.device) for part in batch)
        with accelerator.autocast():
            loss = cross_entropy(network.half_log_odds(noisy, sigma), images).mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        rate.step()
        ema.step(network.parameters())
        recent += loss.item() / 50
        if step % 50 == 0:
            accelerator.print(f"{step}: {recent:.4f}, {time.perf_counter() - begin:.0f} s")
            recent = 0.0
    ema.copy_to(network.parameters())
    network = network.cpu().eval()
    save(network, args, time.perf_counter() - begin, binary_images(args.held_out, "test"))


def save(
    network: BinaryUNetModel, args: argparse.Namespace, seconds: float, held_out: torch.Tensor
) -> None:
    """Writes the pipeline folder, and beside it what made it."""
    sampler = BinaryMultimeasurementSampler(
        sigma=2.0,
        measurements=12,
        steps_per_measurement=8,
        jump="sign",
        prediction_type="sample",
    )
    HDPipeline(network, sampler).save_pretrained(args.output_dir)
    options = {key: value for key, value in vars(args).items() if key != "output_dir"}
    versions = {m.__name__: m.__version__ for m in (hdzoo, torch, diffusers, accelerate)}
    record = {
        "command": shlex.join(["python", "-m", "hdzoo_binary.train", *sys.argv[1:]]),
        "options": options,
        "parameters": network.num_parameters(),
        "held_out_loss": held_out_loss(network, held_out[:HELD_OUT].float()),
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **versions},
    }
    write_json(args.output_dir / "training.json", record)


if __name__ == "__main__":
    main()
