"""What a network is told of the noise level: against diffusers' schedulers and by quadrature."""

import math
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from hdzoo import HDZooError
from hdzoo.scores.clocks import DiscreteClock, TimeClock, clock_of, discrete_clock

SCHEDULES: dict[str, dict[str, Any]] = {
    "ddpm": {"beta_schedule": "linear"},
    "stable-diffusion": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": np.linspace(1e-3, 0.05, 250)},
    "trained-json": {"trained_betas": np.linspace(1e-3, 0.05, 250).tolist()},
    "short": {"beta_schedule": "linear", "num_train_timesteps": 50, "beta_end": 0.3},
}
EACH = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@EACH
def test_noise_levels_are_those_of_diffusers(schedule: dict[str, Any]) -> None:
    theirs = diffusers.EulerDiscreteScheduler(**schedule)
    clock = discrete_clock(schedule)
    # Theirs are in float32, where 1 - alpha_bar has lost up to 6e-8 / 3e-5 of its digits.
    expected = theirs.sigmas[:-1].flip(0).double().numpy()
    np.testing.assert_allclose(clock.sigmas, expected, rtol=2e-3)
    np.testing.assert_allclose(clock.sigmas[5:], expected[5:], rtol=2e-4)
    exact = 1 / (1 + clock.sigmas**2)
    # Three roundings of a number near 1.
    np.testing.assert_allclose(exact, theirs.alphas_cumprod.double(), rtol=4e-16, atol=0)


@EACH
def test_index_and_noise_level_are_inverse(schedule: dict[str, Any]) -> None:
    clock = discrete_clock(schedule)
    count = len(clock.sigmas)
    assert [clock.timestep(sigma) for sigma in clock.sigmas] == list(range(count))
    # After float32 still the same index.
    assert [clock.timestep(float(s)) for s in clock.sigmas.astype(np.float32)] == list(range(count))
    indices = torch.arange(count)
    for given in (indices, indices.float(), indices.double()):
        np.testing.assert_allclose(clock.sigma(given).numpy(), clock.sigmas, rtol=1e-14)
    for place in (0.25, 1.5, count / 3, count - 1.125):
        sigma = clock.sigma(place)
        assert clock.timestep(sigma) == pytest.approx(place, rel=1e-9)
        assert clock.sigma(torch.tensor([place])).item() == pytest.approx(sigma, rel=1e-6)


@EACH
def test_fractions_are_those_of_the_euler_scheduler(schedule: dict[str, Any]) -> None:
    theirs = diffusers.EulerDiscreteScheduler(**schedule)
    clock = discrete_clock(schedule)
    logs = np.log(clock.sigmas)
    for sigma in np.geomspace(clock.sigmas[0] * 1.01, clock.sigmas[-1] * 0.99, 23):
        expected = theirs._sigma_to_t(sigma, logs)
        assert clock.timestep(sigma) == pytest.approx(float(expected), rel=1e-9, abs=1.1e-4)


def test_levels_without_signal_are_left_out() -> None:
    clock = discrete_clock({"beta_schedule": "linear", "rescale_betas_zero_snr": True})
    theirs = diffusers.DDPMScheduler(rescale_betas_zero_snr=True)
    assert theirs.alphas_cumprod[-1] == 0
    assert len(clock.sigmas) == 999
    assert np.isfinite(clock.sigmas).all()


@pytest.mark.parametrize("count", [1, 2, 10, 60, 400, 1000])
def test_a_ladder_moves_to_levels_of_the_network(count: int) -> None:
    clock = discrete_clock({"beta_schedule": "linear"})
    low, high = clock.sigmas[[0, -1]]
    wanted = np.geomspace(high, low, count) if count > 1 else [0.3]
    found = clock.known(wanted)
    indices = [clock.timestep(sigma) for sigma in found]
    assert len(found) == count
    assert all(index.is_integer() for index in indices)
    assert all(above > below for above, below in pairwise(indices))
    if count > 1:
        assert (indices[0], indices[-1]) == (999, 0)
    # Where the network's levels lie closer than the ladder's, the nearest is within half a gap.
    gaps = np.diff(np.log(clock.sigmas))
    ratio = math.log(high / low) / (count - 1) if count > 1 else math.inf
    if gaps.max() < ratio:
        off = np.abs(np.log(np.array(found) / np.array(wanted)))
        assert (off <= gaps.max() / 2 * (1 + 1e-9)).all()


