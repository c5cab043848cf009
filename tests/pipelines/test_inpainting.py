"""`HDInpaintPipeline`: what the network is given, the law of what it paints, the known part."""

import json
import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import zoo
from PIL import Image

from hdzoo import (
    GaussianMixtureScore,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    get_sampler,
)
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.inpainting import KNOWN_NOISES, fork
from hdzoo.samplers.base import Sampler

STEPS = 8

SAMPLERS = [
    *[(name, {}) for name in zoo.SAMPLERS],
    ("annealed-langevin", {"hand_off": "next", "readout": "alpha"}),
    ("annealed-langevin", {"hand_off": "half", "readout": "full"}),
    ("consistent-annealed-sampling", {"readout": "full"}),
]
# Those whose steps are moves, so that the law with a part replaced is known.
AFFINE = [case for case in SAMPLERS if get_sampler(case[0]).update is Sampler.update]
# MALA accepts a sample as a whole.
PIXELWISE = [case for case in SAMPLERS if case[0] != "mala"]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in SAMPLERS]


def chain(name, options, sigma_max=2.0, sigma_min=0.1, num_levels=4):
    """A sampler on a short ladder, or at one level."""
    ladder = {"sigma_max": sigma_max, "sigma_min": sigma_min, "num_levels": num_levels}
    known = get_sampler(name)().config
    levels = {key: value for key, value in (ladder | {"sigma": 0.5}).items() if key in known}
    return get_sampler(name)(**levels, **options)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def start(sampler, *shape):
    """Where a sampler at a single level starts here: noise about 0, as the others draw it."""
    if sampler.starts_from_noise:
        return {}
    return {"latents": sampler.init_noise_sigma * torch.randn(shape, generator=seeded(4))}


def picture_model(correlation=0.4, size=4, channels=1, data_range=(-1.0, 1.0)):
    """The exact score of pictures whose pixels have one correlation with one another."""
    count = channels * size**2
    means = torch.linspace(-0.5, 0.5, count)
    covariance = 0.09 * ((1 - correlation) * torch.eye(count) + correlation)
    if correlation == 0:
        covariance = torch.linspace(0.04, 0.09, count)
    return GaussianMixtureScore.from_components(
        means, covariance, sample_shape=(channels, size, size), data_range=data_range
    )


LEFT = np.zeros((4, 4), bool)
LEFT[:, :2] = True


def pictures(count=3, channels=1, size=4):
    return torch.rand(count, channels, size, size, generator=seeded(7))


# ---- what the network is given --------------------------------------------------------------


@pytest.mark.parametrize("known_noise", KNOWN_NOISES)
@pytest.mark.parametrize(("name", "options"), SAMPLERS, ids=IDS)
def test_known_part_is_at_the_level_of_each_evaluation(name, options, known_noise):
    network = picture_model()
    inputs = []
    network.register_forward_pre_hook(lambda _, given: inputs.append((given[0].clone(), given[1])))
    pipe = quiet(HDInpaintPipeline(network, chain(name, options)))
    generators = sample_generators(3, range(3))
    noises = fork(generators)
    image = pictures()
    result = pipe(
        image,
        LEFT,
        num_inference_steps=STEPS,
        generator=generators,
        known_noise=known_noise,
        output_type="latent",
        **start(pipe.scheduler, 3, 1, 4, 4),
    ).images

    y, black = 2 * image - 1, torch.from_numpy(~LEFT).expand(3, 1, 4, 4)
    assert len(inputs) == STEPS
    before = None
    for state, sigma in inputs:
        if known_noise == "step" or sigma != before:
            z = torch.cat([torch.randn(1, 1, 4, 4, generator=g) for g in noises])
        before = sigma
        # Rounded once in the product and once in the sum.
        expected = y + float(sigma) * z
        torch.testing.assert_close(state[black], expected[black], rtol=0, atol=2 * 8 * 2**-24)
    assert torch.equal(result[black], y[black])
    assert not torch.isclose(result, y)[~black].any()


