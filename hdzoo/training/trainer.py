"""The training loop: Accelerate, EMA, and checkpoints that resume to the same weights."""

import dataclasses
import importlib.metadata
import json
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from diffusers import ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from hdzoo.errors import HDZooError
from hdzoo.files import whole_file, write_json
from hdzoo.ladders import geometric_ladder
from hdzoo.scores import score_weights
from hdzoo.training.data import StepBatchSampler, image_loader, image_transform
from hdzoo.training.objectives import (
    denoising_score_matching,
    draw_sigmas,
    karras_weight,
    loss_per_dimension,
    song_ermon_weight,
)

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STATE_FILE = "training_state.json"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What a training run depends on.

    Args:
        max_train_steps: optimiser steps in all. May grow from one call to the next.
        train_batch_size: images a step, over all processes.
        learning_rate: of Adam.
        lr_scheduler: diffusers' name of the schedule: ``"constant_with_warmup"``, ``"cosine"``...
        lr_warmup_steps: steps of linear warm-up.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: the largest decay of the moving average of the weights.
        sigma_distribution: ``"ladder"``, ``"log-uniform"`` or ``"log-normal"``.
        log_sigma_mean: for ``"log-normal"``.
        log_sigma_std: for ``"log-normal"``.
        loss_weighting: ``"song-ermon"`` (``sigma^2``) or ``"karras"``.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``, as Accelerate takes it.
        seed: of the initial weights, the order of the data, and the noise.
    """

    max_train_steps: int = 10_000
    train_batch_size: int = 128
    learning_rate: float = 1e-3
    lr_scheduler: str = "constant_with_warmup"
    lr_warmup_steps: int = 200
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9995
    sigma_distribution: str = "ladder"
    log_sigma_mean: float = -1.4
    log_sigma_std: float = 1.4
    loss_weighting: str = "song-ermon"
    mixed_precision: str = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no run can use, before anything is written."""
        choices = {
            "sigma_distribution": ("ladder", "log-uniform", "log-normal"),
            "loss_weighting": ("song-ermon", "karras"),
            "mixed_precision": ("no", "bf16", "fp16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise HDZooError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}"
                )
        for name in ("max_train_steps", "train_batch_size", "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise HDZooError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.ema_decay < 1:
            raise HDZooError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")


def train(
    model: ModelMixin,
    dataset: "Dataset",
    output_dir: str | Path,
    config: TrainingConfig,
    *,
    held_out: "Dataset | None" = None,
    checkpoint_every: int = 500,
    sample_every: int = 0,
    scheduler: Any = None,
    tracker: str | None = None,
    num_workers: int = 0,
) -> Path:
    """Trains a score network by denoising score matching and writes a Hub-ready pipeline folder.

    A call that finds checkpoints of the same run in ``output_dir`` goes on from the last one, and
    ends with the same weights, bit for bit, as a run that was never stopped (on the same machine
    with the same number of threads): data, noise levels and noise are functions of (seed, step).

    Args:
        model: a score network (`hdzoo.models`), in float32.
        dataset: images, with an image column.
        output_dir: the pipeline folder to write; checkpoints are kept below it in
            ``checkpoints/`` until the end.
        config: the run.
        held_out: images to measure the denoising loss on at the end; the result goes into the
            model's config.
        checkpoint_every: steps between checkpoints.
        sample_every: steps between grids of samples in ``samples/``; 0 for none.
        scheduler: the sampler to save with the network; default `AnnealedLangevinSampler` on the
            network's own range.
        tracker: Accelerate's name of a tracker, such as ``"tensorboard"``; logs go to ``logs/``.
        num_workers: processes that decode images.

    Returns:
        ``output_dir``.

    Raises:
        HDZooError: the folder holds another run, the loss is not finite, or the data does not fit.
    """
    output_dir = Path(output_dir)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=tracker, project_dir=str(output_dir)
    )
    checkpoints = output_dir / "checkpoints"
    latest = latest_checkpoint(checkpoints)
    start, seconds = 0, 0.0
    if latest is not None:
        start, seconds = check_same_run(latest, config)

    transform = image_transform(
        model.config.sample_size, model.config.in_channels, model.config.data_range
    )
    batches = StepBatchSampler(
        len(dataset),
        config.train_batch_size,
        config.seed,
        range(start, config.max_train_steps),
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = image_loader(dataset, transform, num_workers, batch_sampler=batches)

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    lr_scheduler = get_scheduler(
        config.lr_scheduler, optimizer, config.lr_warmup_steps, config.max_train_steps
    )
    ema = EMAModel(
        model.parameters(), decay=config.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    ema.to(accelerator.device)
    network = model
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(ema, lr_scheduler)
    if latest is not None:
        accelerator.load_state(str(latest))
    if tracker is not None:
        accelerator.init_trackers("hdzoo", config=dataclasses.asdict(config))

    ladder = torch.tensor(network_ladder(network), device=accelerator.device)
    progress = tqdm(
        total=config.max_train_steps, initial=start, desc="training", unit="step", smoothing=0.05
    )
    begin = time.monotonic()
    running = torch.zeros((), device=accelerator.device)
    with torch.random.fork_rng():
        for step, images in zip(batches.steps, loader, strict=True):
            seed_step(config.seed, step, accelerator.process_index)
            images = images.to(accelerator.device, non_blocking=True)
            sigmas = draw_sigmas(
                config.sigma_distribution,
                len(images),
                ladder,
                config.log_sigma_mean,
                config.log_sigma_std,
            )
            noise = torch.randn_like(images)
            loss = training_loss(model, network, images, noise, sigmas, config.loss_weighting)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            ema.step(network.parameters())
            running += loss.detach()
            progress.update()

            done = step + 1
            if done % 50 == 0:
                mean = (running / 50).item()
                running.zero_()
                if not np.isfinite(mean):
                    raise HDZooError(
                        f"the loss is {mean} at step {done}; lower learning_rate (now "
                        f"{config.learning_rate:g}) and run again: it resumes from the last "
                        "checkpoint"
                    )
                progress.set_postfix(loss=f"{mean:.4g}")
                accelerator.log({"loss": mean, "lr": lr_scheduler.get_last_lr()[0]}, step=done)
            if done % checkpoint_every == 0 or done == config.max_train_steps:
                elapsed = seconds + time.monotonic() - begin
                save_checkpoint(accelerator, checkpoints, done, elapsed, config)
            if sample_every and done % sample_every == 0 and accelerator.is_main_process:
                with ema_weights(ema, network):
                    save_samples(network, scheduler, output_dir / "samples" / f"{done:06d}.png")
    progress.close()
    accelerator.end_training()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        ema.copy_to(network.parameters())
        network.eval()
        if held_out is not None:
            loader = image_loader(held_out, transform, num_workers, batch_size=500)
            losses = held_out_loss(network, loader, config.seed)
            network.register_to_config(held_out_loss=losses)
        seconds += time.monotonic() - begin
        save_pipeline(network, scheduler, output_dir)
        record = run_record(config, len(dataset), seconds, accelerator.num_processes)
        write_json(output_dir / "training.json", record)
    accelerator.wait_for_everyone()
    return output_dir


def network_ladder(model: ModelMixin) -> list[float]:
    """The noise levels of a network: its own ladder, or the two ends of its range."""
    if getattr(model, "sigmas", None) is not None:
        return [float(sigma) for sigma in model.sigmas]
    return geometric_ladder(model.config.sigma_max, model.config.sigma_min, 2)


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seeds torch's global generators as a function of (seed, step, process) alone."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, process_index]).generate_state(1, np.uint64)[0])
        & 0x7FFF_FFFF_FFFF_FFFF
    )


def training_loss(
    model: Any,
    network: ModelMixin,
    images: torch.Tensor,
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    weighting: str,
) -> torch.Tensor:
    """Denoising score matching of one batch; ``model`` is ``network`` as Accelerate wraps it."""
    sigma = sigmas.view(-1, 1, 1, 1)
    noisy = images + sigma * noise
    prediction = model(noisy, sigmas, return_dict=False)[0]
    a, b = score_weights(network.prediction_type, sigma)
    if weighting == "karras":
        weight = karras_weight(sigmas, network.config.data_std)
    else:
        weight = song_ermon_weight(sigmas)
    loss = denoising_score_matching(a * prediction + b * noisy, noise, sigmas, weight)
    # Per dimension, so that max_grad_norm means the same at every image size.
    return loss / images[0].numel()


@torch.no_grad()
def held_out_loss(
    model: ModelMixin, loader: Any, seed: int, sigmas: tuple[float, ...] = HELD_OUT_SIGMAS
) -> dict[str, list[float]]:
    """The denoising loss per dimension on held-out images, at each noise level in turn.

    Args:
        model: a score network.
        loader: batches of images.
        seed: of the noise, which is the same at every level.
        sigmas: noise levels; those outside the network's range are left out.

    Returns:
        ``{"sigmas": [...], "loss": [...]}``, plain floats.
    """
    ladder = network_ladder(model)
    levels = [sigma for sigma in sigmas if ladder[-1] <= sigma <= ladder[0]]
    if getattr(model, "sigmas", None) is not None:
        levels = ladder
    device = next(model.parameters()).device
    totals = torch.zeros(len(levels), dtype=torch.float64, device=device)
    count = 0
    with torch.random.fork_rng():
        seed_step(seed, 0, 0)
        for images in loader:
            images = images.to(device)
            noise = torch.randn_like(images)
            for i, sigma in enumerate(levels):
                noisy = images + sigma * noise
                prediction = model(noisy, sigma, return_dict=False)[0]
                loss = loss_per_dimension(prediction, noisy, noise, sigma, model.prediction_type)
                totals[i] += loss.sum()
            count += len(images)
    return {"sigmas": levels, "loss": [round(loss, 6) for loss in (totals / count).tolist()]}


@contextmanager
def ema_weights(ema: EMAModel, network: ModelMixin) -> Iterator[None]:
    """Puts the averaged weights into the network for a while."""
    ema.store(network.parameters())
    ema.copy_to(network.parameters())
    network.eval()
    try:
        yield
    finally:
        ema.restore(network.parameters())
        network.train()


def latest_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint in a folder; a half-written one has another name."""
    found = [path for path in folder.glob("step-*") if (path / STATE_FILE).is_file()]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def check_same_run(checkpoint: Path, config: TrainingConfig) -> tuple[int, float]:
    """Reads a checkpoint's step and seconds, and refuses one of another run."""
    state = json.loads((checkpoint / STATE_FILE).read_text())
    ours = dataclasses.asdict(config)
    differs = [
        f"{key} was {value!r} and is {ours.get(key)!r}"
        for key, value in state["config"].items()
        if ours.get(key) != value and key != "max_train_steps"
    ]
    if differs:
        raise HDZooError(
            f"{checkpoint.parent} holds another run: {'; '.join(differs)}. Give the same options "
            "to go on with it, or another output folder"
        )
    longer = state["config"]["max_train_steps"] != config.max_train_steps
    if longer and not config.lr_scheduler.startswith("constant"):
        raise HDZooError(
            f"the {config.lr_scheduler!r} schedule depends on max_train_steps, which was "
            f"{state['config']['max_train_steps']} and is {config.max_train_steps}; give the same"
        )
    if state["step"] > config.max_train_steps:
        raise HDZooError(
            f"{checkpoint} is past max_train_steps {config.max_train_steps}; ask for at least "
            f"{state['step']} steps, or give another output folder"
        )
    return state["step"], state["seconds"]


def save_checkpoint(
    accelerator: Accelerator, folder: Path, step: int, seconds: float, config: TrainingConfig
) -> None:
    """Writes a checkpoint under another name, renames it, and removes the older ones."""
    target, partial = folder / f"step-{step:07d}", folder / f"partial-{step:07d}"
    if accelerator.is_main_process and partial.exists():
        shutil.rmtree(partial)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"step": step, "seconds": seconds, "config": dataclasses.asdict(config)}
        write_json(partial / STATE_FILE, state)
        partial.rename(target)
        for path in folder.iterdir():
            if path != target:
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def save_pipeline(network: ModelMixin, scheduler: Any, output_dir: Path) -> None:
    """Writes the Hub-ready folder."""
    from hdzoo.pipeline import HDPipeline

    HDPipeline(unet=network, scheduler=scheduler or default_scheduler(network)).save_pretrained(
        output_dir
    )


def save_samples(network: ModelMixin, scheduler: Any, path: Path) -> None:
    """Draws a grid of 64 samples, the same noise each time."""
    from diffusers.utils import make_image_grid

    from hdzoo.pipeline import HDPipeline, sample_generators

    pipe = HDPipeline(unet=network, scheduler=scheduler or default_scheduler(network))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(batch_size=64, generator=sample_generators(0, range(64))).images
    with whole_file(path) as partial:
        make_image_grid(images, rows=8, cols=8).save(partial)


def default_scheduler(network: ModelMixin) -> Any:
    """Annealed Langevin dynamics on the network's own ladder or range."""
    from hdzoo.samplers.langevin import AnnealedLangevinSampler

    ladder = network_ladder(network)
    sigmas = ladder if getattr(network, "sigmas", None) is not None else None
    return AnnealedLangevinSampler(
        sigma_max=ladder[0],
        sigma_min=ladder[-1],
        sigmas=sigmas,
        prediction_type=network.prediction_type,
    )


def run_record(
    config: TrainingConfig, num_images: int, seconds: float, num_processes: int
) -> dict[str, Any]:
    """What made the weights: options, data size, time, versions, machine."""
    packages = ("hdzoo", "torch", "diffusers", "accelerate", "datasets")
    return {
        "config": dataclasses.asdict(config),
        "num_images": num_images,
        "seconds": round(seconds),
        "num_processes": num_processes,
        "threads_per_process": torch.get_num_threads(),
        "device": platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }
