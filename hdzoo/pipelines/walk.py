"""The loop that all pipelines here share: network, sampler, callback, in turn."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch

from hdzoo.checks import Many, OneOf, refuse
from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import whole_number
from hdzoo.samplers.noise import Generator
from hdzoo.text import counted

# Called as f(pipeline, step, timestep, tensors); may return other latents.
Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any] | None]
TENSOR_INPUTS = ("latents", "denoised", "score")


def taken(step: Callable[..., Any], names: Iterable[str]) -> set[str]:
    """Which of some arguments a scheduler's step takes by name; not all of diffusers' take a
    generator."""
    parameters = inspect.signature(step).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name for name in names if takes_all or name in parameters}


class Walk:
    """One chain of a pipeline.

    Args:
        pipe: the pipeline, for its network and progress bar.
        scheduler: the sampler, its chain fixed; no other chain's.
        callback: as in `HDPipeline`.
        tensor_inputs: what it is given, of `TENSOR_INPUTS`.
        samples_every: as in `HDPipeline`.
        class_labels: of each sample, for the network; None for one that takes none.

    Raises:
        HDZooError: an argument is out of its range.
    """

    def __init__(
        self,
        pipe: Any,
        scheduler: Any,
        callback: Callback | None = None,
        tensor_inputs: Iterable[str] = ("latents",),
        samples_every: int | None = None,
        class_labels: torch.Tensor | None = None,
    ) -> None:
        self.pipe, self.network, self.scheduler = pipe, pipe.unet, scheduler
        if not (callback is None or callable(callback)):
            refuse("callback_on_step_end", callback, "a function, or None")
        names = Many(OneOf(TENSOR_INPUTS), 0)("callback_on_step_end_tensor_inputs", tensor_inputs)
        self.callback, self.tensor_inputs = callback, tuple(names)
        steps = len(scheduler.timesteps)
        if samples_every is not None and whole_number(samples_every, "samples_every") > steps:
            raise HDZooError(
                f"samples_every is {samples_every}, and the chain has {steps} evaluations; at most "
                "that many"
            )
        self.samples_every = samples_every
        provided = getattr(self.network, "provides", ())
        asked = (*getattr(scheduler, "needs", ()), *getattr(scheduler, "uses", ()))
        self.extras = tuple(name for name in asked if name in provided)
        self.asked_with = {} if class_labels is None else {"class_labels": class_labels}

    def run(
        self,
        latents: torch.Tensor,
        generator: Generator,
        between: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Walks.

        Args:
            latents: the first state.
            generator: one, or one for each sample.
            between: called as ``f(k, latents)`` with the state that evaluation ``k`` is to be made
                at, or after the last with ``k`` their number; returns the state to go on from.

        Returns:
            The last state; or with ``samples_every`` the denoised states, those of one chain after
            one another.
        """
        pipe, scheduler = self.pipe, self.scheduler
        timesteps = scheduler.timesteps
        pipe._num_timesteps, pipe._interrupt = len(timesteps), False
        # Networks of ours take the float32 state as it is and round inside, after preconditioning.
        keeps_state = hasattr(self.network, "prediction_type")
        dtype = latents.dtype if keeps_state else self.network.dtype
        takes = taken(scheduler.step, ("generator", "return_dict"))
        given: dict[str, Any] = {"generator": generator} if "generator" in takes else {}
        every = self.samples_every
        shows_more = self.callback is not None and self.tensor_inputs != ("latents",)
        on_the_way: list[torch.Tensor] = []
        with evaluating(self.network), pipe.progress_bar(total=len(timesteps)) as progress:
            for i, t in enumerate(timesteps):
                if pipe.interrupt:
                    break
                model_input = scheduler.scale_model_input(latents, t).to(dtype)
                prediction, extras = self._ask(model_input, t)
                wanted = every is not None and (i + 1) % every == 0
                if "return_dict" in takes:
                    given["return_dict"] = wanted or shows_more
                output = scheduler.step(prediction, t, latents, **given, **extras)
                latents = output[0]
                if wanted:
                    on_the_way.append(_part(output, "pred_original_sample", scheduler))
                if between is not None:
                    latents = between(i + 1, latents)
                if self.callback is not None:
                    latents = self._call_back(i, t, latents, output)
                progress.update()
        if every is None:
            return latents
        return torch.stack(on_the_way, 1).flatten(0, 1) if on_the_way else latents[:0]

    def _ask(
        self, model_input: torch.Tensor, timestep: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The network's prediction, and what it gives beside it that the sampler asks for."""
        if not self.extras:
            output = self.network(model_input, timestep, return_dict=False, **self.asked_with)
            return output[0], {}
        output = self.network(model_input, timestep, extras=self.extras, **self.asked_with)
        return output.sample, {name: getattr(output, name) for name in self.extras}

    def _call_back(
        self, step: int, timestep: torch.Tensor, latents: torch.Tensor, output: Any
    ) -> torch.Tensor:
        assert self.callback is not None
        names = {"denoised": "pred_original_sample", "score": "score"}
        tensors = {
            name: latents if name == "latents" else _part(output, names[name], self.scheduler)
            for name in self.tensor_inputs
        }
        returned = self.callback(self.pipe, step, timestep, tensors) or {}
        changed: torch.Tensor = returned.get("latents", latents)
        return changed


_EVALUATING = Lock()
# How many walks a network is in, and those of its modules that were in train mode before the first.
_IN_TRAIN_MODE: WeakKeyDictionary[torch.nn.Module, tuple[int, list[torch.nn.Module]]] = (
    WeakKeyDictionary()
)


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Puts a network in eval mode, without dropout, and gives it back as it was.

    Walks of several threads may share it: the last one gives it back.
    """
    with _EVALUATING:
        walks, before = _IN_TRAIN_MODE.get(network, (0, []))
        training = [module for module in network.modules() if module.training]
        _IN_TRAIN_MODE[network] = walks + 1, before if walks else training
        if training:
            network.eval()
    try:
        yield
    finally:
        with _EVALUATING:
            walks, training = _IN_TRAIN_MODE.pop(network)
            if walks > 1:
                _IN_TRAIN_MODE[network] = walks - 1, training
            else:
                for module in training:
                    module.training = True


def _part(output: Any, name: str, scheduler: Any) -> torch.Tensor:
    part: torch.Tensor | None = output.get(name)
    if part is None:
        raise HDZooError(
            f"{type(scheduler).__name__} does not say its {name}; ask for latents alone, or take "
            "a sampler of hdzoo"
        )
    return part


def check_finite(states: torch.Tensor) -> torch.Tensor:
    """Returns the states; refuses those that a chain has lost."""
    if not torch.isfinite(states).all():
        broken = (~torch.isfinite(states)).flatten(1).any(1).sum().item()
        raise HDZooError(
            f"{broken} of {counted(len(states), 'sample')} came out not finite: the chain diverged "
            "or the network returned NaN. Try a smaller step_size, float32 weights, or another "
            "sampler"
        )
    return states