@pytest.mark.parametrize(("name", "options"), SAMPLERS, ids=IDS)
def test_all_white_is_the_pipeline_without_a_mask(name, options):
    network = picture_model()
    painter = quiet(HDInpaintPipeline(network, chain(name, options)))
    plain = quiet(HDPipeline(network, painter.scheduler))
    white = np.ones((4, 4), bool)
    for generator in (lambda: sample_generators(5, range(3)), lambda: seeded(5)):
        common = {"num_inference_steps": STEPS, "output_type": "latent"}
        begin = start(plain.scheduler, 3, 1, 4, 4)
        expected = plain(3, generator=generator(), **common, **begin).images
        painted = painter(pictures(), white, generator=generator(), **common, **begin).images
        assert torch.equal(painted, expected)
        expected = plain(image=pictures(), generator=generator(), **common).images
        painted = painter(
            pictures(), white, start_image=pictures(), generator=generator(), **common
        ).images
        assert torch.equal(painted, expected)


@pytest.mark.parametrize(("name", "options"), SAMPLERS, ids=IDS)
def test_all_black_is_the_image(name, options):
    pipe = quiet(HDInpaintPipeline(picture_model(), chain(name, options)))
    begin = start(pipe.scheduler, 6, 1, 4, 4)
    painted = pipe(pictures(), np.zeros((4, 4)), 2, STEPS, output_type="latent", **begin).images
    assert torch.equal(painted, (2 * pictures() - 1).repeat_interleave(2, 0))


class VPScore(GaussianMixtureScore):
    """The same target as a network in VP coordinates: it is given x / sqrt(1 + sigma^2)."""

    prediction_type = "epsilon"
    coordinates = "vp"

    def forward(self, sample, timestep, return_dict=True, extras=()):
        output = super().forward(sample * (1 + timestep**2) ** 0.5, timestep, extras=extras)
        output["sample"] = -timestep * output.sample
        return output if return_dict else output.to_tuple()


@pytest.mark.parametrize("known_noise", KNOWN_NOISES)
@pytest.mark.parametrize(("name", "options"), SAMPLERS, ids=IDS)
def test_in_vp_coordinates_the_same_is_painted(name, options, known_noise):
    sampler = chain(name, options)
    twin = type(sampler).from_config(sampler.config, coordinates="vp", prediction_type="epsilon")
    network = picture_model()
    # In VP coordinates a first state that is drawn is a little wider: of standard deviation 1.
    latents = torch.randn(3, 1, 4, 4, generator=seeded(6))
    scale = math.hypot(1, sampler.init_noise_sigma)
    common = {
        "num_inference_steps": STEPS,
        "known_noise": known_noise,
        "output_type": "latent",
    }
    painted = quiet(HDInpaintPipeline(network, sampler))(
        pictures(), LEFT, latents=latents, generator=seeded(), **common
    ).images
    vp_network = VPScore.from_components(
        network.mean, network.covariance, sample_shape=(1, 4, 4), data_range=(-1.0, 1.0)
    )
    in_vp = quiet(HDInpaintPipeline(vp_network, twin))(
        pictures(), LEFT, latents=latents / scale, generator=seeded(), **common
    ).images
    # Some four float32 roundings a step, of values below 8.
    torch.testing.assert_close(in_vp, painted, rtol=0, atol=STEPS * 4 * 8 * 2**-24)


def test_sigmas_can_be_given():
    network = picture_model()
    levels = []
    network.register_forward_pre_hook(lambda _, given: levels.append(float(given[1])))
    pipe = quiet(HDInpaintPipeline(network, chain("annealed-langevin", {})))
    pipe(pictures(), LEFT, sigmas=[0.9, 0.3, 0.3, 0.1])
    assert levels == [0.9, 0.3, 0.3, 0.1]


# ---- the law --------------------------------------------------------------------------------


@pytest.mark.parametrize("known_noise", KNOWN_NOISES)
@pytest.mark.parametrize(("name", "options"), PIXELWISE)
def test_on_independent_pixels_the_mask_changes_nothing(name, options, known_noise):
    """The known part says nothing then: not only the law, but every sample is the same."""
    network = picture_model(correlation=0)
    painter = quiet(HDInpaintPipeline(network, chain(name, options)))
    plain = quiet(HDPipeline(network, painter.scheduler))
    common = {"num_inference_steps": STEPS, "output_type": "latent"}
    common |= start(plain.scheduler, 3, 1, 4, 4)
    expected = plain(3, generator=seeded(), **common).images
    painted = painter(
        pictures(), LEFT, generator=seeded(), known_noise=known_noise, **common
    ).images
    white = torch.from_numpy(LEFT).expand(3, 1, 4, 4)
    assert torch.equal(painted[white], expected[white])


