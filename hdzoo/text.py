"""Text for people: what others wrote, made harmless, numbers of things, and values as typed."""

import json
import unicodedata
from typing import Any

# Control characters, invisible ones and those that turn the direction, halves of a character,
# and separators of lines and paragraphs.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Line breaks, tabs, and what joins letters or emoji, or keeps them apart.
_HARMLESS = "\n\t\u200c\u200d"


def plain(text: object) -> str:
    r"""A text in which everything can be seen: control characters are spelt out, as in ``\x1b``.

    A terminal obeys them, so that a name in a downloaded file could clear the screen, hide what
    follows, or fill the clipboard. Line breaks and tabs stay.

    Args:
        text: anything that has a string.
    """
    string = str(text)
    # All that is unseen is unprintable, and hardly a text has any.
    if string.isprintable():
        return string
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in _HARMLESS and unicodedata.category(character) in _UNSEEN
        else character
        for character in string
    )


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number of things in words, such as "1 image" and "2,000 images".

    Args:
        number: how many.
        singular: what one is called.
        plural: what several are called; with an s by default.
    """
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def typed_value(text: str) -> Any:
    """A value as people type it: JSON (0.1, [1, 2], null, true), or else a word.

    Args:
        text: what they have typed.
    """
    try:
        return json.loads(text)
    # Also of lists in lists without end, and of numbers of thousands of digits.
    except (ValueError, RecursionError):
        return text
