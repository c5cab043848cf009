"""Schedulers of diffusers' in HDPipeline: those that draw, to the right law, and those refused."""

import math
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

from hdzoo import (
    AnnealedLangevinSampler,
    DPMSolverPP2MSampler,
    GaussianMixtureScore,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    LangevinSampler,
    NCSNUNetModel,
    UNetScoreModel,
)
from hdzoo.samplers.configurations import DRAWING_VP, SCALED_SIGMA_SPACE, SIGMA_SPACE

HIGH, LOW = 8.0, 0.02
MEAN, STD = 0.3, 0.2
# What is at its default is to be taken over as well.
SAMPLERS = {
    "score": AnnealedLangevinSampler(HIGH, LOW),
    "sample": AnnealedLangevinSampler(HIGH, LOW, prediction_type="sample"),
}
TRANSLATED = (*SIGMA_SPACE, *SCALED_SIGMA_SPACE)
ODES = [name for name in TRANSLATED if "Ancestral" not in name]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> GaussianMixtureScore:
    return GaussianMixtureScore.from_components([[MEAN]], [STD**2])


def pipeline(network: Any, scheduler: Any) -> HDPipeline:
    pipe = HDPipeline(network, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scheduler_of(name: str, **options: Any) -> Any:
    return getattr(diffusers, name).from_config(SAMPLERS["score"].config, **options)


def karras(count: int) -> list[float]:
    """Karras et al. (arXiv 2206.00364), equation 5, with rho = 7."""
    ends = HIGH ** (1 / 7), LOW ** (1 / 7)
    return [(ends[0] + i / (count - 1) * (ends[1] - ends[0])) ** 7 for i in range(count)]


# ---- the law ---------------------------------------------------------------------------------


def slope(sigma: float) -> float:
    """``(x - D) / sigma`` on the Gaussian, for ``x`` one above its mean."""
    return sigma / (STD**2 + sigma**2)


def euler_factor(sigmas: list[float]) -> float:
    factor = 1.0
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        factor *= 1 + (after - sigma) * slope(sigma)
    return factor


def heun_factor(sigmas: list[float]) -> float:
    factor = 1.0
    for sigma, after in pairwise(sigmas):
        there = 1 + (after - sigma) * slope(sigma)
        factor *= 1 + (after - sigma) * (slope(sigma) + there * slope(after)) / 2
    return factor * (1 - sigmas[-1] * slope(sigmas[-1]))


EXACT = {
    "EulerDiscreteScheduler": (euler_factor, 12),
    "EDMEulerScheduler": (euler_factor, 12),
    "HeunDiscreteScheduler": (heun_factor, 23),
}


@pytest.mark.parametrize("name", EXACT)
def test_on_a_gaussian_each_state_goes_where_the_method_says(name: str) -> None:
    factor, evaluations = EXACT[name]
    pipe = pipeline(gaussian(), scheduler_of(name))
    distances = torch.tensor([[-10.0], [0.0], [3.0]])
    found = pipe(None, 12, latents=MEAN + distances).images
    # 23 evaluations in float32, at states of up to 10.
    torch.testing.assert_close(found, MEAN + factor(karras(12)) * distances, rtol=0, atol=1e-5)
    assert pipe.num_timesteps == evaluations


# Linear multistep goes on from the last derivatives to the very end.
@pytest.mark.parametrize("name", [name for name in ODES if not name.startswith("LMS")])
def test_solvers_arrive_where_the_flow_ends(name: str) -> None:
    """``x - mean`` goes with the standard deviation of the noisy data; the last step denoises."""
    flow = math.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    exact = flow * STD**2 / (STD**2 + LOW**2)
    errors = []
    for steps in (20, 40):
        pipe = pipeline(gaussian(), scheduler_of(name))
        found = pipe(None, steps, latents=torch.tensor([[MEAN + HIGH]])).images.item()
        errors.append(abs((found - MEAN) / HIGH / exact - 1))
    # Half the step is half the error of a method of first order, a quarter of one of second.
    order = 1 if "Euler" in name else 2
    assert errors[1] < 0.1**order
    assert errors[1] < 1.3 * errors[0] / 2**order + 1e-5


def test_the_ancestral_law() -> None:
    pipe = pipeline(gaussian(), scheduler_of("EulerAncestralDiscreteScheduler"))
    sigmas, count = karras(12), 40_000
    variance = HIGH**2
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        up = after * math.sqrt(sigma**2 - after**2) / sigma
        down = math.sqrt(after**2 - up**2)
        variance = variance * (1 + (down - sigma) * slope(sigma)) ** 2 + up**2
    start = MEAN + HIGH * torch.randn(count, 1, generator=seeded(1))
    found = pipe(None, 12, seeded(2), latents=start).images
    # Of a sample's variance: 4.5 standard deviations, sqrt(2 / n) each.
    assert abs(found.var().item() / variance - 1) < 4.5 * math.sqrt(2 / count)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_dpm_solver_of_diffusers_is_ours(solver_type: str, eta: float) -> None:
    """Theirs steps in VP coordinates, ours in VE: the same states from the same noise."""
    levels = [8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, LOW]
    options = {"solver_type": solver_type, "noise_scale": 1.0}
    ours = DPMSolverPP2MSampler(sigmas=levels, eta=eta, **options)
    kind = "sde-dpmsolver++" if eta else "dpmsolver++"
    theirs = diffusers.DPMSolverMultistepScheduler(solver_type=solver_type, algorithm_type=kind)
    start = torch.tensor([[MEAN + HIGH], [-3.0]])
    found = [
        pipeline(gaussian(), ours)(None, 9, seeded(), latents=start).images,
        pipeline(gaussian(), theirs)(None, None, seeded(), sigmas=levels, latents=start).images,
    ]
    # Nine evaluations in float32, at states of up to 8.
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ODES if "Euler" not in name])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_on_a_mixture(name: str, kind: str) -> None:
    target = GaussianMixtureScore.from_components(
        [[-0.4, 0.1], [0.3, -0.2]], [0.0064, 0.0144], [0.3, 0.7]
    )
    if kind == "sample":
        target.prediction_type = "sample"
        target.forward = lambda x, sigma, **_: (target.denoise(x, sigma),)  # type: ignore[method-assign]
    scheduler = getattr(diffusers, name).from_config(SAMPLERS[kind].config)
    pipe, count = pipeline(target, scheduler), 10_000
    start = target.sample(count, seeded(), sigma=HIGH).float()
    found = pipe(None, 40, latents=start).images.double()
    # 4.5 standard errors, and a hundredth for the steps.
    scale = target.covariance.diagonal()
    assert ((found.mean(0) - target.mean).abs() < 4.5 * (scale / count).sqrt() + 0.01).all()
    error = found.T.cov() - target.covariance
    assert (error.abs() < (4.5 * math.sqrt(2 / count) + 0.01) * scale.max()).all()
    weight = (found[:, 0] > -0.05).double().mean().item()
    assert abs(weight - 0.7) < 4.5 * math.sqrt(0.21 / count) + 0.01


