"""What does an energy say of noisy images, and what is it good for?

    python benchmarks/energies.py MODEL --test TEST.parquet --reference ncsn-mnist

Draws images by the model's own sampler and says which share of them, and of real ones, the
classifier ``mnist-classifier`` recognises with p >= 0.9. Then, on the first images of a data set,
at the noise levels that the model knows: the denoising loss per dimension, of the model and of
another one; how many proposals of MALA its energy accepts, from noisy images; and pictures of
denoising (noisy, denoised, clean) and of inpainting (given, four paintings, whole). Prints tables
and writes PNGs.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import make_image_grid
from PIL import Image
from rich.console import Console
from rich.table import Table

from hdzoo import HDInpaintPipeline, HDPipeline, MALASampler, get_sampler, sample_generators
from hdzoo.images.images import Images
from hdzoo.images.sources import load_images
from hdzoo.metrics.features import get_extractor
from hdzoo.sampling import draw, image_grid, load_pipeline
from hdzoo.training.data import image_loader, image_transform
from hdzoo.training.losses import held_out_loss
from hdzoo.training.setup import network_ladder

DENOISED = (0.2, 0.5, 1.0)
CONFIDENT = 0.9


def judge(images: list[Image.Image]) -> tuple[str, str]:
    """The share that is recognised, with its standard error; and those of the ten classes."""
    classify = get_extractor("digits")
    pictures = torch.from_numpy(np.stack([np.array(one.convert("RGB")) for one in images]))
    logits = classify(pictures.permute(0, 3, 1, 2))["logits"]
    sure, label = logits.softmax(1).max(1)
    share = (sure >= CONFIDENT).float().mean().item()
    counts = torch.bincount(label, minlength=10).tolist()
    error = math.sqrt(share * (1 - share) / len(images))
    return f"{share:.1%} ± {error:.1%}", ", ".join(map(str, counts))


def known_levels(pipe: HDPipeline) -> list[float]:
    """Those of `DENOISED` that the network knows."""
    ladder = network_ladder(pipe.unet)
    return [sigma for sigma in DENOISED if ladder[-1] <= sigma <= ladder[0]]


def losses(pipe: HDPipeline, images: Images, seed: int) -> dict[float, float]:
    """The denoising loss per dimension by noise level."""
    loader = image_loader(images, transform_of(pipe), batch_size=100)
    found = held_out_loss(pipe.unet.eval(), loader, seed)
    return dict(zip(found["sigmas"], found["loss"], strict=True))


def transform_of(pipe: HDPipeline) -> Callable[[Image.Image], torch.Tensor]:
    channels, side, _ = pipe.sample_shape
    return image_transform(side, channels, pipe.data_range)


@torch.no_grad()
def accepted(pipe: HDPipeline, clean: torch.Tensor, sigma: float, steps: int, seed: int) -> float:
    """The share of MALA's proposals that are accepted, from noisy images."""
    sampler = MALASampler(sigma=sigma, num_steps=steps, prediction_type=pipe.unet.prediction_type)
    generator = torch.Generator().manual_seed(seed)
    state = clean + sigma * torch.randn(clean.shape, generator=generator)
    kept, moved = None, 0
    for t in sampler.timesteps:
        output = pipe.unet(state, t, extras=("energy",))
        state = sampler.step(output.sample, t, state, generator, energy=output.energy).prev_sample
        point = sampler.memory["x"]
        if kept is not None:
            moved += (point != kept).flatten(1).any(1).float().mean().item()
        kept = point.clone()
    return moved / (steps - 1)


def picture(states: torch.Tensor, pipe: HDPipeline) -> list[Image.Image]:
    return pipe.decode(states, "pil")


