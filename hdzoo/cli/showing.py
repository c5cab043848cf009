"""The command that shows the page."""

from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.terminal import note, say
from hdzoo.errors import HDZooError


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
    from hdzoo.app.models import Models
    from hdzoo.app.page import build, launch
    from hdzoo.app.site import Site

    page = build(Site(Models(model or (), any_model), boards))
    try:
        _, url, _ = launch(page, host, port, inbrowser=browser, prevent_thread_lock=True)
    except OSError as error:
        raise HDZooError(
            f"cannot listen at {host}: {error}; give another --port or --host"
        ) from error
    note("Ctrl-C ends it")
    say(url)
    page.block_thread()
