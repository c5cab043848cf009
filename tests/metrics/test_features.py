"""Feature extractors: the network's own output, torch-fidelity's numbers on it, honest names."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch_fidelity import FeatureExtractorBase, calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from hdzoo import HDZooError, plugins
from hdzoo.bundled import bundled_folder
from hdzoo.images.sources import load_images
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.metrics.digit_features import DigitFeatures
from hdzoo.metrics.features import METRICS, get_extractor
from hdzoo.metrics.inception import InceptionFeatures

WEIGHTS = bundled_folder() / "mnist-classifier" / "diffusion_pytorch_model.safetensors"
QUIET = {"save_cpu_ram": True, "verbose": False}


class Pictures(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


@pytest.fixture(scope="module")
def extractor():
    return get_extractor("digits", device="cpu")


@pytest.fixture(scope="module")
def digits():
    """600 real digits of 8x8 in bytes, grey in three channels."""
    rows = load_images("digits").select(range(600))
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in rows["image"]]))
    return pixels[:, None].expand(-1, 3, -1, -1)


@pytest.fixture
def random_images():
    return torch.randint(0, 256, (9, 3, 28, 28), generator=torch.manual_seed(0)).to(torch.uint8)


# ---- the features -------------------------------------------------------------------------------


def test_features_are_those_of_a_forward_pass(extractor, random_images):
    network = DigitClassifier.from_pretrained(WEIGHTS.parent)
    expected = network(random_images.double().mean(1, keepdim=True).float() / 255)
    layers = extractor(random_images)
    assert layers["features"].shape == (9, 128)
    assert layers["logits"].shape == (9, 10)
    for layer, values in layers.items():
        # Of order 10 on noise; float32 through seven layers.
        assert torch.allclose(values, expected[layer], rtol=0, atol=1e-4)


def test_another_size_is_resized_with_antialiasing(extractor, random_images):
    large = random_images[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    large = large.expand(-1, 3, -1, -1)
    # Pillow's bilinear filter antialiases; it rounds to bytes only at the end in mode "F".
    small = [Image.fromarray(i[0].numpy()).convert("F").resize((28, 28), 2) for i in large]
    network = DigitClassifier.from_pretrained(WEIGHTS.parent)
    expected = network(torch.from_numpy(np.stack(small))[:, None] / 255)
    layers = extractor(large)
    assert torch.allclose(layers["features"], expected.features, rtol=0, atol=1e-4)


def test_an_image_is_the_same_each_time_and_in_any_batch(extractor, random_images):
    together = extractor(random_images)
    for layer, values in extractor(random_images).items():
        assert torch.equal(values, together[layer])
    for part in (slice(0, 1), slice(4, 9)):
        for layer, values in extractor(random_images[part]).items():
            # The convolutions round otherwise at another batch size.
            assert torch.allclose(values, together[layer][part], rtol=0, atol=1e-4)


def test_layers_come_in_the_order_that_is_asked_for(random_images):
    logits, features = DigitFeatures("digits", ["logits", "features"])(random_images)
    assert (logits.shape[1], features.shape[1]) == (10, 128)
    (alone,) = DigitFeatures("digits", ["features"])(random_images)
    assert torch.equal(alone, features)


def test_it_reads_digits(extractor, digits):
    rows = load_images("digits").select(range(600))
    # With a margin as MNIST's.
    found = extractor(F.pad(digits, (2, 2, 2, 2)))["logits"].argmax(1)
    # Another data set, of 8x8 pixels, than the one that it was trained on; chance is 0.1.
    assert (found == torch.tensor(rows["label"])).float().mean() > 0.8


# ---- torch-fidelity's numbers -------------------------------------------------------------------


def closed_form(one, two):
    """The Fréchet distance between Gaussians with the moments of two samples."""
    one, two = one.double().numpy(), two.double().numpy()
    a, b = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    root = scipy.linalg.sqrtm(a)
    cross = scipy.linalg.sqrtm(root @ b @ root)
    mean = one.mean(0) - two.mean(0)
    return mean @ mean + np.trace(a + b - 2 * cross.real)


def test_fid_is_the_closed_form_of_the_same_features(extractor, digits):
    one, two = digits[:300], 255 - digits[300:]
    found = calculate_metrics(
        input1=Pictures(one), input2=Pictures(two), fid=True, **extractor.options(), **QUIET
    )
    expected = closed_form(extractor(one)["features"], extractor(two)["features"])
    # torch-fidelity takes the means in float32, 1e-7 of a sum of squares that dominates here.
    assert found["frechet_inception_distance"] == pytest.approx(expected, rel=1e-6)


def test_all_metrics_of_two_folders(extractor, digits, tmp_path):
    for name, images in (("drawn", digits[:100]), ("real", digits[100:220])):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{i:03d}.png")
    metrics = dict.fromkeys(METRICS, True)
    options = extractor.options() | QUIET | {"kid_subset_size": 50, "kid_subsets": 10}
    folders = [str(tmp_path / name) for name in ("drawn", "real")]
    found = calculate_metrics(input1=folders[0], input2=folders[1], **metrics, **options)
    assert 0 < found["frechet_inception_distance"] < 100
    # At most one for each class.
    assert 1 <= found["inception_score_mean"] <= 10
    assert abs(found["kernel_inception_distance_mean"]) < 1
    assert 0 < found["precision"] <= 1
    same = calculate_metrics(input1=folders[0], input2=folders[0], **metrics, **options)
    assert same["frechet_inception_distance"] == pytest.approx(0, abs=1e-3)
    assert (same["precision"], same["recall"]) == (1, 1)


# ---- names and hashes ---------------------------------------------------------------------------


def test_it_says_what_it_is(extractor):
    assert extractor.weights == WEIGHTS
    assert extractor.weights_sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert extractor.metric_name("fid") == "FD (digit-classifier features)"
    assert extractor.metric_name("kid") == "KD (digit-classifier features)"
    assert extractor.metric_name("isc") == "IS (digit-classifier features)"
    assert extractor.metric_name("prc") == "precision and recall (digit-classifier features)"
    assert extractor.options() == {
        "feature_extractor": "digits",
        "feature_extractor_weights_path": str(WEIGHTS),
        "cuda": False,
        "feature_layer_fid": "features",
        "feature_layer_kid": "features",
        "feature_layer_isc": "logits",
        "feature_layer_prc": "features",
    }


def test_asking_twice_registers_once(extractor):
    assert get_extractor("digits").weights_sha256 == extractor.weights_sha256
    assert FEATURE_EXTRACTORS_REGISTRY["digits"] is DigitFeatures


def test_other_weights_are_used_and_have_another_hash(extractor, random_images, tmp_path):
    torch.manual_seed(0)
    DigitClassifier(num_features=16).save_pretrained(tmp_path)
    for given in (tmp_path, tmp_path / WEIGHTS.name):
        other = get_extractor("digits", weights=given)
        assert other.weights == tmp_path / WEIGHTS.name
        assert other.weights_sha256 != extractor.weights_sha256
        assert other(random_images)["features"].shape == (9, 16)


# ---- Inception ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """A weights file for Inception-v3, of random numbers."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: {})
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    return path


