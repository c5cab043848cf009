"""Commands that judge: samplers on exact targets, published results, images."""

import json
import os
import shlex
import sys
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import (
    DEFAULT_MODEL,
    Backend,
    CenterCrop,
    ClassLabel,
    Dtype,
    Evaluations,
    FeaturesBatch,
    FeaturesWeights,
    ImageColumn,
    Interpolation,
    JsonOutput,
    Model,
    Options,
    Resolution,
    SamplerName,
    Seed,
    parse_options,
)
from hdzoo.cli.terminal import note, note_evaluations, print_table, say, work_progress
from hdzoo.errors import HDZooError
from hdzoo.files import check_file
from hdzoo.text import counted


def verify(
    samplers: Annotated[
        list[str] | None, typer.Argument(help="Registered names. Default: all.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A PNG: the distance to Gaussian data against cost.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Check samplers: contract, exact law, what it converges to, bias, samples.

    A sampler passes where its law was compared with what it converges to, or with what it stays in;
    "contract only" says that there was nothing of the kind to compare with. Exit code 1 if one
    fails, else 0.
    """
    import dataclasses

    from hdzoo import plugins as registry
    from hdzoo.verification.verify import CHECKS, bias_rows, conclusions, summary_rows
    from hdzoo.verification.verify import verify as run_checks

    names = samplers or registry.list_samplers()
    for name in names:
        registry.provider("samplers", name)
    if picture is not None:
        from hdzoo.plots import save_figure
        from hdzoo.verification.picture import bias_figure, cost_curves

        check_file(picture, ".png")
    checks, done = len(CHECKS), count(1)
    note(f"{counted(len(names), 'sampler')}, {checks} checks of each")
    with work_progress() as on_work:
        on_work("checks", 0, len(names) * checks)
        verdicts = run_checks(names, lambda _: on_work("checks", next(done), len(names) * checks))
    if picture is not None:
        save_figure(bias_figure(cost_curves(verdicts)), picture)
        note(f"picture: {picture}")
    if as_json:
        rows = [dataclasses.asdict(verdict) for verdict in verdicts]
        say(json.dumps({"samplers": conclusions(verdicts), "verdicts": rows}, indent=2))
    else:
        curves = bias_rows(verdicts)
        if curves:
            say("Exact Wasserstein-2 distance to Gaussian data, s.d. 0.25, 0.05 and 0:")
            print_table(curves, ("sampler", "against", "W2 to the data"))
        rows = summary_rows(verdicts)
        print_table(rows, tuple(rows[0]))
    for verdict in verdicts:
        if verdict.outcome != "pass":
            note(f"{verdict.outcome}: {verdict.sampler}, {verdict.check}: {verdict.message}")
    if any(verdict.outcome == "fail" for verdict in verdicts):
        raise typer.Exit(1)


def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which; all are listed without it.")] = None,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-O", help="Where NAME.png and NAME.json go.")
    ] = Path("reproductions"),
    quick: Annotated[
        bool, typer.Option("--quick", help="In minutes, with wider intervals; not of all.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Of this one, KEY=VALUE. May be repeated."),
    ] = None,
) -> None:
    """Find a published result anew: a figure, a JSON, and what the paper says beside it.

    Those that take long go on where they stopped.
    """
    options = parse_options(option) | ({"quick": True} if quick else {})
    from hdzoo.literature import base as literature

    if name is None:
        print_table(literature.catalogue(), ("name", "result"))
        return
    with work_progress() as on_work:

        def on_step(text: str, done: int = 0, total: int = 0) -> None:
            note(text)
            if total:
                on_work(name, done, total)

        command = shlex.join(["hdzoo", *sys.argv[1:]])
        result = literature.reproduce(name, output_dir, command, on_step, options)
    say(f"{result.title}\n{result.source}")
    print_table(literature.claim_rows(result), ("statement", "published", "found", "agrees"))
    say(result.conclusion)
    say(output_dir / f"{name}.png")


def evaluate(
    images: Annotated[
        str,
        typer.Argument(
            help="A set of `hdzoo generate`, an image folder, .parquet file(s), or a Hub id."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split of the images.")] = "train",
    image_column: ImageColumn = None,
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
    reference_image_column: ImageColumn = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features", "-f", help="An extractor, as `hdzoo plugins` lists. Default: the file's."
        ),
    ] = None,
    features_weights: FeaturesWeights = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="fid, kid, isc, prc, wfid or tv. May be repeated. Default: all."
        ),
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
    from hdzoo.generation.manifest import read_manifest
    from hdzoo.metrics import report as reports
    from hdzoo.metrics import results_card

    command = shlex.join(["hdzoo", *sys.argv[1:]])
    if output is not None:
        check_file(output)
    if model is not None:
        from hdzoo.generation.generate import generate as generate_set

        with work_progress() as on_work:
            made = generate_set(
                model,
                images,
                num_images,
                sampler=sampler,
                options=options,
                num_inference_steps=num_inference_steps,
                seed=seed,
                command=command,
                on_plan=note_evaluations,
                on_progress=lambda done: on_work("images", done, num_images),
                on_note=note,
            )
        if not made.is_main_process:
            return
    if card is not None:
        results_card.check_drawn_by(card, images, read_manifest(Path(images)))
    with work_progress() as on_work:
        report = reports.evaluate(
            images,
            split=split,
            image_column=image_column,
            reference=reference,
            reference_split=reference_split,
            reference_image_column=reference_image_column,
            features=features,
            weights=features_weights,
            metrics=metric,
            subsets=subsets,
            seed=metrics_seed,
            batch_size=batch_size,
            command=command,
            on_progress=on_work,
        )
    for text in report.notes:
        note(text)
    # Before anything is written, which may fail.
    if as_json:
        say(json.dumps(report.to_dict(), indent=2))
    else:
        rows = report.rows()
        print_table(rows, tuple(rows[0]))
        say("\n".join(report.legend()))
    if output is not None:
        report.save(output)
        note(f"report: {output}")
    if card is not None:
        note(f"card: {results_card.write_results(card, report)}")


def compare(
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-O", help="The folder: new, or to go on with."),
    ],
    model: Model = DEFAULT_MODEL,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", "-s", help="May be repeated. Default: all there are."),
    ] = None,
    num_inference_steps: Annotated[
        list[int] | None,
        typer.Option(
            "--num-inference-steps",
            "-t",
            help="Network evaluations for each image. May be repeated. Default: 50, 100 and 200.",
        ),
    ] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Of each sampler.")] = 1000,
    option: Options = None,
    trials: Annotated[
        int, typer.Option(help="Configurations to tune each sampler by at each cost; 0 for none.")
    ] = 8,
    trial_images: Annotated[
        int | None, typer.Option(help="Drawn with each of these. Default: 250, or -n if fewer.")
    ] = None,
    seed: Seed = 0,
    trial_seed: Annotated[int, typer.Option(help="Of the images that samplers are tuned by.")] = 1,
    chunk_size: Annotated[
        int, typer.Option(help="Images drawn together; processes share chunks.")
    ] = 125,
    dtype: Dtype = "float32",
    backend: Backend = "torch",
    class_label: ClassLabel = None,
    num_threads: Annotated[int, typer.Option(help="CPU threads of each process.")] = 1,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            "-r",
            help="Real images, or a file of `hdzoo reference`. Default: what the model has.",
        ),
    ] = None,
    reference_split: Annotated[str, typer.Option(help="Split of real images.")] = "test",
    reference_image_column: ImageColumn = None,
    features: Annotated[
        str | None, typer.Option("--features", "-f", help="An extractor. Default: the file's.")
    ] = None,
    features_weights: FeaturesWeights = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="fid, kid, isc, prc, wfid or tv. May be repeated. Default: all."
        ),
    ] = None,
    rank_by: Annotated[
        str,
        typer.Option(help="What to tune and rank by: fid, wfid, tv, precision or recall."),
    ] = "fid",
) -> None:
    """Rank samplers on a model at equal cost, each tuned by the same search, with honest errors.

    Makes leaderboard.md, leaderboard.json, quality.png and samples.png. Goes on where it stopped.
    `torchrun --nproc-per-node 2 -m hdzoo compare ...` uses more processes.
    """
    options = parse_options(option)
    from hdzoo.leaderboard import compare as comparing
    from hdzoo.leaderboard import pages as pages

    try:
        with work_progress() as on_work:
            board = comparing.compare(
                model,
                output_dir,
                samplers=sampler,
                num_inference_steps=num_inference_steps or (50, 100, 200),
                command=shlex.join(["hdzoo", *sys.argv[1:]]),
                on_entry=pages.write_page,
                on_progress=on_work,
                on_note=note,
                num_images=num_images,
                options=options,
                trials=trials,
                trial_images=trial_images,
                seed=seed,
                trial_seed=trial_seed,
                chunk_size=chunk_size,
                dtype=dtype,
                backend=backend,
                class_label=class_label,
                num_threads=num_threads,
                reference=reference,
                reference_split=reference_split,
                reference_image_column=reference_image_column,
                features=features,
                weights=features_weights,
                metrics=metric,
                rank_by=rank_by,
            )
    except KeyboardInterrupt:
        note(f"interrupted: what is done is in {output_dir}; the same command goes on with it")
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") != "0":
        return
    pages.write_pictures(board)
    for cost in board.costs:
        say(f"{cost} network evaluations an image")
        rows = pages.rows(board, cost, all_metrics=False)
        print_table(rows, tuple(rows[0]))
    say(output_dir / pages.PAGE)


def reference(
    dataset: Annotated[
        str,
        typer.Argument(help="A registered name, .parquet file(s), an image folder, or a Hub id."),
    ],
    output: Annotated[Path, typer.Option("--output", "-O", help="The .safetensors file.")],
    split: Annotated[str, typer.Option(help="Split of the images.")] = "test",
    image_column: ImageColumn = None,
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
    center_crop: CenterCrop = None,
    resolution: Resolution = None,
    image_interpolation_mode: Interpolation = "bicubic",
    seed: Annotated[int, typer.Option(help="Of the choice of these.")] = 0,
    batch_size: FeaturesBatch = 256,
) -> None:
    """Keep what `hdzoo evaluate` needs of real images, so that it needs no image."""
    from hdzoo.images.framing import Framing
    from hdzoo.metrics.features import get_extractor
    from hdzoo.metrics.image_sets import open_images
    from hdzoo.metrics.reference import check_place, make_reference

    check_place(output)
    framing = Framing(resolution, center_crop, image_interpolation_mode)
    images = open_images(dataset, split, image_column, framing)
    extractor = get_extractor(features, features_weights)
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
    say(output)
