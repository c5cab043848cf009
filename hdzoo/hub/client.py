"""How the Hub is asked: patiently where that helps, and with reasons that people can read."""

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hdzoo.errors import HDZooError

# Seconds before another attempt. The client waits by itself in some places and nowhere in others.
PAUSES = (1.0, 3.0)

_Answer = TypeVar("_Answer")


def check_repo_id(repo_id: str) -> None:
    """Refuses what cannot be the name of a repository.

    Args:
        repo_id: ``"namespace/name"``.

    Raises:
        HDZooError: it is no such name.
    """
    try:
        validate_repo_id(repo_id)
        if "/" not in repo_id:
            raise HFValidationError(f"{repo_id!r} has no namespace")
    except HFValidationError as error:
        raise HDZooError(
            f"{repo_id!r} is no name for a repository on the Hub: {error}; give NAMESPACE/NAME"
        ) from error


def patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Asks again, after each of `PAUSES`, where the fault may be gone by then.

    Args:
        ask: what to do; to do it twice must do no harm.

    Raises:
        Exception: what ``ask`` has raised, in the last attempt or for good.
    """
    for pause in PAUSES:
        try:
            return ask()
        except Exception as error:
            if not may_pass(error):
                raise
            time.sleep(pause)
    return ask()


def may_pass(error: BaseException | None) -> bool:
    """Whether it is a fault of the server or of the way there, and no answer."""
    if isinstance(error, LocalEntryNotFoundError):
        # What is not in the cache either; its cause is what kept the client from asking.
        return may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    # A bare OSError says that a file is not of the size or the hash that was announced.
    return isinstance(error, HTTPError) or (type(error) is OSError and error.errno is None)


def reason(error: BaseException) -> str:
    """An error of the client in one line, with what is behind it."""
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, HfHubHTTPError):
        return reason(cause)
    text = _first_line(str(error)).removeprefix("Got: ") or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        said = _first_line(error.server_message or "")
        text = text if said in text else f"{text}: {said}"
        if error.response.status_code in (401, 403):
            text = (
                f"{text.removesuffix('.')} (is the token of `hf auth login`, or token=..., right?)"
            )
    if isinstance(error, RuntimeError) and cause is not None:
        text = f"{text} {reason(cause)}"
    return text.removesuffix(".")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
