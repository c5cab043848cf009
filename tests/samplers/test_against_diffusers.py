"""Samplers that diffusers and k-diffusion have too: the same states from the same noise.

diffusers is run beside ours. What k-diffusion makes is in k_diffusion.json (make_k_diffusion.py).
"""

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from samplers.make_k_diffusion import CHURN, SIGMAS, denoised

from hdzoo import builtin, get_sampler
from hdzoo.scores.conversions import state_scale
from hdzoo.verification.draws import Draws
from hdzoo.verification.laws import network_output

# Where both compute in float64: a few roundings of 1e-16 a step, of numbers that are up to 1e3
# times the last.
EXACT = 1e-12
# In 10 steps, where diffusers rounds to float32, by 6e-8: each state in
# DPMSolverMultistepScheduler, the norms of noises in ScoreSdeVeScheduler.
SINGLE = 1e-6


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers that float32 has too, in which diffusers draws some."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return (denoised(x, sigma) - x) / sigma**2


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def given_noise(seed: int = 1) -> Draws:
    """The same noise in each chain."""
    return Draws(lambda draw, shape: normal(*shape, seed=100 * seed + draw))


# ---- diffusers ------------------------------------------------------------------------------

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def both(
    ours: Any, theirs: Any, coordinates: str, draws: bool, end: float = 0.0
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the network is given in each chain, and the samples at the end.

    The chains differ in their coordinates, theirs as said, and agree in what they give to the
    network. Theirs ends at the level ``end``.
    """
    # They keep their levels in float32, and would take differences in it.
    theirs.sigmas = theirs.sigmas.double()
    levels = theirs.sigmas.tolist()
    ours.set_timesteps(sigmas=levels[:-1])
    assert ours.sigmas.tolist() == levels
    theirs.sigmas[-1] = end
    x, chains = levels[0] * normal(5, 3), []
    for scheduler in (ours, theirs):
        scheduler.set_begin_index(0)
        lives = ours.config.get("coordinates", "ve") if scheduler is ours else coordinates
        state, seen, noise = x / state_scale(levels[0], lives), [], given_noise()
        for sigma, t in zip(levels[:-1], scheduler.timesteps, strict=True):
            seen.append(scheduler.scale_model_input(state, t))
            output = network_output(ours, score, seen[-1], sigma)
            with noise:
                state = scheduler.step(output, t, state, return_dict=False)[0]
        # The last step of theirs draws too, and multiplies by 0.
        assert noise.count == (len(levels) - 1 - (scheduler is ours) if draws else 0)
        chains.append([*seen, state])
    return chains[0], chains[1]


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("karras", [False, True])
def test_heun_is_that_of_diffusers(steps: int, kind: str, karras: bool) -> None:
    theirs = diffusers.HeunDiscreteScheduler(
        prediction_type=kind, use_karras_sigmas=karras, **BETAS
    )
    ours = get_sampler("heun").from_config(theirs.config)
    assert (ours.config.coordinates, ours.config.prediction_type) == ("vp", kind)
    theirs.set_timesteps(steps)
    found, expected = both(ours, theirs, "ve", draws=False)
    assert len(found) == 2 * steps
    for mine, other in zip(found, expected, strict=True):
        assert gap(mine, other) < EXACT


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize(("algorithm", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_2m_is_that_of_diffusers(
    steps: int, kind: str, solver: str, algorithm: str, eta: float
) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(
        prediction_type=kind,
        algorithm_type=algorithm,
        solver_type=solver,
        use_karras_sigmas=True,
        **BETAS,
    )
    ours = get_sampler("dpm-solver-pp-2m").from_config(theirs.config, eta=eta)
    assert ours.config.solver_type == solver
    theirs.set_timesteps(steps)
    for mine, other in zip(*both(ours, theirs, "vp", draws=eta > 0), strict=True):
        assert gap(mine, other) < SINGLE


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize(("algorithm", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_2m_is_that_of_diffusers_for_edm(
    kind: str, solver: str, algorithm: str, eta: float
) -> None:
    theirs = diffusers.EDMDPMSolverMultistepScheduler(
        prediction_type=kind, algorithm_type=algorithm, solver_type=solver, solver_order=2
    )
    ours = get_sampler("dpm-solver-pp-2m").from_config(theirs.config, eta=eta)
    assert (ours.config.sigma_data, ours.config.rho) == (0.5, 7.0)
    theirs.set_timesteps(20)
    # The same schedule, theirs in float32.
    ours.set_timesteps(20)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas.double(), rtol=1e-5, atol=0)
    for mine, other in zip(*both(ours, theirs, "ve", draws=eta > 0), strict=True):
        assert gap(mine, other) < EXACT


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("solver", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("disabled", [[], [1, 4]])
def test_unipc_is_that_of_diffusers(
    steps: int, kind: str, solver: str, order: int, disabled: list[int]
) -> None:
    theirs = diffusers.UniPCMultistepScheduler(
        prediction_type=kind,
        solver_order=order,
        solver_type=solver,
        disable_corrector=disabled,
        use_karras_sigmas=True,
        **BETAS,
    )
    ours = get_sampler("unipc").from_config(theirs.config)
    assert (ours.config.solver_order, ours.config.solver_type) == (order, solver)
    theirs.set_timesteps(steps)
    # With "bh1" theirs multiplies log 0 by 0.
    end = 1e-300 if solver == "bh1" else 0.0
    for mine, other in zip(*both(ours, theirs, "vp", draws=False, end=end), strict=True):
        assert gap(mine, other) < EXACT


@pytest.mark.parametrize("correct_steps", [1, 2])
def test_predictor_corrector_is_that_of_diffusers(correct_steps: int) -> None:
    """Where the ratio of norms, from which theirs has the step size, is the noise level."""
    theirs = diffusers.ScoreSdeVeScheduler(snr=0.2, sigma_max=50.0, correct_steps=correct_steps)
    ours = get_sampler("predictor-corrector").from_config(theirs.config)
    levels = 6
    theirs.set_timesteps(levels)
    theirs.set_sigmas(levels)
    theirs.discrete_sigmas = theirs.discrete_sigmas.double()
    ours.set_timesteps(levels * (1 + correct_steps))
    sigmas = theirs.discrete_sigmas.flip(0).repeat_interleave(1 + correct_steps)
    torch.testing.assert_close(ours.sigmas[:-1], sigmas, rtol=1e-5, atol=0)
    ours.set_timesteps(sigmas=sigmas.tolist())

    mine = other = 50.0 * normal(5, 3)
    our_noise, their_noise = given_noise(), given_noise()
    for k, sigma in enumerate(ours.levels[:-1]):
        level, place = divmod(k, 1 + correct_steps)
        # Any score will do; a corrector's has the norms of the noise that comes with it.
        output, z = normal(5, 3, seed=50 + k), normal(5, 3, seed=100 + k)
        output = output * (z.norm(dim=1).mean() / output.norm(dim=1).mean() / sigma)
        with our_noise:
            mine = ours.step(output, ours.timesteps[k], mine).prev_sample
        with their_noise:
            if place < correct_steps:
                other = theirs.step_correct(output, other, return_dict=False)[0]
            else:
                t = theirs.timesteps[level]
                other, mean = theirs.step_pred(output, t, other, return_dict=False)
        assert gap(mine, mean if k == len(ours) - 1 else other) < SINGLE


# ---- k-diffusion ----------------------------------------------------------------------------

KEPT = json.loads(Path(__file__).with_name("k_diffusion.json").read_text())
RAISED = {
    "churn": CHURN["s_churn"],
    "churn_min": CHURN["s_tmin"],
    "churn_max": CHURN["s_tmax"],
    "churn_noise": CHURN["s_noise"],
}


@pytest.mark.parametrize(
    ("chain", "name", "options"),
    [
        ("heun", "heun", {}),
        ("heun-churn", "heun", RAISED),
        ("2m", "dpm-solver-pp-2m", {"eta": 0.0}),
        *((f"2m-sde-{eta}", "dpm-solver-pp-2m", {"eta": eta}) for eta in (0.0, 0.5, 1.0)),
    ],
)
def test_the_sample_is_that_of_k_diffusion(chain: str, name: str, options: dict[str, Any]) -> None:
    sigmas = SIGMAS[:-1]
    levels = sigmas if name != "heun" else sigmas[:1] + [s for s in sigmas[1:] for _ in (0, 1)]
    sampler = get_sampler(name)(prediction_type="sample", **options)
    sampler.set_timesteps(sigmas=levels)
    state, noises = (torch.tensor(KEPT[key], dtype=torch.float64) for key in ("start", "noises"))
    if name == "heun":
        # They draw at each step, those too that raise no level.
        noises = noises[[CHURN["s_tmin"] <= sigma <= CHURN["s_tmax"] for sigma in sigmas]]
    draws = Draws(lambda draw, _: noises[draw])
    for sigma, t in zip(sampler.levels, sampler.timesteps, strict=False):
        with draws:
            state = sampler.step(denoised(state, sigma), t, state).prev_sample
    assert draws.count == {"heun-churn": 4, "2m-sde-0.5": 5, "2m-sde-1.0": 5}.get(chain, 0)
    assert gap(state, torch.tensor(KEPT[chain], dtype=torch.float64)) < EXACT


@pytest.mark.parametrize("name", sorted(builtin.hdzoo_samplers()))
def test_every_compatible_scheduler_is_built_from_a_configuration(name: str) -> None:
    for options in ({}, {"rho": None}):
        cls = get_sampler(name)
        if options.keys() <= inspect.signature(cls.__init__).parameters.keys():
            for scheduler in (compatibles := cls(**options).compatibles):
                assert isinstance(scheduler.from_config(cls(**options).config), scheduler)
            # Its schedule has a finite rho.
            assert (diffusers.EDMEulerScheduler in compatibles) == (
                cls(**options).config.get("rho", 7.0) is not None
            )
