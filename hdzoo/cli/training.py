"""Commands that train."""

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import (
    CenterCrop,
    ImageColumn,
    Interpolation,
    Options,
    parse_options,
)
from hdzoo.cli.terminal import note, render_options, say


def train(
    dataset: Annotated[
        str, typer.Option(help="A registered name, .parquet file(s), an image folder, or a Hub id.")
    ],
    output_dir: Annotated[Path, typer.Option(help="The pipeline folder to write.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    image_column: ImageColumn = None,
    held_out: Annotated[
        str | None, typer.Option(help="Images to measure the loss on at the end, as --dataset.")
    ] = None,
    held_out_split: Annotated[str, typer.Option(help="Their split.")] = "test",
    held_out_every: Annotated[
        int, typer.Option(min=0, help="Steps between such losses on the way; 0 for none.")
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A registered network; see `hdzoo plugins`. Default: unet."),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Start from the network and weights of a folder, a bundled name, or a Hub id.",
        ),
    ] = None,
    model_option: Annotated[
        list[str] | None,
        typer.Option("--model-option", "-m", help="A network option, KEY=VALUE. May be repeated."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            "-s",
            help="The sampler to save with the network. Default: a preset, where it has one.",
        ),
    ] = None,
    option: Options = None,
    objective: Annotated[
        str, typer.Option(help="What is made small: a registered name; see `hdzoo plugins`.")
    ] = "denoising",
    objective_option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the objective, KEY=VALUE. May be repeated."),
    ] = None,
    max_train_steps: Annotated[int, typer.Option(help="Optimiser steps, all told.")] = 10_000,
    train_batch_size: Annotated[int, typer.Option(help="Images a step, all told.")] = 128,
    gradient_accumulation_steps: Annotated[
        int, typer.Option(help="Parts of a process's images that are computed one by one.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    lr_scheduler: Annotated[
        str, typer.Option(help="diffusers' name of the schedule.")
    ] = "constant_with_warmup",
    lr_warmup_steps: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 200,
    max_grad_norm: Annotated[float, typer.Option(help="Gradients are clipped to it.")] = 1.0,
    ema_decay: Annotated[
        float, typer.Option(help="Largest decay of the averaged weights.")
    ] = 0.9995,
    ema_rule: Annotated[
        str, typer.Option(help="How the decay grows: warmup, score-sde or constant.")
    ] = "warmup",
    sigma_distribution: Annotated[
        str | None,
        typer.Option(
            help="ladder, log-uniform or log-normal."
            " Default: ladder for a network that has one, else log-uniform."
        ),
    ] = None,
    log_sigma_mean: Annotated[float, typer.Option(help="For log-normal.")] = -1.4,
    log_sigma_std: Annotated[float, typer.Option(help="For log-normal.")] = 1.4,
    loss_weighting: Annotated[str, typer.Option(help="song-ermon or karras.")] = "song-ermon",
    mixed_precision: Annotated[
        str, typer.Option("--mixed-precision", "--dtype", help="no (float32), bf16 or fp16.")
    ] = "no",
    random_flip: Annotated[
        bool, typer.Option("--random-flip", help="Mirror half of the images.")
    ] = False,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Add noise within one grey level to images.")
    ] = False,
    center_crop: CenterCrop = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Crop to squares and bring to -m sample_size."),
    ] = False,
    image_interpolation_mode: Interpolation = "bicubic",
    seed: Annotated[int, typer.Option(help="Of weights, order and noise.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    sample_every: Annotated[
        int, typer.Option(min=0, help="Steps between grids of samples; 0 for none.")
    ] = 0,
    max_train_minutes: Annotated[
        float | None,
        typer.Option(help="Stop this call after so long; the same command goes on."),
    ] = None,
    tracker: Annotated[str | None, typer.Option(help="tensorboard or wandb.")] = None,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode images.")] = 0,
) -> None:
    """Train a score network. The same command resumes a run that was stopped.

    Size, channels, mean and standard deviation of the network are those of the images.

    `accelerate launch -m hdzoo train ...` trains on several GPUs,
    `torchrun --nproc-per-node 2 -m hdzoo train ...` on CPUs.
    """
    model_options, sampler_options = parse_options(model_option), parse_options(option)
    from hdzoo.images.images import Images
    from hdzoo.images.sources import load_images
    from hdzoo.training import trainer
    from hdzoo.training.fitting import options_for
    from hdzoo.training.objectives import SIGMA_DISTRIBUTIONS
    from hdzoo.training.outcome import result_lines
    from hdzoo.training.setup import (
        build_network,
        build_scheduler,
        default_sigma_distribution,
        initial_network,
    )

    # Before any image is looked at, what no run can use is refused.
    config = trainer.TrainingConfig(
        max_train_steps=max_train_steps,
        train_batch_size=train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        learning_rate=learning_rate,
        lr_scheduler=lr_scheduler,
        lr_warmup_steps=lr_warmup_steps,
        max_grad_norm=max_grad_norm,
        ema_decay=ema_decay,
        ema_rule=ema_rule,
        sigma_distribution=sigma_distribution or SIGMA_DISTRIBUTIONS[0],
        log_sigma_mean=log_sigma_mean,
        log_sigma_std=log_sigma_std,
        loss_weighting=loss_weighting,
        mixed_precision=mixed_precision,
        random_flip=random_flip,
        dequantize=dequantize,
        center_crop=center_crop,
        resize=resize,
        image_interpolation_mode=image_interpolation_mode,
        seed=seed,
        objective=objective,
        objective_options=parse_options(objective_option),
    )
    images = Images(load_images(dataset, split, image_column=image_column), dataset)
    measured: Images | None = None
    if held_out is not None:
        rows = load_images(held_out, held_out_split, image_column=image_column)
        measured = Images(rows, held_out)
    survey = images.survey(config.framing(model_options.get("sample_size")))
    note(f"{dataset}: {survey}")
    initial_weights = None
    if init_from is None:
        name = model or "unet"
        model_options = options_for(name, model_options, images, config)
        note(f"{name}: {render_options(model_options)}")
        network = build_network(name, model_options, seed)
    else:
        network, initial_weights = initial_network(init_from, model_options, model)
    config = dataclasses.replace(
        config,
        sigma_distribution=sigma_distribution or default_sigma_distribution(network),
        initial_weights=initial_weights,
    )
    folder = trainer.train(
        network,
        images,
        output_dir,
        config,
        held_out=measured,
        held_out_every=held_out_every,
        checkpoint_every=checkpoint_every,
        sample_every=sample_every,
        max_train_minutes=max_train_minutes,
        scheduler=build_scheduler(sampler, sampler_options, network),
        tracker=tracker,
        num_workers=num_workers,
        command=shlex.join(["hdzoo", *sys.argv[1:]]),
        dataset_name=dataset,
        init_from=init_from,
    )
    if os.environ.get("RANK", "0") == "0":
        for line in result_lines(folder):
            note(line)
        say(folder)


