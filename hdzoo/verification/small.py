"""A small sampler of any class, under watch."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from diffusers import ConfigMixin, SchedulerMixin

from hdzoo.verification.checks import CheckFailed, called, listed

# They go together in every sampler of hdzoo that has these options: on this ladder, or at this one
# level, the step size is half of the variance.
SMALL: dict[str, Any] = {
    "sigma_max": 2.0,
    "sigma_min": 0.1,
    "num_levels": 6,
    "steps_per_level": 3,
    "sigma": 0.1,
    "num_steps": 7,
    "readout": "full",
    "step_size": 0.005,
}
# Where signs are turned over: at the levels above hardly any is.
SMALL_ON_SIGNS = {"sigma_max": 4.0, "sigma_min": 1.0, "sigma": 1.0, "step_size": 0.5}


def option_names(sampler_class: type[Any]) -> list[str]:
    """The options that a sampler's constructor takes by name."""
    return list(_named_parameters(sampler_class.__init__))


@lru_cache
def _named_parameters(constructor: Callable[..., None]) -> tuple[str, ...]:
    parameters = inspect.signature(constructor).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in parameters if p.name != "self" and p.kind in named)


def options_of(sampler: Any) -> dict[str, Any]:
    """The options of a sampler, as far as they are in its configuration."""
    names = option_names(type(sampler))
    return {name: sampler.config[name] for name in names if name in sampler.config}


def small_sampler(sampler_class: type[Any], **overrides: Any) -> Any:
    """Builds a sampler with a short ladder, whoever wrote it.

    Args:
        sampler_class: a diffusers scheduler.
        **overrides: options on top of `SMALL`'s. Those that the class does not have are left out.

    Returns:
        An instance. Where `SMALL`'s options do not go together in this class, the step size is left
        at its default, and if that does not help either, all of them.

    Raises:
        CheckFailed: it is no scheduler, or refuses its own defaults with the overrides.
    """
    name = getattr(sampler_class, "__name__", repr(sampler_class))
    if not (
        isinstance(sampler_class, type)
        and issubclass(sampler_class, SchedulerMixin)
        and issubclass(sampler_class, ConfigMixin)
    ):
        raise CheckFailed(
            f"{name} is no sampler; it must be a class that is both diffusers' SchedulerMixin and "
            "its ConfigMixin"
        )
    known = option_names(sampler_class)
    overrides = {key: value for key, value in overrides.items() if key in known}
    signs = getattr(sampler_class, "state_space", "real") == "signs"
    chosen = SMALL | (SMALL_ON_SIGNS if signs else {})
    small = {key: value for key, value in chosen.items() if key in known}
    own_step = {key: value for key, value in small.items() if key != "step_size"}
    refusal: Exception
    for options in (small | overrides, own_step | overrides, overrides):
        try:
            return sampler_class(**options)
        except Exception as error:
            refusal = error
            if not isinstance(error, ValueError):
                break
    raise CheckFailed(
        f"{called(name, (), options)} raised {type(refusal).__name__}: {refusal}"
    ) from refusal


class Watched:
    """A sampler, or its class, whose calls raise nothing but a `CheckFailed` that names the call
    and the sampler's options.

    Attributes and methods are the sampler's.

    Attributes:
        sampler: the sampler itself.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __getattr__(self, name: str) -> Any:
        watched_class = self.sampler if isinstance(self.sampler, type) else type(self.sampler)
        owner = watched_class.__name__
        try:
            value = getattr(self.sampler, name)
        except Exception as error:
            raise self._failure(f"{owner}.{name}", error) from error
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return value(*args, **kwargs)
            except Exception as error:
                raise self._failure(called(f"{owner}.{name}", args, kwargs), error) from error

        return call

    def __len__(self) -> int:
        try:
            return len(self.sampler)
        except Exception as error:
            raise self._failure(f"len({type(self.sampler).__name__})", error) from error

    def _failure(self, what: str, error: Exception) -> CheckFailed:
        options = "" if isinstance(self.sampler, type) else listed(options_of(self.sampler))
        built = f" [{options}]" if options else ""
        return CheckFailed(f"{what} raised {type(error).__name__}: {error}{built}")


def watched(sampler_class: type[Any], steps: int | None = None, **overrides: Any) -> Watched:
    """A `small_sampler` under watch, set to so many network evaluations if a number is given."""
    sampler = Watched(small_sampler(sampler_class, **overrides))
    if steps is not None:
        sampler.set_timesteps(steps)
    return sampler


def fewest(sampler: Watched) -> int:
    """The smallest number of network evaluations that a sampler takes, up to 1000."""
    for steps in range(1, 1001):
        try:
            sampler.set_timesteps(steps)
        except CheckFailed as failure:
            if not isinstance(failure.__cause__, ValueError):
                raise
        else:
            return steps
    raise CheckFailed(
        f"{type(sampler.sampler).__name__}.set_timesteps refuses every number from 1 to 1000; it "
        "must take all from some number on"
    )
