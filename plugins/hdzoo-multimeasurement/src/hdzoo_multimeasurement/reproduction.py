r"""Noisy measurements in turn are ever more log-concave, and mix where all at once do not.

The target is two Gaussians of covariance :math:`I` at :math:`\pm 3 (1, \dots, 1)` with weights 0.2
and 0.8. With :math:`\sigma^2 = 9 d - 1` the density of one measurement is just log-concave.

* The smallest eigenvalue of :math:`-\nabla^2 \log p(y_t \mid y_1, \dots, y_{t-1})` is
  :math:`(1 - \lambda / \sigma^2) / \sigma^2`, :math:`\lambda` the largest one of
  :math:`Cov[x_0 \mid y_1, \dots, y_t]`, which is known exactly on mixtures.
* Digits of `ncsn-mnist`, and how many of them an independent classifier recognises.
* The distance of samples to the target, along the line through the modes, against the dimension:
  in turn, all at once, and by Langevin dynamics without noise, at equal cost.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from hdzoo import GaussianMixtureScore, HDPipeline, LangevinSampler, sample_generators
from hdzoo.bundled import bundled_folder
from hdzoo.distances import wasserstein2_1d
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.plots import style
from hdzoo.targets.named import digits
from hdzoo_multimeasurement.joint import JointMultimeasurementSampler
from hdzoo_multimeasurement.sequential import SequentialMultimeasurementSampler

WEIGHTS = (0.2, 0.8)
DIMENSIONS = (2, 4, 8, 16, 32, 64)
MEASUREMENTS, EVALUATIONS_EACH = 32, 16
SAMPLES = 256
# Of the mixture fitted to digits, 8 x 8 pixels from 0 to 1.
DIGITS_SIGMA = 1.5
# Each with its own best settings found.
MODEL = "ncsn-mnist"
ON_DIGITS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "sequential": (SequentialMultimeasurementSampler, {}),
    "joint": (
        JointMultimeasurementSampler,
        {"num_measurements": 4, "walk": "averaged-noise-langevin", "step_size": 0.8},
    ),
    "joint, published": (
        JointMultimeasurementSampler,
        {"num_measurements": 16, "walk_options": {"friction": 0.5, "friction_per": "time"}},
    ),
}
IMAGES, CONFIDENT = 48, 0.9
COUNTS = (1, 2, 4, 8, 16, 32, 64)
DRAWS = 100

Numbers = dict[str, Any]


def run(progress: Progress) -> Reproduction:
    """Finds the curvatures and the distances."""
    curvature = {
        name: curvatures(target, sigma)
        for name, (target, sigma) in {
            "two Gaussians, d = 2": (modes(2), threshold(2)),
            "two Gaussians, d = 2, half the noise": (modes(2), threshold(2) / 2),
            "two Gaussians, d = 16": (modes(16), threshold(16)),
            "digits": (digits(), DIGITS_SIGMA),
        }.items()
    }
    worst = {str(d): [worst_curvature(d, threshold(d), t) for t in COUNTS] for d in (2, 16)}
    distances: Numbers = {}
    for done, dimension in enumerate(DIMENSIONS, 1):
        distances[str(dimension)] = row = on_modes(dimension)
        said = ", ".join(f"{name} {found['wasserstein2']:.2f}" for name, found in row.items())
        progress(f"d = {dimension}: W2 {said}", done, len(DIMENSIONS))
    recognised: Numbers = {}
    pictures: dict[str, torch.Tensor] = {}
    for name, (sampler, options) in ON_DIGITS.items():
        pictures[name] = on_digits(sampler, options)
        recognised[name] = share_recognised(pictures[name])
        progress(f"{MODEL}, {name}: recognised {recognised[name]:.0%}")
    numbers = {
        "recognised": recognised,
        "curvature_times_variance": curvature,
        "worst_curvature_times_variance": worst,
        "by_dimension": distances,
    }
    return Reproduction(
        title="Sequential and joint multimeasurement sampling",
        source="Saremi, Park and Bach, arXiv 2305.19473 (ICLR 2024); Saremi and Srivastava, arXiv "
        "2112.09822 (ICLR 2022)",
        claims=claims(numbers),
        numbers=numbers,
        draw=partial(draw, numbers, pictures),
        conclusion="Each measurement given those before is easier to draw than the last. All of "
        "them at once are one walk at the noise of their mean: as hard as that level is.",
        settings={
            "weights": list(WEIGHTS),
            "sigma": "sqrt(9 d - 1)",
            "num_measurements": MEASUREMENTS,
            "evaluations": MEASUREMENTS * EVALUATIONS_EACH,
            "walk": SequentialMultimeasurementSampler().config.walk,
            "langevin_step_size": 0.1,
            "samples": SAMPLES,
            "draws_of_measurements": DRAWS,
            "images": IMAGES,
            "recognised": f"a class of mnist-classifier has a probability of {CONFIDENT} or more",
            "on_digits": {name: options for name, (_, options) in ON_DIGITS.items()},
        },
    )


def threshold(dimension: int) -> float:
    """The noise at which the density of one measurement is just log-concave."""
    return math.sqrt(9 * dimension - 1)


def modes(dimension: int) -> GaussianMixtureScore:
    """The target."""
    means = torch.tensor([[-3.0], [3.0]], dtype=torch.float64).expand(2, dimension)
    return GaussianMixtureScore.from_components(means, 1.0, WEIGHTS)


# ---- how concave --------------------------------------------------------------------------------


def worst_curvature(dimension: int, sigma: float, count: int) -> float:
    r"""The smallest eigenvalue over all measurements, times :math:`\sigma^2`.

    They are worst where both modes are as likely. With the variance ``c`` that is left within a
    mode, :math:`\lambda = c + \tfrac14 |\Delta|^2`, and the posterior means of the two modes, which
    are :math:`6 (1, \dots, 1)` apart themselves, are :math:`\Delta = 6 c (1, \dots, 1)` apart.
    """
    level = sigma**2 / count
    within = level / (1 + level)
    between = (6 * within) ** 2 * dimension / 4
    return 1 - (within + between) / sigma**2


def curvatures(target: GaussianMixtureScore, sigma: float) -> list[dict[str, float]]:
    r"""The smallest eigenvalue given so many measurements, times :math:`\sigma^2`, over draws."""
    generator = torch.Generator().manual_seed(0)
    clean = target.sample(DRAWS, generator).flatten(1).double()
    shape = DRAWS, max(COUNTS), clean.shape[1]
    noise = torch.randn(shape, generator=generator, dtype=clean.dtype)
    means = clean[:, None] + sigma * noise.cumsum(1) / torch.arange(1, shape[1] + 1)[:, None]
    rows = []
    for count in COUNTS:
        values = curvature(target, means[:, count - 1], sigma, count).numpy()
        rows.append({"mean": values.mean(), "least": values.min(), "most": values.max()})
    return [{key: float(value) for key, value in row.items()} for row in rows]


def curvature(
    target: GaussianMixtureScore, means: torch.Tensor, sigma: float, count: int
) -> torch.Tensor:
    r"""The smallest eigenvalue of :math:`-\sigma^2 \nabla^2 \log p(y_t \mid y_1, \dots, y_{t-1})`.

    Args:
        target: the law of the data, of dimension d.
        means: of the measurements, shape (n, d).
        sigma: of one measurement.
        count: how many measurements there are.
    """
    points = means.unflatten(1, target.sample_shape)
    covariance = target.posterior_covariance(points, sigma / math.sqrt(count))
    return 1 - torch.linalg.eigvalsh(covariance)[:, -1] / sigma**2


# ---- how far ------------------------------------------------------------------------------------


def on_modes(dimension: int) -> dict[str, dict[str, float]]:
    """What each way of sampling comes to, at equal cost."""
    target, sigma = modes(dimension), threshold(dimension)
    evaluations = MEASUREMENTS * EVALUATIONS_EACH
    many = {"sigma": sigma, "num_measurements": MEASUREMENTS}
    samplers: dict[str, Any] = {
        "sequential": SequentialMultimeasurementSampler(**many),
        "joint": JointMultimeasurementSampler(**many),
        # The score at so little noise is that of the data.
        "Langevin": LangevinSampler(sigma=1e-6, step_size=0.1),
    }
    found = {}
    for name, sampler in samplers.items():
        generator = torch.Generator().manual_seed(0)
        first = 2 * torch.rand(SAMPLES, dimension, generator=generator) - 1
        start = first + float(sampler.sigmas[0]) * torch.randn(first.shape, generator=generator)
        pipe = HDPipeline(target, sampler)
        pipe.set_progress_bar_config(disable=True)
        samples = pipe(latents=start, num_inference_steps=evaluations, generator=generator).images
        found[name] = measured(samples.double().numpy())
    exact = target.sample(SAMPLES, torch.Generator().manual_seed(1))
    return found | {"exact samples": measured(exact.double().numpy())}


def measured(samples: np.ndarray) -> dict[str, float]:
    """Distance along the line through the modes, weight of the first, and width within them."""
    dimension = samples.shape[1]
    along, centre = samples.sum(1) / math.sqrt(dimension), 3 * math.sqrt(dimension)
    shares = (np.arange(4000) + 0.5) / 4000
    quantiles = [norm.ppf(shares, loc) for loc in (-centre, centre)]
    weights = np.repeat(np.array(WEIGHTS) / len(shares), len(shares))
    left = along < 0
    within = np.concatenate([along[left] + centre, along[~left] - centre])
    return {
        "wasserstein2": wasserstein2_1d(along, np.concatenate(quantiles), None, weights),
        "weight": float(left.mean()),
        "std_within": float(np.sqrt((within**2).mean())),
    }


# ---- digits -------------------------------------------------------------------------------------


def on_digits(sampler: type[Any], options: dict[str, Any]) -> torch.Tensor:
    """Images of the network, from noise, with the sampler's own number of evaluations."""
    pipe = HDPipeline.from_pretrained(MODEL)
    pipe.scheduler = sampler.from_config(pipe.scheduler.config, **options)
    pipe.set_progress_bar_config(disable=True)
    (images,) = pipe(
        batch_size=IMAGES,
        generator=sample_generators(0, range(IMAGES)),
        output_type="pt",
        return_dict=False,
    )
    return torch.as_tensor(images)


