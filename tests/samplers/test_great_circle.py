"""Noise between two generators': its law, its ends, and what samplers make of it."""

import copy
import math
import pickle

import diffusers
import numpy as np
import pytest
import torch
from scipy import stats

from hdzoo import (
    AnnealedLangevinSampler,
    GaussianMixtureScore,
    GreatCircle,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    LangevinSampler,
    get_sampler,
    interpolated_generators,
    list_samplers,
    sample_generators,
)
from hdzoo.samplers.noise import Noise
from hdzoo.verification.chain import beside, first_state, on_signs, run, seeded, sigma_of
from hdzoo.verification.draws import Draws
from hdzoo.verification.laws import Gaussian, declared_law, network_output
from hdzoo.verification.small import fewest, small_sampler, watched

# Of every package that is installed.
EVERY = pytest.mark.parametrize("name", list_samplers())
GAUSSIAN = Gaussian.of([1.0], [0.5])
FRACTIONS = (0.0, 0.2, 0.5, 0.9, 1.0)


def circle(*fractions: float, seeds: tuple[int, int] = (3, 5)) -> list[GreatCircle]:
    return [GreatCircle(*seeded(*seeds), fraction) for fraction in fractions]


def double(generator: torch.Generator | GreatCircle, count: int = 1000) -> torch.Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float64)


class Given:
    """A function for another, which it is equal to."""

    def __init__(self, function, instead) -> None:
        self.function, self.instead = function, instead

    def __eq__(self, other) -> bool:
        return other == self.function

    def __hash__(self) -> int:
        return hash(self.function)

    def __call__(self, *args, **kwargs):
        return self.instead(*args, **kwargs)


# ---- the law --------------------------------------------------------------------------------


def test_normals_are_standard_and_neighbours_correlate_by_the_cosine_of_the_angle() -> None:
    a, b = (double(one) for one in seeded(3, 5))
    found = torch.stack([double(one) for one in circle(*FRACTIONS)])
    # What they are made of: z_a and z_b are independent and standard normal.
    mixed = torch.linalg.lstsq(torch.stack([a, b], 1), found.T)
    weights = mixed.solution.T
    torch.testing.assert_close(weights @ torch.stack([a, b]), found, rtol=0, atol=1e-14)
    angles = torch.tensor(FRACTIONS, dtype=torch.float64) * math.pi / 2
    expected = torch.cos(angles[:, None] - angles)
    torch.testing.assert_close(weights @ weights.T, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_are_uniform_and_turn_as_the_normals_whose_ranks_they_are(dtype) -> None:
    count = 20_000
    found = [torch.rand(count, generator=one, dtype=dtype) for one in circle(*FRACTIONS)]
    for fraction, drawn in zip(FRACTIONS, found, strict=True):
        assert ((drawn >= 0) & (drawn < 1)).all()
        assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3, fraction
    a, b = (torch.rand(count, generator=one, dtype=dtype) for one in seeded(3, 5))
    assert torch.equal(found[0], a)
    assert torch.equal(found[-1], b)
    # What is drawn are multiples of eps / 2, of which the middle is taken.
    eps = torch.finfo(dtype).eps
    ends = [stats.norm.ppf(u.double().numpy() + eps / 4) for u in (a, b)]
    angle = FRACTIONS[1] * math.pi / 2
    between = math.cos(angle) * ends[0] + math.sin(angle) * ends[1]
    # A rounding of u by eps / 4 moves its normal by that over the density there, 0.028 or more; the
    # quantiles of normal laws are good to 1e-12.
    inside = np.abs(between) < 2.3
    gap = np.abs(stats.norm.ppf(found[1].double().numpy()) - between)[inside].max()
    assert gap < eps / 4 / 0.028 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_uniforms_at_the_edges_of_what_is_drawn(dtype) -> None:
    last = 1 - torch.finfo(dtype).eps / 2
    drawn = iter(torch.tensor([[0.0, 0.0, last, last], [0.0, last, 0.0, last]], dtype=dtype))
    (source,), rand = circle(0.5), torch.rand

    def edges(*args, **kwargs):
        return next(drawn)

    found = GreatCircle.__torch_function__(Given(rand, edges), (), (4,), {"generator": source})
    assert ((found >= 0) & (found < 1)).all()
    assert found[0] < found[1] < found[3]
    # As far from 0 as from 1; in float64 but for a rounding, which is 0.06 of normals there.
    torch.testing.assert_close(found[1:3].float(), torch.full((2,), 0.5), rtol=0, atol=0.03)


def test_its_ends_are_the_generators_own_draw_after_draw() -> None:
    for fraction, seed in ((0.0, 3), (1.0, 5)):
        (between,), (alone,) = circle(fraction), seeded(seed)
        for shape in ((2,), (3, 4), ()):
            assert torch.equal(
                torch.randn(shape, generator=between), torch.randn(shape, generator=alone)
            )
            assert torch.equal(
                torch.rand(shape, generator=between), torch.rand(shape, generator=alone)
            )


# ---- a generator ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, GreatCircle.clone_state, lambda g: pickle.loads(pickle.dumps(g))],
)
def test_copies_draw_the_same_from_there_on(copied) -> None:
    (source,) = circle(0.3)
    double(source)
    other = copied(source)
    expected = double(source)
    assert torch.equal(double(other), expected)
    assert not torch.equal(double(source), expected)


