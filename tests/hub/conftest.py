"""A stand-in Hub for each module of tests, and the real client talking to it."""

import importlib.util
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from hdzoo import HDPipeline, get_sampler
from hdzoo.hub import client
from hdzoo.models.unet import UNetScoreModel

_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).with_name("stand_in.py"))
stand_in = importlib.util.module_from_spec(_spec)
sys.modules["stand_in"] = stand_in
_spec.loader.exec_module(stand_in)


@pytest.fixture(scope="module")
def server():
    server = stand_in.StandInHub().start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """An empty Hub, this process as its client, which wastes no time, and an empty cache.

    The client reads HF_ENDPOINT when it is imported, long ago: here what it read is replaced.
    """
    server.reset()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(client, "PAUSES", (0.0, 0.0))
    restless = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", restless)
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    return server


@pytest.fixture
def fault(hub):
    """Orders a fault: ``fault("GET .*safetensors", times=2, status=500)``."""

    def order(pattern, **options):
        hub.faults.append(stand_in.Fault(pattern, **options))

    return order


@pytest.fixture(scope="session")
def pipe():
    torch.manual_seed(0)
    network = UNetScoreModel(sample_size=8, block_out_channels=(8,), data_mean=0.4)
    scheduler = get_sampler("annealed-langevin")(
        sigma_max=2.0, num_levels=4, steps_per_level=2, prediction_type="sample"
    )
    pipe = HDPipeline(network, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def files(saved):
    """The folder as a repository has it."""
    return {
        path.relative_to(saved).as_posix(): path.read_bytes()
        for path in saved.rglob("*")
        if path.is_file()
    }
