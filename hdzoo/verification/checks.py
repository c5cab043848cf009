"""What checks of a sampler share: how one fails, a small sampler, and its chain on a network."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.utils import logging

from hdzoo.scores.conversions import score_weights

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


class CheckFailed(AssertionError):  # noqa: N818 - a check fails; nothing is in error
    """A sampler breaks the contract; the message says how."""


# ---- a sampler to check ---------------------------------------------------------------------


def option_names(sampler_class: type[Any]) -> list[str]:
    """The options that a sampler's constructor takes by name."""
    parameters = inspect.signature(sampler_class.__init__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.name != "self" and p.kind in named]


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
    small = {key: value for key, value in SMALL.items() if key in known}
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
    """A sampler, or its class, whose calls raise nothing but a `CheckFailed` that names the call.

    Attributes and methods are the sampler's.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __getattr__(self, name: str) -> Any:
        watched_class = self.sampler if isinstance(self.sampler, type) else type(self.sampler)
        owner = watched_class.__name__
        try:
            value = getattr(self.sampler, name)
        except Exception as error:
            raise CheckFailed(f"{owner}.{name} raised {type(error).__name__}: {error}") from error
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return value(*args, **kwargs)
            except Exception as error:
                text = called(f"{owner}.{name}", args, kwargs)
                raise CheckFailed(f"{text} raised {type(error).__name__}: {error}") from error

        return call

    def __len__(self) -> int:
        try:
            return len(self.sampler)
        except Exception as error:
            text = f"len({type(self.sampler).__name__})"
            raise CheckFailed(f"{text} raised {type(error).__name__}: {error}") from error


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


def called(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call as a person would write it, with tensors and long lists in short."""
    given = [_short(value) for value in args]
    given += [f"{key}={_short(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(given)})"


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 and not value.is_meta:
            return f"{value.item():g}"
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, torch.Generator):
        return "<generator>"
    if isinstance(value, list) and value and isinstance(value[0], torch.Generator):
        return f"<{len(value)} generators>"
    if isinstance(value, list) and len(value) > 6:
        return f"[{_short(value[0])}, ..., {_short(value[-1])}]"
    return repr(value)


# ---- its chain ------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step of a chain: what it was given, and the state after it."""

    timestep: torch.Tensor
    output: torch.Tensor
    state: torch.Tensor
    after: torch.Tensor


def sigma_of(sampler: Any, timestep: Any) -> float:
    """The noise level that a timestep stands for, by the option ``timestep_type``."""
    log = sampler.config.get("timestep_type", "sigma") == "log_sigma"
    return math.exp(4 * float(timestep)) if log else float(timestep)


def network(sampler: Any, x: torch.Tensor, timestep: Any) -> torch.Tensor:
    """A smooth score near that of a normal law, as the sampler's options say networks predict it.

    It works on each number alone, so that a sample gets the same bits in any batch.
    """
    sigma, sigma_data = sigma_of(sampler, timestep), sampler.config.get("sigma_data")
    prediction_type = sampler.config.get("prediction_type", "score")
    if sigma_data is None:
        a, b = score_weights(prediction_type, sigma)
    else:
        total = sigma**2 + sigma_data**2
        sign = -1 if prediction_type == "v_prediction" else 1
        a, b = sign * sigma_data / (sigma * math.sqrt(total)), -1 / total
    score = (1 - x) / (0.5 + sigma**2) + 0.01 * x * x / (1 + sigma**4)
    return (score - b * x) / a


def run(
    sampler: Any, state: torch.Tensor, generator: Any = None, start: int = 0, at: Any = None
) -> list[Step]:
    """The steps of a chain on `network`, from ``timesteps[start]`` on.

    Args:
        sampler: set to a number of network evaluations.
        state: the first.
        generator: one, or one for each sample.
        start: where the chain begins.
        at: what the first step is given as its timestep, instead of the element of ``timesteps``.
    """
    steps = []
    for i, t in enumerate(sampler.timesteps[start:], start):
        output = network(sampler, state, t)
        given = at if i == start and at is not None else t
        with during(f"at step {i} of {len(sampler.timesteps)}"):
            after = next_state(sampler, given, output, state, generator)
        steps.append(Step(t, output, state, after))
        state = after
    return steps


def next_state(
    sampler: Any, timestep: Any, output: torch.Tensor, state: torch.Tensor, generator: Any = None
) -> torch.Tensor:
    """The state after a step, which is given copies, so that none that writes to them does harm."""
    after: torch.Tensor = sampler.step(
        output.clone(), timestep, state.clone(), generator=generator
    ).prev_sample
    return after


def seeded(*seeds: int) -> list[torch.Generator]:
    """One generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def first_state(*shape: int, seed: int = 99) -> torch.Tensor:
    """A state to start from."""
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- verdicts -------------------------------------------------------------------------------


def same_bits(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Raises a `CheckFailed` unless two states, described by ``what``, have the same bits."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise CheckFailed(f"{what}: one is {_short(found)}, the other {_short(expected)}")
    if not torch.equal(found, expected):
        gap = (found.double() - expected.double()).abs().max()
        raise CheckFailed(f"{what} differ by up to {gap:.3g}; they must be the same, bit for bit")


def same_chains(found: list[Step], expected: list[Step], what: str) -> None:
    """`same_bits` for the state after every step."""
    if len(found) != len(expected):
        raise CheckFailed(f"{what} have {len(found)} and {len(expected)} steps")
    for i, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        same_bits(one.after, other.after, f"{what}, after step {i} of {len(found)},")


def must_refuse(
    why: str,
    what: str,
    kind: type[Exception],
    call: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> None:
    """Raises a `CheckFailed` unless a call raises as it must.

    Args:
        why: what is wrong with the call.
        what: the call as a person would write it.
        kind: of exception that is allowed.
        call: something of a `Watched` sampler.
        *args: its arguments.
        **kwargs: more of them.
    """
    try:
        call(*args, **kwargs)
    except CheckFailed as failure:
        if failure.__cause__ is None:
            raise
        if not isinstance(failure.__cause__, kind):
            raise CheckFailed(
                f"{failure}; {why}, which must raise an HDZooError (or another {kind.__name__}) "
                "that says so"
            ) from failure.__cause__
    else:
        raise CheckFailed(f"{what} raises nothing; {why}, which must raise an error")


@contextmanager
def during(what: str) -> Iterator[None]:
    """Says of a `CheckFailed` during what it happened."""
    try:
        yield
    except CheckFailed as failure:
        raise CheckFailed(f"{what}: {failure}") from failure.__cause__


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Without diffusers' progress bars and warnings, which are not the check's result."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
