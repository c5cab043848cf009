"""The samplers against the code of others, from the same noise: score_sde's authors, diffusers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, ScoreSdeVeScheduler
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler
from hdzoo_reverse_diffusion.predictor_corrector import ScoreSDEPCSampler
from hdzoo_reverse_diffusion.probability_flow import ProbabilityFlowSampler
from hdzoo_reverse_diffusion.reverse_sde import ReverseSDESampler
from safetensors.torch import load_file

from hdzoo.verification.draws import Draws

GOLDEN = Path(__file__).parent / "golden"
# Outputs of yang-song/score_sde_pytorch (Apache-2.0) in float64, on the exact score of N(mu, s^2).
TENSORS = load_file(GOLDEN / "score_sde.safetensors")
RECORD = json.loads((GOLDEN / "score_sde.json").read_text())
PREDICTORS = {
    "reverse_diffusion": "reverse-diffusion",
    "euler_maruyama": "euler-maruyama",
    "ancestral_sampling": "ancestral",
}
SHAPE = (2, 3, 4, 4)


def score_of(mean: Any, std: float) -> Any:
    """The exact score in VE coordinates."""
    return lambda x, sigma: -(x - mean) / (std**2 + sigma**2)


def network(sampler: Any, score: Any, state: torch.Tensor, k: int) -> torch.Tensor:
    """What the network says there: scores in VE coordinates, noise in VP."""
    sigma = sampler.levels[k]
    if sampler.config.get("coordinates", "ve") == "ve":
        return score(state, sigma)
    return -sigma * score(state * math.sqrt(1 + sigma**2), sigma)


def run(sampler: Any, score: Any, state: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
    """The end of a chain that draws these noises in turn."""
    generator = torch.Generator()
    with Draws(lambda number, shape: noises[number]):
        for k, t in enumerate(sampler.timesteps):
            output = network(sampler, score, state, k)
            state = sampler.step(output, t, state, generator=generator).prev_sample
    return state


def of_case(case: dict[str, Any]) -> Any:
    """The sampler that a case of the record is a run of."""
    options = {"predictor": PREDICTORS[case["predictor"]], "denoise": case["denoise"]}
    kind, each = ReverseSDESampler, 1
    if case["probability_flow"]:
        # Theirs does not denoise: it leaves out the noise, of which there is none.
        kind, options["denoise"] = ProbabilityFlowSampler, False
    elif case["corrector"] != "none":
        kind, each = ScoreSDEPCSampler, 1 + case["n_steps"]
        options |= {"corrector": case["corrector"], "norms": "batch", "snr": case["snr"]}
        options["correct_steps"] = case["n_steps"]
    if case["sde"] == "ve":
        sampler = kind(sigma_max=5.0, sigma_min=0.01, sampling_eps=case["eps"], **options)
    else:
        network = {"_class_name": "ScoreSdeVpScheduler", "beta_min": 0.1, "beta_max": 20.0}
        sampler = kind.from_config(network | {"sampling_eps": case["eps"]}, **options)
    sampler.set_timesteps(each * case["levels"])
    return sampler


@pytest.mark.parametrize("name", RECORD["cases"])
def test_as_the_authors_of_score_sde(name: str) -> None:
    case, noises = RECORD["cases"][name], TENSORS[f"{name}.noise"]
    sampler = of_case(case)
    assert len(noises) == len(sampler)
    score = score_of(TENSORS["mu"], RECORD["std"])
    found = run(sampler, score, TENSORS[f"{name}.start"], noises)
    expected = TENSORS[f"{name}.end"]
    # In float64 on both sides: 50 steps of roundings, and logarithms of levels stretched.
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_the_authors_corrector_ties_images_together() -> None:
    """With norms of the batch an image depends on the others; with its own, it does not."""
    x, *noises = torch.randn(21, 3, 6, generator=torch.Generator().manual_seed(0)).double()
    for norms, same in (("sample", True), ("batch", False)):
        sampler = ScoreSDEPCSampler(sigma_max=5.0, corrector="langevin", norms=norms)
        ends = []
        for rows in (slice(0, 1), slice(0, 3)):
            sampler.set_timesteps(20)
            ends.append(run(sampler, score_of(0.3, 0.5), x[rows], torch.stack(noises)[:, rows]))
        assert torch.allclose(ends[0][0], ends[1][0], rtol=1e-12) is same


# ---- diffusers -----------------------------------------------------------------------------------


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-6 of the largest number: diffusers works in float32."""
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_score_sde_ve_of_diffusers() -> None:
    """Predictor and corrector from one configuration, a batch of one: its norms are its own."""
    theirs = ScoreSdeVeScheduler(sigma_max=50.0, snr=0.15, correct_steps=1)
    theirs.set_timesteps(30)
    theirs.set_sigmas(30)
    ours = ScoreSDEPCSampler.from_config(theirs.config, corrector="langevin", denoise=True)
    ours.set_timesteps(60)
    assert (ours.config.sigma_max, ours.config.snr, ours.config.sampling_eps) == (50.0, 0.15, 1e-5)
    rng = torch.Generator().manual_seed(0)
    start = 50 * torch.randn(1, 3, 4, 4, generator=rng)
    noises = torch.randn(60, 1, 3, 4, 4, generator=rng)
    score, state = score_of(0.4, 0.3), start
    with Draws(lambda number, shape: noises[number]):
        for i, t in enumerate(theirs.timesteps):
            sigma = theirs.sigmas[i]
            state = theirs.step_correct(score(state, sigma), state, generator=rng).prev_sample
            output = theirs.step_pred(score(state, sigma), t, state, generator=rng)
            state = output.prev_sample
    close(run(ours, score, start, noises), output.prev_sample_mean)


def test_score_sde_vp_of_diffusers() -> None:
    theirs = ScoreSdeVpScheduler()
    theirs.set_timesteps(40)
    ours = ReverseSDESampler.from_config(theirs.config, predictor="euler-maruyama")
    ours.set_timesteps(40)
    rng = torch.Generator().manual_seed(0)
    start, *noises = torch.randn(41, *SHAPE, generator=rng).double()
    score, state = score_of(0.4, 0.3), start
    with Draws(lambda number, shape: noises[number]):
        for t in theirs.timesteps.double():
            exponent = 0.1 * t + 19.9 * t**2 / 2
            sigma = exponent.expm1().sqrt()
            epsilon = -sigma * score(state * (1 + sigma**2).sqrt(), sigma)
            state, mean = theirs.step_pred(epsilon, state, t, generator=rng)
    close(run(ours, score, start, torch.stack(noises)), mean)


@pytest.mark.parametrize(("variance_type", "sde"), [("fixed_small", "ve"), ("fixed_large", "vp")])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_ancestral_is_ddpm_of_diffusers(variance_type: str, sde: str, schedule: str) -> None:
    """With the small variance the ancestral steps of the VE SDE, with the large one the VP's."""
    theirs = DDPMScheduler(beta_schedule=schedule, variance_type=variance_type, clip_sample=False)
    # The same numbers; their differences are not rounded.
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.set_timesteps(25)
    ours = ReverseSDESampler.from_config(theirs.config, predictor="ancestral", sde=sde)
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    rng = torch.Generator().manual_seed(0)
    start, *noises = torch.randn(26, *SHAPE, generator=rng).double()
    score, state = score_of(0.2, 0.4), start
    with Draws(lambda number, shape: noises[number]):
        for k, t in enumerate(theirs.timesteps):
            epsilon = network(ours, score, state, k)
            state = theirs.step(epsilon, t, state, generator=rng).prev_sample
    close(run(ours, score, start, torch.stack(noises)), state)
