"""The ``hdzoo`` command. Each command is one call into the library, imported when it runs."""

import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hdzoo import __version__
from hdzoo.errors import HDZooError

app = typer.Typer(
    help="Score-based samplers on diffusers: draw, compare, train, extend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT_MODEL = "ncsn-mnist"
LONGEST_NAME = 32
# The extra that brings a package.
EXTRAS = {
    "datasets": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "arviz_stats": "evaluate",
    "matplotlib": "evaluate",
    "ot": "evaluate",
    "torch_fidelity": "evaluate",
}

Model = Annotated[str, typer.Argument(help="A folder, a bundled name, or a Hub id.")]
SamplerName = Annotated[
    str | None,
    typer.Option("--sampler", "-s", help="See `hdzoo samplers`. Default: the model's own."),
]
Evaluations = Annotated[
    int | None,
    typer.Option(
        "--num-inference-steps",
        "-t",
        help="Network evaluations for each image. Default: the sampler's own.",
    ),
]
Seed = Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")]
Dtype = Annotated[str, typer.Option(help="Weights: float32, bfloat16, float16.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A sampler option, KEY=VALUE. May be repeated."),
]
FeaturesWeights = Annotated[
    Path | None, typer.Option(help="A weights file for the extractor, in the place of its own.")
]
FeaturesBatch = Annotated[int, typer.Option(help="Images that go through the extractor together.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def sample(
    model: Model = DEFAULT_MODEL,
    sampler: SamplerName = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="How many.")] = 64,
    num_inference_steps: Evaluations = None,
    seed: Seed = 0,
    option: Options = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Where the grid goes, a PNG.")
    ] = None,
    images_dir: Annotated[
        Path | None, typer.Option(help="A folder for the single images, as PNGs.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="An animated GIF of the grid forming.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images drawn together.")] = 64,
    dtype: Dtype = "float32",
    scale: Annotated[int, typer.Option(min=1, help="Size of a pixel in grid and GIF.")] = 2,
) -> None:
    """Draw images with a sampler and save them as a grid."""
    options = parse_options(option)
    from hdzoo import sampling

    pipe = sampling.load_pipeline(model, sampler, options, dtype)
    start = sampling.start_of(pipe, model)
    if start is not None:
        note(
            f"{type(pipe.scheduler).__name__} walks at one noise level: it starts from images of "
            f"{type(start).__name__}, {start.num_inference_steps} network evaluations each"
        )
    pipe.scheduler.set_timesteps(num_inference_steps)
    steps = pipe.scheduler.num_inference_steps
    trajectory = sampling.Trajectory(pipe, steps, scale) if gif else None
    begin = time.perf_counter()
    images = sampling.draw(
        pipe,
        num_images,
        num_inference_steps=num_inference_steps,
        seed=seed,
        batch_size=batch_size,
        start=start,
        on_step=trajectory.record if trajectory else None,
    )
    seconds = time.perf_counter() - begin
    made_by = sampling.protocol(pipe, model, seed, start)
    name = sampler or type(pipe.scheduler).__name__
    output = output or Path("samples") / f"{Path(model).name}-{name}-seed{seed}.png"
    sampling.save_png(sampling.image_grid(images, scale), output, made_by)
    if images_dir is not None:
        for i, image in enumerate(images):
            sampling.save_png(image, images_dir / f"{i:05d}.png", made_by | {"index": i})
        note(f"single images: {images_dir}")
    if trajectory is not None and gif is not None:
        trajectory.save(gif)
        note(f"animation: {gif}")
    note(f"{len(images)} images, {steps} network evaluations each, {seconds:.1f} s")
    print(output)


@app.command()
def generate(
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-O", help="The folder of the set: new, or to go on with."),
    ],
    model: Model = DEFAULT_MODEL,
    sampler: SamplerName = None,
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", help="Of the whole set; it may grow later.")
    ] = 10_000,
    num_inference_steps: Evaluations = None,
    seed: Seed = 0,
    option: Options = None,
    chunk_size: Annotated[int, typer.Option(help="Images drawn together: a shard.")] = 250,
    dtype: Dtype = "float32",
    num_threads: Annotated[int, typer.Option(help="CPU threads of each process.")] = 1,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAMESPACE/NAME", help="The dataset repository to fill.")
    ] = None,
) -> None:
    """Draw a set of images into a folder that `datasets` reads; go on with one that was stopped.

    Many processes draw the same bytes: `accelerate launch -m hdzoo generate ...` on GPUs,
    `torchrun --nproc-per-node 8 -m hdzoo generate ...` on CPUs.
    """
    options = parse_options(option)
    try:
        from hdzoo.evaluation import dataset_card
        from hdzoo.evaluation.generation import generate as generate_set

        if push_to_hub is not None:
            dataset_card.check_repo_id(push_to_hub)
        with image_progress(num_images) as on_progress:
            made = generate_set(
                model,
                output_dir,
                num_images,
                sampler=sampler,
                options=options,
                num_inference_steps=num_inference_steps,
                seed=seed,
                chunk_size=chunk_size,
                dtype=dtype,
                num_threads=num_threads,
                command=shlex.join(["hdzoo", *sys.argv[1:]]),
                on_progress=on_progress,
                on_note=note,
            )
        if made.is_main_process:
            by = f"{made.num_processes} process{'es' * (made.num_processes > 1)}"
            drawn = f"{made.num_drawn} drawn now by {by} in {made.seconds:.1f} s"
            note(f"{made.num_images} images, {drawn}")
            if push_to_hub is not None:
                note(f"sent to {dataset_card.push_to_hub(made.folder, push_to_hub)}")
            print(made.folder)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            note(f"interrupted: what is drawn is in {output_dir}; the same command goes on with it")
        raise typer.Exit(130) from None


