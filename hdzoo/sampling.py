"""Drawing pictures: samples, grids, and the trajectory that leads to them."""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState
from diffusers.utils import make_image_grid
from PIL import Image, PngImagePlugin

from hdzoo import plugins
from hdzoo.catalog import weights_hash
from hdzoo.checks import IMAGES, SEED, Whole, shown
from hdzoo.errors import HDZooError
from hdzoo.files import whole_file
from hdzoo.hub.resolve import resolve_model
from hdzoo.models.onnx_unet import to_onnxruntime
from hdzoo.pipelines.backends import backend_of, check_backend
from hdzoo.pipelines.generators import interpolated_generators, sample_generators
from hdzoo.pipelines.labels import labels_by_index, labels_in_words
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.held_out import MATCHED
from hdzoo.samplers.noise import Generator
from hdzoo.samplers.presets import get_preset
from hdzoo.version import __version__

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    # As people who train call them.
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
TRAJECTORY_FRAMES = 48
# Of larger pictures Pillow warns that they may be meant to fill the memory.
MOST_PIXELS = 89_478_485


def find_dtype(name: str) -> torch.dtype:
    """The dtype of a name, one of `DTYPES`.

    Raises:
        HDZooError: there is none.
    """
    if name not in DTYPES:
        raise HDZooError(f"unknown dtype {name!r}; allowed are {', '.join(DTYPES)}")
    return DTYPES[name]


def load_pipeline(
    model: str | Path,
    sampler: str | None = None,
    options: dict[str, Any] | None = None,
    dtype: str = "float32",
    preset: str | None = None,
    backend: str = "torch",
) -> HDPipeline:
    """Loads a model with a sampler of choice, on the device that Accelerate chooses.

    Args:
        model: a folder, a bundled name, or a Hub id.
        sampler: a registered name; the model's own sampler by default.
        options: of the sampler, over those that the model's own sampler has in common with it. The
            loss that a variance-matched option needs is the network's own, if none is given.
        dtype: of the network's weights, one of `DTYPES`; the state is float32 in any case.
        preset: the name of a preset, in the place of ``sampler`` and ``options``.
        backend: what computes the network, one of `hdzoo.pipelines.backends.BACKENDS`.

    Raises:
        HDZooError: something is not found or does not fit.
    """
    check_preset(preset, sampler, options)
    weights_dtype = find_dtype(dtype)
    check_backend(backend, weights_dtype)
    if sampler:
        plugins.get_sampler(sampler)
    pipe = HDPipeline.from_pretrained(model, dtype=weights_dtype)
    if preset is not None:
        pipe.scheduler = get_preset(preset).for_model(pipe)
    else:
        pipe.scheduler = sampler_for(pipe, sampler, options)
    pipe = pipe.to(PartialState().device)
    if backend == "onnxruntime":
        pipe.unet = to_onnxruntime(pipe.unet)
    return pipe


def sampler_for(
    pipe: HDPipeline, sampler: str | None = None, options: dict[str, Any] | None = None
) -> Any:
    """A sampler of choice for a pipeline that is loaded, which stays as it is.

    Args:
        pipe: with the model's own sampler.
        sampler: as in `load_pipeline`.
        options: as in `load_pipeline`.

    Raises:
        HDZooError: something is not found or does not fit.
    """
    chosen = plugins.get_sampler(sampler) if sampler else type(pipe.scheduler)
    given = dict(options or {})
    takes_loss = "held_out_loss" in inspect.signature(chosen.__init__).parameters
    if takes_loss and any(given.get(option) == word for option, word in MATCHED.items()):
        given.setdefault("held_out_loss", pipe.unet.config.get("held_out_loss"))
    return chosen.from_config(pipe.scheduler.config, **given)