def test_inception_takes_a_local_file(random_inception, random_images):
    extractor = get_extractor("inception-v3-compat", weights=random_inception)
    layers = extractor(random_images[:2])
    assert layers["2048"].shape == (2, 2048)
    assert layers["logits_unbiased"].shape == (2, 1008)
    # Not the published weights, so not the published name.
    assert extractor.metric_name("fid") == "FD (Inception-v3 features)"
    # torch-fidelity's own stays registered.
    assert FEATURE_EXTRACTORS_REGISTRY[extractor.name] is FeatureExtractorInceptionV3
    found = calculate_metrics(
        input1=Pictures(random_images[:4]), isc=True, isc_splits=1, **extractor.options(), **QUIET
    )
    assert found["inception_score_mean"] >= 1


def test_inception_is_downloaded_once_and_has_the_published_names(
    random_inception, monkeypatch, tmp_path
):
    asked = []

    def download(url, path, hash_prefix, **_):
        asked.append((url.rpartition("/")[2], hash_prefix))
        shutil.copy(random_inception, path)

    digest = hashlib.sha256(random_inception.read_bytes()).hexdigest()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert InceptionFeatures.published_weights == "6726825d"
    monkeypatch.setattr(InceptionFeatures, "published_weights", digest[:8])
    extractor = get_extractor("inception-v3-compat")
    get_extractor("inception-v3-compat")
    assert asked == [("weights-inception-2015-12-05-6726825d.pth", digest[:8])]
    assert extractor.weights.is_relative_to(tmp_path)
    assert [extractor.metric_name(m) for m in ("fid", "kid", "isc")] == ["FID", "KID", "IS"]
    assert extractor.metric_name("prc") == "precision and recall (Inception-v3 features)"


