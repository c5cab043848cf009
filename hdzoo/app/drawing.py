"""Drawing with several samplers from the same noise, told of while it goes on."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdzoo import plugins, sampling
from hdzoo.app.fields import changed, fields_of
from hdzoo.app.film import Film, thinned
from hdzoo.app.limits import EVALUATIONS, IMAGES, check_samplers, check_seed, check_work, whole
from hdzoo.app.models import Models
from hdzoo.app.worker import Tell, counted_evaluations, in_steps
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
    each = {name: _evaluations(pipe, order) for name, pipe in pipes.items()}
    check_work(order.num_images * sum(each.values()))
    films = {name: Film(name, (), (), "waits") for name in pipes}
    done, begin = 0, time.perf_counter()

    def show(name: str, film: Film, finished: bool = False) -> None:
        films[name] = film
        total = order.num_images * sum(each.values())
        seconds = time.perf_counter() - begin
        share = f"{counted(total, 'network evaluation')}" if finished else f"{done:,} of {total:,}"
        tell(Drawing(tuple(films.values()), f"{share} · {seconds:.1f} s", finished))

    for name, pipe in pipes.items():
        started = time.perf_counter()
        steps = order.num_inference_steps
        trajectory = sampling.Trajectory(pipe, steps)
        before = done
        with counted_evaluations(pipe.unet, tell) as asked:

            def after_step(
                step: int,
                latents: Any,
                name: str = name,
                trajectory: sampling.Trajectory = trajectory,
                before: int = before,
                asked: list[int] = asked,
            ) -> None:
                nonlocal done
                done = before + asked[0] * order.num_images
                seen = len(trajectory.frames)
                trajectory.record(step, latents)
                if len(trajectory.frames) > seen:
                    note = f"evaluation {step + 1} of {steps}"
                    show(name, Film(name, trajectory.frames[-1:], (note,), note))

            start = sampling.start_of(pipe, order.model)
            if start is not None:
                show(name, Film(name, (), (), f"first {type(start).__name__}, to start from"))
            images = sampling.draw(
                pipe,
                order.num_images,
                num_inference_steps=steps,
                seed=order.seed,
                batch_size=order.num_images,
                start=start,
                on_step=after_step,
                on_progress=lambda _: None,
            )
            done = before + asked[0] * order.num_images
        frames = [*trajectory.frames[:-1], sampling.image_grid(images)]
        shown = sorted(trajectory.wanted)
        kept = thinned(len(frames))
        captions = tuple(f"evaluation {shown[i] + 1} of {steps}" for i in kept)
        spent = f"{counted(asked[0], 'evaluation')} an image"
        note = f"{spent} · {time.perf_counter() - started:.1f} s"
        is_last = name == order.samplers[-1]
        show(name, Film(name, tuple(frames[i] for i in kept), captions, note), is_last)


def _evaluations(pipe: HDPipeline, order: Order) -> int:
    """Network evaluations for an image, those of the images that a chain starts from included."""
    pipe.check_chain(order.num_inference_steps)
    start = sampling.start_of(pipe, order.model)
    return order.num_inference_steps + (0 if start is None else int(start.num_inference_steps))
