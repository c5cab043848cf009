"""What goes wrong on the way to the Hub and back: mended, or one clear error; never half a file."""

import json
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from hdzoo import HDPipeline, HDZooError
from hdzoo.hub import publishing
from hdzoo.hub.pulling import pull

push_folder = partial(publishing.push_folder, load=HDPipeline.from_pretrained)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
REVISION = "GET .*/revision/main"
FOREVER = 99


@pytest.fixture
def there(hub, files):
    return hub.put("me/tiny", files)


def check_loads(pipe, **options):
    loaded = HDPipeline.from_pretrained("me/tiny", **options)
    expected = pipe.unet.state_dict()
    for name, weight in loaded.unet.state_dict().items():
        assert torch.equal(weight, expected[name])


def cached(pattern):
    return sorted(Path(constants.HF_HUB_CACHE).glob(pattern))


def size(path: Path) -> int:
    """In bytes; 0 once the file has another name."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def weights_in_cache():
    return cached(f"*/snapshots/*/{WEIGHTS}")


def reverse(body):
    return body[::-1]


def shorten(body):
    return body[:-5]


# ---- on the way here --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [REVISION, "GET .*/tree/", "HEAD .*/unet/config.json", "GET .*/scheduler/", "GET /lfs/"],
)
def test_a_server_that_fails_twice_is_asked_again(asked, there, fault, pipe):
    fault(asked, times=2, status=500)
    check_loads(pipe)


@pytest.mark.parametrize("asked", [REVISION, "GET .*/tree/", "GET .*/scheduler/"])
def test_a_connection_that_breaks_is_made_again(asked, there, fault, pipe):
    fault(asked, times=2, cut=1)
    check_loads(pipe)


def test_a_file_that_is_cut_off_is_gone_on_with(hub, there, fault, pipe, monkeypatch):
    # The client keeps whole blocks, which are larger than this file.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    fault("GET /lfs/", cut=10_000)
    check_loads(pipe)
    first, second = [asked for asked in hub.requests if asked.startswith("GET /lfs/")]
    assert second == f"{first} bytes=8192-"


@pytest.mark.parametrize("asked", [REVISION, "GET /lfs/"])
def test_a_server_that_fails_for_good_is_one_error(asked, hub, there, fault, run):
    fault(asked, times=FOREVER, status=503)
    code, out, err = run("pull", "me/tiny")
    assert (code, out) == (2, "")
    (message,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "'me/tiny' is no folder, and the Hub does not give it: " in message
    assert "503" in message
    assert "Traceback" not in err
    assert FOREVER - hub.faults[0].times == 3
    assert weights_in_cache() == []


def test_what_the_cache_has_is_used_while_the_hub_is_down(there, fault, pipe):
    check_loads(pipe)
    fault(".", times=FOREVER, status=503)
    check_loads(pipe)


@pytest.mark.parametrize(("spoil", "message"), [(reverse, "SHA-256"), (shorten, "of size")])
def test_a_file_with_other_content_is_not_taken_for_it(
    spoil, message, hub, there, fault, pipe, monkeypatch
):
    fault("GET /lfs/", times=2, spoil=spoil)
    check_loads(pipe)
    assert len([asked for asked in hub.requests if asked.startswith("GET /lfs/")]) == 3

    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-2")
    fault("GET /lfs/", times=FOREVER, spoil=spoil)
    with pytest.raises(HDZooError, match=f"does not give it: .*{message}"):
        HDPipeline.from_pretrained("me/tiny")
    assert weights_in_cache() == []
    # Nor later, by somebody who only has the cache.
    with pytest.raises(HDZooError):
        HDPipeline.from_pretrained("me/tiny", local_files_only=True)
    hub.faults.clear()
    check_loads(pipe)


def test_what_rots_in_the_cache_is_fetched_again(there, pipe):
    check_loads(pipe)
    blob = weights_in_cache()[0].resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    check_loads(pipe)
    blob.write_bytes(content)
    with pytest.raises(HDZooError, match="'me/tiny' is no folder"):
        HDPipeline.from_pretrained("me/tiny", local_files_only=True)


def test_a_kill_in_mid_file_leaves_nothing_that_looks_whole(there, fault, pipe, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    fault("GET /lfs/", pause=0.05)
    victim = multiprocessing.get_context("fork").Process(target=pull, args=("me/tiny",))
    victim.start()
    deadline = time.monotonic() + 60
    while not any(map(size, cached("*/blobs/*.incomplete"))):
        assert victim.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    # Beside the weights, a small file may have been on its way.
    left = [size(path) for path in cached("*/blobs/*.incomplete")]
    assert 0 < max(left) < len(there.head.files[WEIGHTS])
    assert weights_in_cache() == []
    with pytest.raises(HDZooError, match="'me/tiny' is no folder, and the Hub does not give it"):
        HDPipeline.from_pretrained("me/tiny", local_files_only=True)
    check_loads(pipe)


def test_a_folder_is_pulled_whole_or_not_at_all(there, fault, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(HDZooError, match=r"cannot write to .*out: No space left"):
            pull("me/tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    pull("me/tiny", tmp_path / "out")


def test_a_branch_that_moves_meanwhile_gives_one_commit(hub, there, files, pipe, fault):
    """The index and the weights are of one commit, whatever is pushed between the two."""

    def moves(body):
        there.commit(dict.fromkeys(files, b"{}"))
        return body

    fault("GET .*/model_index.json", spoil=moves)
    check_loads(pipe)


# ---- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "does not give it: .*401 .*is the token of `hf auth login`"),
        (404, {"code": "RepoNotFound"}, "no model 'me/tiny' on the Hub, or it needs a token"),
        (403, {"code": "GatedRepo"}, "no model 'me/tiny' on the Hub, or it needs a token"),
        (404, {"code": "RevisionNotFound"}, "'me/tiny' has no revision None"),
        (403, {"X_Error_Message": "Not for you"}, "does not give it: 403 Forbidden: Not for you"),
        (429, {}, "does not give it: .*429"),
    ],
)
def test_an_answer_is_an_answer(status, headers, message, hub, there, fault):
    fault(REVISION, times=FOREVER, status=status, headers=headers)
    with pytest.raises(HDZooError, match=message):
        HDPipeline.from_pretrained("me/tiny")
    assert len([asked for asked in hub.requests if "/revision/" in asked]) == 1


NOT_A_PIPELINE = {
    "no-files": ((), "'me/x' is no pipeline folder: it has no model_index.json$"),
    "a-network": (
        ("config.json", "diffusion_pytorch_model.safetensors"),
        r"no model_index.json. It seems to be a network alone: .*HDPipeline\(network, sampler\)",
    ),
    "something-else": (("pytorch_model.bin", "README.md"), "no pipeline folder"),
}


@pytest.mark.parametrize(("names", "message"), NOT_A_PIPELINE.values(), ids=NOT_A_PIPELINE)
def test_what_is_no_pipeline_is_said_before_anything_is_fetched(names, message, hub, run):
    hub.put("me/x", dict.fromkeys(names, b"{}"))
    with pytest.raises(HDZooError, match=message):
        HDPipeline.from_pretrained("me/x")
    code, out, err = run("pull", "me/x")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert not [asked for asked in hub.requests if "/resolve/" in asked]


def test_a_latent_pipeline_is_refused_before_its_weights_are_fetched(hub):
    names = ("unet", "vae", "text_encoder")
    parts = {name: ["diffusers", "AutoModel"] for name in names}
    index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    content = {f"{name}/diffusion_pytorch_model.safetensors": b"{}" for name in names}
    hub.put("me/sd", {"model_index.json": json.dumps(index | parts).encode()} | content)
    with pytest.raises(HDZooError, match=r"'me/sd' is a StableDiffusionPipeline.*text_encoder, va"):
        HDPipeline.from_pretrained("me/sd")
    assert not [asked for asked in hub.requests if "safetensors" in asked]


# ---- on the way there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT /lfs/",
        "POST .*/commit/",
        "POST .*/branch/",
        "POST .*/tag/",
    ],
)
def test_a_push_to_a_server_that_fails_twice_arrives_once(asked, hub, fault, saved, files):
    hub.objects.clear()
    fault(asked, times=2, status=500)
    push_folder(saved, "me/tiny", revision="dev", tag="v1", commit_message="Once")
    there = hub.model("me/tiny")
    assert hub.faults == []
    assert [commit.message for commit in there.commits] == ["initial", "Once"]
    assert there.tags["v1"] == there.branches["dev"]
    assert {k: v for k, v in there.at("v1").files.items() if k != "README.md"} == files


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, fault, saved):
    fault("POST .*/commit/", cut=1)
    push_folder(saved, "me/tiny", commit_message="Once")
    assert [commit.message for commit in hub.model("me/tiny").commits] == ["initial", "Once"]


@pytest.mark.parametrize(
    ("asked", "status"), [("POST .*/commit/", 503), ("POST .*/commit/", 403), ("PUT /lfs/", 400)]
)
def test_a_push_that_fails_changes_nothing(asked, status, hub, fault, saved, run):
    hub.objects.clear()
    fault(asked, times=FOREVER, status=status)
    code, out, err = run("push", saved, "me/tiny")
    assert (code, out) == (2, "")
    (message,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "the Hub does not take 'me/tiny': " in message
    assert str(status) in message or "Bad request" in message
    assert "Traceback" not in err
    assert hub.model("me/tiny").head.files == {}
    hub.faults.clear()
    assert run("push", saved, "me/tiny")[0] == 0
