"""Each sampler's exact law on Gaussian data, and its identities with the others.

The law that `hdzoo.verification.laws` finds by unit impulses, and the closed form that the sampler
declares, are both compared with the published algorithm, followed line by line below in its own
order of noise and gradient. Nothing is simulated.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
import torch

from hdzoo import (
    AlphaHalfDenoisingSampler,
    AnnealedHalfDenoisingSampler,
    AnnealedLangevinSampler,
    ConsistentAnnealedSampler,
    HalfDenoisingSampler,
    LangevinSampler,
    NoiseCorrectedLangevinSampler,
)
from hdzoo.samplers import base
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.ladders import ncsnv2_step_size
from hdzoo.verification.laws import Gaussian, exact_law

# What a network may predict: its prediction type, and sigma_data for Karras' preconditioning.
PREDICTIONS = [
    ("score", None),
    ("epsilon", None),
    ("scaled_score", None),
    ("sample", None),
    ("v_prediction", None),
    ("epsilon", 0.5),
    ("v_prediction", 0.7),
]


class Law(NamedTuple):
    """A normal law on its way through an algorithm, for data N(m, s^2)."""

    m: float
    s: float
    mean: float
    var: float

    def gradient(self, step: float, sigma: float) -> Self:
        """The law of x + step * score(x, sigma)."""
        factor = 1 - step / (self.s**2 + sigma**2)
        mean = self.m + factor * (self.mean - self.m)
        return self._replace(mean=mean, var=factor**2 * self.var)

    def noise(self, variance: float) -> Self:
        return self._replace(var=self.var + variance)

    def at(self, sigma: float) -> Self:
        """The law of the noisy data."""
        return self._replace(mean=self.m, var=self.s**2 + sigma**2)


def law_of(sampler: Sampler, start: Law) -> Law:
    """The law at the end of the sampler's chain from a state of law `start`."""
    target, first = Gaussian.of(start.m, start.s**2), Gaussian.of(start.mean, start.var)
    mean, covariance = exact_law(sampler, target, first)
    return start._replace(mean=mean.item(), var=covariance.item())


def declared(sampler: Sampler, start: Law) -> Law:
    """The same by the closed form that the sampler declares."""
    law = sampler.closed_form(GaussianLaw(start.m, start.s**2, start.mean, start.var))
    assert law is not None
    return start._replace(mean=float(law.mean), var=float(law.variance))


def assert_same(law: Law, expected: Law, scale: float) -> None:
    # Chains have at most 32 moves with a few roundings each, 1e-16 of the largest number met, which
    # `scale` bounds: 1e-13. Reading an impulse off as a difference loses no more.
    assert law.mean == pytest.approx(expected.mean, rel=1e-10, abs=1e-12 * scale)
    assert law.var == pytest.approx(expected.var, rel=1e-10, abs=1e-12 * scale)


# ---- the published algorithms ---------------------------------------------------------------


class Setting(NamedTuple):
    """One random case: data and initial law, ladder, steps on each rung, step sizes."""

    law: Law
    sigmas: list[float]
    counts: list[int]
    alphas: list[float]
    options: dict[str, Any]

    @property
    def rungs(self) -> list[tuple[float, float, int]]:
        return list(zip(self.sigmas, self.alphas, self.counts, strict=True))


def langevin(setting: Setting) -> Law:
    law, ((sigma, alpha, count),) = setting.law, setting.rungs
    for _ in range(count):
        law = law.gradient(alpha, sigma).noise(2 * alpha)
    return law


def annealed_langevin(
    setting: Setting, hand_off: str = "own", readout: float | str | None = None
) -> Law:
    law, rungs = setting.law, setting.rungs
    for i, (sigma, alpha, count) in enumerate(rungs):
        for _ in range(count - 1):
            law = law.gradient(alpha, sigma).noise(2 * alpha)
        if i == len(rungs) - 1:
            if readout is None:
                return law.gradient(alpha, sigma).noise(2 * alpha)
            fraction = {"alpha": alpha / sigma**2, "half": 0.5, "full": 1.0}.get(readout, readout)
            return law.gradient(fraction * sigma**2, sigma)
        next_sigma, next_alpha, _ = rungs[i + 1]
        if hand_off == "own":
            law = law.gradient(alpha, sigma).noise(2 * alpha)
        elif hand_off == "next":
            law = law.gradient(alpha, sigma).noise(2 * next_alpha)
        else:
            law = law.gradient((sigma**2 - next_sigma**2) / 2, sigma)
    raise AssertionError


