"""Saving and loading pipelines: what comes back, from where, and what is refused."""

import importlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import zoo
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

import hdzoo
from hdzoo import (
    EmpiricalScore,
    GaussianMixtureScore,
    HDPipeline,
    HDZooError,
    LaplaceScore,
    SphereScore,
    UNetScoreModel,
    get_sampler,
    plugins,
)
from hdzoo.bundled import INDEX
from hdzoo.hub import downloads, resolve
from hdzoo.hub.index import REQUIRES

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
STEPS = 4

THIRD_PARTY = """
from hdzoo.samplers.langevin import AnnealedLangevinSampler

class ThirdSampler(AnnealedLangevinSampler):
    "Says nothing of diffusers: the loader has to cope."
"""
ENTRY = """
from hdzoo import hookimpl

@hookimpl
def hdzoo_samplers():
    return {"third": "third_pkg.chains:ThirdSampler"}
"""


def network(**config):
    torch.manual_seed(0)
    config = {"sample_size": 8, "block_out_channels": (8,), "data_mean": 0.4} | config
    return UNetScoreModel(**config)


def pipeline(sampler="annealed-langevin", **config):
    scheduler = get_sampler(sampler)(num_levels=3, prediction_type="sample")
    pipe = HDPipeline(network(**config), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, count=2):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    # A single level starts from states there.
    latents = torch.rand(count, *pipe.sample_shape, generator=generator)
    return pipe(None, STEPS, generator, latents, output_type="latent").images


def public(config):
    """A configuration as it is in a file, without diffusers' notes to itself."""
    config = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
    return json.loads(json.dumps(config))


def index_of(folder):
    return json.loads((folder / INDEX).read_text())


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    """A saved pipeline, to be spoilt."""
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch):
    """A Hub that answers nothing; what it was asked."""
    asked = []

    def snapshot_download(*args, **kwargs):
        asked.append((args, kwargs))
        raise LocalEntryNotFoundError("no network\nand a second line")

    monkeypatch.setattr(downloads, "snapshot_download", snapshot_download)
    return asked


# ---- what comes back ------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_swapped_saved_and_loaded_it_is_the_same(name, tmp_path):
    pipe = pipeline()
    pipe.scheduler = get_sampler(name).from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path)
    again = HDPipeline.from_pretrained(tmp_path)

    assert type(again.scheduler) is get_sampler(name)
    assert public(again.scheduler.config) == public(pipe.scheduler.config)
    assert public(again.unet.config) == public(pipe.unet.config)
    before, after = pipe.unet.state_dict(), again.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(draw(pipe), draw(again))


# ---- names in the index ---------------------------------------------------------------------


EXACT = {
    "mixture": lambda: GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.1, 0.2]),
    "manifold": lambda: SphereScore(),
    "laplace": lambda: LaplaceScore(),
    "empirical": lambda: EmpiricalScore.from_points([[0.0], [1.0]]),
}


@pytest.mark.parametrize("module", EXACT)
def test_a_folder_with_the_names_of_old_modules_loads(module, tmp_path):
    pipe = HDPipeline(EXACT[module](), get_sampler("annealed-langevin")(num_levels=3))
    pipe.save_pretrained(tmp_path)
    edit(
        tmp_path / INDEX,
        unet=[f"hdzoo.models.{module}", type(pipe.unet).__name__],
        scheduler=["hdzoo.samplers.langevin", "AnnealedLangevinSampler"],
    )
    again = HDPipeline.from_pretrained(tmp_path)
    assert type(again.unet) is type(pipe.unet)
    assert type(again.scheduler) is type(pipe.scheduler)
    assert torch.equal(draw(again), draw(pipe))
    again.save_pretrained(tmp_path / "again")
    index = index_of(tmp_path / "again")
    assert index["unet"] == ["hdzoo", type(pipe.unet).__name__]
    assert index["scheduler"] == ["hdzoo", "AnnealedLangevinSampler"]


def test_every_part_that_can_be_saved_has_a_name_at_the_top():
    for kind in ("samplers", "models"):
        for name in plugins.names(kind):
            if plugins.provider(kind, name).distribution == "hdzoo":
                part = plugins.get(kind, name)
                assert getattr(hdzoo, part.__name__) is part
                assert part.__name__ in hdzoo.__all__


