"""Files that cannot be converted: a clear error, nothing executed, and no folder left."""

import os
import pickle
from zipfile import ZipFile

import pytest
import torch

from hdzoo import HDZooError, NCSNModel, NCSNppModel, NCSNv2Model
from hdzoo.conversion.convert import convert
from hdzoo.files import whole_folder


class Bomb:
    """Writes a file when a pickle of it is opened without care."""

    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def refuse(tmp_path):
    """Converts, and gives the message of the error that must come of it."""

    def call(path, **options):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(HDZooError) as caught:
            convert(path, tmp_path / "out", **options)
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    return call


@pytest.fixture(scope="module")
def networks():
    return {
        "ncsn": NCSNModel(base_channels=2),
        "ncsnv2": NCSNv2Model(base_channels=2),
        "ncsnpp": NCSNppModel(base_channels=4, channel_multipliers=(1, 1), num_res_blocks=1),
    }


every = pytest.mark.parametrize("family", ["ncsn", "ncsnv2", "ncsnpp"])


@pytest.mark.parametrize("kind", ["zip", "before 1.6", "plain", "deep inside"])
def test_pickle_bomb(kind, checkpoints, refuse, networks, tmp_path):
    mark = tmp_path / "executed"
    weights = checkpoints.published(networks["ncsn"])
    path = tmp_path / "checkpoint.pth"
    if kind == "plain":
        path.write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    elif kind == "deep inside":
        path = checkpoints.write({"model": weights, "ema": {"shadow_params": [Bomb(mark)]}})
    else:
        path = checkpoints.write([weights, Bomb(mark)], zipped=kind == "zip")
    message = refuse(path)
    assert not mark.exists()
    if kind != "plain":
        assert "wants to run 'posix.system'" in message
        assert "nothing of it was run" in message
    # It would have gone off.
    if kind == "plain":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_file(zipped, share, checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsn"])
    path = checkpoints.write([weights, {}], zipped=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message = refuse(path)
    assert "damaged, cut off" in message
    assert "Download it again" in message


@pytest.mark.parametrize("content", [b"hello\n" * 9, b"\x00" * 99, b"\x80\x02."])
def test_other_kinds_of_files(content, tmp_path, refuse):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    assert "cannot be read as a checkpoint" in refuse(path)


def test_one_flipped_bit_in_a_zip(checkpoints, refuse, networks):
    path = checkpoints.write(checkpoints.published(networks["ncsn"]), zipped=True)
    whole = path.read_bytes()
    with ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size > 64]
    assert len(entries) > 10
    for entry in entries[::5]:
        # Well behind the entry's own header and name; the lowest bit of a weight.
        place = entry.header_offset + 30 + len(entry.filename) + 64 + entry.file_size // 2
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert "is not what was written, by its checksum" in refuse(path)


def test_no_file(tmp_path, refuse):
    assert "there is no checkpoint" in refuse(tmp_path / "missing.pth")
    (tmp_path / "folder").mkdir()
    assert "there is no checkpoint" in refuse(tmp_path / "folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2, 3], "a list of 3"),
        ({"weights": 1, "epoch": 2}, "'weights', 'epoch'"),
        (torch.zeros(2), "a Tensor"),
        ({}, "dict of 0"),
        ([{"a": 1}, {}], "the first entry is no dict of tensors"),
        ([{"a": torch.zeros(1)}, {}, 1, 2, [3]], "the fifth entry is no dict of tensors"),
        ({"model": 3}, "the entry 'model' is no dict of tensors"),
        ({"conv.weight": torch.zeros(1)}, "those of no network that hdzoo converts"),
    ],
)
def test_other_layouts(content, message, checkpoints, refuse):
    assert message in refuse(checkpoints.write(content))


