"""The trainer: what it ends with, what it survives, what it refuses."""

import dataclasses
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset, concatenate_datasets
from diffusers import UNet2DModel
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from hdzoo import HDPipeline
from hdzoo.cards import pictures_in, write_card
from hdzoo.checksums import content_hash, save_tensors
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.files import exclusive
from hdzoo.models.ncsn import NCSNModel
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.models.unet import UNetScoreModel
from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.training import run as runs
from hdzoo.training.checkpoints import STATE, latest_checkpoint
from hdzoo.training.data import image_loader, image_transform, load_images
from hdzoo.training.losses import held_out_loss
from hdzoo.training.protocol import check_same_run
from hdzoo.training.setup import build_scheduler, initial_network
from hdzoo.training.trainer import TrainingConfig, train

CONFIG = TrainingConfig(
    max_train_steps=30,
    train_batch_size=8,
    learning_rate=2e-3,
    lr_warmup_steps=5,
    sigma_distribution="log-normal",
    loss_weighting="karras",
)
UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "data_mean": 0.3,
    "data_std": 0.37,
    "sigma_max": 5.0,
}


def unet(**options):
    torch.manual_seed(0)
    return UNetScoreModel(**UNET | options)


def with_config(**options):
    return dataclasses.replace(CONFIG, **options)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps one mixed precision for each process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def run(folder, dataset, config=CONFIG, **options):
    model = options.pop("model", None) or unet()
    return train(model, dataset, folder, config, **{"num_samples": 0} | options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, digits):
    """A run of `CONFIG` that nothing disturbed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return run(tmp_path_factory.mktemp("reference"), digits, held_out=load_images("digits", "test"))


def weights(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def last_step(folder):
    return latest_checkpoint(folder / "checkpoints").progress.step


def everything(folder):
    """Weights, average and optimiser, as the last checkpoint has them."""
    return load_file(latest_checkpoint(folder / "checkpoints").path)


def raw_weights(folder):
    prefix = "model."
    return {k.removeprefix(prefix): v for k, v in everything(folder).items() if prefix in k[:6]}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


@pytest.fixture
def at_step(monkeypatch):
    """Makes a step's loss pass through a function."""

    def install(step, change):
        original, calls = runs.training_loss, [0]

        def training_loss(*args):
            calls[0] += 1
            loss = original(*args)
            return change(loss) if calls[0] == step else loss

        monkeypatch.setattr(runs, "training_loss", training_loss)

    return install


@pytest.fixture
def interrupt():
    """Raises Ctrl-C; as a shell starts what it puts into the background, SIGINT may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def send(loss):
        signal.raise_signal(signal.SIGINT)
        return loss

    yield send
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def kill(interrupt):
    """Ends a run at once, as if all had gone wrong."""

    def twice(loss):
        return interrupt(interrupt(loss))

    return twice


def rewrite(folder, change):
    """Changes the JSON of the last checkpoint, checksum and all."""
    path = latest_checkpoint(folder / "checkpoints").path
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()[STATE])
    change(state)
    save_tensors(load_file(path), path, {STATE: json.dumps(state)})


# ---- resuming -------------------------------------------------------------------------------


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from hdzoo.models.unet import UNetScoreModel
    from hdzoo.training.data import load_images
    from hdzoo.training.trainer import TrainingConfig, train
    import hdzoo.pipelines.pipeline

    def start(folder):
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            torch.manual_seed(0)
            config = TrainingConfig(
                max_train_steps=60, train_batch_size=8, learning_rate=2e-3, lr_warmup_steps=5,
                sigma_distribution="log-normal", loss_weighting="karras", random_flip=True,
            )
            options = {"checkpoint_every": 7, "num_samples": 0}
            train(UNetScoreModel(**UNET), digits, folder, config, **options)
            status = 0
        finally:
            os._exit(status)

    def wait_for(pid, pattern, seen):
        while not set(checkpoints.glob(pattern)) - seen:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "ended too early"
            time.sleep(0.0005)

    digits = load_images("digits").select(range(100))
    root = Path(sys.argv[1])
    checkpoints, chance = root / "killed" / "checkpoints", random.Random(0)
    # Three times at a random moment after a new checkpoint, twice while one is written.
    for pattern in ("step-*", ".partial-*", "step-*", ".partial-*", "step-*"):
        seen = set(checkpoints.glob("*")) if pattern == "step-*" else set()
        pid = start(root / "killed")
        wait_for(pid, pattern, seen)
        time.sleep(chance.uniform(0, 0.1 if pattern == "step-*" else 0.003))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        print(sorted(path.name for path in checkpoints.iterdir()))
    for name in ("killed", "whole"):
        assert os.waitpid(start(root / name), 0)[1] == 0
"""


