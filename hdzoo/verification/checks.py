"""How a check of a sampler ends: a finding, a failure, or nothing to say."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils import logging

from hdzoo.errors import HDZooError


class CheckFailed(AssertionError):  # noqa: N818 - a check fails; nothing is in error
    """A sampler breaks the contract; the message says how."""

    names_options = False


class NotApplicable(Exception):  # noqa: N818 - nothing is in error
    """A check has nothing to say on a sampler; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What a check found: one line for people, and the numbers."""

    message: str
    numbers: dict[str, Any] = field(default_factory=dict)


def same_bits(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Raises a `CheckFailed` unless two states, described by ``what``, have the same bits."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise CheckFailed(f"{what}: one is {short(found)}, the other {short(expected)}")
    if not torch.equal(found, expected):
        gap = (found.double() - expected.double()).abs().max()
        raise CheckFailed(f"{what} differ by up to {gap:.3g}; they must be the same, bit for bit")


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


def called(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call as a person would write it."""
    given = [short(value) for value in args]
    given += [f"{key}={short(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(given)})"


def short(value: Any) -> str:
    """A value as a person would write it, tensors and long lists in short."""
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 and not value.is_meta:
            return f"{value.item():g}"
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, torch.Generator):
        return "<generator>"
    if isinstance(value, list) and value and isinstance(value[0], torch.Generator):
        return f"<{len(value)} generators>"
    if isinstance(value, list) and len(value) > 6:
        return f"[{short(value[0])}, ..., {short(value[-1])}]"
    return repr(value)


def listed(options: Mapping[str, Any]) -> str:
    """Options as a person would write them."""
    return ", ".join(f"{name}={short(value)}" for name, value in options.items())


@contextmanager
def on_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Whatever is raised inside but `NotApplicable` becomes a `CheckFailed` that names options."""
    try:
        yield
    except NotApplicable:
        raise
    except Exception as error:
        if isinstance(error, CheckFailed) and error.names_options:
            raise
        named = isinstance(error, HDZooError | CheckFailed)
        kind = "" if named else f"{type(error).__name__}: "
        failure = CheckFailed(f"{kind}{error} [{listed(options)}]")
        failure.names_options = True
        raise failure from (error.__cause__ if isinstance(error, CheckFailed) else error)
