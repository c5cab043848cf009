"""The ``hdzoo`` command. Each command is one call into the library, imported when it runs."""

import sys
import warnings
from typing import Annotated

import typer

from hdzoo import __version__
from hdzoo.cli import converting, drawing, inpainting, judging, listing, publishing, training
from hdzoo.cli.terminal import ending_on_sigterm, note
from hdzoo.errors import HDZooError, StoppedError

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
):
    app.command()(command)


def main() -> None:
    """Runs the command; a mistake that the user can mend is one message and exit code 2."""
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    try:
        with ending_on_sigterm():
            app()
    except StoppedError as error:
        note(str(error))
        sys.exit(128 + error.signal)
    except HDZooError as error:
        note(f"error: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        note(f"error: this command needs {package}: pip install 'hdzoo[{EXTRAS[package]}]'")
        sys.exit(2)
