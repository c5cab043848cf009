"""What the events of all tabs have in common: one queue, and errors in words."""

import functools
import inspect
import logging
from collections.abc import Callable
from html import escape
from typing import Any, NoReturn

import gradio as gr

from hdzoo.errors import HDZooError
from hdzoo.plugins import describe

# All that computes waits in one line.
HEAVY: dict[str, Any] = {"concurrency_id": "heavy", "concurrency_limit": 1}
# An example is mostly there already; where it is not, it is made by the one worker as well.
EXAMPLE: dict[str, Any] = {
    "concurrency_id": "example",
    "concurrency_limit": 8,
    "show_progress": "hidden",
    "api_visibility": "private",
}

_log = logging.getLogger(__name__)


def in_words(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler of an event whose errors are messages in the page; the server goes on.

    Args:
        handler: a function, or a generator function.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*args: Any) -> Any:
            try:
                yield from handler(*args)
            except Exception as error:
                refuse(error)

        return steps

    @functools.wraps(handler)
    def call(*args: Any) -> Any:
        try:
            return handler(*args)
        except Exception as error:
            refuse(error)

    return call


def refuse(error: Exception) -> NoReturn:
    """Shows an error in the page."""
    if isinstance(error, gr.Error):
        raise error
    if not isinstance(error, HDZooError):
        _log.error("an event of the page has failed", exc_info=error)
    # What is shown is taken for HTML.
    raise gr.Error(
        escape(describe(error), quote=False), title="That does not work", print_exception=False
    ) from error
