"""The example sampler: it is registered, and its law is the closed form."""

from pathlib import Path

import pytest
import torch
from hdzoo_example_sampler.sampler import ExampleDDIMSampler

from hdzoo import HDZooError, get_sampler, list_samplers
from hdzoo.plugins import provider

# Data N(MEAN, STD^2), and a ladder of ratio 0.615.
MEAN, STD = 1.3, 0.8
LADDER = {"sigma_max": 3.0, "sigma_min": 0.1, "num_levels": 8}


def run(sampler: ExampleDDIMSampler, state: torch.Tensor) -> list[torch.Tensor]:
    """All states of the chain, on the exact score of the data."""
    states = [state]
    for t in sampler.timesteps:
        score = -(states[-1] - MEAN) / (STD**2 + t**2)
        states.append(sampler.step(score, t, states[-1]).prev_sample)
    return states


def test_registered() -> None:
    assert "example-ddim" in list_samplers()
    assert get_sampler("example-ddim") is ExampleDDIMSampler
    assert provider("samplers", "example-ddim").distribution == "hdzoo-example-sampler"


@pytest.mark.parametrize("steps", [1, 2, 8, 21])
def test_variance_map_is_the_closed_form(steps: int) -> None:
    sampler = ExampleDDIMSampler(**LADDER)
    sampler.set_timesteps(steps)
    # Without noise the chain is affine, so two states give the mean and the variance of every law.
    states = run(sampler, torch.tensor([MEAN, MEAN + 1.0], dtype=torch.float64))
    sigmas = sampler.sigmas.tolist()
    assert len(sigmas) == steps + 1
    assert (sigmas[0], sigmas[-1]) == (3.0, 0.0)
    variance = expected = STD**2 + sigmas[0] ** 2
    for state, sigma, following in zip(states[1:], sigmas, sigmas[1:], strict=False):
        expected *= (1 - sigma * (sigma - following) / (STD**2 + sigma**2)) ** 2
        centre, beside = state.tolist()
        # A few roundings of 1e-16 on numbers of order 10.
        assert centre == pytest.approx(MEAN, rel=0, abs=1e-10)
        assert (beside - centre) ** 2 * variance == pytest.approx(expected, rel=0, abs=1e-10)


def test_known_number() -> None:
    """The variance on reaching the last of 8 rungs, worked out apart from this code."""
    states = run(ExampleDDIMSampler(**LADDER), torch.tensor([MEAN + 1.0], dtype=torch.float64))
    variance = (states[-2].item() - MEAN) ** 2 * (STD**2 + 3.0**2)
    assert variance == pytest.approx(0.519867, abs=5e-7)


def test_converges_to_the_data() -> None:
    """Euler's error in the variance is of first order: half of it with twice the steps."""
    errors = []
    for steps in (400, 800):
        sampler = ExampleDDIMSampler(sigma_max=3.0, sigma_min=1e-3)
        sampler.set_timesteps(steps)
        states = run(sampler, torch.tensor([MEAN + 1.0], dtype=torch.float64))
        errors.append((states[-1].item() - MEAN) ** 2 * (STD**2 + 3.0**2) - STD**2)
    # The next order is about 1 / steps of the first.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)
    assert abs(errors[1]) < 0.01


def test_configuration_round_trip(tmp_path: Path) -> None:
    sampler = ExampleDDIMSampler(sigmas=[2.0, 1.0, 0.5], prediction_type="epsilon")
    sampler.save_pretrained(tmp_path)
    assert ExampleDDIMSampler.from_pretrained(tmp_path).moves == sampler.moves
    langevin = get_sampler("annealed-langevin").from_config(sampler.config, steps_per_level=2)
    assert langevin.sigmas.tolist() == [2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.0]
    assert ExampleDDIMSampler.from_config(langevin.config).moves == sampler.moves


def test_repeated_levels_are_refused() -> None:
    with pytest.raises(HDZooError, match="repeated"):
        ExampleDDIMSampler().set_timesteps(sigmas=[1.0, 1.0, 0.5])