def noise_corrected(setting: Setting) -> Law:
    law, ((sigma, mu, count),) = setting.law, setting.rungs
    for _ in range(count):
        law = law.noise(sigma**2).gradient(mu, sigma).noise(2 * mu - sigma**2)
    return law


def half_denoising(setting: Setting) -> Law:
    law = setting.law
    for sigma, _, count in setting.rungs:
        for _ in range(count):
            law = law.noise(sigma**2).gradient(sigma**2 / 2, sigma)
    return law


def noise_first(setting: Setting) -> Law:
    law = setting.law
    for sigma, alpha, count in setting.rungs:
        for _ in range(count):
            law = law.noise(2 * alpha).gradient(alpha, sigma)
    return law


def consistent(setting: Setting, readout: float | str | None = None) -> Law:
    law, rungs = setting.law, setting.rungs
    for (sigma, alpha, _), (next_sigma, _, _) in pairwise(rungs):
        eta, gamma = alpha / sigma**2, next_sigma / sigma
        law = law.gradient(eta * sigma**2, sigma)
        law = law.noise((1 - ((1 - eta) / gamma) ** 2) * next_sigma**2)
    sigma, alpha, _ = rungs[-1]
    fractions = {None: alpha / sigma**2, "alpha": alpha / sigma**2, "half": 0.5, "full": 1.0}
    return law.gradient(fractions.get(readout, readout) * sigma**2, sigma)


# ---- random settings ------------------------------------------------------------------------


