"""Many measurements: published numbers, what they have in common, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hdzoo_multimeasurement.joint import JointMultimeasurementSampler
from hdzoo_multimeasurement.sequential import SequentialMultimeasurementSampler

from hdzoo import (
    AnnealedLangevinSampler,
    HDPipeline,
    HDZooError,
    LangevinSampler,
    get_sampler,
    list_samplers,
)
from hdzoo.plugins import provider
from hdzoo.targets.named import gaussian
from hdzoo.verification import Gaussian, deviation, exact_law

# Data N(1.3, 0.8^2).
MEAN, VARIANCE = 1.3, 0.64
DATA = Gaussian.of(MEAN, VARIANCE)
SIGMA = 0.7
LANGEVIN = {"walk": "langevin", "step_size": 0.25 * SIGMA**2}


def law(sampler: Any, steps: int, start: Gaussian) -> Gaussian:
    sampler.set_timesteps(steps)
    return exact_law(sampler, DATA, start)


def test_registered() -> None:
    for name, found in (
        ("joint-multimeasurement", JointMultimeasurementSampler),
        ("sequential-multimeasurement", SequentialMultimeasurementSampler),
    ):
        assert name in list_samplers()
        assert get_sampler(name) is found
        assert provider("samplers", name).distribution == "hdzoo-multimeasurement"
    assert provider("reproductions", "multimeasurement").error is None


def test_joint_of_a_long_langevin_walk() -> None:
    """m = 4: 0.548189, from the mean's 0.778126, both worked out elsewhere."""
    sampler = JointMultimeasurementSampler(sigma=SIGMA, num_measurements=4, **LANGEVIN)
    found = law(sampler, 900, Gaussian.of(0.0, 0.1))
    assert found.mean.item() == pytest.approx(MEAN, abs=1e-10)
    assert found.covariance.item() == pytest.approx(0.548189, abs=5e-7)
    share = VARIANCE / (VARIANCE + SIGMA**2 / 4)
    assert found.covariance.item() / share**2 == pytest.approx(0.778126, abs=1e-6)


def test_sequential_of_short_langevin_walks() -> None:
    """m = 5 measurements, 6 steps each, from the mean's noise: 0.529207, worked out elsewhere."""
    sampler = SequentialMultimeasurementSampler(sigma=SIGMA, num_measurements=5, **LANGEVIN)
    found = law(sampler, 5 * 7, Gaussian.of(MEAN, SIGMA**2))
    assert found.covariance.item() == pytest.approx(0.529207, abs=5e-7)


@pytest.mark.parametrize("walk", ["underdamped-langevin", "averaged-noise-langevin"])
@pytest.mark.parametrize(
    "sampler", [JointMultimeasurementSampler, SequentialMultimeasurementSampler]
)
def test_walks_that_are_exact(sampler: type[Any], walk: str) -> None:
    """s^4 / (s^2 + sigma^2 / m) = 0.555014 with m = 5, whatever the step size."""
    made = sampler(sigma=SIGMA, num_measurements=5, walk=walk, step_size=0.3)
    found = law(made, 300, Gaussian.of(0.0, 1.0))
    assert found.covariance.item() == pytest.approx(0.555014, abs=5e-7)


def test_one_evaluation_each_is_stochastic_localization() -> None:
    """Euler's scheme with K = 50 steps of delta = 0.4 in time: 0.519034, worked out elsewhere."""
    sigma = 1 / math.sqrt(0.4)
    sampler = SequentialMultimeasurementSampler(sigma=sigma, num_measurements=50)
    found = law(sampler, 50, Gaussian.of(MEAN, sigma**2))
    assert found.covariance.item() == pytest.approx(0.519034, abs=5e-7)


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_one_measurement_is_a_walk_and_a_jump(steps: int) -> None:
    start = Gaussian.of(0.2, 2.0)
    alone = AnnealedLangevinSampler(sigmas=[SIGMA], step_size=LANGEVIN["step_size"], readout="full")
    expected = law(alone, steps, start)
    for sampler in (JointMultimeasurementSampler, SequentialMultimeasurementSampler):
        made = sampler(sigma=SIGMA, num_measurements=1, **LANGEVIN)
        assert deviation(law(made, steps, start), expected) < 1e-13


@pytest.mark.parametrize("m", [2, 7])
def test_the_mean_of_a_joint_langevin_walk_is_a_langevin_walk(m: int) -> None:
    """At the level sigma / sqrt(m), with a step size of an m-th."""
    start, level = Gaussian.of(0.2, 2.0), SIGMA / math.sqrt(m)
    walk = LangevinSampler(sigma=level, step_size=LANGEVIN["step_size"] / m)
    joint = JointMultimeasurementSampler(sigma=SIGMA, num_measurements=m, **LANGEVIN)
    mean, variance = law(walk, 8, start)
    share = VARIANCE / (VARIANCE + level**2)
    jumped = Gaussian(MEAN + share * (mean - MEAN), share**2 * variance)
    assert deviation(law(joint, 9, start), jumped) < 1e-13


