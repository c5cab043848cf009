"""The reference of the command line, from the commands themselves."""

import typer
from typer.cli import get_docs_for_click

from hdzoo.cli import app


def page() -> str:
    """Every command with its arguments and options, as Markdown."""
    command = typer.main.get_command(app)
    with command.make_context("hdzoo", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="hdzoo")
    return f"# The command line\n{text.partition(chr(10))[2]}"
