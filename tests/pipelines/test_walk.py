"""What a pipeline's loop gives besides the last state, and that each call is alone."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from hdzoo import (
    GaussianMixtureScore,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    UNetScoreModel,
    get_sampler,
)
from hdzoo.pipelines.generators import sample_generators
from hdzoo.pipelines.walk import evaluating

MEAN, VARIANCE = 0.3, 0.04


def pipeline(sampler="annealed-langevin", cls=HDPipeline, **options):
    """A sampler on the exact score of N(MEAN, VARIANCE) in 4 dimensions."""
    target = GaussianMixtureScore.from_components([MEAN] * 4, VARIANCE)
    pipe = cls(target, get_sampler(sampler)(**options))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- callbacks ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["annealed-langevin", "consistent-annealed-sampling"])
def test_callback_gets_what_it_asks_for(sampler):
    pipe, asked, seen = pipeline(sampler), [], []
    pipe.unet.register_forward_pre_hook(lambda _, given: asked.append(given[0].clone()))

    def callback(given, step, timestep, tensors):
        seen.append((float(timestep), tensors))

    last = pipe(
        5,
        12,
        generator=seeded(),
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "denoised", "score"],
    ).images
    assert pipe.num_timesteps == len(seen) == 12
    states = [*asked[1:], last]
    for x, after, (sigma, tensors) in zip(asked, states, seen, strict=True):
        assert set(tensors) == {"latents", "denoised", "score"}
        assert torch.equal(tensors["latents"], after)
        # Of one normal law; the two sides round a few times in float32.
        score = (MEAN - x) / (VARIANCE + sigma**2)
        torch.testing.assert_close(tensors["score"], score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tensors["denoised"], x + sigma**2 * score, rtol=1e-5, atol=1e-5)


def test_a_callback_interrupts():
    pipe, seen = pipeline(), []

    def callback(given, step, timestep, tensors):
        seen.append(tensors["latents"])
        given._interrupt = step == 3
        return tensors

    images = pipe(2, 12, generator=seeded(), callback_on_step_end=callback).images
    assert len(seen) == 4
    assert torch.equal(images, seen[-1])
    # The next call is not interrupted.
    seen.clear()
    pipe(2, 12, generator=seeded(), callback_on_step_end=lambda *_: seen.append(1))
    assert len(seen) == 12


# ---- samples along the way ------------------------------------------------------------------


@pytest.mark.parametrize(("every", "count"), [(1, 9), (2, 4), (4, 2), (9, 1)])
def test_samples_along_one_walk(every, count):
    pipe, denoised = pipeline("langevin", sigma=0.5), []
    begin = torch.randn(3, 4, generator=seeded(1))
    given = {"num_inference_steps": 9, "latents": begin}
    pipe(
        **given,
        generator=seeded(),
        callback_on_step_end=lambda *given: denoised.append(given[-1]["denoised"]),
        callback_on_step_end_tensor_inputs=["denoised"],
    )
    samples = pipe(**given, generator=seeded(), samples_every=every).images
    expected = torch.stack(denoised[every - 1 :: every], 1)
    assert expected.shape == (3, count, 4)
    assert torch.equal(samples, expected.flatten(0, 1))


def test_samples_of_a_walk_have_the_law_of_the_jump():
    # V / (1 - alpha / 2V) is stationary for the walk, and the jump shrinks by s^2 / V.
    sigma, alpha = 0.5, 0.05
    total = VARIANCE + sigma**2
    pipe = pipeline("langevin", sigma=sigma, step_size=alpha)
    spread = (total / (1 - alpha / (2 * total))) ** 0.5
    begin = MEAN + spread * torch.randn(20_000, 4, generator=seeded(1))
    samples = pipe(num_inference_steps=9, latents=begin, generator=seeded(), samples_every=3).images
    expected = (VARIANCE / total) ** 2 * spread**2
    for i in range(3):
        one = samples[i::3]
        # Four standard errors of the variance of 80,000 independent normals.
        assert abs(one.var() / expected - 1) < 4 * (2 / one.numel()) ** 0.5


@pytest.mark.parametrize(
    ("every", "message"), [(0, "a whole number from 1"), (13, "at most"), (1.5, "whole")]
)
def test_refused_numbers_of_samples(every, message):
    with pytest.raises(HDZooError, match=message):
        pipeline()(2, 12, samples_every=every)


# ---- where chains start ---------------------------------------------------------------------


@pytest.mark.parametrize("cls", [HDPipeline, HDInpaintPipeline])
def test_without_a_starter_a_single_level_sampler_is_refused(cls):
    pipe = pipeline("langevin", cls)
    given = (2,) if cls is HDPipeline else ([[0.0] * 4], [[1.0, 1.0, 0.0, 0.0]])
    with pytest.raises(HDZooError, match=r"LangevinSampler walks at one noise level .* latents"):
        pipe(*given)


def test_the_models_own_sampler_makes_what_it_starts_from(tmp_path):
    own = pipeline("annealed-langevin", num_levels=3, steps_per_level=4, readout="full")
    own.save_pretrained(tmp_path)
    pipe = HDPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = get_sampler("half-denoising")(sigma=0.2)
    asked = []
    pipe.unet.register_forward_pre_hook(lambda _, given: asked.append(float(given[1])))
    found = pipe(3, 7, generator=seeded()).images
    # Its own evaluations, then those that were asked for.
    assert len(asked) == 13 + 7
    assert asked[13:] == [0.2] * 7

    generator = seeded()
    clean = own(3, generator=generator).images
    noisy = clean + 0.2 * torch.randn(3, 4, generator=generator)
    by_hand = pipe(3, 7, latents=noisy, generator=generator).images
    assert torch.equal(found, by_hand)


def test_uniform_start_is_that_of_the_papers():
    target = GaussianMixtureScore.from_components(
        [0.0] * 16, 0.1, sample_shape=(1, 4, 4), data_range=(-1.0, 1.0)
    )
    pipe = HDPipeline(target, get_sampler("annealed-langevin")(start="uniform", sigma_max=50.0))
    pipe.set_progress_bar_config(disable=True)
    asked = []
    pipe.unet.register_forward_pre_hook(lambda _, given: asked.append(given[0].clone()))
    generators = sample_generators(0, range(3))
    pipe(3, 10, generator=generators, output_type="latent")
    drawn = torch.stack([torch.rand(1, 4, 4, generator=g) for g in sample_generators(0, range(3))])
    assert torch.equal(asked[0], -1 + 2 * drawn)
    with pytest.raises(HDZooError, match="'uniform' on the range of the data, and the samples"):
        pipeline("annealed-langevin", start="uniform")(2, 10)
    with pytest.raises(HDZooError, match="start is 'unifrom'; allowed are 'normal', 'uniform'"):
        get_sampler("annealed-langevin")(start="unifrom")


# ---- calls at once --------------------------------------------------------------------------


@pytest.fixture
def often():
    """Threads take turns all the time, not once in 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("sampler", ["annealed-langevin", "consistent-annealed-sampling"])
