"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hdzoo.errors import HDZooError
from hdzoo.text import typed_value

DEFAULT_MODEL = "ncsn-mnist"
# Clearer digits, by a network that is led away from its own errors: to look at, not to compare
# samplers on, whose law on it is that of no data.
CLEAR_MODEL = "ncsn-mnist-guided"

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
Preset = Annotated[
    str | None,
    typer.Option(help="fast, balanced or best: a sampler with its options and evaluations."),
]
Seed = Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")]
Dtype = Annotated[str, typer.Option(help="Weights: float32, bfloat16 (bf16), float16 (fp16).")]
Backend = Annotated[
    str,
    typer.Option(help="What computes the network: torch, or onnxruntime, which is faster on CPUs."),
]
ClassLabel = Annotated[
    int | None,
    typer.Option(help="Of a class-conditional model, one class. Default: evenly over all."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A sampler option, KEY=VALUE. May be repeated."),
]
FeaturesWeights = Annotated[
    Path | None, typer.Option(help="A weights file for the extractor, in the place of its own.")
]
FeaturesBatch = Annotated[int, typer.Option(help="Images that go through the extractor together.")]
ImageColumn = Annotated[
    str | None,
    typer.Option(help="The column of the images. Default: image, or the only one that holds some."),
]
CenterCrop = Annotated[
    int | None,
    typer.Option(help="First crop a square of so many pixels around the centre; 140 for CelebA."),
]
Resolution = Annotated[
    int | None, typer.Option(help="Then bring them to squares of this side; 64 for CelebA.")
]
Interpolation = Annotated[
    str,
    typer.Option(
        help="Of the resizing: bicubic, bilinear (as published for CelebA), lanczos, hamming, box"
        " or nearest."
    ),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is JSON (0.1, [1, 2], null, true) or else a word."""
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise HDZooError(
                f"option {pair!r} is not of the form KEY=VALUE, such as step_size=2e-5"
            )
        options[key.replace("-", "_")] = typed_value(value)
    return options


def parse_pairs(pairs: list[str] | None) -> list[tuple[int, int]]:
    """Pairs of seeds, ``A:B``."""
    found = []
    for pair in pairs or ():
        match = re.fullmatch(r"([0-9]{1,19}):([0-9]{1,19})", pair)
        if match is None:
            raise HDZooError(f"--interpolate is {pair!r}; it must be two seeds, such as 3:5")
        found.append((int(match[1]), int(match[2])))
    return found
