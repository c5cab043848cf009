"""What the page is made from: the models and boards that it offers, and examples once drawn."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hdzoo.app.models import Models
from hdzoo.app.worker import PATIENCE


class Site:
    """What all visitors share.

    Args:
        models: that are offered.
        boards: a folder of leaderboards; None for none.
    """

    def __init__(self, models: Models, boards: Path | None = None) -> None:
        self.models, self.boards = models, boards
        self._newest: dict[str, Any] = {}
        self._finished: set[str] = set()
        self._making: dict[str, threading.Lock] = {}

    def example(self, name: str, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """What a tab shows at first: made for the first visitor, and kept.

        Those who come while it is made see it form; if the first one leaves, another's takes over.

        Args:
            name: of the tab.
            make: yields what there is to see, the last time all of it.
        """
        making = self._making.setdefault(name, threading.Lock())
        while name not in self._finished:
            if making.acquire(blocking=False):
                try:
                    for self._newest[name] in make():
                        yield self._newest[name]
                    self._finished.add(name)
                    return
                finally:
                    making.release()
            time.sleep(PATIENCE)
            if name in self._newest:
                yield self._newest[name]
        yield self._newest[name]