def test_a_ladder_of_more_levels_than_the_network_knows_stays() -> None:
    clock = discrete_clock(SCHEDULES["short"])
    wanted = np.geomspace(clock.sigmas[-1], clock.sigmas[0], 51).tolist()
    assert clock.known(wanted) == wanted
    assert clock.known(wanted[::2]) != wanted[::2]


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_continuous_time_by_quadrature(t: float) -> None:
    beta_min, beta_max = 0.1, 20.0
    clock = TimeClock(beta_min, beta_max)
    rate, _ = quad(lambda s: beta_min + s * (beta_max - beta_min), 0, t)
    # dx = -beta x / 2 dt + sqrt(beta) dw keeps exp(-rate / 2) of the data.
    alpha_bar = math.exp(-rate)
    sigma = math.sqrt((1 - alpha_bar) / alpha_bar)
    assert clock.sigma(999 * t) == pytest.approx(sigma, rel=1e-10)
    assert clock.sigma(torch.tensor([999 * t], dtype=torch.float64)).item() == pytest.approx(sigma)
    assert clock.timestep(sigma) == pytest.approx(999 * t, rel=1e-12)


def test_continuous_time_is_that_of_diffusers() -> None:
    from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

    config = ScoreSdeVpScheduler(beta_min=0.2, beta_max=15).config
    clock = clock_of({**config, "timestep_type": "time"})
    # Its step_pred has -log alpha = t^2 (beta_max - beta_min) / 4 + t beta_min / 2.
    alpha = math.exp(-(0.3**2 * (15 - 0.2) / 4 + 0.3 * 0.2 / 2))
    assert clock.sigma(999 * 0.3) == pytest.approx(math.sqrt(1 / alpha**2 - 1), rel=1e-12)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"timestep_type": "index"}, "timestep_type 'index'; allowed are sigma, log_sigma, di"),
    "none": ({"timestep_type": "discrete"}, r"nothing of the noise schedule \(beta_schedule\)"),
    "unknown": (
        {"timestep_type": "discrete", "beta_schedule": "exp"},
        "makes no noise schedule of .*'exp'",
    ),
    "count": (
        {"timestep_type": "discrete", "beta_schedule": "linear", "num_train_timesteps": "many"},
        "num_train_timesteps is 'many'; it must be a whole number from 1 to",
    ),
    "one": ({"timestep_type": "discrete", "trained_betas": [0.5]}, "no two noise levels"),
    "negative": ({"timestep_type": "discrete", "trained_betas": [0.5, -0.5]}, "do not ascend"),
    "beyond": ({"timestep_type": "discrete", "trained_betas": [0.5, 1.5]}, "no two noise levels"),
    "rates": ({"timestep_type": "time", "beta_min": 3.0, "beta_max": 2.0}, "beta_min is 3"),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_clock(config: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        clock_of(config)


def test_levels_that_the_network_does_not_know() -> None:
    clock = discrete_clock({"beta_schedule": "linear"})
    for sigma in (0.0099, 158.0, math.nan):
        with pytest.raises(HDZooError, match=r"trained for levels from 0\.010.* to 157\.407; cha"):
            clock.timestep(sigma)
    for timestep in (-1, 1000, math.nan):
        with pytest.raises(HDZooError, match=r"is none of the network's, .* 0 to 999"):
            clock.sigma(timestep)
    with pytest.raises(HDZooError, match="trained up to"):
        TimeClock().timestep(1e6)
    with pytest.raises(HDZooError, match="do not ascend"):
        DiscreteClock([0.5, 0.6, 0.1])
