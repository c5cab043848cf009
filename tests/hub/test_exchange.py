"""Pipelines go to the Hub and come back: what is sent, under which name, and what is fetched."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors.torch import load_file

from hdzoo import HDPipeline, HDZooError, UNetScoreModel, get_sampler, plugins
from hdzoo.cards import write_card
from hdzoo.hub import publishing
from hdzoo.hub.pulling import pull
from hdzoo.hub.uploads import Upload
from hdzoo.targets.mixture import GaussianMixtureScore

push_folder = partial(publishing.push_folder, load=HDPipeline.from_pretrained)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
PIPELINE = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS}
CARD = """---
# Mine.
license: mit
tags: [mine]
model-index:
- name: tiny
  results:
  - task:
      type: unconditional-image-generation
    dataset:
      type: ylecun/mnist
      name: ylecun/mnist
    metrics:
    - type: fid
      value: 1.5
      name: FID
---

# My net

It is   mine. ![grid](pictures/grid.png) <img alt="x" src="loss.png"> ![far](https://a.b/c.png)

```python
pipe = HDPipeline.from_pretrained('tiny', dtype=torch.float32)
other = HDPipeline.from_pretrained("someone/else")
```
"""


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe(2, generator=torch.Generator().manual_seed(3), output_type="latent").images


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def card_of(hub, name="me/tiny", revision="main"):
    return hub.model(name).at(revision).files["README.md"].decode()


def snippet(card):
    return re.search("```python\n(.*?)```", card, re.DOTALL)[1]


@pytest.fixture
def copy(saved, tmp_path):
    """A folder to change."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


# ---- there and back ---------------------------------------------------------------------------


def test_what_is_pushed_comes_back_in_a_fresh_process(hub, saved, pipe, run, tmp_path):
    """The command, and the environment and an empty cache: what a user has."""
    code, out, err = run("push", saved, "me/tiny")
    assert code == 0, err
    head = hub.model("me/tiny").head
    assert out.strip() == f"{hub.url}/me/tiny/commit/{head.oid}"
    assert set(head.files) == PIPELINE | {"README.md"}

    script = tmp_path / "script.py"
    script.write_text(
        f"""{snippet(head.files["README.md"].decode())}
assert len(images) == 16
import torch
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
torch.save(pipe(2, generator=generator, output_type="latent").images, "samples.pt")
"""
    )
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "theirs"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    # The client reads the environment when it is imported, so not forked.
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (cached,) = (tmp_path / "theirs").glob(f"hub/models--me--tiny/snapshots/*/{WEIGHTS}")
    assert sha256(cached.read_bytes()) == sha256((saved / WEIGHTS).read_bytes())
    assert torch.equal(torch.load(tmp_path / "samples.pt"), draw(pipe))


def test_from_python_with_everything_named(hub, pipe):
    info = pipe.push_to_hub(
        "me/tiny", "New weights", private=True, revision="dev", tag="v1", token="hf_of_me"
    )
    repository = hub.model("me/tiny")
    assert repository.private
    assert repository.tags == {"v1": info.oid}
    assert repository.branches["dev"] == info.oid
    assert repository.at("v1").message == "New weights"
    assert repository.head.files == {}
    assert 'from_pretrained("me/tiny", revision="dev")' in card_of(hub, revision="dev")
    for revision in ("dev", "v1", info.oid):
        loaded = HDPipeline.from_pretrained("me/tiny", revision=revision)
        assert torch.equal(draw(loaded), draw(pipe))


def test_save_pretrained_with_push_goes_the_same_way(hub, pipe, tmp_path):
    pipe.save_pretrained(
        tmp_path / "out", push_to_hub=True, repo_id="me/tiny", commit_message="Saved"
    )
    head = hub.model("me/tiny").head
    assert head.message == "Saved"
    assert set(head.files) == PIPELINE | {"README.md"}
    assert torch.equal(draw(HDPipeline.from_pretrained(tmp_path / "out")), draw(pipe))
    with pytest.raises(HDZooError, match="give repo_id='NAMESPACE/NAME' too"):
        pipe.save_pretrained(tmp_path / "other", push_to_hub=True)
    assert not (tmp_path / "other").exists()


def test_where_it_was_loaded_from_stays_here(hub, saved, pipe, tmp_path):
    HDPipeline.from_pretrained(saved).save_pretrained(tmp_path / "again")
    push_folder(tmp_path / "again", "me/tiny")
    for name, content in hub.model("me/tiny").head.files.items():
        assert str(saved).encode() not in content, name
    assert torch.equal(draw(HDPipeline.from_pretrained("me/tiny")), draw(pipe))


def test_a_pull_request_leaves_the_branch_alone(hub, run, saved):
    push_folder(saved, "me/tiny")
    before = hub.model("me/tiny").head
    (code, out, _) = run("push", saved, "me/tiny", "--create-pr", "--commit-message", "Please")
    assert code == 0
    assert hub.model("me/tiny").head is before
    # Nothing had changed, so the client made no commit.
    assert out.strip().endswith(before.oid)
    hub.model("me/tiny").commit({})
    _, out, _ = run("push", saved, "me/tiny", "--create-pr", "--commit-message", "Please")
    assert re.fullmatch(rf"{hub.url}/me/tiny/discussions/\d+\n", out)
    assert hub.model("me/tiny").head.files == {}
    assert hub.model("me/tiny").commits[-1].message == "Please"


def test_the_commands(hub, run, saved, pipe, tmp_path):
    arguments = ("--private", "--revision", "dev", "--tag", "v1", "--commit-message", "Mine")
    code, out, _ = run("push", saved, "me/tiny", *arguments)
    assert code == 0
    commit = hub.model("me/tiny").at("v1")
    assert out.strip().endswith(commit.oid)
    assert commit.message == "Mine"
    assert hub.model("me/tiny").private

    code, out, _ = run("pull", "me/tiny", "--revision", "v1", "-O", tmp_path / "deep" / "out")
    assert (code, out.strip()) == (0, str(tmp_path / "deep" / "out"))
    assert torch.equal(draw(HDPipeline.from_pretrained(out.strip())), draw(pipe))
    # Nothing of the cache is left in it: it can be moved, and pushed again.
    assert not [path for path in (tmp_path / "deep").rglob("*") if path.is_symlink()]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    code, out, _ = run("pull", "me/tiny", "--revision", "v1")
    assert (Path(out.strip()) / WEIGHTS).is_file()

    code, _, err = run("pull", "me/tiny", "--revision", "v1", "-O", tmp_path / "deep")
    assert code == 2
    assert "is there and is not empty" in err
    code, _, err = run("pull", "me/tiny", "--revision", "v9")
    assert code == 2
    assert "'me/tiny' has no revision 'v9' on the Hub" in err


def test_pulled_and_pushed_again_the_card_follows(hub, saved, tmp_path):
    push_folder(saved, "me/tiny")
    folder = pull("me/tiny", tmp_path / "mine")
    push_folder(folder, "me/other")
    assert 'from_pretrained("me/other")' in snippet(card_of(hub, "me/other"))
    assert hub.model("me/other").head.files.keys() == hub.model("me/tiny").head.files.keys()


def test_plain_diffusers_reads_the_parts(hub, saved, pipe):
    push_folder(saved, "me/tiny")
    network = UNetScoreModel.from_pretrained("me/tiny", subfolder="unet")
    scheduler = type(pipe.scheduler).from_pretrained("me/tiny", subfolder="scheduler")
    assert torch.equal(draw(HDPipeline(network, scheduler)), draw(pipe))


# ---- what is sent -----------------------------------------------------------------------------


def test_only_what_belongs_there_is_sent(hub, copy):
    (copy / "README.md").write_text(CARD)
    for name in ("pictures/grid.png", "pictures/unseen.png", "loss.png"):
        (copy / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(copy / name)
    strangers = (
        "checkpoints/step-0000010/model.safetensors",
        "checkpoints/step-0000010/optimizer.bin",
        "checkpoints/step-0000010/training_state.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/random_states_0.pkl",
        "unet/.partial-1-config.json",
        "unet/cache/x.json",
        ".cache/x.json",
        ".env",
        ".gitignore",
        "logs/events",
        "model.pt",
        "custom.py",
        "secrets.txt",
    )
    for name in strangers:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("{}")
    for name in ("training.json", "reference-digits.safetensors"):
        (copy / name).write_text("{}")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    push_folder(copy, "me/tiny")
    assert set(hub.model("me/tiny").head.files) == PIPELINE | {
        "README.md",
        "training.json",
        "reference-digits.safetensors",
        "pictures/grid.png",
        "loss.png",
    }
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    # And all of that comes back.
    folder = pull("me/tiny", copy / "again")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(
        hub.model("me/tiny").head.files
    )


def test_a_card_that_a_person_wrote_is_kept(hub, copy):
    (copy / "README.md").write_bytes(CARD.replace("\n", "\r\n").encode())
    push_folder(copy, "me/tiny")
    card = card_of(hub).replace("\r\n", "\n")
    added = "library_name: hdzoo\npipeline_tag: unconditional-image-generation\n"
    expected = CARD.replace("      name: FID\n", f"      name: FID\n{added}")
    assert card == expected.replace("'tiny'", '"me/tiny"')
    data = ModelCard(card).data
    assert (data.license, data.tags, data.library_name) == ("mit", ["mine"], "hdzoo")
    assert data.eval_results[0].metric_value == 1.5


def test_a_card_without_metadata_gets_them(hub, copy):
    (copy / "README.md").write_text("# Mine\n")
    push_folder(copy, "me/tiny")
    card = card_of(hub)
    assert card.endswith("---\n\n# Mine\n")
    data = ModelCard(card).data
    assert data.library_name == "hdzoo"
    assert data.tags == ["diffusers", "score-based", "UNetScoreModel", "AnnealedLangevinSampler"]


def test_a_card_whose_metadata_are_broken_is_not_sent(hub, copy):
    (copy / "README.md").write_text("---\nlicense: [mit\n---\n# Mine\n")
    with pytest.raises(HDZooError, match=r"metadata of .*README.md cannot be read"):
        push_folder(copy, "me/tiny")
    assert hub.repositories == {}


def test_the_card_of_the_repository_stays_if_the_folder_has_none(hub, saved, pipe):
    hub.put("me/tiny", {"README.md": CARD.encode()})
    pipe.push_to_hub("me/tiny")
    card = card_of(hub)
    assert "It is   mine." in card
    assert 'from_pretrained("me/tiny", dtype=torch.float32)' in card
    assert ModelCard(card).data.license == "mit"


def test_the_card_of_a_training_run_works_on_the_hub(hub, copy, pipe):
    record = {"num_images": 9, "config": {}, "seconds": 1, "num_processes": 1, "versions": {}}
    write_card(copy, record, dataset="ylecun/mnist")
    assert 'from_pretrained(".")' in snippet((copy / "README.md").read_text())
    push_folder(copy, "me/net")
    results = {}
    exec(snippet(card_of(hub, "me/net")), results)
    assert len(results["images"]) == 16
    assert results["pipe"].config._name_or_path == "me/net"
    assert ModelCard(card_of(hub, "me/net")).data.datasets in ("ylecun/mnist", ["ylecun/mnist"])


def test_a_new_card_inherits_licence_and_data(hub, copy):
    (copy / "README.md").write_text("---\nlicense: mit\ndatasets: [ylecun/mnist]\n---\n")
    HDPipeline.from_pretrained(copy).push_to_hub("me/first")
    data = ModelCard(card_of(hub, "me/first")).data
    assert (data.license, data.datasets, data.base_model) == ("mit", ["ylecun/mnist"], None)
    HDPipeline.from_pretrained("me/first").push_to_hub("me/second")
    data = ModelCard(card_of(hub, "me/second")).data
    assert (data.license, data.datasets, data.base_model) == (
        "mit",
        ["ylecun/mnist"],
        "me/first",
    )
    shutil.rmtree(constants.HF_HUB_CACHE)
    HDPipeline.from_pretrained(copy).push_to_hub("me/third")


def test_a_model_of_points_has_a_card_that_runs(hub):
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25])
    sampler = get_sampler("annealed-langevin")(sigma_max=1.0, num_levels=3)
    HDPipeline(target, sampler).push_to_hub("me/points")
    data = ModelCard(card_of(hub, "me/points")).data
    assert data.pipeline_tag is None
    results = {}
    exec(snippet(card_of(hub, "me/points")), results)
    assert results["images"].shape[0] == 16


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", WEIGHTS])
def test_a_broken_model_is_not_sent(file, hub, copy, run):
    (copy / file).write_bytes((copy / file).read_bytes()[:-9])
    code, out, err = run("push", copy, "me/tiny")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert hub.requests == []


