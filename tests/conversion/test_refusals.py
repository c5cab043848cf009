"""Files that cannot be converted: a clear error, nothing executed, and no folder left."""

import os
import pickle
import shutil
import zipfile

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
    with zipfile.ZipFile(path) as archive:
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
    network = NCSNppModel(
        base_channels=4, num_res_blocks=1, embedding="positional", progressive_input="none"
    )
    path = checkpoints.any(network)
    message = refuse(path)
    assert "do not tell sde, scale_by_sigma, skip_rescale, centered, fir" in message
    assert "DDPM++, for vpsde" in message
    # The half of an answer is none.
    message = refuse(path, options={"sde": "vesde", "fir": False})
    assert "do not tell scale_by_sigma, skip_rescale, centered, and" in message
    config = tmp_path / "config.yml"
    config.write_text("training: {sde: vpsde}\n")
    assert "sde = 'vpsde'" in refuse(checkpoints.any(network), config=config)


def test_variance_preserving_twin_of_ncsnpp(checkpoints, refuse):
    """NCSN++ was published with the same weights' names and shapes for three processes."""
    path = checkpoints.any(NCSNppModel(base_channels=4, num_res_blocks=1, embedding="positional"))
    message = refuse(path)
    assert "do not tell sde, and the same was published for vesde, vpsde" in message
    assert "-o sde=vesde" in message
    for process in ("vpsde", "VPSDE", "ve", True, 1):
        assert "and hdzoo has no such network" in refuse(path, options={"sde": process})


