"""The tab of images that turn into one another."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hdzoo import plugins
from hdzoo.app.limits import MOST_EVALUATIONS
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import EXAMPLE, in_words
from hdzoo.app.tabs.parts import drawing_html, model_field, run_buttons, runs
from hdzoo.app.turning import MOST_IMAGES, Turn, check_turn, turn

SAMPLER = "dpm-solver-pp-2m"


def build(site: Site, tab: gr.Tab) -> None:
    """Builds it, inside the tab."""
    first = Turn(site.models.names[0], SAMPLER, 0, 1, 10, 20)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            model = model_field(site)
            sampler = gr.Dropdown(plugins.list_samplers(), value=SAMPLER, label="Sampler")
            with gr.Row():
                one = gr.Number(first.first, label="From seed", precision=0, min_width=100)
                other = gr.Number(first.last, label="to seed", precision=0, min_width=100)
            images = gr.Slider(2, MOST_IMAGES, first.num_images, step=1, label="Images")
            steps = gr.Slider(
                1, MOST_EVALUATIONS, first.num_inference_steps, step=1, label="Evaluations"
            )
            go, stop = run_buttons("Turn")
            command = gr.Code(first.command, label="Command", language="shell", wrap_lines=True)
        with gr.Column(scale=5, min_width=320, elem_classes="hz-pictures"):
            gr.Markdown(
                "The noise of the images goes from one seed's to the other's on a great circle, so "
                "that each image has the sampler's law."
            )
            shown = gr.HTML(drawing_html(None), elem_id="turn-film", elem_classes="hz-wide")
    outputs = [shown, command]

    def run(*fields: Any) -> Iterator[Any]:
        order = check_turn(site.models, *fields)
        yield gr.skip(), order.command
        for drawing in turn(site.models, order):
            yield drawing_html(drawing), gr.skip()

    def example() -> Iterator[Any]:
        for drawing in turn(site.models, first):
            yield drawing_html(drawing), first.command

    begin = tab.select(
        in_words(lambda: (yield from site.example("interpolate", example))),
        outputs=outputs,
        **EXAMPLE,
    )
    runs(go, stop, run, [model, sampler, one, other, images, steps], outputs, [begin])
