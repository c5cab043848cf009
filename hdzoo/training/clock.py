"""The time of a training run: what this call may take, and what it will."""

import time
from datetime import timedelta

from hdzoo.text import counted

# A call's first steps choose kernels and take memory: they are slower than the others.
WARM_STEPS = 3
# How much is timed before anything is said of the time left: whichever comes first.
TIMED_STEPS, TIMED_SECONDS = 20, 60.0


class Clock:
    """Runs from the moment it is made.

    Args:
        step: that the call starts from.
        last: step of the run.
        max_train_minutes: after which no step of the call is begun; None for no end.
    """

    def __init__(self, step: int, last: int, max_train_minutes: float | None = None) -> None:
        self.begin = time.monotonic()
        self.last, self.max_train_minutes = last, max_train_minutes
        self.warm, self.warm_at = step, self.begin
        self.warm_step = step + WARM_STEPS
        self._spoken = False

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.begin

    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.max_train_minutes is not None and self.seconds >= 60 * self.max_train_minutes

    def notice(self, step: int) -> str | None:
        """What is to be said of the time left: once, as soon as enough steps are timed.

        Args:
            step: that is done.
        """
        if step <= self.warm_step:
            self.warm, self.warm_at = step, time.monotonic()
        seconds = time.monotonic() - self.warm_at
        early = step - self.warm < TIMED_STEPS and seconds < TIMED_SECONDS
        if self._spoken or early:
            return None
        self._spoken = True
        return self.time_left(step)

    def time_left(self, step: int) -> str | None:
        """How long the steps that are left take, and how many of them there is time for.

        Args:
            step: that is done, of this call.

        Returns:
            None if no step is left, or none is timed yet.
        """
        if step in (self.warm, self.last):
            return None
        each = (time.monotonic() - self.warm_at) / (step - self.warm)
        left = timedelta(seconds=round(each * (self.last - step)))
        text = f"about {left} for the {counted(self.last - step, 'step')} left"
        if self.max_train_minutes is None:
            return text
        fit = step + max(0, round((60 * self.max_train_minutes - self.seconds) / each))
        if fit < self.last:
            text += f"; max_train_minutes {self.max_train_minutes:g} is over at about step {fit:,}"
        return text
