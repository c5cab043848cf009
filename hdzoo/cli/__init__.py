"""The ``hdzoo`` command. Each command is one call into the library, imported when it runs."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hdzoo.cli import (
    converting,
    detecting,
    drawing,
    examining,
    inpainting,
    judging,
    listing,
    matching,
    publishing,
    scaffolding,
    showing,
    training,
)
from hdzoo.cli.terminal import ending_on_sigterm, note, results_alone, say, speak_plainly
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.text import plain
from hdzoo.version import __version__

app = typer.Typer(
    help="Score-based samplers on diffusers: draw, compare, train, extend.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The extra that brings a package.
EXTRAS = {
    "gradio": "app",
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
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        say(context.get_help())


class Command(TyperCommand):
    """A command that takes no empty word, and says which word it does not take."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: dict[str, str] = {}
        for before, word in zip(["", *args], args, strict=False):
            name, equals, value = word.partition("=")
            if not (equals and name.startswith("-")):
                name, value = before, word
            # As a path it would be the current folder.
            if not value.strip():
                place = name if name.startswith("-") else "an argument"
                raise HDZooError(f"{place} is empty; give a value, or leave it out")
            given[name] = value
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            words = [given[name] for name in getattr(error.param, "opts", ()) if name in given]
            said = f"; given is {words[-1]!r}" if words else ""
            raise HDZooError(f"{error.format_message().removesuffix('.')}{said}") from error


def with_results_alone(command: Callable[..., None]) -> Callable[..., None]:
    """A command that prints its results to standard output and nothing else."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        with results_alone():
            command(*args, **kwargs)

    return run


for command in (
    drawing.sample,
    inpainting.inpaint,
    examining.posterior,
    drawing.generate,
    judging.evaluate,
    judging.compare,
    judging.reference,
    detecting.ood,
    matching.neighbours,
    listing.samplers,
    listing.plugins,
    listing.info,
    judging.verify,
    judging.reproduce,
    drawing.demo_2d,
    showing.app,
    converting.convert,
    publishing.push,
    publishing.pull,
    training.train,
    training.train_classifier,
    scaffolding.new_sampler,
):
    app.command(cls=Command)(with_results_alone(command))


def main() -> None:
    """Runs the command; a mistake that the user can mend is one message and exit code 2."""
    speak_plainly()
    try:
        with ending_on_sigterm():
            code = app(standalone_mode=False) or 0
        sys.exit(code)
    except typer.Abort:
        sys.exit(130)
    except StoppedError as error:
        note(str(error))
        sys.exit(128 + error.signal)
    except HDZooError as error:
        refuse(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        refuse(f"this command needs {package}: pip install 'hdzoo[{EXTRAS[package]}]'")
    except Exception as error:
        # What the parser of the command line refuses; the name of its class differs by version.
        if not hasattr(error, "format_message"):
            raise
        refuse(error.format_message())


def refuse(message: object) -> None:
    """Says what was wrong, in one line, and ends."""
    text = f"error: {' '.join(str(message).split())}"
    if "tqdm" in sys.modules:
        # The line of a library's bar that was cut off has not ended.
        sys.modules["tqdm"].tqdm.write(plain(text), file=sys.stderr)
    else:
        note(text)
    sys.exit(2)
