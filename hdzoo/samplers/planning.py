"""How a sampler plans its chain: noise levels, step sizes, and what leads from one to the next."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from hdzoo.checks import check_device
from hdzoo.errors import HDZooError
from hdzoo.samplers.chain import Chain, Move
from hdzoo.samplers.coordinates import Edge, NetworkCoordinates
from hdzoo.samplers.ladders import check_ladder, check_levels, floats, share_steps, whole_number
from hdzoo.scores.clocks import float_dtype
from hdzoo.text import counted

# Evaluations of a chain whose edges are worked out at the first, some 30 ms: many samplers are
# built and never run. Of a longer one, each when its turn comes.
EDGES_AT_ONCE = 1000


class Planned(NetworkCoordinates):
    """The part of a sampler that is done before its first evaluation."""

    num_inference_steps: int
    timesteps: torch.Tensor
    sigmas: torch.Tensor
    levels: Sequence[float]
    moves: Sequence[Move]
    memory: dict[str, Any]
    extras: Mapping[str, torch.Tensor]
    _edges: list[tuple[Edge, tuple[float, float, float]]]
    _last_edge: tuple[tuple[Move, float], tuple[Edge, tuple[float, float, float]]] | None

    # ---- the four choices -------------------------------------------------------------------

    @property
    def default_num_inference_steps(self) -> int:
        """Network evaluations when no number is asked for."""
        raise NotImplementedError

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        """The ladder for so many network evaluations: descending noise levels."""
        raise NotImplementedError

    def counts(self, num_inference_steps: int, num_levels: int) -> Sequence[int]:
        """How many of the network evaluations are on each rung; evenly, and the smaller noise
        levels get the rest, if not overridden. Not asked where a schedule is given."""
        return share_steps(num_inference_steps, num_levels)

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        """The step size ``alpha`` on each rung."""
        raise NotImplementedError

    def hand_off(self, walk: Move, next_walk: Move) -> Move:
        """The last move on a rung, given the walks on it and on the next; one more step, if not
        overridden."""
        return walk

    def read_out(self, walk: Move) -> Move:
        """The very last move, given the walk on the last rung; one more step, if not overridden."""
        return walk

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        """The whole chain.

        Args:
            sigmas: the rungs, descending.
            counts: network evaluations on each, at least 1.

        Returns:
            ``sum(counts)`` moves.
        """
        return Chain(sigmas, self.step_sizes(sigmas), counts, self.hand_off, self.read_out)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Fixes the chain.

        Args:
            num_inference_steps: network evaluations, all told; the sampler's own number by default.
            device: where `timesteps` is put, so that a loop over them needs no transfer.
            timesteps: what the network is told at each evaluation, instead of ``sigmas``.
            sigmas: the noise level of each evaluation, never ascending (repeats make a rung),
                instead of the sampler's ladder.

        Raises:
            HDZooError: an option is out of its range, ``num_inference_steps`` is below one
                evaluation a rung, or two schedules are given.
        """
        check_device(device)
        self._check_coordinates()
        if timesteps is not None:
            if sigmas is not None:
                raise HDZooError("both timesteps and sigmas are given; give one of them")
            sigmas = self._levels_at(timesteps)
        asked = num_inference_steps
        if asked is not None:
            asked = whole_number(asked, "num_inference_steps")
        ladder: Sequence[float]
        counts: Sequence[int]
        if sigmas is not None:
            levels = check_levels(sigmas).tolist()
            runs = [(sigma, len(list(run))) for sigma, run in groupby(levels)]
            ladder, counts = [sigma for sigma, _ in runs], [count for _, count in runs]
            if asked not in (None, sum(counts)):
                raise HDZooError(
                    f"num_inference_steps is {asked} and sigmas has "
                    f"{counted(sum(counts), 'noise level')}, one for each network evaluation; "
                    "leave one of them out"
                )
            check_ladder(ladder)
        else:
            if asked is None:
                asked = whole_number(self.default_num_inference_steps, "num_inference_steps")
            ladder = self._clock.known(self.rungs(asked))
            if asked < len(ladder):
                raise HDZooError(
                    f"num_inference_steps is {asked}, and {type(self).__name__} needs at least "
                    f"{len(ladder)}: one for each noise level of its ladder; ask for more, or give "
                    "it a shorter ladder (num_levels, sigmas)"
                )
            counts = self.counts(asked, len(ladder))
        self._set_chain(self.plan(ladder, counts), device)

    def _set_chain(self, moves: Sequence[Move], device: str | torch.device | None) -> None:
        if not len(moves):
            raise HDZooError(f"{type(self).__name__}.plan gives no move; a chain has at least one")
        self.moves = moves
        self.num_inference_steps = len(moves)
        levels = moves.levels if isinstance(moves, Chain) else [move.sigma for move in moves]
        self.levels = floats(levels) + floats([0.0])
        self.sigmas = torch.from_numpy(np.array(self.levels)).to(float_dtype(device))
        self.timesteps = self._timesteps_of(levels, device)
        self._edges, self._last_edge = [], None
        # What is wrong with an option is said now, and not in the middle of a chain.
        for k in {0, len(moves) - 1}:
            self._edge_of(moves[k], self.levels[k + 1])
        self._step_index: int | None = None
        self._begin_index: int | None = None
        self.memory, self.extras = {}, {}

    def _edge_at(self, k: int) -> tuple[Edge, tuple[float, float, float]]:
        """Evaluation ``k`` at the edge to the network, and what its move makes of the state there;
        equal neighbours, the steps of a walk, share it."""
        if len(self.moves) > EDGES_AT_ONCE:
            return self._edge_of(self.moves[k], self.levels[k + 1])
        if not self._edges:
            # Into the list that copies of the sampler have too.
            self._edges += list(map(self._edge_of, self.moves, self.levels[1:]))
        return self._edges[k]

    def _edge_of(self, move: Move, below: float) -> tuple[Edge, tuple[float, float, float]]:
        key = move, below
        if self._last_edge is None or self._last_edge[0] != key:
            sigma, alpha, noise = move
            edge = self._edge(sigma, below)
            self._last_edge = key, (edge, edge.moved_by(alpha, noise))
        return self._last_edge[1]
