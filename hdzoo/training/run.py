"""A training run while it lasts: its parts, its steps, and where it was left."""

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from diffusers import ModelMixin
from diffusers.optimization import get_scheduler

from hdzoo.cards import stopped_at
from hdzoo.checks import shown
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.files import check_no_link, inner_folder, sweep
from hdzoo.images.images import Images
from hdzoo.training.average import Average
from hdzoo.training.checkpoints import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from hdzoo.training.clock import Clock
from hdzoo.training.config import TrainingConfig
from hdzoo.training.data import (
    StepBatchSampler,
    data_range_of,
    dequantized,
    flip_half,
    image_loader,
    image_transform,
)
from hdzoo.training.interrupts import Interrupts, agreed
from hdzoo.training.losses import LOG, LossLog, held_out_loss
from hdzoo.training.objectives import Network, Objective, build_objective
from hdzoo.training.outcome import RECORD_FILE, read_record, run_record
from hdzoo.training.protocol import (
    check_same_run,
    run_protocol,
    surroundings,
    warn_of_rounding,
)
from hdzoo.training.setup import seed_step
from hdzoo.training.trackers import start_tracker

LOG_EVERY = 50
# Held-out images and noise levels on the way; at the end it is all of them.
HELD_OUT_IMAGES = 1000
HELD_OUT_LEVELS = 10


