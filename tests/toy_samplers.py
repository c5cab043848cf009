"""Samplers that only tests need: an adjusted walk, walks on signs, and one with a velocity."""

import math

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.samplers.families import LadderSampler, SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.noise import Noise


class Metropolis(SingleLevelSampler):
    """The Metropolis-adjusted Langevin algorithm, on energies."""

    needs = ("energy",)
    leaves_invariant = "noisy data"

    def default_step_size(self, sigma: float) -> float:
        return sigma**2 / 2

    def accepts(self, log_ratio: torch.Tensor, noise: Noise) -> torch.Tensor:
        return noise.uniform(log_ratio.shape).log() < log_ratio

    def log_ratio(self, old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], alpha: float):
        """Of p(y) q(x | y) over p(x) q(y | x)."""
        there, back = (
            -((b["x"] - a["x"] - alpha * a["score"]) ** 2).flatten(1).sum(1) / (4 * alpha)
            for a, b in ((old, new), (new, old))
        )
        return old["energy"] - new["energy"] + back - there

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        alpha = self.moves[k].alpha
        new = {"x": x, "score": score, "energy": self.extras["energy"]}
        old = self.memory or new
        accepted = self.accepts(self.log_ratio(old, new, alpha), noise)
        self.memory = {
            name: torch.where(accepted.view(-1, *[1] * (part.ndim - 1)), part, old[name])
            for name, part in new.items()
        }
        if k == len(self) - 1:
            return self.memory["x"]
        moved = self.memory["x"] + alpha * self.memory["score"]
        return moved + math.sqrt(2 * alpha) * noise.normal(x.shape)


class SwappedAccept(Metropolis):
    """What should be accepted is rejected, and the other way round."""

    def accepts(self, log_ratio, noise):
        return ~super().accepts(log_ratio, noise)


class EnergyAlone(Metropolis):
    """It accepts as if proposals were symmetric."""

    def log_ratio(self, old, new, alpha):
        return old["energy"] - new["energy"]


class AlwaysAccepts(Metropolis):
    """Langevin dynamics under another name."""

    def accepts(self, log_ratio, noise):
        return torch.ones_like(log_ratio, dtype=torch.bool)


class NeverMoves(Metropolis):
    """It leaves every law as it is."""

    def accepts(self, log_ratio, noise):
        return torch.zeros_like(log_ratio, dtype=torch.bool)


class TwoStageSigns(SingleLevelSampler):
    """Clean signs given the noisy ones, and noise on them again: exact for independent signs."""

    state_space = "signs"
    leaves_invariant = "noisy data"

    def default_step_size(self, sigma: float) -> float:
        return 1.0

    def signs(self, chance: torch.Tensor, noise: Noise) -> torch.Tensor:
        """1 with these probabilities."""
        return torch.where(noise.uniform(chance.shape) < chance, 1.0, -1.0)

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        sigma = self.levels[k]
        clean = self.signs((1 + x + sigma**2 * score) / 2, noise)
        return self.signs(torch.sigmoid(2 * clean.to(x.dtype) / sigma**2), noise)


class OneStageSigns(TwoStageSigns):
    """Discrete Langevin dynamics (Zhang et al., arXiv 2206.09914) unadjusted, which is biased."""

    def update(self, k, x, score, noise):
        return self.signs(torch.sigmoid(score + x / self.levels[k] ** 2 + x), noise)


class LessNoiseSigns(TwoStageSigns):
    """Half of the noise."""

    def update(self, k, x, score, noise):
        sigma = self.levels[k]
        clean = self.signs((1 + x + sigma**2 * score) / 2, noise)
        return self.signs(torch.sigmoid(4 * clean.to(x.dtype) / sigma**2), noise)


class LeavesSigns(TwoStageSigns):
    """It returns means, which are no signs."""

    def update(self, k, x, score, noise):
        return x + self.levels[k] ** 2 * score


class Velocity(LadderSampler):
    """Gradient descent with momentum, down a ladder: on data of variance 0, of a closed form."""

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        velocity = 0.3 * self.memory.get("velocity", 0.0) + self.moves[k].alpha * score
        self.memory["velocity"] = velocity
        return x + velocity + 0.1 * self.levels[k] * noise.normal(x.shape)

    def closed_form(self, start: GaussianLaw) -> None:
        return None
