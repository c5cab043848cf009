"""The moving average against the authors' own loops, written out."""

from itertools import pairwise

import pytest
import torch

from hdzoo.errors import HDZooError
from hdzoo.training.average import EMA_RULES, Average
from hdzoo.training.trainer import TrainingConfig


def decays(rule, decay, steps):
    """From an average of 1 of weights that are 0: what is left after each step, divided."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    average = Average([weight], decay, rule)
    weight.data.zero_()
    left = [1.0]
    for _ in range(steps):
        average.step([weight])
        left.append(average.shadow_params[0].item())
    return [after / before for before, after in pairwise(left) if before]


def test_score_sde():
    """Its updates are counted before each: from 2 / 11 on."""
    expected = [min(0.7, (1 + updates) / (10 + updates)) for updates in range(1, 31)]
    assert 0.7 in expected
    assert expected[0] == 2 / 11
    assert decays("score-sde", 0.7, 30) == pytest.approx(expected, rel=1e-12)


def test_ncsnv2():
    """It remembers the first weights as well."""
    assert decays("constant", 0.999, 30) == pytest.approx([0.999] * 30, rel=1e-12)


def test_warmup():
    """The first step forgets all."""
    assert decays("warmup", 0.9, 30) == [0.0]
    average = Average([torch.nn.Parameter(torch.ones(1))], 0.9, "warmup")
    expected = [min(0.9, 1 - n**-0.75) for n in range(1, 40)]
    assert [average.get_decay(n) for n in range(1, 40)] == pytest.approx(expected, rel=1e-12)


def test_rules_are_named():
    assert TrainingConfig().ema_rule == EMA_RULES[0]
    with pytest.raises(HDZooError, match="ema_rule is 'none'; allowed are warmup, score-sde, con"):
        TrainingConfig(ema_rule="none")
