"""A run's folder may come from elsewhere: nothing in it runs, is followed, or passes damaged."""

import os
import pickle

import pytest
from training_runs import (
    latest_path,
    run,
    with_config,
)

from hdzoo import HDPipeline
from hdzoo.errors import HDZooError
from hdzoo.files import exclusive


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


@pytest.mark.usefixtures("curve")
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
