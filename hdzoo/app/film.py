"""Pictures that form, side by side, in HTML: a page turns them back and forth by itself."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

# Of a film; more would be more to send than to see.
MOST_FRAMES = 25


@dataclass(frozen=True)
class Film:
    """What formed under one sampler.

    Attributes:
        title: of it; empty where the frames have one.
        frames: from the first to the last.
        captions: of each frame; all films beside one another share them.
        note: below, once there is something to say.
    """

    title: str
    frames: Sequence[Image.Image]
    captions: Sequence[str]
    note: str = ""


def thinned(count: int, most: int = MOST_FRAMES) -> list[int]:
    """Indices of so many frames, evenly, the first and the last included."""
    kept = min(count, most)
    return [round((count - 1) * i / max(1, kept - 1)) for i in range(kept)]


def as_html(films: Sequence[Film], status: str = "", forming: bool = False) -> str:
    """Films side by side, with a slider through their frames.

    Args:
        films: of as many frames each, once they are finished.
        status: a line above them.
        forming: whether they are still on their way: the last frame of each is shown, no slider.
    """
    figures = "".join(_figure(film, forming) for film in films)
    above = f'<p class="hz-status">{escape(status)}</p>' if status else ""
    slider = "" if forming or not films or len(films[0].frames) < 2 else _slider(films[0])
    return (
        f'<div class="hz-player" data-forming="{str(forming).lower()}">{above}'
        f'<div class="hz-films" style="--films: {len(films)}">{figures}</div>{slider}</div>'
    )


def _figure(film: Film, forming: bool) -> str:
    frames = film.frames[-1:] if forming else film.frames
    last = len(frames) - 1
    pictures = "".join(
        f'<img src="{data_uri(frame)}" alt="{escape(film.title or "a picture", quote=True)}"'
        f"{'' if i == last else ' hidden'}>"
        for i, frame in enumerate(frames)
    )
    pictures = pictures or '<div class="hz-blank"></div>'
    note = f'<p class="hz-note">{escape(film.note)}</p>' if film.note else ""
    title = f"<figcaption>{escape(film.title)}</figcaption>" if film.title else ""
    return f'<figure class="hz-film">{title}{pictures}{note}</figure>'


def _slider(film: Film) -> str:
    last = len(film.frames) - 1
    captions = escape(json.dumps(list(film.captions)), quote=True)
    return (
        f'<div class="hz-slider" data-captions="{captions}">'
        '<button type="button" onclick="hdzooPlay(this)" aria-label="Play">&#9654;</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Step of the chain"'
        ' oninput="hdzooShow(this)">'
        f"<output>{escape(film.captions[-1])}</output></div>"
    )


def data_uri(image: Image.Image) -> str:
    """A picture inside a page: no file is written for it, or could be read."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=image.width < 600)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows that have the same columns, as a table."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row.values())}</tr>" for row in rows
    )
    return (
        f'<div class="hz-table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def problem(error: object) -> str:
    """An error where something else would be."""
    return f'<p class="hz-problem">{escape(str(error))}</p>'
