"""What makes a sample of the last noisy state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Move
from hdzoo.samplers.chain import Chain
from hdzoo.samplers.families import LadderSampler
from hdzoo.samplers.held_out import loss_at
from hdzoo.samplers.options import READOUTS
from hdzoo.text import counted

# How far from the state the network is asked for a derivative, in units of the noise, sigma sqrt d.
# On `ncsn-mnist` the products are off by a few hundredths with float32 weights, from the denoiser's
# second derivative, and by a tenth with float16 ones, from roundings; with bfloat16 by as much as
# they are.
STEP = 0.03
# A few operations on numbers of the state's size, in units of its rounding.
ROUNDINGS = 32


class ReadOutSampler(LadderSampler):
    r"""A sampler on a ladder whose read-out is an option, ``readout``.

    Most are one move by a fraction of the denoising step (`denoise`). With ``"matrix"`` it is

    .. math:: x = y + \sigma_L^2 f(R)\, s(y, \sigma_L), \quad f(r) = \frac{1}{1 + \sqrt r}, \quad
        R = \frac{\partial D}{\partial y} = \frac{Cov[x_0 | y]}{\sigma_L^2}

    the optimal transport of the noisy data to the data, where these are normal: half-denoising in
    directions in which they are smooth, denoising in full in those in which they are singular.
    :math:`f(R) s` is by Lanczos' method, ``readout_steps`` products :math:`R v` with vectors of
    length 1 that begin with :math:`s`; it is exact where :math:`R` has no more eigenvalues than
    that. Each product is a difference,

    .. math:: R v \approx \frac{D(y + h v) - D(y)}{h}, \quad h = 0.03\, \sigma_L \sqrt d

    of one more network evaluation, which counts as one: they are the last ``readout_steps`` of
    ``num_inference_steps``, at the last noise level, and what they are made at, :math:`y + h v`, is
    what the pipeline carries. So the sampler needs nothing of a network but its prediction, and is
    a scheduler like any other. Where the score is affine the difference is exact; elsewhere it is
    off by at most :math:`\tfrac12 h\, |\partial^2 D|`. A trained network's :math:`R` need not be
    symmetric: the symmetric part of it takes its place on the vectors that are at hand (Arnoldi's
    method), and eigenvalues below 0 are taken for 0.

    It is for exact scores, and for networks that are near to one in derivative too. That of
    `ncsn-mnist` is not: along its own score, that is along the noise, whose length never varies in
    training, :math:`v \cdot R v` is several times what it is on average; of an exact denoiser of
    normal data it is less. There the read-out leaves noise, and denoising in full is better.
    """

    @property
    def probes(self) -> int:
        return int(self.config["readout_steps"]) if self.config.get("readout") == "matrix" else 0

    @property
    def default_num_inference_steps(self) -> int:
        return super().default_num_inference_steps + self.probes

    def counts(self, num_inference_steps: int, num_levels: int) -> Sequence[int]:
        if not self.probes:
            return super().counts(num_inference_steps, num_levels)
        if num_inference_steps < num_levels + self.probes:
            raise HDZooError(
                f"num_inference_steps is {num_inference_steps}, and {type(self).__name__} needs at "
                f"least {num_levels + self.probes}: one for each noise level of its ladder, and "
                f"readout_steps={self.probes} more for readout='matrix'"
            )
        # The walk is the one that it would be with another read-out and so many fewer.
        *before, last = super().counts(num_inference_steps - self.probes, num_levels)
        return [*before, last + self.probes]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if counts[-1] <= self.probes:
            raise HDZooError(
                f"the last noise level, {sigmas[-1]:g}, has {counted(counts[-1], 'evaluation')}, "
                f"and readout='matrix' makes {self.probes + 1} there: one at the state, and "
                f"readout_steps={self.probes} beside it; repeat the level"
            )
        steps = self.step_sizes(sigmas)
        return Chain(sigmas, steps, counts, self.hand_off, self.read_out, 1 + self.probes)

    def probe(self, made: int, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        sigma, reach = self.levels[-2], STEP * self.levels[-2] * math.sqrt(x[0].numel())
        if "vectors" not in self.memory:
            if made == self.probes:
                # A chain that begins where it ends, with no product.
                return x + sigma**2 * score
            none = x.flatten(1)[:, None, :][:, :0]
            self.memory = {"state": x, "score": score, "vectors": none, "products": none}
            rest, floor = score.flatten(1), torch.zeros_like(x.flatten(1)[:, :1])
        else:
            moved = (x - self.memory["state"]) + sigma**2 * (score - self.memory["score"])
            rest = moved.flatten(1) / reach
            self.memory["products"] = torch.cat([self.memory["products"], rest[:, None]], 1)
            floor = self._rounding(reach)
        state, vectors = self.memory["state"], self.memory["vectors"]
        if made == self.probes:
            return state + sigma**2 * self._applied(floor).view_as(x)
        # Twice is enough (Parlett 1980): once leaves roundings of what was taken away.
        for _ in range(2):
            rest = rest - _combined(vectors, _along(vectors, rest))
        length = rest.norm(dim=1, keepdim=True)
        # Nothing is left where the vectors at hand have all that there is of s: it is asked at the
        # state itself from there on.
        vector = torch.where(length > floor, rest / length, torch.zeros_like(rest))
        self.memory["vectors"] = torch.cat([vectors, vector[:, None]], 1)
        return state + reach * vector.view_as(x)

    def _rounding(self, reach: float) -> torch.Tensor:
        """What roundings may make of a difference, shape (batch, 1)."""
        state = self.memory["state"].flatten(1)
        return ROUNDINGS * torch.finfo(state.dtype).eps / reach * state.norm(dim=1, keepdim=True)

    def _applied(self, floor: torch.Tensor) -> torch.Tensor:
        """``f(R) s``, from the products; shape (batch, d)."""
        vectors, products = self.memory["vectors"], self.memory["products"]
        projected = torch.stack([_along(vectors, one) for one in products.unbind(1)], 2)
        known = torch.nan_to_num((projected + projected.mT) / 2, posinf=0.0, neginf=0.0)
        # Waits for an accelerator: once, where the chain ends.
        values, axes = torch.linalg.eigh(known)
        # The root makes of a rounding far more than that.
        roots = torch.where(values > floor, values, torch.zeros_like(values)).sqrt()
        weights = (axes * (axes[:, :1] / (1 + roots)[:, None])).sum(2)
        length = self.memory["score"].flatten(1).norm(dim=1, keepdim=True)
        # What is not finite is for the pipeline to say.
        lost = 0 * projected.sum((1, 2))[:, None]
        return _combined(vectors, weights * length + lost)


# Sums by sample, which those of a product of matrices are not: there a sample's last bits may
# depend on how many others are in the batch.
def _along(vectors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """How much of each vector is in ``x``: (batch, k, d) and (batch, d) to (batch, k)."""
    return (vectors * x[:, None]).sum(2)


def _combined(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Their sum with weights: (batch, k, d) and (batch, k) to (batch, d)."""
    return (vectors * weights[:, :, None]).sum(1)


def denoise(
    walk: Move, readout: float | str, held_out_loss: Mapping[str, Any] | None = None
) -> Move:
    """A noiseless move by a fraction of the denoising step.

    Args:
        walk: the walk on the last rung.
        readout: a word of `AnnealedLangevinSampler`'s option, or the fraction itself. With
            ``"matrix"`` what is moved by is not known yet, and 0 stands for it.
        held_out_loss: of the network.
    """
    if readout == "alpha":
        return walk._replace(noise=0.0)
    if readout == "matrix":
        fraction = 0.0
    elif readout == "half-corrected":
        fraction = 0.5 + walk.alpha / walk.sigma**2 / 4
    elif readout == "variance-matched":
        fraction = 1 / (1 + math.sqrt(loss_at(held_out_loss, walk.sigma)))
    else:
        fraction = READOUTS[readout] if isinstance(readout, str) else readout
    return Move(walk.sigma, fraction * walk.sigma**2, 0.0)
