"""The trainer: what a step does, what it ends with, what it refuses."""

import dataclasses
import math
import os
import sys

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from training_runs import (
    CONFIG,
    everything,
    ncsn,
    raw_weights,
    run,
    same,
    score_unet,
    unet,
    weights,
    with_config,
)

from hdzoo import HDPipeline
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.images.sources import load_images
from hdzoo.models.ncsn import NCSNModel
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.training import losses
from hdzoo.training import run as runs
from hdzoo.training.data import image_loader, image_transform
from hdzoo.training.losses import held_out_loss
from hdzoo.training.trainer import TrainingConfig


def test_the_environment_divides_no_loss(tmp_path, digits, monkeypatch):
    config = with_config(max_train_steps=2)
    run(tmp_path / "plain", digits, config)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(HDZooError, match=r"STEPS is 4, .* of this run is 1; give the same"):
        run(tmp_path / "told", digits, config)
    assert not (tmp_path / "told").exists()
    run(tmp_path / "told", digits, dataclasses.replace(config, gradient_accumulation_steps=4))
    for name, value in weights(tmp_path / "told").items():
        # Adam's first steps are of the size of the rate whatever the gradient's, so rounding of a
        # small gradient may show: 1e-7 relative of gradients down to 1e-4 of the largest.
        torch.testing.assert_close(value, weights(tmp_path / "plain")[name], rtol=0, atol=2e-5)


def test_parts_of_a_batch_give_its_gradient(tmp_path, digits):
    """The mean over the batch, whatever the number of parts; a step with no momentum shows it."""
    grads = {}

    def look(optimizer, args, kwargs):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads.setdefault(parts, []).append([p.grad.clone() for p in params])

    hook = register_optimizer_step_pre_hook(look)
    try:
        for parts in (1, 2, 8):
            config = with_config(max_train_steps=1, gradient_accumulation_steps=parts)
            run(tmp_path / str(parts), digits, dataclasses.replace(config, max_grad_norm=1e9))
    finally:
        hook.remove()
    scale = max(float(g.abs().max()) for g in grads[1][0])
    for parts in (2, 8):
        for one, other in zip(grads[1][0], grads[parts][0], strict=True):
            # Sums of 8 terms in another order, through some ten layers, in float32.
            assert float((one - other).abs().max()) < 1e-5 * scale


def test_parts_that_do_not_divide_are_refused(tmp_path, digits):
    with pytest.raises(HDZooError, match="8 does not divide among 1 processes in 3 parts each"):
        run(tmp_path, digits, with_config(gradient_accumulation_steps=3))


# ---- what a step does -----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_run_leaves_the_last_good_checkpoint(tmp_path, digits, at_step, bad):
    at_step(10, lambda loss: loss * bad)
    with pytest.raises(HDZooError, match="diverged: the weights are not finite at step 14"):
        run(tmp_path, digits, checkpoint_every=7)
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000007.safetensors"]
    assert all(value.isfinite().all() for value in everything(tmp_path).values())


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, digits, at_step):
    at_step(3, lambda loss: loss * float("nan"))
    with pytest.raises(HDZooError, match=r"loss is nan at step 50.*lower learning_rate"):
        run(tmp_path, digits, with_config(max_train_steps=60, train_batch_size=2))
    assert not os.listdir(tmp_path / "checkpoints")


def test_gradients_are_clipped_and_the_rate_warms_up(tmp_path, digits):
    norms, rates = [], []

    def look(optimizer, args, kwargs):
        group = optimizer.param_groups[0]
        grads = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
        rates.append(group["lr"])

    hook = register_optimizer_step_pre_hook(look)
    try:
        run(tmp_path, digits, with_config(max_train_steps=8, max_grad_norm=0.01))
    finally:
        hook.remove()
    # A float32 norm of some thousand numbers, each rounded by 6e-8.
    assert norms == pytest.approx([0.01] * 8, rel=1e-4)
    assert rates == pytest.approx([2e-3 * min(1, step / 5) for step in range(8)])


