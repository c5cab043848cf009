"""What travels with hdzoo, by its name."""

import inspect
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hdzoo import (
    HDPipeline,
    HDZooError,
    UNetScoreModel,
    bundled,
    get_sampler,
    hookimpl,
    plugins,
)
from hdzoo.bundled import INDEX, bundled_models
from hdzoo.hub.resolve import resolve_model
from hdzoo.models.ncsn import NCSNModel


def test_bundled_models_are_the_folders_with_an_index(tmp_path, monkeypatch):
    for name, file in {"b": INDEX, "a": INDEX, "no-model": "README.md"}.items():
        path = tmp_path / "model_cards" / name / file
        path.parent.mkdir(parents=True)
        path.touch()
    # In a source tree beside the package, in a wheel inside it.
    for package in (tmp_path / "hdzoo", tmp_path):
        monkeypatch.setattr(bundled, "_PACKAGE", package)
        assert bundled_models() == {k: tmp_path / "model_cards" / k for k in "ab"}
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "model_cards" / "a")
    assert bundled_models() == {}


def test_packages_bring_pipelines_by_name(tmp_path, monkeypatch):
    network, sampler = NCSNModel(sample_size=8, in_channels=1), get_sampler("annealed-langevin")()
    HDPipeline(network, sampler).save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    brought = {
        "our-net": tmp_path / "mine",
        "no-folder": tmp_path / "nowhere",
        "no-pipeline": tmp_path,
        "no-path": 3,
        "relative": Path("mine"),
    }

    class Plugin:
        @hookimpl
        def hdzoo_pipelines(self):
            return brought

    module = ModuleType("a_package")
    module.plugin = Plugin()
    monkeypatch.setitem(sys.modules, "a_package", module)
    found = [EntryPoint("p", "a_package:plugin", "hdzoo")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    plugins._discover.cache_clear()
    try:
        assert plugins.names("pipelines") == sorted([*brought, *bundled_models()])
        assert resolve_model("our-net") == tmp_path / "mine"
        assert resolve_model("ncsn-mnist") == bundled_models()["ncsn-mnist"]
        pipe = HDPipeline.from_pretrained("our-net")
        assert torch.equal(pipe.unet.begin_conv.weight, network.begin_conv.weight)
        part = NCSNModel.from_pretrained("our-net", subfolder="unet")
        assert torch.equal(part.begin_conv.weight, network.begin_conv.weight)
        for name in set(brought) - {"our-net"}:
            for load in (resolve_model, NCSNModel.from_pretrained):
                with pytest.raises(HDZooError, match=f"pipeline '{name}' of plugin 'p'"):
                    load(name)
        with pytest.raises(HDZooError, match=r"ncsn-mnist-guided, no-folder, .*our-net"):
            resolve_model("nobody")
    finally:
        plugins._discover.cache_clear()


@pytest.mark.parametrize("key", [None, "pretrained_model_name_or_path"])
def test_a_sampler_and_a_network_are_loaded_by_a_bundled_name(key):
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    given = ("ncsn-mnist",) if key is None else ()
    named = {} if key is None else {key: "ncsn-mnist"}

    for name in ("half-denoising", "consistent-annealed-sampling"):
        sampler = get_sampler(name).from_pretrained(*given, **named, subfolder="scheduler")
        expected = get_sampler(name).from_config(pipe.scheduler.config)
        assert sampler.config.prediction_type == "sample"
        for option in inspect.signature(type(sampler).__init__).parameters.keys() - {"self"}:
            assert sampler.config[option] == expected.config[option]
        assert torch.equal(sampler.sigmas, expected.sigmas)

    network = UNetScoreModel.from_pretrained(*given, **named, subfolder="unet")
    for weight, own in zip(network.parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(weight, own)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = NCSNModel(sample_size=8, in_channels=1, base_channels=2)
    network.save_pretrained("ncsn-mnist/unet")
    loaded = NCSNModel.from_pretrained("ncsn-mnist", subfolder="unet")
    assert loaded.config.base_channels == 2
    assert torch.equal(loaded.begin_conv.weight, network.begin_conv.weight)


def test_other_names_go_to_diffusers(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HDZooError, match="me/net"):
        get_sampler("langevin").from_pretrained("me/net", subfolder="scheduler")
