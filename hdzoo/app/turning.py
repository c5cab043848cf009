"""Images that turn from one seed's into another's."""

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hdzoo import plugins, sampling
from hdzoo.app.drawing import Drawing, Recorder, cost
from hdzoo.app.film import Film
from hdzoo.app.limits import EVALUATIONS, check_samplers, check_seed, check_work, whole
from hdzoo.app.models import Models
from hdzoo.app.worker import Tell, in_steps
from hdzoo.checks import Whole
from hdzoo.text import counted

MOST_IMAGES = 16


@dataclass(frozen=True)
class Turn:
    """What a visitor asks for, checked."""

    model: str
    sampler: str
    first: int
    last: int
    num_images: int
    num_inference_steps: int

    @property
    def command(self) -> str:
        """The command that makes the same."""
        return (
            f"hdzoo sample {shlex.quote(self.model)} -s {self.sampler} "
            f"--interpolate {self.first}:{self.last} -n {self.num_images} "
            f"-t {self.num_inference_steps}"
        )


def check_turn(
    models: Models, model: Any, sampler: Any, first: Any, last: Any, num_images: Any, steps: Any
) -> Turn:
    """A turn from what is in the fields of the page.

    Raises:
        HDZooError: something is not allowed.
    """
    models.check(model)
    (name,) = check_samplers([sampler], plugins.list_samplers())
    seeds = check_seed("the first seed", first), check_seed("the second seed", last)
    count = Whole(2, MOST_IMAGES)("the number of images", whole("the number of images", num_images))
    evaluations = EVALUATIONS("the number of evaluations", whole("evaluations", steps))
    sampling.check_numbers(count, count, 0, [seeds])
    return Turn(model, name, *seeds, count, evaluations)


def turn(models: Models, order: Turn) -> Iterator[Drawing | None]:
    """Draws a row of images, and yields what there is to see; None before there is anything.

    Raises:
        HDZooError: something does not fit.
    """

    def work(tell: Tell[Drawing]) -> None:
        pipe = models.load(order.model, order.sampler)
        steps, count = order.num_inference_steps, order.num_images
        total = count * cost(pipe, order.model, steps)
        check_work(total)
        begin = time.perf_counter()

        def show(film: Film, asked: int) -> None:
            seconds = time.perf_counter() - begin
            made = f"{asked * count:,} of {counted(total, 'network evaluation')}"
            tell(Drawing((film,), f"{made} · {seconds:.1f} s"))

        title = f"seed {order.first} to seed {order.last}"
        with Recorder(title, pipe, steps, show, tell, columns=count) as recorder:
            images = sampling.draw(
                pipe,
                count,
                num_inference_steps=steps,
                batch_size=count,
                start=sampling.start_of(pipe, order.model),
                interpolate=[(order.first, order.last)],
                on_step=recorder.on_step,
                on_progress=lambda _: None,
            )
        status = f"{counted(recorder.asked * count, 'network evaluation')}"
        tell(Drawing((recorder.film(images),), status, finished=True))

    return in_steps(work)
