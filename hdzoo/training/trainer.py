"""The training loop: Accelerate, EMA, and checkpoints that resume to the same weights."""

import dataclasses
import importlib.metadata
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, tqdm
from diffusers import ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from hdzoo.cards import write_card
from hdzoo.errors import HDZooError
from hdzoo.files import named_path, whole_file, write_json
from hdzoo.images.images import Images
from hdzoo.scores.conversions import score_weights
from hdzoo.training.checkpoints import (
    check_finished,
    check_same_run,
    latest_checkpoint,
    save_checkpoint,
)
from hdzoo.training.config import TrainingConfig
from hdzoo.training.data import StepBatchSampler, flip_half, image_loader, image_transform
from hdzoo.training.fitting import check_images
from hdzoo.training.objectives import (
    denoising_score_matching,
    draw_sigmas,
    karras_weight,
    loss_per_dimension,
    song_ermon_weight,
)
from hdzoo.training.setup import build_scheduler, has_own_ladder, network_ladder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from datasets import Dataset

__all__ = ["TrainingConfig", "held_out_loss", "train"]

HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
RECORD_FILE = "training.json"
LOG_EVERY = 50


def train(
    model: ModelMixin,
    dataset: "Dataset | Images",
    output_dir: str | Path,
    config: TrainingConfig,
    *,
    held_out: "Dataset | Images | None" = None,
    checkpoint_every: int = 500,
    keep_checkpoints: bool = True,
    sample_every: int = 0,
    scheduler: Any = None,
    tracker: str | None = None,
    num_workers: int = 0,
    command: str | None = None,
    dataset_name: str | None = None,
) -> Path:
    """Trains a score network by denoising score matching and writes a Hub-ready pipeline folder.

    A call that finds checkpoints of the same run in ``output_dir`` goes on from the last one, and
    ends with the same weights, bit for bit, as a run that was never stopped (on the same machine
    with the same number of threads): data, noise levels and noise are functions of (seed, step).
    A call that finds the run finished trains no more.

    Args:
        model: a score network: `hdzoo.models`, or any ``ModelMixin`` that is told the noise level
            and has ``sample_size``, ``in_channels``, ``sigma_min`` and ``sigma_max`` in its config.
            It predicts its ``prediction_type``, the score if it has none. In float32.
        dataset: images, in the column ``"image"`` or the only one that holds some. Each is read
            once before anything is written (`hdzoo.images.images.Images.survey`).
        output_dir: the pipeline folder to write. The checkpoint that a longer run starts from stays
            below it, in ``checkpoints/``; a ``.gitignore`` keeps it from the Hub.
        config: the run.
        held_out: images to measure the denoising loss on at the end; the result goes into the
            model's config.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: whether the last checkpoint outlives the end of the run.
        sample_every: steps between grids of samples in ``samples/``; 0 for none.
        scheduler: the sampler to save with the network; default `AnnealedLangevinSampler` on the
            network's own range.
        tracker: Accelerate's name of a tracker, such as ``"tensorboard"``; logs go to ``logs/``.
        num_workers: processes that decode images.
        command: what the user typed, for the record.
        dataset_name: where the images are from, for the record and the card.

    Returns:
        ``output_dir``.

    Raises:
        HDZooError: the folder holds another run, the loss is not finite, the data or the options
            do not fit the network, or the run is interrupted.
    """
    output_dir = named_path(output_dir, "output_dir")
    check_network(model, config)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=tracker,
        project_config=ProjectConfiguration(str(output_dir), logging_dir=str(output_dir / "logs")),
    )
    checkpoints, record_file = output_dir / "checkpoints", output_dir / RECORD_FILE
    latest = latest_checkpoint(checkpoints)
    start, seconds = 0, 0.0
    if latest is not None:
        start, seconds = check_same_run(latest, config, len(dataset))
    elif record_file.is_file():
        check_finished(record_file, config, len(dataset))
        return output_dir

    transform = image_transform(
        model.config.get("sample_size"),
        model.config.get("in_channels"),
        model.config.get("data_range", (-1.0, 1.0)),
    )
    batches = StepBatchSampler(
        len(dataset),
        config.train_batch_size,
        config.seed,
        range(start, config.max_train_steps),
        accelerator.process_index,
        accelerator.num_processes,
    )
    pictures = Images.of(dataset, dataset_name or "the data set")
    held_out = None if held_out is None else Images.of(held_out, "the held-out data set")
    for given in (pictures, held_out):
        if given is not None:
            check_images(model, given, config.resize)
    loader = image_loader(pictures, transform, num_workers, batch_sampler=batches)

    network = model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    lr_scheduler = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
    )
    ema = EMAModel(
        model.parameters(), decay=config.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(ema, lr_scheduler)
    if latest is not None:
        try:
            accelerator.load_state(str(latest))
        except RuntimeError as error:
            raise HDZooError(
                f"{checkpoints} holds a run of another network or number of processes: {error}. "
                "Give the same to go on with it, or another output folder"
            ) from error
    # After loading, which puts the average on the CPU.
    ema.to(accelerator.device)
    if tracker is not None:
        accelerator.init_trackers("hdzoo", config=dataclasses.asdict(config))

    ladder = torch.tensor(network_ladder(network), device=accelerator.device)
    begin, elapsed, done, logged = time.monotonic(), seconds, start, start
    running = torch.zeros((), device=accelerator.device)
    progress = tqdm(
        total=config.max_train_steps, initial=start, desc="training", unit="step", smoothing=0.05
    )
    try:
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
                if config.random_flip:
                    images = flip_half(images)
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
                if done % LOG_EVERY == 0:
                    mean = accelerator.reduce(running, "mean").item() / (done - logged)
                    running.zero_()
                    logged = done
                    check_finite(np.isfinite(mean), f"loss is {mean}", done, config)
                    progress.set_postfix(loss=f"{mean:.4g}")
                    accelerator.log({"loss": mean, "lr": lr_scheduler.get_last_lr()[0]}, step=done)
                if done % checkpoint_every == 0 or done == config.max_train_steps:
                    # Before it takes the place of a good one.
                    check_finite(all_finite(network), "weights are not finite", done, config)
                    elapsed = seconds + time.monotonic() - begin
                    save_checkpoint(accelerator, checkpoints, done, elapsed, config, len(dataset))
                if sample_every and done % sample_every == 0 and accelerator.is_main_process:
                    with ema_weights(ema, network):
                        save_samples(network, scheduler, output_dir / "samples" / f"{done:06d}.png")
    except KeyboardInterrupt:
        kept = latest_checkpoint(checkpoints)
        where = "from the start" if kept is None else f"from {kept.name}"
        raise HDZooError(
            f"interrupted at step {done} of {config.max_train_steps}; the same command goes on "
            + where
        ) from None
    finally:
        progress.close()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        # In full precision, as the pipeline will be loaded.
        network = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        ema.copy_to(network.parameters())
        network.eval()
        if held_out is not None:
            loader = image_loader(held_out, transform, num_workers, batch_size=500)
            losses = held_out_loss(network, loader, config.seed)
            network.register_to_config(held_out_loss=losses)
        save_pipeline(network, scheduler, output_dir)
        record = run_record(config, len(dataset), elapsed, accelerator.num_processes)
        record |= {"dataset": dataset_name, "command": command}
        (output_dir / ".gitignore").write_text("checkpoints/\n")
        if not (output_dir / "README.md").exists():
            write_card(output_dir, record, dataset=dataset_name)
        write_json(record_file, record)
        if not keep_checkpoints:
            shutil.rmtree(checkpoints)
    accelerator.wait_for_everyone()
    # Last, since it takes the processes apart.
    accelerator.end_training()
    return output_dir


def check_network(network: ModelMixin, config: TrainingConfig) -> None:
    """Refuses a run that would train a network on noise levels or with a weight it has not."""
    ladder = network_ladder(network)
    name, distribution = type(network).__name__, config.sigma_distribution
    if has_own_ladder(network) and distribution != "ladder":
        raise HDZooError(
            f"{name} knows only the {len(ladder)} noise levels of its ladder, and "
            f"sigma_distribution {distribution!r} draws others; use 'ladder'"
        )
    if not has_own_ladder(network) and distribution == "ladder":
        raise HDZooError(
            f"{name} has no ladder: it is trained for all noise levels from {ladder[-1]:g} to "
            f"{ladder[0]:g}; set sigma_distribution to 'log-uniform' or 'log-normal'"
        )
    if config.loss_weighting == "karras" and network.config.get("data_std") is None:
        raise HDZooError(
            f"loss_weighting 'karras' needs data_std in the network's config, and {name} has "
            "none; use 'song-ermon'"
        )


def check_finite(finite: bool, what: str, step: int, config: TrainingConfig) -> None:
    """Ends a run that has diverged; the last checkpoint stays as it is."""
    if not finite:
        raise HDZooError(
            f"the run has diverged: the {what} at step {step}. The last checkpoint is kept, but "
            f"leads here again: lower learning_rate (now {config.learning_rate:g}) and give "
            "another output folder"
        )


def all_finite(network: ModelMixin) -> bool:
    """Whether no weight is NaN or infinite."""
    return bool(torch.stack([p.detach().isfinite().all() for p in network.parameters()]).all())


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
    a, b = score_weights(prediction_type(network), sigma)
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
    if has_own_ladder(model):
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
                # A tensor: UNet2DModel truncates plain numbers to integers.
                told = torch.full((len(images),), sigma, device=device)
                prediction = model(noisy, told, return_dict=False)[0]
                loss = loss_per_dimension(prediction, noisy, noise, sigma, prediction_type(model))
                totals[i] += loss.sum()
            count += len(images)
    return {"sigmas": levels, "loss": [round(loss, 6) for loss in (totals / count).tolist()]}


def prediction_type(network: ModelMixin) -> str:
    """What a network predicts: diffusers' own do not say, and are taken to predict the score."""
    return getattr(network, "prediction_type", "score")


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


def save_pipeline(network: ModelMixin, scheduler: Any, output_dir: Path) -> None:
    """Writes the network and the sampler, as `HDPipeline.from_pretrained` reads them."""
    from hdzoo.pipelines.pipeline import HDPipeline

    scheduler = scheduler or build_scheduler("annealed-langevin", {}, network)
    HDPipeline(unet=network, scheduler=scheduler).save_pretrained(output_dir)


def save_samples(network: ModelMixin, scheduler: Any, path: Path) -> None:
    """Draws a grid of 16 samples, the same noise each time, with about 100 evaluations."""
    from hdzoo.pipelines.generators import sample_generators
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.sampling import image_grid

    scheduler = scheduler or build_scheduler("annealed-langevin", {}, network)
    steps = max(100, len(getattr(scheduler, "levels", ())))
    pipe = HDPipeline(unet=network, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    generators = sample_generators(0, range(16))
    try:
        images = pipe(16, steps, generators, return_dict=False)[0]
    except HDZooError as error:
        # A young network may well send a chain to infinity; its training goes on.
        warnings.warn(f"no samples in {path.name}: {error}", stacklevel=2)
        return
    with whole_file(path) as partial:
        image_grid(images).save(partial)


def run_record(
    config: "DataclassInstance", num_images: int, seconds: float, num_processes: int
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