@app.command()
def evaluate(
    images: Annotated[
        str,
        typer.Argument(
            help="A set of `hdzoo generate`, an image folder, .parquet file(s), or a Hub id."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split of the images.")] = "train",
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            "-r",
            help="Real images, given likewise, or a file of `hdzoo reference`."
            " Default: what the model that drew the set has with it.",
        ),
    ] = None,
    reference_split: Annotated[str, typer.Option(help="Split of real images.")] = "test",
    features: Annotated[
        str | None,
        typer.Option(
            "--features", "-f", help="An extractor, as `hdzoo plugins` lists. Default: the file's."
        ),
    ] = None,
    features_weights: FeaturesWeights = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="fid, kid, isc or prc. May be repeated. Default: all."),
    ] = None,
    subsets: Annotated[int, typer.Option(help="Blocks that standard errors are from.")] = 10,
    metrics_seed: Annotated[int, typer.Option(help="Of the metrics' random choices.")] = 2020,
    batch_size: FeaturesBatch = 256,
    output: Annotated[Path | None, typer.Option("--output", "-O", help="The report, JSON.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="The model's folder: results go into its README.md.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Draw the set first, or what it lacks, from this model.")
    ] = None,
    sampler: SamplerName = None,
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", help="To draw, with --model.")
    ] = 10_000,
    num_inference_steps: Evaluations = None,
    seed: Seed = 0,
    option: Options = None,
    as_json: JsonOutput = False,
) -> None:
    """Judge images: FID, KID, IS, precision and recall, with spreads, and what real images get."""
    options = parse_options(option)
    if model is None and (sampler or options or num_inference_steps):
        raise HDZooError("a sampler, its options and steps are to draw with; give --model as well")
    from hdzoo.evaluation import report as reports
    from hdzoo.evaluation import results_card
    from hdzoo.evaluation.features import METRICS

    command = shlex.join(["hdzoo", *sys.argv[1:]])
    if model is not None:
        from hdzoo.evaluation.generation import generate as generate_set

        with image_progress(num_images) as on_progress:
            made = generate_set(
                model,
                images,
                num_images,
                sampler=sampler,
                options=options,
                num_inference_steps=num_inference_steps,
                seed=seed,
                command=command,
                on_progress=on_progress,
                on_note=note,
            )
        if not made.is_main_process:
            return
    with work_progress() as on_work:
        report = reports.evaluate(
            images,
            split=split,
            reference=reference,
            reference_split=reference_split,
            features=features,
            weights=features_weights,
            metrics=metric or tuple(METRICS),
            subsets=subsets,
            seed=metrics_seed,
            batch_size=batch_size,
            command=command,
            on_progress=on_work,
        )
    if output is not None:
        report.save(output)
        note(f"report: {output}")
    if card is not None:
        note(f"card: {results_card.write_results(card, report)}")
    for text in report.notes:
        note(text)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    rows = report.rows()
    print_table(rows, tuple(rows[0]))
    print("\n".join(report.legend()))


