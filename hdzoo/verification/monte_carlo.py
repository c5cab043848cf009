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
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import Gaussian, declared_law, exact_law, natural_start
from hdzoo.verification.quadrature_law import REACH, GridChain, density_law, normal_law
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
    Monte Carlo error alone. A chain that remembers more than its state is compared on Gaussian data
    with its exact law there; one that is not affine, with the closed form that it declares
    (`check_declared`).
    """
    if on_signs(sampler_class):
        raise NotApplicable("its states are signs; see stationary-law")
    sampler = _small(sampler_class)
    data = _gaussian(1.0)
    with on_options(configuration(sampler)):
        start, not_affine = natural_start(sampler, data), None
        try:
            law = exact_law(sampler, data, start)
        except NotAffineError as reason:
            not_affine = reason
            if declared_law(sampler, data, start) is not None:
                return check_declared(sampler_class)
        try:
            reach = REACH * float(sampler.init_noise_sigma) + 4
            chain = GridChain(sampler, _mixture().score, -reach, reach)
        except HDZooError as reason:
            if not_affine is not None:
                raise NotApplicable(f"{not_affine}; no closed form is declared") from reason
            return _on_gaussian(sampler, data, law, "chain")
        return _on_mixture(chain)


def check_declared(sampler_class: type[Any]) -> Finding:
    """Draws on Gaussian data with `HDPipeline`, and compares with the closed form.

    A closed form that holds where all values are small, and not elsewhere, is that of a chain
    without a bound that this one has: then it is not a law to judge by.

    Raises:
        NotApplicable: that is so.
    """
    elsewhere: CheckFailed | None = None
    for scale in (1.0, 0.05):
        sampler, data = _small(sampler_class, scale), _gaussian(scale)
        with on_options(configuration(sampler)):
            law = declared_law(sampler, data, natural_start(sampler, data))
            if law is None:
                raise NotApplicable("no closed form is declared (Sampler.closed_form)")
            try:
                finding = _on_gaussian(sampler, data, law, "closed form")
            except CheckFailed as failure:
                if elsewhere is not None:
                    raise
                elsewhere = failure
                continue
        if elsewhere is None:
            return finding
    raise NotApplicable(
        "it has the law of its closed form where all values are small, and not elsewhere, for it "
        f"is not affine; so that is not a law to judge it by: {elsewhere}"
    )


def _small(sampler_class: type[Any], scale: float = 1.0) -> Any:
    """A sampler of levels of this scale, for a network that predicts scores."""
    levels = {"sigma_max": 3.0, "sigma_min": 0.1, "sigma": 0.4}
    options: dict[str, Any] = {key: scale * level for key, level in levels.items()}
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


def _gaussian(scale: float) -> Gaussian:
    return Gaussian.of(0.3 * scale, (0.5 * scale) ** 2)


def _on_mixture(chain: GridChain) -> Finding:
    sampler, target, generator = chain.sampler, _mixture(), torch.Generator().manual_seed(0)
    level = float(sampler.init_noise_sigma)
    if getattr(sampler, "starts_from_noise", True):
        start = level * torch.randn(NUM_SAMPLES, 1, generator=generator)
        first = normal_law(0.0, level, chain.grid)
    else:
        start = target.sample(NUM_SAMPLES, generator, sigma=level).float()
        first = density_law(target, level, chain.grid)
    samples = _draw(sampler, target, start, generator)
    law = chain.run(first)
    above = stats.norm.sf(0.0, target.means[:, 0].numpy(), target.variances[:, 0].sqrt().numpy())
    truth = {
        "mean": target.mean.item(),
        "variance": target.covariance.item(),
        "right": float(target.weights.numpy() @ above),
    }
    exact = {"mean": law.mean, "variance": law.variance, "right": law.probability_above(0.0)}
    found = _moments(samples)
    cdf: Callable[[Any], Any] = lambda x: np.interp(x, law.points, law.cdf)  # noqa: E731
    numbers, gap = _compared(samples, found, exact, cdf, truth)
    value, error = found["right"]
    summary = f"{value:.3f} ± {error:.3f}\nchain {exact['right']:.3f}\ndata {truth['right']:.3f}"
    return Finding(
        f"right mode {value:.3f} +- {error:.3f} (chain {exact['right']:.3f}, "
        f"data {truth['right']:.3f}); largest gap {gap:.1f} s.e.",
        numbers | {"summary": summary},
    )


def _on_gaussian(sampler: Any, data: Gaussian, law: Gaussian, whose: str) -> Finding:
    """Compares with a normal law on the line.

    Args:
        sampler: its chain is fixed.
        data: of dimension 1.
        law: what the samples should have.
        whose: what law that is.
    """
    from hdzoo.targets.mixture import GaussianMixtureScore

    model = GaussianMixtureScore.from_components([data.mean.tolist()], data.covariance.item())
    generator, start = torch.Generator().manual_seed(0), natural_start(sampler, data)
    z = torch.randn(NUM_SAMPLES, 1, generator=generator)
    first = float(start.mean[0]) + float(start.covariance[0, 0]) ** 0.5 * z
    samples = _draw(sampler, model, first, generator)
    found = _moments(samples)
    exact = {"mean": law.mean.item(), "variance": law.covariance.item()}
    truth = {"mean": data.mean.item(), "variance": data.covariance.item()}
    cdf = stats.norm(exact["mean"], exact["variance"] ** 0.5).cdf
    numbers, gap = _compared(samples, found, exact, cdf, truth)
    value, error = found["variance"]
    return Finding(
        f"on Gaussian data, variance {value:.3g} +- {error:.1g} ({whose} {exact['variance']:.3g}, "
        f"data {truth['variance']:.3g}); largest gap {gap:.1f} s.e.",
        numbers | {"summary": f"{value:.3f} ± {error:.3f}\n{whose} {exact['variance']:.3f}"},
    )


def _draw(sampler: Any, model: Any, start: torch.Tensor, generator: torch.Generator) -> np.ndarray:
    """The samples that `HDPipeline` draws from first states, on the line."""
    from hdzoo.pipelines.pipeline import HDPipeline

    pipe = HDPipeline(model, sampler)
    pipe.set_progress_bar_config(disable=True)
    (ends,) = pipe(
        num_inference_steps=sampler.num_inference_steps,
        latents=start,
        generator=generator,
        return_dict=False,
    )
    return np.asarray(ends.double().numpy()[:, 0])


def _compared(
    samples: np.ndarray,
    found: Moments,
    exact: dict[str, float],
    cdf: Callable[[Any], Any],
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
            f"{worst} {found[worst][0]:.4g}, exactly {exact[worst]:.4g}, which is "
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
