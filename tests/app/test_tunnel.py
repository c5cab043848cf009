"""The wind tunnel against closed forms."""

import numpy as np
import pytest

from hdzoo import HDZooError
from hdzoo.app.tunnel import check_setting, knobs, measure, pictures

RIGHT = ("langevin", 20, 0.1, 0.5, 0.25, 0.05)


@pytest.fixture(scope="module")
def seen():
    return [measured for measured in measure(check_setting(*RIGHT)) if measured is not None]


def test_langevins_law_is_the_known_one(seen):
    # x' = (1 - alpha / s2) x + sqrt(2 alpha) z from N(0, s2), s2 the variance of the noisy data.
    s2 = np.array([0.25, 0.05, 0.0]) ** 2 + 0.5**2
    alpha = 0.1 * 0.5**2
    variance = s2.copy()
    for _ in range(20):
        variance = (1 - alpha / s2) ** 2 * variance + 2 * alpha
    assert seen[-1].deviations[-1] == pytest.approx(np.sqrt(variance), rel=1e-9)
    # W2 of Gaussians with one set of axes is the distance of their standard deviations.
    expected = np.linalg.norm(np.sqrt(variance) - [0.25, 0.05, 0.0])
    assert seen[-1].distance == pytest.approx(expected, rel=1e-6)


def test_the_law_is_seen_first_and_then_the_curves_grow(seen):
    sizes = [sum(map(len, measured.curves.values())) for measured in seen]
    assert sizes == sorted(sizes)
    last = seen[-1]
    assert list(last.curves) == ["num_inference_steps", "step_size", "sigma"]
    assert last.curves["num_inference_steps"][20] == last.distance
    # Curves in the settings are at this one's number of evaluations.
    assert last.curves["sigma"][0.5] == pytest.approx(last.distance, rel=1e-12)
    assert len(pictures(last)) == 4
    assert len(last.rows) == 3


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "none-such", "sampler is 'none-such'"),
        (0, None, "sampler is None"),
        (1, 0, "the number of evaluations is 0"),
        (1, 201, "the number of evaluations is 201"),
        (2, -1, "step_size is -1"),
        (2, float("nan"), "step_size is nan"),
        (3, -0.1, "sigma is -0.1"),
        (3, 1e300, "sigma is 1e"),
        (4, 0, "broad is 0"),
        (4, None, "broad is None"),
        (5, float("inf"), "narrow is inf"),
    ],
)
def test_bad_input_is_a_message(place, value, message):
    given = [*RIGHT[:place], value, *RIGHT[place + 1 :]]
    with pytest.raises(HDZooError, match=message):
        check_setting(*given)


def test_a_sampler_that_has_no_such_law_says_so():
    with pytest.raises(HDZooError, match="exact law"):
        list(measure(check_setting("mala", 20, 0, 0, 0.25, 0.05)))


def test_what_there_is_to_turn():
    assert knobs("langevin") == (True, "sigma")
    assert knobs("heun") == (False, "sigma_min")
    assert check_setting("heun", 20, 0.5, 0, 0.25, 0.05).options == {}
