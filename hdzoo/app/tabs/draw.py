"""The tab that draws."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from hdzoo import plugins
from hdzoo.app import recipes
from hdzoo.app.drawing import Order, check_order, draw
from hdzoo.app.fields import Field, fields_of
from hdzoo.app.film import data_uri, problem
from hdzoo.app.limits import MOST_EVALUATIONS, MOST_IMAGES, MOST_SAMPLERS
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import EXAMPLE, HEAVY, in_words
from hdzoo.app.tabs.parts import able, drawing_html, model_field, run_buttons, runs
from hdzoo.errors import HDZooError

FAVOURITES = ("heun", "consistent-annealed-sampling", "dpm-solver-pp-2m")
EVALUATIONS, IMAGES = 20, 9


def build(site: Site, page: gr.Blocks) -> None:
    """Builds it, inside a tab.

    Args:
        site: what it offers.
        page: that the tab is of.
    """
    known = plugins.list_samplers()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            model = model_field(site)
            samplers = gr.Dropdown(
                known,
                value=[name for name in FAVOURITES if name in known],
                multiselect=True,
                max_choices=MOST_SAMPLERS,
                label="Samplers",
                info=f"1 to {MOST_SAMPLERS}, side by side from the same noise",
            )
            # What asks for them comes later, with the options' fields.
            own: dict[str, Any] = {"interactive": True}
            steps = gr.Slider(
                1,
                MOST_EVALUATIONS,
                EVALUATIONS,
                step=1,
                label="Evaluations",
                info="of the network, for each image",
                **own,
            )
            images = gr.Slider(1, MOST_IMAGES, IMAGES, step=1, label="Images of each", **own)
            seed = gr.Number(0, label="Seed", precision=0, **own)
            go, stop = run_buttons("Draw")
            options = gr.Column(elem_classes="hz-options")
        with gr.Column(scale=5, min_width=320, elem_classes="hz-pictures"):
            shown = gr.HTML(drawing_html(None), elem_id="draw-films")
            with gr.Accordion("The same without this page", open=True, elem_classes="hz-last"):
                command = gr.Code(label="Command", language="shell", elem_id="draw-command")
                lines = gr.Code(label="Python", language="python", elem_id="draw-python")
    outputs = [shown, command, lines]
    order = [model, samplers, images, steps, seed]
    # With others the options' fields change, and what these have begun could not be ended any more.
    held = [model, samplers]

    def run(values: Sequence[Any], texts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        model, samplers, images, steps, seed = values
        checked = check_order(site.models, model, samplers, images, steps, seed, texts)
        # At once, and whatever comes of the drawing.
        yield gr.skip(), recipes.command(checked), recipes.python(checked)
        for drawing in draw(site.models, checked):
            yield drawing_html(drawing), gr.skip(), gr.skip()

    def example() -> Iterator[tuple[str, str, str]]:
        first = Order(site.models.names[0], FAVOURITES, IMAGES, EVALUATIONS, 0)
        said = recipes.command(first), recipes.python(first)
        for drawing in draw(site.models, first):
            yield drawing_html(drawing), *said

    # The command's words are there before the pictures are.
    begin = page.load(
        in_words(lambda: (yield from site.example("draw", example))),
        outputs=outputs,
        **EXAMPLE,
    )

    # A drawing that begins before the new fields are there would end unheard.
    gr.on(
        [model.change, samplers.change],
        None,
        outputs=go,
        js=able(False, 1),
        api_visibility="private",
    )
    with options:

        @gr.render(inputs=[model, samplers], show_progress="hidden")
        def fields(model: Any, samplers: Any) -> None:
            places, boxes = option_boxes(site, model, samplers)
            # Takes place when they are.
            parts = [go, *held]
            page.load(None, outputs=parts, js=able(True, len(parts)), api_visibility="private")

            def on_draw(*values: Any) -> Iterator[Any]:
                texts: dict[str, dict[str, Any]] = {}
                for (sampler, name), text in zip(places, values[len(order) :], strict=True):
                    texts.setdefault(sampler, {})[name] = text
                yield from run(values[: len(order)], texts)

            runs(go, stop, on_draw, [*order, *boxes], outputs, [begin], held)

    def api(
        model: str,
        samplers: list[str],
        num_images: int,
        num_inference_steps: int,
        seed: int,
        options: dict[str, dict[str, str]] | None = None,
    ) -> list[list[str]]:
        """Draws, for programs: for each sampler its name, the picture as a data URI, and a note."""
        checked = check_order(
            site.models, model, samplers, num_images, num_inference_steps, seed, options
        )
        *_, last = draw(site.models, checked)
        assert last is not None
        return [[film.title, data_uri(film.frames[-1]), film.note] for film in last.films]

    gr.api(in_words(api), api_name="draw", **HEAVY)  # type: ignore[attr-defined]


def option_boxes(
    site: Site, model: Any, samplers: Sequence[str]
) -> tuple[list[tuple[str, str]], list[Any]]:
    """Fields for the options of some samplers: whose they are, and the fields."""
    places: list[tuple[str, str]] = []
    boxes: list[Any] = []
    try:
        config = site.models.pipeline(model).scheduler.config
    except HDZooError as error:
        gr.HTML(problem(error))
        return places, boxes
    for sampler in samplers or ():
        with gr.Accordion(f"Options of {sampler}", open=False), gr.Row():
            try:
                found = fields_of(sampler, config)
            except HDZooError as error:
                gr.HTML(problem(error))
                continue
            for field in found:
                places.append((sampler, field.name))
                boxes.append(box(field, key=f"{model}/{sampler}/{field.name}"))
    return places, boxes


def box(field: Field, key: str) -> Any:
    """The field of an option."""
    common: dict[str, Any] = {
        "label": field.name,
        "value": field.text,
        "key": key,
        "interactive": True,
    }
    if field.words:
        return gr.Dropdown(list(field.words), min_width=130, **common)
    return gr.Textbox(
        placeholder="required" if field.required else "none",
        info=field.allowed or None,
        max_lines=1,
        min_width=130,
        **common,
    )
