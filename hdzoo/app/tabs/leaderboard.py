"""The leaderboard's tab."""

from typing import Any

import gradio as gr

from hdzoo.app.boards import HEADERS, TYPES, find_boards, open_board, table
from hdzoo.app.film import Film, as_html
from hdzoo.app.site import Site
from hdzoo.app.tabs.events import in_words
from hdzoo.app.tunnel import as_image
from hdzoo.leaderboard.pages import quality_figure, summary

WIDTHS = ("120px", "80px", "230px", "100px", "80px", "330px", "330px")
NONE = """
There is no board here yet. Make one, and start the page with it:

```bash
hdzoo compare ncsn-mnist -O boards/mnist -s dpm-solver-pp-2m -s heun -t 20 -t 50
hdzoo app --boards boards
```

A board ranks samplers on one model at equal cost, each tuned by the same search. Those that cannot
be told apart share a place.
"""


def build(site: Site, tab: gr.Tab) -> None:
    """Builds it, inside the tab."""
    boards = find_boards(site.boards)
    if not boards:
        gr.Markdown(NONE, elem_classes="hz-ready")
        return
    board = gr.Dropdown(list(boards), value=next(iter(boards)), label="Board")
    rows = gr.Dataframe(
        headers=list(HEADERS),
        datatype=list(TYPES),
        column_widths=list(WIDTHS),
        type="array",
        interactive=False,
        wrap=True,
        label="Click a heading to sort; samplers that cannot be told apart share a place",
        elem_id="board-rows",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            plot = gr.HTML(elem_id="board-plot", elem_classes=["hz-smooth", "hz-wide"])
        with gr.Column(scale=1, min_width=320):
            words = gr.Markdown(container=True)

    def show(name: Any) -> tuple[Any, str, str]:
        found = open_board(boards, name)
        content = table(found)
        reported = any(found.at(cost) for cost in found.costs)
        picture = as_image(quality_figure(found)) if reported else None
        films = [Film("Quality against cost", (picture,), ("",))] if picture else []
        return content, as_html(films), summary(found)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on([tab.select, board.input], in_words(show), board, [rows, plot, words], **quiet)
