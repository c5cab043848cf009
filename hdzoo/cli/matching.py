"""The command that finds the training images that samples are nearest to."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import (
    CenterCrop,
    FeaturesBatch,
    FeaturesWeights,
    ImageColumn,
    Interpolation,
    Resolution,
)
from hdzoo.cli.terminal import note, print_table, say, work_progress
from hdzoo.files import check_file


def neighbours(
    images: Annotated[
        str,
        typer.Argument(
            help="A set of `hdzoo generate`, an image folder, .parquet file(s), or a Hub id."
        ),
    ],
    data: Annotated[
        str, typer.Argument(help="What the model was trained on: a registered name, or likewise.")
    ],
    real: Annotated[
        str | None,
        typer.Option(help="Real images that it was not trained on, which say what is near."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the images.")] = "train",
    data_split: Annotated[str, typer.Option(help="Split of the data.")] = "train",
    real_split: Annotated[str, typer.Option(help="Split of --real.")] = "test",
    image_column: ImageColumn = None,
    num_neighbours: Annotated[
        int, typer.Option("--num-neighbours", "-k", help="Of each image.")
    ] = 5,
    features: Annotated[
        str | None,
        typer.Option(
            "--features", "-f", help="An extractor: distances by its features beside pixels."
        ),
    ] = None,
    features_weights: FeaturesWeights = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images",
            "-n",
            help="Of the images and of --real each, evenly spread. Default: 1000, or all if fewer.",
        ),
    ] = None,
    num_shown: Annotated[
        int, typer.Option(min=1, max=100, help="In the picture: those nearest to the data.")
    ] = 8,
    center_crop: CenterCrop = None,
    resolution: Resolution = None,
    image_interpolation_mode: Interpolation = "bicubic",
    batch_size: FeaturesBatch = 256,
    output: Annotated[
        Path, typer.Option("--output", "-O", help="The picture, a PNG; its JSON goes beside it.")
    ] = Path("neighbours.png"),
) -> None:
    """Find the training images that samples are nearest to, and judge whether they are copies.

    By pixels, and by features. Crops and sizes are of the data and the real images, as in training.
    """
    from hdzoo.images.framing import Framing
    from hdzoo.metrics.neighbours import find_neighbours
    from hdzoo.metrics.neighbours_picture import neighbours_figure
    from hdzoo.plots import save_figure

    beside = output.with_suffix(".json")
    check_file(output, ".png")
    check_file(beside)
    with work_progress() as on_work:
        found = find_neighbours(
            images,
            data,
            real=real,
            num_neighbours=num_neighbours,
            features=features,
            weights=features_weights,
            num_images=num_images,
            split=split,
            data_split=data_split,
            real_split=real_split,
            image_column=image_column,
            framing=Framing(resolution, center_crop, image_interpolation_mode),
            batch_size=batch_size,
            command=shlex.join(["hdzoo", *sys.argv[1:]]),
            on_progress=on_work,
        )
    save_figure(neighbours_figure(found, num_shown), output)
    found.save(beside)
    rows = found.rows()
    print_table(rows, tuple(rows[0]))
    say("\n".join(found.legend()))
    note(f"numbers: {beside}")
    say(output)