MEAN, COVARIANCE = np.array([0.5, -0.25]), np.array([[1.0, 0.9], [0.9, 1.0]])
KNOWN = 1.0


def replacement_law(moves, known_noise, mean=MEAN, covariance=COVARIANCE, known=KNOWN):
    """Mean and variance of the first of two coordinates, the second of which is replaced.

    With ``P`` the noisy precision, ``k`` the known value and ``z`` the noise on it, a move is
    ``u <- u - alpha (P_uu (u - m_u) + P_uk (k + sigma z - m_k)) + beta n``: affine in ``u``, ``z``
    and ``n``, of which ``u`` and ``z`` are correlated while ``z`` is kept.
    """
    u, variance, covariance_uz, level = 0.0, moves[0].sigma ** 2, 0.0, None
    for sigma, alpha, noise in moves:
        if known_noise == "step" or sigma != level:
            covariance_uz, level = 0.0, sigma
        precision = np.linalg.inv(covariance + sigma**2 * np.eye(2))
        keep, pull = 1 - alpha * precision[0, 0], -alpha * precision[0, 1]
        u = mean[0] + keep * (u - mean[0]) + pull * (known - mean[1])
        variance = (
            keep**2 * variance
            + 2 * keep * pull * sigma * covariance_uz
            + (pull * sigma) ** 2
            + noise**2
        )
        covariance_uz = keep * covariance_uz + pull * sigma
    return u, variance


@pytest.mark.parametrize("known_noise", KNOWN_NOISES)
@pytest.mark.parametrize(("name", "options"), AFFINE)
def test_law_of_the_painted_part_is_that_of_the_affine_chain(name, options, known_noise):
    count, steps = 20_000, 32
    target = GaussianMixtureScore.from_components(MEAN, COVARIANCE)
    # A large last level, where the two ways to draw the known part's noise differ most.
    sampler = chain(name, options, sigma_min=0.5, num_levels=3)
    pipe = quiet(HDInpaintPipeline(target, sampler))
    samples = pipe(
        [[0.0, KNOWN]],
        [[1.0, 0.0]],
        count,
        steps,
        generator=seeded(1),
        known_noise=known_noise,
        **start(sampler, count, 2),
    ).images
    mean, variance = replacement_law(sampler.moves, known_noise)
    # Four standard errors of the mean and of the variance of independent normals.
    error, spread = math.sqrt(variance / count), variance * math.sqrt(2 / count)
    assert (samples[:, 1] == KNOWN).all()
    assert abs(samples[:, 0].mean() - mean) < 4 * error
    assert abs(samples[:, 0].var() - variance) < 4 * spread
    # What it is not: the conditional law, and the law with the noise drawn in the other way.
    assert abs(mean - (MEAN[0] + 0.9 * (KNOWN - MEAN[1]))) > 8 * error
    # With one or two evaluations a level it is nearly the same.
    if len({move.sigma for move in sampler.moves}) < steps / 2:
        (other,) = set(KNOWN_NOISES) - {known_noise}
        assert abs(replacement_law(sampler.moves, other)[1] - variance) > 6 * spread


def test_the_table_in_the_docstring():
    """The figures by the recursion that the samples were compared with."""
    row = re.compile(r"^ +([a-z-]+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", re.MULTILINE)
    rows = row.findall(HDInpaintPipeline.__doc__)
    assert len(rows) == 7
    biases = {}
    for name, steps, *figures in rows:
        sampler = get_sampler(name)(sigma_max=1.0, sigma_min=0.01, num_levels=10)
        sampler.set_timesteps(int(steps))
        laws = [
            replacement_law(sampler.moves, known_noise, np.zeros(2), COVARIANCE, 1.0)
            for known_noise in KNOWN_NOISES
        ]
        found = [laws[0][0], laws[0][1], laws[1][1]]
        assert [f"{value:.3f}" for value in found] == figures
        assert laws[0][0] == pytest.approx(laws[1][0], abs=1e-12)
        biases.setdefault(name, []).append(abs(laws[0][0] - 0.9))
    for name, found in biases.items():
        ratios = [after / before for before, after in pairwise(found)]
        if name == "consistent-annealed-sampling":
            assert ratios == pytest.approx([1], abs=0.05)
        else:
            # Ten times the steps.
            assert max(ratios) < 0.12


# ---- the known part -------------------------------------------------------------------------


