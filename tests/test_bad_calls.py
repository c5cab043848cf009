"""Wrong arguments of methods: of pipelines, samplers, networks, targets, and what `wrap` makes.

Each is refused with an `HDZooError`. The rest of a call is right, and is made once as it is.
"""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_bad_inputs import (
    CLASSES,
    FLAG,
    LEVELS,
    NOT_NEGATIVE,
    SMALL,
    WHOLE,
    WORD,
    maybe,
    refused,
)

import hdzoo
from hdzoo import HDInpaintPipeline, HDPipeline

SHAPE = (2, 1, 8, 8)
THINGS = ["a", b"a", 0, 1.0, True, {}, object(), int]
NAN, INFINITE = torch.full(SHAPE, math.nan), torch.full(SHAPE, math.inf)
# Of the shape of all states here.
STATES: list[Any] = [*THINGS, None, [], ["a"], [[1.0]], np.zeros(SHAPE), torch.zeros(3)]
STATES += [torch.zeros(2, 3, 8, 8)]
STATES += [torch.zeros(SHAPE, dtype=dtype) for dtype in (torch.int64, torch.bool, torch.complex64)]
PICTURES = [
    *THINGS,
    [],
    ["a"],
    [None],
    "picture.png",
    torch.zeros(2, 5, 8, 8),
    NAN,
    2 + torch.zeros(SHAPE),
]
PICTURES += [torch.full(SHAPE, -0.1), np.full((2, 8, 8, 1), 255, np.uint8), Image.new("F", (8, 8))]
PICTURES += [[Image.new("L", (8, 8)), Image.new("L", (9, 8))], Image.new("LA", (8, 8), (9, 0))]
GENERATORS = ["a", 0, 7, 1.5, True, {}, object(), [], ["a"], [None, None], [7, 7], torch.zeros(2)]
GENERATORS += [
    np.random.default_rng(0),
    torch.Generator,
    [torch.Generator()],
    [torch.Generator()] * 3,
]
CALLBACKS = ["a", 0, 1, True, {}, [], object()]
NAMES = ["latents", "", 0, 1.5, True, object(), [1], [None], ["score", "x"], {"latents": 1}]
SIGMAS = [*(one for one in LEVELS if not (isinstance(one, list) and one == [1.0, 1.0])), [1e30]]
DEVICES = ["a", "", 1.5, [], {}, object(), "cuda:99", "cpu:x"]
TIMES = ["a", b"a", {}, [], object(), 1j, math.nan, math.inf, -1.0, 0.0, 1e30, np.zeros(3)]
TIMES += [
    torch.zeros(3),
    torch.tensor(math.nan),
    torch.zeros(2, 2),
    torch.tensor(True),
    torch.tensor(1j),
]
PATHS = [
    "",
    "  ",
    None,
    0,
    1.5,
    True,
    [],
    {},
    b"x",
    object(),
    "nowhere",
    "a/b/c",
    "/no/such/folder",
]
PATHS += ["x" * 5000, "a\0b", "../x/y/z", "\x1b[2J"]
# A folder that would be written.
FOLDERS = ["", "  ", None, 0, 1.5, True, [], {}, b"x", object(), "a\0b", "x" * 5000, "/dev/null/x"]


@functools.cache
def sampler() -> Any:
    made = hdzoo.AnnealedLangevinSampler(2.0, num_levels=4, prediction_type="sample")
    made.set_timesteps(4)
    return made


@functools.cache
def network(name: str = "UNetScoreModel") -> Any:
    torch.manual_seed(0)
    options = SMALL[name] | ({} if name == "NCSNUNetModel" else {"in_channels": 1})
    return CLASSES[name](**options).eval()


@functools.cache
def target(name: str) -> Any:
    made = {
        "GaussianMixtureScore": lambda cls: cls.from_components([[0.0, 1.0]], 0.1),
        "EmpiricalScore": lambda cls: cls.from_points([[0.0, 1.0], [1.0, 0.0]]),
    }
    return made.get(name, lambda cls: cls())(getattr(hdzoo, name))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def thing(name: str) -> Any:
    """What methods are called of, made once."""
    match name:
        case "HDPipeline":
            return quiet(HDPipeline(network(), sampler()))
        case "HDInpaintPipeline":
            return quiet(HDInpaintPipeline(network(), sampler()))
        case "wrap":
            return hdzoo.wrap(
                lambda x, sigma: 0 * x, sigma_min=0.01, sigma_max=9.0, sample_shape=SHAPE[1:]
            )
        case _ if name in NETWORKS:
            return network(name)
        case _ if name.endswith("Sampler"):
            made = getattr(hdzoo, name)(prediction_type="sample")
            made.set_timesteps()
            return made
    return target(name)


NETWORKS = tuple(name for name in SMALL if name.endswith("Model"))
DRAW = {
    "batch_size": 2,
    "num_inference_steps": 4,
    "output_type": "latent",
}
DRAWN: dict[str, list[Any]] = {
    "num_inference_steps": maybe(WHOLE),
    "generator": GENERATORS,
    "latents": [*maybe(STATES), NAN, INFINITE, torch.zeros(2, 1, 8, 7), torch.zeros(0, 1, 8, 8)],
    "sigmas": [*SIGMAS, "1.0"],
    "output_type": maybe(WORD),
    "return_dict": FLAG,
    "callback_on_step_end": CALLBACKS,
    "callback_on_step_end_tensor_inputs": NAMES,
    "class_labels": [0, [0, 1], "a", [], object(), torch.zeros(2)],
}
STEP = {
    "model_output": torch.zeros(SHAPE),
    "timestep": 2.0,
    "sample": torch.zeros(SHAPE),
}
NETWORK = {"sample": torch.zeros(SHAPE), "timestep": 1.0}
POINTS = {"x": torch.zeros(5, 2), "sigma": 1.0}
TARGETS = ("GaussianMixtureScore", "EmpiricalScore", "LaplaceScore", "SegmentScore", "SphereScore")
NO_POINTS = [*THINGS, None, [], ["a"], [[1.0, 1.0]], np.zeros((5, 2)), torch.zeros(5, 9)]
NO_POINTS += [
    torch.zeros(2),
    torch.tensor(0.0),
    *(torch.zeros(5, 2, dtype=t) for t in (torch.int64, torch.bool, torch.complex64)),
]
LEVEL = [*(one for one in TIMES if not (isinstance(one, float) and one == 0)), "1"]
# What is exact at any noise level.
EXACT = [one for one in LEVEL if not (isinstance(one, float) and one == 1e30)]