def test_a_lost_shard_is_noticed(hub, pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "net", max_shard_size="20KB")
    next((tmp_path / "net").glob("unet/*-00002-*")).unlink()
    with pytest.raises(
        HDZooError, match=r"lists 1 parts of the weights that are not there, .*-00002-"
    ):
        push_folder(tmp_path / "net", "me/tiny")
    assert hub.requests == []


def test_new_weights_take_the_place_of_all_the_old(hub, pipe, saved, tmp_path):
    half = HDPipeline.from_pretrained(saved)
    half.unet.half()
    half.push_to_hub("me/tiny", variant="fp16")
    pipe.save_pretrained(tmp_path / "net", max_shard_size="20KB")
    push_folder(tmp_path / "net", "me/tiny")
    there = set(hub.model("me/tiny").head.files)
    assert {HALF, f"{WEIGHTS}.index.json"} <= there
    assert WEIGHTS not in there
    # A loader takes the list of parts first: with it left there, these weights would be the old.
    push_folder(saved, "me/tiny")
    assert set(hub.model("me/tiny").head.files) == PIPELINE | {HALF, "README.md"}


# ---- what is asked first ----------------------------------------------------------------------


def test_a_public_repository_does_not_get_what_is_private(hub, saved):
    push_folder(saved, "me/tiny")
    before = hub.model("me/tiny").head
    with pytest.raises(HDZooError, match=r"'me/tiny' is there and is public.* nothing was sent"):
        push_folder(saved, "me/tiny", private=True)
    assert hub.model("me/tiny").head is before
    hub.model("me/tiny").private = True
    push_folder(saved, "me/tiny", private=True)


