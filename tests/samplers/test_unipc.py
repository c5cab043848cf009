"""UniPC: what it is, step by step, what it is equal to, its order, and its options."""

import math
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.interpolate import lagrange

from hdzoo import get_sampler
from hdzoo.errors import HDZooError
from hdzoo.samplers.unipc import weights

LEVELS = [5.0, 3.2, 1.3, 0.7, 0.4, 0.2, 0.05]
# A few roundings of 1e-16 a step, of states up to 10, and of quadrature.
EXACT = 1e-12
NEVER = list(range(200))


def chain(sampler: Any, x: torch.Tensor, levels: list[float] = LEVELS) -> list[torch.Tensor]:
    """The states of a chain whose denoised states are tanh, at any level."""
    sampler.set_timesteps(sigmas=levels)
    states = [x]
    for t in sampler.timesteps:
        states.append(sampler.step(torch.tanh(states[-1]), t, states[-1]).prev_sample)
    return states


def start() -> torch.Tensor:
    return 5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()


def integrated(
    x: torch.Tensor, i: int, known: dict[int, torch.Tensor], solver: str
) -> torch.Tensor:
    """A step from a level to the next with the polynomial through denoised states, by quadrature.

    Args:
        x: at level ``i``.
        i: which.
        known: denoised states by their levels.
        solver: what is done of a line.
    """
    at = -np.log(LEVELS)
    h = at[i + 1] - at[i]
    moved = math.exp(-h) * x
    for j, denoised in known.items():
        basis = lagrange([at[k] - at[i] for k in known], [float(k == j) for k in known])
        integral = quad(lambda u, p=basis: math.exp(u - h) * p(u), 0, h, epsabs=1e-14)[0]
        if len(known) == 2:
            # Of D_i and another: D_i (1 - e^-h) and half of B of the rise in the step.
            size = h if solver == "bh1" else 1 - math.exp(-h)
            integral = (1 - math.exp(-h)) * (j == i) + size / 2 * (basis(h) - basis(0))
        moved = moved + integral * denoised
    return moved


