"""Sources of noise: generators, and what is on the way from one to another."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Self

import torch

from hdzoo.checks import Number, refuse
from hdzoo.errors import HDZooError
from hdzoo.text import counted


class GreatCircle:
    r"""Noise a part of the way from one generator's to another's, where a generator is asked for.

    A normal number drawn from it is made of one of each,

    .. math:: z = \cos(\varphi \pi / 2)\, z_a + \sin(\varphi \pi / 2)\, z_b

    which is standard normal at every :math:`\varphi`, and has the covariance
    :math:`\cos((\varphi - \varphi') \pi / 2)` with that at :math:`\varphi'`. A uniform number is
    :math:`\Phi(z)` of the normal ones whose :math:`\Phi` the two generators' are, so it is uniform.
    At 0 and 1 the numbers are the one and the other generator's own, bit for bit.

    It draws what ``torch.randn`` and ``torch.rand`` do, and so diffusers' ``randn_tensor`` and all
    schedulers that draw by it. Like a generator, it is copied, pickled, and goes on from draw to
    draw; the two that it is made from are left alone.

    Source: the interpolations of Song and Ermon (arXiv 2006.09011), by annealed Langevin dynamics
    from one state for all; here the noise of the first state turns too.

    Args:
        first: :math:`a`.
        second: :math:`b`, on the same device.
        fraction: :math:`\varphi`, from 0 to 1.

    Attributes:
        device: where numbers are drawn.

    Raises:
        HDZooError: an argument is none of these, or the two generators have the same noise.
    """

    def __init__(self, first: torch.Generator, second: torch.Generator, fraction: float) -> None:
        for name, one in (("first", first), ("second", second)):
            if not isinstance(one, torch.Generator):
                refuse(name, one, "a torch.Generator, such as torch.Generator().manual_seed(seed)")
        if first.device != second.device:
            raise HDZooError(
                f"the two generators draw on {first.device} and {second.device}; make both on one"
            )
        self.fraction = Number(0, 1)("fraction", fraction)
        self.first, self.second = first.clone_state(), second.clone_state()
        self.device = first.device
        if torch.equal(*(_uniform(one.clone_state(), 4) for one in (first, second))):
            raise HDZooError(
                "the two generators have the same noise, between which there is nothing: give "
                "other seeds (a CPU's generator knows the last 32 bits of one)"
            )

    def clone_state(self) -> Self:
        """Another that draws the same from here on."""
        return deepcopy(self)

    __copy__ = clone_state

    def __repr__(self) -> str:
        return f"<GreatCircle at {self.fraction:g}, on {self.device}>"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """What PyTorch calls in the place of a function that is given one as its generator."""
        kwargs = kwargs or {}
        source = kwargs.get("generator")
        # In the place of a number, say.
        if not isinstance(source, cls):
            return NotImplemented
        draw = _DRAWS.get(func)
        if draw is None or kwargs.get("out") is not None:
            name = getattr(func, "__name__", str(func))
            raise HDZooError(
                f"{name} cannot draw from {source!r}; noise on a great circle is drawn by "
                "torch.randn and torch.rand, without out=, and by diffusers' randn_tensor: in a "
                "sampler, by noise.normal and noise.uniform. Use those, or give plain generators"
            )

        def own(generator: torch.Generator) -> torch.Tensor:
            return func(*args, **kwargs | {"generator": generator})

        if source.fraction in (0, 1):
            return own(source.second if source.fraction else source.first)
        return draw(own(source.first), own(source.second), source.fraction)


OneGenerator = torch.Generator | GreatCircle
Generator = OneGenerator | list[torch.Generator] | list[GreatCircle] | list[OneGenerator] | None


def check_generator(generator: Any, samples: int) -> None:
    """Refuses what is no generator, and a list that has not one for each sample.

    Args:
        generator: one of PyTorch's or a `GreatCircle`, a list with one for each sample, or None.
        samples: how many.
    """
    several = generator if isinstance(generator, list) else [generator]
    # By kinds: this is done at each step, and there may be a thousand generators of one kind.
    right = all(issubclass(kind, OneGenerator) for kind in set(map(type, several)))
    if generator is not None and not (right and several):
        raise HDZooError(
            f"generator is {generator!r}; it must be a torch.Generator, a list with one for each "
            "sample, or None. For a seed: torch.Generator().manual_seed(seed)"
        )
    if isinstance(generator, list) and len(generator) != samples:
        raise HDZooError(
            f"generator is a list of {len(generator)} for {counted(samples, 'sample')}; give one "
            "generator, or one for each sample"
        )


def _uniform(generator: torch.Generator, count: int) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _between_normal(a: torch.Tensor, b: torch.Tensor, fraction: float) -> torch.Tensor:
    angle = fraction * math.pi / 2
    return math.cos(angle) * a + math.sin(angle) * b


def _between_uniform(a: torch.Tensor, b: torch.Tensor, fraction: float) -> torch.Tensor:
    # What is drawn are multiples of half an epsilon, and each stands for what is above it; in its
    # middle it is neither 0 nor, but for a rounding, 1.
    step = torch.finfo(a.dtype).eps / 2
    first, second = ((one.double() + step / 2).clamp(max=1 - 2**-53) for one in (a, b))
    z = _between_normal(torch.special.ndtri(first), torch.special.ndtri(second), fraction)
    return torch.special.ndtr(z).to(a.dtype).clamp(max=1 - step)


_DRAWS: dict[Any, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    torch.randn: _between_normal,
    torch.rand: _between_uniform,
}
