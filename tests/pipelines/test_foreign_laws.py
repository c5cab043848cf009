"""An exact mixture behind each pipeline: its law is that of the same chain on the bare score.

The U-Nets of the pipelines are replaced by perfect ones, which know the mixture and look their
timestep up in a table of the levels that they were trained at. 8,000 samples of each sampler and
pipeline are compared with as many of the chain in VE coordinates on the exact score, of other
noise: mean, covariance, and the weights of the modes. A mean that is off by 7 % of the standard
deviation is found, and a variance by a tenth: 4.5 sqrt(2 / 8,000), and sqrt(2) times that.
"""

import math
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput

from hdzoo import GaussianMixtureScore, HDPipeline, get_sampler
from hdzoo.builtin import hdzoo_samplers
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.coordinates import Edge
from hdzoo.samplers.families import RefinedLadderSampler, SingleLevelSampler
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.scores.conversions import from_score

CORE = sorted(hdzoo_samplers())
EVERY = pytest.mark.parametrize("name", CORE)
SINGLES = [name for name in CORE if issubclass(get_sampler(name), SingleLevelSampler)]
# Of each family, where the other has nothing of its own.
ONE_OF_EACH = ("alpha-half-denoising", "langevin")
COUNT = 8_000
STEPS = 30
# Some 7 numbers of 7 samplers in 6 pipelines: one of 300 is beyond this by chance with probability
# 300 * 7e-6 = 0.002.
LIMIT = 4.5
MEANS, VARIANCES, WEIGHTS = [[-0.4, 0.1], [0.3, -0.2]], [0.0064, 0.0144], [0.3, 0.7]


class PerfectUNet(ModelMixin, ConfigMixin):
    """What `UNet2DModel` or `UNet2DConditionModel` would predict, had it learned a mixture.

    Timesteps are integers, and an index of a table of `alphas_cumprod`. The first number of the
    prompt chooses among the mixtures.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        sample_size: Any = (1, 2),
        in_channels: int = 1,
        prediction_type: str = "epsilon",
        schedule: dict[str, Any] | None = None,
        time_cond_proj_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.table = diffusers.DDPMScheduler(**(schedule or {})).alphas_cumprod.double()
        self.targets: list[GaussianMixtureScore] = []

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        return_dict: bool = True,
        **_: Any,
    ) -> Any:
        alpha_bar = self.table[timestep]
        state = sample.double().flatten(1)
        x, sigma = state / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt().item()
        denoised = torch.empty_like(x)
        which = torch.zeros(len(x), dtype=torch.long)
        if encoder_hidden_states is not None:
            which = encoder_hidden_states[:, 0, 0].long()
        for i, target in enumerate(self.targets):
            if (which == i).any():
                denoised[which == i] = target.denoise(x[which == i], sigma)
        noise = (state - alpha_bar.sqrt() * denoised) / (1 - alpha_bar).sqrt()
        output = {
            "epsilon": noise,
            "sample": denoised,
            "v_prediction": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * denoised,
        }[self.config.prediction_type]
        output = output.view(sample.shape).to(sample.dtype)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def mixture(dimension: int = 2) -> GaussianMixtureScore:
    means = [mean * (dimension // 2) for mean in MEANS]
    return GaussianMixtureScore.from_components(means, VARIANCES, WEIGHTS)


def perfect(*targets: GaussianMixtureScore, **config: Any) -> PerfectUNet:
    network = PerfectUNet(**config)
    network.targets = list(targets) or [mixture()]
    return network


def options(name: str) -> dict[str, Any]:
    """A short ladder, on which every walk keeps within its bounds; at one level, a wide one."""
    if name in SINGLES:
        return {"sigma": 0.15}
    if name.startswith("consistent") or issubclass(get_sampler(name), RefinedLadderSampler):
        return {"sigma_max": 8.0, "sigma_min": 0.03}
    return {"sigma_max": 8.0, "sigma_min": 0.03, "num_levels": 6}


def scheduler(name: str, config: Any, **more: Any) -> Any:
    return get_sampler(name).from_config(config, **options(name) | more)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bare(vp: Any, target: GaussianMixtureScore, begin: int = 0, start: Any = None) -> torch.Tensor:
    """The same chain on the bare exact score, in VE coordinates, in float64.

    Args:
        vp: the sampler of a pipeline that has run.
        target: the data.
        begin: where the chain begins.
        start: what it starts from, VE; from the VP pipelines' N(0, I) by default.
    """
    sigmas = vp.sigmas[:-1].tolist()
    if start is None:
        return from_noise(type(vp), tuple(sigmas), target.dimension)
    return chain(type(vp), sigmas, target, begin, start)


@cache
def from_noise(sampler: type[Any], sigmas: tuple[float, ...], dimension: int) -> torch.Tensor:
    noise = torch.randn(COUNT, dimension, generator=seeded(778), dtype=torch.float64)
    return chain(sampler, sigmas, mixture(dimension), 0, math.hypot(1, sigmas[0]) * noise)


def chain(
    sampler_class: type[Any], sigmas: Any, target: Any, begin: int, x: torch.Tensor
) -> torch.Tensor:
    # Its other options are the defaults, with which the pipelines' samplers are built as well.
    sampler, generator = sampler_class(), seeded(777)
    sampler.set_timesteps(sigmas=sigmas)
    sampler.set_begin_index(begin)
    for t in sampler.timesteps[begin:]:
        x = sampler.step(target.score(x, t), t, x, generator, return_dict=False)[0]
    return x


def statistics(x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Numbers of each sample whose means are the law's mean, second moments, and mode weight."""
    for i in range(x.shape[1]):
        yield f"mean {i}", x[:, i]
    for i, j in combinations_with_replacement(range(x.shape[1]), 2):
        yield f"covariance {i} {j}", (x[:, i] - x[:, i].mean()) * (x[:, j] - x[:, j].mean())
    yield "mode weight", (x[:, 0] < -0.05).double()


