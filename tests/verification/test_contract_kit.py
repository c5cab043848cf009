"""The contract kit: every registered sampler passes, every kind of mistake is caught."""

import copy
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from toy_samplers import LeavesSigns, Metropolis, TwoStageSigns, Velocity

from hdzoo import HDZooError, get_sampler
from hdzoo.verification.chain import first_state, remembers, run, seeded
from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.small import SMALL, small_sampler, watched

Annealed = get_sampler("annealed-langevin")
HalfDenoising = get_sampler("half-denoising")

CHECKS = {
    "nfe",
    "indexing",
    "own-schedule",
    "generators",
    "batch-independence",
    "determinism",
    "memory",
    "extras",
    "save-load",
    "dtype",
    "layout",
    "no-host-sync",
    "add-noise",
    "pipeline",
}


# ---- samplers that keep the contract --------------------------------------------------------


class PlainAncestralSampler(SchedulerMixin, ConfigMixin):
    """VE ancestral sampling as a stranger to hdzoo would write it, on diffusers alone."""

    order = 1

    @register_to_config
    def __init__(self, sigma_max: float = 5.0, sigma_min: float = 0.05, churn: float = 1.0):
        self.set_timesteps()

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None):
        if timesteps is not None and sigmas is not None:
            raise ValueError("give timesteps or sigmas")
        levels = timesteps if sigmas is None else sigmas
        if levels is None:
            number = 10 if num_inference_steps is None else num_inference_steps
            if number < 2:
                raise ValueError("at least 2 steps")
            levels = np.geomspace(self.config.sigma_max, self.config.sigma_min, number).tolist()
        elif num_inference_steps not in (None, len(levels)):
            raise ValueError("another number of steps than of noise levels")
        elif list(levels) != sorted(levels, reverse=True):
            raise ValueError("the noise levels must descend")
        self.sigmas = torch.tensor([*levels, 0.0], dtype=torch.float32)
        self.timesteps = self.sigmas[:-1].to(device)
        self.num_inference_steps = len(levels)
        self.init_noise_sigma = float(self.sigmas[0])
        self.index = self.begin = None

    def __len__(self):
        return self.num_inference_steps

    def set_begin_index(self, begin_index=0):
        self.begin = begin_index

    def scale_model_input(self, sample, timestep=None):
        return sample

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        if self.index is None and self.begin is not None:
            self.index = self.begin
        elif self.index is None:
            near = torch.isclose(self.timesteps, torch.as_tensor(timestep).float(), rtol=1e-6)
            self.index = near.nonzero()[0, 0].item()
        if isinstance(generator, list) and len(generator) != len(sample):
            raise ValueError("one generator for each sample")
        now, below = self.sigmas[self.index].item(), self.sigmas[self.index + 1].item()
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        x = x + (now**2 - below**2) * model_output.to(x.dtype)
        noise = randn_tensor(x.shape, generator, device=x.device, dtype=x.dtype)
        x = x + self.config.churn * below * math.sqrt(1 - (below / now) ** 2) * noise
        self.index += 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def add_noise(self, original_samples, noise, timesteps):
        sigma = timesteps.to(original_samples.dtype)
        return original_samples + sigma.view(-1, *[1] * (noise.ndim - 1)) * noise


class PlainMomentumSampler(PlainAncestralSampler):
    """The same with momentum, which a chain taken up in the middle has lost."""

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.momentum = 0.0

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        self.momentum = 0.5 * self.momentum + model_output.to(x.dtype)
        return super().step(self.momentum, timestep, sample, generator, return_dict)


class LargeLevelsSampler(PlainAncestralSampler):
    """One that the kit's small options do not fit."""

    @register_to_config
    def __init__(self, sigma_max: float = 9.0, sigma_min: float = 0.5, churn: float = 1.0):
        if sigma_max < 5:
            raise HDZooError("sigma_max is at least 5")
        self.set_timesteps()


class PlainAdaptiveSampler(PlainAncestralSampler):
    """The same with a step that depends on the sample, and on no other."""

    def step(self, model_output, *args, **kwargs):
        model_output = model_output.to(torch.promote_types(model_output.dtype, torch.float32))
        norm = model_output.flatten(1).norm(dim=1)
        norm = norm.view(-1, *[1] * (model_output.ndim - 1))
        return super().step(model_output / (1 + 0.1 * norm), *args, **kwargs)


