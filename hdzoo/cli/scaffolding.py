"""The command that writes a new package."""

from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.terminal import note, say


def new_sampler(
    name: Annotated[str, typer.Argument(help="The sampler's public name, such as my-sampler.")],
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-O", help="The folder to write the package in.")
    ] = Path("."),
    kind: Annotated[
        str, typer.Option(help="move: a chain of moves. update: a state and a memory.")
    ] = "move",
) -> None:
    """Write a package with a sampler of your own, ready to install, test and change."""
    from hdzoo.scaffold.new_sampler import new_sampler as write

    folder = write(name, output_dir, kind)
    note(f"pip install -e '{folder}[test]' && hdzoo verify {name} && pytest {folder}")
    say(folder)
