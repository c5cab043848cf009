"""The time that a call may take, and what it says of it."""

from types import SimpleNamespace

import pytest
import torch

from hdzoo.training import clock as clocks
from hdzoo.training.clock import Clock
from hdzoo.training.interrupts import agreed


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still until it is moved."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def said(clock, time, steps, seconds):
    """What a call says that begins at step 100: by step, each of which takes so long."""
    found = {}
    for step in range(101, 101 + steps):
        # What a network does once, when it is first used.
        time.seconds += 500 if step == 101 else seconds
        if (text := clock.notice(step)) is not None:
            found[step] = text
    return found


def test_the_time_left_is_said_once_past_the_warm_up(time):
    # Three steps are not timed, then 20 of 2 s; 877 are left.
    found = said(Clock(100, 1000), time, 60, 2.0)
    assert found == {123: "about 0:29:14 for the 877 steps left"}


def test_slow_steps_are_not_waited_for(time):
    # 40 s each: after a minute, that is after two.
    found = said(Clock(100, 1000), time, 60, 40.0)
    assert found == {105: "about 9:56:40 for the 895 steps left"}


@pytest.mark.parametrize(
    ("minutes", "step"),
    # 500 + 2 * 2 s are over at step 103, so that n s more end it at about 103 + n / 2.
    [(10, 103 + 48), (30, 103 + 648), (39, None), (60, None), (8.4, 123)],
)
def test_a_time_that_is_too_short_is_said_early(time, minutes, step):
    text = said(Clock(100, 1000, minutes), time, 30, 2.0)[123]
    ends = f"; max_train_minutes {minutes:g} is over at about step {step}"
    assert text == "about 0:29:14 for the 877 steps left" + (ends if step else "")


def test_runs_that_are_over_soon_say_nothing(time):
    clock = Clock(100, 123)
    assert said(clock, time, 23, 2.0) == {}
    assert clock.time_left(123) is None


def test_time_is_up(time):
    clock, endless = Clock(0, 10, 2.5), Clock(0, 10)
    time.seconds += 149.9
    assert not clock.is_over()
    time.seconds += 0.1
    assert clock.is_over()
    assert clock.seconds == pytest.approx(150)
    assert not endless.is_over()


def test_processes_agree():
    """On what any of them wants, at a step at which all ask."""
    other = torch.tensor([0.0, 1.0, 0.0])
    two = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda own, _: own + other)
    assert agreed(two, 20, True, False, False) == [True, True, False]
    assert agreed(two, 21, True, False, False) == [False] * 3
    one = SimpleNamespace(num_processes=1)
    assert agreed(one, 21, True, False) == [True, False]