class WithNoise(Annealed):
    """Langevin steps that draw their noise in a method of their own."""

    def noise(self, x, generator):
        if isinstance(generator, list) and len(generator) != len(x):
            raise HDZooError("one generator for each sample")
        return randn_tensor(x.shape, generator, x.device, x.dtype)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        # For the count of steps alone; its state is left out.
        super().step(model_output, timestep, sample, torch.Generator())
        sigma = self.moves[self.step_index - 1].sigma
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        x = x + 0.1 * sigma**2 * model_output.to(x.dtype)
        x = (x + 0.4 * sigma * self.noise(x, generator)).to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


# ---- samplers that break it -----------------------------------------------------------------
# Each makes one mistake, and many a scheduler in diffusers makes one of them.


class OffByOne(Annealed):
    def set_timesteps(self, num_inference_steps=None, *args, **kwargs):
        more = None if num_inference_steps is None else num_inference_steps + 1
        super().set_timesteps(more, *args, **kwargs)


class SecondOrder(Annealed):
    order = 2

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.timesteps.repeat_interleave(2)


class SecondOrderHidden(Annealed):
    order = 2


class Ascending(Annealed):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.sigmas = torch.cat([self.sigmas[:-1].flip(0), self.sigmas[-1:]])


class NoEnd(Annealed):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.sigmas[-1] = 1e-3


class OtherTimesteps(Annealed):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.timesteps.log()


class UnitStart(Annealed):
    init_noise_sigma = 1.0


class NeverEnds(Annealed):
    def step(self, *args, **kwargs):
        if self._step_index == len(self):
            self._step_index = len(self) - 1
        return super().step(*args, **kwargs)


class TakesNone(HalfDenoising):
    def set_timesteps(self, num_inference_steps=None, *args, **kwargs):
        number = None if num_inference_steps is None else max(1, num_inference_steps)
        super().set_timesteps(number, *args, **kwargs)


class DividesByNone(HalfDenoising):
    def set_timesteps(self, num_inference_steps=None, *args, **kwargs):
        1 / (1 if num_inference_steps is None else num_inference_steps)
        super().set_timesteps(num_inference_steps, *args, **kwargs)


class NotReady(PlainAncestralSampler):
    def __init__(self, sigma_max: float = 5.0, sigma_min: float = 0.05, churn: float = 1.0):
        self.register_to_config(sigma_max=sigma_max, sigma_min=sigma_min, churn=churn)


class LevelsInAList(PlainAncestralSampler):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.sigmas = self.sigmas.tolist()


class Diverges(Annealed):
    def step(self, model_output, *args, **kwargs):
        return super().step(1e30 * model_output, *args, **kwargs)


class SecondMatch(Annealed):
    """diffusers' Euler schedulers do so."""

    def index_for_timestep(self, timestep):
        first = super().index_for_timestep(timestep)
        return first + (first + 1 < len(self) and self.timesteps[first + 1] == timestep)


class Nearest(Annealed):
    def index_for_timestep(self, timestep):
        return int((self.timesteps - timestep).abs().argmin())


class ExactMatch(Annealed):
    def index_for_timestep(self, timestep):
        return self.timesteps.tolist().index(float(timestep))


class LooksUpAlways(Annealed):
    def step(self, *args, **kwargs):
        self._step_index = None
        return super().step(*args, **kwargs)


class NoBeginIndex(Annealed):
    def set_begin_index(self, begin_index=0):
        pass


class OwnLadderOnly(PlainAncestralSampler):
    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None):
        given = timesteps if sigmas is None else sigmas
        super().set_timesteps(len(given) if given is not None else num_inference_steps, device)


class FirstScheduleWins(Annealed):
    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None):
        timesteps = timesteps if sigmas is None else None
        super().set_timesteps(num_inference_steps, device, timesteps, sigmas)


class Resorts(Annealed):
    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None):
        sigmas = sigmas and sorted(sigmas, reverse=True)
        super().set_timesteps(num_inference_steps, device, timesteps, sigmas)


class SharedNoise(WithNoise):
    def noise(self, x, generator):
        if isinstance(generator, list):
            return super().noise(x, generator)
        return super().noise(x[:1], generator).expand(x.shape)


class UncountedGenerators(WithNoise):
    """`randn_tensor` does not count them either."""

    def noise(self, x, generator):
        return randn_tensor(x.shape, generator, x.device, x.dtype)