def test_what_it_is_made_from_is_left_alone_and_may_be_shared() -> None:
    a, b = seeded(3, 5)
    together = [GreatCircle(a, b, fraction) for fraction in FRACTIONS]
    drawn = [double(one) for one in together]
    assert all(map(torch.equal, drawn, [double(one) for one in circle(*FRACTIONS)]))
    assert torch.equal(double(a), drawn[0])
    assert torch.equal(double(b), drawn[-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GreatCircle(3, seeded(5)[0], 0.5), "first is 3"),
        (lambda: GreatCircle(seeded(5)[0], None, 0.5), "second is None"),
        (lambda: GreatCircle(*seeded(3, 5), 1.5), "fraction is 1.5"),
        (lambda: GreatCircle(*seeded(3, 5), math.nan), "fraction is nan"),
        (lambda: GreatCircle(*seeded(3, 3), 0.5), "the same noise"),
        # A CPU's generator starts from 32 bits.
        (lambda: GreatCircle(*seeded(3, 3 + 2**32), 0.5), "the same noise"),
        (lambda: interpolated_generators(3, 3, 8), "both seeds are 3"),
        (lambda: interpolated_generators(3, 5, 1), "count is 1"),
        (lambda: interpolated_generators(3, -5, 8), "b is -5"),
        (lambda: interpolated_generators("3", 5, 8), "a is '3'"),
        (lambda: interpolated_generators(3, 5, 8, "nowhere"), "device is 'nowhere'"),
        (lambda: sample_generators(-1, [0]), "seed is -1"),
        (lambda: sample_generators(0, [-1]), "index is -1"),
    ],
)
def test_refusals(make, message) -> None:
    with pytest.raises(HDZooError, match=message):
        make()


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: torch.bernoulli(torch.full((3,), 0.5), generator=g),
        lambda g: torch.empty(3).normal_(generator=g),
        lambda g: torch.randint(3, (3,), generator=g),
        lambda g: torch.randn(3, generator=g, out=torch.empty(3)),
    ],
)
def test_other_draws_are_refused_with_those_that_work(draw) -> None:
    with pytest.raises(HDZooError, match=r"torch\.randn and torch\.rand"):
        draw(circle(0.5)[0])


# ---- samplers -------------------------------------------------------------------------------