# ---- noise levels ----------------------------------------------------------------------------


def asked(pipe: HDPipeline, *args: Any, **kwargs: Any) -> list[float]:
    """The noise levels that the network is told."""
    seen: list[float] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, given: seen.append(float(given[1])))
    pipe(*args, **kwargs)
    hook.remove()
    return seen


@pytest.mark.parametrize("name", TRANSLATED)
def test_noise_levels_can_be_given(name: str) -> None:
    levels = [3.0, 1.0, 0.1]
    seen = asked(pipeline(gaussian(), scheduler_of(name)), sigmas=levels)
    heun = [3.0, 1.0, 1.0, 0.1, 0.1]
    assert seen == pytest.approx(heun if name.startswith("Heun") else levels)
    for wrong, message in [([1.0, 2.0], "descend"), ([], "no noise level")]:
        with pytest.raises(HDZooError, match=message):
            pipeline(gaussian(), scheduler_of(name))(sigmas=wrong)
    with pytest.raises(HDZooError, match="num_inference_steps is 2 and sigmas has 3 noise levels"):
        pipeline(gaussian(), scheduler_of(name))(1, 2, sigmas=levels)
    with pytest.raises(HDZooError, match=r"num_inference_steps is (None|0)"):
        pipeline(gaussian(), scheduler_of(name))(1, 0)


def test_ends_are_the_schedulers_or_else_the_networks() -> None:
    network = UNetScoreModel(8, block_out_channels=(8, 8), norm_num_groups=4, sigma_max=6.0)
    euler = diffusers.EulerDiscreteScheduler
    assert asked(pipeline(network, euler()), 1, 3)[::2] == pytest.approx([6.0, 0.01])
    assert asked(pipeline(network, euler(sigma_max=4.0)), 1, 3)[::2] == pytest.approx([4.0, 0.01])
    geometric = pipeline(network, euler(use_exponential_sigmas=True))
    assert asked(geometric, 1, 3)[1] == pytest.approx(math.sqrt(0.06), rel=1e-6)
    with pytest.raises(HDZooError, match=r"noise levels from 0\.01 to 6, .* asks for 8"):
        pipeline(network, scheduler_of("EDMEulerScheduler"))(1, 3)
    with pytest.raises(HDZooError, match="use_beta_sigmas is for"):
        pipeline(network, euler(use_beta_sigmas=True))(1, 3)
    with pytest.raises(HDZooError, match="use_lu_lambdas is for"):
        pipeline(network, diffusers.DPMSolverMultistepScheduler(use_lu_lambdas=True))(1, 3)


