r"""Walk-jump sampling: fuzzy jumps at large noise, a walk that does not mix at small noise.

On two Gaussians on the line everything is exact, by quadrature: the distance of the jumps of an
endless overdamped walk to the data, and the number of steps in which the walk forgets where it
began. On `ncsn-mnist`, asked at one of its noise levels, an independent classifier says how many of
the jumps along a walk are digits, and how often one turns into another.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from hdzoo import GaussianMixtureScore, HDPipeline
from hdzoo.bundled import bundled_folder
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.plots import style
from hdzoo.verification import GridChain, density_law
from hdzoo_walk_jump.chains import many_jumps, mixing
from hdzoo_walk_jump.samplers import OverdampedWalkJumpSampler, WalkJumpSampler

# Two modes of standard deviation 0.2 at -1 and 1.
STD = 0.2
EXACT_SIGMAS = (0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)

MODEL = "ncsn-mnist"
SIGMAS = (0.25, 0.5, 1.0, 2.0)
CHAINS, JUMPS, STEPS_PER_JUMP = 6, 12, 10
# The rows of the picture.
SHOWN_SIGMA = 0.5
CONFIDENT = 0.9

Numbers = dict[str, Any]


def run(progress: Progress) -> Reproduction:
    """Finds both sides of the trade."""
    exact = {}
    for sigma in EXACT_SIGMAS:
        exact[f"{sigma:g}"] = on_the_line(sigma)
        progress(f"two Gaussians, sigma = {sigma:g}: {exact[f'{sigma:g}']}")
    pipe = HDPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    digits, rows = {}, torch.empty(0)
    for done, sigma in enumerate(SIGMAS, 1):
        digits[f"{sigma:g}"], jumps = on_digits(pipe, sigma)
        rows = jumps if sigma == SHOWN_SIGMA else rows
        said = {key: digits[f"{sigma:g}"][key] for key in ("recognised", "changes_per_jump")}
        progress(f"{MODEL}, sigma = {sigma:g}: {said}", done, len(SIGMAS))
    numbers = {"two_gaussians": exact, "digits": digits}
    return Reproduction(
        title="Walk-jump sampling: what the noise level trades",
        source="Saremi and Hyvärinen, arXiv 1903.02334 (JMLR 2019); Frey et al., arXiv 2306.12360 "
        "(ICLR 2024)",
        claims=claims(numbers),
        numbers=numbers,
        draw=partial(draw, numbers, rows),
        conclusion="One noise level has to do for two things. Where it is small the jumps are near "
        "the data and the walk stays in its mode; where it is large the walk goes everywhere and "
        "the jump is the mean of many samples.",
        settings={
            "two Gaussians": f"-1 and 1, half each, standard deviation {STD}",
            "overdamped_step_size": "sigma^2 / 8",
            "model": MODEL,
            "sampler": dict(WalkJumpSampler().config),
            "chains": CHAINS,
            "jumps": JUMPS,
            "steps_per_jump": STEPS_PER_JUMP,
            "recognised": f"a class of mnist-classifier has a probability of {CONFIDENT} or more",
            "quantities": "the three widest principal directions of the jumps",
        },
    )


def on_the_line(sigma: float) -> dict[str, float]:
    """The distance of the jumps to the data, and the walk's relaxation time in steps."""
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], STD**2)
    end = 1 + 10 * (STD**2 + sigma**2) ** 0.5
    # A step of the walk, which is repeated, and the jump.
    chain = GridChain(OverdampedWalkJumpSampler(sigma=sigma, num_steps=2), target.score, -end, end)
    walk, _ = chain.stationary(density_law(target, sigma, chain.grid))
    data = density_law(target, 0.0, np.linspace(-4, 4, 8001))
    return {
        "wasserstein2": chain.run(walk).wasserstein2(data),
        "relaxation": chain.relaxation_time(),
    }


def on_digits(pipe: HDPipeline, sigma: float) -> tuple[Numbers, torch.Tensor]:
    """What the classifier and the diagnostics say of the jumps, and the jumps."""
    config = pipe.scheduler.config
    walking = HDPipeline(pipe.unet, WalkJumpSampler.from_config(config, sigma=sigma))
    walking.set_progress_bar_config(disable=True)
    jumps = many_jumps(walking, CHAINS, JUMPS, STEPS_PER_JUMP)
    classifier = DigitClassifier.from_pretrained(bundled_folder() / "mnist-classifier").eval()
    with torch.no_grad():
        logits = classifier(jumps.flatten(0, 1).clamp(0, 1)).logits
    sure, labels = logits.softmax(-1).unflatten(0, (CHAINS, JUMPS)).max(-1)
    recognised = sure >= CONFIDENT
    both = recognised[:, 1:] & recognised[:, :-1]
    turned = both & (labels[:, 1:] != labels[:, :-1])
    found = {
        "recognised": recognised.double().mean().item(),
        # Of the neighbours on a walk that are digits both.
        "changes_per_jump": turned.sum().item() / max(1, int(both.sum())),
        **mixing(jumps).to_dict(),
    }
    return found, jumps