def share_recognised(images: torch.Tensor) -> float:
    """How many of the images the classifier is sure of."""
    classifier = DigitClassifier.from_pretrained(bundled_folder() / "mnist-classifier").eval()
    with torch.no_grad():
        sure = classifier(images).logits.softmax(-1).amax(-1)
    return (sure >= CONFIDENT).double().mean().item()


# ---- what comes of it ---------------------------------------------------------------------------


def claims(numbers: Numbers) -> list[Claim]:
    rows, worst = numbers["by_dimension"], numbers["worst_curvature_times_variance"]
    curvature = numbers["curvature_times_variance"]
    growing = all(np.diff([row["mean"] for row in curve]).min() > 0 for curve in curvature.values())
    means = "; ".join(
        f"{name}: {curve[0]['mean']:.2f} to {curve[-1]['mean']:.3f}"
        for name, curve in curvature.items()
    )
    better = [
        row["sequential"]["wasserstein2"] < row["joint"]["wasserstein2"] for row in rows.values()
    ]

    def said(name: str, key: str) -> str:
        return ", ".join(f"{row[name][key]:.2f}" for row in rows.values())

    return [
        Claim(
            "-Hess log p(y_t | past): its smallest eigenvalue grows with t",
            "yes: more and more log-concave",
            f"in units of 1 / sigma^2, mean over draws, t = 1 to {COUNTS[-1]}: {means}",
            growing,
        ),
        Claim(
            "The same at its worst, two Gaussians, sigma^2 = 9 d - 1",
            "0 at t = 1, then above",
            f"d = 2: {worst['2'][0]:.1e} to {worst['2'][-1]:.3f}; d = 16: {worst['16'][0]:.1e} to "
            f"{worst['16'][-1]:.3f}",
            all(abs(c[0]) < 1e-12 and np.diff(c).min() > 0 for c in worst.values()),
        ),
        Claim(
            f"W2 against d = {', '.join(rows)}",
            "sequential below joint (figure; its settings are not public)",
            f"sequential {said('sequential', 'wasserstein2')}; joint "
            f"{said('joint', 'wasserstein2')}; Langevin {said('Langevin', 'wasserstein2')}; exact "
            f"samples {said('exact samples', 'wasserstein2')}",
            all(better),
        ),
        Claim(
            f"Digits of {MODEL} that an independent classifier recognises, of {IMAGES}",
            "pictures, on networks of the authors",
            ", ".join(f"{name}: {share:.0%}" for name, share in numbers["recognised"].items()),
        ),
        Claim(
            "Weight of the first mode, 0.2",
            "not public",
            f"sequential {said('sequential', 'weight')}; joint {said('joint', 'weight')}; Langevin "
            f"{said('Langevin', 'weight')}",
        ),
        Claim(
            "Standard deviation within the modes, 1",
            "not public",
            f"sequential {said('sequential', 'std_within')}; joint {said('joint', 'std_within')}; "
            f"Langevin {said('Langevin', 'std_within')}",
        ),
    ]


