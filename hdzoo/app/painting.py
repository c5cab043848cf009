"""Painting the missing part of a picture that the model has drawn."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hdzoo import plugins, sampling
from hdzoo.app.drawing import Drawing, Recorder, cost
from hdzoo.app.film import Film
from hdzoo.app.limits import EVALUATIONS, IMAGES, check_samplers, check_seed, check_work, whole
from hdzoo.app.models import Models
from hdzoo.app.worker import Tell, in_steps
from hdzoo.errors import HDZooError
from hdzoo.pipelines.inpainting import paint
from hdzoo.text import counted

# The picture that is painted on: drawn quickly, by the same for all.
FIRST_SAMPLER, FIRST_EVALUATIONS = "dpm-solver-pp-2m", 20
MOST_KEPT = 64
# A picture with more has no mask that is drawn cell by cell.
MOST_CELLS = 256 * 256


class Pictures:
    """Pictures to paint on, by model and seed; the last few are kept.

    Args:
        models: of the page.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self._drawn: OrderedDict[tuple[str, int], Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, model: str, seed: int) -> Image.Image:
        """The picture of a seed; only to be called by the worker.

        Raises:
            HDZooError: the model cannot be loaded or has no pictures of a fit size.
        """
        with self._lock:
            if (model, seed) in self._drawn:
                return self._drawn[model, seed]
        pipe = self.models.load(model, FIRST_SAMPLER)
        _, height, width = pipe.sample_shape
        if height * width > MOST_CELLS:
            raise HDZooError(
                f"the pictures of {model!r} have {height} x {width} pixels; this page paints on at "
                f"most {MOST_CELLS:,}. `hdzoo inpaint` has no such limit"
            )
        (image,) = sampling.draw(
            pipe,
            1,
            num_inference_steps=FIRST_EVALUATIONS,
            seed=seed,
            batch_size=1,
            on_progress=lambda _: None,
        )
        with self._lock:
            self._drawn[model, seed] = image
            while len(self._drawn) > MOST_KEPT:
                self._drawn.popitem(last=False)
        return image

    def in_steps(self, model: Any, seed: Any) -> Iterator[Image.Image | None]:
        """The same, done by the worker."""
        self.models.check(model)
        number = check_seed("the picture's seed", seed)

        def work(tell: Tell[Image.Image]) -> None:
            tell(self.draw(model, number))

        return in_steps(work)


@dataclass(frozen=True)
class Gap:
    """What a visitor asks for, checked.

    Attributes:
        model: its name.
        picture: the seed of the picture.
        mask: rows of cells from the top, ``1`` where is to be painted.
        sampler: a registered name.
        num_images: paintings.
        num_inference_steps: network evaluations of each.
        seed: of the paintings.
    """

    model: str
    picture: int
    mask: str
    sampler: str
    num_images: int
    num_inference_steps: int
    seed: int


def check_gap(
    models: Models,
    model: Any,
    picture: Any,
    mask: Any,
    sampler: Any,
    num_images: Any,
    steps: Any,
    seed: Any,
) -> Gap:
    """A gap from what is in the fields of the page.

    Raises:
        HDZooError: something is not allowed.
    """
    models.check(model)
    (name,) = check_samplers([sampler], plugins.list_samplers())
    if not isinstance(mask, str) or not set(mask) <= {"0", "1"} or len(mask) > MOST_CELLS:
        raise HDZooError("there is no mask; draw one over the picture")
    if "1" not in mask:
        raise HDZooError(
            "the mask is empty; draw over the part of the picture that is to be painted"
        )
    return Gap(
        model,
        check_seed("the picture's seed", picture),
        mask,
        name,
        IMAGES("the number of paintings", whole("the number of paintings", num_images)),
        EVALUATIONS("the number of evaluations", whole("evaluations", steps)),
        check_seed("seed", seed),
    )


def mask_image(mask: str, width: int, height: int) -> Image.Image:
    """A mask of cells as a picture, white where is to be painted.

    Raises:
        HDZooError: it is of another size.
    """
    if len(mask) != width * height:
        raise HDZooError("the mask is of another picture; draw the picture again, and the mask")
    cells = np.frombuffer(mask.encode(), np.uint8).reshape(height, width)
    return Image.fromarray((cells - ord("0")) * np.uint8(255))


def fill(pictures: Pictures, order: Gap) -> Iterator[Drawing | None]:
    """Paints, and yields what there is to see; None before there is anything.

    Raises:
        HDZooError: something does not fit.
    """

    def work(tell: Tell[Drawing]) -> None:
        picture = pictures.draw(order.model, order.picture)
        mask = mask_image(order.mask, *picture.size)
        pipe = pictures.models.load(order.model, order.sampler)
        steps, count = order.num_inference_steps, order.num_images
        total = count * cost(pipe, order.model, steps)
        check_work(total)
        # Where is to be painted there is nothing to be seen before.
        known = Film("given", (hidden(picture, mask),), ("",))
        begin = time.perf_counter()

        def show(film: Film, asked: int) -> None:
            seconds = time.perf_counter() - begin
            made = f"{asked * count:,} of {counted(total, 'network evaluation')}"
            tell(Drawing((known, film), f"{made} · {seconds:.1f} s"))

        with Recorder(order.sampler, pipe, steps, show, tell) as recorder:
            images = paint(
                pipe,
                picture,
                mask,
                count,
                num_inference_steps=steps,
                seed=order.seed,
                batch_size=count,
                start=sampling.start_of(pipe, order.model),
                on_step=recorder.on_step,
            )
        film = recorder.film(images)
        still = Film("given", [known.frames[0]] * len(film.frames), film.captions)
        status = counted(recorder.asked * count, "network evaluation")
        tell(Drawing((still, film), status, finished=True))

    return in_steps(work)


def hidden(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with what is to be painted hidden."""
    covered = picture.convert("RGB")
    covered.paste(COVER, mask=mask)
    return covered


COVER = (217, 119, 6)