def test_the_folder_has_the_average_of_what_the_steps_give(tmp_path, digits):
    """The closed form of the average from the weights after each step of the optimiser, w_1, w_2...

    a_1 = w_1 and a_n = d a_{n-1} + (1 - d) w_n, d = min(.7, 1 - n^-.75), that is a sum of the w_n
    with weights that add up to 1. Stepped before the optimiser, it would lag by one: w_0 to w_11.
    """
    seen = []

    def look(optimizer, args, kwargs):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        seen.append([p.detach().double().clone() for p in params])

    model = unet()
    names = [name for name, _ in model.named_parameters()]
    before = [p.detach().double().clone() for p in model.parameters()]
    hook = register_optimizer_step_post_hook(look)
    try:
        run(tmp_path, digits, with_config(max_train_steps=12, ema_decay=0.7), model=model)
    finally:
        hook.remove()
    decays = [min(0.7, 1 - n**-0.75) for n in range(1, 13)]
    assert decays[0] == 0
    shares = [(1 - decay) * math.prod(decays[i + 1 :]) for i, decay in enumerate(decays)]
    assert sum(shares) == pytest.approx(1)

    def average(states):
        mix = zip(*states, strict=True)
        return [sum(share * w for share, w in zip(shares, ws, strict=True)) for ws in mix]

    written = [weights(tmp_path)[name].double() for name in names]
    for value, expected in zip(written, average(seen), strict=True):
        # Twelve updates, each rounded to float32.
        torch.testing.assert_close(value, expected, rtol=12e-7, atol=12e-7)
    lagging = average([before, *seen[:-1]])
    assert max(float((v - w).abs().max()) for v, w in zip(written, lagging, strict=True)) > 1e-3
    assert not same(weights(tmp_path), raw_weights(tmp_path))


@pytest.mark.parametrize("stop", [None, 4])
def test_the_rate_falls_by_a_cosine(tmp_path, digits, at_step, interrupt, stop):
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    config = with_config(lr_scheduler="cosine", max_train_steps=10, lr_warmup_steps=2)
    try:
        if stop is not None:
            at_step(stop, interrupt)
            with pytest.raises(StoppedError):
                run(tmp_path, digits, config)
        run(tmp_path, digits, config)
    finally:
        hook.remove()
    # Loshchilov and Hutter (arXiv 1608.03983), equation 5, after a linear warm-up.
    fall = [1e-3 * (1 + math.cos(math.pi * (step - 2) / 8)) for step in range(2, 10)]
    assert rates == pytest.approx([0, 1e-3, *fall])


def test_the_loop_waits_for_the_device_once_in_fifty_steps(tmp_path, digits, monkeypatch):
    waits = []

    def counted(name):
        original = getattr(torch.Tensor, name)

        def wrapper(self, *args):
            if sys._getframe(1).f_code.co_filename == runs.__file__:
                waits.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, wrapper)

    for name in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
        counted(name)
    run(tmp_path, digits, with_config(max_train_steps=60, train_batch_size=2))
    # The mean of 50 steps, and at the end that of 10 with the last checkpoint.
    assert waits == ["item", "item", "__bool__", "item"]


def test_bf16_trains_and_the_loss_is_measured_in_float32(tmp_path, digits, held_out, reference):
    run(tmp_path, digits, with_config(mixed_precision="bf16"), held_out=held_out)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path).values())
    assert not same(weights(tmp_path), weights(reference))
    network = HDPipeline.from_pretrained(tmp_path).unet
    recorded = network.config.held_out_loss
    transform = image_transform(8, 1, (0.0, 1.0))
    loader = image_loader(held_out, transform, batch_size=500)
    again = held_out_loss(network, loader, CONFIG.seed)
    assert again["sigmas"] == recorded["sigmas"]
    # Rounded to six places.
    assert again["loss"] == pytest.approx(recorded["loss"], abs=2e-6)
    full = HDPipeline.from_pretrained(reference).unet.config.held_out_loss
    # bfloat16 has 8 bits: training loses some, but not a tenth.
    assert np.mean(recorded["loss"]) == pytest.approx(np.mean(full["loss"]), rel=0.1)


