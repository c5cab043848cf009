"""Runs with each objective: with which networks, to what, and with what in their checkpoints."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training_runs import everything, run, same, unet, with_config

from hdzoo import HDPipeline, plugins
from hdzoo.checksums import save_tensors
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.training import trainer
from hdzoo.training.checkpoints import STATE, latest_checkpoint
from hdzoo.training.objectives import Objective, build_objective, draw_sigmas
from hdzoo.training.run import Run
from hdzoo.training.trainer import TrainingConfig

OBJECTIVES = {
    "denoising": {},
    "explicit": {"target": "digits-empirical"},
    "implicit": {},
    "sliced": {"probes": 2},
    "sure": {"probe_law": "gaussian"},
}
TINY = {"block_out_channels": (8,), "norm_num_groups": 2}


class Memory(Objective):
    """Draws the images towards the mean of all that it has seen: senseless, but it remembers."""

    def __init__(self, pull: float = 1.0) -> None:
        self.pull = pull
        self.mean = None

    def loss(self, network, images, *draws):
        if self.mean is None:
            self.mean = torch.rand_like(images[:1])
        self.mean = 0.9 * self.mean + 0.1 * images.mean(0, keepdim=True)
        score = network.score_at(network.draw_sigmas(len(images)))(images)
        return (score - self.pull * (self.mean - images)).square().mean()

    def state_dict(self):
        return {} if self.mean is None else {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"].clone()


@pytest.fixture
def brought(monkeypatch):
    """Objectives by name, as if a package had brought them."""

    def bring(**objectives):
        (info,) = (p for p in plugins.plugins() if p.name == "builtin")
        for name, kind in objectives.items():
            monkeypatch.setitem(plugins._registry().things["objectives"], name, (info, kind))

    return bring


def config_of(name, options, **others):
    few = {"max_train_steps": 10, "train_batch_size": 4} | others
    return with_config(objective=name, objective_options=options, **few)


def test_every_objective_is_here() -> None:
    # What shows its runs is a file of its own: test_contrastive.py.
    assert {*OBJECTIVES, "contrastive-divergence"} == {
        name
        for name in plugins.names("objectives")
        if plugins.provider("objectives", name).name == "builtin"
    }


@pytest.mark.parametrize("name", [*OBJECTIVES, "memory"])
def test_stopped_five_times_ends_with_the_same_bits(
    tmp_path, digits, monkeypatch, interrupt, brought, name
):
    """At random moments, three with a checkpoint of the moment and two without.

    Each comes at most two steps after the last start, so that all five come before the end.
    """
    brought(memory=Memory)
    config = config_of(name, OBJECTIVES.get(name, {}), random_flip=True)
    images, inner = digits.select(range(40)), Run.loss
    left = torch.randint(1, 3, (5,), generator=torch.Generator().manual_seed(len(name))).tolist()
    calls = 0

    def stop(self, *args):
        nonlocal calls
        calls += 1
        value = inner(self, *args)
        if left and calls == left[0]:
            left.pop(0)
            interrupt(value)
            if len(left) % 2:
                # A second one waits for no checkpoint.
                interrupt(value)
        return value

    def go_on(folder):
        nonlocal calls
        calls = 0
        run(folder, images, config, model=unet(**TINY), checkpoint_every=2)
        return everything(folder), (folder / "losses.jsonl").read_bytes()

    # Pictures and cards are not what is asked about.
    monkeypatch.setattr(trainer, "finish", lambda *_, **__: None)
    whole, log = go_on(tmp_path / "whole")
    monkeypatch.setattr(Run, "loss", stop)
    for _ in range(5):
        with pytest.raises(StoppedError):
            go_on(tmp_path / "stopped")
    stopped, same_log = go_on(tmp_path / "stopped")
    assert same(stopped, whole)
    assert same_log == log
    assert ("objective.0.mean" in whole) == (name == "memory")


def test_objectives_give_other_weights_than_one_another(tmp_path, digits):
    """But for those that are the same but for a constant: by the same noise and probes."""
    images, found = digits.select(range(40)), {}
    for name, options in (OBJECTIVES | {"sure": {}, "sliced": {}}).items():
        config = config_of(name, options, max_train_steps=1)
        run(tmp_path / name, images, config, model=unet(**TINY))
        found[name] = torch.cat(
            [v.flatten() for k, v in everything(tmp_path / name).items() if k.endswith("exp_avg")]
        )
    size = found["implicit"].norm()
    for name in found:
        apart = (found[name] - found["implicit"]).norm() / size
        # SURE is implicit score matching of the denoiser; in float32.
        assert (apart < 1e-3) == (name in ("implicit", "sure")), name


class Linear(torch.nn.Module):
    """-2 x, of what it is given, and no ladder to look at."""

    def score_at(self, sigmas):
        self.told = sigmas
        return lambda x: -2 * x

    def weight(self, sigmas):
        return sigmas**2


@pytest.mark.parametrize("name", ["denoising", "implicit", "sliced", "sure"])
def test_what_a_run_makes_small(name):
    """The loss of images, by hand: weighted with sigma^2, and per dimension."""
    images, noise = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    sigmas = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    x = images + sigmas.view(-1, 1, 1, 1) * noise
    # Of signs, u . J u is the trace, which is -2 d.
    probes = torch.ones(4, 1, 1, 3, 3, dtype=torch.float64)
    square = x.square().flatten(1).sum(1)
    losses = {
        "denoising": (noise / sigmas.view(-1, 1, 1, 1) - 2 * x).square().flatten(1).sum(1) / 2,
        "implicit": -18 + 2 * square,
        "sliced": -18 + 2 * x.flatten(1).sum(1) ** 2,
        "sure": -18 + 2 * square + 9 / (2 * sigmas**2),
    }
    draws = (noise, sigmas) if name == "denoising" else (noise, sigmas, probes)
    loss = build_objective(name, {}).loss(Linear(), images, *draws)
    expected = (sigmas**2 * losses[name]).mean() / 9
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


# ---- one noise level ----------------------------------------------------------------------------


def test_a_network_of_one_level(tmp_path, digits):
    network = unet(sigma_min=0.5, sigma_max=0.5, **TINY)
    images = digits.select(range(40))
    config = config_of("sure", {"noisy_data": True}, max_train_steps=1)
    run(tmp_path, images, config, model=network, held_out=images)
    pipe = HDPipeline.from_pretrained(tmp_path)
    assert pipe.unet.config.held_out_loss["sigmas"] == [0.5]
    assert set(pipe.scheduler.levels) <= {0.5, 0.0}
    assert pipe(1, num_inference_steps=3, output_type="pt").images.isfinite().all()
    torch.testing.assert_close(
        draw_sigmas("log-uniform", 5, torch.tensor([0.3]), 0, 1),
        torch.full((5,), 0.3),
        rtol=0,
        atol=0,
    )


def test_noisy_images_have_one_level(tmp_path, digits):
    config = config_of("sure", {"noisy_data": True})
    with pytest.raises(HDZooError, match=r"noisy images have one noise level, .* from 0.01 to 5;"):
        run(tmp_path, digits, config, model=unet(**TINY))
    assert not list(tmp_path.iterdir())
    network = NCSNv2Model(sample_size=8, in_channels=1, base_channels=4, sigma_levels=[0.5])
    build_objective("sure", {"noisy_data": True}).check(
        network, with_config(sigma_distribution="ladder", loss_weighting="song-ermon")
    )


def test_noisy_images_are_shown_as_they_are(digits):
    """With it, the objective's value does not depend on the noise that is drawn."""
    images, noise = torch.rand(4, 1, 8, 8), torch.randn(2, 4, 1, 8, 8)
    sigmas, probes = torch.full((4,), 0.5), torch.ones(4, 1, 1, 8, 8)

    class Seen:
        def score_at(self, sigmas):
            return lambda x: -(x**2)

    for noisy in (True, False):
        sure = build_objective("sure", {"noisy_data": noisy})
        values = [sure.of_samples(Seen(), images, z, sigmas, probes) for z in noise]
        assert torch.equal(*values) == noisy


