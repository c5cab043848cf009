"""Contrastive divergence: its gradient in closed form, its buffer, and runs that are stopped."""

import math

import numpy as np
import pytest
import torch
from training_runs import everything, lines, run, same, weights, with_config

from hdzoo.errors import HDZooError, StoppedError
from hdzoo.models.conv_energy import ConvEnergyModel
from hdzoo.models.energy import EnergyModel
from hdzoo.models.unet import UNetScoreModel
from hdzoo.training.config import TrainingConfig
from hdzoo.training.objectives import contrastive_divergence
from hdzoo.training.objectives.base import Network
from hdzoo.training.objectives.contrastive import ContrastiveDivergence, short_run
from hdzoo.training.run import Run

FEW = {"num_langevin_steps": 3, "buffer_size": 20}
CONFIG = with_config(
    max_train_steps=12,
    objective="contrastive-divergence",
    objective_options=FEW,
    sigma_distribution="ladder",
    loss_weighting="song-ermon",
    max_grad_norm=0.1,
)


def network(**options):
    torch.manual_seed(0)
    return ConvEnergyModel(**{"sample_size": 8, "hidden_channels": 4} | options)


def seen(model=None):
    return Network(model or network(), TrainingConfig(), torch.device("cpu"))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the loss ---------------------------------------------------------------------------------


def test_by_hand():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    found = contrastive_divergence(real, fake, 0.1)
    assert found.tolist() == pytest.approx([0.5 + 0.1 * 1.25, -5 + 0.1 * 13])


@pytest.mark.parametrize("regularization", [0.0, 0.1])
def test_gradient_of_a_parabola_in_closed_form(regularization):
    r"""f = k |x|^2 / 2: the derivative by k is mean(e+) - mean(e-) + 2 lambda k (e+^2 + e-^2) with
    e = |x|^2 / 2, and without lambda it is that of -log p: (d / k - |x|^2 taken of the data) / -2.
    """
    d, k = 3, torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    real, fake = 0.5 * normal(1000, d), normal(1000, d, seed=1) / k.detach() ** 0.5
    e_real, e_fake = (x.square().sum(1) / 2 for x in (real, fake))
    contrastive_divergence(k * e_real, k * e_fake, regularization).mean().backward()
    squares = (e_real**2 + e_fake**2).mean()
    expected = (e_real - e_fake).mean() + 2 * regularization * k.detach() * squares
    assert k.grad.item() == pytest.approx(expected.item(), rel=1e-13)
    if not regularization:
        # -log p = k |x|^2 / 2 - d / 2 log k; the fake ones are exact samples, so that the mean of
        # their e has the standard error sqrt(d / 2) / k / sqrt(1000).
        exact = e_real.mean() - d / (2 * k.detach())
        error = math.sqrt(d / 2) / k.item() / math.sqrt(1000)
        assert abs(k.grad.item() - exact.item()) < 4 * error


def test_the_loss_of_a_run_is_that_of_its_energies_at_their_temperature():
    model = network(temperature=0.5).double()
    images = normal(6, 1, 8, 8).clamp(-1, 1)
    noise, negatives = normal(6, 1, 8, 8, seed=1), normal(6, 1, 8, 8, seed=2).clamp(-1, 1)
    objective = ContrastiveDivergence(regularization=0.3)
    found = objective.loss(seen(model), images, noise, negatives)
    noisy = (images + 0.005 * noise).clamp(-1, 1)
    real, fake = (model.layers(x)[:, 0] for x in (noisy, negatives))
    expected = real.mean() - fake.mean() + 0.3 * (real**2 + fake**2).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    found.backward()
    expected = torch.autograd.grad(expected, model.layers[0].weight)[0]
    torch.testing.assert_close(model.layers[0].weight.grad, expected, rtol=1e-8, atol=1e-12)


# ---- the samples ------------------------------------------------------------------------------


def test_a_short_run_is_the_published_one():
    """Of f = 3 |x - 0.8|^2 / 2 at step 10, clipped gradients .03, noise .005, in [-1, 1]."""
    start = normal(4, 5).clamp(-1, 1)

    def slope(x):
        return 3 * (x - 0.8)

    temperature = 0.005**2 / 20
    torch.manual_seed(0)
    found = short_run(lambda x: -slope(x) / temperature, start, 7, 0.005**2 / 2, 0.3, (-1.0, 1.0))
    torch.manual_seed(0)
    x = start
    for _ in range(7):
        x = (x + 0.005 * torch.randn_like(x)).clamp(-1, 1)
        x = (x - 10 * slope(x).clamp(-0.03, 0.03)).clamp(-1, 1)
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)
    # Moves of .3 from the left end arrive within seven.
    assert (found - 0.8).abs().max() < 0.3


