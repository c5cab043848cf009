"""Every parametrisation converts to the exact score."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler

from hdzoo import GaussianMixtureScore, HDZooError
from hdzoo.scores.clocks import discrete_clock
from hdzoo.scores.conversions import (
    PREDICTION_TYPES,
    from_score,
    score_weights,
    state_scale,
    to_score,
)

SIGMAS = [1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 50.0, 348.0]
Density = Callable[[torch.Tensor, float], torch.Tensor]

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 1.5], dtype=torch.float64)
STDS = torch.tensor([0.4, 0.8], dtype=torch.float64)


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Log density of N(1.3, 0.8^2 + sigma^2)."""
    scale = math.sqrt(0.8**2 + sigma**2)
    return torch.distributions.Normal(torch.tensor(1.3, dtype=x.dtype), scale).log_prob(x)


def mixture(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Log density of two noisy Gaussians."""
    parts = torch.distributions.Normal(MEANS, (STDS**2 + sigma**2).sqrt())
    return torch.logsumexp(WEIGHTS.log() + parts.log_prob(x[:, None]), 1)


def gaussian_mean(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x], by Bayes' rule: the mean of prior and observation, weighted by precision."""
    precisions = 1 / 0.8**2, 1 / sigma**2
    return (precisions[0] * 1.3 + precisions[1] * x) / sum(precisions)


def mixture_mean(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x], by Bayes' rule in each component."""
    parts = torch.distributions.Normal(MEANS, (STDS**2 + sigma**2).sqrt())
    responsible = (WEIGHTS.log() + parts.log_prob(x[:, None])).softmax(1)
    precisions = 1 / STDS**2, 1 / sigma**2
    means = (precisions[0] * MEANS + precisions[1] * x[:, None]) / sum(precisions)
    return (responsible * means).sum(1)


def points(sigma: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    return 0.3 + draws[0] + sigma * draws[1]


def exact_score(density: Density, x: torch.Tensor, sigma: float) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(density(x, sigma).sum(), x)[0]


def predictions(x: torch.Tensor, denoised: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
    """What each network would learn: the expectation of its target given x = x0 + sigma z."""
    z = (x - denoised) / sigma
    return {
        "score": -z / sigma,
        "scaled_score": -z,
        "epsilon": z,
        "sample": denoised,
        "v_prediction": (z - sigma * denoised) / math.sqrt(1 + sigma**2),
    }


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(
    ("density", "posterior_mean"), [(gaussian, gaussian_mean), (mixture, mixture_mean)]
)
def test_every_prediction_is_the_score(
    density: Density, posterior_mean: Density, sigma: float
) -> None:
    x = points(sigma)
    score = exact_score(density, x, sigma)
    found = predictions(x, posterior_mean(x, sigma), sigma)
    assert set(found) == set(PREDICTION_TYPES)
    for kind, prediction in found.items():
        a, b = score_weights(kind, sigma)
        # A rounding of x and of E[x0 | x], 2e-16 of their size, is divided by sigma^2.
        slack = 1e-15 * float(x.abs().max() + 2) / sigma**2
        torch.testing.assert_close(a * prediction + b * x, score, rtol=1e-10, atol=slack)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(
    ("density", "posterior_mean"), [(gaussian, gaussian_mean), (mixture, mixture_mean)]
)
def test_every_prediction_of_a_vp_network_is_the_score(
    density: Density, posterior_mean: Density, sigma: float
) -> None:
    x = points(sigma)
    scale = math.sqrt(1 + sigma**2)
    state = x / scale
    denoised, score = posterior_mean(x, sigma), exact_score(density, x, sigma)

    def vp_density(state: torch.Tensor, sigma: float) -> torch.Tensor:
        return density(scale * state, sigma) + math.log(scale)

    # Of state = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise.
    keep, noise = 1 / scale, sigma / scale
    z = (state - keep * denoised) / noise
    found = {
        "score": exact_score(vp_density, state, sigma),
        "scaled_score": noise * exact_score(vp_density, state, sigma),
        "epsilon": z,
        "sample": denoised,
        "v_prediction": keep * z - noise * denoised,
    }
    assert set(found) == set(PREDICTION_TYPES)
    for kind, prediction in found.items():
        # As in the VE test.
        slack = 1e-14 * float(x.abs().max() + 2) / sigma**2
        torch.testing.assert_close(
            to_score(prediction, state, sigma, kind, "vp"), score, rtol=1e-10, atol=slack
        )
        back = from_score(score, state, sigma, kind, "vp")
        a, _ = score_weights(kind, sigma, "vp")
        torch.testing.assert_close(back, prediction, rtol=1e-10, atol=slack / abs(a))


# ---- the exact score of a mixture, wrapped as other people's networks ------------------------

TARGET = GaussianMixtureScore.from_components(
    [[-0.6, 0.2], [0.5, -0.1]],
    [[[0.09, 0.02], [0.02, 0.04]], [[0.01, 0.0], [0.0, 0.16]]],
    [0.3, 0.7],
)


def ddpm(state: torch.Tensor, t: int, kind: str, schedule: DDIMScheduler) -> torch.Tensor:
    """A perfect DDPM U-Net, from the definitions of Ho et al. and of Salimans and Ho."""
    alpha_bar = schedule.alphas_cumprod[t].double()
    denoised = TARGET.denoise(state / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt())
    noise = (state - alpha_bar.sqrt() * denoised) / (1 - alpha_bar).sqrt()
    return {
        "epsilon": noise,
        "sample": denoised,
        "v_prediction": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * denoised,
    }[kind]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.001 + 2e-5 * i for i in range(1000)]},
    ],
    ids=lambda options: options.get("beta_schedule", "trained"),
)
def test_a_ddpm_of_a_mixture_is_its_score(kind: str, options: dict) -> None:
    schedule = DDIMScheduler(**options, prediction_type=kind, clip_sample=False)
    clock = discrete_clock(options)
    for t in (0, 1, 7, 50, 300, 700, 999):
        sigma = float(clock.sigma(t))
        noisy = TARGET.sample(64, torch.Generator().manual_seed(t), sigma).double()
        state = noisy / math.sqrt(1 + sigma**2)
        prediction = ddpm(state, t, kind, schedule)
        exact = TARGET.score(noisy, sigma)
        # diffusers' alpha_bar is in float32 and near 1 at t = 0: 1 - alpha_bar is exact, but each
        # way of dividing by it rounds x0, of size 1, to 1e-16 / sigma^2, and noise to sigma.
        slack = 1e-13 * (1 + sigma**2) / sigma**2
        found = to_score(prediction, state, sigma, kind, "vp")
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=slack)
        again = from_score(exact, state, sigma, kind, "vp")
        torch.testing.assert_close(again, prediction, rtol=1e-9, atol=slack * (1 + sigma**2))
        assert (found - exact).abs().max() < 1e-6 * exact.abs().max()

        # What diffusers makes of the same network is the denoiser, x + sigma^2 score.
        schedule.set_timesteps(1000)
        theirs = schedule.step(prediction.float(), t, state.float()).pred_original_sample
        ours = noisy + sigma**2 * found
        # float32 divides the state's rounding, 1e-7, by sqrt(alpha_bar).
        torch.testing.assert_close(theirs.double(), ours, rtol=0, atol=1e-5 * (1 + sigma) ** 2)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0, 80.0])
