r"""Paired confidence intervals of contrasts between cells, from a few seeds.

All cells have the same seeds, and what two of them owe to one seed cancels in their difference. A
contrast is a function of all cells' distances at once, such as a difference, or one that takes the
best of several: then the choice is made anew without each seed, and its luck is in the interval.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95

Sums = TypeVar("Sums")


class Interval(NamedTuple):
    """A number with its confidence interval; the three are one where it is exact.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def without_each(seeds: Sequence[Sums]) -> list[list[Sums]]:
    """All seeds, and all but each: what `interval` is to be given a number of, in this order."""
    everything = list(seeds)
    return [everything, *(everything[:i] + everything[i + 1 :] for i in range(len(everything)))]


def interval(replicas: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    r"""The jackknife's interval of a statistic of pooled seeds.

    .. math::
        J_i = n F - (n - 1) F_{-i}, \quad
        \bar J \pm t_{n-1} \sqrt{\tfrac{1}{n (n - 1)} \sum_i (J_i - \bar J)^2}

    For a mean over seeds it is Student's interval. Of a statistic that is biased as
    :math:`1 / N`, such as a Fréchet distance, the bias is gone to that order.

    Source: Tukey (1958); Miller (Biometrika 61, 1974).

    Args:
        replicas: the statistic of all seeds, and of all but each, at least two; or one number
            alone, which is exact.
        confidence: that the interval has.
    """
    if len(replicas) == 1:
        return Interval(*(float(replicas[0]),) * 3)
    n = len(replicas) - 1
    pseudo = n * replicas[0] - (n - 1) * np.asarray(replicas[1:])
    middle = float(pseudo.mean())
    width = float(t.ppf((1 + confidence) / 2, n - 1) * pseudo.std(ddof=1) / np.sqrt(n))
    return Interval(middle, middle - width, middle + width)


Table = TypeVar("Table")


def contrast(of: Callable[[Table], float], tables: Sequence[Table]) -> Interval:
    """The interval of a function of a table of distances.

    Args:
        of: the function.
        tables: of all seeds, and of all but each; or the exact one.
    """
    return interval([of(table) for table in tables])
