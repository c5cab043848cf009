"""Saving a pipeline: what it replaces, what it leaves alone, what is noticed when it is read."""

import os

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from hdzoo import HDPipeline
from hdzoo.errors import HDZooError
from hdzoo.hub.pulling import pull
from hdzoo.models.unet import UNetScoreModel
from hdzoo.samplers.consistent import ConsistentAnnealedSampler

WEIGHTS = "diffusion_pytorch_model"


def pipeline(seed):
    torch.manual_seed(seed)
    network = UNetScoreModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4)
    sampler = ConsistentAnnealedSampler(num_levels=4, steps_per_level=2, prediction_type="sample")
    return HDPipeline(network, sampler)


@pytest.fixture
def first():
    return pipeline(0)


@pytest.fixture
def second():
    return pipeline(1)


def weights(folder, **options):
    return HDPipeline.from_pretrained(folder, **options).unet.state_dict()


def same(pipe, folder, **options):
    found = weights(folder, **options)
    return all(
        torch.equal(found[k], v.to(found[k].dtype)) for k, v in pipe.unet.state_dict().items()
    )


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_one_file_takes_the_place_of_many_and_many_of_one(tmp_path, first, second):
    first.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("unet/*-of-*"))) > 2
    second.save_pretrained(tmp_path)
    assert files(tmp_path / "unet") == ["config.json", f"{WEIGHTS}.safetensors"]
    assert same(second, tmp_path)
    first.save_pretrained(tmp_path, max_shard_size="20KB")
    assert f"unet/{WEIGHTS}.safetensors" not in files(tmp_path)
    assert same(first, tmp_path)
    # Fewer parts than before leave none of these.
    second.save_pretrained(tmp_path, max_shard_size="60KB")
    assert same(second, tmp_path)
    assert len({name.rpartition("-of-")[2] for name in files(tmp_path) if "-of-" in name}) == 1


def test_a_save_leaves_what_is_not_its_own(tmp_path, first, second):
    first.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    others = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if "fp16" in name}
    assert len(others) > 3
    mine = {"README.md": b"mine", "unet/notes.txt": b"mine", f"unet/{WEIGHTS}.bin": b"a pickle"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    second.save_pretrained(tmp_path)
    for name, content in (others | mine).items():
        assert (tmp_path / name).read_bytes() == content
    assert same(first, tmp_path, variant="fp16")
    assert same(second, tmp_path)
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_stale_list_of_parts_is_named(tmp_path, first):
    """As a folder is in which other programs have saved many files, and then one."""
    first.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    first.save_pretrained(tmp_path / "whole")
    stale = tmp_path / "parts" / "unet" / f"{WEIGHTS}.safetensors.index.json"
    (tmp_path / "whole" / "unet" / stale.name).write_bytes(stale.read_bytes())
    with pytest.raises(HDZooError, match=r"not there, .*-00001-.*remove the list to load that"):
        HDPipeline.from_pretrained(tmp_path / "whole")


@pytest.mark.parametrize("parts", [{}, {"max_shard_size": "20KB"}, {"variant": "fp16"}])
def test_one_flipped_bit_is_noticed(tmp_path, first, parts):
    folder = tmp_path / "x"
    first.save_pretrained(folder, **parts)
    path = max(folder.glob("unet/*.safetensors"))
    content = bytearray(path.read_bytes())
    # The lowest bit of a weight: nobody would see it.
    content[-4] ^= 1
    path.write_bytes(content)
    variant = parts.get("variant")
    with pytest.raises(HDZooError, match=rf"{path.name} is damaged: .*save it again"):
        HDPipeline.from_pretrained(folder, variant=variant)
    with pytest.raises(HDZooError, match="is damaged"):
        pull(str(folder), tmp_path / "copy", variant=variant)
    assert os.listdir(tmp_path) == ["x"]


def test_a_network_alone_knows_its_checksum(tmp_path, first):
    first.unet.save_pretrained(tmp_path)
    (tmp_path / "mine.safetensors").write_bytes(b"as it is")
    first.unet.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "mine.safetensors").read_bytes() == b"as it is"
    (tmp_path / "mine.safetensors").unlink()
    path = tmp_path / f"{WEIGHTS}.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(HDZooError, match=rf"{path.name} is damaged"):
        UNetScoreModel.from_pretrained(tmp_path)


def test_weights_that_are_not_there_are_an_oserror_as_in_diffusers(tmp_path, first):
    first.unet.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(OSError, match="Error no file named") as caught:
        UNetScoreModel.from_pretrained(tmp_path)
    assert isinstance(caught.value, HDZooError)


def test_what_other_programs_have_saved_loads_as_before(tmp_path, first, second):
    first.save_pretrained(tmp_path)
    second.unet.save_pretrained(tmp_path / "unet")
    assert same(second, tmp_path)
    DiffusionPipeline.save_pretrained(first, tmp_path)
    assert same(first, tmp_path)
    # And they read what hdzoo saves.
    second.save_pretrained(tmp_path)
    again = UNetScoreModel.from_pretrained(tmp_path, subfolder="unet").state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights(tmp_path).items())


def test_the_same_pipeline_gives_the_same_bytes(tmp_path, first):
    for name in ("a", "b"):
        first.save_pretrained(tmp_path / name)
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_links_are_not_followed(tmp_path, first, second):
    folder, elsewhere = tmp_path / "x", tmp_path / "elsewhere"
    first.save_pretrained(folder)
    elsewhere.mkdir()
    for name in (f"unet/{WEIGHTS}.safetensors", "unet/config.json", "model_index.json"):
        victim = elsewhere / name.replace("/", "-")
        (folder / name).rename(victim)
        (folder / name).symlink_to(victim)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    second.save_pretrained(folder)
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert same(second, folder)
    (folder / "scheduler").rename(elsewhere / "scheduler")
    (folder / "scheduler").symlink_to(elsewhere / "scheduler")
    with pytest.raises(HDZooError, match=r"scheduler is a link"):
        first.save_pretrained(folder)
    assert same(second, folder)


def test_a_place_that_is_no_folder_is_refused(tmp_path, first, monkeypatch):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(HDZooError, match=r"cannot write to .*file: Not a directory"):
        first.save_pretrained(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    for nothing in (None, ""):
        with pytest.raises(HDZooError, match="give a name or a path"):
            first.save_pretrained(nothing)
    assert os.listdir(tmp_path) == ["file"]


def test_a_save_that_fails_leaves_the_old_pipeline(tmp_path, first, second, monkeypatch):
    first.save_pretrained(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hdzoo.checksums.save_file", fail)
    with pytest.raises(HDZooError, match="No space left on device"):
        second.save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_weights_without_a_checksum_load(tmp_path, first):
    first.save_pretrained(tmp_path)
    path = tmp_path / "unet" / f"{WEIGHTS}.safetensors"
    save_file(load_file(path), path)
    assert same(first, tmp_path)
