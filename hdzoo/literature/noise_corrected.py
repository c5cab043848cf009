r"""Noise-corrected Langevin and half-denoising, against Langevin with and without the data's score.

Hyvärinen (arXiv 2410.05837) corrects Langevin dynamics for a score that is that of noisy data. Here
every law is found by quadrature through the samplers' own ``step``, so two errors can be told
apart that a simulation would show as one:

* that of the noise: the distance to *oracle* Langevin, the same walk on the score of the data;
* that of the step: what oracle Langevin itself is off by, :math:`\mu / 2` in the variance to first
  order.

On Gaussian data of variance :math:`s^2`, with :math:`V = s^2 + \sigma^2`, the stationary variances
are

.. math::
    s^2 + \frac{\mu / 2}{1 - \mu / 2 s^2} \; \text{(oracle)}, \quad
    \frac{V}{1 - \mu / 2V} \; \text{(basic)}, \quad
    s^2 + \frac{\mu / 2}{1 - \mu / 2V} \; \text{(noise-corrected)}
"""

from typing import Any

import numpy as np
import torch

from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.literature.averaged import averaged_noise_law
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.literature.denoising import denoised, label_axes, power_law
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.half_denoising import HalfDenoisingSampler, NoiseCorrectedLangevinSampler
from hdzoo.samplers.langevin import LangevinSampler
from hdzoo.targets.named import two_gaussians
from hdzoo.verification.laws import Gaussian, exact_law
from hdzoo.verification.quadrature_law import GridChain, GridLaw, density_law, moved

SIGMAS = (0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.075)
# Above, the noise is as wide as the modes, and no power law holds.
FITTED = SIGMAS[2:]
# The widest law here has a standard deviation of 1 in each mode.
ENDS = (-11.0, 11.0)
FINE = np.linspace(*ENDS, 20_001)
# Noise that is none: the score at it is that of the data to all digits.
NO_NOISE = 1e-9

EIGENVALUES = np.geomspace(1.0, 0.03, 10)
GAUSSIAN_SIGMA = 0.3

# Key, what the picture calls it, and how it is drawn.
CURVES = {
    "basic": ("Langevin on the noisy score", "C3s-"),
    "oracle": ("oracle Langevin", "k^-"),
    "half": ("half-denoising", "C0o-"),
    "oracle_long": (r"oracle Langevin, $\mu = \sigma^2$", "k^:"),
    "corrected_long": (r"noise-corrected, $\mu = \sigma^2$", "C0o:"),
    "averaged": ("half-denoising, averaged noise", "C6*-"),
    "walk_jump": ("walk-jump", "C1D-"),
    "one_shot_full": ("one-shot full", "C4v--"),
    "one_shot_half": ("one-shot half", "C2P--"),
    "one_shot_second_order": (r"one-shot $T_2$", "C5X--"),
}