@EVERY
def test_ends_are_the_seeds_own_and_samples_do_not_depend_on_the_batch(name) -> None:
    sampler_class = get_sampler(name)
    steps = fewest(watched(sampler_class)) + 5
    x = first_state(sampler_class, 1, 2, 4, 8)

    def draw(generators):
        state = x.expand(len(generators), -1, -1, -1)
        return run(watched(sampler_class, steps), state, generators)[-1].after

    together = draw(circle(0, 0.4, 1))
    (first,), (last,) = draw(seeded(3)), draw(seeded(5))
    assert torch.equal(together[0], first)
    assert torch.equal(together[2], last)
    assert torch.equal(together[1], draw(circle(0.4))[0])
    noisy = not torch.equal(first, last)
    # Signs are few, and may come out as one end's.
    assert on_signs(sampler_class) or noisy == (not torch.equal(together[1], first))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in list_samplers()
        # Those with a law in closed form are affine in their noise; not those that accept or refuse
        # a step, or clip one, nor signs.
        if declared_law(small_sampler(get_sampler(name)), GAUSSIAN, GAUSSIAN) is not None
    ],
)
def test_samples_of_gaussian_data_are_on_the_great_circle_about_the_one_without_noise(name) -> None:
    mean, variance = 1.0, 0.5

    def score(x, sigma):
        return (mean - x) / (variance + sigma**2)

    def draw(generators):
        sampler = small_sampler(get_sampler(name))
        sampler.set_timesteps(fewest(watched(get_sampler(name))) + 6)
        noise, shape = Noise(generators, dtype=torch.float64), (len(generators), 3)
        if hasattr(sampler, "first_state"):
            x = sampler.first_state(shape, noise, mean)
        else:
            x = mean + sampler.init_noise_sigma * noise.normal(shape)
        for t in sampler.timesteps:
            output = network_output(sampler, score, x, sigma_of(sampler, t))
            x = sampler.step(output, t, x, generators, **beside(sampler, x, t)).prev_sample
        return x

    with Draws(lambda number, shape: torch.zeros(shape)):
        centre = draw(seeded(0))
    apart = draw(circle(*FRACTIONS)) - centre
    assert apart.dtype == torch.float64
    for fraction, found in zip(FRACTIONS, apart, strict=True):
        angle = fraction * math.pi / 2
        expected = math.cos(angle) * apart[0] + math.sin(angle) * apart[-1]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert (apart[0] - apart[-1]).abs().min() > 1e-3


# ---- pipelines ------------------------------------------------------------------------------


def pipeline(sampler, cls=HDPipeline):
    target = GaussianMixtureScore.from_components([[-1.0, 0.0], [1.0, 0.5]], 0.04)
    pipe = cls(target, sampler)
    pipe.starter = AnnealedLangevinSampler(
        sigma_max=3.0, sigma_min=0.3, num_levels=5, steps_per_level=4
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "sampler",
    [
        AnnealedLangevinSampler(sigma_max=3.0, sigma_min=0.1, num_levels=6, readout="full"),
        LangevinSampler(sigma=0.3),
        get_sampler("mala")(sigma=0.3),
        # diffusers' own, which draws by itself.
        diffusers.EulerAncestralDiscreteScheduler(),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_images_of_a_pipeline_turn_from_one_seeds_into_the_others(sampler) -> None:
    pipe = pipeline(sampler)

    def draw(generators):
        return pipe(len(generators), 24, generator=generators).images

    row = draw(interpolated_generators(3, 5, 5))
    assert torch.equal(row[0], draw(sample_generators(3, [0]))[0])
    assert torch.equal(row[-1], draw(sample_generators(5, [0]))[0])
    assert len(torch.unique(row, dim=0)) == 5
    assert torch.equal(row[1:2], draw(interpolated_generators(3, 5, 5)[1:2]))


def test_the_noise_of_the_known_part_turns_too() -> None:
    pipe = pipeline(AnnealedLangevinSampler(sigma_max=3.0, sigma_min=0.1), HDInpaintPipeline)

    def draw(generators):
        known, mask = torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]])
        return pipe(known, mask, len(generators), 20, generator=generators).images

    row = draw(interpolated_generators(3, 5, 3))
    assert torch.equal(row[0], draw(sample_generators(3, [0]))[0])
    assert torch.equal(row[-1], draw(sample_generators(5, [0]))[0])
    assert len(torch.unique(row, dim=0)) == 3


def test_diffusers_own_pipelines_take_them() -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)

    def draw(generators):
        images = pipe(len(generators), generators, 3, output_type="np").images
        return torch.from_numpy(images)

    row = draw(interpolated_generators(3, 5, 3))
    # A network's convolutions may differ in the last bit by the size of the batch.
    for place, seed in ((0, 3), (2, 5)):
        torch.testing.assert_close(row[place], draw(sample_generators(seed, [0]))[0])
    assert not torch.allclose(row[0], row[1])


def test_a_tuple_of_generators_is_refused() -> None:
    with pytest.raises(HDZooError, match="a list with one for each sample"):
        pipeline(AnnealedLangevinSampler())(2, 20, generator=tuple(sample_generators(0, [0, 1])))