def test_killed_five_times_ends_with_the_same_bits(tmp_path):
    code = f"UNET = {UNET!r}\n" + textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 5
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert same(everything(killed), everything(whole))
    for file in ("unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    assert os.listdir(killed / "checkpoints") == ["step-0000060.safetensors"]
    assert (killed / "losses.jsonl").read_bytes() == (whole / "losses.jsonl").read_bytes()
    assert not list(killed.rglob(".partial-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_first(
    tmp_path, digits, reference, at_step, interrupt, number
):
    def send(loss):
        signal.raise_signal(number)
        return loss

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    at_step(20, send)
    with pytest.raises(StoppedError, match=r"step 20 of 30; the same command .* step 20$") as error:
        run(tmp_path, digits, checkpoint_every=7)
    assert error.value.signal == number
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert last_step(tmp_path) == 20
    run(tmp_path, digits)
    assert same(everything(tmp_path), everything(reference))
    assert same(weights(tmp_path), weights(reference))
    assert (tmp_path / "losses.jsonl").read_bytes() == (reference / "losses.jsonl").read_bytes()


def test_a_second_interrupt_waits_for_nothing(tmp_path, digits, at_step, kill):
    at_step(20, kill)
    with pytest.raises(StoppedError, match=r"step 19 of 30; the same command .* step 14$"):
        run(tmp_path, digits, checkpoint_every=7)
    assert last_step(tmp_path) == 14


def test_half_written_checkpoints_are_not_taken(tmp_path, digits, reference, at_step, kill):
    at_step(20, kill)
    with pytest.raises(StoppedError):
        run(tmp_path, digits, checkpoint_every=7)
    (tmp_path / "checkpoints" / ".partial-1-step-0000021.safetensors").write_bytes(b"half")
    assert last_step(tmp_path) == 14
    run(tmp_path, digits, checkpoint_every=7)
    assert same(everything(tmp_path), everything(reference))
    assert not list(tmp_path.rglob(".partial-*"))


def test_more_steps_go_on_with_a_constant_schedule(tmp_path, digits, reference):
    run(tmp_path, digits, with_config(max_train_steps=12))
    seconds = json.loads((tmp_path / "training.json").read_text())["seconds"]
    run(tmp_path, digits)
    assert same(everything(tmp_path), everything(reference))
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["config"]["max_train_steps"] == 30
    assert record["seconds"] >= seconds


def test_more_steps_are_refused_with_cosine(tmp_path, digits):
    cosine = with_config(lr_scheduler="cosine", max_train_steps=2)
    run(tmp_path, digits, cosine)
    with pytest.raises(HDZooError, match=r"'cosine' schedule depends .* was 2 and is 3"):
        run(tmp_path, digits, dataclasses.replace(cosine, max_train_steps=3))


def test_a_finished_run_stays_as_it_is(tmp_path, digits):
    config = with_config(max_train_steps=3)
    held_out = load_images("digits", "test")

    def contents():
        run(tmp_path, digits, config, held_out=held_out)
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert contents() == contents()


def test_without_checkpoints_a_finished_run_is_still_known(tmp_path, digits):
    config = with_config(max_train_steps=2)
    run(tmp_path, digits, config, keep_checkpoints=False)
    assert not (tmp_path / "checkpoints").exists()
    before = (tmp_path / "training.json").stat().st_mtime_ns
    run(tmp_path, digits, config)
    assert (tmp_path / "training.json").stat().st_mtime_ns == before
    with pytest.raises(HDZooError, match="finished run of 2 steps without checkpoints"):
        run(tmp_path, digits)
    with pytest.raises(HDZooError, match="seed was 0 and is 1"):
        run(tmp_path, digits, dataclasses.replace(config, seed=1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 1e-4, "seed": 5}, "learning_rate was 0.002 and is 0.0001; seed was 0"),
        ({"random_flip": True}, "random_flip was False and is True"),
        ({"max_train_steps": 29}, "past max_train_steps 29; ask for at least 30"),
    ],
)
def test_another_run_is_refused(reference, digits, changed, message):
    before = raw_weights(reference)
    with pytest.raises(HDZooError, match=message):
        run(reference, digits, with_config(**changed))
    assert same(raw_weights(reference), before)