def run(progress: Progress) -> Reproduction:
    """Finds every law at every noise level, and the Gaussian ones in closed form."""
    target = two_gaussians()
    data = density_law(target, 0.0, FINE)
    distances: dict[str, list[float]] = {name: [] for name in CURVES}
    noise_bias: dict[str, list[float]] = {"basic": [], "half": [], "corrected_long": []}
    chains: dict[str, list[Any]] = {"oracle": [], "basic": [], "half": []}
    for done, sigma in enumerate(SIGMAS, 1):
        found, lengths = laws(target, sigma)
        for name, law in found.items():
            distances[name].append(law.wasserstein2(data))
        for name, values in noise_bias.items():
            oracle = found["oracle_long" if name == "corrected_long" else "oracle"]
            values.append(found[name].wasserstein2(oracle))
        for name, walks in chains.items():
            walks.append(lengths[name])
        progress(
            f"sigma = {sigma:g}: W2 {distances['oracle'][-1]:.3g} (oracle), "
            f"{distances['half'][-1]:.3g} (half-denoising), {distances['basic'][-1]:.3g} (basic)",
            done,
            len(SIGMAS),
        )
    spectrum = gaussian_data(EIGENVALUES, GAUSSIAN_SIGMA)
    progress(f"Gaussian data: formulas and samplers agree to {spectrum['deviation']:.1e}")

    start = SIGMAS.index(FITTED[0])
    slopes = {name: power_law(FITTED, values[start:]) for name, values in distances.items()}
    noise_slopes = {name: power_law(FITTED, values[start:]) for name, values in noise_bias.items()}
    numbers = {
        "sigmas": SIGMAS,
        "wasserstein2": distances,
        "slopes": {name: slope._asdict() for name, slope in slopes.items()},
        "wasserstein2_to_oracle": noise_bias,
        "slopes_to_oracle": {name: slope._asdict() for name, slope in noise_slopes.items()},
        "chains": chains,
        "gaussian": spectrum,
    }
    at = SIGMAS.index(0.3)
    ratio = np.divide(distances["basic"], distances["oracle"])
    relaxation = {name: [c["relaxation"] for c in walks] for name, walks in chains.items()}
    times = np.divide(relaxation["half"], relaxation["oracle"])
    claims = [
        Claim(
            "Langevin dynamics on the score of noisy data is biased",
            "biased (abstract); numbers not public",
            f"W2 {distances['basic'][at]:.4f} at sigma = 0.3, of order {slopes['basic']}: "
            f"{min(ratio):.1f} to {max(ratio):.1f} times that of oracle Langevin",
            distances["basic"][at] > 2 * distances["oracle"][at],
        ),
        Claim(
            "The correction removes the bias due to the noise, to first order in its variance",
            "removed, at least regarding first-order terms (abstract); numbers not public",
            f"W2 to oracle Langevin with the same step is of order {noise_slopes['half']}, and "
            f"{noise_slopes['corrected_long']} at mu = sigma^2, against {noise_slopes['basic']} "
            "without the correction",
            noise_slopes["half"].exponent > 3 and noise_slopes["corrected_long"].exponent > 3,
        ),
        Claim(
            "What is left: the bias of the step, mu / 2 in the variance",
            "not public",
            f"W2 to the data is of order {slopes['half']} in sigma for iterated half-denoising, "
            f"as for oracle Langevin ({slopes['oracle']}): at sigma = 0.3 "
            f"{distances['half'][at]:.4f} and {distances['oracle'][at]:.4f}; at mu = sigma^2 "
            f"{distances['corrected_long'][at]:.4f} and {distances['oracle_long'][at]:.4f}",
        ),
        Claim(
            "Averaged noise (Leimkuhler and Matthews, arXiv 1203.5428) removes it at no cost",
            "of second order in the step (abstract); of half-denoising not public",
            "W2 to the data, half-denoising and with averaged noise: "
            + ", ".join(
                f"{distances['half'][at]:.3g} and {distances['averaged'][at]:.3g} at sigma = {s:g}"
                for at, s in enumerate(SIGMAS)
                if s in (0.6, 0.4, 0.3, 0.15)
            )
            + f"; of order {slopes['averaged']}",
            slopes["averaged"].exponent > 3,
        ),
        Claim(
            "Half-denoising mixes like oracle Langevin with the same step",
            "not public",
            f"relaxation in {min(times):.2f} to {max(times):.2f} times as many steps",
        ),
        Claim(
            "Gaussian data in d = 10: the stationary variances",
            "not public",
            f"the closed forms hold to {spectrum['deviation']:.1e}; W2 at sigma = 0.3: "
            "{oracle:.4f} (oracle), {basic:.4f} (basic), {half:.4f} (half-denoising), "
            "{corrected_long:.4f} (noise-corrected, mu = sigma^2)".format(
                **spectrum["wasserstein2"]
            ),
        ),
        Claim(
            "One denoising step of exact noisy data: half of it, and Liang's T2 (arXiv 2511.09500)",
            "O(sigma^4) and O(sigma^6), in moments and densities (abstract)",
            f"W2 of order {slopes['one_shot_half']} and {slopes['one_shot_second_order']}, and "
            f"{_last_slope(distances['one_shot_half']):.2f} and "
            f"{_last_slope(distances['one_shot_second_order']):.2f} at the smallest sigma; a full "
            f"step {slopes['one_shot_full']}",
            abs(_last_slope(distances["one_shot_half"]) - 4) < 0.2
            and abs(_last_slope(distances["one_shot_second_order"]) - 6) < 0.2,
        ),
    ]
    return Reproduction(
        title="Noise-corrected Langevin and half-denoising",
        source="Hyvärinen, A noise-corrected Langevin algorithm and sampling by half-denoising, "
        "arXiv 2410.05837 (TMLR 2025)",
        claims=claims,
        numbers=numbers,
        draw=lambda figure: draw(figure, numbers),
        conclusion="The bias of the noise is removed: half-denoising ends where oracle Langevin "
        "does, up to O(sigma^4). The bias of the discretisation, mu / 2 in the variance with "
        "mu >= sigma^2 / 2, remains; so the distance of iterated half-denoising to the data is "
        "O(sigma^2), like that of every Langevin walk with such a step and unlike that of one "
        "half-denoising step of exact noisy data, which is O(sigma^4).",
        settings={
            "target": "two-gaussians",
            "step_size": "sigma^2 / 2, and sigma^2 where it says long",
            "fitted_sigmas": FITTED,
            "slope_error": "standard error of the least-squares fit of the logarithms",
            "stationary": "twice as many steps change the law by at most 1e-12 in total variation",
        },
    )


