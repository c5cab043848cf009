"""Training of the digit classifier: what it learns, what repeats, and what it refuses."""

import dataclasses
import json
import sys

import datasets
import pytest
import torch
from safetensors.torch import load_file

from hdzoo import cli
from hdzoo.errors import HDZooError
from hdzoo.images.sources import load_images
from hdzoo.metrics import train_classifier as classifier
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.metrics.train_classifier import ClassifierConfig, accuracy, move, train_classifier

CONFIG = ClassifierConfig(num_epochs=2, train_batch_size=64)
STILL = {"max_rotation": 0.0, "max_shift": 0.0, "max_scaling": 0.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").select(range(256)), load_images("digits", "test").select(range(64))


def weights(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_the_same_seed_gives_the_same_weights(digits, tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        train_classifier(*digits, tmp_path / name, dataclasses.replace(CONFIG, seed=seed))
    one, two, three = (weights(tmp_path / name) for name in ("one", "two", "three"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["head.1.weight"], three["head.1.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_it_learns_and_leaves_a_record(tmp_path):
    config = dataclasses.replace(CONFIG, num_epochs=4)
    folder = train_classifier(
        load_images("digits").select(range(750)),
        load_images("digits", "test"),
        tmp_path / "run",
        config,
        command="hdzoo train-classifier ...",
        dataset_name="digits",
    )
    record = json.loads((folder / "training.json").read_text())
    # Chance is 0.1.
    assert record["test_accuracy"] == classifier.test_accuracy(folder) > 0.8
    assert record["config"] == dataclasses.asdict(config)
    assert (record["num_images"], record["num_test_images"]) == (750, 297)
    assert (record["dataset"], record["command"]) == ("digits", "hdzoo train-classifier ...")
    network = DigitClassifier.from_pretrained(folder)
    images, labels = classifier.tensors(load_images("digits", "test"), network)
    assert accuracy(network, images, labels) == record["test_accuracy"]


def test_a_finished_run_is_left_alone_and_another_refused(digits, tmp_path):
    folder = train_classifier(*digits, tmp_path / "run", CONFIG)
    before = (folder / "training.json").stat().st_mtime_ns
    train_classifier(*digits, folder, CONFIG)
    assert (folder / "training.json").stat().st_mtime_ns == before
    other = dataclasses.replace(CONFIG, seed=7)
    with pytest.raises(HDZooError, match="holds another run: seed was 0 and is 7; give another"):
        train_classifier(*digits, folder, other)


def test_accuracy_counts():
    class Fixed(DigitClassifier):
        def forward(self, sample, return_dict=True):
            return torch.nn.functional.one_hot(sample[:, 0, 0, 0].long(), 10).float(), None

    images = torch.arange(10.0).repeat(60).view(-1, 1, 1, 1)
    labels = images.flatten().long()
    labels[:150] = (labels[:150] + 1) % 10
    assert accuracy(Fixed(), images, labels) == 0.75


def test_without_moves_an_image_stays():
    images = torch.rand(5, 1, 28, 28)
    # Bilinear weights are right to a few roundings of coordinates up to 28.
    moved = move(images, dataclasses.replace(CONFIG, **STILL))
    assert torch.allclose(moved, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "largest"), [("max_shift", 3.0), ("max_rotation", 20.0), ("max_scaling", 0.2)]
)
def test_moves_are_as_large_as_asked(option, largest):
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 41, 41)
    # Blobs 12 pixels to the right of the middle and below it.
    image[0, 0, 19:22, 31:34] = 1
    image[0, 0, 31:34, 19:22] = 2
    config = dataclasses.replace(CONFIG, **(STILL | {option: largest}))
    moved = move(image.expand(500, -1, -1, -1), config)[:, 0]
    axis = torch.arange(41.0) - 20
    mass = moved.sum((1, 2))
    centre = torch.stack([(moved.sum(d) * axis).sum(1) / mass for d in (1, 2)], 1)
    at_rest = torch.tensor([4.0, 8.0])
    if option == "max_shift":
        found = (centre - at_rest).flatten()
    elif option == "max_rotation":
        angles = torch.atan2(centre[:, 1], centre[:, 0]) - torch.atan2(at_rest[1], at_rest[0])
        found = angles * 180 / torch.pi
    else:
        found = centre.norm(dim=1) / at_rest.norm() - 1
    # 500 uniform draws come within 2 % of either end (e^-5 each); bilinear weights shift the
    # centre of a blob by less than 0.1 pixels of 9.
    assert found.max() == pytest.approx(largest, rel=0.07)
    assert found.min() == pytest.approx(-largest, rel=0.07)


def test_data_without_labels_are_refused(digits, tmp_path):
    train, test = digits
    with pytest.raises(HDZooError, match=r"needs a column 'label', and the data set has image;"):
        train_classifier(train.remove_columns("label"), test, tmp_path, CONFIG)
    wrong = train.map(lambda row: {"label": row["label"] + 1})
    with pytest.raises(HDZooError, match=r"label 10 is none of the 10 classes.*from 0 to 9"):
        train_classifier(wrong, test, tmp_path, CONFIG)


def test_what_no_run_can_use_is_refused(digits, tmp_path):
    with pytest.raises(HDZooError, match="num_epochs is 0; it must be a whole number from 1 to"):
        dataclasses.replace(CONFIG, num_epochs=0)
    with pytest.raises(HDZooError, match="256 images and train_batch_size is 512"):
        train_classifier(*digits, tmp_path, dataclasses.replace(CONFIG, train_batch_size=512))
    with pytest.raises(HDZooError, match=r"diverged.*lower learning_rate \(now 1e\+30\)"):
        train_classifier(*digits, tmp_path, dataclasses.replace(CONFIG, learning_rate=1e30))
    assert not list(tmp_path.glob("[!.]*"))


def test_an_interrupted_run_says_that_nothing_is_kept(digits, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "move", interrupt)
    with pytest.raises(HDZooError, match="interrupted; nothing is kept"):
        train_classifier(*digits, tmp_path / "run", CONFIG)
    assert not list((tmp_path / "run").glob("[!.]*"))


def test_the_command_prints_the_folder_and_says_how_good_it_is(monkeypatch, capsys, tmp_path):
    arguments = ["--dataset", "digits", "--test", "digits", "--num-epochs", "1"]
    folder = str(tmp_path / "run")
    command = ["hdzoo", "train-classifier", *arguments, "--seed", "5", "--output-dir", folder]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    assert not end.value.code
    assert captured.out == f"{folder}\n"
    assert "accuracy on the test images: " in captured.err
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["command"] == " ".join(command)
    assert (record["config"]["num_epochs"], record["config"]["seed"]) == (1, 5)


def test_classes_that_are_numbered_differently_are_refused(digits, tmp_path):
    for name, labels in (("one", ("cat", "dog")), ("other", ("ape", "cat", "dog"))):
        for label in labels:
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            digits[0][0]["image"].save(folder / "1.png")
    one, other = (load_images(tmp_path / name) for name in ("one", "other"))
    with pytest.raises(HDZooError, match=r"classes of the data set are cat, dog, and .* ape, cat"):
        train_classifier(one, other, tmp_path / "run", CONFIG)


@pytest.mark.parametrize("labels", [["a"] * 3, [0.5] * 3, [1, None, 2], [[1]] * 3])
def test_labels_that_are_no_numbers_are_refused(labels):
    rows = load_images("digits").select(range(3)).remove_columns("label")
    with pytest.raises(HDZooError, match="labels of the data set are no whole numbers"):
        classifier.tensors(rows.add_column("label", labels), DigitClassifier())


def test_what_is_done_to_images_is_said():
    with pytest.warns(UserWarning, match=r"8 x 8 pixels, grey; .* brought to 28 x 28 pixels, grey"):
        classifier.tensors(load_images("digits").select(range(3)), DigitClassifier())
