"""A chain of moves, each made when it is asked for."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload

import numpy as np

from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import floats


class Move(NamedTuple):
    r"""One network evaluation and what follows from it: :math:`x + \alpha s(x, \sigma) + \beta z`.

    Attributes:
        sigma: the noise level at which the network is asked.
        alpha: the coefficient of the score.
        noise: the standard deviation ``beta`` of the fresh noise; 0 draws none.
    """

    sigma: float
    alpha: float = 0.0
    noise: float = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Move":
        # Of numbers alone; a sampler, which may have one for each evaluation, is copied at every
        # call.
        return self


class Chain(Sequence[Move]):
    r"""The walks on the rungs of a ladder, and what leads from one to the next.

    A chain may have millions of moves, of which one is looked at in hours. So it takes the time and
    the memory of its noise levels, and makes a move when it is looked up.

    Args:
        sigmas: the rungs, descending.
        alphas: the step size on each; the walk there has the noise :math:`\sqrt{2 \alpha}`.
        counts: moves on each, at least 1.
        hand_off: the last move on a rung, given the walks on it and on the next.
        read_out: the very last move, given the walk on the last rung.
        read_outs: how many of the last moves are that one; fewer than the last of the counts.

    Raises:
        HDZooError: there is not one step size for each rung, or one is no number from 0 up.
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        alphas: Sequence[float],
        counts: Sequence[int],
        hand_off: Callable[[Move, Move], Move],
        read_out: Callable[[Move], Move],
        read_outs: int = 1,
    ) -> None:
        if not len(sigmas) == len(alphas) == len(counts):
            raise HDZooError(
                f"the ladder has {len(sigmas)} noise levels, and there are {len(alphas)} step "
                f"sizes and {len(counts)} counts of steps; step_sizes gives one for each level"
            )
        steps = np.asarray(alphas, dtype=float)
        wrong = np.flatnonzero(~(np.isfinite(steps) & (steps >= 0)))
        if len(wrong):
            raise HDZooError(
                f"step_sizes gives {steps[wrong[0]]:g} at noise level {sigmas[wrong[0]]:g}; a step "
                "size is a finite number, and not negative"
            )
        self._sigmas, self._alphas = sigmas, alphas
        self._hand_off, self._read_out, self._read_outs = hand_off, read_out, read_outs
        self._ends = np.cumsum(counts)
        self.levels: Sequence[float] = floats(np.repeat(np.asarray(sigmas, dtype=float), counts))
        # What is wrong with a hand-off is said now.
        self[self._ends[0] - 1]

    def __len__(self) -> int:
        return len(self.levels)

    @overload
    def __getitem__(self, index: int) -> Move: ...

    @overload
    def __getitem__(self, index: slice) -> list[Move]: ...

    def __getitem__(self, index: int | slice) -> Move | list[Move]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        rung = int(self._ends.searchsorted(k, side="right"))
        walk = self._walk(rung)
        if k >= len(self) - self._read_outs:
            return self._read_out(walk)
        if k + 1 < self._ends[rung]:
            return walk
        return self._hand_off(walk, self._walk(rung + 1))

    def __iter__(self) -> Iterator[Move]:
        first = 0
        for rung, end in enumerate(self._ends.tolist()):
            others = self._read_outs if end == len(self) else 1
            yield from repeat(self._walk(rung), end - first - others)
            yield from (self[k] for k in range(end - others, end))
            first = end

    def _walk(self, rung: int) -> Move:
        alpha = self._alphas[rung]
        return Move(self._sigmas[rung], alpha, math.sqrt(2 * alpha))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)