def check_preset(
    preset: str | None,
    sampler: str | None,
    options: dict[str, Any] | None,
    num_inference_steps: int | None = None,
) -> None:
    """Refuses a preset that there is not, and what contradicts one; all as in `load_pipeline`."""
    if preset is None:
        return
    steps = get_preset(preset).num_inference_steps
    said = {"sampler": sampler, "option": options, "num_inference_steps": num_inference_steps}
    for name, value in said.items():
        if value:
            raise HDZooError(
                f"preset {preset!r} is a sampler, its options and {steps} evaluations, and {name} "
                f"is {shown(value)}; leave one of the two out"
            )


def start_of(pipe: HDPipeline, model: str | Path) -> Any:
    """The model's own sampler, if the pipeline's one needs images to start from; else None."""
    if getattr(pipe.scheduler, "starts_from_noise", True):
        return None
    return pipe.starter


def check_numbers(
    num_images: int, batch_size: int, seed: int, interpolate: Sequence[tuple[int, int]] = ()
) -> None:
    """Refuses what no drawing can use, before a model is loaded; the arguments are `draw`'s."""
    IMAGES("num_images", num_images)
    IMAGES("batch_size", batch_size)
    SEED("seed", seed)
    for a, b in interpolate:
        SEED("interpolate", a)
        SEED("interpolate", b)
        if a == b:
            raise HDZooError(f"interpolate is {a}:{b}; give two seeds, between which images turn")
    if interpolate and num_images < 2:
        raise HDZooError(
            f"num_images is {num_images}; from one seed to the other it takes at least 2"
        )


def check_batch(pipe: HDPipeline, name: str, size: int) -> None:
    """Refuses to draw more images together than this machine could hold.

    Args:
        pipe: that is to draw.
        name: of the number, for the message.
        size: how many.
    """
    IMAGES(name, size)
    # State, noise, prediction and what is made of them; what the network needs is not known.
    needed = 4 * 4 * size * math.prod(pipe.sample_shape)
    memory = psutil.virtual_memory().total
    if needed > memory:
        raise HDZooError(
            f"{name} is {size}; so many images at a time take more than {needed / 1e9:,.0f} GB, "
            f"and this machine has {memory / 1e9:,.0f}: give fewer"
        )


def images_of_a_chain(pipe: HDPipeline, samples_every: int | None) -> int:
    """How many images one chain makes, whose number of evaluations is set.

    Raises:
        HDZooError: ``samples_every`` is out of its range.
    """
    steps = pipe.scheduler.num_inference_steps
    return 1 if samples_every is None else steps // Whole(1, steps)("samples_every", samples_every)


def check_grid(pipe: HDPipeline, num_images: int, scale: int, columns: int | None = None) -> None:
    """Refuses a grid that nobody could open, before its images are drawn.

    Args:
        pipe: that is to draw.
        num_images: in the grid.
        scale: as in `image_grid`.
        columns: as in `image_grid`.
    """
    IMAGES("num_images", num_images)
    cells = math.prod(_grid_shape(num_images, columns))
    pixels = cells * math.prod(pipe.sample_shape[1:]) * scale**2
    if pixels > MOST_PIXELS:
        raise HDZooError(
            f"num_images is {num_images} and scale is {scale}: the grid would have "
            f"{pixels:.2g} pixels, and at most {MOST_PIXELS:,} can be opened everywhere. Give a "
            "smaller scale or fewer images; `hdzoo generate` draws sets of any size"
        )