def laws(target: Any, sigma: float) -> tuple[dict[str, GridLaw], dict[str, dict[str, float]]]:
    """The law that each method ends with, and of the walks how long they take.

    Args:
        target: a one-dimensional `hdzoo.targets.analytic.AnalyticScore`.
        sigma: the noise level.
    """
    half, full = sigma**2 / 2, sigma**2
    walks: dict[str, SingleLevelSampler] = {
        "oracle": LangevinSampler(sigma=NO_NOISE, step_size=half, num_steps=1),
        "oracle_long": LangevinSampler(sigma=NO_NOISE, step_size=full, num_steps=1),
        "basic": LangevinSampler(sigma=sigma, step_size=half, num_steps=1),
        # One step of the walk, which is repeated, and the read-out.
        "half": HalfDenoisingSampler(sigma=sigma, num_steps=2),
        "corrected_long": NoiseCorrectedLangevinSampler(sigma=sigma, step_size=full, num_steps=2),
    }
    found, lengths = {}, {}
    for name, sampler in walks.items():
        found[name], lengths[name] = long_chain(sampler, target)
    averaged = averaged_noise_law(target, sigma, *ENDS)
    found["averaged"] = denoised(averaged, target.score, sigma, "half")
    noisy = density_law(target, sigma, FINE)
    found["walk_jump"] = denoised(found["basic"], target.score, sigma, "full")
    found["one_shot_half"] = denoised(noisy, target.score, sigma, "half")
    found["one_shot_full"] = denoised(noisy, target.score, sigma, "full")
    found["one_shot_second_order"] = second_order(noisy, target, sigma)
    return found, lengths


