r"""The cells of the factorial, and how one chain gives fourteen of them.

A cell is a sampler at a number of network evaluations, the read-out's among them. What is done with
the last two evaluations differs; what is before them is one chain, `AnnealedLangevinSampler` or
`AveragedNoiseAnnealedLangevinSampler`, whatever the last noise and the read-out. With its states
:math:`x_0, ..., x_N`, the last score :math:`s_k = s(x_k, \sigma_L)` and
:math:`\alpha = \eta \sigma_L^2`:

=========  ================================  ===================================================
last       :math:`\lambda = 0`               :math:`\lambda > 0`
=========  ================================  ===================================================
kept       :math:`x_N`                       :math:`x_{N-1} + \lambda \sigma_L^2 s_{N-1}`
dropped    :math:`x_{N-1} + \alpha s_{N-1}`  :math:`y + \lambda \sigma_L^2 s(y, \sigma_L)`,
                                             :math:`y = x_{N-2} + \alpha s_{N-2}`
=========  ================================  ===================================================

So (dropped, 0) is the read-out by :math:`\lambda = \eta` of (kept, .).
"""

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.averaged_noise import AveragedNoiseAnnealedLangevinSampler
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.chain import Move
from hdzoo.samplers.gaussian import GaussianLaw, JointLaw
from hdzoo.samplers.held_out import loss_at
from hdzoo.samplers.langevin import HAND_OFFS, AnnealedLangevinSampler

WALKS: dict[str, type[Sampler]] = {
    "fresh": AnnealedLangevinSampler,
    "averaged": AveragedNoiseAnnealedLangevinSampler,
}
ETAS = (0.1, 0.2, 0.5, 1.1)
LAST_NOISES = ("kept", "dropped")
# 1 / (1 + sqrt(c)), by the loss of the network.
MATCHED = "lambda*"
READOUTS: tuple[float | str, ...] = (0.0, 0.2, 0.5, 0.55, 0.8, 1.0, MATCHED)


class Chain(NamedTuple):
    r"""What a chain does until its end.

    Attributes:
        hand_off: the last move on a rung, as in `AnnealedLangevinSampler`; ``"own"`` is none.
        noise: of the walk, one of `WALKS`.
        eta: :math:`\eta = \alpha / \sigma^2`.
    """

    hand_off: str
    noise: str
    eta: float


class Cell(NamedTuple):
    r"""One of the factorial.

    Attributes:
        chain: until the end.
        last: ``"kept"`` or ``"dropped"``, the last noise before the read-out.
        readout: :math:`\lambda`, one of `READOUTS`.
    """

    chain: Chain
    last: str
    readout: float | str

    def __str__(self) -> str:
        hand_off, noise, eta = self.chain
        return f"{hand_off}, {noise}, eta {eta:g}, {self.last}, lambda {spelled(self.readout)}"


End = tuple[str, float | str]
CHAINS = tuple(Chain(*levels) for levels in product(HAND_OFFS, WALKS, ETAS))
ENDS: tuple[End, ...] = tuple(product(LAST_NOISES, READOUTS))
CELLS = tuple(Cell(chain, *end) for chain in CHAINS for end in ENDS)


def spelled(readout: float | str) -> str:
    return readout if isinstance(readout, str) else f"{readout:g}"


class Ladder(NamedTuple):
    """The noise levels of all chains of a target, and what they cost.

    Attributes:
        sigma_max: the first of a geometric ladder.
        sigma_min: the last.
        num_levels: how many.
        evaluations: of the network, for each sample.
        held_out_loss: of the network, for what is variance-matched.
    """

    sigma_max: float
    sigma_min: float
    num_levels: int
    evaluations: int
    held_out_loss: dict[str, list[float]]

    def sampler(self, chain: Chain) -> Sampler:
        """A chain without a read-out, all of whose last rung is walked."""
        sampler = WALKS[chain.noise](
            sigma_max=self.sigma_max,
            sigma_min=self.sigma_min,
            num_levels=self.num_levels,
            steps_per_level=self.evaluations // self.num_levels,
            step_size=chain.eta * self.sigma_min**2,
            hand_off=chain.hand_off,
            readout=None,
            held_out_loss=self.held_out_loss,
        )
        sampler.set_timesteps(self.evaluations)
        return sampler

    @property
    def levels(self) -> list[float]:
        """Descending."""
        return np.geomspace(self.sigma_max, self.sigma_min, self.num_levels).tolist()

    def fraction(self, readout: float | str) -> float:
        r""":math:`\lambda` as a number."""
        if isinstance(readout, str):
            return 1 / (1 + math.sqrt(loss_at(self.held_out_loss, self.sigma_min)))
        return readout