@app.command()
def reference(
    dataset: Annotated[
        str,
        typer.Argument(help="A registered name, .parquet file(s), an image folder, or a Hub id."),
    ],
    output: Annotated[Path, typer.Option("--output", "-O", help="The .safetensors file.")],
    split: Annotated[str, typer.Option(help="Split of the images.")] = "test",
    features: Annotated[
        str, typer.Option("--features", "-f", help="An extractor, as `hdzoo plugins` lists.")
    ] = "digits",
    features_weights: FeaturesWeights = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the images, such as their Hub id.")
    ] = None,
    max_features: Annotated[
        int, typer.Option(help="Features are kept of so many images; moments are of all.")
    ] = 5000,
    seed: Annotated[int, typer.Option(help="Of the choice of these.")] = 0,
    batch_size: FeaturesBatch = 256,
) -> None:
    """Keep what `hdzoo evaluate` needs of real images, so that it needs no image."""
    from hdzoo.evaluation.features import get_extractor
    from hdzoo.evaluation.image_sets import open_images
    from hdzoo.evaluation.reference import make_reference

    images, extractor = open_images(dataset, split), get_extractor(features, features_weights)
    with work_progress() as on_work:
        made = make_reference(
            images,
            extractor,
            max_features=max_features,
            seed=seed,
            dataset=name,
            batch_size=batch_size,
            command=shlex.join(["hdzoo", *sys.argv[1:]]),
            on_progress=on_work,
        )
    made.save(output)
    print(output)


@app.command()
def samplers(as_json: JsonOutput = False) -> None:
    """List the samplers: source, family, options, and the package each comes from."""
    from hdzoo.catalog import sampler_rows

    rows = sampler_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shared = set.intersection(*(set(row["options"]) for row in rows if row["options"]))
    for row in rows:
        own = {key: value for key, value in row["options"].items() if key not in shared}
        row["sampler"] = f"{row['name']}\n{row['family']}\n{row['package']}"
        row["source and options"] = f"{row['source']}\n{render_options(own)}"
    print_table(rows, ("sampler", "source and options"))
    print(f"All take {', '.join(sorted(shared))} as well.")


@app.command()
def plugins(as_json: JsonOutput = False) -> None:
    """List the plugins: what each brings, and which are left out and why."""
    import dataclasses

    from hdzoo import plugins as registry

    with warnings.catch_warnings():
        # The table says it already.
        warnings.simplefilter("ignore")
        rows = [dataclasses.asdict(info) for info in registry.plugins()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        row["plugin"] = f"{row['name']}\n{row['distribution']} {row['version']}"
        brings = [f"{kind}: {', '.join(row[kind])}" for kind in registry.KINDS if row[kind]]
        row["brings"] = "\n".join(brings) or f"nothing: {row['error']}"
    print_table(rows, ("plugin", "brings"))


@app.command()
def info(
    model: Model = DEFAULT_MODEL,
    as_json: JsonOutput = False,
) -> None:
    """Describe a model: network, range, sampler, weights, held-out loss."""
    from hdzoo.catalog import describe_model

    facts = describe_model(model)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        rows = [{"": key, "value": render(value)} for key, value in facts.items()]
        print_table(rows, ("", "value"))


@app.command()
def verify(
    samplers: Annotated[
        list[str] | None, typer.Argument(help="Registered names. Default: all.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Check samplers: contract, exact law, bias, law on a mixture. Exit code 1 if one fails."""
    import dataclasses

    from hdzoo import plugins as registry
    from hdzoo.evaluation import verify as verification

    names = samplers or registry.list_samplers()
    for name in names:
        registry.provider("samplers", name)
    with progress_bar(len(names) * len(verification.CHECKS)) as advance:
        verdicts = verification.verify(
            names, lambda verdict: advance(f"{verdict.sampler}: {verdict.check}")
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(verdict) for verdict in verdicts], indent=2))
    else:
        print("Exact Wasserstein-2 distance to Gaussian data, s.d. 0.25, 0.05 and 0:")
        print_table(verification.bias_rows(verdicts), ("sampler", "against", "W2 to the data"))
        rows = verification.summary_rows(verdicts)
        print_table(rows, tuple(rows[0]))
    for verdict in verdicts:
        if verdict.outcome != "pass":
            note(f"{verdict.outcome}: {verdict.sampler}, {verdict.check}: {verdict.message}")
    if any(verdict.outcome == "fail" for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which; all are listed without it.")] = None,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-O", help="Where NAME.png and NAME.json go.")
    ] = Path("reproductions"),
) -> None:
    """Find a published result anew: a figure, a JSON, and what the paper says beside it."""
    from hdzoo.evaluation.literature import base as literature

    if name is None:
        print_table(literature.catalogue(), ("name", "result"))
        return
    result = literature.reproduce(name, output_dir, shlex.join(["hdzoo", *sys.argv[1:]]), note)
    print(f"{result.title}\n{result.source}")
    print_table(literature.claim_rows(result), ("statement", "published", "found", "agrees"))
    print(result.conclusion)
    print(output_dir / f"{name}.png")


