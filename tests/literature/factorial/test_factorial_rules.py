"""Intervals against closed forms, and decision rules on made-up distances."""

import numpy as np
import pytest
from scipy import stats

from hdzoo.literature.factorial import rules
from hdzoo.literature.factorial.cells import CELLS, Cell
from hdzoo.literature.factorial.findings import AXES, Found, claims, cross_verdict, effects
from hdzoo.literature.factorial.intervals import Interval, contrast, interval, without_each
from hdzoo.literature.factorial.rules import (
    ALG_1,
    ALG_3,
    DEQUANTISED,
    DIGITS,
    MNIST,
    ONLY_DROPPED,
    RULES,
    SINGULAR,
    SMOOTH,
    cell,
    judge,
)

VALUES = [1.2, 0.7, 1.9, 1.1, 0.4]
BY_NAME = {rule.name: rule for rule in RULES}


# ---- intervals ----------------------------------------------------------------------------------


def test_interval_of_a_mean_is_students() -> None:
    found = interval([float(np.mean(part)) for part in without_each(VALUES)])
    low, high = stats.t.interval(0.95, 4, np.mean(VALUES), stats.sem(VALUES))
    assert found == pytest.approx((np.mean(VALUES), low, high))
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.9)
    ends = interval([float(np.mean(part)) for part in without_each(VALUES)], 0.9)
    assert ends[1:] == pytest.approx((expected.low, expected.high))


def test_what_two_cells_share_is_not_in_the_interval_of_their_difference() -> None:
    """The paired t interval, far narrower than those of the two."""
    gains = [0.01, 0.02, 0.015, 0.03, 0.01]
    one = np.array(VALUES)
    tables = [
        {"one": float(np.mean(one[part])), "other": float(np.mean((one + gains)[part]))}
        for part in without_each(range(5))
    ]
    found = contrast(lambda table: table["other"] - table["one"], tables)
    expected = stats.ttest_rel(one + gains, one).confidence_interval(0.95)
    assert found[1:] == pytest.approx((expected.low, expected.high))
    alone = contrast(lambda table: table["one"], tables)
    assert alone.high - alone.low > 30 * (found.high - found.low)


def test_bias_of_first_order_is_gone() -> None:
    """Of the squared mean, whose bias is the variance over n, it leaves the unbiased estimate."""
    found = interval([float(np.mean(part)) ** 2 for part in without_each(VALUES)])
    unbiased = np.mean(VALUES) ** 2 - np.var(VALUES, ddof=1) / len(VALUES)
    assert found.value == pytest.approx(unbiased)


def test_what_is_exact_has_no_width() -> None:
    assert interval([0.3]) == (0.3, 0.3, 0.3)
    assert (str(interval([0.3])), str(Interval(1.0, 0.5, 2.0))) == ("0.3", "1 (0.5 to 2)")


# ---- rules --------------------------------------------------------------------------------------


def tables(values: dict[Cell, list[float]], rest: float = 1.0) -> list[dict[Cell, float]]:
    """Distances of pooled seeds, which are means over them, where those of each are given."""
    return [
        dict.fromkeys(CELLS, rest)
        | {one: float(np.mean([of[seed] for seed in seeds])) for one, of in values.items()}
        for seeds in without_each(range(5))
    ]


NEAR = [0.01, -0.01, 0.0, 0.02, -0.02]


@pytest.mark.parametrize(
    ("shift", "holds", "said"),
    [
        (-0.5, True, "holds, as predicted"),
        (0.5, False, "does not hold, AGAINST"),
        (0.001, None, "cannot tell"),
    ],
)
def test_better(shift: float, holds: bool | None, said: str) -> None:
    found = tables({ALG_3: [1 + shift + noise for noise in NEAR]})
    verdict = judge(BY_NAME["alpha-half is better"], found, SMOOTH)
    assert verdict.difference.value == pytest.approx(shift)
    assert (verdict.holds, verdict.said) == (holds, said)


