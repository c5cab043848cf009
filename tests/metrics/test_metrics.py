"""Metrics on features: torch-fidelity's numbers, closed forms, spreads that are what they say."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

from hdzoo.errors import HDZooError
from hdzoo.images.images import Images
from hdzoo.images.sources import load_images
from hdzoo.metrics.comparison import equal_size, judge, weighted_distance
from hdzoo.metrics.features import METRICS, get_extractor
from hdzoo.metrics.image_sets import ImageSet, pixels
from hdzoo.metrics.metrics import (
    class_weighted_moments,
    frechet_distance,
    inception_score,
    jackknife,
    kernel_distance,
    kernel_subset_size,
    moments,
    precision_recall,
    standard_errors,
    total_variation,
)
from hdzoo.metrics.reference import make_reference


class Pictures(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return pixels(self.images.images[i], "")


def digits(rows):
    return ImageSet("digits", "train", Images(load_images("digits").select(rows), "digits"))


@pytest.fixture(scope="module")
def extractor():
    return get_extractor("digits", device="cpu")


@pytest.fixture(scope="module")
def sets():
    return digits(range(300)), digits(range(500, 900))


@pytest.fixture(scope="module")
def features(sets, extractor):
    """The features of both sets."""
    return [images.extract(extractor, 64).layers["features"] for images in sets]


@pytest.fixture(scope="module")
def theirs(sets, extractor):
    """torch-fidelity's own numbers on the same images."""
    return calculate_metrics(
        input1=Pictures(sets[0]),
        input2=Pictures(sets[1]),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=150,
        save_cpu_ram=True,
        verbose=False,
        **extractor.options(),
    )


