"""Samples that `HDPipeline` draws against the law that they should have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats

from hdzoo.errors import HDZooError
from hdzoo.verification.chain import on_signs
from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.configurations import configuration
from hdzoo.verification.laws import (
    Gaussian,
    NotAffineError,
    declared_law,
    exact_law,
    natural_start,
)
from hdzoo.verification.quadrature_law import REACH, GridChain, GridLaw, density_law, normal_law
from hdzoo.verification.small import small_sampler

NUM_SAMPLES = 20_000
STEPS = 32
# Four statistics of each sampler, each beyond it once in 2 million.
MOST_STANDARD_ERRORS = 5.0
LEAST_P_VALUE = 1e-6

Moments = dict[str, tuple[float, float]]


def check_monte_carlo(sampler_class: type[Any]) -> Finding:
    """Draws with `HDPipeline`, in float32 as users do, and compares with the exact law.

    On a mixture, with what quadrature gives for the chain's law, the bias against the mixture
    itself included: mean, variance, share of the right mode and distribution function may differ by
    Monte Carlo error alone. Where that cannot be found, because the chain remembers more than its
    state or its noise is not added, on Gaussian data: with the exact law of the chain, or if it is
    not affine, with the closed form that the sampler declares. A closed form that holds where all
    values are small, and not elsewhere, is that of a chain without a bound that this one has: then
    it is not a law to judge by.
    """
    if on_signs(sampler_class):
        raise NotApplicable("its states are signs; see stationary-law")
    try:
        chain = _chain(sampler_class)
    except HDZooError as reason:
        return _on_gaussian_data(sampler_class, str(reason))
    return _on_mixture(chain)


def draw(sampler: Any, model: Any, start: torch.Tensor, generator: torch.Generator) -> np.ndarray:
    """One coordinate of the samples that `HDPipeline` draws from a first state."""
    from hdzoo.pipelines.pipeline import HDPipeline

    pipe = HDPipeline(model, sampler)
    pipe.set_progress_bar_config(disable=True)
    steps = sampler.num_inference_steps
    (ends,) = pipe(num_inference_steps=steps, latents=start, generator=generator, return_dict=False)
    return np.asarray(ends.double().numpy()[:, 0])


def _small(sampler_class: type[Any], scale: float = 1.0) -> Any:
    """A sampler of levels of this scale, for a network that predicts scores."""
    options: dict[str, Any] = {
        "sigma_max": 3.0,
        "sigma_min": 0.1,
        "sigma": 0.4,
    }
    options = {key: scale * value for key, value in options.items()}
    options |= {"num_levels": 8, "num_steps": STEPS}
    options |= {"prediction_type": "score", "timestep_type": "sigma", "sigma_data": None}
    try:
        sampler = small_sampler(sampler_class, **options, step_size=0.005 * scale**2)
    except CheckFailed:
        sampler = small_sampler(sampler_class, **options, step_size=None)
    with on_options(configuration(sampler)):
        sampler.set_timesteps(STEPS)
    return sampler


def _mixture() -> Any:
    from hdzoo.targets.mixture import GaussianMixtureScore

    return GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25], [0.3, 0.7])


def _chain(sampler_class: type[Any]) -> GridChain:
    """A sampler's chain on the mixture.

    Raises:
        HDZooError: its law cannot be found by quadrature.
    """
    sampler = _small(sampler_class)
    reach = REACH * float(sampler.init_noise_sigma) + 4
    return GridChain(sampler, _mixture().score, -reach, reach)


def _on_mixture(chain: GridChain) -> Finding:
    sampler, target, generator = chain.sampler, _mixture(), torch.Generator().manual_seed(0)
    level = float(sampler.init_noise_sigma)
    from_noise = getattr(sampler, "starts_from_noise", True)
    if from_noise:
        start = level * torch.randn(NUM_SAMPLES, 1, generator=generator)
    else:
        start = target.sample(NUM_SAMPLES, generator, sigma=level).float()
    with on_options(configuration(sampler)):
        samples = draw(sampler, target, start, generator)
        first = normal_law(0.0, level, chain.grid) if from_noise else None
        law = chain.run(density_law(target, level, chain.grid) if first is None else first)
    above = stats.norm.sf(0.0, target.means[:, 0].numpy(), target.variances[:, 0].sqrt().numpy())
    truth = {
        "mean": target.mean.item(),
        "variance": target.covariance.item(),
        "right": float(target.weights.numpy() @ above),
    }
    exact = {"mean": law.mean, "variance": law.variance, "right": law.probability_above(0.0)}
    found = _moments(samples)
    numbers, gap = _compared(samples, found, exact, _cdf(law), truth)
    value, error = found["right"]
    summary = f"{value:.3f} ± {error:.3f}\nchain {exact['right']:.3f}\ndata {truth['right']:.3f}"
    return Finding(
        f"right mode {value:.3f} +- {error:.3f} (chain {exact['right']:.3f}, "
        f"data {truth['right']:.3f}); largest gap {gap:.1f} s.e.",
        numbers | {"summary": summary},
    )


def _on_gaussian_data(sampler_class: type[Any], why: str) -> Finding:
    try:
        return _on_gaussian(sampler_class, 1.0, why)
    except CheckFailed as failure:
        if failure.__cause__ is not None and isinstance(failure.__cause__, NotAffineError):
            _on_gaussian(sampler_class, 0.05, why)
            raise NotApplicable(
                "it has the law of its closed form where all values are small, and not elsewhere, "
                f"where it is not affine; so that is not a law to judge it by: {failure}"
            ) from failure
        raise


def _on_gaussian(sampler_class: type[Any], scale: float, why: str) -> Finding:
    from hdzoo.targets.mixture import GaussianMixtureScore

    sampler = _small(sampler_class, scale)
    data = Gaussian.of(0.3 * scale, (0.5 * scale) ** 2)
    start, generator = natural_start(sampler, data), torch.Generator().manual_seed(0)
    z = torch.randn(NUM_SAMPLES, 1, generator=generator)
    first = torch.tensor(start.mean) + torch.tensor(start.covariance).sqrt() * z
    not_affine: NotAffineError | None = None
    with on_options(configuration(sampler)):
        try:
            law = exact_law(sampler, data, start)
        except NotAffineError as reason:
            declared, not_affine = declared_law(sampler, data, start), reason
            if declared is None:
                raise NotApplicable(f"{why}; {reason}; no closed form is declared") from reason
            law = declared
        model = GaussianMixtureScore.from_components([data.mean.tolist()], data.covariance.item())
        samples = draw(sampler, model, first.float(), generator)
    found = _moments(samples)
    exact = {"mean": law.mean.item(), "variance": law.covariance.item()}
    truth = {"mean": data.mean.item(), "variance": data.covariance.item()}
    normal = stats.norm(exact["mean"], np.sqrt(exact["variance"]))
    try:
        numbers, gap = _compared(samples, found, exact, normal.cdf, truth)
    except CheckFailed as failure:
        raise CheckFailed(str(failure)) from not_affine
    value, error = found["variance"]
    whose = "chain" if not_affine is None else "closed form"
    summary = f"{value:.3f} ± {error:.3f}\n{whose} {exact['variance']:.3f}"
    return Finding(
        f"on Gaussian data, variance {value:.3f} +- {error:.3f} ({whose} {exact['variance']:.3f}, "
        f"data {truth['variance']:.3f}); largest gap {gap:.1f} s.e.",
        numbers | {"summary": summary},
    )


def _compared(
    samples: np.ndarray,
    found: Moments,
    exact: dict[str, float],
    cdf: Callable[[np.ndarray], Any],
    truth: dict[str, float],
) -> tuple[dict[str, Any], float]:
    """The numbers, and the largest gap in standard errors.

    Raises:
        CheckFailed: the samples have another law.
    """
    p_value = float(stats.kstest(samples, cdf).pvalue)
    gaps = {key: (found[key][0] - exact[key]) / max(found[key][1], 1e-300) for key in exact}
    worst = max(gaps, key=lambda key: abs(gaps[key]))
    if not (abs(gaps[worst]) <= MOST_STANDARD_ERRORS and p_value >= LEAST_P_VALUE):
        raise CheckFailed(
            f"{len(samples)} samples drawn by HDPipeline do not have the law of the chain: "
            f"{worst} {found[worst][0]:.4f}, exactly {exact[worst]:.4f}, which is "
            f"{gaps[worst]:+.1f} standard errors (Kolmogorov-Smirnov p-value {p_value:.1e})"
        )
    numbers: dict[str, Any] = {
        "num_samples": len(samples),
        "kolmogorov_smirnov_p_value": p_value,
    }
    for key, value in exact.items():
        mean, error = found[key]
        part = {"found": mean, "standard_error": error, "exact": value, "data": truth[key]}
        numbers[key] = part
    return numbers, abs(gaps[worst])


def _cdf(law: GridLaw) -> Callable[[np.ndarray], Any]:
    return lambda x: np.interp(x, law.points, law.cdf)


def _moments(samples: np.ndarray) -> Moments:
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
