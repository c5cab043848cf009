"""`--backend`: the same images by another program, said in what is written beside them."""

import json

import numpy as np
import pytest
from PIL import Image

from hdzoo import HDZooError
from hdzoo.generation.manifest import MANIFEST
from hdzoo.leaderboard.settings import Settings


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def drawn(run, *call):
    """The pixels of a picture, and what made it."""
    code, out, err = run(*call)
    assert code == 0, err
    with Image.open(out.strip()) as image:
        return np.asarray(image, int), json.loads(image.text["hdzoo"])


@pytest.mark.parametrize("command", ["sample", "inpaint"])
def test_a_picture_is_the_same_and_says_by_what(run, tiny_model, tmp_path, command):
    pictures = []
    if command == "inpaint":
        rng = np.random.default_rng(0)
        for name in ("image.png", "mask.png"):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / name)
            pictures.append(name)
    call = command, tiny_model, *pictures, "-n", 3, "--scale", 1
    pixels, made_by = drawn(run, *call)
    others, other = drawn(run, *call, "--backend", "onnxruntime")
    assert made_by["backend"] == "torch"
    assert other.pop("backend").startswith("onnxruntime 1.")
    assert other == {key: value for key, value in made_by.items() if key != "backend"}
    # Where an image lies at the middle of two grey levels, a rounding takes it to the other.
    assert np.abs(others - pixels).max() <= 1
    assert (others == pixels).mean() > 0.98
    assert pixels.std() > 10


def test_a_set_says_by_what(run, tiny_model, tmp_path):
    call = "generate", tiny_model, "-n", 4, "--chunk-size", 2, "-O", tmp_path / "set"
    code, _, err = run(*call, "--backend", "onnxruntime")
    assert code == 0, err
    manifest = json.loads((tmp_path / "set" / MANIFEST).read_text())
    assert manifest["backend"].startswith("onnxruntime 1.")
    code, _, err = run(*call)
    assert code == 2
    assert "backend was 'onnxruntime 1" in err
    assert "is 'torch'" in err


def test_a_network_that_does_not_go_with_it_is_one_message(run):
    code, out, err = run("sample", "energy-mnist", "-n", 1, "-t", 4, "--backend", "onnxruntime")
    assert (code, out) == (2, "")
    assert "EnergyModel is an energy, whose score is a gradient" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "tpu"}, "unknown backend 'tpu'; allowed are torch, onnxruntime"),
        ({"backend": "onnxruntime", "dtype": "bf16"}, "dtype is 'bfloat16'; ONNX Runtime computes"),
    ],
)
def test_a_comparison_refuses_before_it_begins(given, message):
    assert Settings(backend="onnxruntime").drawing["backend"] == "onnxruntime"
    with pytest.raises(HDZooError, match=message):
        Settings(**given)
