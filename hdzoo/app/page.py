"""The page, and the server that shows it."""

import os
from collections.abc import Sequence
from pathlib import Path

# Before Gradio is imported, which looks at it then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from hdzoo.app.limits import MOST_VISITS
from hdzoo.app.models import Models
from hdzoo.app.site import Site
from hdzoo.app.tabs import draw, inpaint, interpolate, leaderboard, plane, tunnel
from hdzoo.errors import HDZooError

TABS = {
    "In the plane": plane,
    "Wind tunnel": tunnel,
    "Leaderboard": leaderboard,
    "Inpaint": inpaint,
    "Interpolate": interpolate,
}
TITLE = "hdzoo: samplers to play with"
HERE = Path(__file__).parent
# Seconds: what Gradio keeps in files is looked through so often, and taken away when it is so old.
SWEEP, KEEP = 600, 1800
# Nothing is uploaded here.
MOST_UPLOADED = "1kb"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build(site: Site) -> gr.Blocks:
    """The page, not yet served.

    Args:
        site: what it offers.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP, KEEP)) as page:
        gr.HTML((HERE / "header.html").read_text())
        with gr.Tabs():
            with gr.Tab("Draw"):
                draw.build(site, page)
            for title, module in TABS.items():
                with gr.Tab(title) as tab:
                    module.build(site, tab)
    page.queue(default_concurrency_limit=1, max_size=64)
    return page


def serve(
    models: Sequence[str] = (),
    *,
    any_model: bool = False,
    boards: Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
) -> tuple[gr.Blocks, str]:
    """Builds the page and serves it, in threads of their own.

    Args:
        models: folders and Hub ids to offer beside those that are bundled.
        any_model: whether visitors may name any other.
        boards: a folder that `hdzoo compare` has made, or a folder of such folders.
        host: the address to listen at; the default is this machine alone.
        port: the first free one from 7860 on by default.
        browser: whether to open it in a browser.

    Returns:
        The page, which ``close()`` ends, and its address.

    Raises:
        HDZooError: a model or a board is not there, or the address cannot be had.
    """
    page = build(Site(Models(models, any_model), boards))
    theme = gr.themes.Soft(
        primary_hue="blue", neutral_hue="slate", font=list(FONTS), font_mono=list(MONO)
    ).set(
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_label_background_fill="transparent",
        block_label_text_color="*body_text_color",
    )
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            show_error=False,
            allowed_paths=[],
            max_file_size=MOST_UPLOADED,
            state_session_capacity=MOST_VISITS,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=theme,
            css_paths=[HERE / "page.css"],
            head=f"<script>{(HERE / 'page.js').read_text()}</script>",
        )
    except OSError as error:
        raise HDZooError(
            f"cannot listen at {host}: {error}; give another --port or --host"
        ) from error
    # Whatever the environment says.
    page.allowed_paths = []
    return page, str(address)