def test_other_data_and_another_network_are_refused(reference, digits):
    with pytest.raises(HDZooError, match="images was 1500 and is 100"):
        run(reference, digits.select(range(100)))
    others = Dataset.from_list([*digits.select(range(1499)), digits[0]], features=digits.features)
    with pytest.raises(HDZooError, match=r"another run: images_sha256 was '\w+' and is '\w+'\."):
        run(reference, others)
    with pytest.raises(HDZooError, match=r"block_out_channels was \[8, 16\] and is \[8, 24\]"):
        run(reference, digits, model=unet(block_out_channels=(8, 24)))
    with pytest.raises(HDZooError, match=r"network.sigma_max was 5.0 and is 4.0"):
        run(reference, digits, model=unet(sigma_max=4.0))


def test_a_checkpoint_older_than_an_option_has_its_default(tmp_path, digits):
    config = with_config(max_train_steps=2)
    run(tmp_path, digits, config)
    rewrite(tmp_path, lambda state: state["protocol"].pop("random_flip"))
    run(tmp_path, digits, config)
    with pytest.raises(HDZooError, match="random_flip was False and is True"):
        run(tmp_path, digits, dataclasses.replace(config, random_flip=True))


def test_what_changes_the_result_belongs_to_the_run(reference, digits, monkeypatch):
    with pytest.raises(HDZooError, match="gradient_accumulation_steps was 1 and is 2"):
        run(reference, digits, with_config(gradient_accumulation_steps=2))
    with pytest.raises(HDZooError, match="initial_weights was None and is 'abc'"):
        run(reference, digits, with_config(initial_weights="abc"))
    latest = latest_checkpoint(reference / "checkpoints")
    now = latest.protocol | {"num_processes": 2}
    with pytest.raises(HDZooError, match="num_processes was 1 and is 2"):
        check_same_run(reference, latest.protocol, now, 30)


