"""`hdzoo verify`: every check of a sampler, whoever wrote it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.verification.bias import bias_curves
from hdzoo.verification.checks import CheckFailed, option_names, quiet_diffusers, small_sampler
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.laws import (
    Gaussian,
    NotAffineError,
    declared_law,
    deviation,
    exact_law,
    natural_start,
)
from hdzoo.verification.quadrature_law import REACH, GridChain, density_law, normal_law

CONFIGURATIONS = 200
# Chains have up to 32 moves of a few roundings, 1e-16 each of the largest number met, which exceeds
# the last by up to 1e3 here: 1e-11.
LAW_TOLERANCE = 1e-10
NUM_SAMPLES = 20_000
# Four statistics of each sampler, each beyond it once in 2 million.
MOST_STANDARD_ERRORS = 5.0
LEAST_P_VALUE = 1e-6


class NotApplicable(Exception):  # noqa: N818 - nothing is in error
    """A check has nothing to say on a sampler; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What a check found: one line for people, and the numbers."""

    message: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check of one sampler.

    Attributes:
        sampler: registered name.
        check: one of `CHECKS`.
        outcome: ``"pass"``, ``"fail"``, or ``"not applicable"``, which the message explains.
        message: what was measured, or what is wrong.
        numbers: the same for machines.
        seconds: what it took.
    """

    sampler: str
    check: str
    outcome: str
    message: str
    numbers: dict[str, Any]
    seconds: float


def verify(
    names: Sequence[str] | None = None, on_verdict: Callable[[Verdict], None] | None = None
) -> list[Verdict]:
    """Runs every check of every sampler.

    Args:
        names: registered names; all by default.
        on_verdict: called with each verdict as it comes.

    Raises:
        HDZooError: a name is unknown.
    """
    chosen = list(names) if names else plugins.list_samplers()
    for name in chosen:
        plugins.provider("samplers", name)
    verdicts = []
    for name in chosen:
        for check in CHECKS:
            verdicts.append(run_check(name, check))
            if on_verdict is not None:
                on_verdict(verdicts[-1])
    return verdicts


def run_check(name: str, check: str) -> Verdict:
    """Runs one check of one registered sampler; a failure is a verdict, not an exception."""
    begin = time.perf_counter()
    numbers: dict[str, Any] = {}
    try:
        with quiet_diffusers():
            finding = CHECKS[check](plugins.get_sampler(name))
        outcome, message, numbers = "pass", finding.message, finding.numbers
    except NotApplicable as reason:
        outcome, message = "not applicable", str(reason)
    except (CheckFailed, HDZooError) as failure:
        outcome, message = "fail", str(failure)
    except Exception as error:
        # A sampler may raise anything; the others are to be checked nevertheless.
        outcome, message = "fail", f"{type(error).__name__}: {error}"
    return Verdict(name, check, outcome, message, numbers, time.perf_counter() - begin)


# ---- the exact law --------------------------------------------------------------------------


def check_exact_law(sampler_class: type[Any]) -> Finding:
    """Compares the exact law with the closed form that the sampler declares, over random options.

    Random ladders, step sizes, numbers of evaluations, prediction types and Gaussian targets of
    dimension 3, some of them singular; the relative deviation may be 1e-10.
    """
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(CONFIGURATIONS):
        sampler, options = random_sampler(sampler_class, rng)
        target = random_target(rng)
        start = natural_start(sampler, target)
        if rng.random() < 0.5:
            start = start._replace(mean=rng.uniform(-2, 2, len(target.mean)))
        expected = declared_law(sampler, target, start)
        if expected is None:
            raise NotApplicable("no closed form is declared (Sampler.closed_form)")
        found = deviation(exact_law(sampler, target, start), expected)
        if not found <= LAW_TOLERANCE:
            raise CheckFailed(
                "the law is not that of the declared closed form: a relative deviation of "
                f"{found:.2g} (at most {LAW_TOLERANCE:g}) with {options}"
            )
        worst = max(worst, found)
    return Finding(
        f"{CONFIGURATIONS} configurations, largest relative deviation {worst:.1e}",
        {
            "summary": f"{worst:.0e}",
            "configurations": CONFIGURATIONS,
            "largest_relative_deviation": worst,
        },
    )


def random_target(rng: np.random.Generator) -> Gaussian:
    """A Gaussian target of dimension 3, turned at random; half of them are singular."""
    values = rng.uniform(0.05, 2.0, 3) ** 2
    if rng.random() < 0.5:
        values[0] = 0.0
    vectors = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Gaussian(rng.uniform(-2, 2, 3), vectors * values @ vectors.T)


