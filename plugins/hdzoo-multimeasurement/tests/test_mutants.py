"""Faults of one sign or factor are found by the exact law."""

from collections.abc import Callable
from typing import Any

import pytest
from hdzoo_multimeasurement import joint, sequential
from hdzoo_multimeasurement.inner import walked

from hdzoo.verification import run_check


def scaled(factor: float) -> Callable[..., Any]:
    """The pull of the score or of the other measurements is stronger or weaker."""

    def mutant(walk: Any, k: int, points: Any, score: Any, noise: Any, memory: Any) -> Any:
        return walked(walk, k, points, factor * score, noise, memory)

    return mutant


def forgetful(walk: Any, k: int, points: Any, score: Any, noise: Any, memory: Any) -> Any:
    return walked(walk, k, points, score, noise, {})


def late(walk: Any, k: int, points: Any, score: Any, noise: Any, memory: Any) -> Any:
    """The walk never ends its last step."""
    return walked(walk, 0, points, score, noise, memory)


MUTANTS = {
    "twice the score": scaled(2),
    "a little less": scaled(0.999),
    "forgetful": forgetful,
    "late": late,
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("module", [joint, sequential])
def test_a_mutant_is_caught(module: Any, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "walked", MUTANTS[mutant])
    name = "joint" if module is joint else "sequential"
    verdict = run_check(f"{name}-multimeasurement", "exact-law")
    assert verdict.outcome == "fail"
    assert "closed form" in verdict.message


def test_a_measurement_with_other_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sequential.Stage.__new__
    monkeypatch.setattr(
        sequential.Stage,
        "__new__",
        lambda cls, walk, step, sigma, share, spread: made(
            cls, walk, step, 1.01 * sigma, share, spread
        ),
    )
    assert run_check("sequential-multimeasurement", "exact-law").outcome == "fail"
