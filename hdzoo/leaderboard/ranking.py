"""Which of two sets is better, and whether that can be told at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hdzoo.checks import IMAGES
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
        num_images: of each set.
    """

    value: float
    spread: float
    halves: tuple[float, ...]
    num_images: int

    @property
    def is_tie(self) -> bool:
        """Whether it cannot be told from none: it is within its spread, or its sign is not that in
        both ranges of seeds."""
        return abs(self.value) <= self.spread or self._halves_disagree

    @property
    def _halves_disagree(self) -> bool:
        signs = {math.copysign(1, difference) for difference in (self.value, *self.halves)}
        return len(signs) > 1

    @property
    def images_needed(self) -> int | None:
        """How many images of each set would tell the two apart, if the difference is as large as it
        seems; None where it is none at all, or none can be drawn.

        A spread falls as the root of their number. Where the halves disagree, twice as many make
        halves that are as large as the whole is now. Not below `num_images`.
        """
        if not self.is_tie:
            return self.num_images
        if self.value == 0:
            return None
        needed = self.num_images * max(
            (self.spread / self.value) ** 2, 2.0 if self._halves_disagree else 1.0
        )
        return None if needed > (IMAGES.high or math.inf) else math.ceil(needed)

    def __str__(self) -> str:
        text = f"{self.value:+.3g} ± {self.spread:.2g}"
        if not self.is_tie:
            return text
        needed = self.images_needed
        if needed is None:
            return f"tie ({text})"
        # An estimate, of two digits.
        rounded = math.ceil(float(f"{needed:.2g}"))
        return f"tie ({text}; some {rounded:,} images would tell)"


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
    return Difference(other.value - one.value, WIDTH * error, halves, one.num_images)


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
