"""The ``hdzoo`` command. Each command is one call into the library, imported when it runs."""

import sys
import warnings
from typing import Annotated

import typer

from hdzoo.cli import (
    converting,
    drawing,
    inpainting,
    judging,
    listing,
    publishing,
    scaffolding,
    training,
)
from hdzoo.cli.terminal import note
from hdzoo.errors import HDZooError
from hdzoo.version import __version__

app = typer.Typer(
    help="Score-based samplers on diffusers: draw, compare, train, extend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


for command in (
    drawing.sample,
    inpainting.inpaint,
    drawing.generate,
    judging.evaluate,
    judging.compare,
    judging.reference,
    listing.samplers,
    listing.plugins,
    listing.info,
    judging.verify,
    judging.reproduce,
    drawing.demo_2d,
    converting.convert,
    publishing.push,
    publishing.pull,
    training.train,
    training.train_classifier,
    scaffolding.new_sampler,
):
    app.command()(command)


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
