"""What a network's recorded denoising loss tells of the variance of its data, noise by noise."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from hdzoo.checks import LEVELS, MAX_LEVELS, Many, Number, Rule, refuse
from hdzoo.errors import HDZooError

# What a sampler is asked for where it needs the loss, by option.
MATCHED = {"hand_off": "variance-matched", "readout": "variance-matched", "consistent_with": "data"}
# For `hdzoo verify`: levels and losses as they are measured, some beyond the ends.
SOME_LOSS = {"sigmas": [0.1, 0.3, 1.0, 3.0], "loss": [0.5, 0.31, 0.12, 0.02]}
_LOSS = Many(Number(0), most=MAX_LEVELS)
_FIELDS: dict[str, Rule] = {"sigmas": LEVELS, "loss": _LOSS}


def held_out_loss(name: str, value: Any) -> Any:
    """The rule of a recorded loss."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != set(_FIELDS):
        refuse(name, value, "a network's record, {'sigmas': [...], 'loss': [...]}, or None")
    found = {key: list(rule(f"{name}[{key!r}]", value[key])) for key, rule in _FIELDS.items()}
    levels, losses = found["sigmas"], found["loss"]
    if len(levels) != len(losses) or len(set(levels)) < len(levels):
        raise HDZooError(
            f"{name} has {len(levels)} noise levels, of which {len(set(levels))} differ, and "
            f"{len(losses)} losses; give one loss for each level, and no level twice"
        )
    return found


def loss_at(record: Mapping[str, Any] | None, sigma: float) -> float:
    r"""The denoising loss per dimension, :math:`c(\sigma) = E |\sigma s + z|^2 / d`, at a level.

    Of an exact score, :math:`E |s|^2 / d = (1 - c) / \sigma^2`, with which the variance of a step
    is known without a look at the batch.

    Args:
        record: noise levels in any order, and the loss at each; linear in :math:`\log \sigma`
            between them, and constant beyond.
        sigma: the level.

    Returns:
        From 0, as on a single point, to 1.

    Raises:
        HDZooError: there is no record.
    """
    if record is None:
        asked = " or ".join(f"{option}={word!r}" for option, word in MATCHED.items())
        raise HDZooError(
            f"{asked} needs the loss that the network was measured to have, and held_out_loss is "
            "None; give held_out_loss=pipe.unet.config.held_out_loss, which hdzoo's trainer "
            "records, or take another"
        )
    points = sorted(zip(record["sigmas"], record["loss"], strict=True))
    place = bisect_right([level for level, _ in points], sigma)
    if place in (0, len(points)):
        return min(1.0, points[max(0, place - 1)][1])
    (low, lower), (high, upper) = points[place - 1 : place + 1]
    share = math.log(sigma / low) / math.log(high / low)
    return min(1.0, lower + share * (upper - lower))
