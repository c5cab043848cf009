"""Samplers on VP networks: the same chain as on VE ones, in other coordinates."""

import json
import math
import warnings
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import zoo
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import GaussianMixtureScore, HDZooError, get_sampler
from hdzoo.samplers.base import Move, Sampler
from hdzoo.samplers.configurations import _DIFFUSERS_VP
from hdzoo.samplers.families import LadderSampler, SingleLevelSampler
from hdzoo.scores.conversions import from_score
from hdzoo.verification.laws import (
    Gaussian,
    declared_law,
    deviation,
    exact_law,
    natural_start,
)

NAMES = [name for name in zoo.SAMPLERS if issubclass(get_sampler(name), Sampler)]
EVERY = pytest.mark.parametrize("name", NAMES)
SINGLES = [name for name in NAMES if issubclass(get_sampler(name), SingleLevelSampler)]
KINDS = ("epsilon", "v_prediction", "sample", "scaled_score", "score")

TARGET = GaussianMixtureScore.from_components(
    [[-0.6, 0.2, 0.1], [0.5, -0.1, 0.3]], [0.09, 0.04], [0.3, 0.7]
)
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def ddpm(**options: Any) -> Any:
    return diffusers.DDPMScheduler(**options).config


def make(name: str, steps: int | None = 30, config: Any = None, **options: Any) -> Any:
    sampler = get_sampler(name).from_config(ddpm() if config is None else config, **options)
    if steps is not None:
        sampler.set_timesteps(steps)
    return sampler


def own_config(scheduler: Any) -> dict[str, Any]:
    names = type(scheduler)._get_init_keys(type(scheduler)) - {"self"}
    config = {key: scheduler.config[key] for key in names if key in scheduler.config}
    return json.loads(json.dumps(config, default=lambda array: array.tolist()))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the chain ------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_chain_as_in_ve_coordinates(name: str, kind: str) -> None:
    """State by state, on the same noise, for a network of each kind."""
    vp = make(name, prediction_type=kind)
    ve = get_sampler(name)(prediction_type="score", timestep_type="sigma")
    ve.set_timesteps(sigmas=vp.sigmas[:-1].tolist())
    assert vp.config.coordinates == "vp"
    assert vp.init_noise_sigma == 1
    x = TARGET.sample(5, seeded(), vp.sigmas[0].item()).double()
    state = x / math.sqrt(1 + vp.sigmas[0].item() ** 2)
    one, other = seeded(1), seeded(1)
    vp.set_begin_index(0)
    for i, (t, sigma) in enumerate(zip(vp.timesteps, ve.timesteps, strict=True)):
        score = TARGET.score(x, sigma)
        given = vp.scale_model_input(state, t)
        assert given is state
        output = from_score(score, given, sigma.item(), kind, "vp")
        mine = vp.step(output, t, state, one)
        theirs = ve.step(score, sigma, x, other)
        state, x = mine.prev_sample, theirs.prev_sample
        scale = math.sqrt(1 + ve.sigmas[i + 1].item() ** 2)
        # A prediction of x0 is multiplied by 1 / sigma^2 and back: roundings of 1e-16 at 0.01.
        torch.testing.assert_close(scale * state, x, rtol=1e-9, atol=1e-11 * scale)
        torch.testing.assert_close(
            mine.pred_original_sample, theirs.pred_original_sample, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [0, 3, 400, 999])
