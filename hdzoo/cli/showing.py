"""The command that shows the page."""

from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from hdzoo.cli.terminal import note, say


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A folder or Hub id to offer beside the bundled ones. May be repeated."),
    ] = None,
    any_model: Annotated[
        bool,
        typer.Option(help="Let visitors name any folder of this machine, and any Hub id."),
    ] = False,
    boards: Annotated[
        Path | None,
        typer.Option(help="A folder that `hdzoo compare` has made, or a folder of such folders."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at. Default: this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = False,
) -> None:
    """Show a page to play with samplers in a browser."""
    from hdzoo.app.page import serve

    page, address = serve(
        model or (), any_model=any_model, boards=boards, host=host, port=port, browser=browser
    )
    note("Ctrl-C ends it")
    say(address)
    try:
        Event().wait()
    finally:
        page.close()
