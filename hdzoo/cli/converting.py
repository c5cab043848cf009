"""The command that converts checkpoints."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import parse_options
from hdzoo.cli.terminal import note, say
from hdzoo.text import counted


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A .pth file of ermongroup/ncsn, ncsnv2 or score_sde_pytorch."),
    ],
    output_dir: Annotated[Path, typer.Argument(help="The pipeline folder to write, a new one.")],
    config: Annotated[
        Path | None,
        typer.Option(help="The config.yml of its training run, for what the weights do not tell."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="KEY=VALUE",
            help="What the weights do not tell, by its name in config.yml, such as sde=vesde. May "
            "be repeated; comes before the file.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Whose settings to take: mnist, cifar10, celeba, celebahq, church, bedroom, tower "
            "or ffhq. Default: those that fit the noise levels."
        ),
    ] = None,
    no_ema: Annotated[
        bool, typer.Option("--no-ema", help="Take the weights that are not averaged.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="ncsn, ncsnv2 or score_sde_pytorch. Default: whose layout it has."),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Of the weights, for the card, such as mit.")
    ] = None,
) -> None:
    """Convert a published checkpoint of NCSN, NCSNv2 or NCSN++ into a pipeline folder.

    Nothing in the file is executed, and every weight is accounted for.
    """
    from hdzoo.conversion.convert import convert as convert_checkpoint

    made = convert_checkpoint(
        checkpoint,
        output_dir,
        config=config,
        options=parse_options(option),
        dataset=dataset,
        use_averaged=not no_ema,
        source=source,
        license=license,
        command=shlex.join(["hdzoo", *sys.argv[1:]]),
    )
    weights = "averaged" if made.averaged else "not averaged"
    note(
        f"{made.network} of {made.source}, {counted(made.num_parameters, 'parameter')}, {weights}, "
        f"data set {made.dataset or 'not known'}"
    )
    if made.assumed:
        assumed = ", ".join(f"{name}={json.dumps(value)}" for name, value in made.assumed.items())
        note(f"assumed as published, for the weights do not tell: {assumed}; else say it with -o")
    say(made.folder)
