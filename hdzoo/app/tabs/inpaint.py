"""The tab that paints the missing part of a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from hdzoo import plugins
from hdzoo.app.film import data_uri
from hdzoo.app.limits import MOST_EVALUATIONS, MOST_IMAGES
from hdzoo.app.painting import COVER, Pictures, check_gap, fill
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import EXAMPLE, HEAVY, in_words
from hdzoo.app.tabs.parts import drawing_html, model_field, run_buttons, runs

SAMPLER, EVALUATIONS, IMAGES = "annealed-half-denoising", 60, 6
SCRIPT = Path(__file__).parent.parent / "mask.js"
CANVAS = """
<div class="hz-mask">
  <canvas aria-label="The picture: draw over the part that is to be painted"></canvas>
  <div class="hz-mask-tools">
    <label>Brush <input type="range" min="1" max="9" value="4"></label>
    <button type="button" data-do="clear">Clear</button>
    <button type="button" data-do="half">Lower half</button>
  </div>
</div>
"""


def build(site: Site, tab: gr.Tab) -> None:
    """Builds it, inside the tab."""
    pictures = Pictures(site.models)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            model = model_field(site)
            number = gr.Number(0, label="Picture", precision=0, info="drawn by the model; a seed")
            mask = gr.HTML(
                None,
                html_template=CANVAS,
                js_on_load=SCRIPT.read_text(),
                cover=f"rgb{COVER}",
                elem_id="inpaint-mask",
            )
        with gr.Column(scale=2, min_width=260):
            sampler = gr.Dropdown(
                plugins.list_samplers(),
                value=SAMPLER,
                label="Sampler",
                info="those that walk on each noise level come closest",
            )
            steps = gr.Slider(1, MOST_EVALUATIONS, EVALUATIONS, step=1, label="Evaluations")
            images = gr.Slider(1, MOST_IMAGES, IMAGES, step=1, label="Paintings")
            seed = gr.Number(0, label="Seed", precision=0)
            go, stop = run_buttons("Paint")
        with gr.Column(scale=4, min_width=320):
            shown = gr.HTML(elem_id="inpaint-films")

    def new_picture(model: Any, number: Any) -> Iterator[Any]:
        for image in pictures.in_steps(model, number):
            if image is not None:
                yield canvas(image)

    def example() -> Iterator[Any]:
        name, given = site.models.names[0], None
        for given in new_picture(name, 0):
            yield given, gr.skip()
        assert given is not None
        order = check_gap(site.models, name, 0, given["mask"], SAMPLER, IMAGES, EVALUATIONS, 0)
        for drawing in fill(pictures, order):
            yield given, drawing_html(drawing)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", **HEAVY}
    begin = tab.select(
        in_words(lambda: (yield from site.example("inpaint", example))),
        outputs=[mask, shown],
        **EXAMPLE,
    )
    gr.on(
        [model.input, number.submit, number.blur],
        in_words(new_picture),
        [model, number],
        mask,
        trigger_mode="always_last",
        **quiet,
    )

    def run(model: Any, number: Any, drawn: Any, *fields: Any) -> Iterator[Any]:
        cells = drawn.get("mask") if isinstance(drawn, dict) else None
        order = check_gap(site.models, model, number, cells, *fields)
        for drawing in fill(pictures, order):
            yield drawing_html(drawing)

    runs(go, stop, run, [model, number, mask, sampler, images, steps, seed], [shown], [begin])


def canvas(image: Image.Image) -> dict[str, Any]:
    """What the canvas is given: a picture, its size, and a mask over its lower half."""
    width, height = image.size
    kept = height // 2
    mask = "0" * (kept * width) + "1" * ((height - kept) * width)
    return {"picture": data_uri(image), "width": width, "height": height, "mask": mask}