def test_other_rounding_is_said(tmp_path, digits):
    run(tmp_path, digits, with_config(max_train_steps=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(
            UserWarning, match=rf"threads_per_process was {threads} and is {threads + 1}"
        ):
            run(tmp_path, digits, with_config(max_train_steps=3))
    finally:
        torch.set_num_threads(threads)


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


# ---- a folder from elsewhere ------------------------------------------------------------------


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


PICKLES = (
    "custom_checkpoint_0.pkl",
    "custom_checkpoint_1.pkl",
    "optimizer.bin",
    "scheduler.bin",
    "sampler.bin",
    "scaler.pt",
    "random_states_0.pkl",
    "pytorch_model.bin",
    "dl_state_dict.bin",
)


@pytest.mark.parametrize("kept", [True, False])
def test_no_pickle_of_a_run_folder_is_opened(tmp_path, digits, kept):
    """As Accelerate's checkpoints have them, beside one of this version and without it."""
    folder, mark = tmp_path / "run", tmp_path / "mark"
    run(folder, digits, with_config(max_train_steps=2))
    places = [folder, folder / "checkpoints", folder / "unet"]
    if not kept:
        old = folder / "checkpoints" / "step-0000002"
        old.mkdir()
        (old / "training_state.json").write_text("{}")
        places.append(old)
        latest_path(folder).unlink()
    for place in places:
        for name in PICKLES:
            (place / name).write_bytes(pickle.dumps(Bomb(mark)))
    if kept:
        run(folder, digits, with_config(max_train_steps=4))
    else:
        with pytest.raises(HDZooError, match=r"pickles, which could run code .* another output"):
            run(folder, digits, with_config(max_train_steps=4))
    assert not mark.exists()


def latest_path(folder):
    return latest_checkpoint(folder / "checkpoints").path


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path, digits):
    run(tmp_path, digits, with_config(max_train_steps=2))
    path = latest_path(tmp_path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    places = [header, len(whole) // 2, len(whole) - 1, whole.index(b'\\"step\\": 2') + 10]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(HDZooError, match="damaged"):
            run(tmp_path, digits, with_config(max_train_steps=3))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HDZooError, match=r"or damaged: .*remove it to train from the start"):
        run(tmp_path, digits, with_config(max_train_steps=3))
    path.write_bytes(whole)
    run(tmp_path, digits, with_config(max_train_steps=3))


LINKED = ("checkpoints", "samples", "logs", "unet", "scheduler")


def test_links_in_a_run_folder_are_not_followed(tmp_path, digits):
    victims = tmp_path / "victims"
    victims.mkdir()
    for name in LINKED:
        folder, victim = tmp_path / f"run-{name}", victims / name
        folder.mkdir()
        victim.mkdir()
        (victim / ".partial-1-mine").write_bytes(b"mine")
        (folder / name).symlink_to(victim)
        with pytest.raises(HDZooError, match=f"{name} is a link"):
            run(folder, digits, with_config(max_train_steps=1), sample_every=1)
        assert os.listdir(victim) == [".partial-1-mine"]

    folder = tmp_path / "run"
    (folder / "unet").mkdir(parents=True)
    files = (".gitignore", "losses.jsonl", "loss.png", "samples.png", "training.json", "README.md")
    for name in (*files, "model_index.json", "unet/config.json"):
        victim = victims / name.replace("/", "-")
        (folder / name).symlink_to(victim)
    run(folder, digits, with_config(max_train_steps=1), num_samples=1)
    assert sorted(os.listdir(victims)) == sorted(LINKED)
    HDPipeline.from_pretrained(folder)


def test_a_folder_in_use_is_refused(tmp_path, digits):
    with exclusive(tmp_path / "x"), pytest.raises(HDZooError, match="x is in use by another run"):
        run(tmp_path / "x", digits, with_config(max_train_steps=1))


def test_a_file_in_the_place_of_the_folder_is_refused_before_the_work(tmp_path, digits, at_step):
    (tmp_path / "x").write_bytes(b"mine")
    at_step(1, pytest.fail)
    with pytest.raises(HDZooError, match=r"cannot write to .*x: Not a directory"):
        run(tmp_path / "x", digits)
    assert os.listdir(tmp_path) == ["x"]


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


def test_bf16_trains_and_the_loss_is_measured_in_float32(tmp_path, digits, reference):
    held_out = load_images("digits", "test")
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


def test_random_flips_follow_seed_and_step(tmp_path, digits, reference):
    flipped = with_config(random_flip=True)
    for name in ("one", "two"):
        run(tmp_path / name, digits, flipped)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(reference))


def test_training_does_not_touch_the_callers_generator(tmp_path, digits):
    model = unet()
    before = torch.get_rng_state()
    run(tmp_path, digits, with_config(max_train_steps=2), model=model)
    assert torch.equal(torch.get_rng_state(), before)


# ---- networks -------------------------------------------------------------------------------


def score_unet():
    """diffusers' own network, which is told sigma and divides its output by it."""
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
        time_embedding_type="fourier",
    )
    network.register_to_config(sigma_min=0.1, sigma_max=2.0, data_range=(0.0, 1.0))
    return network