def test_the_denoised_state_is_that_of_diffusers(kind: str, t: int) -> None:
    theirs = diffusers.DDPMScheduler(prediction_type=kind, clip_sample=False)
    ours = get_sampler("annealed-langevin").from_config(theirs.config)
    ours.set_timesteps(timesteps=[t])
    state, output = (torch.randn(2, 3, 4, generator=seeded(seed)).double() for seed in (0, 1))
    expected = theirs.step(output, t, state, seeded()).pred_original_sample
    found = ours.step(output, ours.timesteps[0], state, seeded()).pred_original_sample
    # Their 1 / sqrt(alpha_bar) and sqrt(1 - alpha_bar) are in float32.
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if get_sampler(name).closed_form is not Sampler.closed_form]
)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_law_is_the_declared_one(name: str, kind: str) -> None:
    """In closed form, on a Gaussian and the levels that the network knows, by unit impulses."""
    target = Gaussian.of([0.3, -0.1], [[0.25, 0.1], [0.1, 0.16]])
    sampler = make(name, 24, ddpm(**STABLE_DIFFUSION), prediction_type=kind)
    start = natural_start(sampler, target)
    if sampler.starts_from_noise:
        # As diffusers' pipelines do.
        assert deviation(start, Gaussian.of([0.0, 0.0], 1.0)) == 0
    declared = declared_law(sampler, target, start)
    assert declared is not None
    assert deviation(exact_law(sampler, target, start), declared) < 1e-9


# ---- the ladder and what the network is told ------------------------------------------------


@EVERY
@pytest.mark.parametrize("config", [{}, STABLE_DIFFUSION, {"beta_schedule": "squaredcos_cap_v2"}])
def test_the_network_is_told_indices_that_it_knows(name: str, config: dict[str, Any]) -> None:
    scheduler = diffusers.DDPMScheduler(**config)
    alpha_bars = scheduler.alphas_cumprod.double()
    sampler = make(name, None, scheduler.config)
    for steps in (len(sampler), 60, 23):
        sampler.set_timesteps(steps)
        assert len(sampler.timesteps) == len(sampler.sigmas) - 1 == steps
        if steps > len(alpha_bars) - 5:
            continue
        assert sampler.timesteps.dtype == torch.int64
        kept = alpha_bars[sampler.timesteps]
        expected = ((1 - kept) / kept).sqrt()
        torch.testing.assert_close(sampler.sigmas[:-1], expected, rtol=1e-12, atol=0)
    if name not in SINGLES:
        assert sampler.timesteps[-1] == 0
        assert 14 < sampler.sigmas[0] <= 200
        alone = sampler.timesteps[0].item()
        assert alone == 999 or sampler.sigmas[0] > 150


@EVERY
def test_first_match_then_a_counter(name: str) -> None:
    sampler, x = make(name, 40), torch.zeros(1, 3)
    told = sampler.timesteps.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in dict.fromkeys(told):
            for given in (t, float(t), torch.tensor(t), torch.tensor(t, dtype=torch.float32)):
                sampler.set_timesteps(40)
                sampler.step(x, given, x, seeded())
                assert sampler.step_index == told.index(t) + 1
        sampler.set_timesteps(40)
        with pytest.raises(HDZooError, match=r"timestep 500\.5 is not one of this chain's"):
            sampler.step(x, 500.5, x)


@EVERY
def test_a_schedule_of_ones_own_is_kept(name: str) -> None:
    sampler = make(name)
    sigmas = [3.0, 3.0] if name in SINGLES else [30.0, 3.0, 0.3]
    sampler.set_timesteps(sigmas=sigmas)
    assert sampler.sigmas.tolist() == [*sigmas, 0.0]
    # Between two indices, so no integers.
    assert sampler.timesteps.dtype == torch.float64
    timesteps = [700, 700] if name in SINGLES else [900, 500, 20]
    sampler.set_timesteps(timesteps=timesteps)
    assert sampler.timesteps.tolist() == timesteps
    assert sampler.timesteps.dtype == torch.int64
    with pytest.raises(HDZooError, match=r"timestep 1000 is none of the network's"):
        sampler.set_timesteps(timesteps=[1000])
    with pytest.raises(HDZooError, match=r"asks for noise level 500, .* levels from 0\.01"):
        sampler.set_timesteps(sigmas=[500.0, 500.0] if name in SINGLES else [500.0])


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_add_noise_is_that_of_diffusers(name: str, dtype: torch.dtype) -> None:
    theirs = diffusers.DDPMScheduler()
    sampler = make(name, 40)
    clean, noise = (torch.randn(3, 2, 4, generator=seeded(seed)).to(dtype) for seed in (0, 1))
    for places in ([0], [-1], [0, 20, -1]):
        t = sampler.timesteps[places]
        found = sampler.add_noise(clean, noise, t)
        assert found.dtype == dtype
        expected = theirs.add_noise(clean.double(), noise.double(), t)
        # Their roots are of float32's alpha_bar, in float64; ours are rounded to the dtype.
        slack = 8 * torch.finfo(dtype).eps + 1e-12
        torch.testing.assert_close(found.double(), expected, rtol=slack, atol=slack)


