"""What the page is made from: the models and boards that it offers, and examples once drawn."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hdzoo.app.models import Models


class Site:
    """What all visitors share.

    Args:
        models: that are offered.
        boards: a folder of leaderboards; None for none.
    """

    def __init__(self, models: Models, boards: Path | None = None) -> None:
        self.models, self.boards = models, boards
        self._examples: dict[str, Any] = {}

    def example(self, name: str, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """What a tab shows at first: made for the first visitor, kept for the others.

        Args:
            name: of the tab.
            make: yields what there is to see, the last time all of it.
        """
        if name in self._examples:
            yield self._examples[name]
            return
        last = None
        for last in make():
            yield last
        self._examples[name] = last
