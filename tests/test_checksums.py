"""Files of tensors that know their checksum: no flipped bit goes unnoticed."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdzoo import HDPipeline, UNetScoreModel
from hdzoo.bundled import bundled_folder
from hdzoo.checksums import CHECKSUM, add_checksum, check_tensors, content_hash, save_tensors
from hdzoo.errors import HDZooError

TENSORS = {
    "half": torch.tensor([0.5, -1.5], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "flags": torch.tensor([[True], [False]]),
    "phase": torch.tensor([1j], dtype=torch.complex64),
    "none": torch.zeros(0, 4),
}
SAID = {"format": "pt", "protocol": '{"seed": 0, "name": "ä"}'}


def content(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = dict(file.metadata())
    said.pop(CHECKSUM, None)
    return {name: (str(t.dtype), t.tolist()) for name, t in tensors.items()}, said


def test_what_is_saved_comes_back(tmp_path):
    save_tensors(TENSORS, tmp_path / "x.safetensors", SAID)
    assert check_tensors(tmp_path / "x.safetensors")
    expected = {name: (str(t.dtype), t.tolist()) for name, t in TENSORS.items()}
    assert content(tmp_path / "x.safetensors") == (expected, SAID)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(TENSORS, path, SAID)
    whole, original = path.read_bytes(), content(path)
    unnoticed = 0
    for place in range(len(whole)):
        for bit in (0, 3, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                check_tensors(path)
            except HDZooError:
                continue
            # In the key of the checksum, or in the padding: nothing is lost.
            assert content(path)[0] == original[0], place
            unnoticed += 1
    assert unnoticed <= 3 * (len(CHECKSUM) + 8)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    # The order of safetensors' metadata is another at each writing.
    said = {f"key {i}": str(i) for i in range(8)}
    files = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for path in files:
        save_tensors(TENSORS, path, said)
    assert len({path.read_bytes() for path in files}) == 1


def test_the_hash_is_of_names_dtypes_shapes_and_values():
    def of(said=None, **tensors):
        return content_hash(sorted(tensors.items()), said)

    x = torch.arange(4.0)
    hashes = [
        of(x=x),
        of(y=x),
        of(x=x.double()),
        of(x=x.view(2, 2)),
        of(x=-x),
        of(x=x[:2], y=x[2:]),
        of({"a": "b"}, x=x),
    ]
    assert len(set(hashes)) == len(hashes)
    assert of(x=x.view(2, 2).T) == of(x=torch.tensor([[0.0, 2.0], [1.0, 3.0]]))


def test_tensors_that_share_memory_are_saved(tmp_path):
    x = torch.arange(4.0)
    save_tensors({"x": x, "y": x}, tmp_path / "x.safetensors")
    assert all(torch.equal(t, x) for t in load_file(tmp_path / "x.safetensors").values())


def test_a_file_without_checksum_is_as_it_was(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, SAID)
    before = content(path)
    assert not check_tensors(path)
    add_checksum(path)
    assert check_tensors(path)
    assert content(path) == before


def test_what_is_no_such_file_is_one_message(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert not check_tensors(path)
    for content in (b"", b"\xff" * 16):
        path.write_bytes(content)
        with pytest.raises(HDZooError, match="cannot be read, or is damaged"):
            check_tensors(path)


@pytest.mark.parametrize("path", sorted(bundled_folder().rglob("*.safetensors")), ids=str)
def test_what_travels_with_hdzoo_knows_its_checksum(path):
    assert check_tensors(path)


def test_damaged_weights_are_no_network(tmp_path):
    folder = bundled_folder() / "ncsn-mnist"
    shutil.copytree(folder, tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1000] ^= 1
    weights.write_bytes(damaged)
    for load in (
        lambda: HDPipeline.from_pretrained(tmp_path / "model"),
        lambda: UNetScoreModel.from_pretrained(tmp_path / "model", subfolder="unet"),
        lambda: UNetScoreModel.from_pretrained(str(tmp_path / "model" / "unet")),
    ):
        with pytest.raises(HDZooError, match="is damaged: its content has the SHA-256"):
            load()
