"""Generated sets: the same bytes however they are made, and nothing damaged or mixed is kept."""

import errno
import io
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Image as ImageFeature
from datasets import Value, load_dataset
from filelock import FileLock
from huggingface_hub import DatasetCard
from PIL import Image

from hdzoo import HDPipeline, environment, get_sampler
from hdzoo.catalog import weights_hash
from hdzoo.errors import HDZooError
from hdzoo.generation import generate as generation
from hdzoo.generation.generate import generate
from hdzoo.pipelines.generators import sample_generators
from hdzoo.targets.mixture import GaussianMixtureScore

# Three shards, the last not full.
SET = {"num_images": 40, "chunk_size": 16, "seed": 3}


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A set that was made in one go; not to be changed."""
    return generate(model, tmp_path_factory.mktemp("sets") / "whole", **SET).folder


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def finish(processes):
    """Waits for processes; their exit codes."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def contents(folder):
    """The data and checksums of a set: name to bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }


# ---- what is made ---------------------------------------------------------------------------


def test_datasets_reads_all_images_in_order(whole, tmp_path):
    dataset = load_dataset(str(whole), cache_dir=str(tmp_path))
    assert list(dataset) == ["train"]
    features = dataset["train"].features
    assert isinstance(features["image"], ImageFeature)
    assert features["index"] == features["seed"] == Value("int64")
    assert features["sampler"] == Value("string")
    assert dataset["train"]["index"][:] == list(range(40))
    assert set(dataset["train"]["seed"]) == {3}
    (sampler,) = set(dataset["train"]["sampler"])
    name, options = sampler.split(" ", 1)
    assert name == "AnnealedLangevinSampler"
    assert json.loads(options)["sigma_max"] == 2.0
    # An unfinished set has no card to say where the data are.
    assert dataset["train"][39]["image"].size == (8, 8)
    (whole / "README.md").rename(tmp_path / "README.md")
    try:
        again = load_dataset(str(whole), split="train", cache_dir=str(tmp_path / "other"))
    finally:
        (tmp_path / "README.md").rename(whole / "README.md")
    assert again["index"][:] == list(range(40))


def pipeline_images(model, indices, seed, scheduler=None, steps=None):
    """Images as `HDPipeline` alone draws them, with one thread."""
    pipe = HDPipeline.from_pretrained(model)
    first = pipe.scheduler
    clean = None
    generators = sample_generators(seed, indices)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if scheduler is not None:
            pipe.scheduler = get_sampler(scheduler).from_config(first.config)
            clean = HDPipeline(pipe.unet, first)(
                len(indices), generator=generators, output_type="pt"
            ).images
        return pipe(len(indices), steps, generator=generators, image=clean).images
    finally:
        torch.set_num_threads(before)


def stored_images(folder):
    """Index to pixels, from the Parquet files alone."""
    images = {}
    for path in sorted(folder.glob("data/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["index"] not in images
            images[row["index"]] = Image.open(io.BytesIO(row["image"]["bytes"])).tobytes()
    return images


def test_images_are_those_of_the_pipeline(model, whole):
    stored = stored_images(whole)
    for chunk in (range(16), range(16, 32), range(32, 40)):
        for index, image in zip(chunk, pipeline_images(model, chunk, seed=3), strict=True):
            assert stored[index] == image.tobytes(), index
    assert len({*stored.values()}) == 40


def test_a_single_level_sampler_starts_from_images_of_the_models_own(model, tmp_path):
    generate(model, tmp_path, 5, sampler="half-denoising", num_inference_steps=3)
    expected = pipeline_images(model, range(5), 0, "half-denoising", 3)
    assert list(stored_images(tmp_path).values()) == [image.tobytes() for image in expected]
    protocol = json.loads((tmp_path / "manifest.json").read_text())
    assert protocol["started_from"] == "AnnealedLangevinSampler"
    assert protocol["start_num_inference_steps"] == 8
    assert protocol["num_inference_steps"] == 3


def test_the_manifest_is_the_whole_protocol(model, tmp_path):
    generate(model, tmp_path, 2, dtype="bfloat16", num_threads=2, command="hdzoo generate ...")
    protocol = json.loads((tmp_path / "manifest.json").read_text())
    assert protocol["model"] == str(model)
    assert protocol["weights_sha256"] == weights_hash(model)
    assert protocol["network"] == "UNetScoreModel"
    assert protocol["sampler_options"]["num_levels"] == 4
    expected = {
        "num_inference_steps": 8,
        "started_from": "noise",
        "seed": 0,
        "num_images": 2,
        "chunk_size": 250,
        "dtype": "bfloat16",
        "num_threads": 2,
        "command": "hdzoo generate ...",
    }
    assert protocol.items() >= expected.items()
    assert set(protocol["versions"]) == {"hdzoo", "torch", "diffusers"}


@pytest.mark.parametrize("number", [1, 2])
def test_images_are_drawn_with_the_number_of_threads_asked_for(
    model, tmp_path, monkeypatch, number
):
    draw, found = generation.draw_batch, []

    def watched(*arguments, **options):
        found.append(torch.get_num_threads())
        return draw(*arguments, **options)

    monkeypatch.setattr(generation, "draw_batch", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        generate(model, tmp_path, 2, num_threads=number)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert found == [number]


def test_the_card_says_what_made_the_set(whole):
    card = DatasetCard.load(whole / "README.md")
    assert card.data.configs[0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"}
    ]
    protocol = json.loads((whole / "manifest.json").read_text())
    assert "40 images drawn by AnnealedLangevinSampler" in card.text
    assert protocol["weights_sha256"] in card.text
    assert "sha256sum --check" in card.text


# ---- many processes, and those that are killed ----------------------------------------------


@pytest.mark.parametrize("number", [2, 3])
def test_any_number_of_processes_makes_the_same_bytes(
    model, whole, tmp_path, start_processes, number
):
    processes = start_processes(
        number, "generate", model, "-O", tmp_path / "set", "-n", 40, "--chunk-size", 16, "--seed", 3
    )
    assert finish(processes) == [0] * number, start_processes.log.read_text()
    assert f"40 drawn now by {number} processes" in start_processes.log.read_text()
    assert contents(tmp_path / "set") == contents(whole)


def test_killed_runs_resume_to_the_same_set(model, tmp_path, start_processes):
    options = ["-n", 160, "--chunk-size", 8, "-t", 16]
    assert finish(start_processes(1, "generate", model, "-O", tmp_path / "whole", *options)) == [0]
    expected = contents(tmp_path / "whole")
    rng = random.Random(0)
    folder = tmp_path / "killed"
    counts = []
    for _ in range(4):
        before = len(list(folder.glob("data/*")))
        processes = start_processes(2, "generate", model, "-O", folder, *options)
        # Not before it draws again.
        while len(list(folder.glob("data/*"))) == before and processes[0].is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        for process in processes:
            process.kill()
        finish(processes)
        found = {f"data/{path.name}": path.read_bytes() for path in folder.glob("data/train-*")}
        assert found.items() <= expected.items()
        counts.append(len(found))
    # The kills came amid the run, and each run went on from the one before.
    assert counts == sorted(counts)
    assert 0 < counts[0] < 20
    (folder / "data" / ".partial-1-train-00019.parquet").write_bytes(b"half a shard")
    (folder / ".partial-1-manifest.json").write_bytes(b"half")
    assert finish(start_processes(2, "generate", model, "-O", folder, *options)) == [0, 0]
    assert contents(folder) == expected
    assert not list(folder.rglob(".partial-*"))


def test_processes_fail_together(model, copy, start_processes):
    before = contents(copy)
    processes = start_processes(
        2, "generate", model, "-O", copy, "-n", 40, "--chunk-size", 16, "--seed", 4
    )
    assert finish(processes) == [2, 2]
    assert "seed was 3 and is 4" in start_processes.log.read_text()
    assert contents(copy) == before


def test_a_folder_in_use_is_refused(model, copy):
    with FileLock(copy / ".lock"), pytest.raises(HDZooError, match="in use by another run"):
        generate(model, copy, **SET)


# ---- going on -------------------------------------------------------------------------------


def test_a_complete_set_is_left_as_it_is(model, copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    made = generate(model, copy, **SET)
    assert (made.num_images, made.num_drawn) == (40, 0)
    after = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }


def truncate(folder):
    path = folder / "data" / "train-00001.parquet"
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    path = folder / "data" / "train-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(folder):
    (folder / "data" / "train-00001.parquet").write_bytes(b"")


def lose_the_checksum(folder):
    (folder / "checksums" / "00001.sha256").unlink()


def garble_the_checksum(folder):
    (folder / "checksums" / "00001.sha256").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit, empty, lose_the_checksum, garble_the_checksum]
)
def test_a_damaged_shard_is_reported_and_drawn_again(model, whole, copy, damage):
    damage(copy)
    notes = []
    made = generate(model, copy, **SET, on_note=notes.append)
    assert made.num_drawn == 16
    (note,) = notes
    assert "train-00001.parquet is damaged and is drawn again" in note
    assert contents(copy) == contents(whole)


def test_a_lost_shard_is_drawn_again(model, whole, copy):
    (copy / "data" / "train-00002.parquet").unlink()
    notes = []
    assert generate(model, copy, **SET, on_note=notes.append).num_drawn == 8
    assert notes == []
    assert contents(copy) == contents(whole)


def test_a_set_grows(model, whole, copy, tmp_path):
    full = (copy / "data" / "train-00000.parquet").stat().st_mtime_ns
    assert generate(model, copy, **SET | {"num_images": 60}).num_drawn == 28
    assert (copy / "data" / "train-00000.parquet").stat().st_mtime_ns == full
    generate(model, tmp_path / "fresh", **SET | {"num_images": 60})
    assert contents(copy) == contents(tmp_path / "fresh")
    assert json.loads((copy / "manifest.json").read_text())["num_images"] == 60
    assert "60 images" in (copy / "README.md").read_text()
    with pytest.raises(HDZooError, match=r"a set of 60 images and num_images is 40.*train\[:40\]"):
        generate(model, copy, **SET)


OTHER = {
    "seed": ({"seed": 4}, "seed was 3 and is 4"),
    "chunk_size": ({"chunk_size": 8}, "chunk_size was 16 and is 8"),
    "NFE": ({"num_inference_steps": 9}, "num_inference_steps was 8 and is 9"),
    "sampler": (
        {"sampler": "alpha-half-denoising"},
        "sampler was 'AnnealedLangevinSampler' and is 'AlphaHalfDenoisingSampler'",
    ),
    "option": ({"options": {"sigma_max": 1.5}}, "sampler_options.sigma_max was 2.0 and is 1.5"),
    "dtype": ({"dtype": "bfloat16"}, "dtype was 'float32' and is 'bfloat16'"),
    "backend": ({"backend": "onnxruntime"}, "backend was 'torch' and is 'onnxruntime 1"),
    "threads": ({"num_threads": 2}, "num_threads was 1 and is 2"),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_protocol_is_refused(model, copy, case):
    options, difference = OTHER[case]
    before = contents(copy)
    with pytest.raises(HDZooError) as refusal:
        generate(model, copy, **SET | options)
    assert difference in str(refusal.value)
    assert "another output folder" in str(refusal.value)
    assert contents(copy) == before


def test_other_weights_and_versions_are_refused(model, copy, tmp_path, monkeypatch):
    torch.manual_seed(1)
    pipe = HDPipeline.from_pretrained(model)
    pipe.unet.unet.conv_in.bias.data += 1
    pipe.save_pretrained(tmp_path / "other")
    with pytest.raises(HDZooError, match=r"another protocol: weights_sha256 was '\w{64}' and is"):
        generate(tmp_path / "other", copy, **SET)
    monkeypatch.setattr(environment, "version", lambda package: "9.9")
    with pytest.raises(HDZooError, match=r"versions\.torch was '2.* and is '9\.9'"):
        generate(model, copy, **SET)


def test_a_set_of_a_time_before_backends_goes_on(model, copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    assert manifest.pop("backend") == "torch"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert generate(model, copy, **SET).num_drawn == 0
    with pytest.raises(HDZooError, match="backend was 'torch' and is 'onnxruntime"):
        generate(model, copy, **SET, backend="onnxruntime")


def test_a_model_that_has_moved_is_the_same(model, copy, tmp_path):
    moved = tmp_path / "moved"
    HDPipeline.from_pretrained(model).save_pretrained(moved)
    assert generate(moved, copy, **SET).num_drawn == 0


@pytest.mark.parametrize("content", ["", "[]", '{"seed": 3}', '{"num_images"'])
def test_a_damaged_manifest_is_refused(model, copy, content):
    (copy / "manifest.json").write_text(content)
    before = contents(copy)
    with pytest.raises(HDZooError, match=r"manifest\.json is damaged"):
        generate(model, copy, **SET)
    assert contents(copy) == before


def test_a_folder_of_something_else_is_refused(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(HDZooError, match=r"holds 'README.md' and no manifest.json"):
        generate(model, tmp_path, **SET)
    assert (tmp_path / "README.md").read_text() == "mine"


# ---- what goes wrong ------------------------------------------------------------------------


def test_nothing_drawn_yet_is_no_protocol_to_keep(model, tmp_path):
    with pytest.raises(HDZooError, match=r"images 0 to 15: .*trained for noise levels"):
        generate(model, tmp_path, **SET, options={"sigma_max": 50.0})
    assert generate(model, tmp_path, **SET).num_drawn == 40
    assert json.loads((tmp_path / "manifest.json").read_text())["sampler_options"][
        "sigma_max"
    ] == pytest.approx(2.0)


def test_samples_that_are_not_finite_stop_the_run(model, whole, tmp_path, monkeypatch):
    draw = generation.draw_batch

    def spoiled(pipe, indices, **options):
        if indices[0] == 16:
            # The network itself returns NaN.
            handle = pipe.unet.register_forward_hook(
                lambda *_: (torch.full((16, 1, 8, 8), torch.nan),)
            )
            try:
                return draw(pipe, indices, **options)
            finally:
                handle.remove()
        return draw(pipe, indices, **options)

    monkeypatch.setattr(generation, "draw_batch", spoiled)
    with pytest.raises(HDZooError, match=r"images 16 to 31: 16 of 16 samples came out not finite"):
        generate(model, tmp_path, **SET)
    assert list(contents(tmp_path)) == ["checksums/00000.sha256", "data/train-00000.parquet"]
    monkeypatch.undo()
    assert generate(model, tmp_path, **SET).num_drawn == 24
    assert contents(tmp_path) == contents(whole)


def test_a_full_disk_is_a_message_and_the_next_run_goes_on(model, whole, tmp_path, monkeypatch):
    write = Path.write_bytes

    def write_until_full(path, content):
        if "00001" in path.name:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(HDZooError, match=r"cannot write to .*No space left.*What is there stays"):
        generate(model, tmp_path, **SET)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000.parquet"]
    monkeypatch.undo()
    assert generate(model, tmp_path, **SET).num_drawn == 24
    assert contents(tmp_path) == contents(whole)


def test_a_folder_that_cannot_be_written_is_a_message(model, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HDZooError, match="cannot write to"):
            generate(model, folder, **SET)


def test_a_chunk_that_does_not_fit_into_memory_is_a_message(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(generation, "draw_batch", fail)
    with pytest.raises(
        HDZooError, match=r"16 images at a time do not fit.*20 GiB.*smaller chunk_size"
    ):
        generate(model, tmp_path, **SET)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"num_images": 0}, ["num_images is 0", "from 1"]),
        ({"chunk_size": 0}, ["chunk_size is 0", "from 1"]),
        ({"num_images": 200_000, "chunk_size": 1}, ["200,000 shards", "larger chunk_size"]),
        ({"seed": -1}, ["seed is -1", "from 0"]),
        ({"num_threads": 0}, ["num_threads is 0", "from 1"]),
        ({"num_inference_steps": 3}, ["3", "at least 4"]),
        ({"dtype": "int8"}, ["int8", "bfloat16"]),
        ({"backend": "tpu"}, ["unknown backend 'tpu'", "torch, onnxruntime"]),
        ({"backend": "onnxruntime", "dtype": "bf16"}, ["'onnxruntime'", "'bfloat16'", "float32"]),
        ({"sampler": "nobody"}, ["nobody", "annealed-langevin"]),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(model, tmp_path, options, parts):
    with pytest.raises(HDZooError) as refusal:
        generate(model, tmp_path / "set", **SET | options)
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "set").exists()


def test_a_model_of_points_is_refused(tmp_path):
    points = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25])
    HDPipeline(points, get_sampler("annealed-langevin")()).save_pretrained(tmp_path / "points")
    with pytest.raises(HDZooError, match="are no images"):
        generate(tmp_path / "points", tmp_path / "set", 4)
    assert not (tmp_path / "set").exists()


# ---- the command ----------------------------------------------------------------------------


def test_the_command_prints_the_folder(run, model, whole, tmp_path):
    folder = tmp_path / "set"
    code, out, err = run("generate", model, "-O", folder, "-n", 40, "--chunk-size", 16, "--seed", 3)
    assert code == 0
    assert out.strip() == str(folder)
    assert "40 images, 40 drawn now by 1 process in" in err
    assert contents(folder) == contents(whole)
    assert "hdzoo generate" in json.loads((folder / "manifest.json").read_text())["command"]


def test_ctrl_c_leaves_a_folder_to_go_on_with(run, model, whole, tmp_path, monkeypatch):
    draw = generation.draw_batch

    def interrupted(pipe, indices, **options):
        if indices[0] == 16:
            raise KeyboardInterrupt
        return draw(pipe, indices, **options)

    monkeypatch.setattr(generation, "draw_batch", interrupted)
    arguments = (
        "generate",
        model,
        "-O",
        tmp_path / "set",
        "-n",
        40,
        "--chunk-size",
        16,
        "--seed",
        3,
    )
    code, out, err = run(*arguments)
    assert code == 130
    assert out == ""
    lines = [line for line in err.splitlines() if "interrupted" in line]
    assert len(lines) == 1
    assert "the same command goes on" in lines[0]
    assert "Traceback" not in err
    monkeypatch.setattr(generation, "draw_batch", draw)
    assert run(*arguments)[0] == 0
    assert contents(tmp_path / "set") == contents(whole)


def test_progress_counts_all_images(model, copy):
    (copy / "data" / "train-00001.parquet").unlink()
    done = []
    generate(model, copy, **SET, on_progress=done.append)
    # 24 were there; each of the 8 evaluations is an eighth of the 16 that are missing.
    assert done == pytest.approx([24, *(24 + 2 * step for step in range(1, 9)), 40])


@pytest.mark.parametrize("name", ["digits", "me/dig its", "a/b/c"])
def test_a_bad_repository_name_is_refused_first(run, model, tmp_path, name):
    code, _, err = run("generate", model, "-O", tmp_path / "set", "--push-to-hub", name)
    assert code == 2
    assert "NAMESPACE/NAME" in err
    assert not (tmp_path / "set").exists()


def test_without_its_extra_the_command_says_what_to_install(run, model, tmp_path, monkeypatch):
    for name in ("generate", "folder", "shards"):
        monkeypatch.delitem(sys.modules, f"hdzoo.generation.{name}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = run("generate", model, "-O", tmp_path / "set")
    assert code == 2
    assert "this command needs datasets: pip install" in err