def draw(
    pipe: HDPipeline,
    num_images: int,
    *,
    num_inference_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    start: Any = None,
    on_step: Callable[[int, Any], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
    class_label: int | None = None,
    interpolate: Sequence[tuple[int, int]] = (),
    samples_every: int | None = None,
) -> list[Image.Image]:
    """Draws images, each a function of (seed, its index) alone.

    Args:
        pipe: the pipeline.
        num_images: how many, from index 0; with ``interpolate``, for each pair.
        num_inference_steps: network evaluations for each image; the sampler's own by default.
        seed: of the set.
        batch_size: images drawn together.
        start: a sampler whose images the pipeline's own starts from, with noise of its first level
            added, on top of ``num_inference_steps``; None to start from noise.
        on_step: called as ``f(step, latents)`` after each step of the first batch.
        on_progress: called with the number of images done, shares of those that are forming
            included, in the place of diffusers' bars.
        class_label: for a class-conditional network, the class of all; evenly over all classes by
            index by default.
        interpolate: pairs of seeds, in the place of ``seed``: for each pair images that turn from
            the one's image of index 0 into the other's (`interpolated_generators`).
        samples_every: as in `HDPipeline`: several images of each chain, one after the other.

    Raises:
        HDZooError: a number is not positive, the chain does not go with the network, or a pair is
            none.
    """
    check_numbers(num_images, batch_size, seed, interpolate)
    between = [one for a, b in interpolate for one in interpolated_generators(a, b, num_images)]
    num_images = len(between) or num_images
    check_batch(pipe, "batch_size", min(batch_size, num_images))
    first = HDPipeline(pipe.unet, start) if start is not None else None
    silent = on_progress is not None
    if first is not None:
        first.set_progress_bar_config(desc="images to start from", disable=silent)
    images: list[Image.Image] = []

    def after_step(step: int, latents: Any) -> None:
        if on_step is not None and begin == 0:
            on_step(step, latents)
        if on_progress is not None:
            share = (step + 1) / len(pipe.scheduler.timesteps)
            on_progress(begin + share * len(indices))

    for begin in range(0, num_images, batch_size):
        indices = range(begin, min(begin + batch_size, num_images))
        pipe.set_progress_bar_config(desc=f"images {indices[0]} to {indices[-1]}", disable=silent)
        images += draw_batch(
            pipe,
            [0] * len(indices) if between else indices,
            num_inference_steps=num_inference_steps,
            seed=seed,
            generator=between[begin : begin + batch_size] or None,
            first=first,
            on_step=after_step,
            class_label=class_label,
            samples_every=samples_every,
        )
    return images


def draw_batch(
    pipe: HDPipeline,
    indices: Sequence[int],
    *,
    num_inference_steps: int | None = None,
    start_num_inference_steps: int | None = None,
    seed: int = 0,
    generator: Generator = None,
    first: HDPipeline | None = None,
    on_step: Callable[[int, Any], None] | None = None,
    class_label: int | None = None,
    samples_every: int | None = None,
) -> list[Image.Image]:
    """Draws the images of some indices together.

    Args:
        pipe: the pipeline.
        indices: of the images.
        num_inference_steps: network evaluations for each image; the sampler's own by default.
        start_num_inference_steps: likewise, of ``first``.
        seed: of the set.
        generator: one for each image, in the place of those of ``seed`` and ``indices``.
        first: a pipeline that draws the images to start from; None to start from noise.
        on_step: called as ``f(step, latents)`` after each step.
        class_label: as in `draw`.
        samples_every: as in `draw`.
    """
    generator = generator or sample_generators(seed, indices)
    labels = labels_by_index(pipe.unet, indices, class_label)
    clean = None
    if first is not None:
        # What the call below would refuse is refused before all this is drawn for it.
        pipe.check_chain(num_inference_steps)
        clean = first(
            len(indices),
            start_num_inference_steps,
            generator=generator,
            output_type="pt",
            return_dict=False,
            class_labels=labels,
        )[0]

    def callback(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert on_step is not None
        on_step(step, tensors["latents"])
        return tensors

    return pipe(
        len(indices),
        num_inference_steps,
        generator=generator,
        image=clean,
        callback_on_step_end=callback if on_step else None,
        return_dict=False,
        class_labels=labels,
        samples_every=samples_every,
    )[0]


def image_grid(
    images: list[Image.Image], scale: int = 1, columns: int | None = None
) -> Image.Image:
    """A grid; missing places at the end are black.

    Args:
        images: of one size.
        scale: each pixel becomes a square of so many.
        columns: how many; as many as make it as square as can be by default.
    """
    rows, columns = _grid_shape(len(images), columns)
    blank = Image.new(images[0].mode, images[0].size)
    grid = make_image_grid(images + [blank] * (rows * columns - len(images)), rows, columns)
    # make_image_grid makes a colour image of grey ones.
    grid = grid.convert(images[0].mode)
    return grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST)


def _grid_shape(count: int, columns: int | None) -> tuple[int, int]:
    columns = columns or math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


class Trajectory:
    """Frames of a grid while it forms, for an animation; give `record` to `draw` as ``on_step``.

    Args:
        pipe: the pipeline that draws.
        num_steps: how many steps its chain has.
        scale: as in `image_grid`.
        columns: as in `image_grid`.
    """

    def __init__(
        self, pipe: HDPipeline, num_steps: int, scale: int = 1, columns: int | None = None
    ) -> None:
        self.pipe = pipe
        self.scale, self.columns = scale, columns
        self.frames: list[Image.Image] = []
        last = num_steps - 1
        count = min(num_steps, TRAJECTORY_FRAMES)
        self.wanted = {round(last * i / max(1, count - 1)) for i in range(count)}

    def record(self, step: int, latents: torch.Tensor) -> None:
        """Keeps the state after a step, if it is one of the frames."""
        if step in self.wanted:
            images = self.pipe.decode(latents, "pil")
            self.frames.append(image_grid(images, self.scale, self.columns))

    def save(self, path: Path) -> None:
        """Writes an animated GIF that rests on its last frame."""
        durations = [80] * (len(self.frames) - 1) + [2000]
        with whole_file(path) as partial:
            self.frames[0].save(
                partial,
                format="GIF",
                save_all=True,
                append_images=self.frames[1:],
                duration=durations,
                loop=0,
            )


def protocol(
    pipe: HDPipeline,
    model: str,
    seed: int,
    start: Any = None,
    class_label: int | None = None,
    interpolate: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """What made a set of images, to be written beside it; arguments as in `draw`."""
    if interpolate and (labels := labels_by_index(pipe.unet, [0], class_label)):
        class_label = labels[0]
    return network_protocol(pipe, model) | {
        "sampler": type(pipe.scheduler).__name__,
        "options": {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")},
        "num_inference_steps": pipe.scheduler.num_inference_steps,
        "started_from": type(start).__name__ if start is not None else "noise",
        **({"interpolate": list(interpolate)} if interpolate else {"seed": seed}),
        "class_labels": labels_in_words(pipe.unet, class_label),
    }


def network_protocol(pipe: HDPipeline, model: str) -> dict[str, Any]:
    """The part of it that is of the network alone."""
    guided = getattr(pipe.unet, "guided", False)
    guidance = ("guidance_scale", "guidance_interval") if guided else ()
    return {
        "hdzoo": __version__,
        "model": model,
        "weights_sha256": weights_hash(resolve_model(model)),
        # Of the same weights, other guidance is another network.
        **{key: pipe.unet.config[key] for key in guidance},
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "backend": backend_of(pipe.unet),
    }


def picture_path(subject: str | Path, what: str, made_by: dict[str, Any]) -> Path:
    """Where a picture goes that nobody has named: none takes the place of one made otherwise.

    Args:
        subject: the model, or the image that was painted.
        what: is drawn, in a word or a few.
        made_by: the protocol, and all else that the picture depends on.
    """
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()
    if "seed" in made_by:
        seeds = f"seed{made_by['seed']}"
    else:
        (a, b), *_ = made_by["interpolate"]
        seeds = f"from{a}to{b}"
    return Path("samples") / f"{Path(subject).resolve().stem}-{what}-{seeds}-{digest[:8]}.png"


def save_png(image: Image.Image, path: Path, made_by: dict[str, Any]) -> None:
    """Writes a PNG with what made it in its text field ``hdzoo``."""
    info = PngImagePlugin.PngInfo()
    info.add_text("hdzoo", json.dumps(made_by))
    with whole_file(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)
