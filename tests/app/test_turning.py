"""Images that turn into one another, on the page."""

import shlex

import pytest
from PIL import Image, ImageChops

from hdzoo import HDZooError
from hdzoo.app.turning import check_turn, turn


def test_the_row_is_the_commands(models, tiny, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    order = check_turn(models, tiny, "heun", 3, 5, 4, 6)
    *_, last = turn(models, order)
    (film,) = last.films
    assert film.frames[-1].size == (32, 8)
    code, out, _ = run(*shlex.split(order.command)[1:], "--scale", 1)
    assert code == 0
    with Image.open(out.strip()) as row:
        # The same noise; round-off may move a pixel by one of 255.
        assert ImageChops.difference(row, film.frames[-1]).getextrema()[1] <= 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "/", "'/' is no model of this page"),
        (1, "none-such", "sampler is 'none-such'"),
        (2, 5, "interpolate is 5:5"),
        (2, None, "the first seed is empty"),
        (3, -1, "the second seed is -1"),
        (4, 1, "the number of images is 1"),
        (4, 17, "the number of images is 17"),
        (5, float("nan"), "the number of evaluations is nan"),
    ],
)
def test_bad_input_is_a_message(models, tiny, place, value, message):
    right = [tiny, "heun", 3, 5, 4, 6]
    with pytest.raises(HDZooError, match=message):
        check_turn(models, *right[:place], value, *right[place + 1 :])