def test_a_tag_is_not_moved(hub, saved):
    push_folder(saved, "me/tiny", tag="v1")
    with pytest.raises(HDZooError, match="has the tag 'v1' already; nothing was sent"):
        push_folder(saved, "me/tiny", tag="v1", commit_message="Again")
    assert "Again" not in [commit.message for commit in hub.model("me/tiny").commits]


def test_a_token_is_not_shown():
    assert "hf_of_me" not in repr(Upload("me/tiny", token="hf_of_me"))


@pytest.mark.parametrize("name", ["tiny", "me/ti ny", "a/b/c"])
def test_a_name_that_is_none_is_refused_first(name, hub, saved):
    with pytest.raises(HDZooError, match="give NAMESPACE/NAME"):
        push_folder(saved, name)
    assert hub.requests == []


def test_what_is_no_folder_is_refused(hub, tmp_path, run):
    code, _, err = run("push", tmp_path / "none", "me/tiny")
    assert code == 2
    assert "there is no folder" in err
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run("push", tmp_path, "me/tiny")
    assert code == 2
    assert "it has no model_index.json. It seems to be a network alone" in err


# ---- what is fetched --------------------------------------------------------------------------


@pytest.fixture
def both(hub, files, saved, tmp_path):
    """A repository with weights of two kinds, and more that nobody needs."""
    half = HDPipeline.from_pretrained(saved)
    half.unet.half()
    half.save_pretrained(tmp_path / "half", variant="fp16")
    more = dict.fromkeys(("unet/diffusion_pytorch_model.bin", "huge.safetensors", "x.py"), b"x")
    return hub.put("me/tiny", files | {HALF: (tmp_path / "half" / HALF).read_bytes()} | more)


