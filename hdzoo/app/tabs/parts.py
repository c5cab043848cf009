"""Parts that several tabs have."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from hdzoo.app.drawing import Drawing
from hdzoo.app.film import as_html
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import HEAVY, in_words


def model_field(site: Site) -> gr.Dropdown:
    """A field for a model."""
    return gr.Dropdown(
        site.models.names,
        value=site.models.names[0],
        label="Model",
        allow_custom_value=site.models.any_model,
        info="a bundled name, a folder or a Hub id" if site.models.any_model else None,
    )


def run_buttons(name: str) -> tuple[gr.Button, gr.Button]:
    """A button that begins, and one that ends it."""
    with gr.Row():
        return (
            gr.Button(name, variant="primary", min_width=90),
            gr.Button("Stop", min_width=90),
        )


def runs(
    go: gr.Button,
    stop: gr.Button,
    handler: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    begun: list[Any],
    held: Sequence[Any] = (),
) -> None:
    """Has a button begin some work, in place of what is under way, and another one end it.

    Args:
        go: the one.
        stop: the other.
        handler: the work, a generator function.
        inputs: its arguments.
        outputs: where what it yields goes.
        begun: events that have begun by themselves.
        held: fields that must stay as they are until the work has ended.
    """
    # While the work goes on, and until its end is heard of, a click would be dropped unheard.
    # The first of the button's events, since they take place one after the other.
    parts = [go, *held]
    go.click(None, outputs=parts, js=able(False, len(parts)), api_visibility="private")
    event = go.click(
        in_words(handler),
        inputs,
        outputs,
        cancels=begun,
        show_progress="hidden",
        api_visibility="private",
        **HEAVY,
    )
    # An error is no end to `then`.
    for ended in (event.then, event.failure):
        ended(None, outputs=parts, js=able(True, len(parts)), api_visibility="private")
    stop.click(None, cancels=[event, *begun], api_visibility="private")


def able(can: bool, count: int) -> str:
    """What lets a visitor use so many parts of the page, or not, in the browser itself."""
    update = f"{{__type__: 'update', interactive: {str(can).lower()}}}"
    return f"() => [{', '.join([update] * count)}]"


def drawing_html(drawing: Drawing | None) -> str:
    """What is to be seen of a drawing."""
    if drawing is None:
        return as_html((), "waiting for its turn ...", forming=True)
    return as_html(drawing.films, drawing.status, forming=not drawing.finished)
