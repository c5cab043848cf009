"""Telling images that a score network was not trained on from those that it was."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hdzoo.checks import IMAGES, NOISE_LEVEL, SEED, Many, Whole, shown
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import write_json
from hdzoo.images.framing import Framing
from hdzoo.images.images import Images
from hdzoo.images.picture import read_picture
from hdzoo.images.sources import load_images
from hdzoo.metrics.auroc import auroc
from hdzoo.metrics.made_images import MADE
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.pipelines.walk import evaluating
from hdzoo.samplers.noise import Noise
from hdzoo.sampling import load_pipeline, network_protocol
from hdzoo.text import counted
from hdzoo.training.data import image_transform
from hdzoo.training.fitting import check_images
from hdzoo.training.setup import has_own_ladder, network_ladder

# Called with what is done, how much of it, and of how much.
OnProgress = Callable[[str, float, float], None]

SIGMAS = (0.05, 0.2, 0.5, 1.0)
# Of a network with a ladder, evenly spread.
MOST_RUNGS = 4
MOST_IMAGES = 1000
# What an image is judged by: the larger, the less it is like the data.
STATISTICS = ("energy", "score norm", "denoising error")
# Standard errors below 1/2 at which a network takes others for its data, and not by chance.
BELOW_CHANCE = 3.0


@dataclass(frozen=True)
class Finding:
    """How well one number tells one set from the images inside.

    Args:
        statistic: which, one of `STATISTICS`.
        sigma: the noise level.
        outside: the set.
        auroc: near 1 where it is larger outside.
        standard_error: of that.
        inside_median: of the statistic.
        outside_median: likewise.
    """

    statistic: str
    sigma: float
    outside: str
    auroc: float
    standard_error: float
    inside_median: float
    outside_median: float

    @property
    def is_failure(self) -> bool:
        """Whether the set is taken for more like the data than the data are."""
        return self.auroc < 0.5 - BELOW_CHANCE * self.standard_error


@dataclass
class OutlierReport:
    """What `find_outliers` found, and all that it depends on."""

    model: str
    weights_sha256: str
    dtype: str
    backend: str
    inside: dict[str, Any]
    outside: list[dict[str, Any]]
    sigmas: list[float]
    num_images: int
    resize: bool
    seed: int
    findings: list[Finding]
    versions: dict[str, str]
    command: str | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Writes JSON."""
        write_json(path, self.to_dict())

    def rows(self) -> list[dict[str, str]]:
        """A table for people."""
        rows: dict[tuple[str, float], dict[str, str]] = {}
        for found in self.findings:
            first = {"outside": found.outside, "noise level": f"{found.sigma:g}"}
            row = rows.setdefault((found.outside, found.sigma), first)
            row[found.statistic] = f"{found.auroc:.3f} ± {found.standard_error:.3f}"
        return list(rows.values())

    def legend(self) -> list[str]:
        """What the table means, in lines."""
        failures: dict[str, list[str]] = {}
        for found in self.findings:
            if found.is_failure:
                where = f"{found.statistic} at {found.sigma:g}"
                failures.setdefault(found.outside, []).append(where)
        return [
            f"AUROC ± standard error, {self.num_images:,} images of each set against "
            f"{self.inside['source']}: 1 tells the two apart, 0.5 is chance.",
            *(
                f"Below chance: {name}, taken for more like the data than the data are, by "
                f"{', '.join(where)}."
                for name, where in failures.items()
            ),
            f"Seed: {self.seed}. Time: {self.seconds} s.",
        ]