def test_on_any_ladder() -> None:
    """With exact walks it ends at s^4 / (s^2 + sigma_m^2), to within 5 standard errors."""
    sampler = SequentialMultimeasurementSampler(walk="averaged-noise-langevin")
    levels, count = [3.0] * 30 + [1.0] * 20 + [0.9] * 20 + [0.5] * 30, 10_000
    pipe = HDPipeline(gaussian(), sampler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    samples = pipe(batch_size=count, sigmas=levels, generator=generator).images.double()
    variance = VARIANCE**2 / (VARIANCE + 0.25)
    assert samples.mean().item() == pytest.approx(MEAN, abs=5 * math.sqrt(variance / count))
    assert samples.var().item() == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / count))


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [(JointMultimeasurementSampler, 40), (SequentialMultimeasurementSampler, 3 * 25)],
)
def test_a_walk_that_accepts(sampler: type[Any], steps: int) -> None:
    """MALA is exact on Gaussian data: mean and variance to within 5 standard errors."""
    made = sampler(sigma=SIGMA, num_measurements=3, walk="mala", step_size=0.3)
    target, count = gaussian(), 4000
    pipe = HDPipeline(target, made)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    start = target.sample(count, generator, sigma=float(made.sigmas[0])).float()
    samples = pipe(latents=start, num_inference_steps=steps, generator=generator).images.double()
    variance = VARIANCE**2 / (VARIANCE + SIGMA**2 / 3)
    assert samples.mean().item() == pytest.approx(MEAN, abs=5 * math.sqrt(variance / count))
    assert samples.var().item() == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / count))


def test_the_law_of_the_measurements() -> None:
    """Four, after five Langevin steps: one variance along (1, 1, 1, 1), one across."""
    m, step_size, steps, count = 4, LANGEVIN["step_size"], 5, 40_000
    sampler = JointMultimeasurementSampler(sigma=SIGMA, num_measurements=m, **LANGEVIN)
    sampler.set_timesteps(steps + 1)
    generator, spread = torch.Generator().manual_seed(0), math.sqrt(VARIANCE + SIGMA**2 / m)
    x = MEAN + spread * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    for t in sampler.timesteps[:steps]:
        x = sampler.step(-(x - MEAN) / spread**2, t, x, generator).prev_sample
    y = (x[:, None] + sampler.memory["apart"])[..., 0].numpy()
    assert y.shape == (count, m)
    variances = []
    for total in (m * VARIANCE + SIGMA**2, SIGMA**2):
        variance = total
        for _ in range(steps):
            variance = (1 - step_size / total) ** 2 * variance + 2 * step_size
        variances.append(variance)
    along, across = variances
    expected = across * np.eye(m) + (along - across) / m
    # The standard error of a covariance is sqrt((c_ii c_jj + c_ij^2) / n).
    error = math.sqrt(2) * expected.max() / math.sqrt(count)
    assert np.abs(np.cov(y.T) - expected).max() < 5 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"walk": "nobody"}, "unknown sampler 'nobody'"),
        ({"walk": "half-denoising"}, "walk is 'half-denoising', which is no walk on the noisy"),
        ({"walk": "annealed-langevin"}, "no walk on the noisy data at one noise level; take"),
        ({"walk": "sequential-multimeasurement"}, "no walk on the noisy data"),
        (
            {"walk_options": {"frction": 1.0}},
            "walk_options are not those of 'underdamped-langevin'",
        ),
        ({"walk_options": {"friction": -1.0}}, "friction is -1"),
        ({"walk_options": {"sigma": 1.0}}, "walk_options has 'sigma', which the sampler itself"),
        ({"walk_options": [1]}, "walk_options is .1.; it must be a dict"),
        ({"step_size": 2.0}, r"step_size is 2 and the noise of a measurement 1; .* = 2"),
        ({"num_measurements": 0}, "num_measurements is 0"),
        ({"num_measurements": 2.5}, r"num_measurements is 2\.5"),
        ({"sigma": 0.0}, "sigma is 0"),
    ],
)
@pytest.mark.parametrize(
    "sampler", [JointMultimeasurementSampler, SequentialMultimeasurementSampler]
)
def test_refusals(sampler: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        sampler(**options)


def test_the_walks_own_options_are_taken_and_saved(tmp_path: Any) -> None:
    published = {"friction": 0.5, "friction_per": "time"}
    sampler = JointMultimeasurementSampler(num_measurements=16, walk_options=published)
    sampler.save_pretrained(tmp_path)
    loaded = JointMultimeasurementSampler.from_pretrained(tmp_path)
    assert dict(loaded.config.walk_options) == published
    assert loaded.walk.config.friction_per == "time"
    other = SequentialMultimeasurementSampler.from_config(loaded.config)
    assert (other.config.num_measurements, other.config.walk_options) == (16, published)