def test_a_twentieth_is_fresh_and_the_rest_from_the_buffer():
    """Without steps a sample is where it starts: in the buffer, or not."""
    objective = ContrastiveDivergence(num_langevin_steps=1, step_size=1e-30, buffer_size=500)
    images = torch.zeros(2000, 1, 8, 8)
    run_of = seen(network(temperature=1.0))
    torch.manual_seed(1)
    first, _ = objective.negatives(run_of, images), None
    assert objective.buffer.shape == (500, 1, 8, 8)
    assert torch.equal(objective.buffer, first[:500])
    known = {tuple(row[0, 0].tolist()) for row in objective.buffer}
    second = objective.negatives(run_of, images)
    fresh = sum(tuple(row[0, 0].tolist()) not in known for row in second)
    # Binomial: 100 expected, standard deviation 9.7.
    assert abs(fresh - 100) < 4 * 9.7
    assert second.min() >= -1
    assert second.max() <= 1
    for share, expected in ((0.0, 0), (1.0, 2000)):
        objective.fresh_fraction = share
        known = {tuple(row[0, 0].tolist()) for row in objective.buffer}
        third = objective.negatives(run_of, images)
        assert sum(tuple(row[0, 0].tolist()) not in known for row in third) == expected
    # Fresh ones are uniform on the range of the data: mean 0, variance 1/3.
    assert abs(third.mean()) < 5 * (1 / 3 / third.numel()) ** 0.5
    assert abs(third.var() - 1 / 3) < 5 * (4 / 45 / third.numel()) ** 0.5


def test_by_default_the_noise_of_a_step_is_that_of_the_network():
    found = []
    for step_size in (None, 0.005**2 / 2):
        torch.manual_seed(1)
        objective = ContrastiveDivergence(num_langevin_steps=3, step_size=step_size)
        found.append(objective.negatives(seen(), torch.zeros(4, 1, 8, 8)))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_the_buffer_keeps_the_latest_and_stays_in_range():
    objective = ContrastiveDivergence(num_langevin_steps=5, buffer_size=20)
    # Scores without measure.
    run_of = seen(network(temperature=1e-12, data_range=(0.0, 0.5)))
    images = torch.zeros(8, 1, 8, 8)
    torch.manual_seed(2)
    steps = [objective.negatives(run_of, images) for _ in range(4)]
    assert torch.equal(objective.buffer, torch.cat(steps[::-1])[:20])
    assert objective.buffer.min() >= 0
    assert objective.buffer.max() <= 0.5
    assert run_of.network.training
    assert all(parameter.grad is None for parameter in run_of.network.parameters())


# ---- runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    return run(
        tmp_path_factory.mktemp("whole"),
        digits,
        CONFIG,
        model=network(),
        checkpoint_every=2,
    )


def test_a_run_lowers_the_energy_of_the_data(tmp_path, digits):
    """Against that of noise."""
    config = with_config(**vars(CONFIG) | {"max_train_steps": 60, "max_grad_norm": 1.0})
    model = network()
    run(tmp_path, digits, config, model=model)
    real = torch.stack([torch.tensor(np.array(one)) for one in digits["image"][:50]])[:, None]
    noise = normal(50, 1, 8, 8).clamp(-1, 1)
    inside, outside = (model.energy(x.float(), 0.005).mean() for x in (real / 127.5 - 1, noise))
    assert inside < outside


@pytest.mark.parametrize("moments", [(3, 4, 9)])
def test_killed_it_ends_with_the_same_bits(whole, tmp_path, digits, monkeypatch, kill, moments):
    """Killed in the middle of these steps: at once, as nothing that is begun is finished."""
    loss_of = Run.loss
    for moment in moments:

        def dying(self, *args, moment=moment):
            loss = loss_of(self, *args)
            return kill(loss) if self.progress.step == moment else loss

        monkeypatch.setattr(Run, "loss", dying)
        with pytest.raises(StoppedError):
            run(tmp_path, digits, CONFIG, model=network(), checkpoint_every=2)
    monkeypatch.setattr(Run, "loss", loss_of)
    run(tmp_path, digits, CONFIG, model=network(), checkpoint_every=2)
    assert same(everything(tmp_path), everything(whole))
    assert same(weights(tmp_path), weights(whole))
    assert "objective.0.buffer" in everything(whole)
    assert [line["loss"] for line in lines(tmp_path)] == [line["loss"] for line in lines(whole)]


def test_accumulation_needs_the_same_samples(whole, tmp_path, digits):
    config = with_config(**vars(CONFIG) | {"gradient_accumulation_steps": 2, "max_train_steps": 1})
    other = with_config(**vars(CONFIG) | {"max_train_steps": 1})
    parts = run(tmp_path / "parts", digits, config, model=network())
    one = run(tmp_path / "one", digits, other, model=network())
    assert torch.equal(
        everything(parts)["objective.0.buffer"], everything(one)["objective.0.buffer"]
    )
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(parts)[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (
            lambda: UNetScoreModel(8, block_out_channels=(8,)),
            {"sigma_distribution": "log-normal"},
            "trains an energy, and UNetScoreModel gives none",
        ),
        (
            lambda: EnergyModel(8, block_out_channels=(8,)),
            {"sigma_distribution": "log-normal"},
            "at one noise level, and EnergyModel has those from 0.01 to 10",
        ),
        (network, {"loss_weighting": "karras"}, "nothing to weigh; leave it out"),
    ],
)
def test_networks_that_it_cannot_train(model, options, words, tmp_path, digits):
    config = with_config(**vars(CONFIG) | options)
    with pytest.raises(HDZooError, match=words):
        run(tmp_path, digits, config, model=model())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fresh_fraction", 1.5),
        ("fresh_fraction", True),
        ("buffer_size", 0),
        ("num_langevin_steps", 2.5),
        ("step_size", 0.0),
        ("largest_move", -1.0),
        ("regularization", -0.1),
        ("steps", 60),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(HDZooError, match=option):
        with_config(**vars(CONFIG) | {"objective_options": {option: value}})
