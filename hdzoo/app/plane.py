"""Chains in the plane, told of while they are drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hdzoo import plugins
from hdzoo.app.film import Film
from hdzoo.app.limits import CHAINS, EVALUATIONS, check_samplers, check_seed, whole
from hdzoo.app.worker import Tell, in_steps
from hdzoo.checks import OneOf
from hdzoo.demo.demo import demo_2d, planar_targets
from hdzoo.demo.frames import frame_steps

MOST_SAMPLERS = 2
FRAMES = 21
COLOURS = 128


@dataclass(frozen=True)
class Walk:
    """What a visitor asks for, checked; as the arguments of `demo_2d`."""

    target: str
    samplers: tuple[str, ...]
    num_samples: int
    num_inference_steps: int
    seed: int

    @property
    def command(self) -> str:
        """The command that makes the same."""
        named = " ".join(f"-s {name}" for name in self.samplers)
        return (
            f"hdzoo demo-2d --target {self.target} {named} -n {self.num_samples} "
            f"-t {self.num_inference_steps} --seed {self.seed}"
        )


@dataclass(frozen=True)
class Seen:
    """What there is to see of chains in the plane.

    Attributes:
        film: their pictures so far.
        table: as in `hdzoo.demo.demo.Demo`; empty until they are finished.
    """

    film: Film
    table: list[dict[str, str]]


def check_walk(target: Any, samplers: Any, num_samples: Any, steps: Any, seed: Any) -> Walk:
    """A walk from what is in the fields of the page.

    Raises:
        HDZooError: something is not allowed.
    """
    return Walk(
        OneOf(tuple(planar_targets()))("target", target),
        tuple(check_samplers(samplers, plugins.list_samplers(), MOST_SAMPLERS)),
        CHAINS("the number of chains", whole("the number of chains", num_samples)),
        EVALUATIONS("the number of evaluations", whole("the number of evaluations", steps)),
        check_seed("seed", seed),
    )


def walk(order: Walk) -> Iterator[Seen | None]:
    """Runs the chains, and yields what there is to see; None before there is anything.

    Raises:
        HDZooError: something does not fit.
    """

    def work(tell: Tell[Seen]) -> None:
        frames: list[Image.Image] = []
        steps = frame_steps(order.num_inference_steps, FRAMES)
        captions = [f"after evaluation {step} of {steps[-1]}" for step in steps]

        def on_frame(frame: Image.Image) -> None:
            # A page of a megabyte, not of three; the colours are few.
            frames.append(frame.quantize(COLOURS, dither=Image.Dither.NONE))
            tell(Seen(Film("", frames[-1:], captions[: len(frames)]), []))

        demo = demo_2d(
            order.target,
            order.samplers,
            num_samples=order.num_samples,
            num_inference_steps=order.num_inference_steps,
            seed=order.seed,
            num_frames=FRAMES,
            on_frame=on_frame,
        )
        tell(Seen(Film("", frames, captions), demo.table))

    return in_steps(work)