def test_ends_of_the_ladder_can_be_given() -> None:
    sampler = make("annealed-langevin", sigma_max=20.0, sigma_min=0.05, num_levels=5)
    # To the nearest known, 1% apart there and 7% at the small end.
    assert sampler.sigmas[0].item() == pytest.approx(20, rel=0.01)
    assert sampler.sigmas[-2].item() == pytest.approx(0.05, rel=0.07)
    assert len(set(sampler.sigmas.tolist())) == 6
    narrower = type(sampler).from_config(sampler.config, num_levels=3)
    assert len(set(narrower.sigmas.tolist())) == 4
    with pytest.raises(HDZooError, match=r"asks for noise level 0\.001, .* from 0\.01"):
        make("annealed-langevin", sigma_min=0.001)


def test_no_signal_at_the_end_of_training() -> None:
    config = ddpm(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    sampler = make("alpha-half-denoising", 20, config)
    assert torch.isfinite(sampler.sigmas).all()
    assert 150 < sampler.sigmas[0] <= 200
    highest = make("alpha-half-denoising", 20, config, sigma_max=1000.0)
    assert highest.sigmas[0].item() == pytest.approx(1000, rel=0.1)


# ---- configurations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "scheduler"),
    # The one that is left out needs a package that is not installed.
    list(zip(cycle([False, True]), sorted({*_DIFFUSERS_VP} - {"DPMSolverSDEScheduler"}))),
)
def test_every_vp_scheduler_there_and_back(scheduler: str, printed: bool, tmp_path: Path) -> None:
    scheduler_class = getattr(diffusers, scheduler)
    known = scheduler_class._get_init_keys(scheduler_class)
    schedule = {"beta_schedule": "scaled_linear", "beta_end": 0.1, "num_train_timesteps": 100}
    options = schedule | {"beta_start": 0.001, "prediction_type": "v_prediction"}
    theirs = scheduler_class(**{key: value for key, value in options.items() if key in known})
    kind = "v_prediction" if "prediction_type" in known else "epsilon"
    if printed:
        str(theirs)
    config = own_config(theirs)
    for name in ("langevin", "alpha-half-denoising"):
        ours = get_sampler(name).from_config(theirs.config)
        assert ours.config.prediction_type == kind
        levels = diffusers.DDPMScheduler(**schedule, beta_start=0.001)
        kept = levels.alphas_cumprod[ours.timesteps].double()
        torch.testing.assert_close(ours.sigmas[:-1], ((1 - kept) / kept).sqrt(), rtol=1e-12, atol=0)
        # By way of another of ours, a file, and diffusers.
        between = get_sampler("annealed-langevin").from_config(ours.config)
        assert torch.equal(type(ours).from_config(between.config).sigmas, ours.sigmas)
        ours.save_pretrained(tmp_path)
        loaded = type(ours).from_pretrained(tmp_path)
        assert torch.equal(loaded.timesteps, ours.timesteps)
        assert loaded.timesteps.dtype == torch.int64
        assert own_config(loaded) == own_config(ours)
        diffusers_again = scheduler_class.from_config(ours.config)
        back = own_config(diffusers_again)
        # The ladder's ends are found, where the scheduler finds its own.
        found = {key for key in config if config[key] is None and key.startswith("sigma_m")}
        assert {key: back[key] for key in back if key not in found} == {
            key: config[key] for key in config if key not in found
        }
        again = type(ours).from_config(diffusers_again.config)
        assert torch.equal(again.sigmas, ours.sigmas)