def fetched(hub):
    """The files that were asked for, large ones too: the client asks for their size first."""
    found = (re.search("(GET|HEAD) .*/resolve/[^/]+/(.*)", asked) for asked in hub.requests)
    return {match[2] for match in found if match}


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_only_the_weights_of_the_variant_are_fetched(variant, hub, both, tmp_path):
    loaded = HDPipeline.from_pretrained("me/tiny", variant=variant)
    wanted = HALF if variant else WEIGHTS
    cache = Path(constants.HF_HUB_CACHE)
    links = {p.name for p in cache.glob("*/snapshots/*/**/*.safetensors")}
    assert links == {Path(wanted).name}
    assert not list(cache.glob("*/snapshots/*/**/*.bin"))
    assert not list(cache.glob("*/snapshots/*/**/*.py"))
    weights = load_file(next(cache.glob(f"*/snapshots/*/{wanted}")))
    assert weights["unet.conv_in.weight"].dtype == (torch.float16 if variant else torch.float32)
    assert torch.equal(
        loaded.unet.state_dict()["unet.conv_in.weight"], weights["unet.conv_in.weight"].float()
    )
    # Nor does a folder get what the cache has of others.
    HDPipeline.from_pretrained("me/tiny", variant=None if variant else "fp16")
    folder = pull("me/tiny", tmp_path / "out", variant=variant)
    assert [p.name for p in folder.rglob("*.safetensors")] == [Path(wanted).name]