@pytest.mark.parametrize("data_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_eight_bit_images_come_back_byte_for_byte(data_range):
    pipe = quiet(
        HDInpaintPipeline(
            picture_model(0, size=16, data_range=data_range), chain("annealed-langevin", {})
        )
    )
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = np.random.default_rng(0).random((16, 16)) < 0.5
    (painted,) = pipe(Image.fromarray(pixels), Image.fromarray(mask), num_inference_steps=4).images
    painted = np.asarray(painted)
    assert np.array_equal(painted[~mask], pixels[~mask])
    assert not np.array_equal(painted[mask], pixels[mask])


def test_images_and_masks_of_every_kind():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    floats = (pixels / 255).astype(np.float32)
    tensor = torch.from_numpy(floats).permute(0, 3, 1, 2)
    pipe = quiet(HDInpaintPipeline(picture_model(channels=3), chain("alpha-half-denoising", {})))

    def paint(image, mask_image):
        return pipe(
            image, mask_image, num_inference_steps=STEPS, generator=seeded(), output_type="pt"
        ).images

    expected = paint(tensor, LEFT)
    white = torch.from_numpy(LEFT).expand(2, 3, 4, 4)
    # A rounding on the way to the network's units and back.
    torch.testing.assert_close(expected[~white], tensor[~white], rtol=0, atol=2**-23)
    grey = np.where(LEFT, 0.5, 0.49).astype(np.float32)
    eight_bits = Image.fromarray(np.uint8(255 * LEFT))
    masks = (
        LEFT[..., None],
        LEFT[None],
        np.stack([LEFT, LEFT]),
        LEFT.astype(np.uint8),
        grey,
        torch.from_numpy(LEFT),
        torch.from_numpy(grey)[None],
        torch.from_numpy(grey).expand(2, 1, 4, 4),
        Image.fromarray(LEFT),
        eight_bits,
        [eight_bits.convert("RGB")] * 2,
    )
    for mask in masks:
        assert torch.equal(paint(tensor, mask), expected)
    for image in (floats, floats.astype(np.float64), list(floats), list(tensor)):
        assert torch.equal(paint(image, LEFT), expected)
    # PIL images of eight bits: the same to the rounding of a division.
    painted = paint([Image.fromarray(p) for p in pixels], LEFT)
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-5)


def test_image_of_another_size_is_resized_with_its_mask():
    pipe = quiet(HDInpaintPipeline(picture_model(), chain("annealed-langevin", {})))
    mask = np.uint8(255 * np.kron(LEFT, np.ones((3, 3))))
    for image in (Image.new("L", (12, 12), 51), np.full((12, 12, 1), 0.2, np.float32)):
        (painted,) = pipe(image, Image.fromarray(mask), num_inference_steps=4).images
        kept = np.asarray(painted) == 51
        # Chance makes few of the 8 painted pixels equal.
        assert kept[:, 2:].all()
        assert kept[:, :2].sum() < 4


# ---- several, reproducibility, independence -------------------------------------------------


@pytest.mark.parametrize("known_noise", KNOWN_NOISES)
@pytest.mark.parametrize(("name", "options"), SAMPLERS, ids=IDS)
def test_sample_depends_neither_on_its_batch_nor_on_the_run(name, options, known_noise):
    pipe = quiet(HDInpaintPipeline(picture_model(), chain(name, options)))
    images = pictures(6)
    masks = torch.rand(6, 1, 4, 4, generator=seeded(8)) < 0.5
    # With nothing known its chain must be the same too.
    masks[3] = True
    begin = start(pipe.scheduler, 6, 1, 4, 4)

    def paint(first, last):
        return pipe(
            images[first:last],
            masks[first:last],
            num_inference_steps=STEPS,
            generator=sample_generators(11, range(first, last)),
            known_noise=known_noise,
            output_type="latent",
            **{name: states[first:last] for name, states in begin.items()},
        ).images

    together = paint(0, 6)
    assert torch.equal(paint(0, 6), together)
    for first, last in ((0, 1), (3, 4), (2, 5)):
        # The score is summed in float64, the state rounded to float32 at each step.
        torch.testing.assert_close(
            paint(first, last), together[first:last], rtol=0, atol=STEPS * 8 * 2**-23
        )