def random_sampler(
    sampler_class: type[Any], rng: np.random.Generator
) -> tuple[Any, dict[str, Any]]:
    """A sampler with random options, as far as it has those that hdzoo's samplers share.

    Other options are drawn from the class attribute ``option_choices``. Those that the sampler
    refuses (`HDZooError`) are drawn anew.

    Returns:
        The sampler with its chain fixed, and its options and ``num_inference_steps``.
    """
    known = option_names(sampler_class)
    refusal: Exception | None = None
    for _ in range(1000):
        options = {key: value for key, value in _random_options(rng).items() if key in known}
        for key, choices in getattr(sampler_class, "option_choices", {}).items():
            options[key] = choices[rng.integers(len(choices))]
        steps = int(rng.integers(1, 33))
        try:
            sampler = sampler_class(**options)
            sampler.set_timesteps(steps)
        except HDZooError as error:
            refusal = error
            continue
        return sampler, options | {"num_inference_steps": steps}
    raise CheckFailed(f"1000 random configurations were refused, the last with: {refusal}")


def _random_options(rng: np.random.Generator) -> dict[str, Any]:
    # Ratios of neighbouring levels as in published ladders and coarser.
    ladder = float(rng.uniform(0.5, 4)) * np.cumprod(rng.uniform(0.45, 0.95, rng.integers(1, 9)))
    sigma = float(rng.uniform(0.05, 2))
    smallest = sigma if rng.random() < 0.5 else float(ladder[-1])
    eta = float(rng.uniform(0.05, 1.9))
    options: dict[str, Any] = {
        "sigma": smallest,
        "sigma_max": float(ladder[0]) * 1.1,
        "sigma_min": smallest,
        "num_levels": len(ladder),
        "num_steps": int(rng.integers(1, 33)),
        "steps_per_level": int(rng.integers(1, 7)),
        "timestep_type": ("sigma", "log_sigma")[rng.integers(2)],
        "sigma_data": None,
        "prediction_type": ("score", "epsilon", "scaled_score", "sample", "v_prediction")[
            rng.integers(5)
        ],
    }
    if rng.random() < 0.5:
        options |= {"sigmas": ladder.tolist()}
    if rng.random() < 0.2:
        options |= {
            "prediction_type": ("epsilon", "v_prediction")[rng.integers(2)],
            "sigma_data": float(rng.uniform(0.2, 2)),
        }
    smallest = options.get("sigmas", [smallest])[-1]
    step_sizes = (eta * smallest**2, (eta * ladder**2).tolist(), "ncsnv2", None)
    options["step_size"] = step_sizes[rng.integers(4)]
    return options


def check_bias(sampler_class: type[Any]) -> Finding:
    """Finds the exact distance to Gaussian data against cost, step size and noise level."""
    try:
        curves = bias_curves(sampler_class)
    except NotAffineError as reason:
        raise NotApplicable(str(reason)) from reason
    values = [value for curve in curves.values() for value in curve.values()]
    if not values:
        raise NotApplicable("the sampler refuses every number of network evaluations tried")
    if not np.isfinite(values).all():
        raise CheckFailed(f"the chain diverges on Gaussian data: {curves}")
    budget, last = list(curves["num_inference_steps"].items())[-1]
    return Finding(
        f"W2 {last:.2g} at {budget:g} NFE",
        {"summary": f"{last:.2g} ({budget:g})", "wasserstein2": curves},
    )


# ---- the law on a mixture -------------------------------------------------------------------


