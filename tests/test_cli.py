"""The command line: what it prints, what it writes, and what it refuses."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zoo
from PIL import Image
from safetensors.torch import load_file, save_file

from hdzoo import HDPipeline, HDZooError, MALASampler, list_samplers
from hdzoo.generation.manifest import read_manifest
from hdzoo.images.sources import load_images
from hdzoo.sampling import draw
from hdzoo.training.config import TrainingConfig

DIGITS = ("--dataset", "digits", "-m", "sample_size=8")


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def error_of(result):
    """The message of a call that must fail as a person's mistake: one line, exit code 2."""
    code, out, err = result
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_sample_writes_a_grid_that_says_what_made_it(run, model):
    code, out, _ = run("sample", model, "-n", 5, "-t", 9, "--seed", 3, "--scale", 1)
    assert code == 0
    with Image.open(out.strip()) as grid:
        assert grid.size == (24, 16)  # 5 images of 8 pixels: 3 columns, 2 rows
        made_by = json.loads(grid.text["hdzoo"])
        # The sixth place is empty.
        assert grid.crop((16, 8, 24, 16)).getextrema() == (0, 0)
    assert made_by["seed"] == 3
    assert made_by["num_inference_steps"] == 9
    assert made_by["sampler"] == "AnnealedLangevinSampler"


def test_a_preset_is_sampler_options_and_cost(run, model):
    code, out, err = run("sample", model, "--preset", "fast", "-n", 2, "--images-dir", "single")
    assert code == 0
    assert Path(out.strip()).name.startswith("tiny-fast-10")
    assert "preset fast: 10 evaluations at noise levels from 8.11 to 0.243, those for dig" in err
    with Image.open(out.strip()) as grid:
        made_by = json.loads(grid.text["hdzoo"])
    assert (made_by["sampler"], made_by["num_inference_steps"]) == ("DPMSolverPP2MSampler", 10)
    assert made_by["options"]["noise_scale"] == 1.05
    assert run("generate", model, "--preset", "fast", "-n", 2, "-O", "set")[0] == 0
    drawn = read_manifest(Path("set"))
    assert (drawn["sampler"], drawn["num_inference_steps"]) == ("DPMSolverPP2MSampler", 10)
    assert "fast (10 evaluations), balanced (20 evaluations)" in run("samplers")[1]


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ((), "ncsn-mnist-guided"),
        (("-s", "heun"), "ncsn-mnist"),
        (("-o", "eta=1"), "ncsn-mnist"),
        (("ncsn-mnist",), "ncsn-mnist"),
    ],
)
def test_guidance_is_for_those_who_ask_for_nothing(run, options, model):
    """And it is said, in words and in the picture."""
    code, out, err = run("sample", *options, "-n", 1, "-t", 3)
    assert code == 0
    assert ("model: " in err) == (options != ("ncsn-mnist",))
    with Image.open(out.strip()) as picture:
        made_by = json.loads(picture.text["hdzoo"])
    assert made_by["model"] == model
    assert made_by.get("guidance_scale") == (1.25 if model == "ncsn-mnist-guided" else None)


@pytest.mark.parametrize("command", ["sample", "generate"])
@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("-s", "heun"), "sampler is 'heun'"),
        (("-o", "eta=1"), "option is {'eta': 1}"),
        (("-t", 10), "num_inference_steps is 10"),
    ],
)
def test_what_contradicts_a_preset(run, model, command, more, name):
    folder = ("-O", "set") if command == "generate" else ()
    message = error_of(run(command, model, "--preset", "fast", *more, *folder))
    assert f"'fast' is a sampler, its options and 10 evaluations, and {name}; leave one" in message
    assert "no preset 'quick'" in error_of(run(command, model, "--preset", "quick", *folder))
    assert not Path("set").exists()


def test_single_images_are_the_grids_and_do_not_depend_on_the_batch(run, model, tmp_path):
    common = ("sample", model, "-n", 5, "--scale", 1)
    run(*common, "--images-dir", "a", "-O", "a.png")
    run(*common, "--images-dir", "b", "-O", "b.png", "--batch-size", 2)
    grid = Image.open("a.png")
    for i in range(5):
        one, other = (Image.open(f"{folder}/{i:05d}.png") for folder in "ab")
        column, row = i % 3, i // 3
        place = grid.crop((8 * column, 8 * row, 8 * column + 8, 8 * row + 8))
        assert one.tobytes() == place.tobytes()
        # The same noise; the convolutions' round-off may move a pixel by one of 255.
        difference = max(abs(p - q) for p, q in zip(one.tobytes(), other.tobytes(), strict=True))
        assert difference <= 1


