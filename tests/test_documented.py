"""Every hook, and all that a sampler may override, is documented."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from hdzoo.plugins import HookSpecs
from hdzoo.samplers.base import Move, Sampler
from hdzoo.samplers.families import LadderSampler, SingleLevelSampler
from hdzoo.samplers.noise import Noise
from hdzoo.verification.laws import Gaussian, exact_law

GUIDE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
HOOKS = [name for name in vars(HookSpecs) if name.startswith("hdzoo_")]
OWN = [cls for cls in Sampler.__mro__ if cls.__module__.startswith("hdzoo.")]
METHODS = {
    name: thing
    for cls in OWN
    for name, thing in vars(cls).items()
    if not name.startswith("_") and (callable(thing) or isinstance(thing, property | classmethod))
}
# Those that diffusers' pipelines call, and those that samplers use: the same in every sampler.
FIXED = {
    "add_noise",
    "begin_index",
    "check_precision",
    "compatibles",
    "from_config",
    "from_pretrained",
    "from_ve",
    "index_for_timestep",
    "init_noise_sigma",
    "register_to_config",
    "save_pretrained",
    "scale_model_input",
    "set_begin_index",
    "set_timesteps",
    "step",
    "step_index",
}


def in_a_table(name: str) -> bool:
    """Whether the guide has it in the first cell of a row."""
    return re.search(rf"^\| [^|]*`{name}`[^|]* \|", GUIDE, re.MULTILINE) is not None


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks(hook):
    assert inspect.getdoc(getattr(HookSpecs, hook))
    assert in_a_table(hook)


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_a_sampler(name):
    if name in FIXED:
        return
    documented = [vars(cls)[name] for cls in OWN if name in vars(cls)]
    assert any(inspect.getdoc(getattr(thing, "__func__", thing)) for thing in documented)
    assert in_a_table(name)


def test_class_attributes_of_a_sampler():
    for name, value in vars(Sampler).items():
        if not name.startswith("_") and name not in METHODS and name not in ("order", "config"):
            assert in_a_table(name), f"{name} = {value!r}"


def examples():
    """The samplers that the guide writes down."""
    found = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    known = LadderSampler, SingleLevelSampler, Move, Noise
    names = {thing.__name__: thing for thing in known} | {"torch": torch}
    for code in found:
        exec(code, names)
        yield names["MySampler"]


def test_the_examples_of_the_guide_are_right():
    chain, remembers = examples()
    assert chain(sigma_min=0.5, num_levels=3).moves[-1] == Move(0.5, 0.25, 0.0)
    # Averaged noise leaves no bias on Gaussian data; of where the walk began
    # (1 - 0.2 / 1.25)^300 < 1e-22 is left.
    walk = remembers(sigma=0.5, step_size=0.2)
    walk.set_timesteps(300)
    law = exact_law(walk, Gaussian.of([2.0], [1.0]), Gaussian.of([0.0], [0.0]))
    assert law.mean == pytest.approx([2.0], rel=1e-12)
    assert law.covariance == pytest.approx(1.25, rel=1e-12)
