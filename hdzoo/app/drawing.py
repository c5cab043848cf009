"""Drawing with several samplers from the same noise, told of while it goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

from hdzoo import plugins, sampling
from hdzoo.app.fields import changed, fields_of
from hdzoo.app.film import Film, thinned
from hdzoo.app.limits import EVALUATIONS, IMAGES, check_samplers, check_seed, check_work, whole
from hdzoo.app.models import Models
from hdzoo.app.worker import Tell, in_steps
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.text import counted


@dataclass(frozen=True)
class Order:
    """What a visitor asks for, checked.

    Attributes:
        model: its name.
        samplers: registered names.
        num_images: of each sampler.
        num_inference_steps: network evaluations for each image.
        seed: image i of each sampler starts from the noise of (seed, i).
        options: of each sampler, over the model's own.
    """

    model: str
    samplers: tuple[str, ...]
    num_images: int
    num_inference_steps: int
    seed: int
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """What there is to see of an order.

    Attributes:
        films: one for each sampler.
        status: a line that sums it up.
        finished: whether it is.
    """

    films: tuple[Film, ...]
    status: str
    finished: bool = False


def check_order(
    models: Models,
    model: Any,
    samplers: Any,
    num_images: Any,
    num_inference_steps: Any,
    seed: Any,
    texts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Order:
    """An order from what is in the fields of the page.

    Args:
        models: of the page.
        model: one of them.
        samplers: 1 to 4 registered names.
        num_images: of each.
        num_inference_steps: network evaluations for each image.
        seed: of the set.
        texts: for each sampler, what is in the fields of its options.

    Raises:
        HDZooError: something is not allowed.
    """
    models.check(model)
    names = check_samplers(samplers, plugins.list_samplers())
    count = IMAGES("the number of images", whole("the number of images", num_images))
    steps = EVALUATIONS("the number of evaluations", whole("evaluations", num_inference_steps))
    number = check_seed("seed", seed)
    config = models.pipeline(model).scheduler.config
    options = {
        name: changed(fields_of(name, config), given)
        for name in names
        if (given := (texts or {}).get(name))
    }
    for name in names:
        # What it refuses is to be heard of before a command with it is shown.
        models.load(model, name, options.get(name))
    return Order(model, tuple(names), count, steps, number, options)


def draw(models: Models, order: Order) -> Iterator[Drawing | None]:
    """Draws, and yields what there is to see; None before there is anything.

    Raises:
        HDZooError: something does not fit.
    """
    return in_steps(lambda tell: _draw(models, order, tell))


def _draw(models: Models, order: Order, tell: Tell[Drawing]) -> None:
    """The work itself."""
    pipes = {
        name: models.load(order.model, name, order.options.get(name)) for name in order.samplers
    }
    # What cannot be drawn is to be heard of before the first picture.
    steps = order.num_inference_steps
    total = order.num_images * sum(cost(pipe, order.model, steps) for pipe in pipes.values())
    check_work(total)
    films = {name: Film(name, (), (), "waits") for name in pipes}
    done, begin = 0, time.perf_counter()

    def show(film: Film, asked: int = 0) -> None:
        films[film.title] = film
        made, seconds = done + asked * order.num_images, time.perf_counter() - begin
        status = f"{made:,} of {counted(total, 'network evaluation')} · {seconds:.1f} s"
        tell(Drawing(tuple(films.values()), status))

    for name, pipe in pipes.items():
        recorder = Recorder(name, pipe, steps, show, tell)
        start = sampling.start_of(pipe, order.model)
        if start is not None:
            show(Film(name, (), (), f"first {type(start).__name__}, to start from"))
        with recorder:
            images = sampling.draw(
                pipe,
                order.num_images,
                num_inference_steps=steps,
                seed=order.seed,
                batch_size=order.num_images,
                start=start,
                on_step=recorder.on_step,
                on_progress=lambda _: None,
            )
        done += recorder.asked * order.num_images
        show(recorder.film(images))
    seconds = time.perf_counter() - begin
    status = f"{counted(done, 'network evaluation')} · {seconds:.1f} s"
    tell(Drawing(tuple(films.values()), status, finished=True))


def cost(pipe: HDPipeline, model: str, num_inference_steps: int) -> int:
    """Network evaluations for an image, those of the images that a chain starts from included.

    Raises:
        HDZooError: there is no such chain, or it does not go with the network.
    """
    pipe.check_chain(num_inference_steps)
    start = sampling.start_of(pipe, model)
    return num_inference_steps + (0 if start is None else int(start.num_inference_steps))


class Recorder:
    """Keeps the pictures of a grid while it forms; used around the drawing.

    Args:
        title: of the film.
        pipe: that draws.
        num_inference_steps: of its chain.
        show: called with the film at each picture, and how often the network was asked so far.
        tell: of the piece of work.
        columns: of the grid.

    Attributes:
        asked: how often the network was asked, with all images together.
    """

    def __init__(
        self,
        title: str,
        pipe: HDPipeline,
        num_inference_steps: int,
        show: Callable[[Film, int], None],
        tell: Tell[Any],
        columns: int | None = None,
    ) -> None:
        self.title, self.pipe, self.steps = title, pipe, num_inference_steps
        self.show, self.tell, self.columns = show, tell, columns
        self.trajectory = sampling.Trajectory(pipe, num_inference_steps, columns=columns)
        self.asked = 0

    def __enter__(self) -> Self:
        def after(*_: Any) -> None:
            self.asked += 1
            # Ends the work here if nobody wants it.
            self.tell(None)

        self._begin = time.perf_counter()
        self._hook = self.pipe.unet.register_forward_hook(after)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self._seconds = time.perf_counter() - self._begin

    def on_step(self, step: int, latents: Any) -> None:
        """To be given to what draws."""
        seen = len(self.trajectory.frames)
        self.trajectory.record(step, latents)
        if len(self.trajectory.frames) > seen:
            note = self._caption(step)
            self.show(Film(self.title, self.trajectory.frames[-1:], (note,), note), self.asked)

    def film(self, images: list[Image.Image]) -> Film:
        """The whole film, which ends with the images that were drawn."""
        frames = [*self.trajectory.frames[:-1], sampling.image_grid(images, 1, self.columns)]
        steps = sorted(self.trajectory.wanted)
        kept = thinned(len(frames))
        note = f"{counted(self.asked, 'evaluation')} an image · {self._seconds:.1f} s"
        return Film(
            self.title,
            tuple(frames[i] for i in kept),
            tuple(self._caption(steps[i]) for i in kept),
            note,
        )

    def _caption(self, step: int) -> str:
        return f"evaluation {step + 1} of {self.steps}"
