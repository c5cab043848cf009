"""Repositories and folders that mean harm: nothing of them is run, or written or sent elsewhere."""

import json
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hdzoo import HDPipeline, HDZooError
from hdzoo.hub import publishing
from hdzoo.hub.pulling import pull

push_folder = partial(publishing.push_folder, load=HDPipeline.from_pretrained)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PICKLE = "unet/diffusion_pytorch_model.bin"


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def mark(tmp_path):
    """What code leaves that is run; at the end nothing must have."""
    path = tmp_path / "was-here"
    yield path
    assert not path.exists()


@pytest.fixture
def bomb(mark):
    """A pickle that goes off."""
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content).close()
    mark.unlink()
    return content


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


@pytest.fixture
def stranger(mark, tmp_path, monkeypatch):
    """A module that can be imported, and belongs to nobody."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "stranger.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")


def fetched(hub):
    """The files that were asked for, large ones too: the client asks for their size first."""
    return {asked.rpartition("/")[2] for asked in hub.requests if "/resolve/" in asked}


def index(files, **changes):
    return json.dumps(json.loads(files["model_index.json"]) | changes).encode()


# ---- pickles ----------------------------------------------------------------------------------


def test_a_pickle_beside_the_weights_is_not_even_fetched(hub, files, bomb, pipe):
    hub.put("me/x", files | {PICKLE: bomb, "optimizer.pt": bomb, "unet/x.pkl": bomb})
    loaded = HDPipeline.from_pretrained("me/x")
    assert torch.equal(loaded.unet.unet.conv_in.weight, pipe.unet.unet.conv_in.weight)
    assert not {"diffusion_pytorch_model.bin", "optimizer.pt", "x.pkl"} & fetched(hub)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("name", [PICKLE, "unet/diffusion_pytorch_model.fp16.bin", "unet/x.ckpt"])
def test_pickles_only_are_refused(name, variant, hub, files, bomb):
    hub.put("me/x", {k: v for k, v in files.items() if k != WEIGHTS} | {name: bomb})
    message = "'me/x' has weights as a pickle only, .*must be safetensors"
    with pytest.raises(HDZooError, match=message):
        HDPipeline.from_pretrained("me/x", variant=variant, use_safetensors=False)
    with pytest.raises(HDZooError, match=message):
        pull("me/x", variant=variant)
    assert fetched(hub) == {"model_index.json"}


@pytest.mark.parametrize("part", ["weights.bin", "../x.safetensors", "/x.safetensors", "..\\x", 3])
def test_a_list_of_parts_that_names_something_else_is_refused(part, hub, files, bomb, copy):
    parts = json.dumps({"metadata": {}, "weight_map": {"unet.conv_in.weight": part}}).encode()
    named = f"{WEIGHTS}.index.json"
    hub.put("me/x", files | {named: parts, "unet/weights.bin": bomb})
    with pytest.raises(HDZooError, match="as a part of the weights, where a safetensors file"):
        HDPipeline.from_pretrained("me/x")
    (copy / named).write_bytes(parts)
    (copy / "unet" / "weights.bin").write_bytes(bomb)
    for load in (HDPipeline.from_pretrained, lambda folder: push_folder(folder, "me/y")):
        with pytest.raises(HDZooError, match="as a part of the weights, where a safetensors file"):
            load(copy)
    assert ("model", "me/y") not in hub.repositories


def test_a_pickle_that_is_called_safetensors_is_one_error(hub, files, bomb):
    hub.put("me/x", files | {WEIGHTS: bomb})
    with pytest.raises(HDZooError, match="safetensors cannot be read, or is damaged"):
        HDPipeline.from_pretrained("me/x")


# ---- code -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [
        "antigravity",
        "this",
        "stranger",
        "stranger.deeper",
        "hdzoo.__main__",
        "hdzoo_example_sampler.__main__",
        "hdzoo..cli",
        ".stranger",
        "hdzoo/../stranger",
        "",
    ],
)
@pytest.mark.parametrize("component", ["unet", "scheduler"])
def test_an_index_does_not_choose_what_is_imported(
    component, module, hub, files, stranger, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["hdzoo", "samplers"])
    hub.put("me/x", files | {"model_index.json": index(files, **{component: [module, "X"]})})
    before = set(sys.modules)
    with pytest.raises(HDZooError, match=f"{component}"):
        HDPipeline.from_pretrained("me/x")
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not {"antigravity", "this", "stranger", "webbrowser"} & new
    # A package's __main__ is a program, which would have listed the samplers.
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": ["stranger", "X"]},
        {"_class_name": "../stranger"},
        {"_class_name": "stranger.X"},
        {"_class_name": None},
        {"../stranger": ["stranger", "X"]},
        {"unet": ["stranger", "X"], "_module": "stranger"},
        {"more": ["stranger", "X"]},
    ],
)
def test_code_in_a_repository_is_not_run(changes, hub, files, stranger, mark):
    code = f"open({str(mark)!r}, 'w')".encode()
    names = ("pipeline.py", "stranger.py", "unet/stranger.py", "unet/hdzoo.py")
    hub.put(
        "me/x",
        files | dict.fromkeys(names, code) | {"model_index.json": index(files, **changes)},
    )
    before = set(sys.modules)
    try:
        loaded = HDPipeline.from_pretrained("me/x")
    except HDZooError:
        pass
    else:
        # Of a name that says nothing to it, it makes nothing.
        assert type(loaded) is HDPipeline
    assert not {Path(name).name for name in names} & fetched(hub)
    assert "stranger" not in set(sys.modules) - before


def test_an_index_does_not_choose_another_folder(hub, files, copy, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text('{"key": "secret"}')
    entry = {"../outside": ["hdzoo.models.unet", "UNetScoreModel"]}
    (copy / "model_index.json").write_bytes(index(files, **entry))
    with pytest.raises(HDZooError, match=r"has '../outside' for a component; do not trust"):
        push_folder(copy, "me/tiny")
    assert hub.requests == []


# ---- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../../was-here.json", "unet/../../../../was-here.json", "/was-here.json", "..\\x.json"],
)
def test_a_file_that_leads_out_is_not_written(name, hub, files, tmp_path):
    before = set(tmp_path.rglob("*"))
    hub.put("me/x", files | {name: b"{}"})
    with pytest.raises(HDZooError, match=r"'me/x' .*Invalid filename"):
        HDPipeline.from_pretrained("me/x")
    with pytest.raises(HDZooError, match="Invalid filename"):
        pull("me/x", tmp_path / "out")
    assert {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before} == {
        "cache"
    }
    assert not list(tmp_path.parent.rglob("was-here*"))


def test_a_picture_that_leads_out_is_not_written(hub, files, tmp_path):
    card = b"![x](../../x.png) ![y](/etc/y.png)"
    hub.put("me/x", files | {"README.md": card})
    pull("me/x", tmp_path / "out")
    assert not list(tmp_path.rglob("*.png"))
    hub.model("me/x").commit(files | {"README.md": card, "../../x.png": b"x"})
    with pytest.raises(HDZooError, match="Invalid filename"):
        pull("me/x", tmp_path / "other")
    assert not list(tmp_path.rglob("*.png"))


def test_a_link_in_a_repository_is_a_text(hub, files, tmp_path):
    """The Hub gives a link of git as a file with the path in it."""
    (tmp_path / "secret.json").write_text("{}")
    link = str(tmp_path / "secret.json").encode()
    hub.put("me/x", files | {"unet/config.json": link})
    with pytest.raises(HDZooError, match="cannot be loaded"):
        HDPipeline.from_pretrained("me/x")
    hub.model("me/x").commit(files | {"model_index.json": link})
    with pytest.raises(HDZooError, match="is damaged"):
        HDPipeline.from_pretrained("me/x")


@pytest.mark.parametrize(
    "name", ["unet/secret.json", "unet", "README.md", "notes.json", "grid.png", WEIGHTS]
)
def test_a_link_that_leads_out_of_the_folder_is_not_followed(name, hub, copy, tmp_path):
    (copy / "README.md").write_text("![x](grid.png)")
    outside, place = tmp_path / "outside", copy / name
    if place.exists():
        shutil.move(place, outside)
    else:
        outside.write_text('{"key": "secret"}')
    place.symlink_to(outside)
    with pytest.raises(HDZooError, match=r"leads outside the folder, .*nothing was sent"):
        push_folder(copy, "me/tiny")
    assert not [asked for asked in hub.requests if "/commit/" in asked or "/lfs/" in asked]


def test_links_within_the_folder_are_fine(hub, copy, files):
    (copy / "unet").rename(copy / "network")
    (copy / "unet").symlink_to("network")
    push_folder(copy, "me/tiny")
    assert hub.model("me/tiny").head.files[WEIGHTS] == files[WEIGHTS]


def test_a_picture_by_a_path_that_leads_out_is_not_sent(hub, copy, tmp_path):
    (tmp_path / "secret.png").write_text("secret")
    (copy / "README.md").write_text(f"![x](../secret.png) ![y]({tmp_path}/secret.png)")
    push_folder(copy, "me/tiny")
    assert not [name for name in hub.model("me/tiny").head.files if "secret" in name]


def test_weights_come_as_they_were(hub, saved, tmp_path):
    push_folder(saved, "me/tiny")
    folder = pull("me/tiny", tmp_path / "out")
    sent, back = load_file(saved / WEIGHTS), load_file(folder / WEIGHTS)
    assert sent.keys() == back.keys()
    assert all(torch.equal(sent[name], back[name]) for name in sent)
