"""Boards: places that ties share, and what was written is read back."""

import dataclasses
import json
from pathlib import Path

import pytest

from hdzoo import HDZooError
from hdzoo.leaderboard.board import DATA, Entry, Leaderboard, Trial, places, read_board
from hdzoo.leaderboard.pages import write_page
from hdzoo.metrics.comparison import EqualSize, Result
from hdzoo.metrics.report import Report

PROTOCOL = {
    "model": "m",
    "num_images": 100,
    "seed": 0,
    "dtype": "float32",
    "trials": 0,
    "weights_sha256": "0",
    "versions": {},
    "command": None,
}


def entry(sampler: str, value: float, jitter: float, steps: int = 10) -> Entry:
    """An entry whose replicates differ from others' by ``jitter`` times a fixed pattern."""
    pattern = (1.0, -1.0, 0.5, -0.5, 0.0)
    result = Result(
        "fid",
        "FD",
        value,
        0.1,
        "standard error",
        100,
        100,
        EqualSize(100, value, 0.0, 0.1, 0.0),
        (value, value),
        tuple(value + jitter * one for one in pattern),
    )
    reference = {"dataset": "real", "split": "test"}
    report = Report(
        {}, reference, {"name": "f", "weights_sha256": "0"}, 0, [result], [], {}, None, 0.0
    )
    trials = [Trial({"step_size": 0.1}, value, None)]
    return Entry(sampler, steps, 0, {"eta": 0.5}, trials, Path("s"), report, None, "fid")


# "a" and "b" differ by less than their difference's spread, "c" is far from both and quiet.
ENTRIES = [entry("a", 1.0, 0.0), entry("b", 1.1, 1.0), entry("c", 5.0, 0.0)]
FAILED = dataclasses.replace(ENTRIES[0], sampler="d", report=None, failure="it diverged")


def test_ties_share_a_place():
    assert places(ENTRIES) == [1, 1, 3]
    assert places(ENTRIES[::-1]) == [3, 1, 1]
    assert places([]) == []


def test_a_board_is_read_back(tmp_path):
    board = Leaderboard(tmp_path, PROTOCOL, [*ENTRIES, FAILED])
    write_page(board)
    assert read_board(tmp_path) == board


def damage(content, what):
    """The content of a file that somebody has spoilt."""
    if what == "no entries":
        del content["entries"]
    elif what == "no number":
        content["entries"][0]["report"]["results"][0]["value"] = "1"
    elif what == "another version":
        content["entries"][0]["colour"] = "red"
    elif what == "other replicates":
        content["entries"][0]["report"]["results"][0]["replicates"] = [1.0, 2.0]
    elif what == "another metric":
        content["entries"][0]["rank_by"] = "beauty"
    return "[" * 100_000 if what == "nested" else json.dumps(content)


@pytest.mark.parametrize(
    "what",
    [
        "no entries",
        "no number",
        "another version",
        "other replicates",
        "another metric",
        "nested",
    ],
)
def test_a_damaged_board_is_a_message(tmp_path, what):
    write_page(Leaderboard(tmp_path, PROTOCOL, ENTRIES))
    content = json.loads((tmp_path / DATA).read_text())
    (tmp_path / DATA).write_text(damage(content, what))
    with pytest.raises(HDZooError, match="is no leaderboard of this version, or damaged"):
        read_board(tmp_path)


def test_a_board_that_is_not_there_is_a_message(tmp_path):
    with pytest.raises(HDZooError, match="cannot be read"):
        read_board(tmp_path)