class OneForAll(WithNoise):
    def noise(self, x, generator):
        return super().noise(x, generator[0] if isinstance(generator, list) else generator)


class BatchMeanStep(Annealed):
    """Predictor-corrector samplers set their step by norms over the batch."""

    def step(self, model_output, timestep, sample, *args, **kwargs):
        model_output = model_output / (1 + model_output.flatten(1).norm(dim=1).mean())
        return super().step(model_output, timestep, sample, *args, **kwargs)


class BatchThreshold(Annealed):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        largest = model_output.abs().max()
        model_output = model_output.clamp(-0.5 * largest, 0.5 * largest)
        return super().step(model_output, timestep, sample, *args, **kwargs)


class GlobalNoise(WithNoise):
    def noise(self, x, generator):
        return torch.randn(x.shape)


class NumpyNoise(WithNoise):
    def noise(self, x, generator):
        return torch.from_numpy(np.random.standard_normal(x.shape)).to(x.dtype)


class SharedMomentum(PlainAncestralSampler):
    memory: dict[str, Any] = {}  # noqa: RUF012

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        if self.index is None:
            self.memory.clear()
        kept = self.memory.get("output", 0.0)
        self.memory["output"] = model_output.detach()
        return super().step(model_output + kept, timestep, sample, generator, return_dict)


class NeverForgets(PlainMomentumSampler):
    def set_timesteps(self, *args, **kwargs):
        kept = getattr(self, "momentum", 0.0)
        super().set_timesteps(*args, **kwargs)
        self.momentum = kept


class KeepsOutsideMemory(Velocity):
    """What it remembers is an attribute, which the next chain finds."""

    velocity: Any = 0.0

    def update(self, k, x, score, noise):
        self.velocity = 0.3 * self.velocity + self.moves[k].alpha * score
        return x + self.velocity


class StartsOutsideMemory(KeepsOutsideMemory):
    """The same, put right at every beginning."""

    def update(self, k, x, score, noise):
        if k == 0 or self._begin_index == k:
            self.velocity = 0.0
        return super().update(k, x, score, noise)


class SharedByCopies(Velocity):
    """It adds to what it remembers, in the place that a shallow copy shares."""

    def update(self, k, x, score, noise):
        velocity = self.memory.setdefault("velocity", torch.zeros_like(x))
        velocity.mul_(0.3).add_(self.moves[k].alpha * score)
        return x + velocity


class LostByPickle(Velocity):
    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "memory"}

    def __setstate__(self, state):
        self.__dict__.update(state, memory={})


class LostByDeepcopy(PlainMomentumSampler):
    def __deepcopy__(self, memo):
        copied = copy.copy(self)
        copied.momentum = 0.0
        return copied


class NotPickled(PlainAncestralSampler):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.schedule = lambda step: self.sigmas[step]


class MemoryOfTheBatch(Velocity):
    """One number for all."""

    def update(self, k, x, score, noise):
        self.memory["steps"] = torch.tensor(k)
        return super().update(k, x, score, noise)


class MemoryFromTheStart(Velocity):
    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.memory["velocity"] = 0.0


class NextChainRemembers(PlainMomentumSampler):
    """`set_begin_index` begins another chain, with the momentum of the last."""

    def set_begin_index(self, begin_index=0):
        super().set_begin_index(begin_index)
        self.index = None


class SharesMomentum(Velocity):
    """The momentum is that of the batch."""

    def update(self, k, x, score, noise):
        moved = super().update(k, x, score, noise)
        kept = self.memory["velocity"]
        self.memory["velocity"] = kept.mean(0, keepdim=True).expand(kept.shape).clone()
        return moved


class NeedsMore(Annealed):
    needs = ("entropy",)


class NeedsNothing(Metropolis):
    """It says that it needs the energy, and goes on without."""

    def _take_extras(self, given, *args):
        self.extras = {"energy": given.get("energy", torch.zeros(2))}


class UsesAsIfNeeded(Metropolis):
    needs = ()
    uses = ("energy",)


class DeafToNeeds(Metropolis):
    """Pipelines see nothing of what it needs."""

    def __getattribute__(self, name):
        import sys

        if name == "needs" and "pipelines" in sys._getframe(1).f_code.co_filename:
            return ()
        return super().__getattribute__(name)


class TurnsNoSigns(TwoStageSigns):
    """Normal noise, in the space of signs."""

    def add_noise(self, original_samples, noise, timesteps):
        sigma = timesteps.view(-1, *[1] * (noise.ndim - 1)).to(noise.dtype)
        return original_samples + sigma * noise


