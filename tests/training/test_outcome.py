"""What a run leaves: folder, card, log of losses, sampler; and what it starts from."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from training_runs import (
    everything,
    ladder,
    lines,
    ncsn,
    run,
    same,
    unet,
    weights,
    with_config,
)

from hdzoo import HDPipeline, get_sampler
from hdzoo.cards import pictures_in, write_card
from hdzoo.checksums import content_hash
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.images.sources import load_images
from hdzoo.models.energy import EnergyModel
from hdzoo.models.ncsn import NCSNModel
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.models.unet import UNetScoreModel
from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.training import run as runs
from hdzoo.training import trainer
from hdzoo.training.losses import held_out_loss
from hdzoo.training.setup import build_scheduler, initial_network
from hdzoo.training.trainer import TrainingConfig


def short_sampler():
    return AnnealedLangevinSampler(
        sigma_max=5, sigma_min=0.1, num_levels=4, steps_per_level=2, prediction_type="sample"
    )


# ---- what a run writes ----------------------------------------------------------------------


@pytest.mark.usefixtures("curve")
def test_the_folder_is_ready_for_the_hub(tmp_path, digits, held_out, monkeypatch):
    folder, sampler = tmp_path / "tiny-digits", short_sampler()
    run(
        folder,
        digits,
        with_config(max_train_steps=3),
        held_out=held_out,
        scheduler=sampler,
        command="hdzoo train --dataset digits",
        dataset_name="digits",
        num_samples=4,
    )
    pipe = HDPipeline.from_pretrained(folder)
    assert isinstance(pipe.unet, UNetScoreModel)
    assert isinstance(pipe.scheduler, AnnealedLangevinSampler)
    assert torch.equal(pipe.scheduler.sigmas, sampler.sigmas)
    assert pipe.image_processor.config.do_convert_grayscale
    assert (folder / ".gitignore").read_text().splitlines() == ["checkpoints/", "logs/", ".lock"]

    record = json.loads((folder / "training.json").read_text())
    assert TrainingConfig(**record["config"]) == with_config(max_train_steps=3)
    assert record["num_images"] == 240
    assert record["command"] == "hdzoo train --dataset digits"
    assert record["dataset"] == "digits"
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]

    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "hdzoo"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert {"UNetScoreModel", "AnnealedLangevinSampler"} <= set(card.data.tags)
    assert card.data.datasets is None
    for line in ("# tiny-digits", "| learning_rate | 0.002 |", "hdzoo train --dataset digits"):
        assert f"\n{line}\n" in card.text
    snippet = re.search("```python\n(.*?)```", card.text, re.DOTALL)[1]
    monkeypatch.chdir(folder)
    results = {}
    exec(snippet, results)
    assert len(results["images"]) == 16

    assert pictures_in(card.text) == ["loss.png", "samples.png"]
    assert "AnnealedLangevinSampler with 8 network evaluations" in card.text
    with Image.open(folder / "samples.png") as grid:
        assert grid.size == (16, 16)
    Image.open(folder / "loss.png").verify()

    # It goes with the run as long as nobody has changed it.
    run(folder, digits, with_config(max_train_steps=4), scheduler=sampler)
    assert "| max_train_steps | 4 |" in (folder / "README.md").read_text()
    assert not (folder / "samples.png").exists()
    (folder / "README.md").write_text("mine")
    (folder / ".gitignore").write_text("mine")
    run(folder, digits, with_config(max_train_steps=4), scheduler=sampler)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / ".gitignore").read_text() == "mine"


def test_the_card_links_data_sets_of_the_hub_only(reference, tmp_path, monkeypatch):
    for part in ("unet", "scheduler"):
        (tmp_path / part).symlink_to(reference / part)
    (tmp_path / "model_index.json").symlink_to(reference / "model_index.json")
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    record = json.loads((reference / "training.json").read_text())
    linked = {"ylecun/mnist": ["ylecun/mnist"]}
    for dataset in ("ylecun/mnist", "data/mine", "data/train.parquet", "digits", None):
        write_card(tmp_path, record, dataset=dataset)
        found = ModelCard.load(tmp_path / "README.md").data.datasets
        assert ([found] if isinstance(found, str) else found) == linked.get(dataset)


def test_grids_of_samples_do_not_disturb_the_weights(tmp_path, digits, reference, monkeypatch):
    monkeypatch.setattr(trainer, "GRID_EVALUATIONS", 8)
    run(tmp_path, digits, sample_every=15, scheduler=short_sampler())
    grids = sorted((tmp_path / "samples").iterdir())
    assert [grid.name for grid in grids] == ["000015.png", "000030.png"]
    with Image.open(grids[0]) as grid:
        assert grid.size == (32, 32)
        assert len(grid.getcolors()) > 10
    assert same(everything(tmp_path), everything(reference))
    assert same(weights(tmp_path), weights(reference))
    # Nor each other: a run that is stopped between them draws the same.
    run(tmp_path / "once", digits, sample_every=30, scheduler=short_sampler())
    once = tmp_path / "once" / "samples" / "000030.png"
    assert once.read_bytes() == grids[1].read_bytes()


def test_a_sampler_that_diverges_does_not_end_the_training(tmp_path, digits, monkeypatch):
    def diverge(*args, **kwargs):
        raise HDZooError("samples are not finite")

    monkeypatch.setattr(HDPipeline, "__call__", diverge)
    with pytest.warns(UserWarning, match=r"no samples in 000002.png: samples are not finite"):
        run(tmp_path, digits, with_config(max_train_steps=2), sample_every=2)
    assert (tmp_path / "training.json").is_file()


# ---- what it says of the loss ------------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, 4, 8])
def test_the_log_has_the_mean_of_every_fifty_steps(
    tmp_path, digits, monkeypatch, at_step, stop, interrupt
):
    assert runs.LOG_EVERY == 50
    monkeypatch.setattr(runs, "LOG_EVERY", 6)
    losses, inner = [], runs.Run.loss

    def recorded(*args):
        losses.append(inner(*args))
        return losses[-1]

    monkeypatch.setattr(runs.Run, "loss", recorded)
    config = with_config(max_train_steps=14, train_batch_size=2)
    if stop is not None:
        at_step(stop, interrupt)
        with pytest.raises(StoppedError):
            run(tmp_path, digits, config)
    run(tmp_path, digits, config)
    assert len(losses) == 14
    parts = {6: losses[:6], 12: losses[6:12], 14: losses[12:]}
    assert [line["step"] for line in lines(tmp_path)] == list(parts)
    for line in lines(tmp_path):
        # Sums of 6 float32 numbers.
        expected = torch.stack(parts[line["step"]]).double().mean().item()
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
        assert line["learning_rate"] == pytest.approx(2e-3)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["loss"] == lines(tmp_path)[-1]["loss"]


@pytest.mark.usefixtures("curve")
def test_held_out_loss_on_the_way_is_that_of_the_average(
    tmp_path, digits, held_out, at_step, kill, reference
):
    options = {"held_out": held_out, "held_out_every": 10, "checkpoint_every": 20}
    at_step(25, kill)
    with pytest.raises(StoppedError):
        run(tmp_path, digits, **options)
    run(tmp_path, digits, **options)
    found = {line["step"]: line["held_out_loss"] for line in lines(tmp_path) if "loss" not in line}
    assert list(found) == [10, 20, 30]
    # All 100 images, which are fewer than 1,000: what the network's config has at the end.
    assert found[30] == HDPipeline.from_pretrained(tmp_path).unet.config.held_out_loss
    assert np.mean(found[30]["loss"]) < np.mean(found[10]["loss"])
    # To measure is not to disturb.
    assert same(weights(tmp_path), weights(reference))
    with pytest.raises(HDZooError, match="give held_out as well"):
        run(tmp_path, digits, held_out_every=10)


def test_long_ladders_and_large_sets_are_thinned_on_the_way(tmp_path, monkeypatch):
    seen = []

    def measured(network, loader, *args, **kwargs):
        seen.append(loader)
        return {"sigmas": [1.0], "loss": [0.5]}

    monkeypatch.setattr(runs, "held_out_loss", measured)
    many, config = load_images("digits"), with_config(max_train_steps=1)
    run(tmp_path, many.select(range(8)), config, held_out=many, held_out_every=1)
    # Of 1,500 every other one, for 1,000 at most.
    assert len(seen[0].dataset) == 750

    model = NCSNv2Model(sample_size=8, in_channels=1, base_channels=8, num_levels=25)
    loader = [torch.zeros(1, 1, 8, 8)]
    assert len(held_out_loss(model.eval(), loader, 0)["sigmas"]) == 25
    assert held_out_loss(model, loader, 0, most_levels=10)["sigmas"] == model.sigmas[::3].tolist()


# ---- from other weights ------------------------------------------------------------------------


def test_a_run_starts_from_the_weights_of_a_pipeline(tmp_path, digits, reference):
    network, digest = initial_network(reference, {})
    assert same(network.state_dict(), weights(reference))
    assert digest == content_hash(sorted(weights(reference).items()))
    assert network.config.held_out_loss is None
    # At a rate of (almost) nothing, the average is what it started from.
    config = with_config(max_train_steps=3, learning_rate=1e-12, initial_weights=digest)
    run(tmp_path / "x", digits, config, model=network, init_from=str(reference))
    for name, value in weights(tmp_path / "x").items():
        torch.testing.assert_close(value, weights(reference)[name], rtol=1e-6, atol=1e-10)
    adam = everything(tmp_path / "x")
    assert {float(v) for k, v in adam.items() if k.endswith(".step")} == {3.0}
    record = json.loads((tmp_path / "x" / "training.json").read_text())
    assert record["config"]["initial_weights"] == digest
    assert record["init_from"] == str(reference)
    assert f"from the weights of `{reference}`" in (tmp_path / "x" / "README.md").read_text()
    with pytest.raises(HDZooError, match=f"initial_weights was '{digest}' and is None"):
        run(tmp_path / "x", digits, dataclasses.replace(config, initial_weights=None))


def test_what_does_not_fit_the_initial_weights_is_refused(reference):
    network, _ = initial_network(reference, {"dropout": 0.1}, "unet")
    assert network.config.dropout == 0.1
    with pytest.raises(HDZooError, match=r"do not fit a network with .*block_out_channels"):
        initial_network(reference, {"block_out_channels": (8, 24)})
    with pytest.raises(HDZooError, match="UNetScoreModel has no option widht"):
        initial_network(reference, {"widht": 3})
    with pytest.raises(HDZooError, match="is a UNetScoreModel, and 'ncsn' is asked for"):
        initial_network(reference, {}, "ncsn")
    with pytest.raises(HDZooError, match="there is no model 'nowhere'"):
        initial_network("nowhere", {})


# ---- the sampler that nobody has chosen --------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kind", "cost"),
    [
        (unet, "DPMSolverPP2MSampler", 20),
        (lambda: unet(sigma_max=400.0), "DPMSolverPP2MSampler", 20),
        # From where the noise is as large as the data there is no preset.
        (lambda: unet(sigma_max=0.5), "ConsistentAnnealedSampler", 200),
        # A step for the denoising at the end as well.
        (lambda: ncsn(NCSNModel), "AnnealedLangevinSampler", 201),
        (lambda: ladder(232), "ConsistentAnnealedSampler", 232),
        (lambda: ladder(150), "ConsistentAnnealedSampler", 150),
    ],
)
def test_the_default_sampler_is_of_modest_cost_and_fits_the_network(build, kind, cost):
    network = build().eval()
    sampler = build_scheduler(None, {}, network)
    assert type(sampler).__name__ == kind
    sampler.set_timesteps()
    assert len(sampler.timesteps) == cost
    levels = sampler.sigmas[:-1].unique().tolist()
    network.check_sigmas(levels)
    if kind == "DPMSolverPP2MSampler":
        wanted = 5 * network.config.data_std / 0.3081
        assert max(levels) == pytest.approx(min(wanted, network.config.sigma_max))
        # A walk that takes its place has the whole range, 200 evaluations, and a read-out.
        walk = get_sampler("annealed-langevin").from_config(sampler.config)
        assert (walk.levels[0], walk.levels[-2]) == (network.config.sigma_max, 0.01)
        assert (len(walk.timesteps), walk.config.readout) == (201, "full")
    else:
        assert max(levels) == pytest.approx(float(network.config.sigma_max), rel=1e-4)
    pipe = HDPipeline(network, sampler)
    # On a short ladder nothing is new in a long walk: once on each of the 4, and the end.
    fewest = 5 if kind == "AnnealedLangevinSampler" else None
    assert pipe(1, fewest, output_type="pt").images.shape == (1, 1, 8, 8)
    if cost in (20, 200):
        # At any other cost as well.
        assert pipe(1, 2, output_type="pt").images.isfinite().all()


def test_an_energy_starts_from_the_weights_of_a_denoiser(reference):
    network, _ = initial_network(reference, {}, "energy")
    assert type(network) is EnergyModel
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, weights(reference)[name])
    with pytest.raises(HDZooError, match="is a UNetScoreModel, and 'conv-energy' is asked for"):
        initial_network(reference, {}, "conv-energy")
