"""The exceptions that hdzoo raises on purpose."""

from hdzoo.text import plain


class HDZooError(ValueError):
    """A mistake that the caller can mend.

    The message is for people: what was wrong, the value, what is allowed, what to do next. The
    command line prints it alone and exits with code 2. Names of other people's making are often a
    part of it, so control characters in it are spelt out.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(plain(message))


class UnloadableError(HDZooError, OSError):
    """A model that is not there, or cannot be read: an `OSError`, as diffusers raises it."""


class StoppedError(HDZooError):
    """Work that a signal has ended, and that can go on; the message says how.

    Args:
        message: for people.
        signal: the number of the signal; the command line exits with 128 more.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = int(signal)
