"""Wrong arguments over all public names: each is refused with an `HDZooError`, or has the value
that is stated here. None goes through silently, and no error comes from inside a library."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

import hdzoo
from hdzoo import HDZooError

# ---- options of classes ---------------------------------------------------------------------

THINGS = ["a", "", "1", b"1", [], {}, (), object(), int, 1j, torch.zeros(2), np.zeros(2), [[1.0]]]
NOT_FINITE = [math.nan, math.inf, -math.inf, 10**400, torch.tensor(math.nan), np.float32("inf")]
NO_NUMBER = [*THINGS, None, True, np.bool_(True), torch.tensor(True), torch.tensor(1j)]
NUMBER = [*NO_NUMBER, *NOT_FINITE]
NOT_NEGATIVE = [*NUMBER, -1, -1e-300, torch.tensor(-2)]
POSITIVE = [*NOT_NEGATIVE, 0, 0.0, np.int64(0)]
NOISE = [*POSITIVE, 1e-20, 1e20]
WHOLE = [*POSITIVE, 1.5, 20.0, np.float64(3), torch.tensor(2.0), 10**30]
FLAG = [*THINGS, None, 0, 1, "True", "False", math.nan]
WORD = ["a", "", "SCORE", b"score", 0, 1.5, True, None, [], ["score"], {}, object()]
LEVELS = ["a", 0, 1.0, True, {}, {1.0}, object(), [], (), [0.0], [-1.0], ["a"], [None], [[1.0]]]
LEVELS += [[1.0, 2.0], [1.0, 1.0], [math.nan], [math.inf], [1j], torch.zeros(2), np.eye(2)]
LEVELS += [range(10**8, 0, -1)]
WHOLES = ["a", 0, 1.0, True, {}, object(), [0], [-1], [1.5], ["a"], [None], [[1]], [10**30], [True]]
PIXELS = ["a", 0, 1.0, True, {}, object(), [], [0], [0, 1, 2], [0, 0], [1, 0], [0, math.nan]]
PIXELS += [[0, math.inf], [0, "1"], [-math.inf, 0], [False, True], [-1.7e308, 1.7e308]]


def maybe(values: list[Any]) -> list[Any]:
    """Of an option that may be None."""
    return [value for value in values if value is not None]


NO_STATES = torch.full((2, 2), math.nan)

# What each option may not be, in every class that has it.
WRONG: dict[str, list[Any]] = {
    "add_attention": FLAG,
    "attention_resolutions": WHOLES,
    "base_channels": [*WHOLE, 1, 10**7],
    "batch_size": WHOLE,
    "block_out_channels": [*WHOLES, [], [10**7], [9]],
    "centered": FLAG,
    "channel_multipliers": [*WHOLES, [], [10**7], [1] * 100],
    "chunk_size": WHOLE,
    "churn": NOT_NEGATIVE,
    "churn_max": maybe(NOT_NEGATIVE),
    "churn_min": NOT_NEGATIVE,
    "churn_noise": NOT_NEGATIVE,
    "consistent_with": WORD,
    "correct_steps": WHOLE,
    "data_mean": NUMBER,
    "data_range": PIXELS,
    "data_std": NOISE,
    "denoise": ["a", 1, None, torch.zeros(2), lambda x, sigma: 1, lambda x, sigma: x[:1]],
    "disable_corrector": ["a", 1, {}, object(), [-1], ["a"], [1.5], [math.nan], [True], None],
    "dropout": [*NOT_NEGATIVE, 1, 1.5],
    "embedding": WORD,
    "eta": NOT_NEGATIVE,
    "fir_kernel": ["a", 1, [], [1], [1, 2], [1, 2, 1], [0, 0], [math.nan] * 2, ["a"] * 2],
    "first": ["a", 1, None, [], object(), lambda: 0],
    "fourier_scale": POSITIVE,
    "fraction": [*NUMBER, -0.1, 1.1],
    "friction": POSITIVE,
    "friction_per": WORD,
    "guidance_interval": PIXELS,
    "guidance_scale": [*NUMBER, 0.5, 0, -1, 2],
    "guide_block_out_channels": [*maybe(WHOLES), [], [10**7], [9]],
    "hand_off": WORD,
    "hidden_channels": [*WHOLE, 10**7],
    "held_out_loss": ["a", 1, [], {}, {"sigmas": [1]}, {"sigmas": [1], "loss": []}],
    "in_channels": [*WHOLE, 10**9],
    "layers_per_block": [*WHOLE, 10**6],
    "length": POSITIVE,
    "noise_scale": NOT_NEGATIVE,
    "norm_num_groups": [*WHOLE, 7],
    "num_components": [*WHOLE, 10**15],
    "num_levels": [*WHOLE, 10**9],
    "num_points": [*WHOLE, 10**15],
    "num_res_blocks": [*WHOLE, 10**6],
    "num_steps": [*WHOLE, 10**9],
    "on_evaluation": ["a", 1, torch.zeros(2)],
    "patch_size": [*WHOLE, 3],
    "points_dtype": WORD,
    "prediction_type": WORD,
    "progressive": WORD,
    "progressive_input": WORD,
    "radius": POSITIVE,
    "rank": [*maybe(WHOLE), 10],
    "readout": ["a", "", b"half", True, [], {}, object(), -5, 7, -1e-9, 1.01, math.nan, math.inf],
    "readout_steps": [*WHOLE, 101],
    "rho": [*maybe(NUMBER), 0.5, 0, -1, 1e6],
    "sample_shape": [*WHOLES, [], 3, [10**8, 10**8]],
    "sample_size": [*WHOLE, 10**9],
    "scale_by_sigma": FLAG,
    "second": ["a", 1, None, [], object(), lambda: 0],
    "sigma": NOISE,
    "sigma_data": maybe(POSITIVE),
    "sigma_levels": LEVELS,
    "sigma_max": NOISE,
    "sigma_min": NOISE,
    "sigma_rounding": WORD,
    "solver_order": [*WHOLE, 4],
    "geomspace": [
        *("a", 1, {}, [], [5.0, 0.1], [5.0, 0.1, 4, 4], ["a", 0.1, 4], [0.1, 5.0, 4]),
        *([5.0, 5.0, 4], [5.0, 0.0, 4], [5.0, -0.1, 4], [float("nan"), 0.1, 4]),
        *(
            [5.0, 0.1, float("nan")],
            [5.0, 0.1, 0],
            [5.0, 0.1, 2.5],
            [5.0, 0.1, True],
            [5.0, 0.1, 10**9],
            object(),
        ),
    ],
    "sigmas": LEVELS,
    "skip_rescale": FLAG,
    "snr": [*POSITIVE, 1, 2.0],
    "solver_type": WORD,
    "sphere_dimension": [*WHOLE, 3],
    "start": WORD,
    "step_size": [*maybe(POSITIVE), [0.0], ["a"], []],
    "steps_per_level": [*WHOLE, 10**9],
    "temperature": POSITIVE,
    "thickness": NOT_NEGATIVE,
    "timestep_type": WORD,
    "unet_options": ["a", 1, [1], {"sample_size": "a"}, {"block_out_channels": 3}],
    "variant": WORD,
    "x": ["a", 1, None, [[1.0]], np.zeros((2, 2)), torch.zeros(2), torch.zeros(0, 2), NO_STATES],
}
# Small networks, quickly made where nothing is refused.
SMALL: dict[str, dict[str, Any]] = {
    "NCSNModel": {"base_channels": 2, "sample_size": 8},
    "NCSNv2Model": {"base_channels": 2, "sample_size": 8},
    "NCSNppModel": {
        "base_channels": 4,
        "sample_size": 8,
        "channel_multipliers": (1, 1),
        "num_res_blocks": 1,
    },
    "UNetScoreModel": {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4},
    "NCSNUNetModel": {
        "unet_options": {
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D",) * 2,
            "up_block_types": ("UpBlock2D",) * 2,
            "noise_scale": NOT_NEGATIVE,
            "norm_num_groups": 4,
        }
    },
}
SMALL["PosteriorCovariance"] = {
    "denoise": lambda x, sigma: x / 2,
    "x": torch.zeros(2, 2),
    "sigma": 1.0,
}
SMALL["GreatCircle"] = {
    "first": torch.Generator().manual_seed(1),
    "second": torch.Generator().manual_seed(2),
    "fraction": 0.5,
}
NOT_BUILT_FROM_OPTIONS = {"HDZooError", "HDPipeline", "HDInpaintPipeline"}
CLASSES = {
    name: getattr(hdzoo, name)
    for name in hdzoo.__all__
    if isinstance(getattr(hdzoo, name), type) and name not in NOT_BUILT_FROM_OPTIONS
}
OPTIONS = [
    (name, option)
    for name, thing in CLASSES.items()
    for option in list(inspect.signature(thing.__init__).parameters)[1:]
]


def refused(call: Any) -> str | None:
    """None if an `HDZooError` came of it that says something, else what came."""
    try:
        value = call()
    except HDZooError as error:
        return None if len(str(error)) > 20 else f"says too little: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return f"returned a {type(value).__name__}"


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda value: str(value))
def test_options(name: str, option: str) -> None:
    assert option in WRONG, "say what this option may not be"
    small = SMALL.get(name, {})
    came = {
        repr(value)[:80]: refused(lambda value=value: CLASSES[name](**small | {option: value}))
        for value in WRONG[option]
    }
    assert {value: what for value, what in came.items() if what is not None} == {}


def test_there_are_enough() -> None:
    assert sum(len(WRONG[option]) for _, option in OPTIONS) > 300
