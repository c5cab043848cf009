"""The tab of chains in the plane."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hdzoo import plugins
from hdzoo.app.film import as_html, table
from hdzoo.app.limits import MOST_CHAINS, MOST_EVALUATIONS
from hdzoo.app.plane import MOST_SAMPLERS, Seen, Walk, check_walk, walk
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import EXAMPLE, in_words
from hdzoo.app.tabs.parts import run_buttons, runs
from hdzoo.demo.demo import DEFAULT_SAMPLERS, planar_targets

FIRST = Walk("eight-gaussians", DEFAULT_SAMPLERS, 200, 100, 0)


def build(site: Site, tab: gr.Tab) -> None:
    """Builds it, inside the tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            target = gr.Dropdown(planar_targets(), value=FIRST.target, label="Target")
            samplers = gr.Dropdown(
                plugins.list_samplers(),
                value=list(FIRST.samplers),
                multiselect=True,
                max_choices=MOST_SAMPLERS,
                label="Samplers",
                info=f"1 or {MOST_SAMPLERS}, from the same noise, on the exact score",
            )
            steps = gr.Slider(
                1, MOST_EVALUATIONS, FIRST.num_inference_steps, step=1, label="Evaluations"
            )
            chains = gr.Slider(2, MOST_CHAINS, FIRST.num_samples, step=1, label="Chains of each")
            seed = gr.Number(FIRST.seed, label="Seed", precision=0)
            go, stop = run_buttons("Walk")
            command = gr.Code(FIRST.command, label="Command", language="shell", wrap_lines=True)
        with gr.Column(scale=5, min_width=320, elem_classes="hz-pictures"):
            shown = gr.HTML(html(None), elem_id="plane-film", elem_classes=["hz-wide", "hz-smooth"])
            numbers = gr.HTML()
    outputs = [shown, numbers, command]

    def run(*fields: Any) -> Iterator[Any]:
        order = check_walk(*fields)
        yield gr.skip(), gr.skip(), order.command
        for seen in walk(order):
            yield html(seen), result(seen), gr.skip()

    def example() -> Iterator[Any]:
        for seen in walk(FIRST):
            yield html(seen), result(seen), FIRST.command

    begin = tab.select(
        in_words(lambda: (yield from site.example("plane", example))),
        outputs=outputs,
        **EXAMPLE,
    )
    runs(go, stop, run, [target, samplers, chains, steps, seed], outputs, [begin])


def html(seen: Seen | None) -> str:
    """The pictures."""
    if seen is None:
        return as_html((), "waiting for its turn ...", forming=True)
    done, all_of_them = len(seen.film.frames), len(seen.film.captions)
    finished = bool(seen.table)
    status = "" if finished else f"{all_of_them if done == 1 else done} pictures drawn"
    return as_html([seen.film], status, forming=not finished)


def result(seen: Seen | None) -> str:
    """The numbers."""
    return "" if seen is None else table(seen.table)
