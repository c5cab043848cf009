"""What one visitor may ask for, so that all are served."""

from hdzoo.checks import SEED, OneOf, Whole
from hdzoo.errors import HDZooError
from hdzoo.text import counted

MOST_SAMPLERS = 4
MOST_IMAGES = 36
MOST_EVALUATIONS = 500
# Network evaluations of one image each, of all samplers of one request.
MOST_WORK = 40_000
MOST_CHAINS = 500
MOST_TYPED = 2000
MODEL_CACHE = 2
# Visits that the server remembers, about 0.2 MB each; one before that has to reload the page.
MOST_VISITS = 400

IMAGES = Whole(1, MOST_IMAGES)
EVALUATIONS = Whole(1, MOST_EVALUATIONS)
CHAINS = Whole(2, MOST_CHAINS)


def whole(name: str, value: object) -> object:
    """A number from a field of the page, which may come as 3.0; None is an empty field."""
    if value is None:
        raise HDZooError(f"{name} is empty; give a number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_seed(name: str, value: object) -> int:
    """A seed from a field of the page."""
    return SEED(name, whole(name, value))


def check_samplers(names: object, known: list[str], most: int = MOST_SAMPLERS) -> list[str]:
    """One sampler or several, each once."""
    if not isinstance(names, list | tuple) or not names:
        raise HDZooError(f"no sampler is chosen; choose 1 to {most}")
    if len(names) > most:
        raise HDZooError(f"{len(names)} samplers are chosen; choose at most {most}")
    if len(set(map(str, names))) < len(names):
        raise HDZooError("a sampler is chosen twice; choose each once")
    one = OneOf(tuple(known))
    return [one("sampler", name) for name in names]


def check_work(evaluations: int) -> None:
    """Refuses what would keep others waiting for long.

    Args:
        evaluations: of the network, one image each, of the whole request.
    """
    if evaluations > MOST_WORK:
        raise HDZooError(
            f"that is {counted(evaluations, 'network evaluation')} in all; this page makes at most "
            f"{MOST_WORK:,} at a time. Draw fewer images, with fewer evaluations or samplers; on "
            "your own machine `hdzoo sample` has no such limit"
        )