class BeyondSigns(TwoStageSigns):
    """On the way, sums of signs."""

    def update(self, k, x, score, noise):
        moved = super().update(k, x.clamp(-1, 1), score, noise)
        return 2 * moved if self.levels[k + 1] else moved


class TurnsTooMany(TwoStageSigns):
    """Twice the noise."""

    def add_noise(self, original_samples, noise, timesteps):
        return super().add_noise(original_samples, noise, timesteps * 2**0.5)


class SignsOfTheBatch(TwoStageSigns):
    """One uniform number for all samples."""

    def signs(self, chance, noise):
        drawn = noise.uniform(chance.shape)[:1]
        return torch.where(drawn < chance, 1.0, -1.0)


class UnregisteredOption(Annealed):
    def __init__(self, sigma_max: float = 1.0, sigma_min: float = 0.1, push: float = 1.0):
        self.push = push
        super().__init__(sigma_max=sigma_max, sigma_min=sigma_min)


class LostOnSaving(PlainAncestralSampler):
    def save_pretrained(self, *args, **kwargs):
        type(self)(self.config.sigma_max, self.config.sigma_min)._save(*args, **kwargs)

    def _save(self, *args, **kwargs):
        super().save_pretrained(*args, **kwargs)


class KeptOutsideConfig(PlainAncestralSampler):
    def step(self, model_output, *args, **kwargs):
        return super().step(getattr(self, "gain", 1.0) * model_output, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        loaded.gain = 1.1
        return loaded


class DeafToOverrides(PlainAncestralSampler):
    @classmethod
    def from_config(cls, config=None, return_unused_kwargs=False, **kwargs):
        kwargs.pop("churn", None)
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)


class OtherStepSize(PlainAncestralSampler):
    """A step size in other units than those of hdzoo's samplers on a ladder."""

    @register_to_config
    def __init__(self, churn: float = 1.0, step_size: float = 0.7, sigma_max=3.0, sigma_min=0.1):
        if step_size < 0.1:
            raise HDZooError("step_size is at least 0.1")
        self.set_timesteps()


class HalfArithmetic(Annealed):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        model_output = model_output.to(sample.dtype) * 0.3
        return super().step(model_output, timestep, sample, *args, **kwargs)


class NoiseInStatesDtype(WithNoise):
    """diffusers draws noise in the dtype of the output."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        self.dtype = sample.dtype
        return super().step(model_output, timestep, sample, generator, return_dict)

    def noise(self, x, generator):
        return randn_tensor(x.shape, generator, x.device, self.dtype)


class AlwaysSingle(Annealed):
    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        found = super().step(model_output.float(), timestep, sample.float(), generator)
        return SchedulerOutput(prev_sample=found.prev_sample.to(sample.dtype))


class Promotes(Annealed):
    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        return super().step(model_output.double(), timestep, sample.double(), generator)


class InPlace(Annealed):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        found = super().step(model_output, timestep, sample, *args, **kwargs)
        sample.copy_(found[0])
        return found


class ClampsOutputInPlace(Annealed):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        model_output.clamp_(-0.5, 0.5)
        return super().step(model_output, timestep, sample, *args, **kwargs)


class NoTuple(Annealed):
    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        return super().step(model_output, timestep, sample, generator)


class ImagesOnly(Annealed):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        assert sample.ndim == 4 or sample.shape == (2, 3), "images have four axes"
        return super().step(model_output, timestep, sample, *args, **kwargs)


class NoiseInMemoryOrder(WithNoise):
    def noise(self, x, generator):
        return torch.empty_like(x).normal_(generator=generator)


class Squeezes(Annealed):
    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        found = super().step(model_output, timestep, sample, generator)
        x = found.prev_sample.flatten(1)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


class AsksForTheNorm(Annealed):
    def step(self, model_output, *args, **kwargs):
        largest = model_output.abs().max().item()
        return super().step(model_output / max(1.0, largest / 1e6), *args, **kwargs)


class ChecksTheState(Annealed):
    def scale_model_input(self, sample, timestep=None):
        if not torch.isfinite(sample).all():
            raise HDZooError("the state is not finite")
        return sample


class TimestepsAtHome(Annealed):
    def set_timesteps(self, num_inference_steps=None, device=None, **kwargs):
        super().set_timesteps(num_inference_steps, **kwargs)


class VariancePreserving(Annealed):
    def add_noise(self, original_samples, noise, timesteps):
        sigma = timesteps.view(-1, *[1] * (noise.ndim - 1)).to(noise.dtype)
        return (original_samples + sigma * noise) / (1 + sigma**2) ** 0.5


class TimestepAsNoise(Annealed):
    """Right as long as timesteps are noise levels."""

    def add_noise(self, original_samples, noise, timesteps):
        sigma = timesteps.view(-1, *[1] * (noise.ndim - 1)).to(noise.dtype)
        return original_samples + sigma * noise


class NoisePromotes(Annealed):
    def add_noise(self, original_samples, noise, timesteps):
        return super().add_noise(original_samples.double(), noise, timesteps)


class NotScaling(Annealed):
    scale_model_input = None


class OtherRandomnessWhenSaved(PlainAncestralSampler):
    """Its noise depends on what saving does not keep."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        names = self.config.get("_use_default_values", [])
        scale = 1.0 if "churn" in names else 1.1
        return super().step(scale * model_output, timestep, sample, generator, return_dict)