def test_two_threads_on_one_pipeline_give_what_each_gives_alone(sampler, often):
    pipe = pipeline(sampler, num_levels=5)

    def draw(steps):
        return pipe(4, steps, generator=sample_generators(steps, range(4))).images

    alone = {steps: draw(steps) for steps in (20, 60)}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            together = dict(zip(alone, pool.map(draw, alone), strict=True))
            for steps, expected in alone.items():
                assert torch.equal(together[steps], expected)


# ---- a network in train mode ----------------------------------------------------------------


def dropping():
    torch.manual_seed(0)
    network = UNetScoreModel(8, block_out_channels=(8, 8), norm_num_groups=4, dropout=0.5)
    pipe = HDPipeline(network, get_sampler("annealed-langevin")(1.0, 0.1, prediction_type="sample"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_network_draws_without_dropout_and_is_given_back_as_it_was():
    pipe = dropping()
    alone = pipe.unet.unet.mid_block
    pipe.unet.train()
    alone.eval()
    before = {name: module.training for name, module in pipe.unet.named_modules()}
    seen = []
    pipe.unet.register_forward_pre_hook(lambda *_: seen.append(pipe.unet.unet.conv_in.training))
    found = pipe(2, 10, generator=seeded(), output_type="latent").images
    assert seen == [False] * 10
    assert {name: module.training for name, module in pipe.unet.named_modules()} == before
    pipe.unet.eval()
    assert torch.equal(pipe(2, 10, generator=seeded(), output_type="latent").images, found)


def test_it_is_given_back_after_an_error_and_by_the_last_of_several_walks():
    network = dropping().unet.train()
    first, second = evaluating(network), evaluating(network)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in network.modules())
    second.__exit__(None, None, None)
    assert all(module.training for module in network.modules())
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError
    assert all(module.training for module in network.modules())


class NeedsVariance(get_sampler("annealed-langevin")):
    needs = ("variance",)


def test_a_learned_variance_is_beside_the_prediction():
    """Half of the output of such a network, which `step` takes apart."""
    config = DDPMScheduler(variance_type="learned_range").config
    options = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    options |= {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    network = UNet2DModel(8, 1, 2, **options)
    pipe = HDPipeline(network, NeedsVariance.from_config(config, num_levels=4))
    pipe.set_progress_bar_config(disable=True)
    assert pipe(1, 8, output_type="latent").images.shape == (1, 1, 8, 8)
    pipe = HDPipeline(UNet2DModel(8, 1, 1, **options), NeedsVariance.from_config({}))
    with pytest.raises(HDZooError, match="needs the network's variance beside its prediction"):
        pipe(1, 10)


class Counted(get_sampler("annealed-langevin")):
    """As someone would wrap a method of a base class."""

    calls = 0

    def step(self, *args, **kwargs):
        type(self).calls += 1
        return super().step(*args, **kwargs)


def test_a_step_that_takes_everything_is_given_everything():
    options = {"sigma_max": 1.0, "num_levels": 4}
    pipe, generators = pipeline(**options), sample_generators(0, range(2))
    own = pipe(2, 8, generator=generators).images
    pipe.scheduler = Counted(**options)
    # The same chain, so from the generators that are given, and the score for whoever asks.
    assert torch.equal(pipe(2, 8, generator=sample_generators(0, range(2))).images, own)
    assert Counted.calls == 8
    seen = []
    pipe(
        2,
        8,
        callback_on_step_end=lambda *given: seen.append(given[-1]["score"].shape),
        callback_on_step_end_tensor_inputs=("score",),
    )
    assert seen == [(2, 4)] * 8
