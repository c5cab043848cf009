"""Chains that move on a law in the plane, as pictures and in numbers: `hdzoo demo-2d`."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from hdzoo import plugins
from hdzoo.checks import SEED, Whole
from hdzoo.demo.frames import Chains, View, draw_frames, save_gif
from hdzoo.distances.moments import mode_weights
from hdzoo.distances.wasserstein import sliced_wasserstein2, wasserstein2
from hdzoo.errors import HDZooError
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.ladders import EVALUATIONS
from hdzoo.sampling import save_png
from hdzoo.targets.analytic import AnalyticScore
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.verification.small import option_names
from hdzoo.version import __version__

# A target wants its own score, told the noise level as it is.
OPTIONS_OF_TARGET: dict[str, Any] = {
    "prediction_type": "score",
    "timestep_type": "sigma",
    "sigma_data": None,
}
DEFAULT_SAMPLERS = ("annealed-langevin", "half-denoising")
NUM_LEVELS = 10
# A table for people has no more rows; the many components of a curve are no modes anyway.
MAX_MODES = 10
# The exact distance takes up to n^3 operations, 0.1 s for 500 points, and there are many.
MAX_EXACT_POINTS = 500
NUM_REFERENCES = 10
MOST_SAMPLES, MOST_FRAMES = 1_000_000, 1000


class Scale(NamedTuple):
    """What a ladder for a target, and the picture of it, are measured by.

    Attributes:
        centre: the middle of the box around the data.
        extent: half of the box's longer side.
        finest: the standard deviation across the data's thinnest part, at least a twentieth of
            the extent, below which a picture shows nothing.
    """

    centre: tuple[float, float]
    extent: float
    finest: float


@dataclass(frozen=True)
class Demo:
    """What `demo_2d` found.

    Attributes:
        chains: one for each sampler.
        frames: the pictures, the first of the start and the last of the samples.
        table: numbers for people, by row: ``""`` is what, ``"exact"`` the truth or, for a
            distance, that between two exact samples of the same size; the rest are the samplers.
        made_by: what made it, which is written into the files.
    """

    chains: list[Chains]
    frames: list[Image.Image]
    table: list[dict[str, str]]
    made_by: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes the animated GIF."""
        save_gif(self.frames, path, self.made_by)

    def save_last_frame(self, path: Path) -> None:
        """Writes a PNG."""
        save_png(self.frames[-1], path, self.made_by)


