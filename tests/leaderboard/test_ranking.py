"""Differences between sets: their spread is that of many pairs of sets, and ties are ties."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hdzoo.errors import HDZooError
from hdzoo.leaderboard.board import Entry, rank
from hdzoo.leaderboard.ranking import WIDTH, Difference, difference, matrix
from hdzoo.metrics.comparison import RANKINGS, EqualSize, Result
from hdzoo.metrics.metrics import frechet_distance, jackknife, moments, standard_errors
from hdzoo.metrics.report import Report

NONE = EqualSize(1, 0.0, 0.0, 0.0, 0.0)
REAL = {"mu": np.zeros(3), "sigma": np.eye(3)}


def result(features: torch.Tensor, name: str = "FD") -> Result:
    """The Fréchet distance to a standard normal distribution."""

    def distance(values: torch.Tensor) -> float:
        return frechet_distance(moments(values), REAL)

    replicates = jackknife(lambda kept: (distance(kept),), features, 10, 0)
    middle = len(features) // 2
    return Result(
        "fid",
        name,
        distance(features),
        standard_errors(replicates)[0],
        "",
        len(features),
        1000,
        NONE,
        (distance(features[:middle]), distance(features[middle:])),
        tuple(replicates[:, 0].tolist()),
    )


def pairs(count: int, shift: float, shared: float):
    """Results of pairs of sets whose images have much of their chance in common."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        common, one, other = torch.randn(3, 500, 3, generator=generator)
        rest = (1 - shared**2) ** 0.5
        yield (
            result(0.5 + shared * common + rest * one),
            result(0.5 + shift + shared * common + rest * other),
        )


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_the_spread_is_that_of_the_difference_itself(shared):
    found = [difference(one, other) for one, other in pairs(200, 0.1, shared)]
    values = np.array([d.value for d in found])
    spreads = np.array([d.spread for d in found]) / WIDTH
    # The standard deviation of 200 values is known to 5 %, the mean of their jackknife errors of
    # ten blocks to 24 % / sqrt(200) = 1.7 %; the jackknife itself is conservative by a few percent.
    assert np.sqrt((spreads**2).mean()) == pytest.approx(values.std(), rel=0.25)
    if shared:
        # What both have in common says nothing of their difference.
        alone = np.mean([np.hypot(a.spread, b.spread) for a, b in pairs(20, 0.1, shared)])
        assert spreads.mean() < 0.6 * alone


def test_sets_of_one_law_are_ties_and_others_are_not():
    # Two standard errors of ten blocks: Student's t with 9 degrees of freedom leaves 7.7 % outside,
    # and the two ranges of seeds have to agree. 15 % are 3 standard errors above that.
    same = [difference(one, other) for one, other in pairs(100, 0.0, 0.5)]
    assert sum(not d.is_tie for d in same) <= 15
    apart = [difference(one, other) for one, other in pairs(100, 0.5, 0.5)]
    assert sum(d.is_tie for d in apart) == 0
    assert all(d.value > 0 for d in apart)


@pytest.mark.parametrize(
    ("value", "spread", "halves", "tie"),
    [
        (1.0, 0.5, (0.9, 1.1), False),
        (-1.0, 0.5, (-0.9, -1.1), False),
        (1.0, 1.0, (0.9, 1.1), True),
        (1.0, 0.5, (-0.1, 2.1), True),
        (0.0, 0.0, (0.0, 0.0), True),
    ],
)
def test_a_tie_is_within_the_spread_or_of_two_signs(value, spread, halves, tie):
    found = Difference(value, spread, halves, 100)
    assert found.is_tie is tie
    assert str(found).startswith("tie") is tie


def test_the_other_way_round_is_the_opposite():
    ((one, other),) = pairs(1, 0.3, 0.5)
    there, back = difference(one, other), difference(other, one)
    assert back.value == -there.value
    assert back.halves == tuple(-half for half in there.halves)
    assert back.spread == pytest.approx(there.spread)
    table = matrix(["a", "b"], [one, other])
    assert [list(row) for row in table] == [["", "a", "b"]] * 2
    assert table[0]["b"].replace("-", "+") == table[1]["a"]
    assert table[0]["a"] == ""


def test_only_what_can_be_compared_is():
    ((one, _),) = pairs(1, 0.3, 0.5)
    with pytest.raises(HDZooError, match="name is 'FD' of the one and 'FID' of the other"):
        difference(one, result(torch.randn(500, 3), "FID"))
    with pytest.raises(HDZooError, match="num_images is 500 of the one and 400"):
        difference(one, result(torch.randn(400, 3)))


# ---- how many images would tell -------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "spread", "halves", "needed", "said"),
    [
        # A spread falls as the root: of four times as many images, to a half.
        (0.5, 1.0, (0.4, 0.6), 400, "tie (+0.5 ± 1; some 400 images would tell)"),
        (-0.3, 1.0, (-0.4, -0.2), 1112, "tie (-0.3 ± 1; some 1,100 images would tell)"),
        # Halves that are as large as the whole is now.
        (1.0, 0.5, (-0.1, 2.1), 200, "tie (+1 ± 0.5; some 200 images would tell)"),
        (0.5, 1.0, (-0.1, 1.1), 400, "tie (+0.5 ± 1; some 400 images would tell)"),
        (1.0, 0.5, (0.9, 1.1), 100, "+1 ± 0.5"),
        (0.0, 1.0, (0.1, -0.1), None, "tie (+0 ± 1)"),
        # More than can be drawn.
        (1e-6, 1.0, (1e-6, 1e-6), None, "tie (+1e-06 ± 1)"),
    ],
)
def test_how_many_images_a_difference_needs(value, spread, halves, needed, said):
    found = Difference(value, spread, halves, 100)
    assert found.images_needed == needed
    assert str(found) == said


def test_as_many_images_as_are_needed_do_tell():
    """Of pairs that are ties by their spread, drawn again with twice what each asks for."""
    told = []
    for one, other in pairs(40, 0.08, 0.5):
        found = difference(one, other)
        if not found.is_tie or found.value <= 0:
            continue
        generator = torch.Generator().manual_seed(len(told) + 1)
        count = 2 * (found.images_needed or 0)
        if count > 20_000:
            continue
        common, mine, theirs = torch.randn(3, count, 3, generator=generator)
        again = difference(
            result(0.5 + 0.5 * common + 0.75**0.5 * mine),
            result(0.58 + 0.5 * common + 0.75**0.5 * theirs),
        )
        told.append(not again.is_tie)
    # A difference that was thought smaller than it is needs fewer.
    assert len(told) >= 3
    assert np.mean(told) >= 0.5


def entry(metric, value):
    found = dataclasses.replace(result(torch.randn(40, 3)), metric=metric, value=value)
    report = Report({}, {}, {}, 0, [found], [], {}, None, 0.0)
    return Entry("s", 10, 0, {}, [], Path(), report, None, metric)


@pytest.mark.parametrize(("metric", "higher"), RANKINGS.items())
def test_what_is_better(metric, higher):
    entries = [entry(metric, value) for value in (0.2, 0.1, 0.3)]
    failed = dataclasses.replace(entries[0], report=None)
    placed = sorted([failed, *entries], key=rank)
    best = [0.3, 0.2, 0.1] if higher else [0.1, 0.2, 0.3]
    assert [one.objective.value for one in placed[:3]] == best
    assert placed[3] is failed
    assert higher == (metric in ("precision", "recall"))
