"""Leaderboards that `hdzoo compare` has made, found in a folder."""

from pathlib import Path
from typing import Any

from hdzoo.errors import HDZooError
from hdzoo.leaderboard.board import DATA, Leaderboard, places, read_board
from hdzoo.leaderboard.pages import options_of, rows
from hdzoo.text import plain

HEADERS = ("evaluations", "place", "sampler", "value", "±", "minus the best", "options")
TYPES: tuple[Any, ...] = ("number", "number", "str", "number", "number", "str", "str")


def find_boards(folder: Path | None) -> dict[str, Path]:
    """The boards in a folder, which may be one itself: name to folder.

    Args:
        folder: None for none.

    Raises:
        HDZooError: it is no folder, or has none.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise HDZooError(f"{folder} is no folder; --boards is one that `hdzoo compare` has made")
    found = [folder] if (folder / DATA).is_file() else []
    found += sorted(path.parent for path in folder.glob(f"*/{DATA}"))
    if not found:
        raise HDZooError(
            f"there is no {DATA} in {folder} or in its folders; `hdzoo compare` makes one"
        )
    return {plain(path.resolve().name): path for path in found}


def open_board(boards: dict[str, Path], name: Any) -> Leaderboard:
    """A board by its name.

    Raises:
        HDZooError: there is none of that name, or it is damaged.
    """
    if not isinstance(name, str) or name not in boards:
        raise HDZooError(f"there is no board {name!r}; there are {', '.join(boards) or 'none'}")
    return read_board(boards[name])


def table(board: Leaderboard) -> list[list[Any]]:
    """Rows under `HEADERS`; samplers that cannot be told apart from the best share its place."""
    content: list[list[Any]] = []
    for cost in board.costs:
        placed = board.at(cost)
        place = {entry.sampler: where for entry, where in zip(placed, places(placed), strict=True)}
        said = {
            row["sampler"]: row["minus the best"] for row in rows(board, cost, all_metrics=False)
        }
        for entry in board.entries:
            if entry.num_inference_steps != cost:
                continue
            own = None if entry.report is None else entry.objective
            content.append(
                [
                    cost,
                    place.get(entry.sampler),
                    plain(entry.sampler),
                    None if own is None else float(f"{own.value:.4g}"),
                    None if own is None else float(f"{own.spread:.2g}"),
                    plain(said[entry.sampler]),
                    plain(options_of(entry)),
                ]
            )
    return content