def hidden_class() -> type[Any]:
    class Hidden(PlainAncestralSampler):
        pass

    return Hidden


MISTAKES = [
    ("nfe", OffByOne, r"after set_timesteps\(\d+\): len\(timesteps\) is \d+; it must be \d+"),
    ("nfe", SecondOrder, "own number"),
    ("nfe", SecondOrderHidden, "order is 2; it must be 1"),
    ("nfe", Ascending, r"sigmas goes up, from 0\.1 to 0\.18"),
    ("nfe", NoEnd, r"sigmas ends in 0\.001; it must end in 0"),
    ("nfe", OtherTimesteps, "network must be told sigma, or log"),
    ("nfe", UnitStart, r"init_noise_sigma is 1; it must be sigmas\[0\], 2"),
    ("nfe", NeverEnds, r"step number 7 raises nothing; the chain of 6 steps has ended"),
    ("nfe", TakesNone, r"set_timesteps\(0\) raises nothing; the fewest is 1, which must raise"),
    ("nfe", DividesByNone, r"set_timesteps\(0\) raised ZeroDivisionError.* must raise an HDZooErr"),
    ("nfe", NotReady, "NotReady.num_inference_steps raised AttributeError"),
    ("nfe", LevelsInAList, r"sigmas is \[.*\]; it must be a tensor of one axis"),
    ("nfe", Diverges, "the state is not finite in the end"),
    ("indexing", SecondMatch, r"at step 13 of 14: .* raised HDZooError: the chain of 14 steps has"),
    ("indexing", Nearest, r"a first step at timestep 3\.123 raises nothing; the chain has no such"),
    ("indexing", ExactMatch, r"raised ValueError: 1\.0985\d* is not in list"),
    ("indexing", LooksUpAlways, r"differ by up to .* bit for bit"),
    ("indexing", NoBeginIndex, r"set_begin_index\(\d+\)"),
    (
        "own-schedule",
        OwnLadderOnly,
        r"from 1\.8 to 0\.09 in 6 steps is given, and sigmas goes from",
    ),
    ("own-schedule", FirstScheduleWins, "with sigmas and timesteps raises nothing; .* two sched"),
    ("own-schedule", Resorts, "set_timesteps with sigmas raises nothing; noise levels descend"),
    ("generators", SharedNoise, "the same noise to several samples of a batch with a single gen"),
    ("generators", UncountedGenerators, "a list of 1 raises nothing; a list has one generator for"),
    ("generators", OneForAll, "sample 0 drawn alone and the same drawn among 7.* bit for bit"),
    ("batch-independence", BatchMeanStep, r"the others' outputs are made 100 times larger"),
    ("batch-independence", BatchThreshold, r"the others' outputs are made 100 times larger"),
    ("determinism", GlobalNoise, "moves the global random numbers of torch"),
    ("determinism", NumpyNoise, "moves the global random numbers of numpy"),
    ("determinism", SharedMomentum, "two instances take turns, at step 1: .* bit for bit"),
    ("determinism", NeverForgets, "two runs with one seed"),
    ("memory", KeepsOutsideMemory, "begun by set_timesteps after another has ended, and of a new"),
    ("memory", StartsOutsideMemory, r"another sampler with the same memory \(what an update keeps"),
    ("memory", SharedByCopies, "after step 1 of 11: step 1 of it and of the whole chain differ"),
    ("memory", LostByPickle, "after step 1 of 11: step 1 of it and of the whole chain differ"),
    ("memory", LostByDeepcopy, "a sampler copied by copy.deepcopy after step 1 of 7: step 1 of"),
    ("memory", NotPickled, "after step 1 of 7 the sampler cannot be pickled and loaded: "),
    (
        "memory",
        MemoryOfTheBatch,
        r"memory\['steps'\] has the shape \(\) for 2 samples; the batch is",
    ),
    ("memory", MemoryFromTheStart, "memory of a new sampler holds velocity; it is empty when a ch"),
    (
        "memory",
        NextChainRemembers,
        r"begun by set_begin_index\(0\) after another has ended, and of",
    ),
    ("batch-independence", SharesMomentum, r"the others' outputs are made 100 times larger"),
    (
        "extras",
        NeedsMore,
        r"it asks for the network's 'entropy' .*; networks give energy, variance",
    ),
    ("extras", NeedsNothing, "a step without the network's energy raises nothing; it needs energy"),
    ("extras", UsesAsIfNeeded, "without the network's energy, which it only uses: .* KeyError"),
    ("extras", DeafToNeeds, "HDPipeline on a network that does not give energy raised Assertion"),
    ("nfe", LeavesSigns, r"the state is in \{-1, 1\}\^d \(state_space\), and no longer there"),
    ("nfe", BeyondSigns, r"the state is in \[-1, 1\]\^d \(state_space\), and no longer there"),
    ("add-noise", TurnsNoSigns, r"add_noise leaves \{-1, 1\}\^d, the space of the states"),
    ("add-noise", TurnsTooMany, r"keeps the shares .* it must keep each with probability"),
    ("generators", SignsOfTheBatch, "drawn alone and the same drawn among 7"),
    ("save-load", UnregisteredOption, "the option push is not in the configuration, and is lost"),
    ("save-load", LostOnSaving, r"with churn=0\.9: saved and loaded, the option churn is 1\.0; it"),
    ("save-load", KeptOutsideConfig, "saved and loaded, the sampler's states and the original's"),
    ("save-load", DeafToOverrides, r"by from_config, the option churn is 1\.0; it must be 0\.9"),
    ("save-load", OtherStepSize, "from_config refuses the configuration: .*must mean the same"),
    ("dtype", HalfArithmetic, "a float16 state with a float16 output .* computed in float32"),
    ("dtype", NoiseInStatesDtype, "a float16 state with a float16 output .* computed in float32"),
    ("dtype", AlwaysSingle, "step 0 computes a float64 state in float32"),
    ("dtype", Promotes, "one is <float64"),
    ("layout", InPlace, "step 0 writes to its argument sample"),
    ("layout", ClampsOutputInPlace, "step 0 writes to its argument model_output"),
    ("layout", NoTuple, "with return_dict=False returns a SamplerOutput; it must be a tuple"),
    ("layout", ImagesOnly, r"<float32 \(4, 30\)>.* raised AssertionError: images have four axes"),
    ("layout", NoiseInMemoryOrder, "the state with channels last is off by up to"),
    ("layout", Squeezes, r"makes a state of shape \(4, 30\) of one of shape \(4, 3, 2, 5\)"),
    ("no-host-sync", AsksForTheNorm, r"asking for a value raises: .*\.step\(<float32 \(2, 3, 4, 4"),
    ("no-host-sync", ChecksTheState, r"asking for a value raises: .*\.scale_model_input\("),
    ("no-host-sync", TimestepsAtHome, "leaves timesteps on the CPU"),
    ("add-noise", VariancePreserving, r"add_noise at noise level\(s\) \[2\.0\] is off by up to"),
    ("add-noise", TimestepAsNoise, r"add_noise at noise level\(s\) \[2\.0\] is off by up to"),
    ("add-noise", NoisePromotes, r"makes float64 \(3, 2, 2\) of float32 \(3, 2, 2\)"),
    ("pipeline", NotScaling, "HDPipeline with it raised TypeError"),
    ("pipeline", BatchMeanStep, "a batch of 3 is not the first 3 of a batch of 5"),
    ("pipeline", OtherRandomnessWhenSaved, "and of the same saved and loaded, differ by up to"),
    ("pipeline", hidden_class(), "cannot be saved and loaded"),
]