def find_outliers(
    model: str | Path,
    inside: str,
    outside: Sequence[str],
    *,
    sigmas: Sequence[float] | None = None,
    num_images: int | None = None,
    inside_split: str = "test",
    outside_split: str = "test",
    image_column: str | None = None,
    resize: bool = False,
    seed: int = 0,
    batch_size: int = 250,
    dtype: str = "float32",
    backend: str = "torch",
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> OutlierReport:
    r"""Judges how well a network tells other images from those like its data.

    Image ``i`` of each set gets noise :math:`x = x_0 + \sigma z` that is a function of (seed, i)
    alone, the same at each level. Then there are three numbers: the energy
    :math:`-\log p_\sigma(x)`, where the network has one; the norm of the score,
    :math:`\sigma |s(x, \sigma)| / \sqrt d`; and the denoising error, :math:`|D(x, \sigma) - x_0|^2
    / d`, in the network's units.

    Args:
        model: a folder, a bundled name, or a Hub id.
        inside: images like the data: what `hdzoo.images.sources.load_images` takes.
        outside: sets of other images, likewise, or names of `MADE`, which are made of the images
            inside.
        sigmas: noise levels; by default those of `SIGMAS` that the network knows, or 4 of its
            ladder.
        num_images: of each set, evenly spread over it; by default 1000, or as many as the smallest
            has.
        inside_split: of the images inside.
        outside_split: of those outside.
        image_column: of all.
        resize: whether images of another size are cropped to squares and resized.
        seed: of the noise.
        batch_size: images together.
        dtype: of the weights, as `hdzoo.sampling.find_dtype` takes it.
        backend: what computes the network, one of `hdzoo.pipelines.backends.BACKENDS`.
        command: what the user typed, for the record.
        on_progress: called with what is done, how much of it, and of how much.

    Raises:
        HDZooError: something is not found or does not fit, or a set has too few images.
    """
    begin = time.perf_counter()
    SEED("seed", seed)
    IMAGES("batch_size", batch_size)
    # Of fewer there is no spread.
    if num_images is not None:
        Whole(2)("num_images", num_images)
    repeated = [name for name in outside if outside.count(name) > 1]
    if not outside or repeated:
        raise HDZooError(
            f"outside is {', '.join(outside) or 'empty'}; give each set once: "
            f"{', '.join(MADE)}, or what holds images"
        )
    pipe = load_pipeline(model, dtype=dtype, backend=backend)
    network = pipe.unet
    levels = levels_of(pipe, sigmas)
    sources = [("inside", inside, inside_split)]
    sources += [("outside", name, outside_split) for name in outside if name not in MADE]
    sets = {
        f"{role} {name}": Images(load_images(name, split, image_column=image_column), name)
        for role, name, split in sources
    }
    number = num_images or min(MOST_IMAGES, *map(len, sets.values()))
    for images in sets.values():
        if number > len(images):
            raise HDZooError(
                f"num_images is {number:,} and {images.name} has "
                f"{counted(len(images), 'image')}; give at most as many"
            )
        check_images(network, images, Framing(network.config.sample_size if resize else None))
    pictures = {name: read_evenly(images, pipe, number) for name, images in sets.items()}
    real = pictures[f"inside {inside}"]
    low, high = pipe.data_range or (0.0, 1.0)
    others = {
        name: MADE[name](real, low, high) if name in MADE else pictures[f"outside {name}"]
        for name in outside
    }
    total = (1 + len(others)) * number * len(levels)
    done = 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress("evaluations", done, total)

    on_batch(0)

    def judged(images: torch.Tensor) -> dict[tuple[str, float], torch.Tensor]:
        return statistics(pipe, images, levels, seed, batch_size, on_batch)

    expected = judged(real)
    findings = [
        compare(*key, name, expected[key], values)
        for name, other in others.items()
        for key, values in judged(other).items()
    ]
    made_by = network_protocol(pipe, str(model))
    # `versions` has it.
    del made_by["hdzoo"]
    return OutlierReport(
        **made_by,
        inside={"source": inside, "split": inside_split, "image_column": image_column},
        outside=[
            {"source": name, "split": None if name in MADE else outside_split} for name in outside
        ],
        sigmas=levels,
        num_images=number,
        resize=resize,
        seed=seed,
        findings=findings,
        versions=versions("torch", "diffusers", "scipy"),
        command=command,
        seconds=round(time.perf_counter() - begin, 1),
    )


def levels_of(pipe: HDPipeline, sigmas: Sequence[float] | None) -> list[float]:
    """The noise levels to judge at.

    Args:
        pipe: the model.
        sigmas: that are asked for; None for the default of `find_outliers`.

    Raises:
        HDZooError: its network is none for images, or does not know the levels.
    """
    network = pipe.unet
    if pipe.data_range is None or network.config.get("sample_size") is None:
        raise HDZooError(
            f"{type(network).__name__} is no network for square images of one size; take another "
            "model"
        )
    if sigmas is not None:
        levels: list[float] = Many(NOISE_LEVEL)("sigmas", list(sigmas))
    elif has_own_ladder(network):
        ladder = network_ladder(network)
        levels = ladder[:: -(-len(ladder) // MOST_RUNGS)]
    else:
        low, high = (network.config.get(key) for key in ("sigma_min", "sigma_max"))
        known = (s for s in SIGMAS if low is None or high is None or low <= s <= high)
        levels = list(known) or [high]
    if len(set(levels)) < len(levels):
        raise HDZooError(f"sigmas is {shown(levels)}; give each noise level once")
    if hasattr(network, "check_sigmas"):
        network.check_sigmas(levels)
    return levels


def read_evenly(images: Images, pipe: HDPipeline, number: int) -> torch.Tensor:
    """Images as a network takes them, evenly spread over a set.

    Args:
        images: of the set.
        pipe: whose size, channels and range they get.
        number: how many.
    """
    channels, side, _ = pipe.sample_shape
    transform = image_transform(side, channels, pipe.data_range or (0.0, 1.0))
    chosen = [i * len(images) // number for i in range(number)]
    return torch.stack([transform(picture) for picture in images.read(chosen, read_picture)])


@torch.no_grad()
def statistics(
    pipe: HDPipeline,
    images: torch.Tensor,
    sigmas: Sequence[float],
    seed: int,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> dict[tuple[str, float], torch.Tensor]:
    """What a model says of images, at each noise level.

    Args:
        pipe: the network, with an energy or without.
        images: clean, shape (images, channels, height, width).
        sigmas: noise levels.
        seed: of the noise.
        batch_size: images together.
        on_batch: called with the number of images after each batch and level.

    Returns:
        By name of the statistic and noise level, one number for each image.
    """
    found: dict[tuple[str, float], list[torch.Tensor]] = {}
    device = pipe.device
    with evaluating(pipe.unet):
        for begin in range(0, len(images), batch_size):
            clean = images[begin : begin + batch_size].to(device)
            indices = range(begin, begin + len(clean))
            noise = Noise(sample_generators(seed, indices), device).normal(clean.shape)
            for sigma in sigmas:
                for name, values in judge(pipe, clean, noise, sigma).items():
                    found.setdefault((name, sigma), []).append(values.double().cpu())
                on_batch(len(clean))
    return {key: torch.cat(values) for key, values in found.items()}


def judge(
    pipe: HDPipeline, clean: torch.Tensor, noise: torch.Tensor, sigma: float
) -> dict[str, torch.Tensor]:
    """The statistics of a batch at one noise level, each of shape (batch,)."""
    noisy = clean + sigma * noise
    found: dict[str, torch.Tensor] = {}
    if "energy" in getattr(pipe.unet, "provides", ()):
        told = torch.full((len(noisy),), sigma, device=noisy.device)
        output = pipe.unet(noisy, told, extras=("energy",))
        found["energy"] = output.energy
        denoised = noisy + sigma**2 * output.sample
    else:
        denoised = pipe.denoise(noisy, sigma)
    move = (denoised - noisy).flatten(1)
    found["score norm"] = move.square().mean(1).sqrt() / sigma
    found["denoising error"] = (denoised - clean).square().flatten(1).mean(1)
    return found


def compare(
    statistic: str, sigma: float, name: str, inside: torch.Tensor, outside: torch.Tensor
) -> Finding:
    """How well a statistic tells a set from the images inside.

    Args:
        statistic: its name.
        sigma: its noise level.
        name: of the set outside.
        inside: its values, one for each image.
        outside: likewise.

    Raises:
        HDZooError: one is not finite.
    """
    try:
        area = auroc(inside.numpy(), outside.numpy())
    except HDZooError as error:
        raise HDZooError(
            f"the {statistic} at noise level {sigma:g} does not tell {name} from the images "
            f"inside: {error}"
        ) from error
    medians = inside.median().item(), outside.median().item()
    return Finding(statistic, sigma, name, *area, *medians)
