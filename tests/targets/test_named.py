"""Every named target is the law that its description says."""

import math

import numpy as np
import pytest
import torch

from hdzoo import (
    AnnealedLangevinSampler,
    EmpiricalScore,
    HDPipeline,
    HDZooError,
    SegmentScore,
    SphereScore,
    plugins,
)
from hdzoo.targets.analytic import AnalyticScore
from hdzoo.targets.named import moons, spectrum_target

TARGETS = {
    "gaussian": (1,),
    "gaussian-anisotropic": (4,),
    "two-gaussians": (1,),
    "two-points": (1,),
    "laplace": (1,),
    "ncsn-toy": (2,),
    "eight-gaussians": (2,),
    "moons": (2,),
    "circle": (2,),
    "segment": (2,),
    "sphere": (3,),
    "spectrum": (3072,),
    "digits": (1, 8, 8),
    "digits-empirical": (1, 8, 8),
}


def target(name):
    return plugins.get("targets", name)()


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def images():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.from_numpy(bunch.data) / 16, torch.from_numpy(bunch.target)


@pytest.fixture(scope="module")
def digits():
    return target("digits")


def test_every_target_is_tested():
    builtin = plugins.plugins()[0]
    assert set(builtin.targets) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_score_model_of_its_shape(name):
    model = target(name)
    assert isinstance(model, AnalyticScore)
    assert model.sample_shape == TARGETS[name]
    assert model.dtype == (torch.float32 if name == "digits-empirical" else torch.float64)
    x = model.sample(3, torch.Generator().manual_seed(0), sigma=0.5)
    assert x.shape == (3, *TARGETS[name])
    assert torch.isfinite(model(x, 0.5).sample).all()
    # An image's pixels have a range; a point's coordinates have none.
    assert model.config.data_range == ((0.0, 1.0) if len(TARGETS[name]) == 3 else None)


def test_gaussian():
    x = points([-1.0], [2.0])
    torch.testing.assert_close(target("gaussian").score(x, 0.6), 1.3 - x)


def test_gaussian_anisotropic():
    model = target("gaussian-anisotropic")
    assert model.mean.tolist() == [1.0, -2.0, 0.5, 0.0]
    eigenvalues, directions = torch.linalg.eigh(model.covariance)
    # Roundings of the largest.
    np.testing.assert_allclose(eigenvalues, [0, 1e-4, 0.25, 4], rtol=0, atol=1e-14)
    assert directions.abs().max() < 0.95
    first = points([1.0, 2.0, 3.0, 4.0])[0] / math.sqrt(30)
    torch.testing.assert_close(directions[:, 3].dot(first).abs().item(), 1.0)
    with pytest.raises(HDZooError, match="no density without noise"):
        model.score(torch.zeros(1, 4), 0.0)


def test_two_gaussians():
    model = target("two-gaussians")
    x = points([0.3])
    densities = [
        math.exp(-((0.3 - m) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
        for m, s in ((-1.0, 0.6), (1.0, 0.5))
    ]
    assert model.log_density(x).exp().item() == pytest.approx(sum(densities) / 2, rel=1e-14)


def test_two_points():
    x = points([-3.0], [-0.2], [0.0], [0.01], [1.5])
    for sigma in (0.1, 1.0, 5.0):
        denoised = target("two-points").denoise(x, sigma)
        torch.testing.assert_close(denoised, torch.tanh(x / sigma**2))


def test_laplace():
    model = target("laplace")
    # exp(-|x|) / 2
    assert model.log_density(points([-1.5])).item() == pytest.approx(-1.5 - math.log(2))
    assert model.covariance.item() == 2


def test_ncsn_toy():
    model = target("ncsn-toy")
    # 100 apart in the squared distance: each mean has its own component alone, to e^-100.
    mode = points([5.0, 5.0], [-5.0, -5.0])
    torch.testing.assert_close(model.log_density(mode).exp(), points(0.8, 0.2) / (2 * math.pi))
    assert model.mean.tolist() == pytest.approx([3.0, 3.0])


def test_eight_gaussians():
    model = target("eight-gaussians")
    # E|x|^2 = 4^2 + 2 * 0.3^2, and the same in every direction.
    torch.testing.assert_close(model.covariance, (16 / 2 + 0.09) * torch.eye(2).double())
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    modes = 4 * torch.stack([angles.cos(), angles.sin()], 1)
    peak = 1 / (8 * 2 * math.pi * 0.09)
    # The neighbours are 3 apart, 10 standard deviations: e^-50.
    torch.testing.assert_close(model.log_density(modes).exp(), torch.full((8,), peak).double())


def test_moons():
    samples = target("moons").sample(10_000, torch.Generator().manual_seed(0))
    upper = (samples.norm(dim=1) - 1).abs()
    lower = ((samples - points(1.0, 0.5)).norm(dim=1) - 1).abs()
    distance = torch.minimum(upper, lower)
    # Six standard deviations of 0.1.
    assert distance.max() < 0.6
    # Half bends up and half down, and each is there from end to end.
    mine = upper < lower
    assert samples[mine, 1].mean() > 0.5 > 0 > samples[~mine, 1].mean()
    ends = points([-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.5], [2.0, 0.5], [1.0, -0.5])
    assert torch.cdist(ends, samples).amin(1).max() < 0.1
    assert len(moons(num_components=5).means) == 10


@pytest.mark.parametrize("name", ["circle", "sphere"])
def test_circle_and_sphere(name):
    model = target(name)
    assert isinstance(model, SphereScore)
    radii = model.sample(100).norm(dim=1)
    torch.testing.assert_close(radii, torch.ones(100, dtype=torch.float64))
    size = len(model.mean)
    torch.testing.assert_close(model.covariance, torch.eye(size).double() / size)


def test_segment():
    model = target("segment")
    assert isinstance(model, SegmentScore)
    samples = model.sample(1000)
    # The line through the origin and (1, 0.5), up to there and not beyond.
    torch.testing.assert_close(samples[:, 1], samples[:, 0] / 2)
    assert 0.97 < samples[:, 0].max() <= 1
    assert -1 <= samples[:, 0].min() < -0.97


# ---- the spectrum -------------------------------------------------------------------------------


def test_spectrum():
    model = target("spectrum")
    eigenvalues = model.variances[0].view(3, 32, 32)
    assert eigenvalues.mean().item() == pytest.approx(0.25**2, rel=1e-14)
    # 2.5 powers of ten for each power of ten in frequency, the same along every direction.
    ratio = eigenvalues[0, 0, 1] / eigenvalues[0, 0, 10]
    assert ratio.item() == pytest.approx(10**2.5)
    assert eigenvalues[1, 3, 4].item() == pytest.approx(eigenvalues[2, 0, 5].item())
    # Frequencies above 16 of 32 are negative ones, and a constant counts as the lowest wave.
    frequencies = np.hypot(*np.meshgrid(*[np.abs(np.fft.fftfreq(32) * 32)] * 2))
    power = np.maximum(frequencies, 1) ** -2.5
    np.testing.assert_allclose(eigenvalues[0], power * 0.25**2 / power.mean(), rtol=1e-12)
    assert not model.mean.any()


def test_spectrum_with_zeros():
    whole = spectrum_target(dimension=48, exponent=1.0, variance=2.0).covariance.diagonal()
    part = spectrum_target(48, 1.0, 2.0, singular_fraction=0.25).covariance.diagonal()
    gone = part == 0
    assert gone.sum() == 12
    assert whole[gone].max() <= whole[~gone].min()
    assert part.mean().item() == pytest.approx(2.0)
    kept = part[~gone] / whole[~gone]
    torch.testing.assert_close(kept, kept[:1].expand(36))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 1000}, "dimension is 1000; it must be 3 n.2.*: 972 or 1083, for example"),
        ({"dimension": 0}, "dimension is 0; it must be 3 n.2"),
        ({"singular_fraction": 1.0}, r"singular_fraction is 1\.0; it must be in \[0, 1\)"),
        ({"variance": 0.0}, r"variance is 0\.0; it must be positive"),
    ],
)
def test_spectrum_errors(options, message):
    with pytest.raises(HDZooError, match=message):
        spectrum_target(**options)