def test_rows_turn_from_one_seeds_first_image_into_the_others(run, model):
    pairs = ("--interpolate", "3:5", "--interpolate", "5:4")
    common = ("-t", 9, "--scale", 1)
    code, out, _ = run("sample", model, "-n", 4, *common, *pairs, "--images-dir", "row")
    assert code == 0
    with Image.open(out.strip()) as grid:
        assert grid.size == (32, 16)  # 4 images of 8 pixels to a row, a row for each pair
        made_by = json.loads(grid.text["hdzoo"])
        corner = grid.crop((24, 8, 32, 16)).tobytes()
    assert made_by["interpolate"] == [[3, 5], [5, 4]]
    assert "seed" not in made_by
    images = [Image.open(f"row/{i:05d}.png").tobytes() for i in range(8)]
    assert images[7] == corner
    assert len(set(images)) == 7  # Seed 5 ends the one row and begins the other.
    for place, seed in ((0, 3), (3, 5), (4, 5), (7, 4)):
        run("sample", model, "-n", 1, *common, "--seed", seed, "-O", "alone.png")
        alone = Image.open("alone.png").tobytes()
        # The same noise; the convolutions' round-off may move a pixel by one of 255.
        assert max(abs(p - q) for p, q in zip(alone, images[place], strict=True)) <= 1


def test_images_along_a_chain_are_a_row(run, model):
    common = ("sample", model, "-n", 3, "-t", 8, "--scale", 1)
    code, out, _ = run(*common, "--samples-every", 2)
    assert code == 0
    with Image.open(out.strip()) as grid:
        assert grid.size == (32, 24)  # 8 evaluations make 4 images; 3 chains
        assert json.loads(grid.text["hdzoo"])["samples_every"] == 2
        rows = [grid.crop((0, 8 * i, 32, 8 * i + 8)).tobytes() for i in range(3)]
    assert len(set(rows)) == 3
    assert run(*common)[1] != out


def test_animation_ends_on_the_grid(run, model):
    run("sample", model, "-n", 4, "-t", 8, "--gif", "a.gif", "-O", "a.png")
    with Image.open("a.gif") as gif, Image.open("a.png") as grid:
        assert gif.n_frames == 8
        gif.seek(7)
        # A GIF has a palette of 256 colours, enough for every grey.
        assert gif.convert("L").tobytes() == grid.tobytes()


@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_every_sampler_draws(run, model, name):
    code, out, _ = run("sample", model, "-s", name, "-n", 2, "-t", 12)
    assert code == 0
    assert Path(out.strip()).is_file()


def test_a_single_level_sampler_starts_from_images(run, model):
    code, out, err = run("sample", model, "-s", "half-denoising", "-n", 2, "-t", 3)
    assert code == 0
    assert "starts from images of AnnealedLangevinSampler" in err
    with Image.open(out.strip()) as grid:
        assert json.loads(grid.text["hdzoo"])["started_from"] == "AnnealedLangevinSampler"


@pytest.mark.parametrize("refused", [{"needs": ("energy",)}, {"sigma": 1e4}])
def test_what_is_refused_is_so_before_the_images_to_start_from(model, refused):
    """A network without an energy, or that does not know the noise level."""

    class Needing(MALASampler):
        needs = refused.get("needs", ())

    pipe = HDPipeline.from_pretrained(model)
    pipe.scheduler = Needing.from_config(pipe.scheduler.config, sigma=refused.get("sigma", 0.5))
    asked = []
    pipe.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    with pytest.raises(HDZooError, match=r"needs the network's energy|asks for 10000"):
        draw(pipe, 2, start=pipe.starter)
    assert not asked