def train_classifier(
    dataset: Annotated[
        str,
        typer.Option(help="Labelled digits: a registered name, .parquet, a folder, or a Hub id."),
    ],
    test: Annotated[str, typer.Option(help="Images to measure the accuracy on, as --dataset.")],
    output_dir: Annotated[Path, typer.Option(help="The folder to write.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    image_column: ImageColumn = None,
    test_split: Annotated[str, typer.Option(help="Split of --test.")] = "test",
    num_epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 12,
    train_batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="The largest, of AdamW.")] = 5e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and moves.")] = 0,
) -> None:
    """Train the digit classifier that image metrics use. Minutes on MNIST; cannot be resumed."""
    from hdzoo.images.images import Images
    from hdzoo.images.sources import load_images
    from hdzoo.metrics import train_classifier as classifier

    folder = classifier.train_classifier(
        Images(load_images(dataset, split, image_column=image_column), dataset),
        Images(load_images(test, test_split, image_column=image_column), test),
        output_dir,
        classifier.ClassifierConfig(
            num_epochs=num_epochs,
            train_batch_size=train_batch_size,
            learning_rate=learning_rate,
            seed=seed,
        ),
        command=shlex.join(["hdzoo", *sys.argv[1:]]),
        dataset_name=dataset,
    )
    note(f"accuracy on the test images: {classifier.test_accuracy(folder):.2%}")
    say(folder)