# ---- options ------------------------------------------------------------------------------------


def test_options_at_their_default_are_left_out():
    config = TrainingConfig(objective="implicit", objective_options={"probes": 1})
    assert config == TrainingConfig(objective="implicit")
    assert TrainingConfig(objective="implicit", objective_options={"probes": None}) != config


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slice", {}, "unknown objective 'slice'; did you mean 'sliced'"),
        ("sliced", {"probs": 2}, "'sliced' has no option probs; it has probes, probe_law"),
        ("denoising", {"probes": 2}, "'denoising' has no option probes; it has none"),
        ("sliced", {"probes": 0}, "probes is 0"),
        ("sliced", {"probes": None}, "probes is None"),
        ("implicit", {"probe_law": "uniform"}, "probe_law is 'uniform'"),
        ("sure", {"noisy_data": "perhaps"}, "noisy_data is 'perhaps'"),
        ("explicit", {}, "target is None; it must be the registered name of a law"),
        ("explicit", {"target": "moon"}, "unknown target 'moon'; did you mean 'moons'"),
        ("implicit", 3, "objective_options is 3; it must be a dict"),
        ("implicit", {3: 1}, "has no option 3"),
        (None, {}, "objective is None; it must be a registered name"),
        ("nothing", {}, "'nothing' of .* is <class 'int'>; it must be a class that derives from"),
        ("stubborn", {}, "cannot build the objective 'stubborn' with {}: no"),
        ("needy", {}, "objective 'needy' of .*: its option x has no default"),
    ],
)
def test_wrong_options_are_refused_at_once(brought, name, options, message):
    class Stubborn(Objective):
        def __init__(self):
            raise ValueError("no")

    class Needy(Objective):
        def __init__(self, x): ...

    brought(nothing=int, stubborn=Stubborn, needy=Needy)
    with pytest.raises(HDZooError, match=message):
        TrainingConfig(objective=name, objective_options=options)