@pytest.mark.parametrize(
    ("dropped", "spread", "holds"),
    [
        # Algorithm 3 is at 1 and gains 1 on Algorithm 1: equality is within .1.
        (1.05, 0.1, True),
        (0.95, 0.1, True),
        (1.3, 0.1, False),
        (0.7, 0.1, False),
        (1.1, 1.0, None),
        (1.0, 20.0, None),
    ],
)
def test_as_good_as_equal(dropped: float, spread: float, holds: bool | None) -> None:
    found = tables({ALG_1: [2.0] * 5, ONLY_DROPPED: [dropped + spread * noise for noise in NEAR]})
    verdict = judge(BY_NAME["the last step alone"], found, DIGITS)
    assert verdict.holds is holds
    assert verdict.margin is not None
    assert verdict.margin.value == pytest.approx(0.1)
    assert verdict.predicted is False


def test_exact_distances_decide_by_their_sign() -> None:
    table = dict.fromkeys(CELLS, 1.0)
    rule = BY_NAME["half is handed on better than next"]
    assert judge(rule, [table | {cell(): 1 - 1e-12}], SMOOTH).holds is True
    assert judge(rule, [table], SMOOTH).holds is False
    unpredicted = judge(BY_NAME["mostly the hand-off"], [table], MNIST)
    assert unpredicted.said == "does not hold, not predicted"


def test_the_luck_of_the_best_is_in_the_interval() -> None:
    """Read-outs that are only best by chance, each in another seed, are not better than none."""
    noise = np.random.default_rng(1).normal(1, 0.1, (6, 5))
    cells = [cell(readout=r) for r in rules.READ]
    lucky = dict(zip(cells, noise.tolist(), strict=True))
    rule = BY_NAME["some read-out is worth its evaluation"]
    assert judge(rule, tables(lucky), SMOOTH).holds is None
    good = {one: [value - 1 for value in of] for one, of in lucky.items()}
    assert judge(rule, tables(good), SMOOTH).holds is True


def test_rules_are_told_apart_and_predict_of_known_targets() -> None:
    assert len(BY_NAME) == len(RULES)
    for rule in RULES:
        assert rule.predicted
        assert set(rule.predicted) <= {SMOOTH, SINGULAR, DIGITS, MNIST, DEQUANTISED}
        assert judge(rule, [dict.fromkeys(CELLS, 1.0)], SMOOTH).difference.value == 0


def test_what_was_not_run_is_not_judged() -> None:
    """The chains that single rules ask for are all that they need."""
    chains = rules.chains_asked_for()
    assert len(chains) == 9
    table = {one: 1.0 for one in CELLS if one.chain in chains}
    part, whole = (
        Found({"name": name, "kind": SMOOTH}, [{"FD": distances}])
        for name, distances in (("part", table), ("whole", dict.fromkeys(CELLS, 1.0)))
    )
    assert set(whole.verdicts) - set(part.verdicts) == {"the best has averaged noise"}
    assert len(part.ranking) == 9 * 14
    assert effects(part.main) == {}
    assert [claim.found for claim in claims([part])][-1] == ""
    assert "whole" in claims([part, whole])[-1].found


def test_rule_across_networks() -> None:
    read = cell(noise="averaged", readout=0.8)
    found = [
        Found({"kind": kind}, [{"FD": table} for table in tables({read: [at + n for n in NEAR]})])
        for kind, at in ((MNIST, 1.5), (DEQUANTISED, 1.2))
    ]
    assert cross_verdict(found[:1]) is None
    verdict = cross_verdict(found)
    assert verdict is not None
    # The noise is the same in both.
    assert verdict.difference == pytest.approx((-0.3, -0.3, -0.3))
    assert verdict.said == "holds, as predicted"


# ---- effects ------------------------------------------------------------------------------------


def test_effects_of_distances_that_are_products() -> None:
    """A product of one factor for each level has these factors as its effects, whatever else."""
    factors = {
        axis: dict(zip(levels, [1.0, 0.5, 3.0, 0.25, 2.0, 1.5, 4.0][: len(levels)], strict=True))
        for axis, (levels, _) in AXES.items()
    }

    def level(one: Cell) -> dict[str, object]:
        hand_off, noise, eta = one.chain
        names = ("hand-off", "walk noise", "last noise", "read-out", "eta")
        return dict(zip(names, (hand_off, noise, one.last, one.readout, eta), strict=True))

    table = {
        one: float(np.prod([factors[axis][of] for axis, of in level(one).items()])) for one in CELLS
    }
    for axis, levels in effects([table]).items():
        for name, ratio in levels.items():
            expected = {str(key): value for key, value in factors[axis].items()}[name]
            assert ratio == pytest.approx((expected,) * 3)