def test_pictures_that_nobody_has_named_do_not_take_each_others_place(run, model, tmp_path):
    (tmp_path / "other" / model.name).parent.mkdir()
    shutil.copytree(model, tmp_path / "other" / model.name)
    config = tmp_path / "other" / model.name / "unet" / "config.json"
    spoil = next(config.parent.glob("*.safetensors"))
    save_file({k: 0.9 * v for k, v in load_file(spoil).items()}, spoil)
    calls = [
        (model, "-n", 2),
        (model, "-n", 3),
        (model, "-n", 2, "-t", 9),
        (model, "-n", 2, "-o", "num_levels=5"),
        (model, "-n", 2, "-o", "num_levels=5", "-o", "readout=full"),
        (model, "-n", 2, "--seed", 1),
        (model, "-n", 2, "--dtype", "bf16"),
        (model, "-n", 2, "--scale", 1),
        (tmp_path / "other" / model.name, "-n", 2),
    ]
    outputs = [run("sample", *call)[1].strip() for call in calls]
    assert len(set(outputs)) == len(calls)
    assert run("sample", *calls[0])[1].strip() == outputs[0]
    assert sorted(os.listdir("samples")) == sorted(Path(output).name for output in outputs)


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_a_dtype_has_both_its_names(run, model, name):
    out = run("sample", model, "-n", 1, "-t", 4, "--dtype", name)[1]
    with Image.open(out.strip()) as grid:
        assert json.loads(grid.text["hdzoo"])["dtype"] == "bfloat16"
    assert TrainingConfig(mixed_precision=name).mixed_precision == "bf16"


BLOCKED = {
    "sample": (["sample", "MODEL", "-O"], "hdzoo.sampling.draw"),
    "sample, single images": (["sample", "MODEL", "--images-dir"], "hdzoo.sampling.draw"),
    "sample, animation": (["sample", "MODEL", "--gif"], "hdzoo.sampling.draw"),
    "inpaint": (["inpaint", "MODEL", "x.png", "x.png", "-O"], "hdzoo.pipelines.inpainting.paint"),
    "posterior": (
        ["posterior", "MODEL", "x.png", "--sigma", "1", "-O"],
        "hdzoo.pipelines.posterior.image_posterior",
    ),
    "generate": (["generate", "MODEL", "-O"], "hdzoo.generation.generate.load_pipeline"),
    "evaluate": (["evaluate", "digits", "-O"], "hdzoo.metrics.report.evaluate"),
    "evaluate, card": (["evaluate", "digits", "--card"], "hdzoo.metrics.report.evaluate"),
    "compare": (["compare", "MODEL", "-O"], "hdzoo.leaderboard.compare.Run.protocol"),
    "reference": (["reference", "digits", "-O"], "hdzoo.metrics.image_sets.ImageSet.extract"),
    "reproduce": (["reproduce", "ncsn-toy", "-O"], "pkgutil.resolve_name"),
    "demo-2d": (["demo-2d", "-O"], "hdzoo.demo.demo.demo_2d"),
    "convert": (["convert", "x.pth"], "hdzoo.conversion.convert.read_checkpoint"),
    "pull": (["pull", "me/x", "-O"], "hdzoo.hub.pulling.resolve_model"),
    "train": (["train", *DIGITS, "--output-dir"], "hdzoo.training.trainer.Run"),
    "train-classifier": (
        ["train-classifier", "--dataset", "digits", "--test", "digits", "--output-dir"],
        "hdzoo.metrics.train_classifier.fit",
    ),
}


ENDS = {
    "sample": ".png",
    "sample, animation": ".gif",
    "inpaint": ".png",
    "posterior": ".png",
    "demo-2d": ".gif",
}


@pytest.mark.parametrize("case", BLOCKED)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(run, model, case, monkeypatch):
    arguments, work = BLOCKED[case]
    monkeypatch.setattr(work, lambda *_, **__: pytest.fail("the work has begun"))
    Path("file").write_bytes(b"mine")
    arguments = [model if word == "MODEL" else word for word in arguments]
    path = "file/x" + ENDS.get(case, ".safetensors")
    message = error_of(run(*arguments, path))
    if "card" in case:
        assert f"there is no card '{path}/README.md'" in message
    else:
        assert re.search("cannot write to .*file.*: Not a directory", message)
    assert os.listdir() == ["file"]
    assert Path("file").read_bytes() == b"mine"


