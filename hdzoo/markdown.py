"""Markdown around names and values that others chose: they are shown, and mean nothing.

A name in a card could otherwise be a heading, a link, a picture that is fetched when it is read, or
HTML.
"""

import re
from collections.abc import Iterable, Sequence

from hdzoo.text import plain

# Letters and digits of any script, underscores within a word, and punctuation without a meaning.
_HARMLESS = re.compile(r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[ .,;=()+/%'\"?±·-])*")
_ADDRESS = re.compile(r"www\.|//", re.IGNORECASE)


def prose(value: object) -> str:
    """A value in a sentence, on one line: as it is where that is safe, else as code."""
    text = " ".join(plain(value).split())
    safe = _HARMLESS.fullmatch(text) and not _ADDRESS.search(text)
    return text if safe else code(text)


def code(value: object) -> str:
    """A value between backticks, on one line; nothing between them has a meaning."""
    text = " ".join(plain(value).split())
    ticks = "`" * (1 + _longest_run(text))
    # A space on both sides is dropped when it is shown.
    space = " " if text.startswith(("`", " ")) or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}" if text else ""


def fenced(text: str, language: str) -> str:
    """A block of code.

    Args:
        text: its lines.
        language: to colour it by.
    """
    ticks = "`" * max(3, 1 + _longest_run(text))
    return f"{ticks}{language}\n{plain(text).rstrip()}\n{ticks}"


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table.

    Args:
        header: the columns' names.
        rows: of as many values.
    """
    lines = [list(map(_cell, header)), ["---"] * len(header)]
    lines += (list(map(_cell, row)) for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    # Cells are told apart before code is; a backslash before would be taken for the bar's own.
    return re.sub(r"(\\+)(?=\|)", r"\1 ", prose(value)).replace("|", "\\|")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
