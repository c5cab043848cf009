"""Ctrl-C and SIGTERM, as a wish that is granted at the end of a step; and wishes of several."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator

# Steps after which several processes ask each other, since that makes a device wait.
AGREE_EVERY = 10


class Interrupts:
    """Notes signals while it is entered; a second Ctrl-C ends the process as ever.

    Outside the main thread nothing can be noted, and a signal that is ignored stays so.

    Attributes:
        signal: the one that has come.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that decodes images has inherited this; the run itself will end it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        # A launcher sends SIGTERM after a Ctrl-C that all have got.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


def agreed(accelerator: Accelerator, step: int, *wishes: bool) -> list[bool]:
    """Which wishes any process has: the same answer in every one.

    Args:
        accelerator: of the run.
        step: that is done.
        *wishes: of this process.
    """
    if accelerator.num_processes == 1:
        return list(wishes)
    if step % AGREE_EVERY:
        return [False] * len(wishes)
    counts = torch.tensor(wishes, dtype=torch.float32, device=accelerator.device)
    return [bool(count > 0) for count in accelerator.reduce(counts, "sum")]