@pytest.mark.parametrize("solver", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("disabled", [[], [0, 3], NEVER])
def test_each_step_integrates_the_polynomial(order: int, solver: str, disabled: list[int]) -> None:
    x = start()
    sampler = get_sampler("unipc")(
        prediction_type="sample", solver_order=order, solver_type=solver, disable_corrector=disabled
    )
    found = chain(sampler, x)
    denoised, last, orders = {}, x, list[int]()
    for i in range(len(LEVELS) - 1):
        denoised[i] = torch.tanh(x)
        if i and i - 1 not in disabled:
            x = integrated(
                last, i - 1, {j: denoised[j] for j in range(i - orders[-1], i + 1)}, solver
            )
        orders.append(min(order, i + 1, len(LEVELS) - i))
        last = x
        x = integrated(x, i, {j: denoised[j] for j in range(i - orders[-1] + 1, i + 1)}, solver)
        torch.testing.assert_close(found[i + 1], x, rtol=EXACT, atol=EXACT)
    assert orders == {1: [1] * 6, 2: [1, 2, 2, 2, 2, 2], 3: [1, 2, 3, 3, 3, 2]}[order]
    # The very last step is of order 1.
    torch.testing.assert_close(found[-1], torch.tanh(x), rtol=EXACT, atol=EXACT)


def test_without_corrections_the_first_order_is_ddim() -> None:
    """Euler's method in sigma, which DDIM is."""
    states = chain(
        get_sampler("unipc")(prediction_type="sample", solver_order=1, disable_corrector=NEVER),
        x := start(),
    )
    for (sigma, below), found in zip(pairwise([*LEVELS, 0.0]), states[1:], strict=True):
        x = x + (below - sigma) * (x - torch.tanh(x)) / sigma
        torch.testing.assert_close(found, x, rtol=EXACT, atol=EXACT)


def test_without_corrections_the_second_order_is_dpm_solver() -> None:
    ours = get_sampler("unipc")(prediction_type="sample", disable_corrector=NEVER)
    dpm = get_sampler("dpm-solver-pp-2m")(prediction_type="sample", eta=0.0)
    for found, expected in zip(chain(ours, start()), chain(dpm, start()), strict=True):
        torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_types_differ_by_lines_alone() -> None:
    for places in ((0.0,), (1.0, 0.0, -0.7), (0.0, -0.7, -1.5), (1.0, 0.0, -0.7, -1.5)):
        assert weights(0.5, places, "bh1") == weights(0.5, places, "bh2")
    for places, one, other in (((1.0, 0.0), 0.25, -0.25), ((0.0, -0.5), 0.5, -0.5)):
        whole = -math.expm1(-0.5)
        # Half of B of the rise: of D_{i+1} - D_i, or of (D_i - D_{i-1}) / (1/2).
        for solver, scale in (("bh1", 1.0), ("bh2", whole / 0.5)):
            expected = [one * scale, other * scale]
            expected[places.index(0.0)] += whole
            assert weights(0.5, places, solver) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("solver", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_of_accuracy(order: int, solver: str) -> None:
    """One more with corrections; of the third, what the first steps leave of it.

    On normal data of variance 1, whose flow keeps x over the noisy data's standard deviation.
    """

    def error(steps: int, disabled: list[int]) -> float:
        sampler = get_sampler("unipc")(
            prediction_type="sample",
            solver_order=order,
            solver_type=solver,
            disable_corrector=disabled,
        )
        levels = np.geomspace(3.0, 0.5, steps + 1)
        sampler.set_timesteps(sigmas=levels)
        x = torch.ones(1, 1).double()
        for sigma, t in zip(levels[:-1], sampler.timesteps, strict=False):
            x = sampler.step(x / (1 + sigma**2), t, x).prev_sample
        return abs(x.item() - math.sqrt(1.25 / 10))

    for disabled, expected in ((NEVER, min(order, 2)), ([], min(order + 1, 3))):
        # The next power of the step is a twentieth of the error at most.
        slope = math.log2(error(100, disabled) / error(200, disabled))
        assert slope == pytest.approx(expected, abs=0.06)


def test_a_chain_begun_midway_begins_with_the_first_order() -> None:
    """And so with nothing to correct, whatever chain there was before."""
    sampler, x = get_sampler("unipc")(prediction_type="sample", solver_order=3), start()
    chain(sampler, x)
    sampler.set_timesteps(sigmas=LEVELS)
    sampler.set_begin_index(3)
    found = sampler.step(torch.tanh(x), sampler.timesteps[3], x).prev_sample
    kept = LEVELS[4] / LEVELS[3]
    torch.testing.assert_close(found, kept * x + (1 - kept) * torch.tanh(x), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("h", [1e-9, 1e-4, 0.1, 3.0, 30.0])
def test_weights_hold_at_any_step(h: float) -> None:
    """They take powers of the place to their integrals, here by quadrature."""
    places = (1.0, 0.0, -0.7, -1.5)
    found = np.array(weights(h, places, "bh2"))
    for n in range(4):
        expected = quad(lambda v, n=n: h * math.exp(-h * (1 - v)) * v**n, 0, 1, epsrel=1e-13)[0]
        assert (found * np.array(places) ** n).sum() == pytest.approx(expected, rel=1e-11)


# ---- options ---------------------------------------------------------------------------------


def test_what_it_takes_over_from_diffusers_and_back() -> None:
    theirs = diffusers.UniPCMultistepScheduler(
        solver_order=3, solver_type="bh1", disable_corrector=[0]
    )
    ours = get_sampler("unipc").from_config(theirs.config)
    found = ours.config
    assert (found.solver_order, found.solver_type) == (3, "bh1")
    assert list(found.disable_corrector) == [0]
    assert ours.config.coordinates == "vp"
    back = diffusers.UniPCMultistepScheduler.from_config(ours.config)
    assert back.config.solver_type == "bh1"
    # By default nothing is left out, in their words too.
    plain = get_sampler("unipc").from_config(diffusers.UniPCMultistepScheduler().config)
    assert list(plain.config.disable_corrector) == []
    assert 0 not in diffusers.UniPCMultistepScheduler.from_config(plain.config).disable_corrector


def test_solver_types_are_kept_apart() -> None:
    dpm = get_sampler("dpm-solver-pp-2m")(solver_type="heun")
    ours = get_sampler("unipc").from_config(dpm.config)
    assert ours.config.solver_type == "bh2"
    ours = get_sampler("unipc").from_config(ours.config, solver_type="bh1")
    again = get_sampler("dpm-solver-pp-2m").from_config(ours.config)
    assert again.config.solver_type == "heun"
    by_way = get_sampler("heun").from_config(again.config)
    assert get_sampler("unipc").from_config(by_way.config).config.solver_type == "bh1"
    assert get_sampler("dpm-solver-pp-2m").from_config(by_way.config).config.solver_type == "heun"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver_order": 0}, "solver_order is 0; it must be a whole number from 1 to 3"),
        ({"solver_order": 4}, "solver_order is 4; it must be a whole number from 1 to 3"),
        ({"solver_order": 2.5}, r"solver_order is 2\.5"),
        ({"solver_order": None}, "solver_order is None"),
        ({"solver_type": "midpoint"}, "solver_type is 'midpoint'; allowed are 'bh2', 'bh1'"),
        ({"disable_corrector": True}, "disable_corrector is True"),
        ({"disable_corrector": None}, "disable_corrector is None"),
        ({"disable_corrector": [-1]}, r"disable_corrector\[0\] is -1"),
        ({"disable_corrector": [0, 0.5]}, r"disable_corrector\[1\] is 0\.5"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        get_sampler("unipc")(**options)
