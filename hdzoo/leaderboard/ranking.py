"""Which of two sets is better, and whether that can be told at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hdzoo.errors import HDZooError
from hdzoo.metrics.comparison import Result
from hdzoo.metrics.metrics import standard_errors

# Standard errors that a difference has to exceed.
WIDTH = 2


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two sets, other minus one.

    The sets are of the same seeds, so that much of their chance is shared: the spread is that of
    the difference itself, by leaving out the same images of both at a time.

    Args:
        value: the difference; positive if the other's is larger.
        spread: `WIDTH` standard errors of it.
        halves: the difference in each half of the images, two ranges of seeds.
    """

    value: float
    spread: float
    halves: tuple[float, ...]

    @property
    def is_tie(self) -> bool:
        """Whether it cannot be told from none: it is within its spread, or its sign is not that in
        both ranges of seeds."""
        signs = {math.copysign(1, difference) for difference in (self.value, *self.halves)}
        return abs(self.value) <= self.spread or len(signs) > 1

    def __str__(self) -> str:
        text = f"{self.value:+.3g} ± {self.spread:.2g}"
        return f"tie ({text})" if self.is_tie else text


def difference(one: Result, other: Result) -> Difference:
    """Compares two sets of the same seeds and the same number of images.

    Args:
        one: of `hdzoo.metrics.comparison.judge`, a metric that has halves and replicates.
        other: the same metric on the other set.

    Raises:
        HDZooError: they are of different metrics, or of different numbers of images.
    """
    for what in ("name", "num_images", "num_reference"):
        if getattr(one, what) != getattr(other, what):
            raise HDZooError(
                f"two sets are compared by one metric at one number of images; {what} is "
                f"{getattr(one, what)!r} of the one and {getattr(other, what)!r} of the other"
            )
    replicates = np.subtract(other.replicates, one.replicates)
    (error,) = standard_errors(replicates[:, None])
    halves = tuple(float(b - a) for a, b in zip(one.halves, other.halves, strict=True))
    return Difference(other.value - one.value, WIDTH * error, halves)


def matrix(names: Sequence[str], results: Sequence[Result]) -> list[dict[str, str]]:
    """All differences of some sets as rows of a table: the row's set minus the column's.

    Args:
        names: of the sets.
        results: of one metric, one for each set.
    """
    return [
        {"": name}
        | {
            column: "" if result is other else str(difference(other, result))
            for column, other in zip(names, results, strict=True)
        }
        for name, result in zip(names, results, strict=True)
    ]
