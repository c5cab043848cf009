"""A path that nobody has named is not the current folder, whatever it is for."""

import os

import pytest

from hdzoo import HDPipeline
from hdzoo.conversion.convert import convert
from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.generation.generate import generate
from hdzoo.hub.publishing import push_folder
from hdzoo.hub.pulling import pull
from hdzoo.hub.resolve import resolve_model
from hdzoo.images.sources import load_images
from hdzoo.leaderboard.compare import compare
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.train_classifier import ClassifierConfig, train_classifier
from hdzoo.training.trainer import TrainingConfig, train

UNNAMED = {
    "generate": lambda path: generate("ncsn-mnist", path, 4),
    "compare": lambda path: compare("ncsn-mnist", path),
    "convert to": lambda path: convert("a.pth", path),
    "convert": lambda path: convert(path, "out"),
    "pull to": lambda path: pull("ncsn-mnist", path or ""),
    "pull": lambda path: pull(path),
    "push": lambda path: push_folder(path, "me/digits", load=HDPipeline.from_pretrained),
    "model": resolve_model,
    "load": HDPipeline.from_pretrained,
    "save": lambda path: HDPipeline.from_pretrained("ncsn-mnist").save_pretrained(path),
    "images": load_images,
    "set": open_images,
    "train": lambda path: train(
        HDPipeline.from_pretrained("ncsn-mnist").unet,
        load_images("digits"),
        path,
        TrainingConfig(sigma_distribution="log-normal"),
    ),
    "train-classifier": lambda path: train_classifier(
        load_images("digits"), load_images("digits", "test"), path, ClassifierConfig()
    ),
}


@pytest.mark.parametrize("path", ["", None])
@pytest.mark.parametrize("call", UNNAMED.values(), ids=UNNAMED)
def test_no_path_is_refused(call, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HDZooError, match=r" is (''|None); give a "):
        call(path)
    assert os.listdir() == []


def test_the_current_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    HDPipeline.from_pretrained("ncsn-mnist").save_pretrained(".")
    assert (tmp_path / "model_index.json").is_file()
    assert named_path(".", "it").resolve() == tmp_path