def test_a_fresh_process_loads_the_names_at_the_top(tmp_path):
    """As hdzoo's pipeline, and as one of diffusers', which imports no module for an index."""
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    index = index_of(tmp_path)
    assert index["unet"] == ["hdzoo", "UNetScoreModel"]
    assert index["scheduler"] == ["hdzoo", "AnnealedLangevinSampler"]
    done = run(f"""
import hdzoo
from diffusers import DDPMPipeline
for cls in (DDPMPipeline, hdzoo.HDPipeline):
    pipe = cls.from_pretrained({str(tmp_path)!r})
    assert type(pipe.unet) is hdzoo.UNetScoreModel
    assert type(pipe.scheduler) is hdzoo.AnnealedLangevinSampler
assert dir(hdzoo) == hdzoo.__all__ and "ModelMixin" not in dir(hdzoo)
""")
    assert done.returncode == 0, done.stderr


def test_a_class_of_another_package_keeps_its_own_name(saved):
    class LangevinSampler(hdzoo.LangevinSampler):
        pass

    pipe = HDPipeline(network(), LangevinSampler(prediction_type="sample"))
    assert pipe.config["scheduler"] == (__name__, "LangevinSampler")


# ---- files ----------------------------------------------------------------------------------


def test_shards_are_put_together_again(tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("unet/*.safetensors"))) > 1
    assert torch.equal(draw(pipe), draw(HDPipeline.from_pretrained(tmp_path)))


def test_weights_are_always_saved_as_safetensors(tmp_path):
    pipeline().save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / WEIGHTS).is_file()
    assert list(tmp_path.rglob("*.bin")) == []


