"""Boards on the page: found in a folder, never elsewhere, and shown with ties as ties."""

import importlib.util
from pathlib import Path

import pytest

from hdzoo import HDZooError
from hdzoo.app.boards import HEADERS, find_boards, open_board, table
from hdzoo.leaderboard.board import Leaderboard
from hdzoo.leaderboard.pages import write_page

# The entries of the boards' own test.
_spec = importlib.util.spec_from_file_location(
    "test_board", Path(__file__).parents[1] / "leaderboard" / "test_board.py"
)
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        entries = [*example.ENTRIES, example.FAILED]
        write_page(Leaderboard(tmp_path / name, example.PROTOCOL, entries))
    (tmp_path / "none").mkdir()
    return tmp_path


def test_boards_in_a_folder_or_the_folder_itself(folder):
    assert list(find_boards(folder)) == ["one", "two"]
    assert list(find_boards(folder / "one")) == ["one"]
    assert find_boards(None) == {}


def test_where_there_is_none_that_is_said(folder):
    with pytest.raises(HDZooError, match="hdzoo compare"):
        find_boards(folder / "none")
    with pytest.raises(HDZooError, match="is no folder"):
        find_boards(folder / "nowhere")


@pytest.mark.parametrize("name", ["three", "../one", "/etc", "", None, ["one"]])
def test_only_those_are_opened(folder, name):
    with pytest.raises(HDZooError, match="there is no board"):
        open_board(find_boards(folder), name)


def test_rows_have_numbers_to_sort_by_and_shared_places(folder):
    rows = table(open_board(find_boards(folder), "one"))
    found = [dict(zip(HEADERS, row, strict=True)) for row in rows]
    assert [row["sampler"] for row in found] == ["a", "b", "c", "d"]
    assert [row["place"] for row in found] == [1, 1, 3, None]
    assert [row["value"] for row in found] == [1.0, 1.1, 5.0, None]
    assert found[1]["minus the best"].startswith("tie (+0.1")
    assert found[2]["minus the best"].startswith("+4")
    assert "diverged" in found[3]["minus the best"]