def test_an_impossible_download_says_what_to_do(monkeypatch, tmp_path):
    def download(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(
        HDZooError, match=r"cannot be downloaded.*6726825d\.pth.*unreachable.*weights, or.*'digits'"
    ):
        get_extractor("inception-v3-compat")


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_a_harmful_pickle_is_refused_and_not_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(HDZooError, match=r"'inception-v3-compat' cannot load.*weights\.pth"):
        get_extractor("inception-v3-compat", weights="weights.pth")
    assert not Path("harm").exists()


# ---- what is refused ----------------------------------------------------------------------------


def test_an_unknown_name_is_refused():
    with pytest.raises(HDZooError, match="unknown feature extractor 'digit'; did you mean 'digits"):
        get_extractor("digit")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(HDZooError, match=r"no weights file '.*nothing' for the extractor 'digits'"):
        get_extractor("digits", weights=tmp_path / "nothing")
    shutil.copy(WEIGHTS, tmp_path / "moved.safetensors")
    with pytest.raises(HDZooError, match=r"cannot load the weights .*moved.*config\.json"):
        get_extractor("digits", weights=tmp_path / "moved.safetensors")
    DigitClassifier(num_features=16).save_config(tmp_path)
    with pytest.raises(HDZooError, match=r"cannot load the weights .*moved.* Give a file made for"):
        get_extractor("digits", weights=tmp_path / "moved.safetensors")


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 28, 28), torch.zeros(1, 1, 28, 28, dtype=torch.uint8)]
)
def test_what_is_no_image_in_bytes_is_refused(extractor, images):
    with pytest.raises(HDZooError, match=r"images are torch.*of shape \(1, .*repeated to 3"):
        extractor(images)
    with pytest.raises(HDZooError, match="images are torch"):
        extractor.network(images)


def test_an_unknown_metric_is_refused(extractor):
    with pytest.raises(HDZooError, match="unknown metric 'ppl'; the metrics are fid, kid"):
        extractor.metric_name("ppl")


class Bare(FeatureExtractorBase):
    """What torch-fidelity asks for, and no more."""


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        (print, r"must be a subclass of torch_fidelity\.FeatureExtractorBase"),
        (Bare, "has no label, weights_file, published_weights; derive it"),
    ],
)
def test_a_plugin_that_brings_something_else_is_refused(monkeypatch, brought, message):
    monkeypatch.setattr(plugins, "get", lambda *_: brought)
    with pytest.raises(HDZooError, match=message):
        get_extractor("digits")


def test_a_name_that_torch_fidelity_has_is_refused(monkeypatch):
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "digits", Bare)
    with pytest.raises(HDZooError, match=r"already has an extractor 'digits', .*Bare; rename"):
        get_extractor("digits")
