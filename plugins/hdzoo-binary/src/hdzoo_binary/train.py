r"""Trains a `BinaryUNetModel` by cross-entropy, on images made binary.

.. code-block:: bash

    python -m hdzoo_binary.train --dataset mnist/train.parquet --held-out mnist/test.parquet \
        --output-dir runs/binary-mnist

Loss and noise are those of `hdzoo_binary.objective.BitFlipCrossEntropy`, with which ``hdzoo train``
trains as well.
"""

import argparse
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

import hdzoo
from hdzoo import HDPipeline, HDZooError
from hdzoo.files import check_folder, write_json
from hdzoo.images.sources import load_images
from hdzoo.training.objectives import bit_flip_cross_entropy
from hdzoo_binary.measurements import BinaryMultimeasurementSampler
from hdzoo_binary.network import BinaryUNetModel
from hdzoo_binary.objective import draw_levels, measure

HELD_OUT = 2000


def binary_images(source: str, split: str) -> torch.Tensor:
    """Images as signs: 1 where a pixel is lighter than half; shape (n, 1, height, width), int8."""
    data = load_images(source, split)
    grey = np.stack([np.asarray(image.convert("L")) for image in data["image"]])
    return torch.from_numpy(np.where(grey > 127, 1, -1).astype(np.int8))[:, None]


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
                bit_flip_cross_entropy(model.half_log_odds(*part[:2]), part[2]).sum()
                for part in zip(*(each.split(500) for each in (noisy, told, clean)), strict=True)
            ]
            losses.append(round(float(sum(parts)) / clean.numel(), 6))
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
            half = network.half_log_odds(noisy, sigma)
            loss = bit_flip_cross_entropy(half, images).mean() / images[0].numel()
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
