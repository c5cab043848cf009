"""Heun, DPM-Solver++ 2M, UniPC, predictor-corrector: ladders, churn, and chains begun midway."""

import math
from itertools import groupby, pairwise
from typing import Any

import diffusers
import pytest
import torch
from scipy.integrate import quad

from hdzoo import get_sampler
from hdzoo.errors import HDZooError
from hdzoo.samplers.dpm_solver import eta_at
from hdzoo.verification.laws import Draws

SOLVERS = ["heun", "dpm-solver-pp-2m", "unipc", "predictor-corrector"]
EVERY = pytest.mark.parametrize("name", SOLVERS)


def counts(sampler: Any, steps: int) -> list[int]:
    """How often each level is asked at."""
    sampler.set_timesteps(steps)
    return [len(list(same)) for _, same in groupby(sampler.levels[:-1])]


@EVERY
def test_the_chain_goes_from_the_largest_level_to_the_smallest(name: str) -> None:
    for ends in ({"sigma_max": 5.0, "sigma_min": 0.1}, {"sigmas": [5.0, 1.0, 0.1]}):
        for rho in (7.0, None):
            sampler = get_sampler(name)(rho=rho, **ends)
            for steps in range(1, 20):
                found = counts(sampler, steps)
                assert sum(found) == steps
                assert sampler.levels[0] == 5
                assert list(sampler.levels[-2:]) == ([0.1, 0] if len(found) > 1 else [5, 0])


def test_how_many_evaluations_a_level_has() -> None:
    heun = get_sampler("heun")()
    assert [counts(heun, n) for n in range(1, 8)] == [
        [1],
        [1, 1],
        [1, 2],
        [1, 1, 2],
        [1, 2, 2],
        [1, 1, 2, 2],
        [1, 2, 2, 2],
    ]
    solver = get_sampler("dpm-solver-pp-2m")()
    assert [counts(solver, n) for n in (1, 2, 7)] == [[1], [1, 1], [1] * 7]
    assert [counts(get_sampler("unipc")(), n) for n in (1, 2, 7)] == [[1], [1, 1], [1] * 7]
    once = get_sampler("predictor-corrector")()
    assert [counts(once, n) for n in range(1, 6)] == [[1], [2], [1, 2], [2, 2], [1, 2, 2]]
    twice = get_sampler("predictor-corrector")(correct_steps=2)
    assert [counts(twice, n) for n in (3, 4, 5, 9)] == [[3], [2, 2], [2, 3], [3, 3, 3]]


@EVERY
def test_levels_of_a_vp_network_are_those_it_was_trained_at(name: str) -> None:
    """Raised ones too."""
    config = diffusers.DDPMScheduler().config
    options = {"churn": 20.0} if name == "heun" else {}
    sampler = get_sampler(name).from_config(config, **options)
    for steps in (1, 2, 35, 100):
        sampler.set_timesteps(steps)
        assert sampler.timesteps.dtype == torch.int64
        assert sampler.timesteps[0] == 999


def test_churn_raises_the_level_of_each_step_but_the_first() -> None:
    sampler = get_sampler("heun")(sigma_max=8.0, sigma_min=1.0, rho=1.0, churn=1.6, churn_noise=1.1)
    sampler.set_timesteps(15)
    # 8 levels, each raised by a fifth: from the second the level and, for the step, the raised one.
    expected = [8.0]
    for level in (7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0):
        expected += [level, min(1.2 * level, 8.0)]
    assert sampler.levels == pytest.approx([*expected, 0.0])
    noises = [move.noise for move in sampler.moves]
    # At the end of the correction, for which nothing is added before.
    assert noises[::2] == [0] * 8
    raised = zip(expected[1::2], expected[2::2], strict=True)
    assert noises[1::2] == pytest.approx([1.1 * math.sqrt(up**2 - s**2) for s, up in raised])


@pytest.mark.parametrize("churn", [0.0, 2.0])
def test_heun_begun_at_a_correction_goes_on_from_there(churn: float) -> None:
    """Image-to-image may begin anywhere; there is nothing yet to correct."""
    sampler = get_sampler("heun")(churn=churn)
    sampler.set_timesteps(9)
    x, z = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    sampler.step(-x, sampler.timesteps[0], x)
    sampler.set_begin_index(5)
    sampler.set_timesteps(9)
    sampler.set_begin_index(5)
    assert sampler.moves[5].alpha == 0
    with Draws(lambda *_: z):
        moved = sampler.step(-x, sampler.timesteps[5], x).prev_sample
    below, level = sampler.levels[5:7]
    torch.testing.assert_close(moved, x + math.sqrt(level**2 - below**2) * z, rtol=1e-15, atol=0)


def test_options_of_another_sampler_do_not_count() -> None:
    """What a configuration keeps of the samplers that it has been of."""
    annealed = get_sampler("annealed-langevin")(sigma_max=3.0, num_levels=5)
    heun = get_sampler("heun").from_config(annealed.config)
    assert heun.config.num_levels == 5
    heun.set_timesteps(9)
    alone = get_sampler("heun")(sigma_max=3.0)
    alone.set_timesteps(9)
    assert heun.levels == alone.levels
    consistent = get_sampler("consistent-annealed-sampling").from_config(heun.config)
    consistent.set_timesteps(9)
    alone = get_sampler("consistent-annealed-sampling")(sigma_max=3.0, num_levels=5)
    alone.set_timesteps(9)
    assert consistent.levels == alone.levels