# ---- the tests ------------------------------------------------------------------------------


def test_what_a_chain_remembers_is_told() -> None:
    said = {
        PlainAncestralSampler: "none kept",
        PlainMomentumSampler: "6 of 7 steps depend on more than the state",
        Annealed: "memory stays empty",
        Velocity: "memory holds velocity",
        Metropolis: "memory holds energy, score, x",
    }
    for sampler, what in said.items():
        assert CONTRACT["memory"](sampler).endswith(f"3 places; {what}")


def test_what_an_accepted_step_hides_is_remembered() -> None:
    whole = run(watched(Metropolis, 7), first_state(Metropolis, 1, 2, 4, 8), seeded(0)[0])
    assert [remembers(Metropolis, whole, k) for k in range(7)] == [False] + [True] * 6


def test_a_chain_is_taken_up_where_it_remembers_nothing() -> None:
    assert "14 places to take up the chain" in CONTRACT["indexing"](Annealed)
    assert CONTRACT["indexing"](PlainMomentumSampler).endswith(", 1 places to take up the chain")


def test_a_failure_names_the_options_of_the_small_sampler() -> None:
    with pytest.raises(
        CheckFailed, match=r"(?s)images have four axes.*\[sigma_max=2\.0, sigma_min=0\.1"
    ):
        CONTRACT["layout"](ImagesOnly)