# ---- digits -------------------------------------------------------------------------------------


def test_digits_have_the_moments_of_the_images(digits):
    pixels, labels = images()
    # Roundings of sums over 1,797 images.
    torch.testing.assert_close(digits.mean, pixels.mean(0), rtol=0, atol=1e-13)
    torch.testing.assert_close(digits.covariance, pixels.T.cov(correction=0), rtol=0, atol=1e-13)
    frequencies = labels.bincount() / len(labels)
    torch.testing.assert_close(digits.weights.data, frequencies, check_dtype=False)


def test_digits_are_singular_as_the_images_are(digits):
    pixels, labels = images()
    for label in range(10):
        members = pixels[labels == label]
        rank = int(torch.linalg.matrix_rank(members - members.mean(0)))
        assert int((digits.basis_variances[label] > 0).sum()) == rank < 64
    with pytest.raises(HDZooError, match="no density without noise"):
        digits.log_density(torch.zeros(1, 1, 8, 8), 0.0)


def test_digits_know_their_classes(digits):
    """Bayes' rule with each class's mean and covariance, by matrices (quadratic discriminant)."""
    pixels, labels = images()
    x, sigma = pixels[::3], 0.1
    joint = []
    for label in range(10):
        members = pixels[labels == label]
        total = members.T.cov(correction=0) + sigma**2 * torch.eye(64, dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(members.mean(0), total)
        joint.append(math.log(len(members) / len(pixels)) + law.log_prob(x))
    exact = torch.stack(joint, 1)
    found = digits.component_probabilities(x.view(-1, 1, 8, 8), sigma)
    # The exponents are a few hundred; the total covariances have condition 200.
    torch.testing.assert_close(found, exact.softmax(1), rtol=1e-9, atol=1e-10)
    density = digits.log_density(x.view(-1, 1, 8, 8), sigma)
    torch.testing.assert_close(density, exact.logsumexp(1), rtol=1e-11, atol=0)


def test_digits_empirical():
    model = target("digits-empirical")
    pixels, _ = images()
    assert isinstance(model, EmpiricalScore)
    assert torch.equal(model.points.double(), pixels)
    # A little noise is taken away.
    x = pixels[:5].view(5, 1, 8, 8) + 0.01
    assert torch.equal(model.denoise(x, 0.01), pixels[:5].view(5, 1, 8, 8))


def test_digits_pipeline(digits, tmp_path):
    pipe = HDPipeline(digits, AnnealedLangevinSampler(sigma_max=2.0, sigma_min=0.05, num_levels=10))
    pipe.save_pretrained(tmp_path)
    pipe = HDPipeline.from_pretrained(tmp_path, dtype=torch.float64)
    pipe.set_progress_bar_config(disable=True)
    assert all(
        torch.equal(saved, found)
        for saved, found in zip(digits.parameters(), pipe.unet.parameters(), strict=True)
    )
    generator = torch.Generator().manual_seed(0)
    samples = pipe(200, 100, generator=generator, output_type="latent").images.double()
    # The mean of the law, within five standard errors of each of the 64 pixels at this noise.
    error = ((digits.covariance.diagonal() + 0.05**2) / 200).sqrt()
    assert ((samples.flatten(1).mean(0) - digits.mean).abs() < 5 * error).all()
