"""`HDInpaintPipeline`: images of which a part is given, from a score network and a sampler."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.image_processor import PipelineImageInput
from PIL import Image

from hdzoo.checks import IMAGES, SEED, Flag, floating
from hdzoo.errors import HDZooError
from hdzoo.generators import Generator, GreatCircle, OneGenerator
from hdzoo.images.address import open_picture
from hdzoo.pipelines import checks
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.labels import check_class_labels, labels_by_index
from hdzoo.pipelines.pictures import check_unit, read_pictures, resize
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.pipelines.walk import Callback, Walk, check_finite
from hdzoo.samplers.noise import Noise
from hdzoo.text import counted

KNOWN_NOISES = ("step", "level")
# What a mask is at least where is to be painted.
WHITE = 0.5


class HDInpaintPipeline(HDPipeline):
    r"""Paints the missing part of images, with any sampler that walks in noise.

    At each evaluation, at noise level :math:`\sigma_i`, the network is given the sampler's state
    :math:`x` where the mask :math:`m` is 1, and the known image :math:`y` with noise of that level
    where it is 0:

    .. math:: x \leftarrow m \odot x + (1 - m) \odot (y + \sigma_i z), \quad z \sim N(0, I)

    After the last evaluation the known part is :math:`y` itself. The noise is brought in by the
    sampler's ``add_noise``, in the coordinates of its state; nothing else is asked of a sampler.

    Source: Song and Ermon (arXiv 1907.05600), Algorithm 2, for annealed Langevin dynamics. Their
    code draws :math:`z` anew at each noise level, that of Song and Ermon (arXiv 2006.09011) at each
    step: ``known_noise``.

    **It approximates the conditional law.** An example where all is known exactly: data of two
    coordinates, of mean 0, variance 1 and correlation .9, the second of which is known to be 1. The
    first is then of mean .9 and variance .19; over 10 levels from 1 to .01 it comes out as

    ============================  =====  =====  ========  =======================
    sampler                       steps   mean  variance  variance with ``level``
    ============================  =====  =====  ========  =======================
    annealed-langevin               100  0.757     0.339                    0.352
    annealed-langevin              1000  0.890     0.201                    0.203
    annealed-langevin             10000  0.899     0.191                    0.191
    annealed-half-denoising         100  0.854     0.216                    0.223
    annealed-half-denoising        1000  0.896     0.192                    0.193
    consistent-annealed-sampling    100  0.563     0.260                    0.260
    consistent-annealed-sampling   1000  0.568     0.267                    0.267
    ============================  =====  =====  ========  =======================

    A sampler that walks on each level has the time to follow the known part, and its bias goes down
    with the number of steps. One that asks the network once a level has not, and keeps its bias
    however many the levels: prefer annealed Langevin or annealed half-denoising here. The weights
    of modes far apart come right last, for they are settled at the large levels, where the known
    part says little.

    A sampler without a read-out leaves the noise of the last level on the painted part; the known
    part has none. The options of the class are those of `HDPipeline`.
    """

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        image: PipelineImageInput,
        mask_image: PipelineImageInput,
        num_samples_per_image: int = 1,
        num_inference_steps: int | None = None,
        generator: Generator = None,
        latents: torch.Tensor | None = None,
        start_image: PipelineImageInput | None = None,
        known_noise: str = "step",
        sigmas: list[float] | None = None,
        output_type: str | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Iterable[str] = ("latents",),
        class_labels: int | Sequence[int] | torch.Tensor | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Paints.

        Args:
            image: one image or several: PIL images, turned as their EXIF orientation says, or
                arrays (batch, height, width, channels) or tensors (batch, channels, height, width)
                in [0, 1]; resized, with a warning, if the network's size is another. For a model
                whose samples are no images, points (batch, *sample_shape) in the network's units.
            mask_image: one for all, one for each image, or several for one image; of one channel,
                in [0, 1] or bool, and of the image's size. White (0.5 and above) is painted, black
                is kept: as in diffusers' ``StableDiffusionInpaintPipeline``, and the other way
                round than in its ``RePaintPipeline``. One that paints nothing, or all, is said in a
                warning. For a model whose samples are no images, (batch, *sample_shape).
            num_samples_per_image: how many of each; those of one image follow one another.
            num_inference_steps: network evaluations, all told; the sampler's own by default.
            generator: one generator, or one for each sample (`sample_generators`): then sample i
                does not depend on the batch it is in. The sampler draws the noise that it would
                draw in `HDPipeline`, whatever the mask; the noise on the known part is from a
                `fork` of the generator.
            latents: the chain's first state, shape (samples, *sample_shape), in the network's units
                and at the noise level ``scheduler.sigmas[0]``; drawn by default. Its known part is
                replaced.
            start_image: clean images to start from instead, one for each sample: noise of that
                level is added to them. A sampler at a single level needs them, or ``latents``; by
                default `starter` paints them, on top of ``num_inference_steps``.
            known_noise: when the noise on the known part is drawn anew: each ``"step"``, which is
                nearer to the conditional law, or each ``"level"``.
            sigmas: the noise level of each evaluation, instead of the sampler's ladder.
            output_type: as in `HDPipeline`. Eight-bit images of the network's size come back
                byte for byte where the mask is black.
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.
            callback_on_step_end: as in `HDPipeline`, with the known part of the latents in its
                place.
            callback_on_step_end_tensor_inputs: as in `HDPipeline`.
            class_labels: as in `HDPipeline`, one for all samples or one for each.

        Returns:
            The samples, as ``.images``.

        Raises:
            HDZooError: an argument is out of its range, sizes or numbers do not match, the sampler
                does not go with the network, or the samples are not finite.
        """
        checks.check_part("unet", self.unet)
        checks.check_part("scheduler", self.scheduler)
        return_dict = Flag()("return_dict", return_dict)
        if known_noise not in KNOWN_NOISES:
            raise HDZooError(
                f"unknown known_noise {known_noise!r}; allowed are {', '.join(KNOWN_NOISES)}"
            )
        if output_type is None:
            output_type = "latent" if self.data_range is None else "pil"
        known, painted = self._given(image, mask_image, num_samples_per_image)
        start = self._start(start_image, latents, len(known))
        self._check(len(known), generator, latents, start, output_type)
        scheduler = self._ready_scheduler(num_inference_steps, sigmas, known.device)
        labels = check_class_labels(self.unet, class_labels, len(known), known.device)
        walk = Walk(
            self,
            scheduler,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
            class_labels=labels,
        )
        if latents is None and start is None and not getattr(scheduler, "starts_from_noise", True):
            start = self._starting_samples(
                HDInpaintPipeline,
                image=image,
                mask_image=mask_image,
                num_samples_per_image=num_samples_per_image,
                generator=generator,
                known_noise=known_noise,
                class_labels=labels,
            )
        timesteps = scheduler.timesteps
        levels = timesteps.tolist()
        beside = range(len(levels) - getattr(scheduler, "probes", 0), len(levels))
        # Before the sampler draws.
        known_noises = Noise(fork(generator), known.device, known.dtype)
        z = torch.empty(0)

        def known_in_place(step: int, state: torch.Tensor) -> torch.Tensor:
            nonlocal z
            if step == len(levels):
                return torch.where(painted, state, known)
            if step in beside:
                return state
            if known_noise == "step" or step == 0 or levels[step] != levels[step - 1]:
                z = known_noises.normal(known.shape)
            noisy = scheduler.add_noise(known, z, timesteps[step : step + 1])
            return torch.where(painted, state, noisy)

        first = self._first_state(scheduler, len(known), generator, latents, start, known.device)
        states = walk.run(known_in_place(0, first), generator, between=known_in_place)
        images = self.decode(check_finite(states), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _given(
        self, image: Any, mask_image: Any, num_samples_per_image: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For each sample the known image, in the network's units, and where is to be painted."""
        num_samples_per_image = IMAGES("num_samples_per_image", num_samples_per_image)
        if self.data_range is None:
            known = self._points("image", image)
            mask = check_unit("mask_image", self._points("mask_image", mask_image))
        else:
            channels = self.sample_shape[0]
            known = read_pictures("image", image, channels)
            mask = read_pictures("mask_image", mask_image, 1)
            if mask.shape[-2:] != known.shape[-2:]:
                raise HDZooError(
                    f"mask_image has the height and width {tuple(mask.shape[-2:])}, and image "
                    f"{tuple(known.shape[-2:])}; give a mask of the image's size"
                )
            mask = self._fitted("mask_image", mask, 1)
            low, high = self.data_range
            known = low + (high - low) * self._fitted("image", known, channels)
        say_extremes(mask)
        count = max(len(known), len(mask))
        if not {len(known), len(mask)} <= {1, count}:
            raise HDZooError(
                f"{counted(len(known), 'image')} and {counted(len(mask), 'mask')} are given; "
                "give one mask for all, one for each image, or several for one image"
            )
        device = self._execution_device
        known, painted = (
            part.to(device)
            .expand(count, *part.shape[1:])
            .repeat_interleave(num_samples_per_image, 0)
            for part in (known, mask >= WHITE)
        )
        return known, painted

    def _start(
        self, start_image: Any, latents: torch.Tensor | None, count: int
    ) -> torch.Tensor | None:
        """The clean images to start from, if there are, in the network's units."""
        start = None
        if start_image is not None:
            if latents is not None:
                raise HDZooError("both latents and start_image are given; give one of them")
            if self.data_range is None:
                raise HDZooError(
                    f"start_image is given, and the samples of {type(self.unet).__name__} are no "
                    "images; give latents, at the noise level scheduler.sigmas[0]"
                )
            channels, (low, high) = self.sample_shape[0], self.data_range
            start = read_pictures("start_image", start_image, channels)
            start = low + (high - low) * self._fitted("start_image", start, channels)
        for name, given in (("latents", latents), ("start_image", start)):
            if given is not None and len(floating(name, given, "one state for each")) != count:
                raise HDZooError(
                    f"{name} has {len(given)} for {counted(count, 'sample')}; give one for each"
                )
        return start

    def _fitted(self, name: str, pixels: torch.Tensor, channels: int) -> torch.Tensor:
        """Pictures at the network's size."""
        _, height, width = self.sample_shape
        if pixels.shape[1] != channels:
            raise HDZooError(
                f"{name} has the shape {tuple(pixels.shape)}; it must be (batch, {channels}, "
                f"{height}, {width})"
            )
        return resize(name, pixels, height, width)

    def _points(self, name: str, values: Any) -> torch.Tensor:
        """Points, or their mask, for a model whose samples are no images."""
        wanted = f"the network needs (batch, {', '.join(map(str, self.sample_shape))})"
        try:
            points = torch.as_tensor(values, dtype=torch.float32)
        except (ValueError, TypeError, RuntimeError) as error:
            raise HDZooError(f"{name} is no tensor: {error}; {wanted}") from error
        if tuple(points.shape[1:]) != self.sample_shape or not len(points):
            raise HDZooError(f"{name} has the shape {tuple(points.shape)}; {wanted}")
        if not points.isfinite().all():
            raise HDZooError(f"{name} has values that are not finite, which no mask hides")
        return points


def paint(
    pipe: HDPipeline,
    image: str | Path | Image.Image,
    mask_image: str | Path | Image.Image,
    num_images: int = 1,
    *,
    num_inference_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    start: Any = None,
    known_noise: str = "step",
    class_label: int | None = None,
    on_step: Callable[[int, Any], None] | None = None,
) -> list[Image.Image]:
    """Paints the missing part of an image, each time a function of (seed, index) alone.

    Args:
        pipe: network and sampler.
        image: a file, a URL, or the image itself.
        mask_image: its mask, white where is to be painted; likewise.
        num_images: how many, from index 0.
        num_inference_steps: network evaluations for each; the sampler's own by default.
        seed: of the set.
        batch_size: how many are painted together.
        start: a sampler whose paintings the pipeline's own starts from, with noise of its first
            level added, on top of ``num_inference_steps``; None to start from noise.
        known_noise: as in `HDInpaintPipeline`.
        class_label: for a class-conditional network, the class of all; evenly over all classes by
            index by default.
        on_step: called as ``f(step, latents)`` after each step of the first batch.

    Raises:
        HDZooError: a file cannot be read, a number is out of its range, or the chain does not go
            with the network.
    """
    IMAGES("num_images", num_images)
    IMAGES("batch_size", batch_size)
    SEED("seed", seed)
    given: dict[str, Any] = {
        "image": image if isinstance(image, Image.Image) else open_picture(image),
        "mask_image": (
            mask_image if isinstance(mask_image, Image.Image) else open_picture(mask_image)
        ),
        "known_noise": known_noise,
        "return_dict": False,
    }
    painter = HDInpaintPipeline(pipe.unet, pipe.scheduler)
    painter.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    first = HDInpaintPipeline(pipe.unet, start) if start is not None else None
    images: list[Image.Image] = []

    def after_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None and begin == 0:
            on_step(step, tensors["latents"])
        return tensors

    for begin in range(0, num_images, batch_size):
        indices = range(begin, min(begin + batch_size, num_images))
        common = given | {
            "num_samples_per_image": len(indices),
            "generator": sample_generators(seed, indices),
            "class_labels": labels_by_index(pipe.unet, indices, class_label),
        }
        begun = None if first is None else first(**common, output_type="pt")[0]
        images += painter(
            **common,
            num_inference_steps=num_inference_steps,
            start_image=begun,
            callback_on_step_end=None if on_step is None else after_step,
        )[0]
    return images


def say_extremes(mask: torch.Tensor) -> None:
    """Warns of masks that paint nothing, or everything.

    Args:
        mask: in [0, 1], shape (masks, ...).
    """
    share = (mask >= WHITE).flatten(1).float().mean(1)
    for extreme, painted in ((0.0, "nothing"), (1.0, "everything")):
        found = int((share == extreme).sum())
        if found:
            which = "mask_image" if len(mask) == 1 else f"{found} of the {len(mask)} masks"
            warnings.warn(
                f"{which} paints {painted}: its values are from {mask.min():.3g} to "
                f"{mask.max():.3g}, where 0 is black and 1 is white; from {WHITE} on is painted",
                stacklevel=4,
            )


def fork(generator: Generator) -> Generator:
    """A generator of other noise that is a function of a generator's state, which it leaves alone.

    Args:
        generator: one, a list, or None for the global one.

    Returns:
        The same kind: one, a list of as many, or None.
    """
    if generator is None:
        return None
    if not isinstance(generator, list):
        return _fork(generator)
    # One that stands for several samples is to go on from sample to sample.
    forks = {one: _fork(one) for one in generator}
    return [forks[one] for one in generator]


def _fork(generator: OneGenerator) -> OneGenerator:
    if isinstance(generator, GreatCircle):
        first, second = map(_fork_alone, (generator.first, generator.second))
        return GreatCircle(first, second, generator.fraction)
    return _fork_alone(generator)


def _fork_alone(generator: torch.Generator) -> torch.Generator:
    device = generator.device
    seed = torch.randint(2**63 - 1, (), generator=generator.clone_state(), device=device)
    return torch.Generator(device).manual_seed(int(seed))