def draw(numbers: Numbers, pictures: dict[str, torch.Tensor], figure: Any) -> None:
    """The eigenvalues, the distances, and digits."""
    figure.set_size_inches(11, 7.5)
    above, below = figure.subfigures(2, 1, height_ratios=[1.4, 1])
    left, right = above.subplots(1, 2)
    for axes, (name, images) in zip(
        below.subplots(1, len(pictures)), pictures.items(), strict=True
    ):
        rows = images[:, 0].unflatten(0, (-1, 8))
        axes.imshow(torch.cat([torch.cat(list(row), 1) for row in rows]), cmap="gray")
        axes.set_title(f"{name}: {numbers['recognised'][name]:.0%} recognised")
        axes.set_axis_off()
    for number, (name, curve) in enumerate(numbers["curvature_times_variance"].items()):
        low, middle, high = ([row[key] for row in curve] for key in ("least", "mean", "most"))
        left.semilogx(COUNTS, middle, label=name, **style(number))
        left.fill_between(COUNTS, low, high, color=style(number)["color"], alpha=0.15, lw=0)
    left.axhline(0, color="k", lw=0.8)
    left.set(
        title="Ever more log-concave (shaded: all draws)",
        xlabel="measurement $t$",
        ylabel=r"smallest eigenvalue of $-\sigma^2 \nabla^2 \log p(y_t \mid past)$",
        ylim=(-1, 1.05),
    )
    rows = numbers["by_dimension"]
    for number, name in enumerate(next(iter(rows.values()))):
        distances = [row[name]["wasserstein2"] for row in rows.values()]
        right.semilogx(DIMENSIONS, distances, label=name, **style(number))
    right.set(
        title=f"Two Gaussians, {MEASUREMENTS * EVALUATIONS_EACH} evaluations",
        xlabel="dimension $d$",
        ylabel="$W_2$ along the line through the modes",
    )
    right.set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
    right.set_xticks([], minor=True)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
