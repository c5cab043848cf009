"""The processes of a launcher, and what they do together."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from hdzoo.errors import HDZooError

# One process may wait for another's last piece of work as long as that takes.
LONGEST_WAIT = timedelta(days=30)


def all_processes() -> PartialState:
    """The processes of the launcher, or this one alone."""
    # Accelerate joins processes on CPUs only if it is told that they are to be used.
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, timeout=LONGEST_WAIT)


def in_first_process(state: Any, action: Callable[[], Any]) -> None:
    """Does something in the first process; the others wait, and fail as it fails.

    Args:
        state: of the processes.
        action: what to do.
    """
    refusal: list[HDZooError | None] = [None]
    if state.is_main_process:
        try:
            action()
        except HDZooError as error:
            refusal = [error]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise refusal[0]


def fail_together(failure: Exception | None) -> None:
    """Waits for all processes, and fails in each if one has failed.

    Args:
        failure: of this process, which it fails with; the others say what it was.
    """
    failures = gather_object([failure and f"{type(failure).__name__}: {failure}"])
    if failure is not None:
        raise failure
    found = [f"process {i} failed: {text}" for i, text in enumerate(failures) if text]
    if found:
        raise HDZooError("; ".join(found))