def test_an_edm_denoiser_of_a_mixture_is_its_score(sigma: float) -> None:
    noisy = TARGET.sample(64, torch.Generator().manual_seed(0), sigma).double()
    denoised, exact = TARGET.denoise(noisy, sigma), TARGET.score(noisy, sigma)
    slack = 1e-13 / sigma**2 * (1 + sigma)
    torch.testing.assert_close(
        to_score(denoised, noisy, sigma, "sample"), exact, rtol=1e-10, atol=slack
    )
    # The denoiser as diffusers puts it together from a network inside.
    edm = EDMEulerScheduler(sigma_data=0.5)
    total = math.sqrt(sigma**2 + 0.25)
    inner = (denoised - 0.25 / total**2 * noisy) * total / (sigma * 0.5)
    wrapped = edm.precondition_outputs(noisy, inner, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(
        to_score(wrapped, noisy, sigma, "sample"), exact, rtol=1e-10, atol=slack
    )


@pytest.mark.parametrize("sigma", SIGMAS)
def test_tweedie(sigma: float) -> None:
    x = points(sigma)
    for density, posterior_mean in [(gaussian, gaussian_mean), (mixture, mixture_mean)]:
        denoised = x + sigma**2 * exact_score(density, x, sigma)
        # At large sigma x cancels, of which a rounding is 2e-16.
        slack = 1e-14 * float(x.abs().max())
        torch.testing.assert_close(denoised, posterior_mean(x, sigma), rtol=1e-10, atol=slack)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_tensor_of_noise_levels(kind: str) -> None:
    """A tensor of levels gives level by level what numbers give."""
    levels = torch.tensor(SIGMAS, dtype=torch.float64).view(-1, 1, 1)
    weights = torch.stack(score_weights(kind, levels)).squeeze()
    one_by_one = torch.tensor([score_weights(kind, sigma) for sigma in SIGMAS]).T
    # float32 of the list, 6e-8.
    torch.testing.assert_close(weights, one_by_one.to(weights), rtol=1e-6, atol=0)


@pytest.mark.parametrize("coordinates", ["ve", "vp"])
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_one_noise_level_for_each_state(kind: str, coordinates: str) -> None:
    levels = torch.tensor([[0.1], [1.0], [30.0]], dtype=torch.float64)
    score, state = points(1.0)[:3, None], points(1.0)[3:6, None]
    together = from_score(score, state, levels, kind, coordinates)
    for i, sigma in enumerate(levels.flatten().tolist()):
        alone = from_score(score[i], state[i], sigma, kind, coordinates)
        torch.testing.assert_close(together[i], alone, rtol=1e-14, atol=1e-14)
    back = to_score(together, state, levels, kind, coordinates)
    # A prediction of the size of the state loses as many digits of the score.
    torch.testing.assert_close(back, score, rtol=1e-12, atol=1e-12 / 0.1**2)


def test_unknown_coordinates() -> None:
    assert state_scale(0.0, "vp") == 1
    for call in (lambda: state_scale(1.0, "ddpm"), lambda: score_weights("score", 1.0, "ddpm")):
        with pytest.raises(HDZooError, match="unknown coordinates 'ddpm'; allowed are ve, vp"):
            call()


def test_unknown_prediction() -> None:
    with pytest.raises(HDZooError, match="unknown prediction_type 'noise'; allowed are score, ep"):
        score_weights("noise", 1.0)