def test_a_variant_that_is_not_there_is_named_before_anything_is_fetched(hub, both):
    with pytest.raises(
        HDZooError, match=r"variant 'bf16' for its unet; allowed are 'fp16', no variant"
    ):
        HDPipeline.from_pretrained("me/tiny", variant="bf16")
    assert fetched(hub) == {"model_index.json"}


def test_a_pipeline_of_the_oldest_kind_has_all_in_one_folder(hub, both, pipe, tmp_path):
    """As google/ddpm-cifar10-32; diffusers knows no variants there."""
    old = both.commit({name.rpartition("/")[2]: body for name, body in both.head.files.items()})
    assert torch.equal(draw(HDPipeline.from_pretrained("me/tiny")), draw(pipe))
    push_folder(pull("me/tiny", tmp_path / "out"), "me/other")
    sent = hub.model("me/other").head.files
    wanted = {"config.json", "scheduler_config.json", "model_index.json", Path(WEIGHTS).name}
    assert set(sent) == wanted | {"README.md"}
    assert all(sent[name] == old.files[name] for name in wanted)


def test_only_half_weights_are_said_so_in_the_card(hub, saved):
    half = HDPipeline.from_pretrained(saved)
    half.unet.half()
    half.push_to_hub("me/tiny", variant="fp16")
    results = {}
    exec(snippet(card_of(hub)), results)
    assert len(results["images"]) == 16