def test_what_is_told_wins() -> None:
    config = diffusers.EulerDiscreteScheduler(sigma_max=40.0, prediction_type="sample").config
    sampler = get_sampler("annealed-langevin").from_config(config, prediction_type="epsilon")
    assert sampler.config.prediction_type == "epsilon"
    assert sampler.sigmas[0].item() == pytest.approx(40, rel=0.01)
    other = get_sampler("annealed-langevin").from_config(config, beta_end=0.03)
    assert other.config.beta_end == 0.03
    assert other.timesteps[0] != sampler.timesteps[0]
    # A whole new network, of other coordinates.
    ve = get_sampler("annealed-langevin").from_config(
        sampler.config, coordinates="ve", timestep_type="sigma", sigma_max=2.0
    )
    assert ve.timesteps[0] == ve.init_noise_sigma == 2
    for wrong, message in [
        ({"coordinates": "vpp"}, "unknown coordinates 'vpp'; allowed are ve, vp"),
        ({"coordinates": "ve"}, "'discrete' with coordinates 've'; .* is in VP"),
        ({"timestep_type": "continuous"}, "timestep_type .*'continuous'; allowed are '?sigma"),
        ({"sigma_data": 0.5}, "sigma_data is 0.5 with coordinates 'vp'"),
        ({"beta_schedule": "exp"}, "makes no noise schedule"),
    ]:
        with pytest.raises(HDZooError, match=message):
            get_sampler("annealed-langevin").from_config(sampler.config, **wrong)
    with pytest.raises(HDZooError, match=r"'discrete' with coordinates 've'; .* from_config"):
        get_sampler("annealed-langevin")(timestep_type="discrete")


def test_continuous_time() -> None:
    from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

    sampler = get_sampler("annealed-langevin").from_config(ScoreSdeVpScheduler().config)
    assert sampler.config.prediction_type == "epsilon"
    # t from 1 to sampling_eps, of which the network is told 999.
    assert sampler.timesteps[[0, -1]].tolist() == pytest.approx([999, 0.999])
    assert sampler.timesteps.dtype == torch.float64
    clean = noise = torch.ones(1, 2, dtype=torch.float64)
    found = sampler.add_noise(clean, noise, sampler.timesteps[:1])
    # alpha_bar(1) = exp(-(0.1 + 20) / 2).
    alpha_bar = math.exp(-10.05)
    assert found[0, 0].item() == pytest.approx(alpha_bar**0.5 + (1 - alpha_bar) ** 0.5, rel=1e-9)


UNFIT: dict[str, tuple[Any, str]] = {
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler(), "flow"),
    "heun-flow": (diffusers.FlowMatchHeunDiscreteScheduler(), "flow"),
    "solver-flow": (
        diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
        "flow",
    ),
    "lcm": (diffusers.LCMScheduler(), "distilled"),
    "tcd": (diffusers.TCDScheduler(), "distilled"),
    "video": (diffusers.CogVideoXDDIMScheduler(), "CogVideoX"),
}


@EVERY
@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("unfit", UNFIT)
def test_schedulers_of_models_that_do_not_fit(unfit: str, printed: bool, name: str) -> None:
    scheduler, word = UNFIT[unfit]
    scheduler = type(scheduler).from_config(scheduler.config)
    if printed:
        str(scheduler)
        word = type(scheduler).__name__
    message = f"the configuration of .*{word}.* does not describe a .*DDPMScheduler.* do. Take one"
    with pytest.raises(HDZooError, match=message):
        get_sampler(name).from_config(scheduler.config)


# ---- networks and pipelines that need care --------------------------------------------------