def test_a_network_of_rungs_is_asked_at_rungs() -> None:
    options = {"block_out_channels": (8, 8), "norm_num_groups": 4, "sample_size": 8}
    options |= {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = NCSNUNetModel(options, sigma_max=HIGH, sigma_min=LOW, num_levels=9)
    pipe, rungs = pipeline(network, scheduler_of("EulerDiscreteScheduler")), network.sigmas.tolist()
    assert asked(pipe, 1, 5) == pytest.approx(rungs[::2])
    assert asked(pipe) == pytest.approx(rungs)
    with pytest.raises(HDZooError, match="num_inference_steps is 10, and the network knows 9"):
        pipe(1, 10)


def test_callbacks_masks_and_samples_along_the_way() -> None:
    pipe = pipeline(gaussian(), scheduler_of("EulerDiscreteScheduler"))
    x0 = pipe(None, 4, latents=torch.full((2, 1), 2.0), samples_every=4).images
    assert x0.shape == (2, 1)
    inpaint = HDInpaintPipeline(gaussian(), scheduler_of("EDMEulerScheduler"))
    inpaint.set_progress_bar_config(disable=True)
    points = torch.tensor([[5.0]])
    assert torch.equal(inpaint(points, torch.zeros(1, 1), num_inference_steps=3).images, points)


# ---- those that are refused ------------------------------------------------------------------


class OwnDDIM(diffusers.DDIMScheduler):
    """A subclass is what it inherits from."""


class OwnEuler(diffusers.EulerDiscreteScheduler):
    """Likewise."""


REFUSED = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"),
    *("SASolverScheduler", "DEISMultistepScheduler", "KDPM2DiscreteScheduler", "IPNDMScheduler"),
    "ScoreSdeVeScheduler",
    *("FlowMatchEulerDiscreteScheduler", "UnCLIPScheduler", "CMStochasticIterativeScheduler"),
)


@pytest.mark.parametrize("options", [{}, {"prediction_type": "score"}], ids=["", "as advised"])
@pytest.mark.parametrize("cls", [OwnDDIM, *REFUSED])
def test_other_coordinates_are_refused_before_anything_is_drawn(cls: Any, options: Any) -> None:
    cls = getattr(diffusers, cls) if isinstance(cls, str) else cls
    network = gaussian()
    pipe = pipeline(network, cls.from_config(SAMPLERS["score"].config, **options))
    seen: list[int] = []
    network.register_forward_pre_hook(lambda *_: seen.append(1))
    with pytest.raises(HDZooError, match=r"does not go with .*EulerDiscreteScheduler\.from_config"):
        pipe(1, 3)
    assert not seen
    # The advice.
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    found = pipe(None, 12, latents=torch.tensor([[MEAN + 1.0]])).images.item()
    assert found == pytest.approx(MEAN + euler_factor(karras(12)), abs=1e-5)


def test_a_subclass_draws_as_its_base() -> None:
    found = [
        pipeline(gaussian(), cls.from_config(SAMPLERS["score"].config))(2, 5, seeded()).images
        for cls in (OwnEuler, diffusers.EulerDiscreteScheduler)
    ]
    assert torch.equal(*found)


def test_compatibles_draw() -> None:
    for cls in SAMPLERS["score"].compatibles:
        scheduler = cls.from_config(SAMPLERS["score"].config)
        if cls.__module__.startswith("diffusers"):
            assert pipeline(gaussian(), scheduler)(1, 3, seeded()).images.isfinite().all()
    listed = {cls.__name__ for cls in SAMPLERS["score"].compatibles}
    assert set(TRANSLATED) <= listed
    assert not {"DDIMScheduler", "LCMScheduler", "ScoreSdeVeScheduler"} & listed
    vp = AnnealedLangevinSampler.from_config(diffusers.DDPMScheduler().config)
    listed = {cls.__name__ for cls in vp.compatibles}
    assert "DDIMScheduler" in listed
    assert not {"DDIMInverseScheduler", "RePaintScheduler"} & listed


# ---- networks of diffusers' own --------------------------------------------------------------