# ---- simulated ----------------------------------------------------------------------------------


def ends(
    network: Any, ladder: Ladder, chain: Chain, batch_size: int, stream: tuple[int, ...]
) -> dict[End, torch.Tensor]:
    """Samples of all cells of a chain, in the network's units, at one evaluation more than one has.

    Every evaluation has noise of its own number: chains of one stream begin alike, and with walks
    of one kind have the same noise at each evaluation, whether or not the others drew any before.

    Args:
        network: a score model in VE coordinates.
        ladder: of the target.
        chain: that is walked.
        batch_size: samples.
        stream: whole numbers that the randomness is a function of.
    """
    draws = torch.Generator()
    states: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        states.append(tensors["latents"])
        scores.append(tensors["score"])
        del states[:-3], scores[:-3]
        draws.manual_seed(seed_of(*stream, step + 1))
        return {}

    draws.manual_seed(seed_of(*stream, 0))
    pipe = HDPipeline(network, ladder.sampler(chain))
    pipe.scheduler = pipe.scheduler.from_config(pipe.scheduler.config, **pipe.network_options())
    pipe.set_progress_bar_config(disable=True)
    pipe(
        batch_size,
        ladder.evaluations,
        generator=draws,
        output_type="latent",
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=["latents", "score"],
    )
    earlier, before, last = states
    _, earlier_score, before_score = scores
    variance = ladder.sigma_min**2
    alpha = chain.eta * variance
    quiet = earlier + alpha * earlier_score
    with torch.no_grad():
        step = pipe.denoise(quiet, ladder.sigma_min) - quiet
    found: dict[End, torch.Tensor] = {
        ("kept", 0.0): last,
        ("dropped", 0.0): before + alpha * before_score,
    }
    for readout in READOUTS[1:]:
        fraction = ladder.fraction(readout)
        found["kept", readout] = before + fraction * variance * before_score
        found["dropped", readout] = quiet + fraction * step
    return found


def seed_of(*stream: int) -> int:
    """The seed of a generator, a function of some whole numbers."""
    return int(np.random.SeedSequence(stream).generate_state(1)[0])


# ---- exact --------------------------------------------------------------------------------------


def laws(ladder: Ladder, chain: Chain, start: GaussianLaw) -> dict[End, GaussianLaw]:
    """The exact laws of all cells of a chain, on Gaussian data of independent coordinates.

    Args:
        ladder: of the target.
        chain: that is walked.
        start: the data, and the law of the first state.
    """
    moves, averaged = ladder.sampler(chain).moves, chain.noise == "averaged"
    law = JointLaw.of(start)
    if averaged:
        # Of the first noise, which is half of that of the first move, given the state.
        share = moves[0].noise / 2 / start.total(moves[0].sigma)
        law = law.step((1, 0, 0), (share, 0, 1))
    *walk, second, first = moves
    for move in walk:
        law = _moved(law, move, averaged)
    before = _moved(law, second, averaged)
    variance = ladder.sigma_min**2
    alpha = chain.eta * variance
    quiet = law.state.gradient(alpha, ladder.sigma_min)
    found: dict[End, GaussianLaw] = {
        ("kept", 0.0): _moved(before, first, averaged).state,
        ("dropped", 0.0): before.state.gradient(alpha, ladder.sigma_min),
    }
    for readout in READOUTS[1:]:
        reach = ladder.fraction(readout) * variance
        found["kept", readout] = before.state.gradient(reach, ladder.sigma_min)
        found["dropped", readout] = quiet.gradient(reach, ladder.sigma_min)
    return found


def _moved(law: JointLaw, move: Move, averaged: bool) -> JointLaw:
    """After one move: ``x + alpha s + beta z``, or with half of ``beta`` and the noise before."""
    kept = 1 - move.alpha / law.start.total(move.sigma)
    if not averaged:
        return law.step((kept, 0, move.noise), (0, 0, 0))
    if move.noise == 0:
        return law.step((kept, 0, 0), (0, 1, 0))
    return law.step((kept, move.noise / 2, move.noise / 2), (0, 0, 1))