def check_monte_carlo(sampler_class: type[Any]) -> Finding:
    """Draws from a mixture with `HDPipeline` and compares with the exact law of the same chain.

    The samples are drawn in float32 as users draw them. Their mean, variance, share of the right
    mode and distribution function are compared with what quadrature gives for the chain's law, the
    bias against the mixture itself included: the samples may only differ by Monte Carlo error.
    """
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.targets.mixture import GaussianMixtureScore

    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25], [0.3, 0.7])
    ladder = {"sigma_max": 3.0, "num_levels": 8, "num_steps": 32, "sigma": 0.4}
    network = {"prediction_type": "score", "timestep_type": "sigma", "sigma_data": None}
    sampler = small_sampler(sampler_class, **ladder, **network)
    sampler.set_timesteps(32)
    level = float(sampler.init_noise_sigma)
    generator = torch.Generator().manual_seed(0)
    from_noise = getattr(sampler, "starts_from_noise", True)
    if from_noise:
        start = level * torch.randn(NUM_SAMPLES, 1, generator=generator)
    else:
        start = target.sample(NUM_SAMPLES, generator, sigma=level).float()
    pipe = HDPipeline(target, sampler)
    pipe.set_progress_bar_config(disable=True)
    (ends,) = pipe(num_inference_steps=32, latents=start, generator=generator, return_dict=False)
    samples = ends.double().numpy()[:, 0]
    found = _statistics(samples)

    try:
        reach = REACH * level + 4
        chain = GridChain(sampler, target.score, -reach, reach)
        first = density_law(target, level, chain.grid)
        law = chain.run(normal_law(0.0, level, chain.grid) if from_noise else first)
    except HDZooError as reason:
        raise NotApplicable(
            f"{reason}. Found: "
            + ", ".join(f"{k} {v:.3f} +- {s:.3f}" for k, (v, s) in found.items())
        ) from reason
    exact = {"mean": law.mean, "variance": law.variance, "right": law.probability_above(0.0)}
    stds = target.variances[:, 0].sqrt()
    above = stats.norm.sf(0.0, target.means[:, 0].numpy(), stds.numpy())
    truth = {
        "mean": target.mean.item(),
        "variance": target.covariance.item(),
        "right": float(target.weights.numpy() @ above),
    }
    p_value = float(stats.kstest(samples, lambda x: np.interp(x, law.points, law.cdf)).pvalue)
    numbers = {
        "num_samples": NUM_SAMPLES,
        "kolmogorov_smirnov_p_value": p_value,
        **{
            key: {"found": value, "standard_error": error, "exact": exact[key], "data": truth[key]}
            for key, (value, error) in found.items()
        },
    }
    gaps = {key: (value - exact[key]) / error for key, (value, error) in found.items()}
    worst = max(gaps, key=lambda key: abs(gaps[key]))
    if not (abs(gaps[worst]) <= MOST_STANDARD_ERRORS and p_value >= LEAST_P_VALUE):
        raise CheckFailed(
            f"{NUM_SAMPLES} samples drawn by HDPipeline do not have the law of the chain: "
            f"{worst} {found[worst][0]:.4f}, exactly {exact[worst]:.4f}, which is "
            f"{gaps[worst]:+.1f} standard errors (Kolmogorov-Smirnov p-value {p_value:.1e})"
        )
    value, error = found["right"]
    numbers["summary"] = (
        f"{value:.3f} ± {error:.3f}\nchain {exact['right']:.3f}\ndata {truth['right']:.3f}"
    )
    return Finding(
        f"right mode {value:.3f} +- {error:.3f} (chain {exact['right']:.3f}, "
        f"data {truth['right']:.3f}); largest gap {abs(gaps[worst]):.1f} s.e.",
        numbers,
    )


def _statistics(samples: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean, variance and share above 0, each with its standard error."""
    centred = samples - samples.mean()
    variance, right = centred.var(), (samples > 0).mean()
    errors = np.sqrt(
        np.array([variance, (centred**4).mean() - variance**2, right * (1 - right)]) / len(samples)
    )
    values = (samples.mean(), variance, right)
    return {
        key: (float(value), float(error))
        for key, value, error in zip(("mean", "variance", "right"), values, errors, strict=True)
    }


def _contract(clause: Callable[[type[Any]], str]) -> Callable[[type[Any]], Finding]:
    return lambda sampler_class: Finding(clause(sampler_class))


CHECKS: dict[str, Callable[[type[Any]], Finding]] = {
    **{name: _contract(clause) for name, clause in CONTRACT.items()},
    "exact-law": check_exact_law,
    "bias": check_bias,
    "monte-carlo": check_monte_carlo,
}


# ---- for people -----------------------------------------------------------------------------


def summary_rows(verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """One row for each sampler: the contract's clauses in one cell, then the laws."""
    rows = []
    for name in dict.fromkeys(verdict.sampler for verdict in verdicts):
        own = {verdict.check: verdict for verdict in verdicts if verdict.sampler == name}
        passed = sum(own[clause].outcome == "pass" for clause in CONTRACT)
        cells = {
            check: own[check].numbers.get("summary", own[check].outcome)
            for check in ("exact-law", "bias", "monte-carlo")
        }
        rows.append(
            {
                "sampler": name,
                "contract": f"{passed} of {len(CONTRACT)}",
                "law, relative error": cells["exact-law"],
                "bias, W2 (NFE)": cells["bias"],
                "mode weight": cells["monte-carlo"],
                "verdict": "fail" if any(v.outcome == "fail" for v in own.values()) else "pass",
                "s": f"{sum(verdict.seconds for verdict in own.values()):.1f}",
            }
        )
    return rows


def bias_rows(verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """One row for each curve of `hdzoo.verification.bias.bias_curves`."""
    return [
        {
            "sampler": verdict.sampler,
            "against": option,
            "W2 to the data": "  ".join(f"{value:g}: {w2:.3g}" for value, w2 in curve.items()),
        }
        for verdict in verdicts
        for option, curve in verdict.numbers.get("wasserstein2", {}).items()
    ]