def test_the_cache(hub, saved, pipe, tmp_path, monkeypatch):
    push_folder(saved, "me/tiny")
    with pytest.raises(HDZooError, match="outgoing traffic has been disabled"):
        HDPipeline.from_pretrained("me/tiny", local_files_only=True)
    HDPipeline.from_pretrained("me/tiny", cache_dir=tmp_path / "mine")
    assert not Path(constants.HF_HUB_CACHE).exists()
    hub.requests.clear()
    loaded = HDPipeline.from_pretrained(
        "me/tiny", cache_dir=tmp_path / "mine", local_files_only=True
    )
    assert hub.requests == []
    assert torch.equal(draw(loaded), draw(pipe))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = HDPipeline.from_pretrained("me/tiny", cache_dir=tmp_path / "mine")
    assert hub.requests == []
    assert torch.equal(draw(offline), draw(pipe))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # What has not changed is not fetched again, unless one asks for it.
    HDPipeline.from_pretrained("me/tiny", cache_dir=tmp_path / "mine")
    assert hub.requests == ["GET /api/models/me/tiny/revision/main"]
    HDPipeline.from_pretrained("me/tiny", cache_dir=tmp_path / "mine", force_download=True)
    assert [asked for asked in hub.requests if asked.startswith("GET /lfs/")]


def test_a_private_repository_needs_a_token(hub, files, pipe, monkeypatch):
    hub.put("me/tiny", files, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HDZooError, match=r"no model 'me/tiny' on the Hub, or it needs a token"):
        HDPipeline.from_pretrained("me/tiny")
    with pytest.raises(HDZooError, match="Invalid credentials"):
        HDPipeline.from_pretrained("me/tiny", token="hf_wrong")
    loaded = HDPipeline.from_pretrained("me/tiny", token="hf_of_me")
    assert torch.equal(draw(loaded), draw(pipe))
    with pytest.raises(HDZooError, match=r"does not take 'me/tiny': .*401"):
        loaded.push_to_hub("me/tiny")


def test_a_folder_has_no_revisions(saved):
    with pytest.raises(HDZooError, match=r"revision is 'v2', and .* has no revisions"):
        HDPipeline.from_pretrained(saved, revision="v2")


def test_a_sampler_of_a_plugin(hub, pipe, monkeypatch):
    sampler = get_sampler("example-ddim")(sigma_max=2.0, prediction_type="sample")
    HDPipeline(pipe.unet, sampler).push_to_hub("me/tiny")
    index = json.loads(hub.model("me/tiny").head.files["model_index.json"])
    assert index["_hdzoo_requires"] == {"hdzoo_example_sampler.sampler": "hdzoo-example-sampler"}
    module = "hdzoo_example_sampler.sampler"
    monkeypatch.delitem(sys.modules, module)
    loaded = HDPipeline.from_pretrained("me/tiny")
    assert type(loaded.scheduler).__name__ == "ExampleDDIMSampler"
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(plugins, "plugin_modules", lambda: {"hdzoo"})
    with pytest.raises(HDZooError, match="pip install hdzoo-example-sampler, or pass your own"):
        HDPipeline.from_pretrained("me/tiny")
    mine = HDPipeline.from_pretrained("me/tiny", scheduler=pipe.scheduler)
    assert torch.equal(draw(mine), draw(pipe))


# ---- generated sets ---------------------------------------------------------------------------


def test_a_generated_set_goes_as_a_dataset(hub, run, saved, tmp_path):
    arguments = ("generate", saved, "-O", tmp_path / "set", "-n", 4, "--push-to-hub", "me/digits")
    code, _, err = run(*arguments)
    assert code == 0
    assert f"sent to {hub.url}/me/digits/commit/" in err
    sent = hub.repositories["dataset", "me/digits"].head.files
    assert sent.pop("README.md").decode() != (tmp_path / "set" / "README.md").read_text()
    local = {p.relative_to(tmp_path / "set").as_posix() for p in (tmp_path / "set").rglob("*.*")}
    assert set(sent) == {name for name in local if not name.startswith(".")} - {"README.md"}
    for name, content in sent.items():
        assert content == (tmp_path / "set" / name).read_bytes()
    code, _, err = run(*arguments[:-1], "other/digits")
    assert code == 2
    assert "403" in err
    assert str(tmp_path / "set") in err