def test_several_samples_of_each_image_follow_one_another():
    pipe = quiet(HDInpaintPipeline(picture_model(), chain("annealed-half-denoising", {})))
    common = {"num_inference_steps": STEPS, "output_type": "latent"}
    generators = sample_generators(1, range(6))
    painted = pipe(pictures(3), LEFT, 2, generator=generators, **common).images
    for i in range(3):
        generators = sample_generators(1, range(2 * i, 2 * i + 2))
        one = pipe(pictures(3)[i], LEFT, 2, generator=generators, **common).images
        torch.testing.assert_close(one, painted[2 * i : 2 * i + 2], rtol=0, atol=1e-5)
        assert (one[0] != one[1])[:, :, :2].all()


def test_several_masks_for_one_image():
    pipe = quiet(HDInpaintPipeline(picture_model(), chain("annealed-half-denoising", {})))
    image = pictures(1)
    painted = pipe(
        image, np.stack([LEFT, ~LEFT]), num_inference_steps=STEPS, output_type="latent"
    ).images
    kept = painted == 2 * image - 1
    assert (kept == torch.from_numpy(np.stack([~LEFT, LEFT]))[:, None]).all()


def test_one_generator_goes_on_from_call_to_call():
    pipe = quiet(HDInpaintPipeline(picture_model(), chain("annealed-langevin", {})))
    generator = seeded()
    first, second = (
        pipe(
            pictures(), LEFT, num_inference_steps=4, generator=generator, output_type="latent"
        ).images
        for _ in range(2)
    )
    assert (first != second)[..., :2].all()


def test_fork_is_a_function_of_the_state_that_it_leaves_alone():
    generator = seeded(4)
    state = generator.get_state()
    noise = torch.randn(8, generator=fork(generator))
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.randn(8, generator=fork(seeded(4))), noise)
    own = torch.randn(8, generator=generator)
    assert (own != noise).all()
    assert (torch.randn(8, generator=fork(generator)) != noise).all()
    assert fork(None) is None
    one, other = fork([generator, generator])
    assert one is other


def test_noise_of_the_known_part_is_independent_of_the_samplers():
    """Were it the same, or shifted, the correlation would be 1 at some lag."""
    generator = seeded(4)
    known, own = (
        torch.randn(2000, generator=fork(generator)),
        torch.randn(2000, generator=generator),
    )
    shifted = torch.stack([own.roll(lag) for lag in range(64)])
    # Five standard errors of a correlation of 2000 pairs.
    assert (shifted @ known / 2000).abs().max() < 5 / math.sqrt(2000)


# ---- the start, callbacks, points -----------------------------------------------------------


def test_latents_are_the_first_state_but_for_the_known_part():
    target = GaussianMixtureScore.from_components(MEAN, COVARIANCE)
    inputs = []
    target.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    pipe = quiet(HDInpaintPipeline(target, chain("half-denoising", {})))
    latents = torch.randn(3, 2, generator=seeded(2))
    samples = pipe(
        [[9.0, KNOWN]], [[1.0, 0.0]], 3, STEPS, latents=latents, generator=seeded()
    ).images
    assert torch.equal(inputs[0][:, 0], latents[:, 0])
    assert (inputs[0][:, 1] != latents[:, 1]).all()
    assert (samples[:, 1] == KNOWN).all()


def test_callback_sees_the_known_part_in_its_place_and_has_the_last_word():
    pipe = quiet(HDInpaintPipeline(picture_model(), chain("annealed-langevin", {})))
    seen = []

    def callback(given_pipe, step, timestep, tensors):
        seen.append((given_pipe, step, float(timestep), tensors["latents"]))
        return {"latents": torch.full_like(tensors["latents"], step)} if step == 5 else None

    inputs = []
    pipe.unet.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    (painted,) = pipe(
        pictures(),
        LEFT,
        num_inference_steps=STEPS,
        output_type="latent",
        return_dict=False,
        callback_on_step_end=callback,
    )
    assert [(s[0], s[1]) for s in seen] == [(pipe, i) for i in range(STEPS)]
    assert [s[2] for s in seen] == pipe.scheduler.timesteps.tolist()
    assert torch.equal(seen[4][3], inputs[5])
    assert inputs[6].unique().item() == 5
    assert torch.equal(seen[-1][3], painted)
    assert torch.equal(painted[..., 2:], (2 * pictures() - 1)[..., 2:])


