"""Painting on the page: what was not covered stays, byte for byte."""

import numpy as np
import pytest

from hdzoo import HDZooError
from hdzoo.app.painting import Pictures, check_gap, fill, mask_image

LOWER = "0" * 32 + "1" * 32
RIGHT = (3, LOWER, "annealed-half-denoising", 2, 12, 0)


@pytest.fixture(scope="module")
def shelf(models):
    return Pictures(models)


def test_the_uncovered_part_of_each_painting_is_the_pictures(shelf, models, tiny):
    *_, picture = shelf.in_steps(tiny, 3)
    *_, last = fill(shelf, check_gap(models, tiny, *RIGHT))
    given, painted = last.films
    assert len(given.frames) == len(painted.frames)
    known = np.asarray(picture)
    grid = np.asarray(painted.frames[-1])
    assert grid.shape == (8, 16)
    paintings = grid[:, :8], grid[:, 8:]
    for painting in paintings:
        assert np.array_equal(painting[:4], known[:4])
        assert not np.array_equal(painting[4:], known[4:])
    assert not np.array_equal(*paintings)
    # What is given does not show what is covered.
    shown = np.asarray(given.frames[-1])
    assert len(np.unique(shown[4:].reshape(-1, 3), axis=0)) == 1


def test_a_picture_is_drawn_once(shelf, models, tiny):
    *_, one = shelf.in_steps(tiny, 3)
    *_, other = shelf.in_steps(tiny, 3.0)
    assert one is other


def test_a_mask_is_white_where_its_cells_are_1():
    mask = np.asarray(mask_image("010" + "100", 3, 2))
    assert np.array_equal(mask, [[0, 255, 0], [255, 0, 0]])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, None, "the picture's seed is empty"),
        (1, None, "there is no mask"),
        (1, "0" * 64, "the mask is empty"),
        (1, "1" * 10**6, "there is no mask"),
        (1, "2" * 64, "there is no mask"),
        (1, ["1"], "there is no mask"),
        (2, "none-such", "sampler is 'none-such'"),
        (3, 0, "the number of paintings is 0"),
        (4, 501, "the number of evaluations is 501"),
        (5, "0", "seed is '0'"),
    ],
)
def test_bad_input_is_a_message(models, tiny, place, value, message):
    with pytest.raises(HDZooError, match=message):
        check_gap(models, tiny, *RIGHT[:place], value, *RIGHT[place + 1 :])


def test_a_mask_of_another_picture_is_refused(shelf, models, tiny):
    order = check_gap(models, tiny, 3, "01", *RIGHT[2:])
    with pytest.raises(HDZooError, match="of another picture"):
        list(fill(shelf, order))