@app.command()
def demo_2d(
    target: Annotated[
        str, typer.Option(help="A registered target in the plane.")
    ] = "eight-gaussians",
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            "-s",
            help="May be repeated; annealed-langevin and half-denoising by default.",
        ),
    ] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Chains of each.")] = 400,
    num_inference_steps: Annotated[
        int, typer.Option("--num-inference-steps", "-t", help="Evaluations for each chain.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Chain i depends on (seed, i) alone.")] = 0,
    option: Options = None,
    frames: Annotated[int, typer.Option(help="Pictures, the first and the last included.")] = 60,
    output: Annotated[Path, typer.Option("--output", "-O", help="The animated GIF.")] = Path(
        "demo.gif"
    ),
    png: Annotated[Path | None, typer.Option(help="A PNG of the last picture.")] = None,
) -> None:
    """Show chains moving on a density in the plane and its score, samplers side by side.

    The table has the share of each mode, and the W2 distance to exact samples.
    Exact samples of the same size are some distance apart themselves: "exact".
    """
    options = parse_options(option)
    from hdzoo.evaluation import demo

    with progress_bar(frames) as advance:
        result = demo.demo_2d(
            target,
            sampler or demo.DEFAULT_SAMPLERS,
            num_samples=num_samples,
            num_inference_steps=num_inference_steps,
            seed=seed,
            options=options,
            num_frames=frames,
            on_frame=advance,
        )
    result.save(output)
    if png is not None:
        result.save_last_frame(png)
        note(f"last picture: {png}")
    print_table(result.table, tuple(result.table[0]))
    print(output)