def assert_same_law(found: torch.Tensor, expected: torch.Tensor) -> None:
    found, expected = found.double().flatten(1), expected.double()
    for (what, one), (_, other) in zip(statistics(found), statistics(expected), strict=True):
        error = math.sqrt(one.var() / len(one) + other.var() / len(other))
        z = (one.mean() - other.mean()).item() / error
        assert abs(z) < LIMIT, f"{what}: {one.mean():.4f} and {other.mean():.4f}, z = {z:.1f}"


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def from_pure_noise() -> Iterator[None]:
    """Samplers at a single level say that they start from pure noise; here that is wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*starts here from pure noise")
        yield


# ---- pixels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "epsilon") for name in CORE] + [(name, "v_prediction") for name in ONE_OF_EACH],
)
def test_ddpm_pipeline(name: str, kind: str) -> None:
    pipe = quiet(
        diffusers.DDPMPipeline(
            perfect(prediction_type=kind), diffusers.DDPMScheduler(prediction_type=kind)
        )
    )
    pipe.scheduler = scheduler(name, pipe.scheduler.config)
    images = pipe(COUNT, seeded(1), STEPS, output_type="pt").images
    # The pipeline clamps to [0, 1], which the samples are well inside but for those that a
    # single level has not yet brought there.
    expected = bare(pipe.scheduler, mixture()).clamp(-1, 1)
    assert_same_law(2 * images - 1, expected)


@EVERY
def test_hd_pipeline(name: str) -> None:
    """The same network and sampler in the pipeline of this package, from noise and from images."""
    config = diffusers.EulerDiscreteScheduler().config
    pipe = quiet(HDPipeline(perfect(), scheduler(name, config)))
    # At a single level there is nothing to start from but images.
    if name not in SINGLES:
        found = pipe(COUNT, STEPS, seeded(2), output_type="latent").images
        assert_same_law(found, bare(pipe.scheduler, mixture()))

    clean = mixture().sample(COUNT, seeded(3)).double()
    pictures = ((clean + 1) / 2).view(COUNT, 1, 1, 2)
    sigma = pipe.scheduler.sigmas[0].item()
    start = clean + sigma * torch.randn(clean.shape, generator=seeded(4), dtype=torch.float64)
    found = pipe(None, STEPS, seeded(2), image=pictures, output_type="latent").images
    assert_same_law(found, bare(pipe.scheduler, mixture(), start=start))


def test_a_wrong_factor_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests are worth: noise that is too large by a fifth."""
    name = "annealed-langevin"
    pipe = quiet(HDPipeline(perfect(), scheduler(name, diffusers.DDPMScheduler().config)))
    right = Edge.moved_by
    with monkeypatch.context() as louder:
        louder.setattr(Edge, "moved_by", lambda edge, alpha, z: right(edge, alpha, 1.2 * z))
        found = pipe(COUNT, STEPS, seeded(2), output_type="latent").images
    with pytest.raises(AssertionError, match="covariance"):
        assert_same_law(found, bare(pipe.scheduler, mixture()))