def test_a_command_that_is_told_to_end_leaves_nothing_half_written(run, model, monkeypatch):
    from hdzoo import sampling

    def end(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sampling.PngImagePlugin.PngInfo, "add_text", lambda *_: None)
    monkeypatch.setattr(Image.Image, "save", end)
    code, out, _ = run("sample", model, "-n", 1, "-t", 4, "-O", "x.png")
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert not os.listdir()
    assert signal.getsignal(signal.SIGTERM) == before


def spoiled(model, tmp_path, change):
    """A copy of the model in which something is broken."""
    folder = tmp_path / "spoiled"
    shutil.copytree(model, folder)
    change(folder)
    return folder


def truncate(folder):
    weights = next(folder.glob("unet/*.safetensors"))
    os.truncate(weights, weights.stat().st_size // 2)


def put_nan(folder):
    weights = next(folder.glob("unet/*.safetensors"))
    state = load_file(weights)
    state["unet.conv_in.bias"].fill_(float("nan"))
    save_file(state, weights, metadata={"format": "pt"})


def need_missing_plugin(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["far_away.sampler", "FarSampler"]
    index["_hdzoo_requires"] = {"far_away.sampler": "far-away"}
    (folder / "model_index.json").write_text(json.dumps(index))


BAD_OPTIONS = {
    "unknown sampler": (["-s", "half-denoisin"], ["half-denoisin", "half-denoising", "names are"]),
    "unknown option": (["-o", "step_sise=1"], ["step_sise", "step_size"]),
    "malformed option": (["-o", "step_size"], ["KEY=VALUE"]),
    "mu below sigma^2 / 2": (
        ["-s", "noise-corrected-langevin", "-o", "step_size=0.004", "-o", "sigma=0.1"],
        ["0.004", "mu >= sigma^2 / 2 = 0.005"],
    ),
    "ascending ladder": (["-o", "sigmas=[0.1, 1]"], ["0.1", "descend"]),
    "non-positive ladder": (["-o", "sigmas=[1, 0]"], ["0.0", "positive"]),
    "NFE below the minimum": (["-t", "3"], ["3", "at least 4"]),
    "no NFE": (["-t", "0"], ["num_inference_steps is 0", "from 1 to"]),
    "outside the network's range": (["-o", "sigma_max=50"], ["50", "0.01 to 10"]),
    "an option of a wrong type": (["-o", "num_levels=many"], ["many"]),
    "no images": (["-n", "0"], ["num_images is 0", "from 1 to"]),
    "unknown dtype": (["--dtype", "int8"], ["int8", "bfloat16"]),
    "negative seed": (["--seed=-1"], ["seed is -1", "from 0 to"]),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_one_message_and_overwrites_nothing(run, model, case):
    options, parts = BAD_OPTIONS[case]
    Path("kept.png").write_bytes(b"a picture of value")
    message = error_of(run("sample", model, "-O", "kept.png", "-n", 2, *options))
    assert all(part in message for part in parts), message
    assert Path("kept.png").read_bytes() == b"a picture of value"
    assert os.listdir() == ["kept.png"]


SPOILED = {
    "truncated weights": (truncate, ["is damaged", "download or save it again"]),
    "NaN from the network": (put_nan, ["2 of 2 samples came out not finite"]),
    "missing plugin": (need_missing_plugin, ["pip install far-away", "scheduler="]),
    "no pipeline": (lambda f: (f / "model_index.json").unlink(), ["no pipeline folder"]),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_bad_model_is_one_message_and_overwrites_nothing(run, model, case, tmp_path_factory):
    change, parts = SPOILED[case]
    folder = spoiled(model, tmp_path_factory.mktemp("spoiled"), change)
    Path("kept.png").write_bytes(b"a picture of value")
    message = error_of(run("sample", folder, "-O", "kept.png", "-n", 2))
    assert all(part in message for part in parts), message
    assert Path("kept.png").read_bytes() == b"a picture of value"
    assert os.listdir() == ["kept.png"]


def test_a_missing_model_is_one_message(run, monkeypatch):
    message = error_of(run("sample", "ncsn-mnits"))
    assert "ncsn-mnits" in message
    assert "bundled name" in message


def test_samplers_lists_all_with_their_package(run):
    code, out, _ = run("samplers", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert sorted(rows) == list_samplers()
    assert rows["half-denoising"]["package"].startswith("hdzoo ")
    assert rows["half-denoising"]["options"]["sigma"] == 0.1
    assert rows["annealed-langevin"]["source"].startswith("Song and Ermon 2019")
    _, table, _ = run("samplers")
    assert all(name in table for name in list_samplers())


def test_plugins_lists_what_each_brings(run):
    code, out, _ = run("plugins", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert "half-denoising" in rows["builtin"]["samplers"]
    assert rows["builtin"]["error"] is None


def test_info_tells_what_a_model_is(run, model):
    code, out, _ = run("info", model, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["weights_bytes"] == next(model.glob("unet/*.safetensors")).stat().st_size
    assert facts["sigma_range"] == [0.01, 10.0]
    assert facts["num_inference_steps"] == 8
    levels = "from 8.11 to 0.243, those for digits times 1.62, by data_std: not measured"
    assert facts["presets"]["fast"] == f"10 evaluations at noise levels {levels}"
    assert "UNetScoreModel" in run("info", model)[1]


def test_train_writes_a_pipeline_that_samples(run):
    load_images("digits", "test").select(range(40)).to_parquet("held-out.parquet")
    arguments = [
        *("train", "--dataset", "digits", "--held-out", "held-out.parquet"),
        *("--output-dir", "mine"),
        *("-m", "sample_size=8", "-m", "block_out_channels=[8, 16]", "-m", "norm_num_groups=4"),
        *("--sigma-distribution", "log-uniform", "--max-train-steps", 6, "--lr-warmup-steps", 1),
        *("--train-batch-size", 16, "--checkpoint-every", 3, "--held-out-every", 2),
    ]
    code, out, err = run(*arguments)
    assert code == 0
    assert out.strip() == "mine"
    lines = [json.loads(line) for line in Path("mine/losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [2, 4, 6]
    assert f"loss {lines[-2]['loss']:.4g}, the mean of the last steps" in err
    assert "held-out loss per dimension by noise level: " in err
    card = Path("mine/README.md").read_text()
    assert "](samples.png)" in card
    assert "](loss.png)" in card
    assert "DPMSolverPP2MSampler with 20 network evaluations" in card
    record = json.loads(Path("mine/training.json").read_text())
    assert record["command"].startswith("hdzoo train --dataset digits")
    # Hardly trained: between the best there is, 0, and about that of a score of zero, 1.
    losses = json.loads(run("info", "mine", "--json")[1])["held_out_loss_per_dimension"]
    assert all(0 < loss < 1.5 for loss in losses.values())
    assert run("sample", "mine", "-n", 2, "-t", 6)[0] == 0
    assert run("info", "mine", "--json")[1].count('"num_inference_steps": 20') == 1

    more = ("train", "--dataset", "digits", "--init-from", "mine", "--output-dir", "more")
    steps = ("--max-train-steps", 2, "--train-batch-size", 16, "--dtype", "float32")
    assert run(*more, *steps)[0] == 0
    record = json.loads(Path("more/training.json").read_text())
    assert record["init_from"] == "mine"
    assert record["config"]["mixed_precision"] == "no"
    other = [word for word in more if word not in ("--init-from", "mine")]
    message = error_of(run(*other, *steps))
    assert "more holds another run: " in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--dataset", "nowhere.parquet"], ["nowhere.parquet", "digits"]),
        (["--dataset", "digits", "--loss-weighting", "none"], ["none", "song-ermon"]),
        (["--dataset", "digits", "--model", "resnet"], ["resnet", "unet"]),
        (["--dataset", "digits", "-m", "widht=3"], ["widht"]),
        (["--dataset", "digits", "-s", "nobody"], ["nobody"]),
        (
            ["--dataset", "digits", "-m", "sample_size=8", "--train-batch-size", "2000"],
            ["2000", "1500"],
        ),
    ],
)
def test_train_refuses_before_it_writes(run, options, parts):
    message = error_of(
        run("train", "--output-dir", "mine", "--sigma-distribution", "log-uniform", *options)
    )
    assert all(part in message for part in parts), message
    assert not Path("mine").exists()


def test_train_without_its_extra_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = error_of(run("train", "--dataset", "digits", "--output-dir", "mine"))
    assert "pip install 'hdzoo[train]'" in message
    assert not Path("mine").exists()


def test_help_is_quick():
    # The budget is 0.7 s of the processor's time: a busy machine is no fault of the command.
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "hdzoo", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.7
