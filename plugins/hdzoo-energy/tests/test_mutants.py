"""Faults of a sign, of half a step or of what is kept are found by the law that they lead to."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hdzoo_energy import hamiltonian, langevin

from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.closed_form import check_exact_law

HMC, ADJUSTED = "HMCSampler", "AdjustedUnderdampedLangevinSampler"
BOTH = (HMC, ADJUSTED)
# What is written instead of what, and whose law shows it.
ADJUSTED_MUTANTS = {
    "the test the other way round": (
        "total(start) - total(end)",
        "total(end) - total(start)",
        BOTH,
    ),
    "all is accepted": (".log() < total(start)", ".log() < 1e9 + 0 * total(start)", BOTH),
    "an energy of the wrong sign": ('at["energy"] + at', '-at["energy"] + at', BOTH),
    "a test without the momentum": (
        'at["energy"] + at["momentum"].square().flatten(1).sum(1) / 2',
        'at["energy"]',
        BOTH,
    ),
    "a momentum that is not turned": ('-start["momentum"]', 'start["momentum"]', (ADJUSTED,)),
    "the last half step left out": (
        "self.memory = accepted(",
        'asked["momentum"] -= delta / 2 * score; self.memory = accepted(',
        BOTH,
    ),
    "the first half step left out": (
        'self.memory["momentum"] + delta / 2 * self.memory["score"]',
        'self.memory["momentum"] + 0 * self.memory["score"]',
        BOTH,
    ),
    "the old point is forgotten": (
        'return self.memory["x"] + delta * self.memory["velocity"]',
        "return x + delta * self.memory['velocity']",
        BOTH,
    ),
    "the old score is forgotten": (
        'delta / 2 * self.memory["score"]',
        "delta / 2 * score",
        BOTH,
    ),
    "a proposal is returned": ('return self.memory["x"]\n', "return x\n", BOTH),
    "a trajectory that leaks": (
        "if k % steps and self.levels[k + 1]:",
        "if k % steps:",
        (HMC,),
    ),
    "momenta of another width": ("math.sqrt(1 - keep**2)", "0.8 * math.sqrt(1 - keep**2)", BOTH),
    "momenta kept twice over": ("keep * self.memory", "keep**0.5 * self.memory", (ADJUSTED,)),
}
LANGEVIN_MUTANTS = {
    "noise of epsilon / 2": ("math.sqrt(2 * alpha)", "math.sqrt(alpha)", "SGLDSampler"),
    "a decay that begins one late": ("(1 + k / self", "(1 + (k - 1) / self", "SGLDSampler"),
    "noise after the last step": (
        "if self.levels[k + 1] and self.config.noise > 0:",
        "if self.config.noise > 0:",
        "LowTemperatureLangevinSampler",
    ),
    "noise of the step, not its own": (
        "self.config.noise * noise.normal",
        "math.sqrt(2 * self.moves[k].alpha) * noise.normal",
        "LowTemperatureLangevinSampler",
    ),
}


def mutated(module: Any, sampler: str, old: str, new: str) -> type[Any]:
    """A sampler of a module, with a change in the text of the module."""
    source = inspect.getsource(module)
    assert source.count(old) == 1
    names: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source.replace(old, new), module.__name__, "exec"), names)
    found: type[Any] = names[sampler]
    return found


def p_value(banana: Any, sampler: type[Any]) -> float:
    """Of chains that begin in the law, by short trajectories of which some are not accepted."""
    options = {"leapfrog_steps": 2} if sampler.__name__ == HMC else {"friction": 0.3}
    walk = sampler(sigma=0.5, step_size=0.06, **options)
    end = banana.end(walk, banana.sample(20_000, torch.Generator().manual_seed(0)), 30)
    # A mutant may send its states anywhere.
    with np.errstate(over="ignore"):
        found: float = banana.p_value(end)
    return found


@pytest.mark.parametrize("sampler", BOTH)
def test_unchanged_nothing_is_found(banana: Any, sampler: str) -> None:
    unchanged = mutated(hamiltonian, sampler, '"Hamiltonian"', '"another"')
    assert p_value(banana, unchanged) > 1e-3


@pytest.mark.parametrize(
    ("mutant", "sampler"),
    [(name, one) for name, (_, _, whose) in ADJUSTED_MUTANTS.items() for one in whose],
)
def test_a_mutant_is_found(banana: Any, mutant: str, sampler: str) -> None:
    old, new, _ = ADJUSTED_MUTANTS[mutant]
    assert p_value(banana, mutated(hamiltonian, sampler, old, new)) < 1e-6


@pytest.mark.parametrize("mutant", LANGEVIN_MUTANTS)
def test_a_mutant_without_test_is_found(mutant: str) -> None:
    old, new, sampler = LANGEVIN_MUTANTS[mutant]
    with pytest.raises(CheckFailed, match="closed form"):
        check_exact_law(mutated(langevin, sampler, old, new))
