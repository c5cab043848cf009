"""Training a score network, from a data set to a folder that is ready for the Hub."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin, ProjectConfiguration
from diffusers import ModelMixin

from hdzoo.checks import POSITIVE, Maybe
from hdzoo.errors import HDZooError
from hdzoo.files import check_folder, exclusive, named_path
from hdzoo.images.folder import check_apart
from hdzoo.images.images import Images
from hdzoo.processes import all_processes, in_first_process
from hdzoo.training.config import TrainingConfig
from hdzoo.training.data import image_loader
from hdzoo.training.fitting import check_images
from hdzoo.training.objectives import build_objective
from hdzoo.training.outcome import finish, save_samples
from hdzoo.training.run import Run
from hdzoo.training.setup import build_scheduler
from hdzoo.training.trackers import check_tracker, track_picture

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TrainingConfig", "train"]

# Of each sample on the way, or as many as the sampler has levels.
GRID_EVALUATIONS = 100
# What splits a network over processes; checkpoints here have it whole.
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def train(
    model: ModelMixin,
    dataset: "Dataset | Images",
    output_dir: str | Path,
    config: TrainingConfig,
    *,
    held_out: "Dataset | Images | None" = None,
    held_out_every: int = 0,
    checkpoint_every: int = 500,
    keep_checkpoints: bool = True,
    sample_every: int = 0,
    num_samples: int = 16,
    max_train_minutes: float | None = None,
    scheduler: Any = None,
    tracker: str | None = None,
    num_workers: int = 0,
    command: str | None = None,
    dataset_name: str | None = None,
    init_from: str | None = None,
) -> Path:
    """Trains a score network by denoising score matching and writes a Hub-ready pipeline folder.

    A call that finds a checkpoint of the same run in ``output_dir`` goes on from it, and ends with
    the same weights, bit for bit, as a run that was never stopped (on the same machine with the
    same number of threads): data, noise levels and noise are functions of (seed, step). It is the
    same run if all is that its weights depend on: the options, the network's too, the images and
    the number of processes. A call that finds the run finished trains no more.

    On Ctrl-C or SIGTERM a checkpoint is written. After ``max_train_minutes`` that, and the pipeline
    folder as far as it is; ``step`` in ``training.json`` says how far. Run it in every process of
    ``accelerate launch`` or, on CPUs, of ``torchrun``.

    Args:
        model: a score network: `hdzoo.models`, or any ``ModelMixin`` that is told the noise level
            and has ``sample_size``, ``in_channels``, ``sigma_min`` and ``sigma_max`` in its config.
            It predicts its ``prediction_type``, the score if it has none. In float32.
        dataset: images, in the column ``"image"`` or the only one that holds some. Each is read
            once before anything is written (`hdzoo.images.images.Images.survey`).
        output_dir: the pipeline folder to write. The checkpoint that a longer run starts from stays
            below it, in ``checkpoints/``; a ``.gitignore`` keeps it from the Hub. ``losses.jsonl``
            has the mean loss of every 50 steps.
        config: the run.
        held_out: images to measure the denoising loss on at the end; the result goes into the
            model's config.
        held_out_every: steps between measurements on the way, with the averaged weights and at most
            1,000 of these images, for ``losses.jsonl`` and the card; 0 for none.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: whether the last checkpoint outlives the last step of the run.
        sample_every: steps between grids of samples in ``samples/``, drawn with about 100
            evaluations; 0 for none.
        num_samples: images for the card, drawn at the end; 0 for none.
        max_train_minutes: of this call, after which it makes no further step; None for no end. The
            call makes at least one, and what follows the last takes its own time: held-out loss,
            samples, card. Several processes look at the clock every 10 steps.
        scheduler: the sampler to save with the network; by default that of
            `hdzoo.training.setup.default_sampler`.
        tracker: Accelerate's name of a tracker, ``"tensorboard"`` or ``"wandb"``; logs go to
            ``logs/``: what ``losses.jsonl`` has, the grids of samples, and ``config``.
        num_workers: processes that decode images.
        command: what the user typed, for the record.
        dataset_name: where the images are from, for the record and the card.
        init_from: where the model's weights are from if they are not fresh, likewise; their hash is
            ``config.initial_weights``.

    Returns:
        ``output_dir``.

    Raises:
        HDZooError: the folder holds another run, is in use or cannot be written, the loss is not
            finite, or the data or the options do not fit the network.
        StoppedError: the run was.
    """
    output_dir = named_path(output_dir, "output_dir")
    max_train_minutes = Maybe(POSITIVE)("max_train_minutes", max_train_minutes)
    check_tracker(tracker)
    build_objective(config.objective, config.objective_options).check(model, config)
    if held_out_every and held_out is None:
        raise HDZooError("held_out_every needs images to measure on; give held_out as well")
    scheduler = scheduler or build_scheduler(None, {}, model)
    # Once, since a sampler has other levels after it has drawn.
    sample_steps = max(GRID_EVALUATIONS, len(getattr(scheduler, "levels", ())))
    accelerator = build_accelerator(output_dir, config, tracker)
    is_main = accelerator.is_main_process
    in_first_process(accelerator, lambda: check_folder(output_dir))
    pictures = Images.of(dataset, dataset_name or "the data set")
    held_out = None if held_out is None else Images.of(held_out, "the held-out data set")
    for given in (pictures, held_out):
        if given is not None:
            check_apart(given.name, output_dir)
            check_images(model, given, config.resize)
    run = Run(accelerator, model, pictures, output_dir, config, num_workers)

    def on_step(step: int) -> None:
        if is_main and held_out_every and step % held_out_every == 0:
            assert held_out is not None
            run.log_held_out(held_out)
        if is_main and sample_every and step % sample_every == 0:
            path = output_dir / "samples" / f"{step:06d}.png"
            with run.averaged_weights() as network:
                grid = save_samples(network, scheduler, path, num_inference_steps=sample_steps)
            if grid is not None:
                track_picture(accelerator, "samples", grid, step)

    with ExitStack() as stack:
        in_first_process(accelerator, lambda: stack.enter_context(exclusive(output_dir)))
        in_first_process(accelerator, run.prepare_folder)
        if run.is_finished():
            return output_dir
        run.start(tracker)
        run.loop(on_step, checkpoint_every, max_train_minutes)
        if is_main:
            run.ema.copy_to(model.parameters())
            names = {"dataset": dataset_name, "command": command, "init_from": init_from}
            loader = None
            if held_out is not None:
                loader = image_loader(held_out, run.transform, num_workers, batch_size=500)
            finish(
                model.eval(),
                scheduler,
                output_dir,
                run.record() | names,
                run.log,
                held_out=loader,
                num_samples=num_samples,
            )
            if not keep_checkpoints and run.progress.step == config.max_train_steps:
                shutil.rmtree(run.checkpoints)
        accelerator.wait_for_everyone()
    # Last, since it takes the processes apart.
    accelerator.end_training()
    return output_dir


def build_accelerator(output_dir: Path, config: TrainingConfig, tracker: str | None) -> Accelerator:
    """The processes of the launcher, which join in one run whatever they compute on.

    Args:
        output_dir: of the run.
        config: of the run.
        tracker: Accelerate's name of one.

    Raises:
        HDZooError: the launcher was told what the run was not, or asks for what it cannot do.
    """
    all_processes()
    told = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    own = config.gradient_accumulation_steps
    if told is not None and told != str(own):
        raise HDZooError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS is {told}, and gradient_accumulation_steps of "
            f"this run is {own}; give the same to both (--gradient-accumulation-steps), or leave "
            "the variable, or the launcher's option, out"
        )
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            # Else Accelerate divides the loss by what the environment says.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            log_with=tracker,
            project_config=ProjectConfiguration(
                str(output_dir), logging_dir=str(output_dir / "logs")
            ),
        )
    except ValueError as error:
        raise HDZooError(f"the run cannot be set up: {error}") from error
    if accelerator.distributed_type in SHARDED:
        raise HDZooError(
            f"the launcher asks for {accelerator.distributed_type.value}, which splits the network "
            "over processes; hdzoo trains with the whole network in each, so leave that out"
        )
    if config.mixed_precision == "fp16" and accelerator.scaler is None:
        raise HDZooError(
            f"mixed_precision 'fp16' needs a GPU, and the run is on {accelerator.device.type!r}; "
            "use 'bf16' or 'no'"
        )
    return accelerator
