"""`HDPipeline`: the chain it runs, its arguments, and the law of its samples."""

import math

import numpy as np
import pytest
import torch
import zoo
from accelerate import cpu_offload
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ConfigMixin,
    DiffusionPipeline,
    ModelMixin,
    UNet2DModel,
    VQModel,
)
from diffusers.configuration_utils import register_to_config
from PIL import Image

from hdzoo import (
    AnnealedLangevinSampler,
    GaussianMixtureScore,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    UNetScoreModel,
    get_sampler,
)
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.pipeline import OUTPUT_TYPES

STEPS = 8


class GaussianScore(ModelMixin, ConfigMixin):
    """The exact score of N(mean, std^2 I); remembers what it was asked."""

    config_name = "config.json"
    prediction_type = "score"

    @register_to_config
    def __init__(self, mean=0.3, std=0.2, sample_size=4, in_channels=1, data_range=(0.0, 1.0)):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.inputs, self.timesteps = [], []

    def forward(self, sample, timestep, return_dict=True):
        self.inputs.append(sample.clone())
        self.timesteps.append(float(timestep))
        config = self.config
        return ((config.mean - sample) / (config.std**2 + timestep**2),)


def exact(sampler="annealed-langevin", network=None, **options):
    """A pipeline on an exact score."""
    if sampler == "annealed-langevin":
        options = {"num_levels": 4} | options
    pipe = HDPipeline(network or GaussianScore(), get_sampler(sampler)(**options))
    # For samplers at a single level, which start from samples.
    pipe.starter = get_sampler("annealed-langevin")(
        num_levels=4,
        sigma_max=10 * options.get("sigma", 0.1),
        sigma_min=options.get("sigma", 0.1),
        steps_per_level=1,
        prediction_type=options.get("prediction_type", "score"),
        timestep_type=options.get("timestep_type", "sigma"),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(pipe, count=3, steps=STEPS, generator=None, **arguments):
    arguments = {"output_type": "latent"} | arguments
    return pipe(count, steps, generator=generator or seeded(), **arguments).images


# ---- the law --------------------------------------------------------------------------------


def test_samples_have_the_law_of_the_published_recursion():
    count, mean, std = 4000, 0.3, 0.2
    levels, per_level, eta = [1.0, 0.5, 0.25, 0.125], 5, 0.2
    network = GaussianScore(mean, std, sample_size=2)
    pipe = exact(network=network, sigmas=levels, step_size=eta * levels[-1] ** 2)
    samples = draw(pipe, count, len(levels) * per_level)

    # The start: the middle of the data range, and the largest noise.
    m, v = 0.5, levels[0] ** 2
    for sigma in levels:
        alpha, total = eta * sigma**2, std**2 + sigma**2
        for _ in range(per_level):
            m = mean + (1 - alpha / total) * (m - mean)
            v = (1 - alpha / total) ** 2 * v + 2 * alpha
    n = samples.numel()
    # Four standard errors of the mean and of the variance of n independent normals.
    assert abs(samples.mean() - m) < 4 * math.sqrt(v / n)
    assert abs(samples.var() - v) < 4 * v * math.sqrt(2 / n)
    assert abs(v - std**2) > 8 * v * math.sqrt(2 / n), "this chain cannot be told from the data"


@pytest.mark.parametrize("sampler", zoo.SAMPLERS)
def test_same_picture_whatever_the_units_of_the_network(sampler):
    own = get_sampler(sampler)().config
    ladder = {"num_levels": 4} if "num_levels" in own else {}
    level = {"sigma": 0.2} if "sigma" in own else {"sigma_max": 1.0, "sigma_min": 0.2}
    doubled = {name: 2 * value for name, value in level.items()}
    unit = exact(sampler, GaussianScore(0.3, 0.2), **ladder | level)
    symmetric = exact(sampler, GaussianScore(-0.4, 0.4, data_range=(-1.0, 1.0)), **ladder | doubled)
    # The map between the units rounds each step's state, below 8, to 2^-22; the chain contracts.
    tolerance = STEPS * 8 * 2**-22
    torch.testing.assert_close(draw(symmetric), 2 * draw(unit) - 1, rtol=0, atol=2 * tolerance)
    torch.testing.assert_close(
        draw(symmetric, output_type="pt"), draw(unit, output_type="pt"), rtol=0, atol=tolerance
    )
    picture = torch.rand(3, 1, 4, 4, generator=seeded(5))
    torch.testing.assert_close(
        draw(symmetric, image=picture), 2 * draw(unit, image=picture) - 1, rtol=0, atol=tolerance
    )


# ---- stock networks -------------------------------------------------------------------------


def stock(time_embedding_type):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        time_embedding_type=time_embedding_type,
    ).eval()


