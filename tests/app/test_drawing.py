"""Drawing on the page: the same pictures as by the command and by the lines that it shows."""

import shlex

import pytest
from PIL import Image, ImageChops

from hdzoo import HDZooError
from hdzoo.app.drawing import check_order, draw
from hdzoo.app.limits import MOST_WORK
from hdzoo.app.recipes import command, python
from hdzoo.sampling import image_grid

SAMPLERS = ["annealed-langevin", "heun", "half-denoising"]
TEXTS = {"heun": {"churn": "1.5", "sigma_max": "3"}, "annealed-langevin": {"readout": "full"}}


@pytest.fixture(scope="module")
def order(models, tiny):
    return check_order(models, tiny, SAMPLERS, 4, 9, 7.0, TEXTS)


@pytest.fixture(scope="module")
def seen(models, order):
    return [drawing for drawing in draw(models, order) if drawing is not None]


def test_films_end_with_what_is_said_of_them(seen, order):
    last = seen[-1]
    assert last.finished
    assert not any(drawing.finished for drawing in seen[:-1])
    assert [film.title for film in last.films] == list(order.samplers)
    for film in last.films:
        assert len(film.frames) == len(film.captions) == 9
        assert film.captions[0] == "evaluation 1 of 9"
        assert film.captions[-1] == "evaluation 9 of 9"
        assert film.frames[-1].size == (16, 16)  # 4 images of 8 pixels: 2 by 2
    # The third starts from images of the model's own sampler: 4 levels of 2 steps.
    spent = [film.note.partition(" ")[0] for film in last.films]
    assert spent == ["9", "9", "17"]
    assert last.status.startswith("140 network evaluations")


def test_pictures_are_seen_before_they_are_finished(seen):
    first = next(drawing for drawing in seen if drawing.films[0].frames)
    assert first.films[1].note == "waits"


def close(one: Image.Image, other: Image.Image) -> bool:
    """The same noise; round-off may move a pixel by one of 255."""
    return one.size == other.size and ImageChops.difference(one, other).getextrema()[1] <= 1


def test_the_commands_draw_the_same(seen, order, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for line, film in zip(command(order).splitlines(), seen[-1].films, strict=True):
        words = shlex.split(line)
        assert words[0] == "hdzoo"
        code, out, _ = run(*words[1:], "--scale", 1)
        assert code == 0
        with Image.open(out.strip()) as grid:
            assert close(grid, film.frames[-1])


def test_the_lines_of_python_draw_the_same(seen, order, models):
    names = {}
    exec(python(order), names)
    for film in seen[-1].films:
        assert close(image_grid(names["images"][film.title]), film.frames[-1])
    alone = check_order(models, order.model, ["heun"], 4, 9, 7, TEXTS)
    names = {}
    exec(python(alone), names)
    assert close(image_grid(names["images"]), seen[-1].films[1].frames[-1])


WRONG = [
    ({"samplers": []}, "no sampler is chosen"),
    ({"samplers": None}, "no sampler is chosen"),
    ({"samplers": "heun"}, "no sampler is chosen"),
    ({"samplers": ["heun"] * 2}, "chosen twice"),
    ({"samplers": ["heun", "a", "b", "c", "d"]}, "5 samplers are chosen"),
    ({"samplers": ["no-such-sampler"]}, "sampler is 'no-such-sampler'"),
    ({"samplers": [["heun"]]}, "sampler is"),
    ({"num_images": 0}, "the number of images is 0"),
    ({"num_images": 37}, "the number of images is 37"),
    ({"num_images": None}, "the number of images is empty"),
    ({"num_images": 1.5}, "the number of images is 1.5"),
    ({"num_images": "4"}, "the number of images is '4'"),
    ({"num_images": float("nan")}, "the number of images is nan"),
    ({"num_inference_steps": 10**100}, "the number of evaluations is"),
    ({"num_inference_steps": -1}, "the number of evaluations is -1"),
    ({"num_inference_steps": True}, "the number of evaluations is True"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 1e30}, "seed is 1000000000"),
    ({"seed": None}, "seed is empty"),
    ({"seed": float("inf")}, "seed is inf"),
    ({"model": ""}, "no model is chosen"),
    ({"model": None}, "no model is chosen"),
    ({"model": "/etc"}, "'/etc' is no model of this page"),
    ({"model": "../../secret"}, "is no model of this page"),
    ({"model": "somebody/model"}, "is no model of this page"),
    ({"model": "a" * 5000}, "has 5,000 characters"),
    ({"texts": {"heun": {"churn": "much"}}}, "churn is 'much'"),
    ({"texts": {"heun": {"churn": "nan"}}}, "churn is 'nan'"),
    ({"texts": {"heun": {"sigmas": "[1, 2]"}}}, "noise levels descend"),
    ({"texts": {"heun": {"prediction_type": "v"}}}, "there is no option 'prediction_type'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_bad_input_is_a_message(models, tiny, given, message):
    right = {
        "model": tiny,
        "samplers": ["heun"],
        "num_images": 2,
        "num_inference_steps": 4,
        "seed": 0,
    }
    with pytest.raises(HDZooError, match=message.replace("(", r"\(")):
        check_order(models, **right | given)


def test_the_work_of_one_visitor_is_capped(models, tiny):
    samplers = ["heun", "annealed-langevin", "dpm-solver-pp-2m"]
    order = check_order(models, tiny, samplers, 36, 500, 0)
    assert 36 * 500 * len(samplers) > MOST_WORK
    with pytest.raises(HDZooError, match="54,000 network evaluations in all"):
        list(draw(models, order))


def test_a_chain_that_is_too_short_is_heard_of_before_anything_is_drawn(models, tiny):
    order = check_order(models, tiny, ["heun", "annealed-langevin"], 2, 3, 0)
    with pytest.raises(HDZooError, match="at least 4"):
        list(draw(models, order))


def test_a_drawing_that_nobody_waits_for_ends(models, tiny):
    network = models.pipeline(tiny).unet
    going = draw(models, check_order(models, tiny, ["heun"], 4, 500, 0))
    while next(going) is None:
        pass
    going.close()
    # The worker is free again: what comes next does not wait for 500 evaluations.
    *_, last = draw(models, check_order(models, tiny, ["heun"], 1, 2, 0))
    assert last.finished
    assert not network._forward_hooks