class Learner(torch.nn.Module):
    """A network and what it learns by, in one: what comes out is the loss.

    Accelerate wraps this one, not the network, so that processes average the gradients whatever an
    objective does with it: several evaluations, or derivatives by the images.
    """

    def __init__(self, network: ModelMixin, objective: Objective, seen: Network) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.seen = seen

    def forward(self, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        return self.objective.loss(self.seen, images, *draws)


class Run:
    """A run: what is trained, by what, and how far it is.

    Args:
        accelerator: the processes that share each batch.
        network: that is trained.
        images: that it is trained on.
        output_dir: the folder of the run.
        config: of the run.
        num_workers: processes that decode images.

    Raises:
        HDZooError: the data do not fit the network, or a batch cannot be divided.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: ModelMixin,
        images: Images,
        output_dir: Path,
        config: TrainingConfig,
        num_workers: int = 0,
    ) -> None:
        self.accelerator = accelerator
        self.network = network
        self.config = config
        self.objective = build_objective(config.objective, config.objective_options)
        self.output_dir = output_dir
        self.checkpoints = output_dir / "checkpoints"
        self.transform = image_transform(
            network.config.get("sample_size"),
            network.config.get("in_channels"),
            data_range_of(network),
            config.center_crop,
            config.image_interpolation_mode,
        )
        processes, parts = accelerator.num_processes, config.gradient_accumulation_steps
        if config.train_batch_size % (processes * parts):
            raise HDZooError(
                f"train_batch_size {config.train_batch_size} does not divide among {processes} "
                f"processes in {parts} parts each; choose a multiple of {processes * parts}"
            )
        self.batches = StepBatchSampler(
            len(images),
            config.train_batch_size,
            config.seed,
            range(config.max_train_steps),
            accelerator.process_index,
            processes,
        )
        self.loader = image_loader(
            images,
            self.transform,
            num_workers,
            batch_sampler=self.batches,
            # Else a copy to the accelerator waits for all that it has to do.
            pin_memory=accelerator.device.type == "cuda",
        )
        self.protocol = run_protocol(network, images, config, processes)
        self.surroundings = surroundings()
        self.progress = Progress(running=(0.0,) * processes)

    # ---- where it was left ------------------------------------------------------------------

    def prepare_folder(self) -> None:
        """Clears away what a killed run has left, and refuses links."""
        for name in ("samples", "logs", "unet", "scheduler"):
            check_no_link(self.output_dir / name)
        folder = inner_folder(self.output_dir, "checkpoints")
        sweep(self.output_dir, folder, self.output_dir / "samples")

    def is_finished(self) -> bool:
        """Whether the run is finished and its checkpoints are gone; finds the last one otherwise.

        Raises:
            HDZooError: the folder holds another run.
        """
        self.latest = latest_checkpoint(self.checkpoints)
        if self.latest is not None:
            self.progress = self.latest.progress
            check_same_run(self.output_dir, self.latest.protocol, self.protocol, self.progress.step)
            if self.accelerator.is_main_process:
                warn_of_rounding(self.latest.surroundings, self.surroundings)
            return False
        record = read_record(self.output_dir)
        if record is None:
            return False
        before = record["config"] | record.get("protocol", {})
        check_same_run(self.output_dir / RECORD_FILE, before, self.protocol)
        if (where := stopped_at(record)) is not None:
            raise HDZooError(
                f"{self.output_dir} holds a run that was stopped {where}, without the checkpoint "
                "that it could go on from; put that back, or give another output folder"
            )
        return True

    def start(self, tracker: str | None) -> None:
        """Makes what a run needs besides the network, and puts all where it was left.

        Args:
            tracker: Accelerate's name of one.
        """
        config, accelerator = self.config, self.accelerator
        self.network.train()
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        for group in optimizer.param_groups:
            group["initial_lr"] = config.learning_rate
        # The rate is a function of the step alone.
        self.lr_scheduler = get_scheduler(
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=config.max_train_steps,
            last_epoch=self.progress.step - 1,
        )
        self.ema = Average(self.network.parameters(), config.ema_decay, config.ema_rule)
        self.seen = Network(self.network, config, accelerator.device)
        learner = Learner(self.network, self.objective, self.seen)
        self.model, self.optimizer = accelerator.prepare(learner, optimizer)
        self.ema.to(accelerator.device)
        if self.latest is not None:
            parts = self.network, optimizer, self.ema, self.objective
            load_checkpoint(accelerator, self.latest, *parts)
        if tracker is not None:
            # TensorBoard has no place for a dict.
            options = {"objective_options": json.dumps(config.objective_options)}
            start_tracker(accelerator, self.output_dir, dataclasses.asdict(config) | options)
        self.batches.steps = range(self.progress.step, config.max_train_steps)
        log = self.output_dir / LOG if accelerator.is_main_process else None
        self.log = LossLog(log, self.progress.losses)
        mine = self.progress.running[accelerator.process_index]
        self.running = torch.tensor(mine, device=accelerator.device)

    def save(self) -> None:
        """Writes a checkpoint."""
        self.progress.running = (self.running.item(),)
        self.progress.losses = tuple(self.log.lines)
        save_checkpoint(
            self.accelerator,
            self.checkpoints,
            (self.network, self.optimizer, self.ema),
            self.objective,
            self.progress,
            self.protocol,
            self.surroundings,
        )

    def record(self) -> dict[str, Any]:
        """What made the weights."""
        config = dataclasses.asdict(self.config)
        record = run_record(
            self.config,
            self.protocol["images"],
            self.progress.seconds,
            self.accelerator.num_processes,
        )
        record["protocol"] = {k: v for k, v in self.protocol.items() if k not in config}
        return record | {"step": self.progress.step, "loss": self.log.last("loss")}

    # ---- its steps --------------------------------------------------------------------------

    def loop(
        self,
        on_step: Callable[[int], None],
        checkpoint_every: int,
        max_train_minutes: float | None = None,
    ) -> None:
        """Makes all steps that are left, or those that there is time for.

        Args:
            on_step: called after each, in every process. What it writes is there before the
                checkpoint is, lest a kill between the two lose it.
            checkpoint_every: steps between checkpoints.
            max_train_minutes: after which no step is begun but the first; None for no end. The
                checkpoint is written.

        Raises:
            HDZooError: the run has diverged.
            StoppedError: it was; the checkpoint is written.
        """
        progress, last = self.progress, self.config.max_train_steps
        before, interrupts = progress.seconds, Interrupts()
        self.clock = Clock(progress.step, last, max_train_minutes)
        options = {"desc": "training", "unit": "step", "smoothing": 0.05}
        self.bar = bar = tqdm(total=last, initial=progress.step, **options)
        try:
            with bar, interrupts, torch.random.fork_rng():
                for step, images in zip(self.batches.steps, self.loader, strict=True):
                    self.step(step, images)
                    progress.step = done = step + 1
                    bar.update()
                    if done % LOG_EVERY == 0 or done == last:
                        bar.set_postfix(loss=f"{self.log_loss():.4g}")
                    on_step(done)
                    if (notice := self.clock.notice(done)) is not None:
                        self.say(notice)
                    wishes = interrupts.signal is not None, self.clock.is_over()
                    stop, over = agreed(self.accelerator, done, *wishes)
                    if stop or over or done % checkpoint_every == 0 or done == last:
                        # Before it takes the place of a good one.
                        self.check_finite(all_finite(self.network), "weights are not finite")
                        progress.seconds = before + self.clock.seconds
                        self.save()
                    if stop:
                        raise KeyboardInterrupt
                    if over:
                        break
        except KeyboardInterrupt:
            kept = latest_checkpoint(self.checkpoints)
            where = "from the start" if kept is None else f"from step {kept.progress.step}"
            raise StoppedError(
                f"interrupted at step {progress.step} of {last}; the same command goes on {where}",
                interrupts.signal or 2,
            ) from None

    def step(self, step: int, images: torch.Tensor) -> None:
        """Makes one step of the optimiser, and then one of the average.

        Args:
            step: its number, from 0.
            images: of this process, shape (batch, channels, height, width).
        """
        config, accelerator = self.config, self.accelerator
        seed_step(config.seed, step, accelerator.process_index)
        images = images.to(accelerator.device, non_blocking=True)
        draws = self.objective.draw(self.seen, images)
        if config.random_flip:
            images = flip_half(images)
        if config.dequantize:
            images = dequantized(images, data_range_of(self.network))
        number = config.gradient_accumulation_steps
        parts = zip(*(whole.chunk(number) for whole in (images, *draws)), strict=True)
        for i, part in enumerate(parts, 1):
            # Processes average their gradients once, with the last part.
            with nullcontext() if i == number else accelerator.no_sync(self.model):
                loss = self.loss(*part)
                accelerator.backward(loss / number)
            self.running += loss.detach() / number
        accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())

    def loss(self, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        """The objective's loss of a part of the images."""
        loss = self.model(images, *draws)
        if not isinstance(loss, torch.Tensor) or loss.shape != () or not loss.requires_grad:
            raise HDZooError(
                f"objective {self.config.objective!r} gives {shown(loss)} for a loss; it must be a "
                "scalar tensor that depends on the weights"
            )
        return loss

    def log_loss(self) -> float:
        """Logs the mean loss of the steps since the last time, over all processes."""
        progress = self.progress
        total = self.accelerator.reduce(self.running, "mean").item()
        mean = total / (progress.step - progress.logged)
        self.running.zero_()
        progress.logged = progress.step
        self.check_finite(math.isfinite(mean), f"loss is {mean}")
        rate = self.lr_scheduler.get_last_lr()[0]
        self.log.add(progress.step, loss=mean, learning_rate=rate)
        self.accelerator.log({"loss": mean, "lr": rate}, step=progress.step)
        return mean

    def say(self, text: str) -> None:
        """Says where the run is, above the progress."""
        if self.accelerator.is_main_process:
            self.bar.write(f"step {self.progress.step:,}: {text}", file=sys.stderr)

    def check_finite(self, finite: bool, what: str) -> None:
        """Ends a run that has diverged; the last checkpoint stays as it is."""
        if not finite:
            raise HDZooError(
                f"the run has diverged: the {what} at step {self.progress.step}. The last "
                "checkpoint is kept, but leads here again: lower learning_rate (now "
                f"{self.config.learning_rate:g}) and give another output folder"
            )

    # ---- what the average is worth on the way -----------------------------------------------

    @contextmanager
    def averaged_weights(self) -> Iterator[ModelMixin]:
        """Puts the averaged weights into the network for a while."""
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        self.network.eval()
        try:
            yield self.network
        finally:
            self.ema.restore(self.network.parameters())
            self.network.train()

    def log_held_out(self, images: Images) -> None:
        """Logs the held-out loss of the averaged weights, on a part of the images."""
        chosen = range(0, len(images), -(-len(images) // HELD_OUT_IMAGES))
        part = Images(images.dataset.select(chosen), images.name)
        with self.averaged_weights() as network:
            loss = held_out_loss(
                network,
                image_loader(part, self.transform, batch_size=500),
                self.config.seed,
                most_levels=HELD_OUT_LEVELS,
                dequantize=self.config.dequantize,
            )
        step, mean = self.progress.step, statistics.fmean(loss["loss"])
        self.log.add(step, held_out_loss=loss)
        named = zip(loss["sigmas"], loss["loss"], strict=True)
        curves = {f"held_out_loss/{sigma:.3g}": value for sigma, value in named}
        self.accelerator.log(curves | {"held_out_loss/mean": mean}, step=step)
        left = self.clock.time_left(step)
        self.say(f"held-out loss {mean:.4g}{f', {left}' if left else ''}")


def all_finite(network: ModelMixin) -> bool:
    """Whether no weight is NaN or infinite."""
    return bool(torch.stack([p.detach().isfinite().all() for p in network.parameters()]).all())