def gaussian(mean, covariance, count, seed):
    """Features that have these very moments."""
    x = np.random.default_rng(seed).standard_normal((count, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return torch.from_numpy(x @ np.linalg.cholesky(covariance).T + mean)


# ---- values -------------------------------------------------------------------------------------


def test_values_are_those_of_torch_fidelity(sets, extractor, theirs):
    generated = sets[0].extract(extractor, 64).layers
    reference = make_reference(sets[1], extractor, batch_size=64)
    found = {
        result.metric: result
        for metric in METRICS
        for result in judge(metric, generated, reference, extractor)
    }
    # torch-fidelity adds up the means in float32.
    expected = theirs["frechet_inception_distance"]
    assert found["fid"].value == pytest.approx(expected, rel=1e-6)
    for metric, key in (
        ("kid", "kernel_inception_distance_mean"),
        ("isc", "inception_score_mean"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        assert found[metric].value == pytest.approx(theirs[key], rel=1e-9)
    assert found["kid"].spread == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    assert found["isc"].spread == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_fid_is_the_closed_form_of_two_gaussians():
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((2, 12, 12))
    one, two = (a @ a.T / 12 + 0.1 * np.eye(12) for a in factors)
    means = rng.standard_normal((2, 12))
    found = frechet_distance(
        moments(gaussian(means[0], one, 200, 1)), moments(gaussian(means[1], two, 300, 2))
    )
    root = scipy.linalg.sqrtm(one)
    cross = scipy.linalg.sqrtm(root @ two @ root).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(one + two - 2 * cross)
    assert found == pytest.approx(expected, rel=1e-6)


# ---- by class -----------------------------------------------------------------------------------


def two_classes(counts, seed=0):
    """Features of two classes that have these very moments, and the moments."""
    rng = np.random.default_rng(9)
    means, factors = rng.standard_normal((2, 4)), rng.standard_normal((2, 4, 4))
    covariances = [a @ a.T + np.eye(4) for a in factors]
    parts = [
        gaussian(mean, covariance, count, seed + k)
        for k, (mean, covariance, count) in enumerate(zip(means, covariances, counts, strict=True))
    ]
    classes = torch.tensor([0] * counts[0] + [1] * counts[1])
    return torch.cat(parts), classes, means, covariances


def test_class_weighted_moments_are_those_of_the_mixture_with_the_shares_of_the_data():
    counts, shares = (60, 40), np.array([0.3, 0.7])
    features, classes, means, covariances = two_classes(counts)
    found = class_weighted_moments(features, classes, shares)
    mean = shares @ means
    # Of a sample of n the covariance about its mean is (n - 1) / n of the unbiased one.
    within = [c * (n - 1) / n for c, n in zip(covariances, counts, strict=True)]
    between = [np.outer(m - mean, m - mean) for m in means]
    whole = sum(q * (w + b) for q, w, b in zip(shares, within, between, strict=True))
    # Each image of class c weighs q / n.
    whole = whole / (1 - 0.3**2 / 60 - 0.7**2 / 40)
    np.testing.assert_allclose(found["mu"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["sigma"], whole, rtol=1e-12)
    order = torch.randperm(100, generator=torch.manual_seed(0))
    mixed = class_weighted_moments(features[order], classes[order], shares)
    np.testing.assert_allclose(mixed["sigma"], whole, rtol=1e-12)


def test_shares_that_are_right_change_nothing():
    features, classes, *_ = two_classes((60, 40))
    plain = moments(features)
    # Nor do classes that neither has, nor a set of which none can be weighed.
    for shares in ([0.6, 0.4], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]):
        found = class_weighted_moments(features, classes, np.array(shares))
        np.testing.assert_allclose(found["mu"], plain["mu"], rtol=1e-12)
        np.testing.assert_allclose(found["sigma"], plain["sigma"], rtol=1e-12)
    # A class that the data have not weighs nothing, and one that the set has not is left out.
    alone = moments(features[:60])
    for shares in ([1.0], [0.5, 0.0, 0.5]):
        found = class_weighted_moments(features, classes, np.array(shares))
        np.testing.assert_allclose(found["sigma"], alone["sigma"], rtol=1e-12)


def test_the_class_weighted_distance_does_not_see_the_shares():
    """The Frechet distance sees nothing else here."""
    features, classes, means, _ = two_classes((600, 400))
    real, real_classes, *_ = two_classes((300, 700), seed=5)
    labelled = torch.cat([features, classes[:, None]], 1)
    between = ((means[0] - means[1]) ** 2).sum() * 0.3**2
    assert frechet_distance(moments(features), moments(real)) > between
    # The covariances differ by the 1 / n of samples of some hundred.
    assert 0 <= weighted_distance(labelled, moments(real), real_classes) < 1e-4 * between


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([0, 0, 1, 1], [1, 0, 1, 0], 0.0),
        ([0] * 5 + [1] * 3 + [2] * 2, [0] * 2 + [1] * 3 + [2] * 5, 0.3),
        ([0, 0, 0, 1], [0, 2, 2, 2], 0.75),
        ([3], [1, 1, 2], 1.0),
    ],
)
def test_total_variation_of_class_shares(one, two, expected):
    found = total_variation(torch.tensor(one), torch.tensor(two))
    assert found == pytest.approx(expected, abs=1e-15)
    assert total_variation(torch.tensor(two), torch.tensor(one)) == pytest.approx(found)


def test_metrics_by_class_look_at_the_classifier(sets, extractor):
    generated = sets[0].extract(extractor, 64).layers
    reference = make_reference(sets[1], extractor, batch_size=64)
    classes, real = (layers["logits"].argmax(1) for layers in (generated, reference.layers))
    counts = [np.bincount(labels, minlength=10) / len(labels) for labels in (classes, real)]
    (found,) = judge("tv", generated, reference, extractor)
    assert found.value == pytest.approx(np.abs(counts[0] - counts[1]).sum() / 2)
    assert found.name == "total variation of class shares (digit-classifier features)"
    halves = [np.bincount(part, minlength=10) / 150 for part in (classes[:150], classes[150:])]
    assert found.halves == pytest.approx([np.abs(h - counts[1]).sum() / 2 for h in halves])
    (found,) = judge("wfid", generated, reference, extractor)
    # Each image as often as its class should occur: with whole numbers, nearly.
    times = torch.tensor(counts[1] / np.maximum(counts[0], 1e-9))[classes] * 1000
    repeated = generated["features"].repeat_interleave(times.round().long(), dim=0)
    expected = frechet_distance(moments(repeated), reference.moments)
    # Repeated images count as if drawn anew: 300 for some 300,000, so a covariance of 1 / 300 less.
    assert found.value == pytest.approx(expected, rel=0.02)
    assert len(found.replicates) == 10
    # Moments are of all images of the reference, and classes of those whose features are kept.
    fewer = {name: values[:200] for name, values in reference.layers.items()}
    kept = dataclasses.replace(reference, layers=fewer)
    numbers = [judge(m, generated, kept, extractor)[0].num_reference for m in ("wfid", "tv", "fid")]
    assert numbers == [400, 200, 400]
    (plain,) = judge("fid", generated, reference, extractor)
    assert plain.halves == pytest.approx(
        [
            frechet_distance(moments(part), reference.moments)
            for part in (generated["features"][:150], generated["features"][150:])
        ]
    )
    # All the classes of some images are unlike the reference's, which only one of the two sees.
    assert found.value != pytest.approx(plain.value, rel=1e-3)


def test_features_without_a_classifier_have_no_metrics_by_class(extractor):
    assert extractor.metrics == ("fid", "kid", "isc", "prc", "wfid", "tv")
    other = dataclasses.replace(extractor, classifies=False)
    assert other.metrics == tuple(METRICS)
    other.check_metrics(other.metrics)
    with pytest.raises(HDZooError, match=r"'tv' needs features with a classifier.*'digits'"):
        other.check_metrics(["fid", "tv"])
    with pytest.raises(HDZooError, match=r"unknown metrics \(none\)"):
        extractor.check_metrics([])


# ---- what holds of each -------------------------------------------------------------------------


def test_a_set_is_no_distance_from_itself(features):
    one = features[0]
    # Square roots of eigenvalues that are zero but for rounding: sqrt(1e-16) of 128, times traces
    # of order 10.
    assert abs(frechet_distance(moments(one), moments(one))) < 1e-5
    # An image in both subsets lowers it: by twice the kernel's excess on the diagonal, over N.
    kernel = (one.double() @ one.double().T / one.shape[1] + 1) ** 3
    n, diagonal = len(one), kernel.diagonal().mean()
    excess = diagonal - (kernel.sum() / n - diagonal) / (n - 1)
    mean, spread = kernel_distance(one, one, 0)
    assert abs(mean + 2 * excess / n) < 5 * spread / 100**0.5
    assert precision_recall(one, one) == (1.0, 1.0)


def test_kernel_distance_of_one_law_is_within_its_spread_of_zero(features):
    mean, spread = kernel_distance(features[0], features[1], 0)
    assert abs(mean) < 3 * spread
    assert kernel_distance(features[0], 1.5 * features[1], 0)[0] > 10 * spread


def test_order_does_not_matter(features):
    one, two = features
    mixed = one[torch.randperm(len(one), generator=torch.manual_seed(0))]
    expected = frechet_distance(moments(one), moments(two))
    assert frechet_distance(moments(mixed), moments(two)) == pytest.approx(expected, rel=1e-8)
    assert precision_recall(mixed, two) == precision_recall(one, two)
    # Its subsets are random, and others.
    mean, spread = kernel_distance(one, two, 0)
    assert abs(kernel_distance(mixed, two, 0)[0] - mean) < spread


def test_kernel_subsets_are_never_the_set_itself():
    assert kernel_subset_size(10_000, 5_000) == 1000
    assert kernel_subset_size(10_000, 300) == 150


def test_inception_score_of_certain_even_classes_is_their_number():
    logits = 100 * torch.eye(10).repeat(200, 1)
    mean, _ = inception_score(logits, 0)
    # Each of ten parts has its own, slightly uneven shares.
    assert mean == pytest.approx(10, rel=0.05)
    assert inception_score(torch.zeros(40, 10), 0) == (pytest.approx(1), pytest.approx(0))


# ---- spreads ------------------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(50, 1, generator=torch.manual_seed(0), dtype=torch.float64)
    (error,) = standard_errors(jackknife(lambda kept: (float(kept.mean()),), x, 50, 0))
    assert error == pytest.approx(float(x.std() / 50**0.5), rel=1e-9)


def test_jackknife_of_fid_is_the_spread_of_independent_sets():
    target = moments(torch.randn(5000, 3, generator=torch.manual_seed(0)) + 0.5)
    values, errors = [], []
    for seed in range(1, 41):
        drawn = torch.randn(400, 3, generator=torch.manual_seed(seed))
        values.append(frechet_distance(moments(drawn), target))
        statistic = lambda kept: (frechet_distance(moments(kept), target),)  # noqa: E731
        errors += standard_errors(jackknife(statistic, drawn, 10, 0))
    # The spread of 40 values is known to a ninth, their mean error to a few hundredths.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.4)


def test_equal_size_puts_real_images_in_the_same_place():
    real = torch.randn(900, 4, generator=torch.manual_seed(0))
    good = torch.randn(300, 4, generator=torch.manual_seed(1))
    (found,) = equal_size("fid", good, real, 0)
    assert found.num_images == 300
    # Of one law: no farther than real images, in the sd of five choices that share images.
    assert abs(found.value - found.floor) < 4 * max(found.value_spread, found.floor_spread)
    (bad,) = equal_size("fid", good + 0.5, real, 0)
    assert bad.value > bad.floor + 10 * bad.floor_spread
    assert bad.floor == found.floor
    (kernel,) = equal_size("kid", good, real, 0)
    assert abs(kernel.floor) < 4 * kernel.floor_spread


def test_equal_size_is_at_most_half_of_the_reference():
    x = torch.randn(300, 4, generator=torch.manual_seed(0))
    assert equal_size("prc", x, x[:100], 0)[0].num_images == 50
