"""What the options of samplers may be, for `hdzoo.checks.checked`."""

from collections.abc import Sequence
from typing import Any

from hdzoo.checks import (
    MAX_LEVELS,
    NOISE_LEVEL,
    POSITIVE,
    Many,
    Maybe,
    Number,
    OneOf,
    Rule,
    Whole,
    refuse,
)
from hdzoo.errors import HDZooError
from hdzoo.samplers.held_out import held_out_loss
from hdzoo.samplers.ladders import EVALUATIONS, RHO, check_ladder
from hdzoo.scores.clocks import TIMESTEP_TYPES
from hdzoo.scores.conversions import PREDICTION_TYPES

READOUTS = {"half": 0.5, "full": 1.0}
# Those that are known once the step size, the network's loss, or its derivative is.
DERIVED_READOUTS = ("alpha", "half-corrected", "variance-matched", "matrix")
# Of a matrix read-out, each of which takes the memory of two states.
MOST_PRODUCTS = 100
STARTS = ("normal", "uniform", "gaussian")


def ladder(name: str, value: Any) -> Any:
    """The rule of explicit ladders."""
    if hasattr(value, "__len__") and len(value) > MAX_LEVELS:
        raise HDZooError(f"{name} has {len(value):,} noise levels; at most {MAX_LEVELS:,}")
    return check_ladder(value)


def geomspace(name: str, value: Any) -> Any:
    """The rule of geometric ladders: first level, last level, how many."""
    allowed = "three numbers: the first noise level, a lower last one, and how many"
    try:
        first, last, number = Many(POSITIVE, 3, 3)(name, value)
        # An array has it as a float.
        whole = int(number) if number == number // 1 else number
        found = [NOISE_LEVEL(name, first), NOISE_LEVEL(name, last), EVALUATIONS(name, whole)]
    except HDZooError:
        refuse(name, value, allowed)
    return found if found[0] > found[1] else refuse(name, value, allowed)


def step_size(name: str, value: Any) -> Any:
    """The rule of step sizes on a ladder."""
    if value is None or (isinstance(value, str) and value == "ncsnv2"):
        return value
    try:
        if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
            return Many(POSITIVE, most=MAX_LEVELS)(name, value)
        return POSITIVE(name, value)
    except HDZooError:
        allowed = "a number above 0, a list with one for each noise level, 'ncsnv2', or None"
        refuse(name, value, allowed)


def readout(name: str, value: Any) -> Any:
    """The rule of read-outs."""
    if value is None or (isinstance(value, str) and value in (*DERIVED_READOUTS, *READOUTS)):
        return value
    try:
        return Number(0, 1)(name, value)
    except HDZooError:
        words = ", ".join(map(repr, dict.fromkeys(("alpha", *READOUTS, *DERIVED_READOUTS))))
        refuse(name, value, f"None, {words}, or a number from 0 to 1")


# Options that all samplers have...
NETWORK_RULES: dict[str, Rule] = {
    "prediction_type": OneOf(PREDICTION_TYPES),
    "timestep_type": OneOf(TIMESTEP_TYPES),
    "sigma_data": Maybe(POSITIVE),
}
# ... those on a ladder...
LADDER_RULES: dict[str, Rule] = {
    **NETWORK_RULES,
    "sigma_max": NOISE_LEVEL,
    "sigma_min": NOISE_LEVEL,
    "geomspace": Maybe(geomspace),
    "num_levels": Whole(1, MAX_LEVELS),
    "sigmas": Maybe(ladder),
    "steps_per_level": EVALUATIONS,
    "step_size": step_size,
    "start": OneOf(STARTS),
    "held_out_loss": held_out_loss,
    "rho": RHO,
    "num_steps": EVALUATIONS,
}
# ... those on a ladder whose read-out is one...
READOUT_RULES: dict[str, Rule] = {"readout": readout, "readout_steps": Whole(1, MOST_PRODUCTS)}
# ... of which `hdzoo verify` tries these: as many products as its data have dimensions, with which
# the matrix read-out is exact...
READOUT_CHOICES: dict[str, Sequence[Any]] = {
    "readout": (None, *READOUTS, *DERIVED_READOUTS, 0.625),
    "readout_steps": (3,),
}
# ... and those at a single level.
SINGLE_LEVEL_RULES: dict[str, Rule] = {
    **NETWORK_RULES,
    "sigma": NOISE_LEVEL,
    "step_size": Maybe(POSITIVE),
    "num_steps": EVALUATIONS,
}
