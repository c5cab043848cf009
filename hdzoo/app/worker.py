"""Heavy work, one piece at a time, told of step by step, and dropped when nobody wants it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from hdzoo.errors import HDZooError
from hdzoo.plugins import describe

# Seconds between two looks whether the work is still wanted.
PATIENCE = 0.25

News = TypeVar("News")
Tell = Callable[[News | None], None]


class UnwantedError(BaseException):
    """Nobody waits for the work any more; no `Exception`, so that nobody on the way keeps it."""


def in_steps(work: Callable[[Tell[News]], object]) -> Iterator[News | None]:
    """Does a piece of work, and yields what it tells, the newest where several things wait.

    All work is done by one thread, a piece after the other. When the iterator is closed, the work
    ends at the next thing that it tells.

    Args:
        work: called with a function to tell things by; None says that it goes on, nothing more.

    Yields:
        What there is to see; the same again, or None before the first, while it goes on.

    Raises:
        Exception: what the work raises.
    """
    box: _Letterbox[News] = _Letterbox()
    _WORKER.submit(box.fill, work)
    try:
        while True:
            newest, is_new, ended = box.look()
            if ended and not is_new:
                break
            yield newest
    finally:
        box.unwanted.set()


# One thread for all the time: each thread that computes keeps memory of its own.
_WORKER = ThreadPoolExecutor(1, "hdzoo-app")


class _Letterbox(Generic[News]):
    """Between the worker and who waits for it: keeps the newest thing alone."""

    def __init__(self) -> None:
        self.unwanted = threading.Event()
        self._changed = threading.Condition()
        self._newest: News | None = None
        self._is_new = self._ended = False
        self._error: Exception | None = None

    def fill(self, work: Callable[[Tell[News]], object]) -> None:
        """Does the work, in the worker."""
        try:
            self._tell(None)
            work(self._tell)
        except UnwantedError:
            pass
        except Exception as error:
            self._error = error
        # Such as SystemExit, which somebody's sampler has raised.
        except BaseException as error:
            self._error = HDZooError(describe(error))
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _tell(self, thing: News | None) -> None:
        if self.unwanted.is_set():
            raise UnwantedError
        if thing is not None:
            with self._changed:
                self._newest, self._is_new = thing, True
                self._changed.notify()

    def look(self) -> tuple[News | None, bool, bool]:
        """Waits for something new, but not for long: it, whether it is new, whether all is told."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_new or self._ended, PATIENCE)
            if self._error is not None:
                raise self._error
            is_new, self._is_new = self._is_new, False
            return self._newest, is_new, self._ended
