"""Heavy work, one piece at a time, told of step by step, and dropped when nobody wants it."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

# Seconds between two looks whether the work is still wanted.
PATIENCE = 0.25

News = TypeVar("News")
Tell = Callable[[News | None], None]
_DONE = object()


class UnwantedError(BaseException):
    """Nobody waits for the work any more; no `Exception`, so that nobody on the way keeps it."""


def in_steps(work: Callable[[Tell[News]], None]) -> Iterator[News | None]:
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
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()
    unwanted = threading.Event()

    def tell(thing: News | None = None) -> None:
        if unwanted.is_set():
            raise UnwantedError
        if thing is not None:
            news.put(thing)

    def run() -> None:
        try:
            tell()
            work(tell)
        except Exception as error:
            news.put(error)
        except UnwantedError:
            pass
        finally:
            news.put(_DONE)

    _WORKER.submit(run)
    newest: News | None = None
    shown = True
    try:
        while True:
            try:
                thing = news.get(timeout=PATIENCE)
            except queue.Empty:
                shown = True
                yield newest
                continue
            if isinstance(thing, Exception):
                raise thing
            if thing is _DONE:
                break
            newest, shown = thing, False
            if news.empty():
                shown = True
                yield newest
        if not shown:
            yield newest
    finally:
        unwanted.set()


# One thread for all the time: each thread that computes keeps memory of its own.
_WORKER = ThreadPoolExecutor(1, "hdzoo-app")
