"""The topology of an NCSN++ network, read off the names and shapes of its published weights."""

import re
from collections import defaultdict
from typing import Any

from torch import Tensor

from hdzoo.conversion.checkpoint import Weights
from hdzoo.errors import HDZooError

Part = dict[str, Tensor]

_KNOWN = (
    "hdzoo knows NCSN++ with resblock_type 'biggan', a FIR filter, progressive 'none' or "
    "'output_skip', and progressive_input 'none', 'input_skip' or 'residual'"
)
_BLOCK = ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1")


def _pairs(*layers: str) -> frozenset[str]:
    return frozenset(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


# What the parts of the list ``all_modules`` hold.
_HOLD = {
    "fourier": frozenset({"W"}),
    "layer": frozenset({"weight", "bias"}),
    "block": _pairs(*_BLOCK),
    "block with shortcut": _pairs(*_BLOCK, "Conv_2"),
    "attention": _pairs("GroupNorm_0") | {f"NIN_{i}.{kind}" for i in range(4) for kind in "Wb"},
    "residual": _pairs("Conv2d_0"),
    "input_skip": _pairs("Conv_0"),
}
_LETTERS = {"fourier": "F", "attention": "A", "residual": "D", "input_skip": "I"}
_LAYER_LETTERS = {1: "N", 2: "L", 4: "C"}


def read_topology(weights: Weights) -> dict[str, Any]:
    """Finds the options of an `NCSNppModel` that has such weights.

    The list is read as a word with a letter for each part: F Fourier features, L linear layer, C
    convolution, B residual block, R one that halves or doubles the image (it keeps the channels and
    has a shortcut all the same), A attention, I and D what adds the picture, N norm.

    Args:
        weights: under the published names.

    Returns:
        Options of `NCSNppModel`, and ``attention_levels``, the levels that have attention, in the
        place of ``attention_resolutions``.

    Raises:
        HDZooError: a part is unknown or incomplete, or the parts do not make such a network.
    """
    parts = _parts(weights)
    word = "".join(_letter(n, part) for n, part in enumerate(parts))
    num_halvings, num_levels = word.count("R") // 2, word.count("R") // 2 + 1
    begin = re.match(rf"F?LLC((?:(?:BA?)+R[ID]?){{{num_halvings}}})(?=B)", word)
    # Each level has n blocks down and n + 1 up; in between there are two.
    num_blocks, rest = divmod(word.count("B") - 2 - num_levels, 2 * num_levels)
    if begin is None or rest or num_blocks < 1:
        raise HDZooError(
            f"the {len(parts)} parts of this checkpoint, {word}, do not follow one another as in "
            f"an NCSN++ network; {_KNOWN}"
        )
    base_channels, in_channels = parts[begin.start(1) - 1]["weight"].shape[:2]
    levels = list(re.compile(r"((?:BA?)+)R[ID]?").finditer(word, begin.start(1), begin.end(1)))
    starts = [level.start() for level in levels] + [begin.end(1)]
    widths = [parts[n]["Conv_0.weight"].shape[0] for n in starts]
    uneven = [width for width in widths if width % base_channels]
    if uneven:
        raise HDZooError(
            f"a level of this checkpoint has {uneven[0]} channels, no multiple of the "
            f"{base_channels} of its first convolution; {_KNOWN}"
        )
    return {
        "in_channels": in_channels,
        "base_channels": base_channels,
        "channel_multipliers": [width // base_channels for width in widths],
        "num_res_blocks": num_blocks,
        "attention_levels": [i for i, n in enumerate(starts) if word[n + 1] == "A"],
        "embedding": "fourier" if word[0] == "F" else "positional",
        "progressive": "output_skip" if word.count("C") > 2 else "none",
        "progressive_input": (
            "residual" if "D" in word else "input_skip" if "I" in word else "none"
        ),
    }


def _parts(weights: Weights) -> list[Part]:
    found: dict[int, Part] = defaultdict(dict)
    for key, value in weights.items():
        if match := re.fullmatch(r"all_modules\.(\d+)\.(.+)", key):
            found[int(match[1])][match[2]] = value
    for n in range(len(found)):
        if n not in found:
            raise HDZooError(f"the checkpoint lacks all weights of all_modules.{n}; {_KNOWN}")
    return [found[n] for n in range(len(found))]


def _letter(n: int, part: Part) -> str:
    keys = part.keys()
    kind = min(_HOLD, key=lambda kind: len(_HOLD[kind] ^ keys))
    problems = [f"lacks all_modules.{n}.{key}" for key in sorted(_HOLD[kind] - keys)]
    problems += [f"has all_modules.{n}.{key} besides" for key in sorted(keys - _HOLD[kind])]
    if problems:
        raise HDZooError(f"the checkpoint {' and '.join(problems[:5])}; {_KNOWN}")
    ndim = {key: value.ndim for key, value in part.items()}
    if kind == "layer" and ndim["weight"] in _LAYER_LETTERS:
        return _LAYER_LETTERS[ndim["weight"]]
    if kind.startswith("block") and ndim["Conv_0.weight"] == 4:
        out_channels, in_channels = part["Conv_0.weight"].shape[:2]
        return "R" if kind != "block" and in_channels == out_channels else "B"
    if kind in _LETTERS:
        return _LETTERS[kind]
    raise HDZooError(
        f"the weights of all_modules.{n} have the shapes "
        f"{', '.join(str(list(value.shape)) for value in part.values())}, which no part of NCSN++ "
        f"has; {_KNOWN}"
    )