# What is called, of what, with which arguments; and what each may not be.
CALLS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, list[Any]]]] = {
    "__call__": (
        ("HDPipeline",),
        DRAW,
        DRAWN
        | {"batch_size": maybe(WHOLE), "image": PICTURES, "samples_every": [*maybe(WHOLE), 5]},
    ),
    "__call__ of inpainting": (
        ("HDInpaintPipeline",),
        {"image": torch.zeros(SHAPE), "mask_image": torch.ones(SHAPE) * (torch.arange(8) < 4)}
        | {name: DRAW[name] for name in ("num_inference_steps", "output_type")},
        DRAWN
        | {
            "image": [*PICTURES, None],
            "mask_image": [*PICTURES, None],
            "start_image": PICTURES,
            "num_samples_per_image": WHOLE,
            "known_noise": WORD,
        },
    ),
    "save_pretrained": (
        ("HDPipeline", "UNetScoreModel", "AnnealedLangevinSampler", "GaussianMixtureScore"),
        {},
        {"save_directory": FOLDERS},
    ),
    "from_pretrained": (
        ("HDPipeline", "AnnealedLangevinSampler", "UNetScoreModel", "GaussianMixtureScore"),
        {},
        {"pretrained_model_name_or_path": PATHS},
    ),
    "set_timesteps": (
        ("AnnealedLangevinSampler", "HalfDenoisingSampler", "HeunSampler", "MALASampler"),
        {},
        {
            "num_inference_steps": maybe(WHOLE),
            "sigmas": SIGMAS,
            "timesteps": SIGMAS,
            "device": DEVICES,
        },
    ),
    "step": (
        ("AnnealedLangevinSampler", "MALASampler"),
        STEP,
        {
            "model_output": STATES,
            "timestep": [*LEVEL, 0.0],
            "sample": STATES,
            "generator": GENERATORS,
            "return_dict": FLAG,
            "nobody": [1],
        },
    ),
    "add_noise": (
        ("AnnealedLangevinSampler", "HalfDenoisingSampler"),
        {
            "original_samples": torch.zeros(SHAPE),
            "noise": torch.zeros(SHAPE),
            "timesteps": torch.ones(1),
        },
        {"original_samples": STATES, "noise": STATES, "timesteps": LEVEL},
    ),
    "forward": (NETWORKS, NETWORK, {"sample": STATES, "timestep": LEVEL}),
    **{
        f"{method} of points": (TARGETS, POINTS, {"x": NO_POINTS, "sigma": EXACT})
        for method in ("score", "log_density", "denoise", "posterior_covariance")
    },
    "forward of points": (
        TARGETS,
        {"sample": torch.zeros(5, 2), "timestep": 1.0},
        {"sample": NO_POINTS, "timestep": EXACT, "extras": ["a", ["a"], [1], 1, object()]},
    ),
    "sample": (
        TARGETS,
        {"num_samples": 3},
        {"num_samples": [*WHOLE], "generator": GENERATORS, "sigma": NOT_NEGATIVE},
    ),
    "denoise": (
        (*NETWORKS, "wrap"),
        {"x": torch.zeros(SHAPE), "sigma": 1.0},
        {"x": STATES, "sigma": [*LEVEL, 0.0]},
    ),
}


# Those that need no folder.
MADE = [method for method in CALLS if not method.endswith("_pretrained")]


def calls():
    for method, (names, _, wrong) in CALLS.items():
        for name in names:
            for argument in wrong:
                yield method, name, argument


# Of those whose place is in a chain.
CHAINED = ("step", "add_noise")


def right_call(method, name):
    """The method, and arguments that it takes."""
    right, of = dict(CALLS[method][1]), thing(name)
    if method in CHAINED:
        of.set_timesteps()
    if method == "step":
        right["timestep"] = of.timesteps[0]
    if name in TARGETS:
        points = of.sample(5, torch.Generator().manual_seed(0))
        right |= {key: points for key in ("x", "sample") if key in right}
    if method == "denoise" and getattr(of, "sigmas", None) is not None:
        right["sigma"] = float(of.sigmas[0])
    return getattr(of, method.partition(" ")[0]), right


@pytest.fixture(autouse=True)
def nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("method", "name"), [(m, n) for m in MADE for n in CALLS[m][0]])
def test_a_right_call_is_none_of_them(method, name):
    call, right = right_call(method, name)
    call(**right)


@pytest.mark.parametrize(("method", "name", "argument"), list(calls()))
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_argument_is_refused(method, name, argument, tmp_path):
    came = {}
    for value in CALLS[method][2][argument]:
        call, right = right_call(method, name)
        came[repr(value)[:80]] = refused(functools.partial(call, **right | {argument: value}))
    assert {value: what for value, what in came.items() if what is not None} == {}
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough():
    assert sum(len(CALLS[method][2][argument]) for method, _, argument in calls()) > 1000
