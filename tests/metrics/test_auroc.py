"""The area under the ROC curve, by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hdzoo.errors import HDZooError
from hdzoo.metrics.auroc import auroc


def test_by_hand_with_ties():
    r"""Of the 3 x 2 pairs (outside, inside): 1 below, 2 equal, 3 above.

    The shares that each outside is larger than are (1/4, 3/4, 1), of variance 7/48; those that each
    inside is smaller than are (5/6, 1/2), of variance 1/18.
    """
    found = auroc([1.0, 2.0], [1.0, 2.0, 3.0])
    assert found.value == pytest.approx(4 / 6, rel=1e-14)
    assert found.standard_error == pytest.approx((7 / 48 / 3 + 1 / 18 / 2) ** 0.5, rel=1e-14)


def test_against_scikit_learn_and_every_pair():
    chance = np.random.default_rng(0)
    for ties in (False, True):
        inside, outside = chance.normal(size=90), chance.normal(0.7, 2, size=70)
        if ties:
            inside, outside = inside.round(), outside.round()
        found = auroc(inside, outside)
        labels = np.repeat([0, 1], [90, 70])
        expected = roc_auc_score(labels, np.concatenate([inside, outside]))
        assert found.value == pytest.approx(expected, rel=1e-13)
        pairs = np.sign(outside[:, None] - inside) / 2 + 0.5
        variance = pairs.mean(1).var(ddof=1) / 70 + pairs.mean(0).var(ddof=1) / 90
        assert found.standard_error == pytest.approx(variance**0.5, rel=1e-12)


def test_the_standard_error_is_the_spread_over_sets():
    chance = np.random.default_rng(1)
    found = [auroc(chance.normal(size=60), chance.normal(1, 1, size=40)) for _ in range(400)]
    values, errors = np.transpose(found)
    # The standard deviation of 400 values is within 4 / sqrt(800) of itself.
    assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.15)


def test_it_tells_sets_apart_and_says_which_is_larger():
    assert auroc([0, 1], [2, 3]) == (1.0, 0.0)
    assert auroc([2, 3], [0, 1]) == (0.0, 0.0)
    assert auroc([1, 1], [1, 1, 1]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("inside", "outside", "words"),
    [
        ([1.0], [1.0, 2.0], "inside has 1 number; at least 2"),
        ([1.0, 2.0], [], "outside has 0 numbers; at least 2"),
        ([1.0, float("nan")], [1.0, 2.0], "inside has 1 number that is not finite"),
        (
            [1.0, 2.0],
            [1.0, float("inf"), float("nan")],
            "outside has 2 numbers that are not finite",
        ),
    ],
)
def test_errors(inside, outside, words):
    with pytest.raises(HDZooError, match=words):
        auroc(inside, outside)
