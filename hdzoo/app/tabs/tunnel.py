"""The wind tunnel's tab."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hdzoo import plugins
from hdzoo.app.film import Film, as_html, table
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import EXAMPLE, HEAVY, in_words
from hdzoo.app.tunnel import (
    MOST_EVALUATIONS,
    Measured,
    check_setting,
    knobs,
    measure,
    pictures,
    said,
)

FIRST = "annealed-langevin"
EVALUATIONS, BROAD, NARROW = 100, 0.25, 0.05


def build(site: Site, tab: gr.Tab) -> None:
    """Builds it, inside the tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            gr.Markdown(
                "Gaussian data, where the law of a sampler's output is known exactly: nothing is "
                "simulated, and what you see is its bias alone."
            )
            sampler = gr.Dropdown(plugins.list_samplers(), value=FIRST, label="Sampler")
            steps = gr.Slider(1, MOST_EVALUATIONS, EVALUATIONS, step=1, label="Evaluations")
            step_size = gr.Slider(
                0,
                1,
                0,
                step=0.01,
                label="Step size",
                info="in squares of the noise level; 0 is the sampler's own",
            )
            level = gr.Number(0, label="Lowest noise level", info="0 is the sampler's own")
            with gr.Row():
                broad = gr.Number(BROAD, label="Data's s.d., broad", min_width=120)
                narrow = gr.Number(NARROW, label="narrow", min_width=120)
        with gr.Column(scale=5, min_width=320, elem_classes="hz-pictures"):
            shown = gr.HTML(html(None), elem_id="tunnel", elem_classes=["hz-plots", "hz-smooth"])
            numbers = gr.HTML()
    outputs = [shown, numbers]
    fields = [sampler, steps, step_size, level, broad, narrow]

    def run(*values: Any) -> Iterator[Any]:
        for measured in measure(check_setting(*values)):
            yield html(measured), result(measured)

    def example() -> Iterator[Any]:
        yield from run(FIRST, EVALUATIONS, 0, 0, BROAD, NARROW)

    def turned(name: Any) -> tuple[Any, Any]:
        has_step_size, level_name = knobs(name)
        return (
            gr.Slider(value=0, visible=has_step_size and level_name is not None),
            gr.Number(
                value=0,
                visible=level_name is not None,
                label="Noise level" if level_name == "sigma" else "Lowest noise level",
            ),
        )

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    first = tab.select(
        in_words(lambda: (yield from site.example("tunnel", example))),
        outputs=outputs,
        **EXAMPLE,
    )
    live: dict[str, Any] = {**quiet, **HEAVY, "trigger_mode": "always_last"}
    triggers = [
        sampler.input,
        steps.release,
        step_size.release,
        level.submit,
        level.blur,
        broad.submit,
        broad.blur,
        narrow.submit,
        narrow.blur,
    ]
    sampler.input(in_words(turned), sampler, [step_size, level], queue=False, **quiet)
    # Each takes the place of what is still measured for the setting before.
    gr.on(triggers, in_words(run), fields, outputs, cancels=[first], **live)


def html(measured: Measured | None) -> str:
    """The pictures."""
    if measured is None:
        return as_html((), "waiting for its turn ...", forming=True)
    films = [Film(title, (image,), ("",)) for title, image in pictures(measured)]
    return as_html(films, said(measured))


def result(measured: Measured | None) -> str:
    """The numbers."""
    return "" if measured is None else table(measured.rows)