def test_it_is_built_from_another_pipeline_saved_and_loaded(tmp_path):
    plain = HDPipeline(picture_model(), chain("annealed-langevin", {}))
    painter = HDInpaintPipeline.from_pipe(plain)
    assert painter.unet is plain.unet
    painter.save_pretrained(tmp_path / "painter")
    plain.save_pretrained(tmp_path / "plain")

    def paint(pipe):
        return quiet(pipe)(
            pictures(), LEFT, num_inference_steps=4, generator=seeded(), output_type="latent"
        ).images

    for folder in ("painter", "plain"):
        loaded = HDInpaintPipeline.from_pretrained(tmp_path / folder)
        assert torch.equal(paint(loaded), paint(painter))
    assert type(HDPipeline.from_pretrained(tmp_path / "painter")) is HDPipeline


# ---- what is refused ------------------------------------------------------------------------

NAN = np.where(LEFT, np.nan, 0.0)
REFUSED = {
    "mask_size": ({"mask_image": np.ones((4, 5))}, r"mask_image .* \(4, 5\), and image \(4, 4\)"),
    "mask_nan": ({"mask_image": NAN}, r"mask_image has values from nan .* \[0, 1\]"),
    "mask_range": ({"mask_image": np.uint8(255 * LEFT)}, "mask_image has values from 0 to 255"),
    "mask_channels": (
        {"mask_image": torch.ones(1, 3, 4, 4)},
        r"mask_image has the shape \(1, 3, 4, 4\); it must be \(batch, 1, 4, 4\)",
    ),
    "mask_kind": ({"mask_image": "mask.png"}, "mask_image cannot be read: .* give PIL images"),
    "mask_none": ({"mask_image": None}, "mask_image cannot be read"),
    "mask_empty": ({"mask_image": []}, "mask_image cannot be read"),
    "masks": ({"mask_image": np.stack([LEFT] * 2)}, "3 images and 2 masks are given; .* for all"),
    "image_range": ({"image": 2 * pictures()}, r"image has values from 0.* to [\d.]+; .* \[0, 1\]"),
    "image_negative": ({"image": pictures() - 1}, "image has values from -"),
    "image_nan": ({"image": pictures() * math.nan}, "image has values from nan"),
    "image_channels": ({"image": pictures(channels=3)}, r"image has the shape \(3, 3, 4, 4\)"),
    "image_kind": ({"image": 3}, "image cannot be read"),
    "image_sizes": (
        {"image": [Image.new("L", (4, 4)), Image.new("L", (5, 5))]},
        "image has pictures of several sizes .*4 x 4, 5 x 5",
    ),
    "no_samples": (
        {"num_samples_per_image": 0},
        "num_samples_per_image is 0; it must be a whole number from 1",
    ),
    "generators": (
        {"generator": [seeded(), seeded()], "num_samples_per_image": 2},
        "generator is a list of 2 for 6 samples",
    ),
    "latents_count": (
        {"latents": torch.zeros(3, 1, 4, 4), "num_samples_per_image": 2},
        "latents has 3 for 6 samples",
    ),
    "latents_shape": ({"latents": torch.zeros(3, 1, 4, 5)}, r"latents has the shape \(3, 1, 4, 5"),
    "start_count": ({"start_image": pictures(2)}, "start_image has 2 for 3 samples"),
    "start_range": ({"start_image": 2 * pictures()}, "start_image has values"),
    "both_starts": (
        {"latents": torch.zeros(3, 1, 4, 4), "start_image": pictures()},
        "both latents and start_image",
    ),
    "known_noise": ({"known_noise": "rung"}, "unknown known_noise 'rung'; allowed are step, level"),
    "output_type": ({"output_type": "tensor"}, "unknown output_type 'tensor'"),
    "callback_inputs": (
        {"callback_on_step_end_tensor_inputs": ["mask"]},
        "is 'mask'; allowed are 'latents', 'denoised', 'score'",
    ),
    "few_steps": ({"num_inference_steps": 3}, "num_inference_steps is 3, .* at least 4"),
    "ascending": ({"sigmas": [0.5, 1.0], "num_inference_steps": None}, "descend"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused_before_anything_is_drawn(arguments, message):
    network = picture_model()
    calls = []
    network.register_forward_pre_hook(lambda *_: calls.append(1))
    pipe = quiet(HDInpaintPipeline(network, chain("annealed-langevin", {})))
    generator = seeded()
    given = {"image": pictures(), "mask_image": LEFT, "num_inference_steps": STEPS}
    with pytest.raises(HDZooError, match=message):
        pipe(**given | {"generator": generator} | arguments)
    assert calls == []
    assert torch.equal(generator.get_state(), seeded().get_state())


POINT = torch.tensor([[0.0, KNOWN]])
REFUSED_POINTS = {
    "image_kind": ({"image": Image.new("L", (4, 4))}, r"image .* the network needs \(batch, 2\)"),
    "image_shape": ({"image": torch.zeros(2)}, r"image has the shape \(2,\); .* \(batch, 2\)"),
    "image_nan": ({"image": POINT * math.nan}, "image has values that are not finite"),
    "mask_shape": ({"mask_image": [[1.0]]}, r"mask_image has the shape \(1, 1\)"),
    "mask_nan": ({"mask_image": [[1.0, math.nan]]}, "mask_image has values that are not finite"),
    "mask_range": ({"mask_image": [[1.0, -1.0]]}, "mask_image has values from -1 to 1"),
    "counts": ({"image": POINT.expand(3, 2), "mask_image": POINT.expand(2, 2)}, "3 images and 2"),
    "start": ({"start_image": pictures()}, "start_image is given, and .* no images; give latents"),
    "output": ({"output_type": "pil"}, "output_type is 'pil', and the samples .* no images"),
    "latents": ({"latents": torch.zeros(1, 3)}, r"latents has the shape \(1, 3\)"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED_POINTS.values(), ids=REFUSED_POINTS)
def test_bad_points_are_refused(arguments, message):
    target = GaussianMixtureScore.from_components(MEAN, COVARIANCE)
    pipe = quiet(HDInpaintPipeline(target, chain("annealed-langevin", {})))
    with pytest.raises(HDZooError, match=message):
        pipe(**{"image": POINT, "mask_image": [[1.0, 0.0]]} | arguments)


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture
def inpaint(run, monkeypatch, tmp_path):
    """Runs the command in a folder with a model, an image and a mask."""
    monkeypatch.chdir(tmp_path)
    HDPipeline(picture_model(), chain("annealed-langevin", {})).save_pretrained("model")
    Image.fromarray(np.uint8(16 * np.arange(16).reshape(4, 4))).save("image.png")
    Image.fromarray(LEFT).save("mask.png")
    Image.new("L", (5, 4)).save("wide.png")
    return partial(run, "inpaint", "model")


@pytest.mark.parametrize("sampler", ["annealed-half-denoising", "half-denoising"])
def test_command_paints_and_says_what_made_it(inpaint, sampler):
    arguments = ("image.png", "mask.png", "-s", sampler, "-n", 4, "-t", STEPS, "--seed", 3)
    code, out, err = inpaint(*arguments)
    assert code == 0
    with Image.open(out.strip()) as grid:
        made_by = json.loads(grid.text["hdzoo"])
        painted = np.asarray(grid)
    assert painted.shape == (8, 8)
    tiles = [painted[i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    for tile in tiles:
        assert np.array_equal(tile[~LEFT], np.asarray(Image.open("image.png"))[~LEFT])
    assert not np.array_equal(tiles[0], tiles[1])
    single = sampler == "half-denoising"
    assert made_by["started_from"] == ("AnnealedLangevinSampler" if single else "noise")
    assert ("starts from what AnnealedLangevinSampler paints" in err) == single
    assert (made_by["image"], made_by["mask_image"]) == ("image.png", "mask.png")
    assert (made_by["seed"], made_by["num_inference_steps"]) == (3, STEPS)
    # In other batches the same images, to a rounding.
    _, again, _ = inpaint(*arguments, "--batch-size", 3, "-O", "again.png")
    assert np.abs(np.asarray(Image.open(again.strip()), int) - painted).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png", "mask.png"], "'nothing.png' is no file"),
        (["image.png", "model/model_index.json"], "model_index.json' is no picture that can be"),
        (["image.png", "wide.png"], "give a mask of the image's size"),
        (["image.png", "mask.png", "-n", 0], "num_images is 0"),
        (["image.png", "mask.png", "--batch-size", 0], "batch_size is 0"),
        (["image.png", "mask.png", "--seed=-1"], "seed is -1"),
        (["image.png", "mask.png", "--known-noise", "rung"], "unknown known_noise 'rung'"),
    ],
)
def test_command_refuses_with_one_message(inpaint, arguments, message):
    code, out, err = inpaint(*arguments)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