def long_chain(sampler: SingleLevelSampler, target: Any) -> tuple[GridLaw, dict[str, float]]:
    """The law at the end of an endless chain: the first step for ever, then the chain as it is.

    Args:
        sampler: Markov, at one noise level.
        target: as in `laws`.

    Returns:
        The law; the number of steps after which twice as many change nothing, and the relaxation
        time in steps.
    """
    chain = GridChain(sampler, target.score, *ENDS)
    settled, steps = chain.stationary(density_law(target, sampler.config.sigma, chain.grid))
    return chain.run(settled), {"steps": steps // 2, "relaxation": chain.relaxation_time()}


def second_order(law: GridLaw, target: Any, sigma: float) -> GridLaw:
    r"""The law of Liang's second denoiser of noisy points,

    .. math:: T_2(y) = y + \frac{\sigma^2}{2} s - \frac{\sigma^4}{8} \nabla
        \left( \frac12 |s|^2 + \nabla \cdot s \right)

    Source: Liang (arXiv 2511.09500), abstract.
    """
    y = torch.from_numpy(law.points)[:, None].requires_grad_()
    s = _gradient(target.log_density(y, sigma), y)
    push = _gradient(s**2 / 2 + _gradient(s, y), y)
    return moved(law, (y + sigma**2 / 2 * s - sigma**4 / 8 * push).detach().numpy()[:, 0])


def _gradient(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]


def gaussian_data(eigenvalues: np.ndarray, sigma: float) -> dict[str, Any]:
    """Gaussian data of many variances: the closed forms, and the samplers' exact laws.

    A chain of two steps that starts with the law of the closed form has to end with it.

    Args:
        eigenvalues: of the data's covariance, each above a quarter of ``sigma^2``, below which
            oracle Langevin diverges.
        sigma: the noise level.

    Returns:
        Stationary variances in each direction, W2 to the data, and the largest relative deviation
        of an exact law from its formula.
    """
    mu, noisy = sigma**2 / 2, eigenvalues + sigma**2
    target = Gaussian.of(np.zeros_like(eigenvalues), eigenvalues)

    def corrected(step_size: float) -> np.ndarray:
        return eigenvalues + step_size / 2 / (1 - step_size / (2 * noisy))

    # The sampler, the formula for its end, and the variance its state has besides.
    cases: dict[str, tuple[SingleLevelSampler, np.ndarray, float]] = {
        "oracle": (
            LangevinSampler(sigma=NO_NOISE, step_size=mu),
            eigenvalues + mu / 2 / (1 - mu / (2 * eigenvalues)),
            0.0,
        ),
        "basic": (LangevinSampler(sigma=sigma, step_size=mu), noisy / (1 - mu / (2 * noisy)), 0.0),
        "half": (HalfDenoisingSampler(sigma=sigma), corrected(mu), sigma**2),
        "corrected_long": (
            NoiseCorrectedLangevinSampler(sigma=sigma, step_size=2 * mu),
            corrected(2 * mu),
            sigma**2,
        ),
    }
    deviations, distances = [], {}
    for name, (sampler, formula, besides) in cases.items():
        sampler.set_timesteps(2)
        law = exact_law(sampler, target, Gaussian.of(target.mean, formula + besides))
        deviations.append(np.abs(law.covariance - np.diag(formula)).max() / formula.min())
        distances[name] = gaussian_wasserstein2(*law, *target)
    return {
        "sigma": sigma,
        "eigenvalues": eigenvalues.tolist(),
        "variances": {name: formula.tolist() for name, (_, formula, _) in cases.items()},
        "wasserstein2": distances,
        "deviation": float(max(deviations)),
    }


def _last_slope(distances: list[float]) -> float:
    """The power between the two smallest noise levels."""
    return float(np.log(distances[-2] / distances[-1]) / np.log(SIGMAS[-2] / SIGMAS[-1]))


def draw(figure: Any, numbers: dict[str, Any]) -> None:
    """Three panels: distance to the data, distance to oracle Langevin, Gaussian data."""
    figure.set_size_inches(16, 5.2)
    left, middle, right = figure.subplots(1, 3)
    slopes = numbers["slopes"]
    for name, (label, style) in CURVES.items():
        power = f"{label} ({slopes[name]['exponent']:.2f})"
        left.plot(SIGMAS, numbers["wasserstein2"][name], style, label=power, markersize=5)
    label_axes(
        left,
        "Distance to the data (in brackets: the fitted power of $\\sigma$)",
        r"noise level $\sigma$; step size $\mu = \sigma^2 / 2$ unless stated",
        "$W_2$ to the data, by quadrature",
    )
    left.set_ylim(1e-7, 0.6)
    left.legend(fontsize=8, loc="lower right")

    for name, values in numbers["wasserstein2_to_oracle"].items():
        label, style = CURVES[name]
        power = f"{label} ({numbers['slopes_to_oracle'][name]['exponent']:.2f})"
        middle.plot(SIGMAS, values, style, label=power, markersize=5)
    label_axes(
        middle,
        "The error of the noise alone",
        r"noise level $\sigma$",
        r"$W_2$ to oracle Langevin with the same $\mu$",
    )
    for axes in (left, middle):
        axes.set_xticks(SIGMAS)

    gaussian = numbers["gaussian"]
    eigenvalues = np.array(gaussian["eigenvalues"])
    for name, variances in gaussian["variances"].items():
        label, style = CURVES[name]
        excess = np.array(variances) / eigenvalues - 1
        right.plot(eigenvalues, excess, style, label=label, markersize=5)
    label_axes(
        right,
        rf"Gaussian data, $d = {len(eigenvalues)}$, $\sigma = {gaussian['sigma']:g}$: "
        "excess variance",
        "eigenvalue $s^2$ of the data's covariance",
        "stationary variance / $s^2$ - 1",
    )
