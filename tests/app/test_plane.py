"""Chains in the plane on the page: the demo's own pictures and numbers."""

import pytest

from hdzoo import HDZooError
from hdzoo.app.plane import FRAMES, check_walk, walk
from hdzoo.demo.demo import demo_2d, planar_targets


def test_pictures_and_numbers_are_the_demos_and_the_command_says_which():
    order = check_walk("circle", ["heun", "langevin"], 20, 10, 3)
    seen = [one for one in walk(order) if one is not None]
    assert order.command == (
        "hdzoo demo-2d --target circle -s heun -s langevin -n 20 -t 10 --seed 3"
    )
    demo = demo_2d(
        "circle", ["heun", "langevin"], num_samples=20, num_inference_steps=10, seed=3, num_frames=2
    )
    assert seen[-1].table == demo.table
    film = seen[-1].film
    assert len(film.frames) == len(film.captions) == min(FRAMES, 11)
    assert film.captions[0] == "after evaluation 0 of 10"
    assert film.captions[-1] == "after evaluation 10 of 10"
    assert film.frames[-1].size == demo.frames[-1].size
    assert not any(one.table for one in seen[:-1])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "digits", "target is 'digits'"),
        (0, None, "target is None"),
        (1, ["heun", "langevin", "mala"], "3 samplers are chosen; choose at most 2"),
        (2, 1, "the number of chains is 1"),
        (2, 10**9, "the number of chains is 1000000000"),
        (3, 0, "the number of evaluations is 0"),
        (4, float("nan"), "seed is nan"),
    ],
)
def test_bad_input_is_a_message(place, value, message):
    right = ["circle", ["heun"], 20, 10, 3]
    with pytest.raises(HDZooError, match=message):
        check_walk(*right[:place], value, *right[place + 1 :])


def test_targets_in_the_plane():
    found = planar_targets()
    assert {"circle", "eight-gaussians", "moons"} <= set(found)
    assert not {"digits", "gaussian", "sphere"} & set(found)
