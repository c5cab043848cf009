"""The command that tells images like a model's data from others."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import Backend, Dtype, ImageColumn, JsonOutput, Model
from hdzoo.cli.terminal import note, print_table, say, work_progress
from hdzoo.files import check_file


def ood(
    model: Model,
    inside: Annotated[
        str,
        typer.Option(
            "--in",
            help="Images like the model's data: a registered name, .parquet file(s), an image"
            " folder, or a Hub id.",
        ),
    ],
    outside: Annotated[
        list[str],
        typer.Option(
            "--out",
            help="Other images, likewise; or noise, flat, inverted or permuted, which are made of"
            " those of --in. May be repeated.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Split of --in.")] = "test",
    out_split: Annotated[str, typer.Option(help="Split of --out.")] = "test",
    image_column: ImageColumn = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="A noise level. May be repeated. Default: some that the network knows."),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images", "-n", help="Of each set. Default: 1000, or as many as the smallest has."
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Crop to squares and bring to the network's size.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The noise of image i depends on (seed, i).")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images judged together.")] = 250,
    dtype: Dtype = "float32",
    backend: Backend = "torch",
    output: Annotated[Path | None, typer.Option("--output", "-O", help="The report, JSON.")] = None,
    as_json: JsonOutput = False,
) -> None:
    """Tell images that a model was not trained on from those like its data: AUROC, with errors.

    By its energy, if it has one, the norm of its score, and how well it denoises.
    """
    from hdzoo.metrics.outliers import find_outliers

    if output is not None:
        check_file(output)
    with work_progress() as on_work:
        report = find_outliers(
            model,
            inside,
            outside,
            sigmas=sigma,
            num_images=num_images,
            inside_split=split,
            outside_split=out_split,
            image_column=image_column,
            resize=resize,
            seed=seed,
            batch_size=batch_size,
            dtype=dtype,
            backend=backend,
            command=shlex.join(["hdzoo", *sys.argv[1:]]),
            on_progress=on_work,
        )
    if as_json:
        say(json.dumps(report.to_dict(), indent=2))
    else:
        rows = report.rows()
        print_table(rows, tuple(rows[0]))
        say("\n".join(report.legend()))
    if output is not None:
        report.save(output)
        note(f"report: {output}")