def denoising(pipe: HDPipeline, clean: torch.Tensor, seed: int) -> Image.Image:
    """A row of noisy images and one of denoised ones for each level, and the clean ones."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    rows: list[Image.Image] = []
    with torch.no_grad():
        for sigma in known_levels(pipe):
            noisy = clean + sigma * noise
            rows += picture(noisy, pipe) + picture(pipe.unet.denoise(noisy, sigma), pipe)
    rows += picture(clean, pipe)
    return grid(rows, len(clean))


def painting(
    pipe: HDPipeline, clean: torch.Tensor, sampler: str | None, steps: int, seed: int
) -> Image.Image:
    """A column for each image, whose lower half is painted four times."""
    whole = picture(clean, pipe)
    mask = torch.zeros(1, 1, *clean.shape[2:])
    mask[..., clean.shape[2] // 2 :, :] = 1
    scheduler = pipe.scheduler
    if sampler is not None:
        scheduler = get_sampler(sampler).from_config(scheduler.config, num_levels=10)
    painter = HDInpaintPipeline(pipe.unet, scheduler)
    painter.set_progress_bar_config(desc="painting")
    images = painter(
        whole,
        mask,
        num_samples_per_image=4,
        num_inference_steps=steps,
        generator=sample_generators(seed, range(4 * len(whole))),
    ).images
    given = picture(torch.where(mask > 0.5, sum(pipe.data_range) / 2, clean), pipe)
    rows = [*given, *(images[4 * i + k] for k in range(4) for i in range(len(whole))), *whole]
    return grid(rows, len(whole))


def grid(images: list[Image.Image], columns: int) -> Image.Image:
    side = images[0].width
    return make_image_grid(images, len(images) // columns, columns).resize(
        (2 * side * columns, 2 * side * (len(images) // columns)), Image.Resampling.NEAREST
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--test", default="ylecun/mnist")
    parser.add_argument("--reference", help="Another model to hold the losses against.")
    parser.add_argument("--num-images", type=int, default=300)
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--num-inference-steps", type=int, default=100, help="Of inpainting.")
    parser.add_argument("--sampler", help="Of inpainting, on 10 levels. Default: the model's own.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", "-O", type=Path, default=Path("runs"))
    args = parser.parse_args()

    args.output_dir.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(args.model)
    rows = load_images(args.test, "test")
    begin = time.perf_counter()
    drawn = draw(pipe, args.num_samples, seed=args.seed)
    seconds = time.perf_counter() - begin
    steps = pipe.scheduler.num_inference_steps
    table = Table("images", "recognised", "of each class")
    table.add_row(f"{len(drawn)} by its own sampler, {steps} evaluations", *judge(drawn))
    table.add_row("1,000 real ones", *judge(list(rows.select(range(1000))["image"])))
    Console().print(table, f"{seconds:.0f} s to draw them")
    image_grid(drawn).save(args.output_dir / "samples.png")

    images = Images(rows.select(range(args.num_images)), args.test)
    models = {args.model: pipe}
    if args.reference:
        models[args.reference] = load_pipeline(args.reference)
    clean = torch.stack([transform_of(pipe)(images[i]) for i in range(min(50, len(images)))])
    if levels := known_levels(pipe):
        found = {name: losses(one, images, args.seed) for name, one in models.items()}
        table = Table("sigma", *models)
        for sigma in found[args.model]:
            table.add_row(f"{sigma:g}", *(f"{one[sigma]:.4f}" for one in found.values()))
        Console().print(f"denoising loss per dimension, {args.num_images} images", table)
        table = Table("sigma", "proposals accepted")
        for sigma in levels:
            share = accepted(pipe, clean, sigma, 21, args.seed)
            error = math.sqrt(share * (1 - share) / (20 * len(clean)))
            table.add_row(f"{sigma:g}", f"{share:.1%} ± {error:.1%}")
        Console().print(
            f"MALA at its default step, 20 proposals of {len(clean)} images each", table
        )
        denoising(pipe, clean[:10], args.seed).save(args.output_dir / "denoising.png")
    painted = painting(pipe, clean[:10], args.sampler, args.num_inference_steps, args.seed)
    painted.save(args.output_dir / "inpainting.png")
    print(args.output_dir)


if __name__ == "__main__":
    main()