def test_learned_variance_is_left_out() -> None:
    x, output = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)
    sampler = make("annealed-langevin", config=ddpm(variance_type="learned_range"))
    sampler.set_begin_index(0)
    found = sampler.step(output, None, x, seeded())[0]
    plain = make("annealed-langevin")
    plain.set_begin_index(0)
    assert torch.equal(found, plain.step(output[:, :3], None, x, seeded())[0])
    with pytest.raises(HDZooError, match=r"output has the shape \(2, 6, 4, 4\) and the state \(2"):
        plain.step(output, None, x, seeded())


def test_arguments_of_another_scheduler() -> None:
    sampler, x = make("annealed-langevin"), torch.zeros(1, 3)
    with pytest.raises(HDZooError, match="given 'eta', which AnnealedLangevinSampler does not"):
        sampler.step(x, sampler.timesteps[0], x, eta=0.0)


@pytest.mark.parametrize("name", SINGLES)
def test_a_single_level_says_that_it_starts_from_pure_noise(name: str) -> None:
    sampler, x = make(name), torch.zeros(1, 3)
    with pytest.warns(UserWarning, match="at one noise level, 0.09.*, and starts here from pure"):
        sampler.step(x, sampler.timesteps[0], x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.step(x, sampler.timesteps[1], x)
        # What image-to-image pipelines do, which start from images.
        sampler.set_timesteps(30)
        sampler.set_begin_index(0)
        sampler.step(x, sampler.timesteps[0], x)
        ve = get_sampler(name)()
        ve.step(x, ve.timesteps[0], x)


class Brief(Sampler):
    """A third party's, which says nothing of the network at all."""

    @register_to_config
    def __init__(self, top: float = 5.0, bottom: float = 0.5) -> None:
        self.set_timesteps()

    default_num_inference_steps = 6

    def rungs(self, num_inference_steps: int) -> list[float]:
        return [self.config.top, self.config.bottom]

    def step_sizes(self, sigmas: Sequence[float]) -> list[float]:
        return [0.2 * sigma**2 for sigma in sigmas]


class OwnStep(LadderSampler):
    """A third party's that makes its steps itself."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **kwargs: Any) -> Any:
        return super().step(model_output, timestep, sample, **kwargs)


class OwnStepInBoth(OwnStep):
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 100,
        step_size: float | None = None,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        coordinates: str = "ve",
    ) -> None:
        self.set_timesteps()


def test_a_third_partys_sampler_need_not_know_of_coordinates(tmp_path: Path) -> None:
    vp = Brief.from_config(ddpm(), top=3.0)
    Brief(top=3.0).save_pretrained(tmp_path)
    ve = Brief.from_pretrained(tmp_path)
    assert (ve.init_noise_sigma, vp.init_noise_sigma) == (3, 1)
    ve.set_timesteps(sigmas=vp.sigmas[:-1].tolist())
    assert [m.noise for m in vp.moves] == [m.noise for m in ve.moves]
    x = torch.randn(2, 3, dtype=torch.float64, generator=seeded())
    sigma, after = vp.sigmas[[0, 1]].tolist()
    found = vp.step(-sigma * -x, vp.timesteps[0], x / math.hypot(1, sigma), seeded(1))[0]
    expected = ve.step(-x, sigma, x, seeded(1))[0] / math.hypot(1, after)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    vp.save_pretrained(tmp_path)
    assert torch.equal(Brief.from_pretrained(tmp_path).timesteps, vp.timesteps)


def test_a_third_partys_own_step_is_refused_in_vp_unless_it_copes() -> None:
    with pytest.raises(HDZooError, match=r"OwnStep makes its steps itself, in VE .* take another"):
        OwnStep.from_config(ddpm())
    assert OwnStep().init_noise_sigma == 1
    assert OwnStepInBoth.from_config(ddpm()).timesteps[0] == 999


def test_moves_are_those_of_the_ve_chain() -> None:
    """What a plan says is in VE coordinates whatever the network's."""
    vp = make("annealed-langevin", 20)
    sigma = vp.sigmas[0].item()
    assert vp.moves[0] == pytest.approx(Move(sigma, 0.2 * sigma**2, math.sqrt(0.4) * sigma))