@app.command()
def train(
    dataset: Annotated[
        str, typer.Option(help="A registered name, .parquet file(s), an image folder, or a Hub id.")
    ],
    output_dir: Annotated[Path, typer.Option(help="The pipeline folder to write.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    held_out: Annotated[
        str | None, typer.Option(help="Images to measure the loss on at the end, as --dataset.")
    ] = None,
    held_out_split: Annotated[str, typer.Option(help="Their split.")] = "test",
    model: Annotated[str, typer.Option(help="A registered network; see `hdzoo plugins`.")] = "unet",
    model_option: Annotated[
        list[str] | None,
        typer.Option("--model-option", "-m", help="A network option, KEY=VALUE. May be repeated."),
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", "-s", help="The sampler to save with the network.")
    ] = "annealed-langevin",
    option: Options = None,
    max_train_steps: Annotated[int, typer.Option(help="Optimiser steps, all told.")] = 10_000,
    train_batch_size: Annotated[int, typer.Option(help="Images a step, all told.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    lr_scheduler: Annotated[
        str, typer.Option(help="diffusers' name of the schedule.")
    ] = "constant_with_warmup",
    lr_warmup_steps: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 200,
    max_grad_norm: Annotated[float, typer.Option(help="Gradients are clipped to it.")] = 1.0,
    ema_decay: Annotated[
        float, typer.Option(help="Largest decay of the averaged weights.")
    ] = 0.9995,
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
    mixed_precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    random_flip: Annotated[
        bool, typer.Option("--random-flip", help="Mirror half of the images.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of weights, order and noise.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    sample_every: Annotated[
        int, typer.Option(min=0, help="Steps between grids of samples; 0 for none.")
    ] = 0,
    tracker: Annotated[str | None, typer.Option(help="Such as tensorboard.")] = None,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode images.")] = 0,
) -> None:
    """Train a score network. The same command resumes a run that was stopped."""
    model_options, sampler_options = parse_options(model_option), parse_options(option)
    from hdzoo.training import trainer
    from hdzoo.training.data import load_images
    from hdzoo.training.setup import (
        build_network,
        build_scheduler,
        default_sigma_distribution,
    )

    network = build_network(model, model_options, seed)
    config = trainer.TrainingConfig(
        max_train_steps=max_train_steps,
        train_batch_size=train_batch_size,
        learning_rate=learning_rate,
        lr_scheduler=lr_scheduler,
        lr_warmup_steps=lr_warmup_steps,
        max_grad_norm=max_grad_norm,
        ema_decay=ema_decay,
        sigma_distribution=sigma_distribution or default_sigma_distribution(network),
        log_sigma_mean=log_sigma_mean,
        log_sigma_std=log_sigma_std,
        loss_weighting=loss_weighting,
        mixed_precision=mixed_precision,
        random_flip=random_flip,
        seed=seed,
    )
    folder = trainer.train(
        network,
        load_images(dataset, split),
        output_dir,
        config,
        held_out=load_images(held_out, held_out_split) if held_out else None,
        checkpoint_every=checkpoint_every,
        sample_every=sample_every,
        scheduler=build_scheduler(sampler, sampler_options, network),
        tracker=tracker,
        num_workers=num_workers,
        command=shlex.join(["hdzoo", *sys.argv[1:]]),
        dataset_name=dataset,
    )
    print(folder)


@app.command()
def train_classifier(
    dataset: Annotated[
        str,
        typer.Option(help="Labelled digits: a registered name, .parquet, a folder, or a Hub id."),
    ],
    test: Annotated[str, typer.Option(help="Images to measure the accuracy on, as --dataset.")],
    output_dir: Annotated[Path, typer.Option(help="The folder to write.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split of --test.")] = "test",
    num_epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 12,
    train_batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="The largest, of AdamW.")] = 5e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and moves.")] = 0,
) -> None:
    """Train the digit classifier that image metrics use. Minutes on MNIST; cannot be resumed."""
    from hdzoo.training import classifier
    from hdzoo.training.data import load_images

    folder = classifier.train_classifier(
        load_images(dataset, split),
        load_images(test, test_split),
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
    print(folder)


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is JSON (0.1, [1, 2], null, true) or else a word."""
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise HDZooError(
                f"option {pair!r} is not of the form KEY=VALUE, such as step_size=2e-5"
            )
        try:
            options[key.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            options[key.replace("-", "_")] = value
    return options


def render(value: Any) -> str:
    """A value for a table: numbers short, lists on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(render(item) for item in value)
    if isinstance(value, dict):
        return "\n".join(f"{key} {render(item)}" for key, item in value.items())
    return str(value)


def render_options(options: dict[str, Any]) -> str:
    """Options with their defaults."""
    return ", ".join(f"{key}={render(value)}" for key, value in options.items())


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Prints a table; a line break in a cell is kept."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    # A name is not to be broken; a sentence is.
    first = max(len(line) for row in rows for line in str(row[columns[0]]).splitlines() or [""])
    for column in columns:
        unbroken = column == columns[0] and first <= LONGEST_NAME
        table.add_column(column, overflow="fold", no_wrap=unbroken)
    for row in rows:
        table.add_row(*(Text(str(row[column])) for column in columns))
    Console().print(table)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A bar beside the result; gives a function that advances it and says what was done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)


@contextmanager
def image_progress(total: int) -> Iterator[Callable[[float], None]]:
    """A bar with images per second and the time left; gives a function of the number done."""
    from datetime import timedelta

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    first: tuple[float, float] | None = None

    def update(done: float) -> None:
        nonlocal first
        now = time.perf_counter()
        if first is None:
            # Only the process that speaks for all ever comes here.
            progress.start()
            first = (done, now)
        # The bar never goes back, though the share of the other processes is an estimate.
        done = max(done, progress.tasks[0].completed)
        text = f"{done:.0f}/{total} images"
        if done > first[0]:
            rate = (done - first[0]) / (now - first[1])
            left = timedelta(seconds=round((total - done) / rate))
            text += f", {rate:.3g} images/s, {left} left"
        progress.update(task, completed=done, description=text)

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"))
    off = not console.is_terminal
    progress = Progress(*columns, console=console, transient=True, disable=off)
    task = progress.add_task("", total=total)
    try:
        yield update
    finally:
        progress.stop()


@contextmanager
def work_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work; gives a function of what is done, how much, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield update


def note(message: str) -> None:
    """Says something beside the result, which alone goes to standard output."""
    print(message, file=sys.stderr)


def main() -> None:
    """Runs the command; a mistake that the user can mend is one message and exit code 2."""
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    try:
        app()
    except HDZooError as error:
        note(f"error: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        note(f"error: this command needs {package}: pip install 'hdzoo[{EXTRAS[package]}]'")
        sys.exit(2)