KINDS = {
    "fourier": {"prediction_type": "score", "timestep_type": "sigma"},
    "positional": {"prediction_type": "epsilon", "timestep_type": "log_sigma"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_stock_unet_is_told_the_noise_and_its_output_is_taken_as_said(kind):
    unet = stock(kind)
    pipe = exact(network=unet, **KINDS[kind])
    samples = draw(pipe, 2)

    generator = seeded()
    sigmas = np.repeat(np.geomspace(1.0, 0.01, 4), STEPS // 4).tolist()
    # Without a data_range it is (-1, 1), as in diffusers, and its middle 0.
    x = torch.randn(2, 1, 4, 4, generator=generator)
    for sigma in sigmas:
        with torch.no_grad():
            if kind == "fourier":
                score = unet(x, torch.tensor(sigma)).sample
            else:
                score = -unet(x, torch.tensor(math.log(sigma) / 4)).sample / sigma
        alpha = 0.2 * sigma**2
        x = x + alpha * score + math.sqrt(2 * alpha) * torch.randn(x.shape, generator=generator)
    # Some ten float32 roundings a step, of values below 8, and a network of gain about 1.
    torch.testing.assert_close(samples, x.float(), rtol=0, atol=STEPS * 10 * 8 * 2**-24)
    pictures = draw(pipe, 2, output_type="pt")
    torch.testing.assert_close(pictures, ((x.float() + 1) / 2).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_stock_unet_in_bfloat16_does_not_round_the_state(kind):
    full = draw(exact(network=stock(kind), **KINDS[kind]))
    low = draw(exact(network=stock(kind).bfloat16(), **KINDS[kind]))
    assert low.dtype == torch.float32
    assert not torch.equal(low, low.bfloat16().float())
    # The network's output is epsilon, or -epsilon over sigma, of size 1, wrong by about ten
    # roundings of 2^-8; each step adds alpha / sigma = 0.2 sigma of it, and the sigmas sum to 2.6.
    torch.testing.assert_close(low, full, rtol=0, atol=10 * 2**-8 * 0.2 * 2.6)
    assert not torch.equal(low, full)


def test_our_network_in_bfloat16_is_given_the_whole_state():
    network = UNetScoreModel(sample_size=4, block_out_channels=(8,), data_mean=0.4)
    # Silent inside, so that nothing but the state and the preconditioning is left.
    for parameter in network.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    full = draw(exact(network=network, prediction_type="sample"))
    low = draw(exact(network=network.bfloat16(), prediction_type="sample"))
    assert torch.equal(low, full)


# ---- cost, reproducibility, independence ----------------------------------------------------


@pytest.mark.parametrize("steps", [4, 7, 31])
@pytest.mark.parametrize("sampler", zoo.SAMPLERS)
def test_steps_are_network_evaluations_at_the_schedulers_timesteps(sampler, steps):
    pipe = exact(sampler)
    if "num_levels" in pipe.scheduler.config:
        pipe.scheduler = get_sampler(sampler)(num_levels=4)
    draw(pipe, steps=steps, latents=torch.zeros(3, 1, 4, 4))
    assert len(pipe.unet.timesteps) == steps
    assert pipe.unet.timesteps == pipe.scheduler.timesteps.tolist()


def test_default_number_of_steps_is_the_samplers_own():
    pipe = exact(steps_per_level=3)
    draw(pipe, steps=None)
    assert len(pipe.unet.timesteps) == 4 * 3


@pytest.mark.parametrize("sampler", zoo.SAMPLERS)
def test_sample_depends_neither_on_its_batch_nor_on_the_run(sampler):
    network = UNetScoreModel(
        sample_size=4, block_out_channels=(8,), data_mean=0.4, patch_size=1
    ).eval()
    pipe = exact(sampler, network, prediction_type="sample")
    starts = []
    forward = network.forward

    def spy(sample, timestep, return_dict=True):
        starts.append(sample.clone())
        return forward(sample, timestep, return_dict)

    network.forward = spy

    def batched(size, first=0):
        starts.clear()
        indices = range(first, first + size)
        samples = draw(pipe, size, 10, sample_generators(11, indices))
        return starts[0], samples

    start, samples = batched(16)
    assert torch.equal(batched(16)[1], samples)
    for first, size in ((0, 1), (5, 1), (3, 7)):
        part = slice(first, first + size)
        small_start, small = batched(size, first)
        assert torch.equal(small_start, start[part])
        # The noise is the same; the convolutions may sum in another order.
        torch.testing.assert_close(small, samples[part], rtol=0, atol=1e-3)
    assert (samples[0] - samples[1]).abs().max() > 0.01


def test_sample_generators_are_a_function_of_seed_and_index():
    def first(seed, *indices):
        return [torch.rand((), generator=g).item() for g in sample_generators(seed, indices)]

    assert first(1, 0, 7, 3) == first(1, 0) + first(1, 7) + first(1, 3)
    assert len({*first(1, 0, 1, 2), *first(2, 0, 1, 2)}) == 6


# ---- the start ------------------------------------------------------------------------------


def test_latents_are_the_first_state():
    pipe = exact()
    latents = torch.randn(5, 1, 4, 4, generator=seeded(9)).double()
    draw(pipe, None, latents=latents)
    assert torch.equal(pipe.unet.inputs[0], latents.float())


def test_a_first_state_of_another_signature_is_refused():
    class Old(get_sampler("annealed-langevin")):
        def first_state(self, shape, noise, centre=0.0, data_range=None):
            return centre + noise.normal(shape)

    pipe = HDPipeline(GaussianScore(), Old(sigma_max=2, sigma_min=0.1, num_levels=3))
    with pytest.raises(HDZooError, match=r"Old.first_state takes .*; it must take \(shape, "):
        pipe(1)


def test_image_is_brought_to_the_first_noise_level():
    network = GaussianScore(data_range=(-1.0, 1.0))
    pipe = exact(network=network)
    picture = torch.rand(3, 1, 4, 4, generator=seeded(5))
    draw(pipe, None, image=picture, generator=seeded(2))
    noise = torch.randn(3, 1, 4, 4, generator=seeded(2))
    scheduler = pipe.scheduler
    expected = scheduler.add_noise(2 * picture - 1, noise, scheduler.timesteps[:1])
    assert torch.equal(network.inputs[0], expected)


def test_images_of_every_kind_are_the_same_start():
    pipe = exact(network=GaussianScore(in_channels=3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    floats = (pixels / 255).astype(np.float32)
    tensor = torch.from_numpy(floats).permute(0, 3, 1, 2)
    for image in (
        [Image.fromarray(p) for p in pixels],
        floats,
        list(floats),
        tensor,
        list(tensor),
    ):
        pipe.unet.inputs.clear()
        draw(pipe, None, image=image)
        noisy = pipe.unet.inputs[0]
        start = tensor + pipe.scheduler.init_noise_sigma * torch.randn(
            2, 3, 4, 4, generator=seeded()
        )
        # One rounding of a division by 255, and of a sum below 8.
        torch.testing.assert_close(noisy, start, rtol=0, atol=2 * 8 * 2**-24)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_is_one_sample_in_the_networks_channels(channels):
    pipe = exact(network=GaussianScore(in_channels=channels), sigma_max=1e-6, sigma_min=1e-7)
    grey = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    rounded = np.round(grey * 255) / 255
    mode = {1: "RGB", 3: "L"}[channels]
    tensor = torch.from_numpy(grey).expand(channels, 4, 4)
    for image, expected in (
        (Image.fromarray(np.uint8(rounded * 255 + 0.5)).convert(mode), rounded),
        (tensor, grey),
        (tensor.permute(1, 2, 0).numpy(), grey),
    ):
        pipe.unet.inputs.clear()
        draw(pipe, None, image=image)
        noisy = pipe.unet.inputs[0]
        assert noisy.shape == (1, channels, 4, 4)
        # Noise of 1e-6, below five standard deviations; PIL's grey weights round to 1/255.
        error = np.abs(noisy[0].numpy() - expected).max()
        assert error < 5e-6 + (1.01 / 255 if isinstance(image, Image.Image) else 0)


def test_image_of_another_size_is_resized():
    pipe = exact(sigma_max=1e-6, sigma_min=1e-7)
    draw(pipe, None, image=Image.new("L", (9, 9), 51))
    # 51 / 255 everywhere, and noise of 1e-6.
    assert (pipe.unet.inputs[0] - 0.2).abs().max() < 6e-6


# ---- the output -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_output_types_agree(channels):
    network = GaussianScore(0.1, 0.6, in_channels=channels, data_range=(-1.0, 1.0))
    pipe = exact(network=network)
    outputs = {kind: draw(pipe, output_type=kind) for kind in OUTPUT_TYPES}
    mapped = ((outputs["latent"] + 1) / 2).clamp(0, 1)
    # Saturated somewhere, so that the clamp is seen.
    assert outputs["latent"].abs().max() > 1
    assert torch.equal(outputs["pt"], mapped)
    assert np.array_equal(outputs["np"], mapped.permute(0, 2, 3, 1).numpy())
    for picture, expected in zip(outputs["pil"], outputs["np"], strict=True):
        assert picture.mode == {1: "L", 3: "RGB"}[channels]
        pixels = np.asarray(picture, np.float64).reshape(4, 4, channels) / 255
        # Eight bits: half a step, and the float32 rounding of the product.
        assert np.abs(pixels - expected).max() <= 0.5 / 255 + 1e-6


def test_tuple_instead_of_output():
    pipe = exact()
    (images,) = pipe(2, STEPS, generator=seeded(), output_type="latent", return_dict=False)
    assert torch.equal(images, draw(pipe, 2))


def test_progress_bar_counts_the_steps_and_can_be_disabled(capsys):
    pipe = exact()
    draw(pipe)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(disable=False)
    draw(pipe)
    assert f"{STEPS}/{STEPS}" in capsys.readouterr().err


# ---- callbacks ------------------------------------------------------------------------------


def test_callback_sees_every_step():
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((pipe, step, float(timestep), tensors["latents"].clone()))

    pipe = exact()
    samples = draw(pipe, callback_on_step_end=callback)
    assert [s[0] for s in seen] == [pipe] * STEPS
    assert [s[1] for s in seen] == list(range(STEPS))
    assert [s[2] for s in seen] == pipe.scheduler.timesteps.tolist()
    # The state after a step is what the network is given at the next.
    for (*_, after), before in zip(seen, [*pipe.unet.inputs[1:], samples], strict=True):
        assert torch.equal(after, before)


def test_callback_replaces_the_latents():
    def callback(pipe, step, timestep, tensors):
        return {"latents": torch.full_like(tensors["latents"], float(step))}

    pipe = exact()
    samples = draw(pipe, callback_on_step_end=callback)
    assert [x.unique().item() for x in pipe.unet.inputs[1:]] == list(range(STEPS - 1))
    assert samples.unique().item() == STEPS - 1


# ---- what is refused ------------------------------------------------------------------------

START = torch.zeros(3, 1, 4, 4)

REFUSED = {
    "output_type": ({"output_type": "tensor"}, "output_type 'tensor'; allowed are pil, np, pt"),
    "callback_inputs": (
        {"callback_on_step_end_tensor_inputs": ["latents", "noise"]},
        "is 'noise'; allowed are 'latents', 'denoised', 'score'",
    ),
    "both_starts": ({"latents": START, "image": START}, "both latents and image"),
    "latents_shape": ({"latents": torch.zeros(3, 1, 4, 5)}, r"\(3, 1, 4, 5\); .* 1, 4, 4\)"),
    "latents_one": ({"latents": START[0]}, r"latents has the shape \(1, 4, 4\)"),
    "latents_count": ({"latents": START, "batch_size": 2}, "batch_size is 2, and 3 latents"),
    "image_count": ({"image": START, "batch_size": 4}, "batch_size is 4, and 3 latents or images"),
    "image_channels": ({"image": START.expand(3, 3, 4, 4)}, r"image has the shape \(3, 3, 4, 4\)"),
    "image_kind": ({"image": "a.png"}, "image cannot be read: .* give PIL images"),
    "image_empty": ({"image": []}, "image cannot be read"),
    "image_bytes": (
        {"image": np.full((3, 4, 4, 1), 255, np.uint8)},
        r"image has values from 255 to 255; .* \[0, 1\] \(divide",
    ),
    "image_nan": ({"image": START * math.nan}, "image has values from nan"),
    "image_negative": ({"image": START - 1}, "image has values from -1"),
    "no_sample": ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1"),
    "negative": ({"batch_size": -1}, "batch_size is -1"),
    "generators": (
        {"batch_size": 3, "generator": [torch.Generator(), torch.Generator()]},
        "generator is a list of 2 for 3 samples",
    ),
    "generators_image": (
        {"image": START, "generator": [torch.Generator()]},
        "generator is a list of 1 for 3 samples",
    ),
    "few_steps": ({"num_inference_steps": 3}, "num_inference_steps is 3, .* at least 4"),
    "no_steps": ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    "both_schedules": (
        {"num_inference_steps": 5, "sigmas": [1.0, 0.5]},
        "num_inference_steps is 5 and sigmas has 2 noise levels",
    ),
    "ascending": ({"sigmas": [0.5, 1.0]}, r"(0\.5|1)"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused_before_any_network_call(arguments, message):
    pipe = exact()
    with pytest.raises(HDZooError, match=message):
        pipe(**arguments)
    assert pipe.unet.timesteps == []


PARTS = {
    "unet": (
        torch.nn.Linear(2, 2),
        lambda x, sigma: x,
        "ncsn-mnist",
        AnnealedLangevinSampler(),
        GaussianScore,
    ),
    "scheduler": (GaussianScore(), "annealed-langevin", AnnealedLangevinSampler),
}


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts]
)
def test_what_can_be_no_part_is_refused_at_once(name, part):
    pipe = exact()
    before = getattr(pipe, name)
    parts = {"unet": pipe.unet, "scheduler": pipe.scheduler} | {name: part}
    if isinstance(part, type):
        advice = rf"give an instance, as {part.__name__}\(\.\.\.\)"
    else:
        advice = "get_sampler" if name == "scheduler" else r"becomes one by hdzoo\.wrap\(denoiser"
    for cls in (HDPipeline, HDInpaintPipeline):
        with pytest.raises(HDZooError, match=f"^{name} is .*{advice}"):
            cls(**parts)
    with pytest.raises(HDZooError, match=f"^{name} is .*{advice}"):
        setattr(pipe, name, part)
    assert getattr(pipe, name) is before


def test_an_autoencoder_is_no_score_network():
    for network in (AutoencoderKL(), AutoencoderTiny(), VQModel()):
        with pytest.raises(HDZooError, match="takes no noise level"):
            HDPipeline(network, AnnealedLangevinSampler())


@pytest.mark.parametrize("name", ["unet", "scheduler"])
def test_a_part_that_is_left_out_is_asked_for_when_it_is_needed(name):
    for cls, arguments in ((HDPipeline, ()), (HDInpaintPipeline, (START, START))):
        pipe = cls(
            **{"unet": GaussianScore(), "scheduler": AnnealedLangevinSampler()} | {name: None}
        )
        with pytest.raises(HDZooError, match=f"^{name} is None; it must be"):
            pipe(*arguments)


def test_sigmas_can_be_given():
    pipe = exact()
    draw(pipe, steps=None, sigmas=[0.9, 0.3, 0.3, 0.1])
    assert pipe.unet.timesteps == [0.9, 0.3, 0.3, 0.1]


def test_sampler_for_another_prediction_is_refused():
    pipe = exact(prediction_type="epsilon")
    with pytest.raises(HDZooError, match=r"predicts 'score' and .* 'epsilon'; use Annealed"):
        draw(pipe)
    assert pipe.unet.timesteps == []
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, prediction_type="score"
    )
    assert torch.equal(draw(pipe), draw(exact()))


def test_noise_levels_that_the_network_was_not_trained_for_are_refused():
    network = UNetScoreModel(sample_size=4, block_out_channels=(8,), sigma_max=0.5)
    calls = []
    network.register_forward_pre_hook(lambda *_: calls.append(1))
    pipe = exact(network=network, prediction_type="sample", sigma_max=0.7)
    with pytest.raises(HDZooError, match=r"from 0\.01 to 0\.5, .* asks for 0\.7"):
        draw(pipe)
    assert calls == []
    draw(pipe, steps=None, sigmas=[0.5, 0.01])
    assert len(calls) == 2


def test_samples_that_are_not_finite_are_counted_once():
    network = GaussianScore()
    forward = network.forward

    def breaks(sample, timestep, return_dict=True):
        (score,) = forward(sample, timestep)
        score[1, 0, 0, 0] = math.nan
        score[4] = math.inf
        return (score,)

    network.forward = breaks
    pipe = exact(network=network)
    with pytest.raises(HDZooError, match=r"^2 of 6 samples came out not finite"):
        draw(pipe, 6)
    assert len(network.timesteps) == STEPS


# ---- models of points -----------------------------------------------------------------------


def test_points_that_are_no_images() -> None:
    target = GaussianMixtureScore.from_components([[-5.0, 1.0], [5.0, 1.0]], 0.01)
    pipe = HDPipeline(target, AnnealedLangevinSampler(sigma_max=10, readout="full"))
    pipe.set_progress_bar_config(disable=True)
    samples = pipe(64, 200, generator=torch.Generator().manual_seed(0)).images
    assert isinstance(samples, torch.Tensor)
    assert tuple(samples.shape) == (64, 2)
    # Both modes, and nothing beyond 6 standard deviations of the noisy component.
    assert (samples[:, 0] < 0).sum() not in (0, 64)
    assert ((samples - torch.tensor([5.0, 1.0]) * samples.sign()).abs() < 6 * 0.11).all()
    with pytest.raises(
        HDZooError, match=r"output_type is 'pil', and the samples of .* use 'latent'"
    ):
        pipe(2, output_type="pil")
    with pytest.raises(HDZooError, match=r"image is given, and the samples .* give latents"):
        pipe(2, image=torch.zeros(2, 1, 2, 2))


def test_an_exact_score_of_images_draws_pictures() -> None:
    grey = GaussianMixtureScore.from_components(
        torch.full((1, 16), 0.75), 0.0, sample_shape=(1, 4, 4), data_range=(0.0, 1.0)
    )
    pipe = HDPipeline(grey, AnnealedLangevinSampler(readout="full"))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(3, 20).images
    # All of the mass is on one picture, and the read-out of a point mass is exact.
    assert [np.unique(image).tolist() for image in images] == [[191]] * 3
    assert images[0].size == (4, 4)


def moved_by_a_hook():
    network = UNetScoreModel(sample_size=4, block_out_channels=(8,), norm_num_groups=4)
    return cpu_offload(network, torch.device("cpu"))


@pytest.mark.parametrize(
    ("make", "device"),
    [
        (GaussianScore, "cpu"),
        (lambda: GaussianScore().to("meta"), "meta"),
        # Between calls its weights are nowhere.
        (moved_by_a_hook, "cpu"),
        (lambda: GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25]), "cpu"),
    ],
    ids=["here", "elsewhere", "hook", "no weights"],
)
def test_a_call_runs_on_the_device_that_diffusers_says(make, device):
    pipe = exact(network=make())
    assert pipe._execution_device == torch.device(device)
    assert DiffusionPipeline._execution_device.fget(pipe) == torch.device(device)


def test_a_network_that_a_hook_moves_draws():
    network = moved_by_a_hook()
    pipe = exact(network=network, prediction_type="sample")
    assert network.device.type == "meta"
    images = pipe(2, 8, output_type="pt", generator=sample_generators(0, range(2))).images
    assert images.isfinite().all()
