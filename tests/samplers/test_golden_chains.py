"""Annealed Langevin dynamics against chains recorded from the authors' code, on their noise."""

from collections.abc import Iterator

import pytest
import torch
from given import golden
from safetensors.torch import load_file

from hdzoo import AnnealedLangevinSampler
from hdzoo.samplers import base

STD = 0.1  # of the Gaussian whose exact score the recorded chains were given


def run(
    sampler: AnnealedLangevinSampler,
    recorded: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> list[torch.Tensor]:
    """All states, in float32, from the recorded start and noises."""
    noises: Iterator[torch.Tensor] = iter(recorded["noise"])
    monkeypatch.setattr(base, "randn_tensor", lambda *args, **kwargs: next(noises))
    states = [recorded["init"]]
    for t in sampler.timesteps:
        score = (recorded["mu"] - states[-1]) / (STD**2 + t.item() ** 2)
        states.append(sampler.step(score, t, states[-1]).prev_sample)
    assert next(noises, None) is None
    return states


def assert_close(states: list[torch.Tensor], expected: torch.Tensor) -> None:
    """To 1e-6 of the largest number in the state, 8 float32 roundings; the walk forgets older ones.

    Step sizes that the authors' code rounds to float32 leave 1e-7.
    """
    assert len(states) == len(expected)
    for state, other in zip(states, expected, strict=True):
        assert state.dtype == torch.float32
        assert (state - other).abs().max() <= 1e-6 * other.abs().max()


def test_ncsn(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = load_file(golden("ncsnv1_sampler_gauss.safetensors"))
    # The published options; the ladder is checked here as well.
    sampler = AnnealedLangevinSampler(
        sigma_max=1.0, sigma_min=0.01, num_levels=10, steps_per_level=5, step_size=2e-5
    )
    # Both ladders are in float64, so only a few roundings of 1e-16 apart.
    torch.testing.assert_close(
        sampler.sigmas[:-1:5].double(), recorded["sigmas"], rtol=1e-12, atol=0
    )
    states = run(sampler, recorded, monkeypatch)
    # The authors record each state before its update, and so drop the last one.
    assert_close(states[:-1], recorded["x"])
    assert_close(states[-1:], recorded["x_last"][None])
    assert_close([states[-2].clamp(0, 1)], recorded["images_last"][None])


@pytest.mark.parametrize("readout", [None, "full"])
def test_ncsnv2(readout: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = load_file(golden("ncsnv2_sampler_gauss.safetensors"))
    sampler = AnnealedLangevinSampler(
        sigma_max=50.0,
        sigma_min=0.01,
        num_levels=12,
        steps_per_level=3,
        step_size=6.2e-6,
        readout=readout,
    )
    # Theirs are rounded to float32.
    torch.testing.assert_close(sampler.sigmas[:36:3].float(), recorded["sigmas"], rtol=2e-7, atol=0)
    states = run(sampler, recorded, monkeypatch)
    expected = recorded["images"] if readout else recorded["images"][:-1]
    assert_close(states[1:], expected)
    assert_close(states[36:37], recorded["x_before_denoise"][None])
    if readout:
        assert_close(states[37:], recorded["final"][None])
