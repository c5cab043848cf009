"""Sets to be judged: all that is listed is judged, or a refusal says both numbers."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.generation.generate import generate
from hdzoo.images.sources import load_images
from hdzoo.leaderboard.compare import compare
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.metrics import moments
from hdzoo.metrics.reference import load_reference
from hdzoo.metrics.report import evaluate


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def extractor():
    return get_extractor("digits", device="cpu")


@pytest.fixture(scope="module")
def digits():
    return [np.asarray(image) for image in load_images("digits").select(range(64))["image"]]


def save(folder, arrays, name="{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / name.format(i))
    return folder


def mean(source, extractor, **options):
    return moments(open_images(source, **options).extract(extractor).layers["features"])["mu"]


def test_all_of_a_folder_are_judged_whatever_their_names(digits, extractor, tmp_path):
    folder = save(tmp_path / "set", digits[:40], "street {}.png")
    save(folder, digits[40:], "train {}.png")
    images = open_images(folder)
    assert len(images) == 64
    found = images.extract(extractor)
    assert (len(found.layers["features"]), found.image_size) == (64, (8, 8))


def test_a_folder_beside_one_that_its_name_matches_is_itself(digits, extractor, tmp_path):
    save(tmp_path / "set1", digits[:30])
    folder = save(tmp_path / "set[1]", digits[30:])
    assert np.allclose(mean(folder, extractor), mean(save(tmp_path / "x", digits[30:]), extractor))
    assert len(open_images(folder)) == 34


def test_a_generated_set_beside_one_that_its_name_matches_is_itself(tiny_model, tmp_path):
    options = {"chunk_size": 4, "num_inference_steps": 8}
    sets = [
        generate(tiny_model, tmp_path / name, 8, seed=seed, **options).folder
        for seed, name in enumerate(("set1", "set[1]", "$HOME"))
    ]
    found = [np.stack(list(map(np.asarray, open_images(folder).images))) for folder in sets]
    own = [
        np.stack(list(map(np.asarray, datasets.Dataset.from_parquet(str(path))["image"])))
        for path in sorted((sets[0] / "data").iterdir())
    ]
    assert np.array_equal(found[0], np.concatenate(own))
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    # More shards than its manifest lists are no part of it.
    extra = sets[0] / "data" / "train-00007.parquet"
    extra.write_bytes((sets[0] / "data" / "train-00000.parquet").read_bytes())
    with pytest.raises(HDZooError, match=r"1 more shards than its manifest lists, .*00007.parquet"):
        open_images(sets[0])


def test_the_column_is_said_and_recorded(run, digits, extractor, tmp_path):
    path, output = tmp_path / "pairs.parquet", tmp_path / "r.safetensors"
    features = datasets.Features({name: datasets.Image() for name in ("mask", "photo")})
    pictures = list(map(Image.fromarray, digits))
    rows = {"mask": [Image.new("L", (8, 8))] * 64, "photo": pictures}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    code, _, err = run("reference", path, "-O", output)
    assert code == 2
    assert "image columns mask, photo; say which" in err
    code, _, err = run("reference", path, "-O", output, "--image-column", "photo")
    assert code == 0, err
    expected = mean(save(tmp_path / "set", digits), extractor)
    made = load_reference(output)
    assert np.allclose(made.moments["mu"], expected)
    assert made.protocol["image_column"] == "photo"
    arguments = ("evaluate", path, "-r", path, "-f", "digits", "--metric", "fid", "--subsets", 5)
    chosen = ("--image-column", "photo", "--reference-image-column", "photo")
    assert run(*arguments, *chosen[:2])[0] == run(*arguments, *chosen[2:])[0] == 2
    code, out, err = run(*arguments, *chosen, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"]["image_column"] == report["reference"]["image_column"] == "photo"


BAD = {
    "16 bits": (
        Image.fromarray(np.zeros((8, 8), np.uint16)),
        r"7\.png has 16 bits a pixel \(mode 'I;16'",
    ),
    "floats": (Image.new("F", (8, 8)), r"7\.tiff has the mode 'F'"),
    "transparent": (Image.new("RGBA", (8, 8)), r"7\.png has transparent pixels"),
    "another size": (Image.new("L", (9, 8)), "several sizes: the first is 8x8, number 7 is 9x8"),
}


@pytest.mark.parametrize(("image", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_judged_is_refused_by_its_name(digits, tiny_model, tmp_path, image, message):
    folder = save(tmp_path / "set", digits[:20])
    (folder / "7.png").unlink()
    image.save(folder / ("7.tiff" if image.mode == "F" else "7.png"))
    # In the order of their names.
    message = message.replace("number 7", "number 17")
    with pytest.raises(HDZooError, match=message):
        evaluate(folder, reference="digits", features="digits", metrics=["fid"], subsets=5)
    # As a reference: before anything is drawn.
    with pytest.raises(HDZooError, match=message):
        compare(
            tiny_model,
            tmp_path / "board",
            reference=folder,
            reference_split="train",
            features="digits",
        )
    assert not list(tmp_path.glob("board/sets/*"))


def test_pictures_are_judged_as_they_are_seen(digits, extractor, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    folder = tmp_path / "turned"
    folder.mkdir()
    for i, array in enumerate(digits[:20]):
        Image.fromarray(np.rot90(array)).save(folder / f"{i}.png", exif=exif)
    expected = mean(save(tmp_path / "set", digits[:20]), extractor)
    assert np.allclose(mean(folder, extractor), expected)
