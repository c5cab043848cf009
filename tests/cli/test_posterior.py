"""The command that says how sure a network is of an image."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdzoo import HDPipeline
from hdzoo.catalog import weights_hash
from hdzoo.pipelines.posterior import image_posterior


@pytest.fixture(autouse=True)
def image(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(20, 230, (8, 8), np.uint8)
    Image.fromarray(pixels).save("digit.png")


def test_a_picture_and_its_numbers(run, tiny_model):
    command = ("posterior", tiny_model, "digit.png", "--sigma", 0.5, "--seed", 2, "-k", 2)
    code, out, err = run(*command, "-O", "out.png")
    assert code == 0
    assert out.strip() == "out.png"
    with Image.open("out.png") as drawn:
        assert drawn.format == "PNG"
    written = json.loads(Path("out.json").read_text())
    pipe = HDPipeline.from_pretrained(tiny_model)
    expected = image_posterior(pipe, "digit.png", 0.5, seed=2, num_directions=2).numbers
    for name, value in expected.items():
        if isinstance(value, float | list):
            assert written["numbers"][name] == pytest.approx(value, rel=1e-4), name
        else:
            assert written["numbers"][name] == value
    # The mean, and all 64 products.
    assert written["numbers"]["num_evaluations"] == 65
    assert "65 network evaluations" in err
    made_by = written["made_by"]
    assert made_by["weights_sha256"] == weights_hash(tiny_model)
    told = {key: made_by[key] for key in ("sigma", "seed", "probes", "directions", "image")}
    assert told == {"sigma": 0.5, "seed": 2, "probes": None, "directions": 2, "image": "digit.png"}
    assert {"torch", "diffusers", "scipy", "python"} <= set(made_by["versions"])
    assert made_by["command"].endswith("-k 2 -O out.png")


def test_an_estimate_of_a_noisy_image(run, tiny_model):
    command = ("posterior", tiny_model, "digit.png", "--sigma", 0.5, "--noisy", "--probes", 4)
    code, out, err = run(*command, "-k", 0)
    assert code == 0
    path = Path(out.strip())
    assert path.name.startswith("digit-posterior-sigma0.5-seed0-")
    numbers = json.loads(path.with_suffix(".json").read_text())["numbers"]
    assert numbers["squared_error"] is None
    assert numbers["variances"] == "Hutchinson's estimate, 4 probes"
    assert numbers["trace_standard_error"] > 0
    assert "actual" not in err
    # Another number of probes is another picture.
    assert run(*command[:-1], 5, "-k", 0)[1] != out