def test_unknown_option(checkpoints, refuse, networks):
    path = checkpoints.any(networks["ncsn"])
    message = refuse(path, options={"size": 32})
    assert "option 'size' is none of a config" in message
    assert "image_size, channels" in message
    assert "image_size in the option -o is 'x'" in refuse(path, options={"image_size": "x"})


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.to(torch.complex64), "of torch.complex64"),
        (lambda weight: weight.to(torch.int32), "of torch.int32"),
        (lambda weight: weight > 0, "of torch.bool"),
        (lambda weight: weight.to(torch.float8_e4m3fn), "of torch.float8_e4m3fn"),
        (lambda weight: weight.to_sparse(), "torch.sparse_coo"),
        (lambda weight: weight.to("meta"), "on meta"),
        (lambda weight: weight.double() * 1e300, "not finite"),
    ],
)
def test_other_kinds_of_numbers(family, change, message, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    key = list(weights)[-1]
    broken = weights | {key: change(weights[key] + 1)}
    refused = refuse(checkpoints.write(broken, zipped=True))
    assert message in refused
    assert key in refused


@every
def test_one_name_twice(family, checkpoints, refuse, networks):
    weights = checkpoints.published(networks[family])
    key = list(weights)[3]
    message = refuse(checkpoints.write(weights | {f"module.{key}": weights[key] + 1}))
    assert f"has {key!r} twice in it, with and without 'module.'" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_larger_than_its_file(zipped, checkpoints, refuse, networks):
    weights = checkpoints.published(networks["ncsn"])
    # 40 GB, of which four bytes are stored.
    vast = weights | {"begin_conv.bias": torch.zeros(1).expand(10**10)}
    message = refuse(checkpoints.write(vast, zipped))
    assert "'begin_conv.bias' of the shape (10000000000,)" in message
    assert "40,000,000,000 bytes, of which 4 are in the file" in message
    # Each is stored, but all are the same.
    shared = torch.zeros(10_000)
    many = weights | {f"more.{i}": shared for i in range(1000)}
    message = refuse(checkpoints.write(many, zipped))
    assert "the weights in it would be" in message


@pytest.mark.parametrize("family", ["ncsn", "ncsnv2"])
def test_a_network_larger_than_its_file(family, checkpoints, refuse, networks):
    """Width 20,000 takes 3 TB; width 300, what 3 % of its weights tell."""
    weights = checkpoints.published(networks[family])
    wide = weights | {"begin_conv.weight": torch.zeros(20_000, 3, 3, 3)}
    message = refuse(checkpoints.write(wide))
    assert "memory of this machine" in message
    wide = weights | {"begin_conv.weight": torch.zeros(300, 3, 3, 3)}
    message = refuse(checkpoints.write(wide))
    assert "of another shape: begin_conv.bias is [2] instead of [300]" in message


def test_a_zip_that_unpacks_to_more(tmp_path, refuse):
    path = tmp_path / "checkpoint.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    assert "unpacks to 10,000,000; torch.save packs nothing" in refuse(path)


def test_an_alias_bomb(checkpoints, refuse, networks, tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    config = tmp_path / "config.yml"
    config.write_text("\n".join([*lines, "image_size: *a29"]))
    message = refuse(checkpoints.any(networks["ncsn"]), config=config)
    assert "it must be a whole number" in message
    assert len(message) < 1000
    config.write_text("#" * 10_000_001)
    assert "a config.yml has at most" in refuse(checkpoints.any(networks["ncsn"]), config=config)


def test_broken_averages(checkpoints, refuse, networks, tmp_path):
    """Refused, with an advice that helps."""
    weights = checkpoints.published(networks["ncsnv2"])
    shadow = {key: value for key, value in weights.items() if key != "sigmas"}
    key = list(shadow)[-1]
    score_sde = checkpoints.published(networks["ncsnpp"])
    for number, (write, broken) in enumerate(
        [
            (lambda x: checkpoints.ncsnv2(weights, x), shadow | {key: shadow[key] * torch.nan}),
            (lambda x: checkpoints.ncsnv2(weights, x), [3]),
            (lambda x: checkpoints.score_sde(score_sde, x), None),
            (lambda x: checkpoints.score_sde(score_sde, x), [torch.zeros(1)]),
        ]
    ):
        path = write(broken)
        refuse(path)
        made = convert(path, tmp_path / f"plain-{number}", use_averaged=False)
        assert not made.averaged
        shutil.rmtree(made.folder)


def test_wrong_dataset(checkpoints, refuse, networks):
    path = checkpoints.any(networks["ncsnv2"])
    message = refuse(path, dataset="imagenet")
    assert "'imagenet'" in message
    assert "cifar10, celeba, church" in message
    message = refuse(path, dataset="celeba")
    assert "232 noise levels" in message
    assert "those of cifar10" in message
    assert "3 channel(s)" in refuse(checkpoints.any(networks["ncsn"]), dataset="mnist")


def test_a_dataset_of_other_images(checkpoints, refuse, networks, tmp_path):
    config = tmp_path / "config.yml"
    config.write_text("data: {dataset: MNIST}")
    message = refuse(checkpoints.any(networks["ncsn"]), config=config)
    assert "'mnist', whose images have another number of channels than the 3" in message
    # One that nobody published has settings of its own, and its size has to be said.
    config.write_text("data: {dataset: FLOWERS}")
    message = refuse(checkpoints.any(networks["ncsn"]), config=config)
    assert "does not tell the size of its images" in message


def test_wrong_source(checkpoints, refuse, networks):
    path = checkpoints.any(networks["ncsnv2"])
    assert "source is 'hub'; allowed are 'ncsn', 'ncsnv2', 'score" in refuse(path, source="hub")
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
        ("model: {ngf: [2, 3]}", "ngf = [2, 3], and the weights say 2"),
        ("data: {channels: true}", "channels = True, and the weights say 3"),
        ("model: {sigma_begin: .nan}", "sigma_begin = nan, and the weights say 50.0"),
        ("model: {sigma_begin: large}", "sigma_begin = 'large', and the weights say 50.0"),
        ("data: {channels: 1}", "channels = 1, and the weights say 3"),
        ("model: {num_classes: 10}", "num_classes = 10, and the weights say 232"),
        ("model: {sigma_begin: 1}", "sigma_begin = 1, and the weights say 50.0"),
        ("data: {logit_transform: true}", "logit_transform = True, and hdzoo has no such"),
        ("model: {nonlinearity: relu}", "nonlinearity = 'relu'"),
        ("model: {normalization: BatchNorm}", "normalization = 'BatchNorm'"),
        ("data: {image_size: big}", "is 'big'; it must be a whole number from 1 to 65,536"),
        ("data: {image_size: [3]}", "is [3]; it must be a whole number"),
        ("data: {image_size: 0}", "is 0; it must be a whole number"),
        ("data: {image_size: 32.7}", "is 32.7; it must be a whole number"),
        ("data: {image_size: .nan}", "is nan; it must be a whole number"),
        ("data: {image_size: 1e9}", "is 1000000000.0; it must be a whole number"),
        ("data: {image_size: 1000000000}", "is 1000000000; it must be a whole number"),
        (f"data: {{image_size: {'9' * 5000}}}", "cannot be read as YAML"),
        ("data: {image_size: 2020-01-01}", "is datetime.date(2020, 1, 1); it must be a whole"),
        ("data: {rescaled: 'False'}", "rescaled in "),
        ("data: {rescaled: 0}", "is 0; it must be True or False"),
        ("data: {dataset: 7}", "is 7; it must be a name"),
        ("data: {dataset: CELEBA}", "'celeba', and the 232 noise levels of this checkpoint"),
        ("data: {dataset: LSUN, category: church_outdoor}", "are those of cifar10"),
        ("sampling: {step_lr: 1}", "step_size"),
        ("sampling: {step_lr: .inf}", "step_lr in "),
        ("sampling: {step_lr: small}", "is 'small'; it must be a finite number above 0"),
        ("sampling: {step_lr: -1e-5}", "is -1e-05; it must be a finite number above 0"),
        ("sampling: {n_steps_each: 0}", "is 0; it must be a whole number from 1"),
        ("sampling: {n_steps_each: 2.5}", "is 2.5; it must be a whole number"),
        ("sampling: {n_steps_each: true}", "is True; it must be a whole number"),
        ("sampling: {n_steps_each: 100000000000}", "is 100000000000; it must be a whole number"),
        ("sampling: {denoise: 'yes'}", "is 'yes'; it must be True or False"),
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
        ("model: {scale_by_sigma: 'False'}", "is 'False'; it must be True or False"),
        ("model: {skip_rescale: 1}", "is 1; it must be True or False"),
        ("model: {dropout: 1.5}", "is 1.5; it must be a finite number of at least 0 and below 1"),
        ("model: {dropout: .nan}", "is nan; it must be a finite number"),
        ("model: {fir_kernel: wide}", "is 'wide'; it must be a list of 2 to 16 values"),
        ("model: {fir_kernel: [1, .nan]}", "[1] is nan; it must be a finite number"),
        ("model: {fourier_scale: 0}", "is 0; it must be a finite number above 0"),
        ("sampling: {snr: 1.5}", "is 1.5; it must be a finite number above 0 and below 1"),
        ("training: {sde: subvpsde}", "sde = 'subvpsde', and hdzoo has no such network"),
        ("model: {conditional: 'yes'}", "conditional = 'yes'"),
    ],
)
def test_wrong_config_of_ncsnpp(text, message, checkpoints, refuse, networks, tmp_path):
    config = tmp_path / "config.yml"
    config.write_text(text)
    assert message in refuse(checkpoints.any(networks["ncsnpp"]), config=config)


@pytest.mark.parametrize(
    ("family", "options"),
    [("ncsn", {"sde": "vesde"}), ("ncsn", {"fir": True}), ("ncsnv2", {"snr": 0.1})],
)
def test_options_of_another_family(family, options, checkpoints, refuse, networks):
    (name,) = options
    message = refuse(checkpoints.any(networks[family]), options=options)
    assert f"option {name!r} changes nothing" in message
    assert f"of the family {family}" in message


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