@pytest.mark.parametrize("option", ["random_flip", "dequantize"])
def test_what_changes_images_follows_seed_and_step(tmp_path, digits, reference, option):
    changed = with_config(**{option: True})
    for name in ("one", "two"):
        run(tmp_path / name, digits, changed)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(reference))


def test_held_out_images_have_the_noise_of_those_trained_on(monkeypatch):
    asked = []

    def black(images, data_range):
        asked.append(data_range)
        return torch.zeros_like(images)

    monkeypatch.setattr(losses, "dequantized", black)
    images = torch.rand(4, 1, 8, 8)
    expected = held_out_loss(unet(), [torch.zeros_like(images)], seed=0)
    assert held_out_loss(unet(), [images], seed=0, dequantize=True) == expected
    assert asked == [(0.0, 1.0)]


def test_training_does_not_touch_the_callers_generator(tmp_path, digits):
    model = unet()
    before = torch.get_rng_state()
    run(tmp_path, digits, with_config(max_train_steps=2), model=model)
    assert torch.equal(torch.get_rng_state(), before)


# ---- networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (lambda: ncsn(NCSNModel), {"sigma_distribution": "ladder"}),
        (lambda: ncsn(NCSNv2Model), {"sigma_distribution": "ladder"}),
        (lambda: unet(sigma_min=0.1), {"loss_weighting": "karras"}),
        (score_unet, {"sigma_distribution": "log-uniform"}),
    ],
    ids=["ncsn", "ncsnv2", "unet", "diffusers"],
)
def test_every_network_learns(tmp_path, digits, build, options):
    config = with_config(
        max_train_steps=30, learning_rate=1e-2, loss_weighting="song-ermon", ema_decay=0.9
    )
    torch.manual_seed(0)
    run(
        tmp_path,
        digits,
        dataclasses.replace(config, **options),
        model=build(),
        held_out=load_images("digits", "test").select(range(100)),
    )
    pipe = HDPipeline.from_pretrained(tmp_path)
    result = pipe.unet.config.held_out_loss
    assert len(result["sigmas"]) >= 4
    # A score of zero has the loss 1 at every level.
    assert np.mean(result["loss"]) < 0.9
    assert pipe(batch_size=2, num_inference_steps=10, output_type="pt").images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda: ncsn(NCSNModel), {}, "only the 4 noise levels of its ladder.*use 'ladder'"),
        (lambda: ncsn(NCSNv2Model), {"sigma_distribution": "log-uniform"}, "use 'ladder'"),
        (unet, {"sigma_distribution": "ladder"}, "has no ladder.*'log-uniform' or 'log-normal'"),
        (score_unet, {}, "'karras' needs data_std.*use 'song-ermon'"),
        (lambda: UNet2DModel(**UNET2D), {}, "no sigma_min and no sigma_max.*register_to_config"),
    ],
)
def test_options_that_do_not_fit_the_network_are_refused(tmp_path, digits, build, options, message):
    with pytest.raises(HDZooError, match=message):
        run(tmp_path / "new", digits, with_config(**options), model=build())
    assert not (tmp_path / "new").exists()


UNET2D = {
    "block_out_channels": (32,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lr_scheduler", "cosinus", "allowed are constant, constant_with_warmup"),
        ("sigma_distribution", "normal", "allowed are ladder"),
        ("loss_weighting", "none", "allowed are song-ermon, karras"),
        ("mixed_precision", "fp8", "allowed are no, bf16, fp16"),
        ("max_train_steps", 0, "a whole number from 1 to"),
        ("learning_rate", math.nan, "a finite number above 0"),
        ("lr_warmup_steps", -1, "a whole number from 0 to"),
        ("ema_decay", 1.0, "at least 0 and below 1"),
    ],
)
def test_impossible_options_are_refused(option, value, message):
    with pytest.raises(HDZooError, match=f"{option} is .*{message}"):
        TrainingConfig(**{option: value})


def test_data_smaller_than_a_batch_is_refused(tmp_path, digits):
    with pytest.raises(HDZooError, match="has 5 images and train_batch_size is 8"):
        run(tmp_path, digits.select(range(5)))
