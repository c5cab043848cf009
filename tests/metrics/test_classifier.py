"""The digit classifier, and the bundled one: how small it is, and how often it is right."""

import json

import pytest
import torch
from given import all_digits, digits

from hdzoo.bundled import bundled_folder, bundled_models
from hdzoo.images.sources import load_images
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.metrics.train_classifier import accuracy, tensors

FOLDER = bundled_folder() / "mnist-classifier"


@pytest.fixture(scope="module")
def bundled():
    return DigitClassifier.from_pretrained(FOLDER)


def test_it_is_right_on_held_out_digits(bundled):
    images, labels = tensors(load_images(str(all_digits() or digits()), "test"), bundled)
    found = accuracy(bundled, images, labels)
    recorded = json.loads((FOLDER / "training.json").read_text())["test_accuracy"]
    if len(images) == 10_000:
        # Two images, whose two largest logits another rounding may exchange.
        assert found == pytest.approx(recorded, abs=2e-4)
    else:
        # Of 200 one is wrong on average; more than six are once in 60,000.
        assert round(200 * (1 - found)) <= 6
    assert recorded >= 0.993


def test_it_is_small_and_its_record_is_whole():
    assert (FOLDER / "diffusion_pytorch_model.safetensors").stat().st_size < 1e6
    record = json.loads((FOLDER / "training.json").read_text())
    assert record["num_images"] == 60_000
    assert record["command"].startswith("hdzoo train-classifier ")
    card = (FOLDER / "README.md").read_text()
    assert record["command"] in card
    assert f"{record['seconds']:,} s" in card
    assert f"{record['test_accuracy']:.2%}" in card
    assert f"{DigitClassifier().num_parameters():,} parameters" in card
    for key, value in (record["versions"] | record["config"]).items():
        assert f"| {key} | {value} |" in card


def test_it_is_no_pipeline():
    assert "mnist-classifier" not in bundled_models()


def test_features_are_the_layer_before_the_logits(bundled):
    images = torch.rand(4, 1, 28, 28, generator=torch.manual_seed(0))
    output = bundled(images)
    assert output.features.shape == (4, 128)
    assert (output.features >= 0).all()
    linear = bundled.head[-1]
    # Logits of order 10 as sums of 128 products in float32.
    expected = output.features @ linear.weight.T + linear.bias
    assert torch.allclose(output.logits, expected, rtol=0, atol=1e-4)
    logits, features = bundled(images, return_dict=False)
    assert torch.equal(logits, output.logits)
    assert torch.equal(features, output.features)


@pytest.mark.parametrize("side", [8, 28, 33])
def test_saving_keeps_it_and_any_side_will_do(side, tmp_path):
    torch.manual_seed(0)
    network = DigitClassifier(sample_size=side, in_channels=3, num_classes=4, num_features=16)
    network.save_pretrained(tmp_path)
    again = DigitClassifier.from_pretrained(tmp_path)
    images = torch.rand(2, 3, side, side)
    assert again(images).logits.shape == (2, 4)
    assert torch.equal(again(images).logits, network.eval()(images).logits)