def test_explicit_needs_a_law_of_such_images(tmp_path, digits):
    with pytest.raises(HDZooError, match=r"'moons' have the shape \(2,\), .* for \(1, 8, 8\)"):
        run(tmp_path, digits, config_of("explicit", {"target": "moons"}), model=unet(**TINY))


@pytest.mark.parametrize("loss", [None, torch.ones(3, requires_grad=True), torch.ones(())])
def test_a_loss_that_is_none_is_refused(tmp_path, digits, brought, loss):
    class Broken(Objective):
        def loss(self, network, images, *draws):
            return loss

    brought(broken=Broken)
    with pytest.raises(HDZooError, match=r"objective 'broken' gives .* it must be a scalar tensor"):
        run(tmp_path, digits, config_of("broken", {}), model=unet(**TINY))


# ---- the same run -------------------------------------------------------------------------------


def test_runs_recorded_before_there_were_objectives_go_on(tmp_path, digits):
    config = with_config(max_train_steps=2)
    run(tmp_path, digits, config, model=unet(**TINY))
    path = latest_checkpoint(tmp_path / "checkpoints").path
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()[STATE])
    for key in ("objective", "objective_options"):
        del state["protocol"][key]
    save_tensors(load_file(path), path, {STATE: json.dumps(state)})
    run(tmp_path, digits, dataclasses.replace(config, max_train_steps=3), model=unet(**TINY))
    other = dataclasses.replace(config, max_train_steps=3, objective="sliced")
    with pytest.raises(HDZooError, match="objective was 'denoising' and is 'sliced'"):
        run(tmp_path, digits, other, model=unet(**TINY))


def test_options_belong_to_the_run(tmp_path, digits):
    config = config_of("sliced", {}, max_train_steps=1)
    run(tmp_path, digits, config, model=unet(**TINY), keep_checkpoints=False)
    other = dataclasses.replace(config, objective_options={"probes": 3})
    with pytest.raises(HDZooError, match=r"objective_options was \{\} and is \{'probes': 3\}"):
        run(tmp_path, digits, other, model=unet(**TINY))
    assert "sliced" in (tmp_path / "README.md").read_text()


def test_memory_that_does_not_fit_is_refused(tmp_path, digits, brought):
    brought(memory=Memory)
    config = config_of("memory", {}, max_train_steps=1)
    run(tmp_path, digits, config, model=unet(**TINY))
    path = latest_checkpoint(tmp_path / "checkpoints").path
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["objective.0.mean"]
    save_tensors(tensors, path, {STATE: metadata[STATE]})
    with pytest.raises(HDZooError, match="mean"):
        run(tmp_path, digits, dataclasses.replace(config, max_train_steps=2), model=unet(**TINY))
