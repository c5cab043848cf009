"""Runs that are stopped: with which they go on, with which not, and to what."""

import dataclasses
import json
import os
import signal
import textwrap

import processes
import pytest
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import load_file
from training_runs import (
    UNET,
    everything,
    last_step,
    raw_weights,
    run,
    same,
    unet,
    weights,
    with_config,
)

from hdzoo import HDPipeline
from hdzoo.checksums import save_tensors
from hdzoo.errors import HDZooError, StoppedError
from hdzoo.training.checkpoints import STATE, latest_checkpoint
from hdzoo.training.outcome import result_lines
from hdzoo.training.protocol import check_same_run


def rewrite(folder, change):
    """Changes the JSON of the last checkpoint, checksum and all."""
    path = latest_checkpoint(folder / "checkpoints").path
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()[STATE])
    change(state)
    save_tensors(load_file(path), path, {STATE: json.dumps(state)})


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from hdzoo.models.unet import UNetScoreModel
    from hdzoo.images.sources import load_images
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
                max_train_steps=40, train_batch_size=8, learning_rate=2e-3, lr_warmup_steps=5,
                sigma_distribution="log-normal", loss_weighting="karras", random_flip=True,
            )
            options = {"checkpoint_every": 5, "num_samples": 0}
            train(UNetScoreModel(**UNET), digits, folder, config, **options)
            status = 0
        finally:
            os._exit(status)

    def wait_for(pid, pattern, seen):
        while not set(checkpoints.glob(pattern)) - seen:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "ended too early"
            # What is written is there for milliseconds.
            time.sleep(0.0005 if pattern == ".partial-*" else 0.01)

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
    done = processes.run("-c", code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 5
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert same(everything(killed), everything(whole))
    for file in ("unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    assert os.listdir(killed / "checkpoints") == ["step-0000040.safetensors"]
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


def test_time_that_is_up_leaves_a_pipeline_and_a_checkpoint(tmp_path, digits, reference):
    """Each call makes the one step that it always does."""
    for step in (1, 2):
        run(
            tmp_path,
            digits,
            keep_checkpoints=False,
            max_train_minutes=1e-9,
            command="hdzoo train --and-so on",
        )
        assert last_step(tmp_path) == step
        HDPipeline.from_pretrained(tmp_path)
        assert json.loads((tmp_path / "training.json").read_text())["step"] == step
        where = f"stopped after {step} of 30 steps"
        assert where in (tmp_path / "README.md").read_text()
        (first, second) = result_lines(tmp_path)
        assert where in first
        assert second == "hdzoo train --and-so on"
    (tmp_path / "checkpoints").rename(tmp_path / "kept")
    with pytest.raises(HDZooError, match="stopped after 2 of 30 steps, without the checkpoint"):
        run(tmp_path, digits)
    (tmp_path / "kept").rename(tmp_path / "checkpoints")
    run(tmp_path, digits, max_train_minutes=1000)
    assert same(everything(tmp_path), everything(reference))
    assert same(weights(tmp_path), weights(reference))
    assert (tmp_path / "losses.jsonl").read_bytes() == (reference / "losses.jsonl").read_bytes()
    assert "stopped" not in (tmp_path / "README.md").read_text()
    assert len(result_lines(tmp_path)) == 1


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), "5", True])
def test_time_is_a_positive_number(tmp_path, digits, minutes):
    with pytest.raises(HDZooError, match="max_train_minutes"):
        run(tmp_path, digits, max_train_minutes=minutes)
    assert not list(tmp_path.iterdir())


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


@pytest.mark.usefixtures("curve")
def test_a_finished_run_stays_as_it_is(tmp_path, digits, held_out):
    config = with_config(max_train_steps=3)

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
    with pytest.raises(HDZooError, match="images was 240 and is 100"):
        run(reference, digits.select(range(100)))
    others = Dataset.from_list([*digits.select(range(239)), digits[0]], features=digits.features)
    with pytest.raises(HDZooError, match=r"another run: images_sha256 was '\w+' and is '\w+'\."):
        run(reference, others)
    with pytest.raises(HDZooError, match=r"block_out_channels was \[8\] and is \[8, 24\]"):
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
        max_train_steps=6, train_batch_size=8, sigma_distribution="log-normal",
        objective="implicit",
    )
    torch.manual_seed(0)
    seen, original = [], run.Run.loss

    def loss(self, images, *draws):
        seen.append((images[:, 0, 0, 0] * 85).round().int().tolist())
        return original(self, images, *draws)

    run.Run.loss = loss
    folder = Path(sys.argv[1])
    options = {"checkpoint_every": 4, "num_samples": 0}
    trainer.train(UNetScoreModel(**UNET), data, folder / "out", config, **options)
    (folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def test_two_processes_share_each_epoch(tmp_path):
    """With an objective of derivatives, which a wrapped network would not have."""
    script = tmp_path / "script.py"
    script.write_text(f"UNET = {UNET!r}\n" + textwrap.dedent(PARALLEL))
    log = tmp_path / "log"
    launched = processes.launch(2, script, tmp_path, out=log)
    for process in launched:
        process.join()
    assert [process.exitcode for process in launched] == [0, 0], log.read_text()[-2000:]
    ranks = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(2)]
    assert all(len(batch) == 4 for rank in ranks for batch in rank)
    for epoch in (slice(3), slice(3, 6)):
        shown = [image for rank in ranks for batch in rank[epoch] for image in batch]
        assert sorted(shown) == list(range(24))
    assert json.loads((tmp_path / "out" / "training.json").read_text())["num_processes"] == 2
    HDPipeline.from_pretrained(tmp_path / "out")