def unet() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize("name", sorted({*DRAWING_VP} - {"DPMSolverSDEScheduler"}))
def test_its_own_schedulers_get_what_their_step_takes(name: str) -> None:
    vp = AnnealedLangevinSampler.from_config(diffusers.DDPMScheduler().config)
    pipe = pipeline(unet(), getattr(diffusers, name).from_config(vp.config))
    pipe.starter = vp
    assert pipe(1, 6, seeded(), output_type="latent").images.isfinite().all()
    with pytest.raises(HDZooError, match="num_inference_steps is None, and"):
        pipe(1)
    with pytest.raises(HDZooError, match="sigmas are given, and"):
        pipe(1, 2, sigmas=[2.0, 1.0])


def test_ddim_is_that_of_diffusers() -> None:
    pipe = pipeline(unet(), diffusers.DDIMScheduler(clip_sample=False))
    theirs = diffusers.DDIMPipeline(pipe.unet, diffusers.DDIMScheduler(clip_sample=False))
    theirs.set_progress_bar_config(disable=True)
    ours = pipe(1, 6, seeded(), output_type="np").images
    other = theirs(1, seeded(), num_inference_steps=6, output_type="np").images
    assert abs(ours - other).max() < 1e-5


def test_what_the_model_was_loaded_with_is_what_its_network_is() -> None:
    vp = AnnealedLangevinSampler.from_config(diffusers.DDPMScheduler().config)
    pipe = pipeline(unet(), vp)
    pipe.starter = vp
    for scheduler, message in [
        (AnnealedLangevinSampler(), "predicts 'epsilon' .* for 'score'"),
        (AnnealedLangevinSampler(prediction_type="epsilon"), "coordinates 'vp' and the sampler"),
        (diffusers.DDIMScheduler(beta_end=0.03), "noise levels of DDIMScheduler go from"),
        (diffusers.DDIMScheduler(prediction_type="v_prediction"), "predicts 'epsilon'"),
        (diffusers.EDMEulerScheduler(), "does not go with UNet2DModel, which is in VP"),
        (diffusers.LCMScheduler(), "does not go with UNet2DModel"),
    ]:
        pipe.scheduler = scheduler
        with pytest.raises(HDZooError, match=message):
            pipe(1, 10)
    ve = AnnealedLangevinSampler.from_config(diffusers.ScoreSdeVeScheduler().config)
    pipe.starter, pipe.scheduler = ve, diffusers.DDIMScheduler()
    with pytest.raises(HDZooError, match="does not go with UNet2DModel, which is in VE"):
        pipe(1, 10)


# ---- configurations --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TRANSLATED, "DDPMScheduler", "LCMScheduler"])
@pytest.mark.parametrize(
    "sampler",
    [
        LangevinSampler(),
        AnnealedLangevinSampler(),
        AnnealedLangevinSampler(prediction_type="sample", sigma_max=3.0),
        AnnealedLangevinSampler(
            prediction_type="epsilon", timestep_type="log_sigma", sigma_data=0.5
        ),
        AnnealedLangevinSampler.from_config(diffusers.DDPMScheduler().config),
    ],
    ids=["single", "defaults", "sample", "edm", "vp"],
)
@pytest.mark.parametrize("printed", [False, True])
def test_a_round_trip_keeps_what_is_said_of_the_network(
    sampler: Any, name: str, printed: bool
) -> None:
    between = getattr(diffusers, name).from_config(sampler.config)
    if printed:
        str(between)
    back = type(sampler).from_config(between.config)
    for key in ("prediction_type", "timestep_type", "coordinates", "sigma_data"):
        assert back.config.get(key) == sampler.config.get(key)
    assert torch.equal(back.sigmas, sampler.sigmas)


class Own(diffusers.DDPMScheduler):
    """A user's own."""


class OwnEDM(diffusers.EDMEulerScheduler):
    """Likewise."""


@pytest.mark.parametrize("printed", [False, True])
def test_the_options_say_what_a_users_own_scheduler_is(printed: bool) -> None:
    for own, base in [
        (Own(), diffusers.DDPMScheduler()),
        (OwnEDM(), diffusers.EDMEulerScheduler()),
    ]:
        if printed:
            str(own)
        found = AnnealedLangevinSampler.from_config(own.config)
        expected = AnnealedLangevinSampler.from_config(base.config)
        ignored = {"_class_name", "_diffusers_version"}
        assert {k: v for k, v in found.config.items() if k not in ignored} == {
            k: v for k, v in expected.config.items() if k not in ignored
        }

    class OwnLCM(diffusers.LCMScheduler):
        pass

    own_lcm = OwnLCM()
    if printed:
        str(own_lcm)
    with pytest.raises(HDZooError, match="a scheduler of distilled models does not describe"):
        AnnealedLangevinSampler.from_config(own_lcm.config)