# ---- noise by level, and the second order ---------------------------------------------------

LEVELS = [5.0, 3.2, 1.3, 0.7, 0.2]
TAU = [[1.3, 1.2**2], [0, 2.6**2]]


def step_by_step(nu: float, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Consistent annealing of second order, as it is written: the line through two denoised states
    integrated exactly, by quadrature."""
    before = None
    for i, (sigma, below) in enumerate(pairwise(LEVELS)):
        denoised = torch.tanh(x)
        c = 1 + (1.2**2 if sigma >= 1.3 else 2.6**2)
        h = math.log(sigma / below)
        kept = math.exp(-c * h)
        moved = kept * x + (1 - kept) * denoised
        if before is not None:
            last = math.log(LEVELS[i - 1] / sigma)
            integral = quad(lambda u, c=c, h=h: c * math.exp(-c * (h - u)) * u, 0, h)[0]
            moved = moved + integral / last * (denoised - before)
        fresh = nu * below * math.sqrt(1 - math.exp(-2 * (c - 1) * h))
        x, before = moved + fresh * z[i], denoised
    return torch.tanh(x)


@pytest.mark.parametrize("nu", [1.0, 1.05])
def test_the_second_order_is_the_exact_integral_and_noise_is_by_level(nu: float) -> None:
    sampler = get_sampler("dpm-solver-pp-2m")(
        prediction_type="sample", solver_type="heun", eta=TAU, noise_scale=nu
    )
    sampler.set_timesteps(sigmas=LEVELS)
    start, z = 5 * torch.randn(4, 3).double(), torch.randn(5, 4, 3).double()
    x, draws = start, Draws(lambda draw, _: z[draw])
    for t in sampler.timesteps:
        with draws:
            x = sampler.step(torch.tanh(x), t, x).prev_sample
    assert draws.count == 4
    torch.testing.assert_close(x, step_by_step(nu, start, z), rtol=1e-12, atol=1e-12)


def test_of_first_order_it_is_consistent_annealed_sampling() -> None:
    """The first step has no line to follow."""
    x, z, eta, ends = torch.randn(4, 3).double(), torch.randn(4, 3).double(), 1.7, []
    # Of the last level, of which the other has its own step size.
    epsilon = (1 - (0.6 / 2.0) ** (1 + eta)) * 0.6**2
    for name, options in (
        ("dpm-solver-pp-2m", {"eta": eta, "solver_type": "heun"}),
        ("consistent-annealed-sampling", {"step_size": epsilon, "readout": "full"}),
    ):
        sampler = get_sampler(name)(sigmas=[2.0, 0.6], prediction_type="sample", **options)
        sampler.set_timesteps(2)
        state = x
        for t in sampler.timesteps:
            with Draws(lambda *_: z):
                state = sampler.step(torch.tanh(state), t, state).prev_sample
        ends.append(state)
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_which_eta_a_level_has() -> None:
    found = [eta_at([[1.3, 3.0], [0.2, 2.0], [0, 1.0]], s) for s in (9, 1.3, 1.2, 0.2, 0.1)]
    assert found == [3.0, 3.0, 2.0, 2.0, 1.0]
    assert eta_at(0.3, 5.0) == 0.3


def test_solver_types_of_other_solvers_do_not_count() -> None:
    for theirs in (diffusers.UniPCMultistepScheduler(), diffusers.DEISMultistepScheduler()):
        assert theirs.config.solver_type not in ("midpoint", "heun")
        sampler = get_sampler("dpm-solver-pp-2m").from_config(theirs.config)
        assert sampler.config.solver_type == "midpoint"
        assert type(theirs).from_config(sampler.config)


DESCENDING = r"by descending sigma, to 0, as in \[\[1.3, 1.44\], \[0, 6.76\]\]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": -1}, r"eta is -1; it must be a number from 0 up, or a list of pairs"),
        ({"eta": []}, "eta has 0 values"),
        ({"eta": [[1, 2, 3]]}, r"eta\[0\] has 3 values"),
        ({"eta": [[1, -2], [0, 1]]}, r"eta\[0\]\[1\] is -2"),
        ({"eta": [[1.3, 2.0]]}, DESCENDING),
        ({"eta": [[1, 2], [3, 4], [0, 1]]}, DESCENDING),
        ({"eta": [[0, 2], [0, 1]]}, DESCENDING),
        ({"eta": "much"}, "eta is 'much'"),
        ({"solver_type": "bh2"}, "solver_type is 'bh2'; allowed are 'midpoint', 'heun'"),
        ({"noise_scale": -0.1}, "noise_scale is -0.1"),
    ],
)
def test_how_noise_cannot_be_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        get_sampler("dpm-solver-pp-2m")(**options)