def random_setting(rng: np.random.Generator, rungs: int, steps: str) -> Setting:
    """A setting whose walk is stable; `steps` says how the step sizes are given."""
    law = Law(*rng.uniform(0.5, 2, 4))
    # Ratios of neighbouring levels lie in [0.45, 0.9], so consistent sampling's [0.55, 1.45] holds.
    sigmas = [float(rng.uniform(0.5, 4))]
    while len(sigmas) < rungs:
        sigmas.append(sigmas[-1] * float(rng.uniform(0.45, 0.9)))
    num_steps = rungs if steps.startswith("cas") else int(rng.integers(rungs, 4 * rungs + 1))
    counts = [num_steps // rungs] * rungs
    for i in range(num_steps % rungs):
        counts[-1 - i] += 1
    eta = rng.uniform(*{"cas": (0.55, 1.45), "ncl": (0.5, 1.9)}.get(steps, (0.05, 1.9)))
    etas, options = [float(eta)] * rungs, {}
    if steps in ("number", "cas", "ncl"):
        options = {"step_size": eta * sigmas[-1] ** 2}
    elif steps == "list":
        etas = [float(eta) for eta in rng.uniform(0.05, 1.9, rungs)]
        options = {"step_size": [e * x**2 for e, x in zip(etas, sigmas, strict=True)]}
    elif steps == "ncsnv2":
        per_level = int(rng.integers(1, 6))
        options = {"step_size": "ncsnv2", "steps_per_level": per_level}
        # The rule itself has a test of its own.
        etas = [ncsnv2_step_size(sigmas, per_level) / sigmas[-1] ** 2] * rungs
    elif steps == "cas-default":
        etas = [1 - (b / a) ** 2 for a, b in pairwise(sigmas)]
        etas.append(etas[-1])
    elif steps != "none":
        etas = [float(steps)] * rungs
    alphas = [e * x**2 for e, x in zip(etas, sigmas, strict=True)]
    return Setting(law, sigmas, counts, alphas, options)


# Sampler, its options, how its step sizes are given, the published algorithm, and the variance of
# the noise that comes first there, over sigma^2 (None for 2 alpha), before the state carried here.
CASES: dict[str, tuple[type[Sampler], dict[str, Any], str, Callable[..., Law], float | None]] = {
    "langevin": (LangevinSampler, {}, "number", langevin, 0),
    "langevin-default": (LangevinSampler, {}, "0.2", langevin, 0),
    "ncl": (NoiseCorrectedLangevinSampler, {}, "ncl", noise_corrected, 1),
    "ncl-default": (NoiseCorrectedLangevinSampler, {}, "1.0", noise_corrected, 1),
    "half": (HalfDenoisingSampler, {}, "0.5", half_denoising, 1),
    "annealed-half": (AnnealedHalfDenoisingSampler, {}, "0.5", half_denoising, 1),
    "alpha-half": (AlphaHalfDenoisingSampler, {}, "number", noise_first, None),
    "alpha-half-default": (AlphaHalfDenoisingSampler, {}, "0.2", noise_first, None),
    "alpha-half-list": (AlphaHalfDenoisingSampler, {}, "list", noise_first, None),
    "alpha-half-ncsnv2": (AlphaHalfDenoisingSampler, {}, "ncsnv2", noise_first, None),
    "ald-default": (AnnealedLangevinSampler, {}, "0.2", annealed_langevin, 0),
    "ald-list": (AnnealedLangevinSampler, {}, "list", annealed_langevin, 0),
    "ald-ncsnv2": (AnnealedLangevinSampler, {"readout": "full"}, "ncsnv2", annealed_langevin, 0),
    "cas-default": (ConsistentAnnealedSampler, {}, "cas-default", consistent, 0),
    **{
        f"ald-{hand_off}-{readout}": (
            AnnealedLangevinSampler,
            {"hand_off": hand_off, "readout": readout},
            "number" if hand_off == "own" else "list",
            annealed_langevin,
            0,
        )
        for hand_off in ("own", "next", "half")
        for readout in (None, "alpha", "half", "full", 0.625)
    },
    **{
        f"cas-{readout}": (ConsistentAnnealedSampler, {"readout": readout}, "cas", consistent, 0)
        for readout in (None, "alpha", "half", "full", 0.3)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_law_is_that_of_the_published_algorithm(case: str) -> None:
    sampler_class, options, steps, algorithm, first = CASES[case]
    rng = np.random.default_rng(list(case.encode()))
    # Each prediction with both clocks.
    for trial in range(2 * len(PREDICTIONS)):
        single = algorithm in (langevin, noise_corrected) or sampler_class is HalfDenoisingSampler
        setting = random_setting(rng, 1 if single else int(rng.integers(2, 9)), steps)
        law, sigmas = setting.law, setting.sigmas
        prediction_type, sigma_data = PREDICTIONS[trial % len(PREDICTIONS)]
        sampler = sampler_class(
            **options,
            **setting.options,
            **({"sigma": sigmas[0]} if single else {"sigmas": sigmas}),
            prediction_type=prediction_type,
            timestep_type="sigma" if trial % 2 else "log_sigma",
            sigma_data=sigma_data,
        )
        sampler.set_timesteps(sum(setting.counts))
        start = law.noise(2 * setting.alphas[0] if first is None else first * sigmas[0] ** 2)
        scale = law.var + law.mean + law.m + 4 * sigmas[0] ** 2
        expected = algorithm(setting, **options)
        assert_same(law_of(sampler, start), expected, scale)
        assert_same(declared(sampler, start), expected, scale)


# ---- known numbers --------------------------------------------------------------------------

DATA = Law(1.3, 0.8, math.nan, math.nan)
POINT = DATA._replace(s=0.0)
START = {"mean": 0.5, "var": 1 / 12}  # uniform on [0, 1]
LADDER = {"sigmas": np.geomspace(3, 0.1, 8).tolist()}
RATIO = (0.1 / 3) ** (1 / 7)
FIVE = {**LADDER, "steps_per_level": 5}
ALD = {**FIVE, "step_size": 0.2 * 0.1**2}
ONCE = {**LADDER, "steps_per_level": 1}
DDIM = {**ONCE, "step_size": (1 - RATIO) * 0.1**2}
ONE = {"sigmas": [0.6]}

# Worked out apart from this code, and checked there by simulation (|z| < 2.7 with 2e5 chains):
# sampler, options, its initial law (with the first noise, where noise comes first), and variance at
# the end. A read-out of 0 leaves the chain as it enters the last rung.
UNIFORM, UNIFORM_POINT = DATA._replace(**START), POINT._replace(**START)
NUMBERS: dict[str, tuple[type[Sampler], dict[str, Any], Law, float]] = {
    "ald": (AnnealedLangevinSampler, ALD, UNIFORM, 1.266604),
    "ald-full": (AnnealedLangevinSampler, {**ALD, "readout": "full"}, UNIFORM, 1.227932),
    "alpha-half": (AlphaHalfDenoisingSampler, ALD, UNIFORM.noise(0.4 * 3**2), 1.039952),
    "annealed-half": (AnnealedHalfDenoisingSampler, FIVE, UNIFORM.noise(3**2), 0.684506),
    "cas": (ConsistentAnnealedSampler, {**ONCE, "step_size": 0.005}, DATA.at(3), 0.463349),
    "ddim": (ConsistentAnnealedSampler, {**DDIM, "readout": 0.0}, DATA.at(3), 0.519867),
    "ancestral": (ConsistentAnnealedSampler, {**ONCE, "readout": 0.0}, DATA.at(3), 0.419693),
    "one-half": (AnnealedLangevinSampler, {**ONE, "readout": "half"}, DATA.at(0.6), 0.672400),
    "one-full": (AnnealedLangevinSampler, {**ONE, "readout": "full"}, DATA.at(0.6), 0.409600),
    "one-exact": (AnnealedLangevinSampler, {**ONE, "readout": 1 / 1.8}, DATA.at(0.6), 0.64),
    "point-ald": (AnnealedLangevinSampler, ALD, UNIFORM_POINT, 0.013847),
    "point-alpha": (AlphaHalfDenoisingSampler, ALD, UNIFORM_POINT.noise(0.4 * 3**2), 0.008862),
    "point-half": (AnnealedHalfDenoisingSampler, FIVE, UNIFORM_POINT.noise(3**2), 0.003339),
    "point-ddim": (ConsistentAnnealedSampler, {**DDIM, "readout": 0.0}, POINT.at(3), 0.01),
    "point-ancestral": (ConsistentAnnealedSampler, {**ONCE, "readout": 0.0}, POINT.at(3), 0.01),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_known_number(case: str) -> None:
    sampler_class, options, start, variance = NUMBERS[case]
    sampler = sampler_class(**options)
    if options["sigmas"] == [0.6]:
        sampler.set_timesteps(1)
    law = law_of(sampler, start)
    # Half of the last digit printed.
    assert law.var == pytest.approx(variance, abs=5e-7, rel=0)
    if case == "ald":
        assert law.mean == pytest.approx(1.2760, abs=5e-5, rel=0)


@pytest.mark.parametrize(
    ("sampler_class", "sigma", "eta", "variance"),
    [
        (LangevinSampler, 0.6, 0.5, 1.098901),
        (LangevinSampler, 0.6, 1.3, 1.305483),
        (LangevinSampler, 1.0, 0.2, 1.746494),
        (AlphaHalfDenoisingSampler, 0.6, 0.5, 0.738901),
        (AlphaHalfDenoisingSampler, 0.6, 1.3, 0.369483),
        (AlphaHalfDenoisingSampler, 1.0, 0.2, 1.346494),
        (NoiseCorrectedLangevinSampler, 0.6, 0.5, 0.738901),
        (NoiseCorrectedLangevinSampler, 0.6, 1.3, 0.945483),
        (HalfDenoisingSampler, 0.6, 0.5, 0.738901),
    ],
)
def test_stationary_number(
    sampler_class: type[Sampler],
    sigma: float,
    eta: float,
    variance: float,
) -> None:
    single = sampler_class is not AlphaHalfDenoisingSampler
    options: dict[str, Any] = {"sigma": sigma} if single else {"sigmas": [sigma]}
    if sampler_class is not HalfDenoisingSampler:
        options["step_size"] = eta * sigma**2
    sampler = sampler_class(**options)
    # The memory of the start is (1 - alpha / V)^(2 T) <= 0.88^400 = 1e-22.
    sampler.set_timesteps(200)
    law = law_of(sampler, DATA._replace(mean=-5.0, var=7.0))
    assert law.mean == pytest.approx(DATA.m, abs=1e-9)
    assert law.var == pytest.approx(variance, abs=5e-7, rel=0)


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.7])
def test_noise_corrected_on_a_point(eta: float) -> None:
    """What is left is (mu / 2) / (1 - mu / 2 sigma^2): a third of sigma^2 for half-denoising."""
    sampler = NoiseCorrectedLangevinSampler(sigma=0.6, step_size=eta * 0.6**2, num_steps=100)
    law = law_of(sampler, POINT.at(0.6))
    # The memory of the start is (1 - eta)^200 <= 0.7^200 = 1e-31.
    assert law.var == pytest.approx(0.6**2 * (eta / 2) / (1 - eta / 2), rel=1e-10)


# ---- identities on shared noise, with data that are not Gaussian ----------------------------


def mixture(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The score of 0.3 N(-1, 0.2^2) + 0.7 N(1, 0.5^2), made noisy."""
    means = torch.tensor([-1.0, 1.0], dtype=x.dtype)
    variances = torch.tensor([0.2, 0.5], dtype=x.dtype) ** 2 + sigma**2
    gaps = means - x[..., None]
    logits = torch.tensor([0.3, 0.7]).log() - gaps**2 / (2 * variances) - variances.log() / 2
    return (logits.softmax(-1) * gaps / variances).sum(-1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def run_with(
    noises: Sequence[torch.Tensor],
    sampler: Sampler,
    x: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> list[torch.Tensor]:
    left = iter(noises)
    states = [x]
    with monkeypatch.context() as patch:
        patch.setattr(base, "randn_tensor", lambda *args, **kwargs: next(left))
        for t in sampler.timesteps:
            output = mixture(states[-1], t.item())
            states.append(sampler.step(output, t, states[-1]).prev_sample)
    return states


def assert_equal(states: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Equal to 1e-12: 40 moves, a few roundings each of 2e-16 of states of order 10."""
    for state, other in zip(states, expected, strict=True):
        torch.testing.assert_close(state, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 0.500001, 0.8, 1.5])
def test_noise_corrected_is_langevin_read_out(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sigma, steps = 0.7, 20
    mu = eta * sigma**2
    x0, n, nu = normal(9), normal(steps, 9, seed=1), normal(steps, 9, seed=2)
    # The published chain, with its two noises.
    x, published, noisy = x0, [], []
    for k in range(steps):
        noisy.append(x + sigma * n[k])
        x = noisy[-1] + mu * mixture(noisy[-1], sigma) + math.sqrt(2 * mu - sigma**2) * nu[k]
        published.append(x)
    # Those between two noisy states, as one.
    z = (math.sqrt(2 * mu - sigma**2) * nu[:-1] + sigma * n[1:]) / math.sqrt(2 * mu)
    corrected = NoiseCorrectedLangevinSampler(sigma=sigma, step_size=mu, num_steps=steps)
    states = run_with([*z, nu[-1]], corrected, noisy[0], monkeypatch)
    assert_equal(states, [*noisy, published[-1]])
    langevin = LangevinSampler(sigma=sigma, step_size=mu, num_steps=steps)
    assert_equal(run_with([*z, nu[-1]], langevin, noisy[0], monkeypatch)[:-1], noisy)
    if eta == 0.5:
        half = HalfDenoisingSampler(sigma=sigma, num_steps=steps)
        assert_equal(run_with(z, half, noisy[0], monkeypatch), states)


@pytest.mark.parametrize("half", [False, True])
def test_noise_first_is_annealed_langevin_with_the_next_noise(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigmas, per_level = [1.5, 0.9, 0.4, 0.1], 5
    alphas = [(0.5 if half else 0.3) * sigma**2 for sigma in sigmas]
    x, noises = normal(9), normal(20, 9, seed=1)
    start = x + math.sqrt(2 * alphas[0]) * noises[0]
    for k, z in enumerate(noises):
        sigma, alpha = sigmas[k // per_level], alphas[k // per_level]
        noisy = x + math.sqrt(2 * alpha) * z
        x = noisy + alpha * mixture(noisy, sigma)
    ladder = {"sigmas": sigmas, "steps_per_level": per_level}
    alpha_half = AlphaHalfDenoisingSampler(**ladder, step_size=alphas[-1])
    states = run_with(noises[1:], alpha_half, start, monkeypatch)
    assert_equal(states[-1:], [x])
    langevin = AnnealedLangevinSampler(
        **ladder, step_size=alphas[-1], hand_off="next", readout="alpha"
    )
    # Its read-out would be one more evaluation.
    langevin.set_timesteps(20)
    assert_equal(run_with(noises[1:], langevin, start, monkeypatch), states)
    if half:
        annealed_half = AnnealedHalfDenoisingSampler(**ladder)
        assert_equal(run_with(noises[1:], annealed_half, start, monkeypatch), states)


@pytest.mark.parametrize("steps", [2, 8, 40])
def test_consistent_without_noise_is_ddim(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sigmas = np.geomspace(3, 0.1, steps)
    x = 3 * normal(9)
    states = [x]
    for sigma, following in zip(sigmas, [*sigmas[1:], 0], strict=True):
        x = x + sigma * (sigma - following) * mixture(x, sigma)
        states.append(x)
    step_size = (1 - sigmas[1] / sigmas[0]) * 0.1**2
    sampler = ConsistentAnnealedSampler(
        sigma_max=3, sigma_min=0.1, num_levels=8, step_size=step_size, readout="full"
    )
    sampler.set_timesteps(steps)
    # Without noise to feed it, a draw would fail.
    assert_equal(run_with([], sampler, states[0], monkeypatch), states)