# ---- latents, with a prompt -----------------------------------------------------------------

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class NoVAE(ModelMixin, ConfigMixin):
    """Pixels are the latents; `StableDiffusionInpaintPipeline` asks for its numbers."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))


def stable_diffusion(kind: str, name: str, *targets: GaussianMixtureScore, **sampler: Any) -> Any:
    network = perfect(*targets, sample_size=1, in_channels=4, schedule=SD)
    pipe = quiet(
        getattr(diffusers, kind)(
            vae=NoVAE() if "Inpaint" in kind else None,
            text_encoder=None,
            tokenizer=None,
            unet=network,
            scheduler=diffusers.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )
    pipe.scheduler = scheduler(name, pipe.scheduler.config, **sampler)
    return pipe


def prompt(which: int) -> torch.Tensor:
    return torch.full((1, 1, 4), float(which))


def draw(pipe: Any, seed: int, guidance_scale: float = 1.0, **more: Any) -> torch.Tensor:
    samples: torch.Tensor = pipe(
        prompt_embeds=prompt(0),
        negative_prompt_embeds=prompt(1),
        guidance_scale=guidance_scale,
        num_inference_steps=STEPS,
        num_images_per_prompt=COUNT,
        generator=seeded(seed),
        output_type="latent",
        **more,
    ).images
    return samples


@EVERY
def test_stable_diffusion(name: str) -> None:
    target = mixture(4)
    pipe = stable_diffusion("StableDiffusionPipeline", name, target)
    found = draw(pipe, 5, height=8, width=8)
    assert found.shape == (COUNT, 4, 1, 1)
    assert_same_law(found, bare(pipe.scheduler, target))


@pytest.mark.parametrize(
    "name", [name for name in CORE if get_sampler(name).closed_form is not Sampler.closed_form]
)
def test_stable_diffusion_with_guidance(name: str) -> None:
    """Guidance of two Gaussians of one variance is a Gaussian, whose mean is beyond the first's."""
    variance, given, without, guidance = 0.04, 0.25, -0.1, 3.0
    targets = [
        GaussianMixtureScore.from_components([[mean] * 4], [variance]) for mean in (given, without)
    ]
    pipe = stable_diffusion("StableDiffusionPipeline", name, *targets)
    found = draw(pipe, 6, guidance, height=8, width=8).double().flatten()
    mean = without + guidance * (given - without)
    first = pipe.scheduler.sigmas[0].item()
    law = pipe.scheduler.closed_form(GaussianLaw(mean, variance, 0.0, 1 + first**2))
    # Four coordinates of each sample, all independent.
    assert abs(found.mean() - law.mean) < LIMIT * math.sqrt(law.variance / len(found))
    assert abs(found.var() - law.variance) < LIMIT * law.variance * math.sqrt(2 / len(found))


@pytest.mark.parametrize(
    ("name", "strength"),
    [(name, 0.5) for name in CORE] + [(name, 1.0) for name in ONE_OF_EACH],
)
def test_image_to_image(name: str, strength: float) -> None:
    """The chain is taken up in the middle, from an image with noise of that level."""
    target = mixture(4)
    pipe = stable_diffusion("StableDiffusionImg2ImgPipeline", name, target)
    image = torch.tensor([-0.4, 0.1, -0.4, 0.1])
    found = draw(pipe, 7, image=image.view(1, 4, 1, 1), strength=strength)
    begin = STEPS - int(STEPS * strength)
    sigma = pipe.scheduler.sigmas[begin].item()
    noise = torch.randn(COUNT, 4, generator=seeded(8), dtype=torch.float64)
    start = image.double() + sigma * noise
    assert_same_law(found, bare(pipe.scheduler, target, begin, start))


@EVERY
def test_inpainting(name: str) -> None:
    """Before each step the known half of the latents is put back, with its noise of that level."""
    target, known = mixture(8), torch.tensor([0.3, -0.2]).repeat(4)
    pipe = stable_diffusion("StableDiffusionInpaintPipeline", name, target)
    image = known.view(4, 2, 1).permute(0, 2, 1)[None]
    found = draw(
        pipe,
        9,
        image=image,
        mask_image=torch.tensor([0.0, 1.0]).view(1, 1, 1, 2),
        masked_image_latents=image,
        height=8,
        width=16,
        strength=0.75,
    )
    assert torch.equal(found[..., 0], image[..., 0].expand(COUNT, 4, 1))

    sampler, begin = pipe.scheduler, STEPS - int(STEPS * 0.75)
    levels, painted = sampler.sigmas.tolist(), torch.tensor([False, True]).repeat(4)
    noise = torch.randn(COUNT, 8, generator=seeded(10), dtype=torch.float64)
    x = known + levels[begin] * noise
    generator = seeded(11)
    sampler.set_timesteps(STEPS)
    sampler.set_begin_index(begin)
    for i in range(begin, STEPS):
        scale, after = math.hypot(1, levels[i]), math.hypot(1, levels[i + 1])
        output = from_score(target.score(x, levels[i]), x / scale, levels[i], "epsilon", "vp")
        x = after * sampler.step(output, None, x / scale, generator, return_dict=False)[0]
        x = torch.where(painted, x, known + levels[i + 1] * noise)
    assert_same_law(found[..., 1].flatten(1), x.view(COUNT, 4, 2)[..., 1])