def test_variant_is_kept_apart(tmp_path):
    pipe = pipeline()
    pipe.unet.half()
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert [p.name for p in tmp_path.glob("unet/*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    again = HDPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
    for key, weight in again.unet.state_dict().items():
        assert torch.equal(weight, pipe.unet.state_dict()[key])
        assert weight.dtype == torch.float16
    with pytest.raises(HDZooError, match="bf16"):
        HDPipeline.from_pretrained(tmp_path, variant="bf16")


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_loaded_in_bfloat16_the_state_stays_float32(saved, argument):
    full = draw(HDPipeline.from_pretrained(saved))
    low = HDPipeline.from_pretrained(saved, **{argument: torch.bfloat16})
    assert low.unet.dtype == torch.bfloat16
    samples = draw(low)
    assert samples.dtype == torch.float32
    assert not torch.equal(samples, samples.bfloat16().float())
    # A bfloat16 rounding is 2^-8, and the inner network, of size 1, is multiplied by at most
    # data_std = 0.5 in the denoiser, of which a step with eta = 0.2 takes a fifth: ten roundings on
    # the way through it and a chain that forgets as fast as it learns give 10 * 2^-8 * 0.5 = 0.02.
    torch.testing.assert_close(samples, full, rtol=0, atol=0.02)
    assert not torch.equal(samples, full)


def test_from_pipe_and_components_share_the_parts():
    pipe = pipeline()
    assert pipe.components == {"unet": pipe.unet, "scheduler": pipe.scheduler}
    for other in (HDPipeline.from_pipe(pipe), HDPipeline(**pipe.components)):
        assert other.unet is pipe.unet
        assert torch.equal(draw(other), draw(pipe))


def test_a_component_that_is_passed_replaces_the_saved_one(saved):
    own = network(data_mean=0.7)
    sampler = get_sampler("langevin")(prediction_type="sample")
    pipe = HDPipeline.from_pretrained(saved, unet=own, scheduler=sampler)
    assert pipe.unet is own
    assert pipe.scheduler is sampler
    assert pipe.config["scheduler"] == ("hdzoo", "LangevinSampler")
    pipe.save_pretrained(saved / "again")
    assert index_of(saved / "again")["scheduler"] == ["hdzoo", "LangevinSampler"]
    # Pictures come out in the channels of the network that was passed.
    assert pipe(None, STEPS, latents=torch.zeros(1, *pipe.sample_shape)).images[0].mode == "L"


def test_a_component_left_out_can_be_filled_in_and_saved(saved):
    pipe = HDPipeline.from_pretrained(saved, scheduler=None)
    pipe.scheduler = get_sampler("langevin")(prediction_type="sample")
    pipe.save_pretrained(saved / "again")
    assert torch.equal(draw(HDPipeline.from_pretrained(saved / "again")), draw(pipe))


# ---- from where -----------------------------------------------------------------------------


def test_folders_come_before_bundled_names_and_those_before_the_hub(tmp_path, monkeypatch):
    folders = {where: tmp_path / where / "net" for where in ("folder", "bundled", "hub")}
    for mean, folder in enumerate(folders.values()):
        pipeline(data_mean=float(mean)).save_pretrained(folder)
    monkeypatch.setattr(resolve, "named_model", {"net": folders["bundled"]}.get)
    monkeypatch.setattr(downloads, "snapshot_download", lambda *args, **kwargs: str(folders["hub"]))

    def found(name):
        mean = HDPipeline.from_pretrained(name).unet.config.data_mean
        return list(folders)[int(mean)]

    monkeypatch.chdir(tmp_path)
    assert found("net") == "bundled"
    assert found("me/net") == "hub"
    assert found("folder/net") == "folder"
    assert found(tmp_path / "folder" / "net") == "folder"
    monkeypatch.chdir(tmp_path / "folder")
    assert found("net") == "folder"


def test_hub_options_are_passed_on(saved, monkeypatch):
    asked = []

    def snapshot_download(*args, **kwargs):
        asked.append((args, kwargs))
        return str(saved)

    monkeypatch.setattr(downloads, "snapshot_download", snapshot_download)
    options = {
        "revision": "v2",
        "token": "secret",
        "cache_dir": "/cache",
        "local_files_only": True,
        "force_download": True,
    }
    pipe = HDPipeline.from_pretrained("me/net", **options)
    # The index, and then what it names, of the commit that the cache's folder is named by.
    assert [args for args, _ in asked] == [("me/net",)] * 2
    assert asked[0][1] == {"allow_patterns": [INDEX], "ignore_patterns": []} | options
    assert asked[1][1].items() >= (options | {"revision": saved.name}).items()
    assert {"*.json", "unet/*.safetensors"} <= set(asked[1][1]["allow_patterns"])
    assert pipe.config._name_or_path == "me/net"
    assert torch.equal(draw(pipe), draw(HDPipeline.from_pretrained(saved)))


@pytest.mark.parametrize("name", ["no-such-model", "a/b/c", "/no/such/folder"])
def test_what_cannot_be_a_hub_id_does_not_go_there(name, no_network):
    with pytest.raises(HDZooError, match=f"no model '{name}': a model is a folder"):
        HDPipeline.from_pretrained(name)
    assert no_network == []


def test_without_network_there_is_one_clear_error(no_network):
    with pytest.raises(HDZooError, match=r"'me/net' is no folder, and the Hub .* no network;"):
        HDPipeline.from_pretrained("me/net")
    assert len(no_network) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HFValidationError, "no model 'me/net' on the Hub"),
        (ConnectionResetError, "does not give it: ConnectionResetError"),
        (RuntimeError, "does not give it: RuntimeError"),
    ],
)
def test_whatever_the_hub_answers_is_one_clear_error(error, message, monkeypatch):
    def snapshot_download(*args, **kwargs):
        raise error

    monkeypatch.setattr(downloads, "snapshot_download", snapshot_download)
    with pytest.raises(HDZooError, match=message):
        HDPipeline.from_pretrained("me/net")


def run(code, *path, **environment):
    """Runs Python in a process of its own."""
    path = os.pathsep.join(map(str, [*path, os.environ.get("PYTHONPATH", "")]))
    return processes.run("-c", code, env=os.environ | {"PYTHONPATH": path} | environment)


