"""Reports: what `hdzoo evaluate` says, by which reference, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from given import digit_numbers, digits
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdzoo import HDZooError
from hdzoo.bundled import bundled_folder
from hdzoo.catalog import weights_hash
from hdzoo.generation.generate import generate
from hdzoo.images.sources import load_images
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.metrics import frechet_distance, moments
from hdzoo.metrics.reference import PROTOCOL, load_reference, make_reference, reference_of
from hdzoo.metrics.report import evaluate
from hdzoo.metrics.results_card import write_results

FEATURES = "(digit-classifier features)"
CARD = """\
---
license: apache-2.0
tags:   # a comment, and odd spaces
- digits
model_name:   tiny
---

# tiny

---
model-index: this is text
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def extractor():
    return get_extractor("digits", device="cpu")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Parquet files of 8x8 digits: one set, and others to compare it with."""
    folder = tmp_path_factory.mktemp("real")
    images = load_images("digits")
    images.select(range(100)).to_parquet(folder / "one.parquet")
    images.select(range(100, 400)).to_parquet(folder / "others.parquet")
    return folder


@pytest.fixture(scope="module")
def saved(real, extractor):
    """A saved reference."""
    images = open_images(real / "others.parquet", "test")
    path = real / "reference.safetensors"
    make_reference(images, extractor, max_features=200, dataset="some/digits").save(path)
    return path


@pytest.fixture(scope="module")
def drawn(tiny_model, tmp_path_factory, saved):
    """A model with a card and a reference, and the folder of 40 images of it."""
    model = tiny_model
    before = weights_hash(model)
    shutil.copy(saved, model / "reference-digits.safetensors")
    assert weights_hash(model) == before
    (model / "README.md").write_text(CARD)
    return model, generate(
        model, tmp_path_factory.mktemp("sets") / "tiny", 40, chunk_size=16
    ).folder


@pytest.fixture(scope="module")
def report(drawn):
    return evaluate(drawn[1], subsets=5, command="hdzoo evaluate tiny")


# ---- the report ---------------------------------------------------------------------------------


def test_a_generated_set_is_judged_by_the_reference_of_its_model(report, drawn, extractor):
    found = json.loads(json.dumps(report.to_dict()))
    assert found["images"]["num_images"] == 40
    assert found["images"]["manifest"]["model"] == str(drawn[0])
    assert found["reference"]["dataset"] == "some/digits"
    assert (found["reference"]["num_images"], found["reference"]["num_features"]) == (300, 200)
    assert found["extractor"]["weights_sha256"] == extractor.weights_sha256
    assert found["command"] == "hdzoo evaluate tiny"
    assert found["seed"] == 2020
    assert {"hdzoo", "torch", "torch-fidelity"} <= set(found["versions"])
    names = [result["name"] for result in found["results"]]
    alone = ("FD", "KD", "IS", "precision", "recall")
    by_class = ("class-weighted FD", "total variation of class shares")
    assert names == [f"{name} {FEATURES}" for name in (*alone, *by_class)]
    for result in found["results"]:
        assert np.isfinite(
            [result["value"], result["spread"], *result["equal_size"].values()]
        ).all()
        assert result["num_images"] == result["equal_size"]["num_images"] == 40
    assert report["fid"].num_reference == 300
    assert report["kid"].num_reference == 200
    # Noise is no digits.
    assert report["fid"].equal_size.value > 3 * report["fid"].equal_size.floor
    assert report["isc"].num_reference is None


def test_numbers_are_the_same_each_time(report, drawn):
    again = evaluate(drawn[1], subsets=5)
    assert again.results == report.results


def test_fewer_images_than_features_are_said(report):
    assert any("40 images for 128 features" in note for note in report.notes)


def test_another_size_and_a_short_reference_are_said(real, saved, tmp_path):
    images = load_images(str(real / "one.parquet"))["image"]
    for i, image in enumerate(2 * list(images)):
        image.resize((28, 28)).save(tmp_path / f"{i:03d}.png")
    found = evaluate(tmp_path, reference=saved, metrics=["fid"], subsets=5)
    assert found["fid"].num_images == 200
    assert found["fid"].equal_size.num_images == 100
    assert any("100 of each are compared, not 200" in note for note in found.notes)
    assert any("28x28" in note and "8x8" in note for note in found.notes)


def test_images_are_a_reference_too(real, extractor):
    found = evaluate(
        real / "one.parquet", reference=real / "others.parquet", features="digits", metrics=["fid"]
    )
    one, others = (
        moments(open_images(real / f"{name}.parquet").extract(extractor).layers["features"])
        for name in ("one", "others")
    )
    assert found["fid"].value == pytest.approx(frechet_distance(one, others), rel=1e-9)
    assert found.reference["num_images"] == found.reference["num_features"] == 300
    # Real images against real ones.
    equal = found["fid"].equal_size
    assert abs(equal.value - equal.floor) < 5 * max(equal.value_spread, equal.floor_spread)


def test_each_side_has_its_split():
    found = evaluate("digits", reference="digits", features="digits", metrics=["isc"])
    assert (found.images["split"], found.images["num_images"]) == ("train", 1500)
    assert (found.reference["split"], found.reference["num_images"]) == ("test", 297)


# ---- references ---------------------------------------------------------------------------------


def test_float16_hardly_changes_a_saved_reference(saved, real, extractor):
    reference = load_reference(saved)
    images = open_images(real / "others.parquet", "test")
    whole = make_reference(images, extractor)
    # float32 has 24 bits, and a triangle stands for both.
    sigma = reference.moments["sigma"]
    assert np.allclose(sigma, whole.moments["sigma"], rtol=2**-24, atol=0)
    assert np.array_equal(sigma, sigma.T)
    assert np.array_equal(reference.moments["mu"], whole.moments["mu"])
    exact = make_reference(images, extractor, max_features=200).layers["features"]
    assert reference.layers["features"].shape == (200, 128)
    one = moments(open_images(real / "one.parquet").extract(extractor).layers["features"])
    assert frechet_distance(one, moments(reference.layers["features"])) == pytest.approx(
        frechet_distance(one, moments(exact)), rel=1e-3
    )


def test_other_weights_than_the_reference_has_are_refused(saved, real, extractor, tmp_path):
    source = bundled_folder() / "mnist-classifier"
    shutil.copy(source / "config.json", tmp_path)
    weights = load_file(source / "diffusion_pytorch_model.safetensors")
    save_file({k: v * 1 for k, v in weights.items()}, tmp_path / "other.safetensors", {"by": "me"})
    with pytest.raises(HDZooError) as refusal:
        evaluate(real / "one.parquet", reference=saved, weights=tmp_path / "other.safetensors")
    other = get_extractor("digits", tmp_path / "other.safetensors").weights_sha256
    assert other != extractor.weights_sha256
    assert other in str(refusal.value)
    assert extractor.weights_sha256 in str(refusal.value)


def test_the_bundled_reference_fits_the_bundled_extractor(extractor):
    path = reference_of("ncsn-mnist")
    assert path.stat().st_size < 2e6
    reference = load_reference(path)
    reference.check_extractor(extractor)
    assert (reference.num_images, reference.num_features) == (10_000, 5_000)
    assert reference.protocol["dataset"] == "ylecun/mnist"
    # Half of the images, against all of them.
    part = moments(reference.layers["features"])
    assert 0 < frechet_distance(part, reference.moments) < 0.1


def test_the_bundled_reference_is_of_mnist(extractor):
    reference = load_reference(reference_of("ncsn-mnist"))
    found = open_images(digits(), "test").extract(extractor).layers["features"]
    order = np.random.default_rng(reference.protocol["seed"]).permutation(reference.num_images)
    kept = np.sort(order[: reference.num_features])
    chosen = np.isin(digit_numbers(), kept)
    assert chosen.sum() > 80
    rows = np.searchsorted(kept, np.array(digit_numbers())[chosen])
    # float16 has 11 bits.
    expected = reference.layers["features"][rows]
    assert torch.allclose(found[chosen], expected, rtol=1e-3, atol=1e-4)


# ---- the card -----------------------------------------------------------------------------------


def test_results_go_into_the_card_and_nothing_else_changes(report, drawn):
    path = drawn[0] / "README.md"
    path.write_text(CARD)
    assert write_results(drawn[0], report) == path
    once = path.read_text()
    begin, end = CARD.split("model_name:   tiny\n")
    assert once.startswith(begin + "model_name:   tiny\nmodel-index:\n")
    assert once.endswith(end)
    results = ModelCard.load(path).data.eval_results
    assert [result.metric_type for result in results] == [
        *("fd", "kd", "is", "precision", "recall"),
        *("class-weighted fd", "total variation of class shares"),
    ]
    assert results[0].metric_value == pytest.approx(report["fid"].value, rel=1e-5)
    assert results[0].metric_name == f"FD {FEATURES}"
    assert results[0].dataset_type == "some/digits"
    assert results[0].metric_args["command"] == "hdzoo evaluate tiny"
    write_results(drawn[0], report)
    assert path.read_text() == once


def test_a_card_keeps_other_results_and_what_follows_them(report, drawn):
    path = drawn[0] / "README.md"
    path.write_text(CARD)
    write_results(drawn[0], report)
    # A key after the results, and a result of another sampler among them.
    other = path.read_text().replace("sampler: AnnealedLangevin", "sampler: Another", 1)
    path.write_text(other.replace("\n---\n\n# tiny", "\ndatasets:\n- mine\n---\n\n# tiny"))
    write_results(drawn[0], report)
    card = ModelCard.load(path)
    assert card.data.datasets == ["mine"]
    assert len(card.data.eval_results) == 8
    assert path.read_text().index("datasets:") > path.read_text().index("model-index:")


def test_a_card_takes_results_of_its_own_model_alone(report, drawn, real, saved):
    with pytest.raises(HDZooError, match=report.images["manifest"]["weights_sha256"]):
        write_results(bundled_folder() / "ncsn-mnist", report)
    others = evaluate(real / "one.parquet", reference=saved, metrics=["fid"])
    with pytest.raises(HDZooError, match="no manifest"):
        write_results(drawn[0], others)
    with pytest.raises(HDZooError, match="there is no card"):
        write_results(real, report)


# ---- refusals -----------------------------------------------------------------------------------


def test_an_incomplete_or_damaged_set_is_refused(drawn, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(drawn[1], folder)
    shard = folder / "data" / "train-00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(HDZooError, match=r"train-00001\.parquet is damaged"):
        evaluate(folder)
    shard.unlink()
    with pytest.raises(HDZooError, match="24 of 40 images"):
        evaluate(folder)


def test_mixed_sizes_are_refused(saved, tmp_path):
    for i in range(30):
        Image.new("L", (8, 8) if i < 20 else (9, 8)).save(tmp_path / f"{i:02d}.png")
    with pytest.raises(HDZooError, match="the first is 8x8, number 20 is 9x8"):
        evaluate(tmp_path, reference=saved, subsets=5)


def test_pixels_of_more_than_a_byte_are_refused(saved, tmp_path):
    for i in range(20):
        Image.new("I;16", (8, 8)).save(tmp_path / f"{i:02d}.png")
    with pytest.raises(HDZooError, match="I;16"):
        evaluate(tmp_path, reference=saved, subsets=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no generated set"),
        ({"reference": "digits"}, "give one of .*digits"),
        ({"reference": "nowhere.safetensors"}, "there is no reference"),
        ({"reference": __file__ + ".safetensors"}, "there is no reference"),
        ({"reference": "digits", "features": "nothing"}, "nothing"),
        (
            {"metrics": ["fid", "psnr"]},
            "unknown metric 'psnr'; .*kid, isc, prc, wfid, tv",
        ),
        ({"subsets": 4}, "at least 5"),
        ({"subsets": 51}, "at most 50"),
        ({"seed": -1}, "from 0"),
        ({"batch_size": 0, "reference": "digits", "features": "digits"}, "from 1"),
    ],
)
def test_what_does_not_fit_is_refused(real, arguments, message):
    with pytest.raises(HDZooError, match=message):
        evaluate(real / "one.parquet", **arguments)


def test_a_file_that_is_no_reference_is_refused(real):
    path = real / "weights.safetensors"
    save_file({"mean": torch.zeros(2)}, path)
    with pytest.raises(HDZooError, match="is no reference"):
        evaluate(real / "one.parquet", reference=path)
    path.write_bytes(b"nothing")
    with pytest.raises(HDZooError, match="cannot be read, or is damaged"):
        evaluate(real / "one.parquet", reference=path)


def test_one_flipped_bit_in_a_reference_is_noticed(saved, tmp_path):
    path = tmp_path / saved.name
    whole = saved.read_bytes()
    # A number of images in the protocol, and the lowest bit of a feature.
    for place in (whole.index(b"num_images") + 15, len(whole) - 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(HDZooError, match=f"{path.name} is damaged"):
            load_reference(path)
    # One of a version that wrote no checksum.
    with safe_open(saved, "pt") as file:
        protocol = {PROTOCOL: file.metadata()[PROTOCOL]}
    save_file(load_file(saved), path, protocol)
    assert load_reference(path).num_images == load_reference(saved).num_images


def test_a_reference_whose_package_is_not_here_says_which_it_is(saved, real, tmp_path):
    with safe_open(saved, "pt") as file:
        protocol = json.loads(file.metadata()[PROTOCOL])
    assert protocol["package"] == "hdzoo"
    protocol |= {"extractor": "theirs", "package": "hdzoo-theirs"}
    path = tmp_path / "theirs.safetensors"
    save_file(load_file(saved), path, {PROTOCOL: json.dumps(protocol)})
    with pytest.raises(HDZooError, match="features of 'theirs', which the package hdzoo-theirs"):
        evaluate(real / "one.parquet", reference=path)


def test_features_that_the_model_has_no_reference_for_are_refused(drawn):
    with pytest.raises(HDZooError, match="features digits, not for 'inception-v3-compat'"):
        evaluate(drawn[1], features="inception-v3-compat")


def test_a_set_whose_model_is_gone_needs_a_reference(drawn, saved, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(drawn[1], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"model": "/nowhere"}))
    with pytest.raises(HDZooError, match=r"no model '/nowhere'.*give a reference yourself"):
        evaluate(folder)
    assert evaluate(folder, reference=saved, metrics=["isc"])["isc"].value >= 1
    (folder / "manifest.json").write_text(json.dumps({"num_images": 40}))
    with pytest.raises(HDZooError, match="no model and no chunk_size"):
        evaluate(folder)


def test_a_report_says_which_metrics_it_has(report):
    with pytest.raises(HDZooError, match="no 'psnr'; it has fid, kid, isc, precision, recall"):
        report["psnr"]


def test_too_few_images_are_refused(real, saved, tmp_path, extractor):
    few = tmp_path / "few.parquet"
    load_images("digits").select(range(19)).to_parquet(few)
    with pytest.raises(HDZooError, match="19 images; at least 20"):
        evaluate(few, reference=saved)
    with pytest.raises(HDZooError, match="19 images; at least 20"):
        make_reference(open_images(few), extractor)


# ---- the command --------------------------------------------------------------------------------


def test_one_command_draws_judges_and_fills_the_card(run, drawn, tmp_path):
    model, folder = drawn[0], tmp_path / "set"
    (model / "README.md").write_text(CARD)
    drawing = ("--model", model, "-s", "half-denoising", "-t", 3, "-n", 30)
    judging = ("--subsets", 5, "-O", tmp_path / "report.json", "--card", model)
    code, out, err = run("evaluate", folder, *drawing, *judging)
    assert code == 0, err
    assert FEATURES in out
    assert "30 real" in out
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["images"]["manifest"]["num_inference_steps"] == 3
    assert found["images"]["manifest"]["sampler"] == "HalfDenoisingSampler"
    assert found["command"].startswith("hdzoo evaluate")
    assert ModelCard.load(model / "README.md").data.eval_results[0].metric_type == "fd"


def test_a_reference_is_made_by_a_command(run, real, tmp_path):
    path = tmp_path / "made.safetensors"
    size = ("--resolution", 4, "--center-crop", 6, "--image-interpolation-mode", "bilinear")
    code, out, _ = run("reference", real / "others.parquet", "-O", path, *size)
    assert (code, out.strip()) == (0, str(path))
    protocol = load_reference(path).protocol
    assert protocol["image_size"] == [4, 4]
    assert protocol["framing"] == {"side": 4, "center_crop": 6, "interpolation": "bilinear"}
    code, _, err = run("reference", real / "others.parquet", "-O", path, "--center-crop", 9)
    assert code == 2
    assert "is 8 x 8 pixels, and center_crop is 9" in err
    code, out, _ = run("reference", real / "others.parquet", "-O", path, "--max-features", 150)
    assert (code, out.strip()) == (0, str(path))
    assert load_reference(path).num_features == 150
    code, out, _ = run(
        "evaluate", real / "one.parquet", "-r", path, "--metric", "kid", "--subsets", 5, "--json"
    )
    assert code == 0
    assert [result["metric"] for result in json.loads(out)["results"]] == ["kid"]


def test_drawing_options_need_a_model(run, real):
    code, _, err = run("evaluate", real / "one.parquet", "-t", 3)
    assert code == 2
    assert "--model" in err
