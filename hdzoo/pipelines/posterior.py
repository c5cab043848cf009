"""What a network says of one image given its noisy copy: the image, and how sure it is of it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hdzoo.checks import NOISE_LEVEL, SEED, Flag, Maybe, Whole
from hdzoo.errors import HDZooError
from hdzoo.images.address import open_picture
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.pictures import read_pictures, resize
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.scores.clocks import clock_of
from hdzoo.scores.posterior import Diagonal, Eigenpairs, PosteriorCovariance
from hdzoo.text import counted

# Up to so many numbers the variances are exact by default; else they are an estimate by probes.
EXACT, PROBES = 1024, 256
# Vectors that tell how far the Jacobian is from a symmetric one.
ASYMMETRY_PROBES = 16
# Of its pixels may lie at black or white before a noisy image is taken for one that was cut there.
CUT = 0.01


@dataclass(frozen=True)
class ImagePosterior:
    """An image, noisy and denoised, and what is uncertain of it; in the network's units.

    Attributes:
        image: before the noise, shape (channels, height, width); None where that is not known.
        noisy: with it.
        denoised: the posterior mean.
        diagonal: the posterior variances, of a batch of one.
        directions: the leading eigenpairs of the posterior covariance, likewise.
        data_range: the values of black and white.
        numbers: what was found, and how; for JSON.
    """

    image: torch.Tensor | None
    noisy: torch.Tensor
    denoised: torch.Tensor
    diagonal: Diagonal
    directions: Eigenpairs
    data_range: tuple[float, float]
    numbers: dict[str, Any]


def image_posterior(
    pipe: HDPipeline,
    image: str | Path,
    sigma: float,
    *,
    noisy: bool = False,
    seed: int = 0,
    num_probes: int | None = None,
    num_directions: int = 3,
    batch_size: int = 64,
    class_label: int | None = None,
    on_progress: Callable[[str, float, float], Any] | None = None,
) -> ImagePosterior:
    """Adds noise to an image, and asks the network for the posterior.

    Args:
        pipe: for its network.
        image: a file or a URL; brought to the network's size, with a warning.
        sigma: the noise level, in the network's units: those of its ``data_range``. A network that
            knows single levels is asked at the nearest, which is said in a warning.
        noisy: whether the image has noise of that level already; then it must be of the network's
            size.
        seed: of the noise and of the vectors.
        num_probes: of Hutchinson's estimate of the variances (`PosteriorCovariance.diagonal`); from
            as many as the image has numbers on, they are exact. By default exact for images of up
            to 1,024 numbers, and 256 for others.
        num_directions: leading eigenpairs; 0 for none.
        batch_size: states that go through the network together.
        class_label: for a class-conditional network.
        on_progress: called with what is done, how much of it, and of how much at most.

    Raises:
        HDZooError: an argument is out of its range, or the image or the noise level does not go
            with the network.
    """
    sigma, seed = NOISE_LEVEL("sigma", sigma), SEED("seed", seed)
    noisy, num_probes = Flag()("noisy", noisy), Maybe(Whole(2, 10**7))("num_probes", num_probes)
    num_directions = Whole(0)("num_directions", num_directions)
    if pipe.data_range is None:
        raise HDZooError(
            f"the samples of {type(pipe.unet).__name__} are no images; use PosteriorCovariance"
        )
    if getattr(pipe.unet, "guided", False):
        raise HDZooError(
            f"the network has a guide, with guidance_scale {pipe.unet.config.guidance_scale:g}: it "
            "is the denoiser of no data, and has no posterior; load it with guidance_scale=1, or "
            "take one without a guide"
        )
    low, high = pipe.data_range
    d = torch.Size(pipe.sample_shape).numel()
    if num_directions > d:
        raise HDZooError(
            f"num_directions is {num_directions}, and an image has {d} numbers: there are no more "
            "directions than that"
        )
    if num_probes is None:
        num_probes = d if d <= EXACT else PROBES
    given = low + (high - low) * _read(pipe, image, noisy)
    sigma = _known(pipe, sigma)
    generator = sample_generators(seed, [0])
    clean = None if noisy else given
    if clean is not None:
        noise = torch.randn(given.shape, generator=generator[0], dtype=given.dtype)
        given = given + sigma * noise
    steps = _Steps(on_progress)
    posterior = PosteriorCovariance(
        lambda x, level: pipe.denoise(x, level, class_label),
        given.to(pipe.device),
        sigma,
        batch_size=batch_size,
        on_evaluation=steps.evaluated,
    )
    exact = num_probes >= d
    steps.begin("posterior variances, evaluations", d if exact else num_probes)
    diagonal = posterior.diagonal(None if exact else num_probes, generator)
    probes = min(ASYMMETRY_PROBES, num_probes)
    steps.begin("asymmetry, evaluations", 2 * probes)
    asymmetry = posterior.asymmetry(None if exact else probes, generator)
    shape = (1, 0, *given.shape[1:])
    directions = Eigenpairs(given.new_zeros(1, 0), given.new_zeros(shape))
    if num_directions:
        steps.begin("directions, evaluations", posterior.most_evaluations(num_directions))
        directions = posterior.eigenpairs(num_directions, generator)
    values = directions.values[0].tolist()
    trace = float(diagonal.trace)
    error = None if clean is None else float((posterior.mean.to(clean) - clean).square().sum())
    numbers = {
        "sigma": sigma,
        "dimension": d,
        "trace": trace,
        "trace_standard_error": float(diagonal.trace_standard_error),
        "squared_error": error,
        "root_mean_variance": max(trace / d, 0.0) ** 0.5,
        "share_of_negative_variances": float((diagonal.variances < 0).float().mean()),
        "eigenvalues": values,
        "share_of_the_trace": sum(values) / trace if trace else None,
        "asymmetry": float(asymmetry) if asymmetry.isfinite() else None,
        "variances": "exact" if exact else f"Hutchinson's estimate, {counted(num_probes, 'probe')}",
        "products": {
            "variances": "J v",
            "directions": "(J v + J^T v) / 2",
            "differentiation": posterior.mode,
        },
        "num_evaluations": posterior.num_evaluations,
    }
    return ImagePosterior(
        None if clean is None else clean[0],
        given[0],
        posterior.mean[0].cpu(),
        Diagonal(*(part.cpu() for part in diagonal)),
        Eigenpairs(*(part.cpu() for part in directions)),
        (low, high),
        numbers,
    )


def _read(pipe: HDPipeline, image: str | Path, noisy: bool) -> torch.Tensor:
    """The image of a file, in [0, 1], shape (1, channels, height, width)."""
    channels, height, width = pipe.sample_shape
    pixels = read_pictures("image", open_picture(image), channels)
    found = tuple(pixels.shape[1:])
    if pixels.shape[1] != channels or (noisy and found != pipe.sample_shape):
        raise HDZooError(
            f"image has {found[0]} channels and {found[2]} x {found[1]} pixels (width x height), "
            f"and the network needs {channels} and {width} x {height}"
            + ("; to resize a noisy image would change its noise" if noisy else "")
        )
    if noisy:
        cut = float(((pixels == 0) | (pixels == 1)).float().mean())
        if cut > CUT:
            warnings.warn(
                f"{cut:.1%} of the noisy image are black or white: noise beyond is cut off, which "
                "the network does not know of",
                stacklevel=3,
            )
    return resize("image", pixels, height, width)


def _known(pipe: HDPipeline, sigma: float) -> float:
    """The noise level that the network is asked at."""
    if hasattr(pipe.unet, "denoise"):
        return sigma
    known = float(clock_of(pipe.network_options()).known([sigma])[0])
    if abs(known - sigma) > 1e-4 * sigma:
        warnings.warn(
            f"sigma is {sigma:g}, and the network is asked at {known:g}, the nearest level that it "
            "was trained at",
            stacklevel=3,
        )
    return known


class _Steps:
    """How far one piece of the work is, told by the evaluations of all."""

    def __init__(self, on_progress: Callable[[str, float, float], Any] | None) -> None:
        self.on_progress = on_progress
        self.what, self.before, self.total, self.done = "", 0, 0, 0

    def begin(self, what: str, total: int) -> None:
        self.what, self.before, self.total = what, self.done, total

    def evaluated(self, done: int) -> None:
        self.done = done
        if self.on_progress is not None and self.what:
            self.on_progress(self.what, min(done - self.before, self.total), self.total)