def claims(numbers: Numbers) -> list[Claim]:
    exact, digits = numbers["two_gaussians"], numbers["digits"]
    distances = [row["wasserstein2"] for row in exact.values()]
    times = [row["relaxation"] for row in exact.values()]
    shares = {name: row["recognised"] for name, row in digits.items()}
    changes = {name: row["changes_per_jump"] for name, row in digits.items()}
    said = ", ".join(f"{name}: {share:.0%}" for name, share in shares.items())
    turned = ", ".join(f"{name}: {share:.2f}" for name, share in changes.items())
    small, *_, large = changes.values()
    sizes = ", ".join(
        f"{name}: {row['effective_sample_size'][0]:.0f} (R-hat {row['split_rhat'][0]:.2f})"
        for name, row in digits.items()
    )
    return [
        Claim(
            "Too large a noise: jumps are far from the data",
            "the larger, the fuzzier (in words)",
            f"two Gaussians: W2 from {distances[0]:.3f} at sigma = {EXACT_SIGMAS[0]:g} to "
            f"{distances[-1]:.3f} at {EXACT_SIGMAS[-1]:g}",
            bool(np.all(np.diff(distances) > 0)),
        ),
        Claim(
            "Too small a noise: the walk does not mix",
            "the smaller, the slower (in words)",
            f"two Gaussians: relaxation from {times[0]:.0f} steps at sigma = {EXACT_SIGMAS[0]:g} "
            f"to {min(times):.0f} at its fastest",
            times[0] > 10 * min(times),
        ),
        Claim(
            f"Digits turn into one another along a walk ({STEPS_PER_JUMP} steps to a jump)",
            "pictures of chains, one a row",
            f"share of jumps from a digit to another, by sigma: {turned}",
            small < large,
        ),
        Claim(
            "Jumps that are digits, by an independent classifier",
            "not public",
            f"recognised, by sigma: {said}",
        ),
        Claim(
            f"Effective sample size of {CHAINS * JUMPS} jumps, widest direction",
            "not public",
            f"by sigma: {sizes}",
        ),
    ]


def draw(numbers: Numbers, rows: torch.Tensor, figure: Any) -> None:
    """Two panels of numbers, and the walks as rows."""
    figure.set_size_inches(11, 8.5)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    left, right = above.subplots(1, 2)
    exact, digits = numbers["two_gaussians"], numbers["digits"]
    distances = [row["wasserstein2"] for row in exact.values()]
    left.loglog(EXACT_SIGMAS, distances, label="$W_2$ of the jumps to the data", **style(0))
    left.set(title="Two Gaussians, exactly", xlabel=r"noise level $\sigma$", ylabel="$W_2$")
    times = left.twinx()
    relaxation = [row["relaxation"] for row in exact.values()]
    times.loglog(EXACT_SIGMAS, relaxation, label="relaxation of the walk", **style(1))
    times.set_ylabel("steps")
    left.legend(handles=[*left.get_lines(), *times.get_lines()], loc="upper center", fontsize=8)
    curves = {"recognised": "recognised as digits", "changes_per_jump": "from a digit to another"}
    for number, (key, label) in enumerate(curves.items()):
        right.semilogx(SIGMAS, [row[key] for row in digits.values()], label=label, **style(number))
    right.set(
        title=f"{MODEL}: jumps, {STEPS_PER_JUMP} steps apart",
        xlabel=r"noise level $\sigma$",
        ylabel="share of the jumps",
        ylim=(0, 1),
    )
    for axes, ticks in ((left, EXACT_SIGMAS[::2]), (right, SIGMAS)):
        axes.set_xticks(ticks, [f"{sigma:g}" for sigma in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    right.legend(fontsize=8)
    axes = below.subplots()
    chains, jumps, _, height, width = rows.shape
    picture = rows[:, :, 0].permute(0, 2, 1, 3).reshape(chains * height, jumps * width)
    axes.imshow(picture.clamp(0, 1), cmap="gray")
    axes.set_title(rf"One walk a row, $\sigma = {SHOWN_SIGMA:g}$")
    axes.set_axis_off()
