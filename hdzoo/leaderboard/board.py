"""Leaderboards: what a comparison of samplers has found."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdzoo.errors import HDZooError
from hdzoo.leaderboard.ranking import difference
from hdzoo.metrics.comparison import RANKINGS, Result
from hdzoo.metrics.report import Report, report_of

DATA = "leaderboard.json"


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried.

    Attributes:
        options: over those that all samplers were given.
        value: what it got of the metric that samplers are ranked by; None if it failed.
        failure: why, in words.
    """

    options: dict[str, Any]
    value: float | None
    failure: str | None


@dataclass(frozen=True)
class Entry:
    """A sampler at one cost.

    Attributes:
        sampler: its registered name.
        num_inference_steps: network evaluations for each image, all told.
        num_start_steps: how many of them draw the images that it starts from; 0 if it starts from
            noise.
        options: over the model's own: those that all were given, and those that tuning has found.
        trials: of tuning; empty if there was nothing to choose from.
        images: the folder of the set.
        report: what the metrics say; None if it failed.
        failure: why, in words.
        rank_by: the metric that it was tuned by and is ranked by, one of
            `hdzoo.metrics.comparison.RANKINGS`.
    """

    sampler: str
    num_inference_steps: int
    num_start_steps: int
    options: dict[str, Any]
    trials: list[Trial]
    images: Path
    report: Report | None
    failure: str | None
    rank_by: str

    @property
    def objective(self) -> Result:
        """What it is ranked by, of an entry that has not failed."""
        assert self.report is not None
        return self.report[self.rank_by]


@dataclass(frozen=True)
class Leaderboard:
    """From `hdzoo.leaderboard.compare.compare`.

    Attributes:
        folder: where everything is.
        protocol: what all entries have in common.
        entries: by cost, then best first; those that failed come last.
    """

    folder: Path
    protocol: dict[str, Any]
    entries: list[Entry]

    @property
    def costs(self) -> list[int]:
        """The numbers of network evaluations, ascending."""
        return sorted({entry.num_inference_steps for entry in self.entries})

    def at(self, num_inference_steps: int) -> list[Entry]:
        """The entries of one cost that have not failed, best first."""
        return [
            entry
            for entry in self.entries
            if entry.num_inference_steps == num_inference_steps and entry.report is not None
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the difference between any two entries of one cost."""
        entries = [
            dataclasses.asdict(entry) | {"images": str(entry.images)} for entry in self.entries
        ]
        differences = []
        for cost in self.costs:
            placed = self.at(cost)
            for place, one in enumerate(placed):
                for other in placed[place + 1 :]:
                    found = difference(one.objective, other.objective)
                    differences.append(
                        {
                            "num_inference_steps": cost,
                            "better": one.sampler,
                            "worse": other.sampler,
                            **dataclasses.asdict(found),
                            "tie": found.is_tie,
                            "images_needed": found.images_needed,
                        }
                    )
        return {"protocol": self.protocol, "entries": entries, "differences": differences}


def rank(entry: Entry) -> tuple[int, float]:
    """Where an entry belongs."""
    if entry.report is None:
        return entry.num_inference_steps, math.inf
    return entry.num_inference_steps, loss(entry.rank_by, entry.objective.value)


def loss(metric: str, value: float) -> float:
    """What is the less, the better a value of a metric is."""
    return -value if RANKINGS[metric] else value


def places(entries: list[Entry]) -> list[int]:
    """The place of each of some entries of one cost: 1 more than how many are better and no tie.

    So those that cannot be told apart from the best share the first place.
    """
    return [
        1
        + sum(
            loss(other.rank_by, other.objective.value) < loss(entry.rank_by, entry.objective.value)
            and not difference(other.objective, entry.objective).is_tie
            for other in entries
        )
        for entry in entries
    ]


def read_board(folder: Path) -> Leaderboard:
    """Reads the board of a folder that `hdzoo.leaderboard.compare.compare` has filled.

    Raises:
        HDZooError: there is none, or it is damaged or of another version.
    """
    path = folder / DATA
    try:
        content = json.loads(path.read_text())
        entries = [_entry(entry) for entry in content["entries"]]
        board = Leaderboard(folder, dict(content["protocol"]), sorted(entries, key=rank))
        # What is not there, or no number, is to be heard of here.
        for cost in board.costs:
            places(board.at(cost))
        return board
    except OSError as error:
        raise HDZooError(
            f"{path} cannot be read: {error.strerror}; `hdzoo compare` makes such a file"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HDZooError(
            f"{path} is no leaderboard of this version, or damaged: {error}; make it again by "
            "`hdzoo compare`, which keeps the images"
        ) from error


def _entry(content: Mapping[str, Any]) -> Entry:
    report = content["report"]
    own: dict[str, Any] = {
        "trials": [Trial(**trial) for trial in content["trials"]],
        "images": Path(content["images"]),
        "report": None if report is None else report_of(report),
    }
    return Entry(**{**content, **own})