# ---- plugins and strangers ------------------------------------------------------------------


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package with an entry point, whose distribution has another name."""
    site = tmp_path / "site"
    package, info = site / "third_pkg", site / "third_party_samplers-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(ENTRY)
    (package / "chains.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party-samplers\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("[hdzoo]\nthird = third_pkg\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        forget_third_party()
        yield site
    forget_third_party()


def forget_third_party():
    for name in [name for name in sys.modules if name.partition(".")[0] == "third_pkg"]:
        del sys.modules[name]
    plugins._discover.cache_clear()


def test_third_party_sampler_is_loaded_with_its_package_and_asked_for_without(
    third_party, tmp_path, monkeypatch
):
    pipe = pipeline("third")
    folder = tmp_path / "model"
    pipe.save_pretrained(folder)
    index = index_of(folder)
    assert index["scheduler"] == ["third_pkg.chains", "ThirdSampler"]
    assert index[REQUIRES] == {"third_pkg.chains": "third-party-samplers"}

    # A fresh process, which nobody has told of the module.
    samples = tmp_path / "samples.pt"
    loaded = run(
        f"""
import sys, torch
from hdzoo import HDPipeline
assert "third_pkg" not in sys.modules
pipe = HDPipeline.from_pretrained({str(folder)!r})
generator = torch.Generator().manual_seed(3)
latents = torch.rand(2, *pipe.sample_shape, generator=generator)
images = pipe(None, {STEPS}, generator, latents, output_type="latent").images
torch.save(images, {str(samples)!r})
""",
        third_party,
    )
    assert loaded.returncode == 0, loaded.stderr
    # Another process may split its sums among other threads: a few hundred roundings of 2^-24.
    torch.testing.assert_close(torch.load(samples), draw(pipe), rtol=0, atol=1e-4)

    # Without the package.
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(third_party)])
    importlib.invalidate_caches()
    forget_third_party()
    advice = "pip install third-party-samplers, or pass your own with scheduler="
    with pytest.raises(HDZooError, match=advice):
        HDPipeline.from_pretrained(folder)
    mine = get_sampler("annealed-langevin")(num_levels=3, prediction_type="sample")
    replaced = HDPipeline.from_pretrained(folder, scheduler=mine)
    assert torch.equal(draw(replaced), draw(pipe))
    replaced.save_pretrained(tmp_path / "again")
    again = index_of(tmp_path / "again")
    assert again["scheduler"] == ["hdzoo", "AnnealedLangevinSampler"]
    assert REQUIRES not in again
    assert torch.equal(draw(HDPipeline.from_pretrained(tmp_path / "again")), draw(pipe))

    # An index written by plain diffusers does not say which package it was.
    (folder / INDEX).write_text(json.dumps(index | {REQUIRES: None}))
    with pytest.raises(HDZooError, match="pip install third_pkg, or pass"):
        HDPipeline.from_pretrained(folder)


def test_swapping_a_third_party_sampler_away_clears_the_index(third_party, tmp_path):
    pipe = pipeline("third")
    pipe.save_pretrained(tmp_path / "a")
    pipe.scheduler = get_sampler("langevin").from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "b")
    assert index_of(tmp_path / "b")[REQUIRES] == {}


def test_a_broken_package_is_named(saved, third_party):
    (third_party / "third_pkg" / "chains.py").write_text("1 / 0")
    edit(saved / INDEX, scheduler=["third_pkg.chains", "ThirdSampler"])
    with pytest.raises(HDZooError, match=r"third_pkg\.chains, cannot be imported: ZeroDivision"):
        HDPipeline.from_pretrained(saved)


def test_a_class_that_the_package_no_longer_has_is_named(saved):
    edit(saved / INDEX, scheduler=["hdzoo.samplers.langevin", "GoneSampler"])
    with pytest.raises(HDZooError, match=r"GoneSampler .* is no network"):
        HDPipeline.from_pretrained(saved)


@pytest.mark.parametrize("component", ["unet", "scheduler"])
def test_a_module_that_is_no_plugin_is_not_imported(component, saved, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        f"open({str(tmp_path / 'was-here')!r}, 'w')\n"
        "from diffusers import ModelMixin, SchedulerMixin\nclass X(SchedulerMixin): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    edit(saved / INDEX, **{component: ["stranger", "X"]})
    with pytest.raises(HDZooError, match=f"pip install stranger, or pass .* {component}="):
        HDPipeline.from_pretrained(saved)
    assert "stranger" not in sys.modules
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize(
    "name",
    [
        "--index-url=https://example.org far-away",
        "-rhttps://example.org/requirements.txt",
        "far-away --pre",
        "far-away @ https://example.org/far.whl",
        "far-away; rm -rf .",
        "$(rm -rf .)",
        "far-away\n",
        "far-away\x1b[2K",
        "far-away[extra]",
        "far-away>=1",
        "./far-away",
        "far-away.",
        "\u212aerberos",
        "f" * 100,
        "",
        7,
        ["far-away"],
    ],
)
def test_only_the_name_of_a_package_is_ever_advised(name, saved):
    edit(
        saved / INDEX, scheduler=["far_away.chains", "Far"], **{REQUIRES: {"far_away.chains": name}}
    )
    with pytest.raises(HDZooError) as caught:
        HDPipeline.from_pretrained(saved)
    # Without a name, that of the module is taken.
    if name == "":
        assert "pip install far_away, or pass" in str(caught.value)
    else:
        assert "pip install" not in str(caught.value).replace(str(name), "")
        assert "do not trust this index, or pass your own with scheduler=" in str(caught.value)


@pytest.mark.parametrize("package", ["far-away", "Far.Away_2", "f"])
def test_the_name_of_a_package_is_advised(package, saved):
    edit(saved / INDEX, scheduler=["far_away", "Far"], **{REQUIRES: {"far_away": package}})
    with pytest.raises(HDZooError, match=f"pip install {package}, or pass"):
        HDPipeline.from_pretrained(saved)


@pytest.mark.parametrize(
    "entry",
    [
        ["pip install --index-url=https://example.org far", "Far"],
        ["far-away", "Far"],
        ["far_away.", "Far"],
        ["", "Far"],
        ["far_away", "Far, so pip install it from https://example.org"],
    ],
)
def test_what_no_module_or_class_is_called_is_refused(entry, saved):
    edit(saved / INDEX, scheduler=entry)
    with pytest.raises(HDZooError, match="where a module and a class belong"):
        HDPipeline.from_pretrained(saved)


@pytest.mark.parametrize(
    "entry",
    [
        ["os", "system"],
        ["os", "_Environ"],
        ["subprocess", "Popen"],
        ["hdzoo.files", "whole_file"],
        ["diffusers", "DiffusionPipeline"],
        ["diffusers", "StableDiffusionPipeline"],
        ["pathlib", "Path"],
        ["torch", "no_such"],
        ["ddpm", "DDPMPipeline"],
        ["hdzoo", "cli"],
        ["hdzoo", "verification"],
        ["hdzoo", "HDPipeline"],
        ["hdzoo", "sample_generators"],
        ["hdzoo", "ModelMixin"],
        ["hdzoo", "Gone"],
        ["hdzoo.targets.named", "circle"],
    ],
)
def test_what_is_no_network_and_no_sampler_is_not_loaded(entry, saved, monkeypatch):
    def used(*args, **kwargs):
        raise AssertionError(f"{entry} was used")

    monkeypatch.setattr(os, "system", used)
    monkeypatch.setattr(subprocess.Popen, "__init__", used)
    edit(saved / INDEX, unet=entry)
    with pytest.raises(HDZooError, match=f"{entry[1]} of {entry[0]}, is no network"):
        HDPipeline.from_pretrained(saved)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/stranger.py", {"unet": ["stranger", "X"]}),
        ("unet/hdzoo.py", {}),
        ("stranger.py", {"_class_name": ["stranger", "X"]}),
    ],
)
def test_code_in_the_folder_is_not_run(file, changes, saved, tmp_path):
    (saved / file).write_text(f"open({str(tmp_path / 'was-here')!r}, 'w')")
    edit(saved / INDEX, **changes)
    with pytest.raises(HDZooError):
        HDPipeline.from_pretrained(saved)
    assert not (tmp_path / "was-here").exists()


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("use_safetensors", [None, False])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.pt"])
def test_pickles_are_not_opened(name, use_safetensors, saved, tmp_path):
    (saved / WEIGHTS).unlink()
    (saved / "unet" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "was-here")))
    with pytest.raises(HDZooError, match="weights must be safetensors"):
        HDPipeline.from_pretrained(saved, use_safetensors=use_safetensors)
    assert not (tmp_path / "was-here").exists()


def test_a_sound_pickle_is_refused_too(saved):
    torch.save(load_file(saved / WEIGHTS), saved / "unet" / "diffusion_pytorch_model.bin")
    (saved / WEIGHTS).unlink()
    with pytest.raises(HDZooError, match="weights must be safetensors"):
        HDPipeline.from_pretrained(saved)


# ---- damage ---------------------------------------------------------------------------------


def lose_a_tensor(path):
    weights = load_file(path)
    del weights["unet.conv_in.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def change_a_shape(path):
    weights = load_file(path)
    weights["unet.conv_in.weight"] = weights["unet.conv_in.weight"][:3].clone()
    save_file(weights, path, metadata={"format": "pt"})


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "no-index": (INDEX, Path.unlink, "no pipeline folder: it has no model_index.json"),
    "half-index": (INDEX, halve, "model_index.json is damaged"),
    "binary-index": (INDEX, lambda p: p.write_bytes(b"\xff\xfe\x00"), "index.json is damaged"),
    "list-index": (INDEX, lambda p: p.write_text("[]"), "it holds no object"),
    "odd-entry": (INDEX, lambda p: edit(p, unet="hdzoo"), "index has 'hdzoo' for unet"),
    "null-unet": (INDEX, lambda p: edit(p, unet=[None, None]), "cannot be loaded: .*expected"),
    "no-class-name": (INDEX, lambda p: p.write_text("{}"), "cannot be loaded"),
    "half-weights": (WEIGHTS, halve, "cannot be read, or is damaged"),
    "empty-weights": (WEIGHTS, lambda p: p.write_bytes(b""), "cannot be read, or is damaged"),
    "no-weights": (WEIGHTS, Path.unlink, "cannot be loaded"),
    "lost-tensor": (WEIGHTS, lose_a_tensor, "the weights lack 1 tensors, 'unet.conv_in.weight'"),
    "odd-shape": (WEIGHTS, change_a_shape, r"cannot be loaded.*(conv_in|shape)"),
    "no-config": ("unet/config.json", Path.unlink, "cannot be loaded"),
    "half-config": ("unet/config.json", halve, "cannot be loaded"),
    "list-config": ("unet/config.json", lambda p: p.write_text("[]"), "cannot be loaded"),
    "no-sampler": ("scheduler/scheduler_config.json", Path.unlink, "cannot be loaded"),
    "half-sampler": ("scheduler/scheduler_config.json", halve, "cannot be loaded"),
    "no-folder": ("scheduler", shutil.rmtree, "cannot be loaded"),
}


@pytest.mark.parametrize(("file", "spoil", "message"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_damaged_folder_is_one_clear_error(file, spoil, message, saved, no_network):
    spoil(saved / file)
    with pytest.raises(HDZooError, match=f"(?s){message}") as caught:
        HDPipeline.from_pretrained(saved)
    assert str(saved) in str(caught.value) or "the index" in str(caught.value)
    assert no_network == []


def test_an_option_out_of_range_in_the_files_keeps_its_own_message(saved):
    edit(saved / "scheduler" / "scheduler_config.json", sigma_min=-1.0)
    with pytest.raises(HDZooError, match=r"-1") as caught:
        HDPipeline.from_pretrained(saved)
    assert "damaged" not in str(caught.value)


def test_offline_is_quick(tmp_path, monkeypatch):
    """The real client, told that there is no network."""
    # It reads the environment when it is imported, long ago.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: waits.append(args))
    start = time.process_time()
    with pytest.raises(HDZooError, match="'me/net' is no folder, and the Hub does not give it"):
        HDPipeline.from_pretrained("me/net")
    # Nothing asks for a network or waits for one; 5 s are a hundred times what the rest takes.
    assert waits == []
    assert time.process_time() - start < 5