def demo_2d(
    target: str = "eight-gaussians",
    samplers: Sequence[str] = DEFAULT_SAMPLERS,
    *,
    num_samples: int = 400,
    num_inference_steps: int = 200,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    num_frames: int = 60,
    on_frame: Callable[[Image.Image], None] | None = None,
) -> Demo:
    """Runs samplers on a target in the plane, and draws their chains side by side.

    The ladder fits the target, from its extent down to a tenth of its finest structure; a single
    level is of the size of that structure (`Scale`). All chains start from the same noise, of the
    ladder's first level, around the target's mean, and get the same noise on the way. The start is
    not quite the target's law at that level: a sampler that forgets it slowly shows that, less so
    with a larger ``sigma_max``. The samplers at a single level are made for another start: here
    they show what the ladder is good for.

    Args:
        target: a registered name, of a law in the plane.
        samplers: registered names.
        num_samples: chains of each sampler, at least 2. Chain i is a function of (seed, i) alone.
            Each takes 8 bytes a step.
        num_inference_steps: network evaluations of each.
        seed: of the set.
        options: of the samplers, over those that fit the target; each is for all that have it.
        num_frames: pictures, at least 2; no more than there are steps, and the start.
        on_frame: called with each picture.

    Raises:
        HDZooError: something is not found, not in the plane, or out of its range.
    """
    Whole(2, MOST_SAMPLES)("num_samples", num_samples)
    Whole(2, MOST_FRAMES)("num_frames", num_frames)
    EVALUATIONS("num_inference_steps", num_inference_steps)
    SEED("seed", seed)
    # Of each chain all states are kept.
    needed, memory = 8 * num_samples * num_inference_steps, psutil.virtual_memory().total
    if needed > memory:
        raise HDZooError(
            f"{num_samples} chains of {num_inference_steps} steps take {needed / 1e9:,.0f} GB, and "
            f"this machine has {memory / 1e9:,.0f}: give fewer"
        )
    law = planar_target(target)
    scale = scale_of(law)
    pipes = build_pipelines(law, samplers, scale, num_inference_steps, options or {})
    levels = [
        float(pipe.scheduler.init_noise_sigma) for pipe in pipes.values() if starts_from_noise(pipe)
    ]
    highest = max(levels, default=scale.extent)
    chains = [
        _run(name, pipe, num_samples, num_inference_steps, seed, highest)
        for name, pipe in pipes.items()
    ]
    made_by = {
        "hdzoo": __version__,
        "target": target,
        "samplers": {
            name: {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
            for name, pipe in pipes.items()
        },
        "num_samples": num_samples,
        "num_inference_steps": num_inference_steps,
        "seed": seed,
    }
    # Before the drawing, which takes longer, so that a missing package is heard of at once.
    table = compare(law, chains, scale)
    view = View(target, law, scale.centre, scale.extent)
    frames = draw_frames(view, chains, num_frames, on_frame)
    return Demo(chains, frames, table, made_by)


# ---- the target -----------------------------------------------------------------------------


def planar_target(name: str) -> AnalyticScore:
    """The registered target of a name.

    Raises:
        HDZooError: there is none, or it is no law in the plane.
    """
    target = plugins.get("targets", name)()
    if isinstance(target, AnalyticScore) and target.dimension == 2:
        return target
    found = getattr(target, "dimension", None)
    raise HDZooError(
        f"target {name!r} has dimension {found}; a picture shows 2. Those in the plane are "
        + ", ".join(planar_targets())
    )


def planar_targets() -> list[str]:
    """The names of all registered targets in the plane."""
    planar = []
    for name in plugins.names("targets"):
        # One that cannot be built is no reason to be silent about the others.
        with suppress(Exception):
            if plugins.get("targets", name)().dimension == 2:
                planar.append(name)
    return planar


def scale_of(target: AnalyticScore) -> Scale:
    r"""Measures a target in the plane, by 2000 exact samples.

    Noise of the size of the finest structure hides half of it: it is the smallest :math:`\sigma` at
    which the least eigenvalue of :math:`Cov[x_0 | x]` is :math:`\sigma^2 / 2` on average. For a
    Gaussian that is its smallest standard deviation. Found to 15 percent.
    """
    generator = torch.Generator().manual_seed(0)
    points = target.sample(2000, generator).double().flatten(1)
    low, high = points.amin(0), points.amax(0)
    extent = float((high - low).max() / 2)
    if not extent > 0:
        raise HDZooError("the target is a single point; a picture needs one with some extent")
    clean = points[:300]
    finest = extent / 20
    while finest < extent:
        noisy = clean + finest * torch.randn(clean.shape, generator=generator).double()
        covariance = target.posterior_covariance(noisy.view(-1, *target.sample_shape), finest)
        if float(torch.linalg.eigvalsh(covariance)[:, 0].mean()) < finest**2 / 2:
            break
        finest *= 1.15
    x, y = ((low + high) / 2).tolist()
    return Scale((x, y), extent, min(finest, extent))


# ---- the chains -----------------------------------------------------------------------------


def build_pipelines(
    target: AnalyticScore,
    samplers: Sequence[str],
    scale: Scale,
    num_inference_steps: int,
    options: dict[str, Any],
) -> dict[str, HDPipeline]:
    """A pipeline for each sampler, with options that fit the target; arguments as in `demo_2d`.

    Raises:
        HDZooError: a sampler or an option is unknown, or given twice, or a value does not do.
    """
    if not samplers:
        raise HDZooError("no sampler is given; give at least one, `hdzoo samplers` lists them")
    if len(set(samplers)) < len(samplers):
        raise HDZooError(
            f"a sampler is given twice in {', '.join(samplers)}; give each once, with options for "
            "all of them"
        )
    classes = {name: plugins.get_sampler(name) for name in samplers}
    for key in options:
        if key in OPTIONS_OF_TARGET:
            raise HDZooError(
                f"option {key!r} says what the network is, here a target that gives the score at "
                "a noise level; leave it out"
            )
        if not any(key in option_names(chosen) for chosen in classes.values()):
            raise HDZooError(
                f"no sampler has the option {key!r}; "
                + "; ".join(
                    f"{name} has "
                    + ", ".join(o for o in option_names(chosen) if o not in OPTIONS_OF_TARGET)
                    for name, chosen in classes.items()
                )
            )
    fitting = {
        "sigma_max": scale.extent,
        "sigma_min": scale.finest / 10,
        "num_levels": min(NUM_LEVELS, num_inference_steps),
        "sigma": scale.finest,
        **OPTIONS_OF_TARGET,
    }
    pipes = {}
    for name, chosen in classes.items():
        known = option_names(chosen)
        config, own = ({k: v for k, v in o.items() if k in known} for o in (fitting, options))
        sampler = chosen.from_config(config, **own)
        # A chain that does not go is to be heard of before the first is run.
        sampler.set_timesteps(num_inference_steps)
        pipes[name] = HDPipeline(target, sampler)
    return pipes


def _run(
    name: str, pipe: HDPipeline, num_samples: int, steps: int, seed: int, highest: float
) -> Chains:
    """All states of the chains; ``highest`` is the noise level to start from for a sampler that has
    none of its own."""
    generators = sample_generators(seed, range(num_samples))
    noise = randn_tensor((num_samples, *pipe.sample_shape), generators, dtype=torch.float32)
    from_noise = starts_from_noise(pipe)
    if from_noise:
        highest = float(pipe.scheduler.init_noise_sigma)
    # Where HDPipeline starts for a network that knows the data's mean.
    states = [pipe.unet.mean.float().view(pipe.sample_shape) + highest * noise]

    def record(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        states.append(tensors["latents"])
        return tensors

    pipe.set_progress_bar_config(disable=True)
    pipe(
        num_samples,
        steps,
        generator=generators,
        latents=states[0],
        output_type="latent",
        callback_on_step_end=record,
    )
    sigmas = pipe.scheduler.sigmas.tolist()
    return Chains(name, sigmas, torch.stack(states).flatten(2), from_noise)


def starts_from_noise(pipe: HDPipeline) -> bool:
    """Whether a pipeline's sampler is made to start from nothing but noise."""
    return bool(getattr(pipe.scheduler, "starts_from_noise", True))


# ---- the numbers ----------------------------------------------------------------------------


def compare(target: AnalyticScore, chains: Sequence[Chains], scale: Scale) -> list[dict[str, str]]:
    """The table of `Demo`.

    The share of each mode with its standard error, where the target is a mixture of at most 10
    Gaussians. And the Wasserstein distance of order 2 to exact samples of the same size, the mean
    over 10 sets of them; between exact samples with the standard deviation of 10 such distances.
    It is the sliced one for more than 500 samples.
    """
    ends = {one.name: one.states[-1].double() for one in chains}
    rows = []
    if isinstance(target, GaussianMixtureScore) and target.config.num_components <= MAX_MODES:
        rows = _mode_rows(target, ends, scale)
    return [*rows, _distance_row(target, ends)]


def _mode_rows(
    target: GaussianMixtureScore, ends: dict[str, torch.Tensor], scale: Scale
) -> list[dict[str, str]]:
    shape, level = target.sample_shape, 0.0
    try:
        target.log_density(target.means.view(-1, *shape))
    except HDZooError:
        # Point masses are told apart with a little noise.
        level = scale.finest / 10
    found = {name: mode_weights(end.view(-1, *shape), target, level) for name, end in ends.items()}
    rows = []
    for k, (mean, weight) in enumerate(zip(target.means, target.weights.tolist(), strict=True)):
        # Adding 0 makes 0 of -0.
        place = ", ".join(f"{round(value, 6) + 0.0:.3g}" for value in mean.tolist())
        shares = {
            name: f"{one.shares[k]:.3f} ± {one.standard_errors[k]:.3f}"
            for name, one in found.items()
        }
        rows.append({"": f"mode at ({place})", "exact": f"{weight:.3f}"} | shares)
    return rows


def _distance_row(target: AnalyticScore, ends: dict[str, torch.Tensor]) -> dict[str, str]:
    num_samples = len(next(iter(ends.values())))
    is_exact = num_samples <= MAX_EXACT_POINTS
    distance = wasserstein2 if is_exact else sliced_wasserstein2
    generator = torch.Generator().manual_seed(1)
    drawn = target.sample(2 * NUM_REFERENCES * num_samples, generator).double()
    sets = drawn.view(2, NUM_REFERENCES, num_samples, 2)
    floor = [distance(one, other) for one, other in zip(*sets, strict=True)]
    means = {name: np.mean([distance(end, one) for one in sets[0]]) for name, end in ends.items()}
    return {
        "": "W2" if is_exact else "sliced W2",
        "exact": f"{np.mean(floor):.3g} ± {np.std(floor, ddof=1):.2g}",
    } | {name: f"{mean:.3g}" for name, mean in means.items()}