def ncsn(cls):
    return cls(
        sample_size=8, in_channels=1, base_channels=8, sigma_min=0.1, num_levels=4, sigma_max=1
    )


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
        ("max_train_steps", 0, "must be positive"),
        ("learning_rate", math.nan, "must be positive"),
        ("lr_warmup_steps", -1, "must not be negative"),
        ("ema_decay", 1.0, r"must be in \[0, 1\)"),
    ],
)
def test_impossible_options_are_refused(option, value, message):
    with pytest.raises(HDZooError, match=f"{option} is .*{message}"):
        TrainingConfig(**{option: value})


def test_data_smaller_than_a_batch_is_refused(tmp_path, digits):
    with pytest.raises(HDZooError, match="has 5 images and train_batch_size is 8"):
        run(tmp_path, digits.select(range(5)))


# ---- what a run writes ----------------------------------------------------------------------


def test_the_folder_is_ready_for_the_hub(tmp_path, digits, monkeypatch):
    folder = tmp_path / "tiny-digits"
    sampler = AnnealedLangevinSampler(
        sigma_max=5, sigma_min=0.1, num_levels=4, steps_per_level=2, prediction_type="sample"
    )
    run(
        folder,
        digits,
        with_config(max_train_steps=3),
        held_out=load_images("digits", "test"),
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
    assert record["num_images"] == 1500
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


def test_grids_of_samples_do_not_disturb_the_weights(tmp_path, digits, reference):
    run(tmp_path, digits, sample_every=15)
    grids = sorted((tmp_path / "samples").iterdir())
    assert [grid.name for grid in grids] == ["000015.png", "000030.png"]
    with Image.open(grids[0]) as grid:
        assert grid.size == (32, 32)
        assert len(grid.getcolors()) > 10
    assert same(everything(tmp_path), everything(reference))
    assert same(weights(tmp_path), weights(reference))


def test_a_sampler_that_diverges_does_not_end_the_training(tmp_path, digits, monkeypatch):
    def diverge(*args, **kwargs):
        raise HDZooError("samples are not finite")

    monkeypatch.setattr(HDPipeline, "__call__", diverge)
    with pytest.warns(UserWarning, match=r"no samples in 000002.png: samples are not finite"):
        run(tmp_path, digits, with_config(max_train_steps=2), sample_every=2)
    assert (tmp_path / "training.json").is_file()


def test_tensorboard_has_the_mean_loss_and_the_rate(tmp_path, digits, monkeypatch, at_step, kill):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, losses = with_config(max_train_steps=50, train_batch_size=2), []
    inner = runs.training_loss

    def recorded(*args):
        losses.append(inner(*args))
        return losses[-1]

    monkeypatch.setattr(runs, "training_loss", recorded)
    at_step(25, kill)
    with pytest.raises(StoppedError):
        run(tmp_path, digits, config, checkpoint_every=20)
    del losses[20:]
    run(tmp_path, digits, config, tracker="tensorboard")
    assert len(losses) == 50
    log = EventAccumulator(str(tmp_path / "logs" / "hdzoo")).Reload()
    (loss,), (rate,) = log.Scalars("loss"), log.Scalars("lr")
    assert loss.step == rate.step == 50
    # Sums of 50 float32 numbers.
    assert loss.value == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert rate.value == pytest.approx(2e-3)


# ---- what it says of the loss ------------------------------------------------------------------


def lines(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stop", [None, 33, 57])
def test_the_log_has_the_mean_of_every_fifty_steps(
    tmp_path, digits, monkeypatch, at_step, stop, interrupt
):
    losses, inner = [], runs.training_loss

    def recorded(*args):
        losses.append(inner(*args))
        return losses[-1]

    monkeypatch.setattr(runs, "training_loss", recorded)
    config = with_config(max_train_steps=110, train_batch_size=2)
    if stop is not None:
        at_step(stop, interrupt)
        with pytest.raises(StoppedError):
            run(tmp_path, digits, config)
    run(tmp_path, digits, config)
    assert len(losses) == 110
    parts = {50: losses[:50], 100: losses[50:100], 110: losses[100:]}
    assert [line["step"] for line in lines(tmp_path)] == list(parts)
    for line in lines(tmp_path):
        # Sums of 50 float32 numbers.
        expected = torch.stack(parts[line["step"]]).double().mean().item()
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
        assert line["learning_rate"] == pytest.approx(2e-3)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["loss"] == lines(tmp_path)[-1]["loss"]


def test_held_out_loss_on_the_way_is_that_of_the_average(
    tmp_path, digits, at_step, kill, reference
):
    held_out = load_images("digits", "test")
    options = {"held_out": held_out, "held_out_every": 10, "checkpoint_every": 20}
    at_step(25, kill)
    with pytest.raises(StoppedError):
        run(tmp_path, digits, **options)
    run(tmp_path, digits, **options)
    found = {line["step"]: line["held_out_loss"] for line in lines(tmp_path) if "loss" not in line}
    assert list(found) == [10, 20, 30]
    # All 297 images, which are fewer than 1,000: what the network's config has at the end.
    assert found[30] == HDPipeline.from_pretrained(tmp_path).unet.config.held_out_loss
    assert np.mean(found[30]["loss"]) < np.mean(found[10]["loss"])
    # To measure is not to disturb.
    assert same(weights(tmp_path), weights(reference))
    with pytest.raises(HDZooError, match="give held_out as well"):
        run(tmp_path, digits, held_out_every=10)


def test_long_ladders_and_large_sets_are_thinned_on_the_way(tmp_path, digits, monkeypatch):
    seen = []
    monkeypatch.setattr(
        runs, "held_out_loss", lambda network, loader, *args, **kwargs: seen.append(loader) or {}
    )
    many = concatenate_datasets([digits, digits.select(range(600))])
    run(tmp_path, digits, with_config(max_train_steps=1), held_out=many, held_out_every=1)
    assert len(seen[0].dataset) == 700

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
        (unet, "ConsistentAnnealedSampler", 200),
        (lambda: unet(sigma_max=400.0), "ConsistentAnnealedSampler", 200),
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
    assert max(levels) == pytest.approx(float(network.config.sigma_max), rel=1e-4)
    pipe = HDPipeline(network, sampler)
    assert pipe(1, output_type="pt").images.shape == (1, 1, 8, 8)
    if cost == 200:
        # At any other cost as well.
        assert pipe(1, 2, output_type="pt").images.isfinite().all()


def ladder(number):
    return NCSNv2Model(
        sample_size=8, in_channels=1, base_channels=8, sigma_max=50, num_levels=number
    )


# ---- processes ------------------------------------------------------------------------------


PARALLEL = """
    import json, os, sys
    from pathlib import Path
    import torch
    from datasets import Dataset, Features, Image
    from PIL import Image as Pictures
    from hdzoo.models.unet import UNetScoreModel
    from hdzoo.training import run, trainer

    images = [Pictures.new("L", (8, 8), 3 * i) for i in range(24)]
    data = Dataset.from_dict({"image": images}, features=Features({"image": Image()}))
    config = trainer.TrainingConfig(
        max_train_steps=6, train_batch_size=8, sigma_distribution="log-normal"
    )
    torch.manual_seed(0)
    seen, original = [], run.training_loss

    def training_loss(model, network, images, *args):
        seen.append((images[:, 0, 0, 0] * 85).round().int().tolist())
        return original(model, network, images, *args)

    run.training_loss = training_loss
    folder = Path(sys.argv[1])
    options = {"checkpoint_every": 4, "num_samples": 0}
    trainer.train(UNetScoreModel(**UNET), data, folder / "out", config, **options)
    (folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def test_two_processes_share_each_epoch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"UNET = {UNET!r}\n" + textwrap.dedent(PARALLEL))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, script, tmp_path],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(2)]
    assert all(len(batch) == 4 for rank in ranks for batch in rank)
    for epoch in (slice(3), slice(3, 6)):
        shown = [image for rank in ranks for batch in rank[epoch] for image in batch]
        assert sorted(shown) == list(range(24))
    assert json.loads((tmp_path / "out" / "training.json").read_text())["num_processes"] == 2
    HDPipeline.from_pretrained(tmp_path / "out")
