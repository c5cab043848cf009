"""The page, and the server that shows it."""

import os
from pathlib import Path
from typing import Any

# Before Gradio is imported, which looks at it then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from hdzoo.app.site import Site
from hdzoo.app.tabs import draw, inpaint, interpolate, leaderboard, plane, tunnel

TABS = {
    "In the plane": plane,
    "Wind tunnel": tunnel,
    "Leaderboard": leaderboard,
    "Inpaint": inpaint,
    "Interpolate": interpolate,
}
TITLE = "hdzoo: samplers to play with"
HERE = Path(__file__).parent
# Seconds: what Gradio keeps of pictures that visitors have painted on is looked through so often,
# and taken away when it is so old.
SWEEP, KEEP = 600, 1800
MOST_UPLOADED = "2mb"
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


def launch(
    page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None, **options: Any
) -> Any:
    """Serves the page.

    Args:
        page: of `build`.
        host: the address to listen at; the default is this machine alone.
        port: the first free one from 7860 on by default.
        **options: further ones of Gradio's ``launch``.
    """
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
    return page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=False,
        allowed_paths=[],
        blocked_paths=[],
        max_file_size=MOST_UPLOADED,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme,
        css_paths=[HERE / "page.css"],
        head=f"<script>{(HERE / 'page.js').read_text()}</script>",
        **options,
    )