@every
def test_missing_key(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    for key in (list(weights)[-1], list(weights)[len(weights) // 2], list(weights)[1]):
        rest = {name: value for name, value in weights.items() if name != key}
        message = refuse(checkpoints.write(rest))
        assert key.removesuffix(".W") in message
        assert "lacks" in message or "missing" in message


@every
def test_extra_key(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    prefix = "all_modules.4." if family == "ncsnpp" else "res1.0."
    for key in ("other.weight", f"{prefix}Conv_9.weight"):
        message = refuse(checkpoints.write(weights | {key: torch.zeros(2)}))
        assert key in message
        assert "left over" in message or "has" in message


@every
def test_wrong_shape(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    for key in (list(weights)[-1], list(weights)[len(weights) // 2]):
        message = refuse(checkpoints.write(weights | {key: torch.zeros(3, 7)}))
        assert f"{key} is [3, 7] instead of {list(weights[key].shape)}" in message or (
            key.rpartition(".")[0] in message
        )


@every
def test_all_weights_of_a_part_missing(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    part = "all_modules.7." if family == "ncsnpp" else "refine2."
    rest = {key: value for key, value in weights.items() if not key.startswith(part)}
    assert part.rstrip(".") in refuse(checkpoints.write(rest))


@every
def test_weights_that_are_not_finite(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    key = list(weights)[-1]
    broken = weights | {key: torch.full_like(weights[key], float("nan"))}
    assert f"not finite, '{key}' first" in refuse(checkpoints.write(broken))


def test_averaged_weights_of_another_network(checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsnv2"])
    shadow = {key: value for key, value in weights.items() if key != "sigmas"}
    first, *rest = shadow
    message = refuse(checkpoints.ncsnv2(weights, {key: shadow[key] for key in rest}))
    assert "the averaged weights do not fit" in message
    assert f"1 missing: {first}" in message
    message = refuse(checkpoints.ncsnv2(weights, shadow | {first: torch.zeros(3)}))
    assert f"{first} is [3] instead of" in message
    message = refuse(checkpoints.ncsnv2(weights, shadow | {"more": torch.zeros(3)}))
    assert "1 left over: more" in message


def test_averaged_list_of_another_network(checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsnpp"])
    shadow = [value for key, value in weights.items() if checkpoints.is_trained(key)]
    message = refuse(checkpoints.score_sde(weights, shadow[1:]))
    assert f"{len(shadow) - 1} averaged weights" in message
    assert f"{len(shadow)} that are trained" in message
    swapped = [shadow[1], shadow[0], *shadow[2:]]
    assert "of another shape" in refuse(checkpoints.score_sde(weights, swapped))
    assert "no list of averaged weights" in refuse(checkpoints.score_sde(weights, None))


def test_spectral_norm_is_not_known(checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsnv2"])
    key = "res1.0.conv1.weight"
    weights[f"{key}_orig"] = weights.pop(key)
    message = refuse(checkpoints.write(weights))
    assert f"1 missing: {key}; 1 left over: {key}_orig" in message


def test_unknown_noise_levels(checkpoints, refuse):
    path = checkpoints.any(NCSNModel(base_channels=2, num_levels=7))
    message = refuse(path)
    assert "7 noise levels and does not say which" in message
    assert "--config" in message


def test_noise_levels_that_ascend(checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsnv2"])
    path = checkpoints.ncsnv2(weights | {"sigmas": weights["sigmas"].flip(0)})
    assert "descending" in refuse(path)


def test_unknown_image_size(checkpoints, refuse):
    path = checkpoints.any(NCSNv2Model(base_channels=2, sigma_max=7.0, num_levels=9))
    assert "does not tell the size of its images" in refuse(path)


def test_ddpmpp_is_no_ncsnpp(checkpoints, refuse, tmp_path):
    network = NCSNppModel(base_channels=4, num_res_blocks=1, progressive_input="none")
    assert "variance-preserving" in refuse(checkpoints.any(network))
    config = tmp_path / "config.yml"
    config.write_text("training: {sde: vpsde}\n")
    assert "sde = 'vpsde'" in refuse(checkpoints.any(network), config=config)


def test_wrong_dataset(checkpoints, refuse, networks):
    path = checkpoints.any(networks["ncsnv2"])
    message = refuse(path, dataset="imagenet")
    assert "'imagenet'" in message
    assert "cifar10, celeba, church" in message
    message = refuse(path, dataset="celeba")
    assert "232 noise levels" in message
    assert "those of cifar10" in message
    assert "3 channel(s)" in refuse(checkpoints.any(networks["ncsn"]), dataset="mnist")


def test_wrong_source(checkpoints, refuse, networks):
    path = checkpoints.any(networks["ncsnv2"])
    assert "unknown source 'hub'; allowed are ncsn, ncsnv2, score" in refuse(path, source="hub")
    message = refuse(path, source="score_sde_pytorch")
    assert "a network of the family ncsnv2 and is given as a checkpoint of score_sde" in message
    weights = checkpoints.published(networks["ncsnv2"])
    message = refuse(checkpoints.ncsn(weights))
    assert "in the layout of ncsn, of which hdzoo converts ncsn; say where" in message
    assert "--source ncsnv2" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {ngf: 128}", "ngf = 128, and the weights say 2"),
        ("data: {channels: 1}", "channels = 1, and the weights say 3"),
        ("model: {num_classes: 10}", "num_classes = 10, and the weights say 232"),
        ("model: {sigma_begin: 1}", "sigma_begin = 1, and the weights say 50.0"),
        ("data: {logit_transform: true}", "logit_transform = True, and hdzoo has no such"),
        ("model: {nonlinearity: relu}", "nonlinearity = 'relu'"),
        ("model: {normalization: BatchNorm}", "normalization = 'BatchNorm'"),
        ("data: {image_size: big}", "image_size = 'big'; it must be a number"),
        ("data: {image_size: [3]}", "image_size = [3]; it must be a number"),
        ("data: {image_size: 0}", "image_size = 0"),
        ("sampling: {step_lr: 1}", "step_size"),
        ("sampling: {n_steps_each: 0}", "steps_per_level"),
        ("- 1", "holds a list"),
        ("", "holds a NoneType"),
        ("{}", "says nothing"),
        ("a: [", "cannot be read as YAML"),
        ("a: !custom 3", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_wrong_config(text, message, checkpoints, refuse, networks, tmp_path):
    config = tmp_path / "config.yml"
    config.write_text(text)
    assert message in refuse(checkpoints.any(networks["ncsnv2"]), config=config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {nf: 128}", "nf = 128, and the weights say 4"),
        ("model: {ch_mult: [1, 2]}", "ch_mult = [1, 2], and the weights say [1, 1]"),
        ("model: {num_res_blocks: 4}", "num_res_blocks = 4, and the weights say 1"),
        ("model: {embedding_type: positional}", "the weights say 'fourier'"),
        ("model: {progressive_input: none}", "the weights say 'residual'"),
        ("model: {resblock_type: ddpm}", "resblock_type = 'ddpm'"),
        ("model: {fir: false}", "fir = False"),
        ("model: {fir_kernel: [1, 2]}", "fir_kernel"),
        ("model: {attn_resolutions: [8]}\ndata: {image_size: 32}", "attn_resolutions = [8]"),
        ("data: {image_size: 33}", "33"),
        ("model: {sigma_max: 90}", "sigma_max = 90"),
    ],
)
def test_wrong_config_of_ncsnpp(text, message, checkpoints, refuse, networks, tmp_path):
    config = tmp_path / "config.yml"
    config.write_text(text)
    assert message in refuse(checkpoints.any(networks["ncsnpp"]), config=config)


def test_config_executes_nothing(checkpoints, refuse, networks, tmp_path):
    config, mark = tmp_path / "config.yml", tmp_path / "executed"
    config.write_text(
        f"a: !!python/object/apply:os.system ['touch {mark}']\n"
        f"b: !!python/object/new:os.system ['touch {mark}']\n"
        "c: !!python/name:os.system\nd: !!python/module:os\nmodel: {ngf: 128}\n"
    )
    assert "ngf = 128" in refuse(checkpoints.any(networks["ncsn"]), config=config)
    assert not mark.exists()
    assert "there is no config file" in refuse(
        checkpoints.any(networks["ncsn"]), config=tmp_path / "no.yml"
    )


def test_folder_that_is_not_empty(checkpoints, refuse, networks, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "exists and is no empty folder" in refuse(checkpoints.any(networks["ncsn"]))
    (tmp_path / "out" / "mine.txt").unlink()
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("mine")
    assert "cannot write to" in refuse(checkpoints.any(networks["ncsn"]))


def test_a_folder_that_is_being_written(checkpoints, networks, refuse, tmp_path):
    path = checkpoints.any(networks["ncsn"])
    with whole_folder(tmp_path / "out"):
        assert "out is in use by another run" in refuse(path)


def test_a_write_that_fails_leaves_nothing(checkpoints, networks, tmp_path, monkeypatch):
    path = checkpoints.any(networks["ncsn"])
    before = sorted(tmp_path.rglob("*"))

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("hdzoo.conversion.convert.write_conversion_card", fail)
    with pytest.raises(HDZooError, match=r"cannot write to .*out: disk full"):
        convert(path, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
