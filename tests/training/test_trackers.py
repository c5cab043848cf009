"""What a run shows in a tracker."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import tracking
from accelerate.utils import LoggerType
from PIL import Image
from training_runs import lines, run, with_config

from hdzoo.errors import HDZooError, StoppedError
from hdzoo.images.sources import load_images
from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.training import run as runs
from hdzoo.training import trainer

SAMPLER = {"sigma_max": 5, "sigma_min": 0.1, "num_levels": 4, "prediction_type": "sample"}
SHORT = with_config(max_train_steps=2)


def test_tensorboard_has_all_that_a_run_says(tmp_path, digits, monkeypatch, at_step, kill):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(trainer, "GRID_EVALUATIONS", 8)
    config, losses = with_config(max_train_steps=50, train_batch_size=2), []
    options = {
        "held_out": load_images("digits", "test").select(range(20)),
        "held_out_every": 20,
        "sample_every": 50,
        "scheduler": AnnealedLangevinSampler(**SAMPLER),
    }
    inner = runs.Run.loss

    def recorded(*args):
        losses.append(inner(*args))
        return losses[-1]

    monkeypatch.setattr(runs.Run, "loss", recorded)
    at_step(25, kill)
    with pytest.raises(StoppedError):
        run(tmp_path, digits, config, checkpoint_every=20)
    del losses[20:]
    run(tmp_path, digits, config, tracker="tensorboard", **options)
    assert len(losses) == 50
    log = EventAccumulator(str(tmp_path / "logs" / "hdzoo"), {"images": 0}).Reload()
    (loss,), (rate,) = log.Scalars("loss"), log.Scalars("lr")
    assert loss.step == rate.step == 50
    # Sums of 50 float32 numbers.
    assert loss.value == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert rate.value == pytest.approx(2e-3)

    (line,) = (line for line in lines(tmp_path) if "held_out_loss" in line)
    expected = dict(zip(*line["held_out_loss"].values(), strict=True))
    for sigma, value in expected.items():
        (found,) = log.Scalars(f"held_out_loss/{sigma:g}")
        assert (found.step, found.value) == (40, pytest.approx(value, rel=1e-6))
    (mean,) = log.Scalars("held_out_loss/mean")
    assert mean.value == pytest.approx(np.mean(list(expected.values())), rel=1e-6)

    (shown,) = log.Images("samples")
    assert shown.step == 50
    (tmp_path / "shown.png").write_bytes(shown.encoded_image_string)
    with (
        Image.open(tmp_path / "shown.png") as picture,
        Image.open(tmp_path / "samples" / "000050.png") as grid,
    ):
        assert np.array_equal(np.asarray(picture), np.asarray(grid.convert("RGB")))

    (parameters,) = tmp_path.glob("logs/hdzoo/*/hparams.yml")
    for text in ("learning_rate: 0.002", "objective: denoising", "max_train_steps: 50"):
        assert f"\n{text}\n" in parameters.read_text()


class WandB(ModuleType):
    """What Accelerate asks of the package: the real one would ask for an account."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged = {}, []
        self.config = SimpleNamespace(update=lambda values, **_: self.begun.update(config=values))
        self.Image = np.shape

    def init(self, **options):
        self.begun |= options
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.begun["finished"] = True


@pytest.fixture
def wandb(monkeypatch):
    package = WandB()
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    return package


def test_wandb_gets_the_same(tmp_path, digits, wandb):
    held_out = load_images("digits", "test").select(range(20))
    options = {"held_out": held_out, "held_out_every": 2, "sample_every": 2}
    sampler = AnnealedLangevinSampler(**SAMPLER)
    run(tmp_path, digits, SHORT, tracker="wandb", scheduler=sampler, **options)
    begun, named = wandb.begun, {"name": tmp_path.name, "dir": str(tmp_path / "logs")}
    assert begun["project"] == "hdzoo"
    assert begun["finished"]
    assert named.items() <= begun.items()
    assert begun["config"]["learning_rate"] == 2e-3
    (held_out, last), logged = lines(tmp_path), {}
    for step, values in wandb.logged:
        assert step == 2
        logged |= values
    assert logged["loss"] == held_out.get("loss", last.get("loss"))
    assert logged["lr"] == 4e-4 * 2
    # One grid of 4 x 4 samples of 8 x 8.
    assert logged["samples"] == [(32, 32, 3)]
    assert sum(key.startswith("held_out_loss/") for key in logged) == 10


def test_a_tracker_that_does_not_start_is_said(tmp_path, digits, wandb, monkeypatch):
    def init(**_):
        raise RuntimeError("no account")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(HDZooError, match="the tracker does not start: no account"):
        run(tmp_path, digits, SHORT, tracker="wandb")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "tracker 'wandb' needs a package: pip install wandb"),
        ("mlflow", "tracker is 'mlflow'; allowed are tensorboard, wandb"),
        ("", "tracker is ''; allowed are"),
    ],
)
def test_trackers_that_there_are_none_of(tmp_path, digits, monkeypatch, name, message):
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    with pytest.raises(HDZooError, match=message):
        run(tmp_path, digits, SHORT, tracker=name)
    assert not list(tmp_path.iterdir())
