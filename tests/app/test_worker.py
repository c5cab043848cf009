"""Work in steps: told of, one at a time, and dropped when nobody waits for it."""

import threading

import pytest

from hdzoo import HDZooError
from hdzoo.app.worker import in_steps


def seen(iterator):
    return [thing for thing in iterator if thing is not None]


def test_the_last_thing_told_is_seen_whatever_is_left_out():
    def work(tell):
        for i in range(1000):
            tell(i)

    found = seen(in_steps(work))
    assert found[-1] == 999
    assert found == sorted(set(found))


def test_what_the_work_raises_is_raised_and_the_next_is_done():
    def work(tell):
        tell(1)
        raise HDZooError("no")

    with pytest.raises(HDZooError, match="no"):
        list(in_steps(work))
    assert seen(in_steps(lambda tell: tell(2))) == [2]


def test_work_cannot_end_the_program():
    def work(tell):
        raise SystemExit(3)

    with pytest.raises(HDZooError, match="SystemExit: 3"):
        list(in_steps(work))
    assert seen(in_steps(lambda tell: tell(2))) == [2]


def test_work_that_nobody_waits_for_ends_at_its_next_word():
    told, ended = [], threading.Event()

    def work(tell):
        try:
            while True:
                tell(len(told))
                told.append(1)
        finally:
            ended.set()

    going = in_steps(work)
    next(going)
    going.close()
    assert ended.wait(30)
    assert seen(in_steps(lambda tell: tell("next"))) == ["next"]


def test_work_that_nobody_waits_for_before_it_begins_is_not_begun():
    release, begun = threading.Event(), []
    first = in_steps(lambda tell: (tell("first"), release.wait(30)))
    next(first)
    second = in_steps(lambda tell: begun.append(1))
    # It waits for the first, and says so.
    assert next(second) is None
    second.close()
    release.set()
    first.close()
    assert seen(in_steps(lambda tell: tell("third"))) == ["third"]
    assert begun == []


def test_two_pieces_of_work_are_never_done_at_once():
    inside, most = [], []

    def work(tell):
        inside.append(1)
        most.append(len(inside))
        tell(1)
        inside.pop()

    threads = [threading.Thread(target=lambda: list(in_steps(work))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
