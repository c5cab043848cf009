"""The one exception that hdzoo raises on purpose."""


class HDZooError(ValueError):
    """A mistake that the caller can mend.

    The message is for people: what was wrong, the value, what is allowed, what to do next. The
    command line prints it alone and exits with code 2.
    """