def test_checks() -> None:
    assert set(CONTRACT) == CHECKS
    for check in CONTRACT.values():
        assert (check.__doc__ or "").strip()


@pytest.mark.parametrize("check", sorted(CHECKS))
@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_registered_sampler_keeps_the_contract(name: str, check: str) -> None:
    measured = CONTRACT[check](get_sampler(name))
    assert measured
    assert "\n" not in measured


@pytest.mark.parametrize("check", sorted(CHECKS))
@pytest.mark.parametrize(
    "sampler",
    [
        PlainAncestralSampler,
        PlainMomentumSampler,
        PlainAdaptiveSampler,
        LargeLevelsSampler,
        WithNoise,
        Velocity,
        Metropolis,
        TwoStageSigns,
    ],
)
def test_stranger_keeps_the_contract(sampler: type[Any], check: str) -> None:
    assert CONTRACT[check](sampler)


@pytest.mark.parametrize(
    ("check", "sampler", "message"), MISTAKES, ids=[f"{m[0]}-{m[1].__name__}" for m in MISTAKES]
)
def test_mistake_is_caught(check: str, sampler: type[Any], message: str) -> None:
    with pytest.raises(CheckFailed, match=message) as caught:
        CONTRACT[check](sampler)
    assert str(caught.value).endswith(f"[clause '{check}' of hdzoo.verification.contract]")


def test_every_check_catches_a_mistake() -> None:
    assert {check for check, *_ in MISTAKES} == CHECKS


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_nothing_but_a_failed_check_comes_out(check: str) -> None:
    """Of a sampler that is none, or whose attributes have other types than they should."""
    for sampler in (dict, int, torch.nn.Identity):
        with pytest.raises(CheckFailed, match=f"{sampler.__name__} is no sampler; it must be a cl"):
            CONTRACT[check](sampler)
    with suppress(CheckFailed):
        CONTRACT[check](LevelsInAList)


def test_small_sampler() -> None:
    built = small_sampler(Annealed, prediction_type="epsilon", foreign=1)
    assert built.config.prediction_type == "epsilon"
    assert {key: built.config[key] for key in SMALL if key in built.config} == {
        key: value for key, value in SMALL.items() if key not in ("sigma", "num_steps")
    }
    # Its step must be at least half of the variance: the step size alone is left out.
    large = get_sampler("noise-corrected-langevin")
    assert small_sampler(large, sigma=0.3).config.step_size is None
    assert small_sampler(large, sigma=0.3).config.num_steps == SMALL["num_steps"]
    assert small_sampler(LargeLevelsSampler).config.sigma_max == 9
    assert small_sampler(LargeLevelsSampler, churn=0.5).config.churn == 0.5
    with pytest.raises(
        CheckFailed, match=r"Sampler\(sigma_max=1\) raised HDZooError: sigma_max is"
    ):
        small_sampler(LargeLevelsSampler, sigma_max=1)


def test_checks_leave_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), logging.get_verbosity()
    for check in CONTRACT.values():
        check(PlainAncestralSampler)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert logging.get_verbosity() == before[2]
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")
