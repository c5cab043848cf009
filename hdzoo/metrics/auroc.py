"""How well a number tells two sets apart."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from hdzoo.errors import HDZooError
from hdzoo.text import counted


class Auroc(NamedTuple):
    """The area under the receiver operating characteristic.

    Attributes:
        value: the probability that a number of the second set is larger than one of the first, ties
            counting half: 1/2 where the numbers say nothing.
        standard_error: of it, over both sets.
    """

    value: float
    standard_error: float


def auroc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> Auroc:
    r"""The area under the receiver operating characteristic, with its standard error.

    The value is the Mann-Whitney statistic divided by the number of pairs. With :math:`m` numbers
    outside, each larger than a share :math:`V` of the :math:`n` inside, and each of these smaller
    than a share :math:`W` of those outside, its variance is
    :math:`\mathrm{Var}(V) / m + \mathrm{Var}(W) / n`.

    Source: DeLong, DeLong, Clarke-Pearson (1988); by ranks: Sun and Xu (2014).

    Args:
        inside: numbers of the first set, at least 2, finite.
        outside: of the second one.

    Raises:
        HDZooError: there are fewer, or one is not finite.
    """
    below, above = (np.asarray(part, dtype=np.float64).ravel() for part in (inside, outside))
    for name, part in (("inside", below), ("outside", above)):
        if len(part) < 2:
            raise HDZooError(f"{name} has {counted(len(part), 'number')}; at least 2 are needed")
        strange = int((~np.isfinite(part)).sum())
        if strange:
            raise HDZooError(
                f"{name} has {counted(strange, 'number')} that {'is' if strange == 1 else 'are'} "
                "not finite, with no place among the others"
            )
    ranks = rankdata(np.concatenate([above, below]))
    larger_than = (ranks[: len(above)] - rankdata(above)) / len(below)
    smaller_than = 1 - (ranks[len(above) :] - rankdata(below)) / len(above)
    variance = larger_than.var(ddof=1) / len(above) + smaller_than.var(ddof=1) / len(below)
    return Auroc(float(larger_than.mean()), float(variance**0.5))
