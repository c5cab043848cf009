"""The network, its training, and the pipeline that travels with the package."""

import json
import sys

import numpy as np
import pytest
import torch
from hdzoo_binary import train
from hdzoo_binary.network import BinaryUNetModel
from hdzoo_binary.objective import LOWEST, draw_levels, measure
from hdzoo_binary.signs import flip_probability
from PIL import Image
from typer.testing import CliRunner

from hdzoo import HDPipeline, HDZooError
from hdzoo.cli import app
from hdzoo.hub.resolve import resolve_model

SMALL = {"sample_size": 8, "block_out_channels": (8, 8)}


def signs(*shape: int) -> torch.Tensor:
    return torch.where(
        torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3, 1.0, -1.0
    )


def test_denoiser_of_independent_signs_where_its_network_is_constant() -> None:
    model = BinaryUNetModel(**SMALL)
    with torch.no_grad():
        model.unet.conv_out.weight.zero_()
        model.unet.conv_out.bias.fill_(0.4)
    y = signs(3, 1, 8, 8)
    for sigma in (0.8, 2.0):
        expected = torch.tanh(0.4 + y / sigma**2)
        torch.testing.assert_close(model(y, sigma).sample, expected)
        torch.testing.assert_close(model.denoise(y, sigma), expected)


def test_it_depends_on_the_log_odds_alone() -> None:
    """Four measurements at sigma are one, of their mean, at sigma / 2."""
    model, y = BinaryUNetModel(**SMALL).eval(), signs(2, 1, 8, 8)
    torch.testing.assert_close(model(y, 1.0).sample, model(y / 4, 0.5).sample)
    both = model(torch.cat([y, y]), torch.tensor([1.0, 1.0, 2.0, 2.0])).sample
    torch.testing.assert_close(both[2:], model(y, 2.0).sample)


def test_refusals() -> None:
    with pytest.raises(HDZooError, match="sample_size is 30, which must be a multiple of 4"):
        BinaryUNetModel(sample_size=30)
    with pytest.raises(HDZooError, match=r"block_out_channels is \[12, 24\]"):
        BinaryUNetModel(block_out_channels=(12, 24))
    with pytest.raises(HDZooError, match="sigma_min is 5; it must be below sigma_max"):
        BinaryUNetModel(sigma_min=5.0)
    with pytest.raises(HDZooError, match=r"sample has the shape \(1, 2, 8, 8\)"):
        BinaryUNetModel(**SMALL)(torch.zeros(1, 2, 8, 8), 1.0)


# ---- training ------------------------------------------------------------------------------------


def test_measurements_have_their_law() -> None:
    clean = signs(2, 1, 200, 200)
    sigma, count = torch.tensor([1.0, 0.5]), torch.tensor([1, 4])
    for image, y, m in zip(clean, measure(clean, sigma, count), count.tolist(), strict=True):
        # Each at level 1, in both.
        mean = 1 - 2 * flip_probability(1.0)
        ones = (y * image + 1) / 2 * m
        torch.testing.assert_close(ones, ones.round(), rtol=0, atol=1e-5)
        # Five standard errors of a mean of 40,000, each of at most m signs.
        assert (y * image).mean().item() == pytest.approx(mean, abs=5 / 200 / m**0.5)


def test_levels_are_of_noise_that_turns_signs_over() -> None:
    torch.manual_seed(0)
    sigma, count = draw_levels(2000, 0.3, 3.0)
    assert 0.3 <= sigma.min() < sigma.max() <= 3.0
    assert (sigma * count**0.5).min() >= LOWEST * (1 - 1e-6)
    assert {1, 2, 4, 8, 16} <= set(count.tolist())


def test_a_run_by_the_objective_goes_on_to_the_same_weights(tmp_path) -> None:
    """And learns: without it the loss is 0.693, log 2."""

    def train_to(steps: int, folder: str) -> None:
        arguments = ["train", "--dataset", "digits", "--output-dir", str(tmp_path / folder)]
        arguments += ["--model", "binary-unet", "-m", "block_out_channels=[8, 8]"]
        arguments += ["--objective", "bit-flip-cross-entropy", "--train-batch-size", "16"]
        arguments += ["--max-train-steps", str(steps), "--lr-warmup-steps", "1"]
        arguments += ["-s", "discrete-langevin", "--learning-rate", "0.01"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output

    train_to(8, "stopped")
    train_to(20, "stopped")
    train_to(20, "whole")
    weights = [
        (tmp_path / folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        for folder in ("stopped", "whole")
    ]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "whole" / "training.json").read_text())["loss"] < 0.65


def test_the_objective_needs_log_odds(tmp_path) -> None:
    arguments = ["train", "--dataset", "digits", "--output-dir", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*arguments, "--objective", "bit-flip-cross-entropy"])
    assert done.exit_code != 0
    assert "such as 'binary-unet', and UNetScoreModel gives none" in str(done.exception)


def test_a_run_learns(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--dataset", "digits", "--held-out", "digits", "--output-dir", str(tmp_path)]
    options += ["--max-train-steps", "30", "--train-batch-size", "16"]
    monkeypatch.setattr(sys, "argv", ["train", *options])
    monkeypatch.setattr(train, "HELD_OUT", 50)
    train.main()
    record = json.loads((tmp_path / "training.json").read_text())
    # Where hardly anything is seen of the signs; without learning it is 0.693, log 2.
    assert record["held_out_loss"]["loss"][-1] < 0.65
    assert HDPipeline.from_pretrained(tmp_path).unet.config.sample_size == 8


# ---- what travels with the package ---------------------------------------------------------------


def test_bundled_pipeline() -> None:
    files = [path for path in resolve_model("binary-mnist").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    pipe = HDPipeline.from_pretrained("binary-mnist")
    assert isinstance(pipe.unet, BinaryUNetModel)
    assert pipe.unet.num_parameters() < 500_000


def test_command_draws_binary_pictures(tmp_path) -> None:
    picture = tmp_path / "digits.png"
    arguments = ["sample", "binary-mnist", "-s", "two-stage-discrete-langevin", "-t", "6"]
    arguments += ["-o", "jump=rounding", "-n", "4", "--scale", "1", "-O", str(picture)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert set(np.unique(np.asarray(Image.open(picture)))) == {0, 255}
