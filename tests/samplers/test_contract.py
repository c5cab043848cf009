"""What hdzoo's own samplers owe beyond the contract kit: their numbers, words, and messages.

Other packages' samplers that are built on hdzoo's come along where they can.
"""

import inspect
import math
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import zoo
from diffusers import configuration_utils
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

from hdzoo import HDZooError, get_sampler
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.families import LadderSampler, SingleLevelSampler
from hdzoo.verification.chain import first_state, run, seeded, sigma_of
from hdzoo.verification.small import SMALL, Watched, fewest

NAMES = [name for name in zoo.SAMPLERS if issubclass(get_sampler(name), Sampler)]
EVERY = pytest.mark.parametrize("name", NAMES)
LADDERS = [name for name in NAMES if issubclass(get_sampler(name), LadderSampler)]
SINGLES = [name for name in NAMES if issubclass(get_sampler(name), SingleLevelSampler)]

# Values other than the defaults, which go together in every sampler that has these options: eta is
# 1/2 at 0.1, and within the bounds of consistent sampling on this ladder.
OPTIONS: dict[str, Any] = SMALL | {
    "sigmas": [2.0, 1.0, 0.5, 0.3, 0.2, 0.1],
    "hand_off": "half",
    "prediction_type": "epsilon",
    "timestep_type": "log_sigma",
    "sigma_data": 0.5,
}


def options(name: str, *left_out: str, **values: Any) -> dict[str, Any]:
    """`OPTIONS` with other `values`, as far as the sampler has them."""
    known = inspect.signature(get_sampler(name).__init__).parameters
    given = {key: value for key, value in OPTIONS.items() if key not in left_out} | values
    return {key: value for key, value in given.items() if key in known}


def make(name: str, steps_above_fewest: int | None = None, **values: Any) -> Any:
    """A sampler with a short ladder for a network that predicts scores from sigma."""
    left_out = ("sigmas", "hand_off", "prediction_type", "timestep_type", "sigma_data")
    sampler = get_sampler(name)(**options(name, *left_out, **values))
    if steps_above_fewest is not None:
        sampler.set_timesteps(fewest(Watched(sampler)) + steps_above_fewest)
    return sampler


def own_config(sampler: Any) -> dict[str, Any]:
    """The sampler's own options, without what it keeps of others'."""
    known = inspect.signature(type(sampler).__init__).parameters
    return {key: sampler.config[key] for key in known if key != "self"}


# ---- the number of network evaluations ------------------------------------------------------


@EVERY
@pytest.mark.parametrize("timestep_type", ["sigma", "log_sigma"])
def test_steps_are_shared_evenly_and_the_smaller_noise_gets_the_rest(
    name: str, timestep_type: str
) -> None:
    sampler = make(name, timestep_type=timestep_type)
    least = fewest(Watched(sampler))
    for steps in {*range(least, least + 9), 23, 60}:
        sampler.set_timesteps(steps)
        levels = sampler.sigmas[:-1].tolist()
        # Exact where the network is told sigma; a logarithm is rounded twice.
        told = [sigma_of(sampler, t) for t in sampler.timesteps]
        assert told == pytest.approx(levels, rel=0 if timestep_type == "sigma" else 1e-14)
        counts = [len(list(run)) for _, run in groupby(levels)]
        assert counts == sorted(counts)
        assert counts[-1] - counts[0] <= 1


@EVERY
def test_the_end_of_the_chain(name: str) -> None:
    sampler = make(name, 3)
    steps = len(sampler)
    last = run(sampler, first_state(Sampler, 2, 3), seeded(0)[0])[-1]
    assert sampler.step_index == steps
    with pytest.raises(HDZooError, match=f"chain of {steps} steps has ended; call set_timesteps"):
        sampler.step(last.output, last.timestep, last.after)


@EVERY
def test_too_few_network_evaluations(name: str) -> None:
    # Consistent sampling with a step of one's own may need more, and then says so otherwise.
    sampler = make(name, step_size=None)
    for steps in range(-1, fewest(Watched(sampler))):
        with pytest.raises(
            HDZooError, match=f"num_inference_steps is {steps}.* (at least|from 1 to)"
        ):
            sampler.set_timesteps(steps)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("langevin", 1),
        ("noise-corrected-langevin", 1),
        ("half-denoising", 1),
        ("annealed-langevin", 6),
        ("alpha-half-denoising", 6),
        ("annealed-half-denoising", 6),
        ("consistent-annealed-sampling", 2),
        ("heun", 1),
        ("dpm-solver-pp-2m", 1),
        ("unipc", 1),
        ("predictor-corrector", 1),
    ],
)
def test_fewest_network_evaluations(name: str, least: int) -> None:
    # At eta = 1/2, 2 steps on this ladder would be too long for consistent sampling.
    sampler = make(name, **({"step_size": None} if name.startswith("consistent") else {}))
    assert fewest(Watched(sampler)) == least


@pytest.mark.parametrize("name", ["annealed-langevin", "alpha-half-denoising"])
def test_default_number_of_evaluations(name: str) -> None:
    """Levels times steps, and one for a read-out that is a step of its own."""
    assert len(make(name)) == 6 * 3 + (name == "annealed-langevin")


@EVERY
def test_wrong_schedule_of_ones_own(name: str) -> None:
    sampler = make(name, 4, step_size=None)
    levels = sampler.sigmas[:-1].tolist()
    with pytest.raises(HDZooError, match="both timesteps and sigmas"):
        sampler.set_timesteps(sigmas=levels, timesteps=levels)
    with pytest.raises(HDZooError, match=f"is {len(levels) + 1} and sigmas has {len(levels)} "):
        sampler.set_timesteps(len(levels) + 1, sigmas=levels)
    with pytest.raises(HDZooError, match="noise levels descend"):
        sampler.set_timesteps(sigmas=[1.0, 2.0])


# ---- indexing -------------------------------------------------------------------------------


@EVERY
def test_step_index_counts_from_the_first_match(name: str) -> None:
    sampler = make(name, 8)
    levels, x = sampler.timesteps.tolist(), first_state(Sampler, 2, 3)
    for t in sorted(set(levels)):
        sampler.set_timesteps(len(levels))
        assert (sampler.begin_index, sampler.step_index) == (None, None)
        assert sampler.index_for_timestep(t) == levels.index(t)
        sampler.step(x, t, x)
        assert sampler.step_index == levels.index(t) + 1
        if sampler.step_index < len(levels):
            sampler.step(x, t, x)
            assert sampler.step_index == levels.index(t) + 2
    sampler.set_timesteps(len(levels))
    with pytest.raises(HDZooError, match=r"timestep 0\.123.* not one of this chain's timesteps"):
        sampler.step(x, 0.123456, x)


@EVERY
def test_step_index_counts_from_the_begin_index(name: str) -> None:
    sampler, x = make(name, 5), first_state(Sampler, 2, 3)
    for k, t in enumerate(sampler.timesteps):
        sampler.set_timesteps(len(sampler))
        sampler.set_begin_index(k)
        assert (sampler.begin_index, sampler.step_index) == (k, None)
        sampler.step(x, t, x)
        assert sampler.step_index == k + 1


# ---- one step -------------------------------------------------------------------------------


@EVERY
def test_number_of_generators(name: str) -> None:
    """Refused by every step, by those as well that draw nothing."""
    sampler, x = make(name, 3), first_state(Sampler, 7, 3)
    for k, t in enumerate(sampler.timesteps):
        for wrong in (1, 6, 8):
            sampler.set_begin_index(k)
            with pytest.raises(HDZooError, match=f"generator is a list of {wrong} for 7 samples"):
                sampler.step(x, t, x, seeded(*range(wrong)))
        sampler.set_timesteps(len(sampler))


@EVERY
def test_the_seed_matters_where_a_generator_is_used(name: str) -> None:
    ends = []
    for seed in (0, 1):
        (generator,) = seeded(seed)
        before = generator.get_state()
        ends.append(run(make(name, 3), first_state(Sampler, 2, 3), generator)[-1].after)
        used = not torch.equal(generator.get_state(), before)
    # A sampler that draws nothing leaves its generator alone.
    assert torch.equal(*ends) != used


@EVERY
@pytest.mark.parametrize("timestep_type", ["sigma", "log_sigma"])
def test_add_noise_is_exact(name: str, timestep_type: str) -> None:
    sampler = make(name, 3, timestep_type=timestep_type)
    clean, noise = (
        first_state(Sampler, 3, 2, 2).double(),
        first_state(Sampler, 3, 2, 2, seed=5).double(),
    )
    for k in ([0], [-1], [0, len(sampler) // 2, -1]):
        noisy = sampler.add_noise(clean, noise, sampler.timesteps[k])
        sigma = sampler.sigmas[:-1][k].view(-1, 1, 1)
        # Three roundings of numbers of order 10.
        torch.testing.assert_close(noisy, clean + sigma * noise, rtol=1e-14, atol=1e-14)


@EVERY
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_denoised_state_in_half_precision(name: str, half: torch.dtype) -> None:
    """Computed in float32 and rounded at the end, as the state is."""
    sampler, output, x = (
        make(name, 3),
        first_state(Sampler, 4, 9),
        first_state(Sampler, 4, 9, seed=1),
    )

    def denoised(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        sampler.set_timesteps(len(sampler))
        return sampler.step(output, sampler.timesteps[0], x).pred_original_sample

    for network_dtype, state_dtype in [(half, torch.float32), (half, half), (torch.float32, half)]:
        low = output.to(network_dtype), x.to(state_dtype)
        found, exact = denoised(*low), denoised(*(tensor.float() for tensor in low))
        assert found.dtype == state_dtype
        assert torch.equal(found, exact.to(state_dtype))


@EVERY
def test_denoised_state_in_double_precision(name: str) -> None:
    output, x = first_state(Sampler, 4, 9).double(), first_state(Sampler, 4, 9, seed=1).double()
    sampler = make(name)
    state = sampler.step(output, sampler.timesteps[0], x, seeded(3)[0])
    sigma = sampler.sigmas[0].item()
    # Tweedie's formula, in float64: three roundings.
    torch.testing.assert_close(
        state.pred_original_sample, x + sigma**2 * output, rtol=1e-14, atol=1e-14
    )


# ---- configurations -------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """diffusers' warnings about configurations, which there should be none of."""
    warnings: list[str] = []
    monkeypatch.setattr(configuration_utils.logger, "warning", warnings.append)
    yield warnings
    assert warnings == []


def missing_levels(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The noise levels that go with `OPTIONS`' step size, where a configuration has none."""
    levels = {key: OPTIONS[key] for key in ("sigma", "sigmas") if key not in config}
    return {key: value for key, value in levels.items() if key in options(name)}


CONFIGURATIONS = {
    "defaults": lambda name: {},
    "some": lambda name: options(name, "sigmas", "step_size", "sigma_data"),
    "all": options,
}


# One of each family, and one whose step size means something else.
OTHERS = ["annealed-langevin", "consistent-annealed-sampling", "langevin", "heun"]


@pytest.mark.parametrize("which", CONFIGURATIONS)
@pytest.mark.parametrize(("name", "other"), list(product(NAMES, OTHERS)))
def test_there_and_back(name: str, other: str, which: str, quiet: list[str]) -> None:
    """Nothing is lost on the way, and what the two share is taken over, defaults as well."""
    sampler = get_sampler(name)(**CONFIGURATIONS[which](name))
    given = own_config(sampler)
    between = get_sampler(other).from_config(sampler.config, **missing_levels(other, given))
    shared = set(given) & set(own_config(between))
    if issubclass(get_sampler(name), LadderSampler) != issubclass(
        get_sampler(other), LadderSampler
    ):
        # epsilon on a ladder, alpha at a single level.
        shared -= {"step_size"}
    for key in shared:
        assert between.config[key] == given[key]
    back = type(sampler).from_config(between.config)
    assert own_config(back) == given
    assert torch.equal(back.timesteps, sampler.timesteps)


@EVERY
@pytest.mark.parametrize("which", CONFIGURATIONS)
def test_saved_and_loaded(name: str, which: str, tmp_path: Path, quiet: list[str]) -> None:
    sampler = get_sampler(name)(**CONFIGURATIONS[which](name))
    sampler.save_pretrained(tmp_path)
    loaded = type(sampler).from_pretrained(tmp_path)
    assert own_config(loaded) == own_config(sampler)
    for other in NAMES:
        levels = missing_levels(other, own_config(sampler))
        swapped = get_sampler(other).from_pretrained(tmp_path, **levels)
        direct = get_sampler(other).from_config(sampler.config, **levels)
        assert own_config(swapped) == own_config(direct)
        assert own_config(type(sampler).from_config(swapped.config)) == own_config(sampler)
        swapped.save_pretrained(tmp_path / other)
        again = type(sampler).from_pretrained(tmp_path / other)
        assert own_config(again) == own_config(sampler)


@EVERY
def test_from_config_overrides(name: str) -> None:
    sampler = make(name)
    changed = type(sampler).from_config(sampler.config, prediction_type="epsilon")
    assert changed.config.prediction_type == "epsilon"
    assert own_config(changed) == own_config(sampler) | {"prediction_type": "epsilon"}
    _, unused = type(sampler).from_config(
        {**sampler.config, "foreign": 1}, return_unused_kwargs=True
    )
    assert unused["foreign"] == 1
    with pytest.raises(HDZooError, match=r"has no option 'thin'; it has .*prediction_type"):
        type(sampler).from_config(sampler.config, thin=2)
    with pytest.raises(HDZooError, match=r"given 'str'; .* scheduler\.config"):
        type(sampler).from_config("a-folder")


SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "score-sde-ve": (diffusers.ScoreSdeVeScheduler, {}),
    "score-sde-ve-set": (diffusers.ScoreSdeVeScheduler, {"sigma_max": 50.0, "snr": 0.17}),
    "karras-ve": (KarrasVeScheduler, {}),
    "karras-ve-set": (KarrasVeScheduler, {"sigma_max": 30.0, "s_churn": 12.0}),
    "edm": (diffusers.EDMEulerScheduler, {}),
    "edm-set": (
        diffusers.EDMEulerScheduler,
        {"sigma_max": 40.0, "sigma_data": 0.7, "prediction_type": "v_prediction"},
    ),
    "edm-dpm": (diffusers.EDMDPMSolverMultistepScheduler, {"sigma_min": 0.01}),
}


@EVERY
@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("case", SCHEDULERS)
def test_from_diffusers(case: str, printed: bool, name: str, quiet: list[str]) -> None:
    """The other's options arrive, and its network's output is understood as it does it."""
    scheduler_class, values = SCHEDULERS[case]
    theirs = scheduler_class(**values)
    if printed:  # only this puts the class's name into the configuration
        str(theirs)
        assert theirs.config["_class_name"] == scheduler_class.__name__
    ours = get_sampler(name).from_config(theirs.config)
    shared = set(own_config(ours)) & set(own_config(theirs))
    if name == "unipc":
        # Its words are others.
        shared -= {"solver_type"}
    for key in shared:
        assert ours.config[key] == theirs.config[key]
    # By another of ours it stays the same; by every other one with either kind of configuration.
    for other in NAMES[printed::2]:
        through = get_sampler(other).from_config(ours.config)
        assert own_config(type(ours).from_config(through.config)) == own_config(ours)
    x, output = first_state(Sampler, 2, 9).double(), first_state(Sampler, 2, 9, seed=1).double()
    t, sigma = ours.timesteps[0], ours.sigmas[0]
    denoised = ours.step(output, t, x).pred_original_sample
    if case.startswith("edm"):
        expected = theirs.precondition_outputs(x, output, sigma)
        c_in = theirs.precondition_inputs(x, sigma)
        torch.testing.assert_close(ours.scale_model_input(x, t), c_in, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(t, theirs.precondition_noise(sigma), rtol=1e-14, atol=0)
    elif case.startswith("karras"):
        expected = theirs.step(output, sigma, 0.5 * sigma, x).pred_original_sample
        assert torch.equal(ours.scale_model_input(x, t), x)
    else:
        expected = x + sigma**2 * output
    # x, output and sigma * output are of order sigma^2 |x|; a few roundings of 1e-16.
    slack = 1e-14 * float(1 + sigma**2)
    torch.testing.assert_close(denoised, expected, rtol=1e-12, atol=slack)


@pytest.mark.parametrize("case", SCHEDULERS)
def test_to_diffusers_and_back(case: str) -> None:
    scheduler_class, values = SCHEDULERS[case]
    theirs = scheduler_class(**values)
    for name in NAMES:
        ours = get_sampler(name).from_config(theirs.config)
        back = scheduler_class.from_config(ours.config)
        assert own_config(back) == own_config(theirs)
        assert own_config(type(ours).from_config(back.config)) == own_config(ours)


@EVERY
@pytest.mark.parametrize("scheduler_class", [diffusers.ScoreSdeVeScheduler, KarrasVeScheduler])
def test_by_way_of_diffusers(scheduler_class: type[Any], name: str) -> None:
    """What we say of the network wins over what the scheduler in between takes for granted."""
    sampler = get_sampler(name)(**options(name, "sigmas", "step_size", "sigma_data"))
    between = scheduler_class.from_config(sampler.config)
    assert own_config(type(sampler).from_config(between.config)) == own_config(sampler)


@EVERY
@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize(
    "scheduler_class", [diffusers.LCMScheduler, diffusers.FlowMatchEulerDiscreteScheduler]
)
def test_scheduler_of_another_kind(scheduler_class: type[Any], printed: bool, name: str) -> None:
    scheduler = scheduler_class()
    if printed:
        str(scheduler)
    message = "does not describe a variance-exploding or .* model, .*ScoreSdeVeScheduler"
    with pytest.raises(HDZooError, match=message):
        get_sampler(name).from_config(scheduler.config)


def test_compatibles() -> None:
    compatibles = make("langevin").compatibles
    assert {get_sampler(name) for name in NAMES} <= set(compatibles)
    assert diffusers.EDMEulerScheduler in compatibles
    assert diffusers.DDPMScheduler not in compatibles
    of_a_vp_network = get_sampler("langevin").from_config(diffusers.DDPMScheduler().config)
    assert diffusers.DDPMScheduler in of_a_vp_network.compatibles
    assert diffusers.EDMEulerScheduler not in of_a_vp_network.compatibles


# ---- options out of their range -------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prediction_type": "noise"},
            "prediction_type .*'noise'; allowed are '?score'?, '?epsilon",
        ),
        ({"timestep_type": "index"}, "timestep_type .*'index'; allowed are '?sigma'?, '?log_sigma"),
        ({"prediction_type": "sample", "sigma_data": 0.5}, "'sample' does not go with sigma_data"),
        (
            {"prediction_type": "epsilon", "sigma_data": 0.0},
            r"sigma_data is 0\.0; .* (positive|above 0)",
        ),
    ],
)
def test_bad_coordinates(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        make(name, **values)


BAD_LADDERS: list[tuple[dict[str, Any], str]] = [
    ({"sigmas": [0.1, 0.2]}, r"from 0\.1 to 0\.2; noise levels descend"),
    ({"sigmas": [0.2, 0.2]}, "noise levels descend"),
    ({"sigmas": [0.2, -0.1]}, r"holds -0\.1; noise levels are finite and positive"),
    ({"sigmas": [0.2, 0.0]}, r"holds 0\.0"),
    ({"sigmas": [math.nan, 0.1]}, "holds nan"),
    ({"sigmas": []}, "no noise level"),
    ({"sigma_max": 0.05}, r"sigma_max is 0\.05 and sigma_min is 0\.1"),
    ({"sigma_max": math.nan}, "sigma_max is nan"),
    ({"sigma_min": 0.0}, r"sigma_min is 0\.0; it must be a finite number from 1e-15"),
    ({"num_levels": 0}, "num_levels is 0; it must be a whole number from 1"),
    ({"rho": 0.9}, r"rho is 0\.9; it must be a finite number from 1 to 1000, or None"),
    ({"rho": math.nan}, "rho is nan"),
    ({"start": "zero"}, "start .*'zero'; allowed are '?normal'?, '?uniform"),
]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (name, values, message)
        for name in LADDERS
        for values, message in BAD_LADDERS
        if values.keys() <= options(name, **values).keys()
    ],
)
def test_bad_ladder(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        make(name, **values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        *(
            (name, {"step_size": step_size}, message)
            for name in ("annealed-langevin", "alpha-half-denoising")
            for step_size, message in [
                (0.02, r"alpha = .* 0 < alpha < 2 sigma\^2"),
                (0.0, "alpha = 0 |step_size is 0.0; it must be a number above 0"),
                (-0.1, "alpha = -|step_size is -0.1; it must be a number above 0"),
                (math.nan, "alpha = nan|step_size is nan; it must be a number above 0"),
                ([0.1, 0.1], "2 numbers and the ladder 6 levels"),
                ("ncsnv3", "step_size is 'ncsnv3'; .*a number.*'ncsnv2'"),
            ]
        ),
        *(
            (name, {"steps_per_level": 0}, "steps_per_level is 0; it must be a whole number from 1")
            for name in ("annealed-langevin", "annealed-half-denoising")
        ),
        *(
            (
                name,
                {"sigma": -1.0},
                r"holds -1\.0|sigma is -1\.0; it must be a finite number from 1e-15",
            )
            for name in SINGLES
        ),
        *(
            (name, {"num_steps": 0}, "num_steps is 0; it must be a whole number from 1")
            for name in SINGLES
        ),
        *(
            (
                name,
                {"step_size": step_size},
                f"step_size is {step_size}; .*(positive number|above 0)",
            )
            for name in ("langevin", "noise-corrected-langevin")
            for step_size in (0.0, -0.1, math.nan)
        ),
        ("langevin", {"step_size": "ncsnv2"}, "step_size is 'ncsnv2'; .*(positive number|above 0)"),
        (
            "noise-corrected-langevin",
            {"step_size": 0.0049},
            r"\(mu\) is 0\.0049 at noise level 0\.1; .* mu >= sigma\^2 / 2 = 0\.005",
        ),
        (
            "annealed-langevin",
            {"hand_off": "all"},
            "hand_off is 'all'; allowed are 'own', 'next', 'half'",
        ),
        *(
            (
                name,
                {"readout": "whole"},
                "readout is 'whole'; it must be None, 'alpha', 'half', 'fu",
            )
            for name in ("annealed-langevin", "consistent-annealed-sampling")
        ),
        ("consistent-annealed-sampling", {"step_size": 0.0001}, r"eta = 0\.01 .* <= eta <= 1\."),
        ("consistent-annealed-sampling", {"step_size": 0.0199}, r"eta = 1\.99 .* <= eta <= 1\."),
        (
            "consistent-annealed-sampling",
            {"step_size": math.nan},
            "step_size is nan; it must be a finite",
        ),
        ("consistent-annealed-sampling", {"step_size": "ncsnv2"}, "is 'ncsnv2'; .* above 0, or N"),
        *(
            (name, {"num_steps": 0}, "num_steps is 0; it must be a whole number from 1")
            for name in ("heun", "dpm-solver-pp-2m", "unipc", "predictor-corrector")
        ),
        *(
            ("heun", {"churn": 1.0} | {option: value}, f"{option} is {value}; .* of at least 0")
            for option in ("churn", "churn_min", "churn_max", "churn_noise")
            for value in (-0.1, math.nan, math.inf)
        ),
        (
            "dpm-solver-pp-2m",
            {"eta": -0.1},
            r"eta is -0\.1; .* a number from 0 up",
        ),
        ("dpm-solver-pp-2m", {"eta": "full"}, "eta is 'full'; it must be a number from 0 up"),
        *(
            ("predictor-corrector", {"snr": snr}, f"snr is {snr}; .* above 0 and below 1")
            for snr in (0.0, -0.1, 1.0, math.nan)
        ),
        (
            "predictor-corrector",
            {"correct_steps": 0},
            "correct_steps is 0; it must be a whole",
        ),
        (
            "predictor-corrector",
            {"correct_steps": 1.5},
            r"correct_steps is 1\.5; .* a whole",
        ),
    ],
)
def test_bad_option(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        make(name, **values)


@pytest.mark.parametrize("name", SINGLES)
def test_single_level_takes_one(name: str) -> None:
    with pytest.raises(HDZooError, match=f"{get_sampler(name).__name__} walks at one noise level"):
        make(name).set_timesteps(sigmas=[0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "sigmas"),
    [
        ("consistent-annealed-sampling", [0.2, 0.1, 0.1]),
        ("dpm-solver-pp-2m", [0.2, 0.1, 0.1]),
        ("unipc", [0.2, 0.1, 0.1]),
        ("heun", [0.2, 0.1, 0.1, 0.1]),
        ("heun", [0.2, 0.2, 0.1]),
    ],
)
def test_levels_that_are_repeated_too_often(name: str, sigmas: list[float]) -> None:
    with pytest.raises(HDZooError, match="a noise level is repeated"):
        make(name).set_timesteps(sigmas=sigmas)


def test_a_step_size_is_not_carried_between_ladder_and_single_level():
    # epsilon = 3e-5 at 0.01 is eta = 0.3; as alpha at 0.1 it would be eta = 0.003.
    annealed = get_sampler("annealed-langevin")(step_size=3e-5)
    single = get_sampler("noise-corrected-langevin").from_config(annealed.config, sigma=0.2)
    assert single.config.step_size is None
    assert single.moves[0].alpha == pytest.approx(0.2**2)
    single = get_sampler("langevin").from_config(single.config, step_size=0.01)
    again = get_sampler("alpha-half-denoising").from_config(single.config)
    assert again.config.step_size == 3e-5
    back = get_sampler("langevin").from_config(again.config)
    assert (back.config.step_size, back.config.sigma) == (0.01, 0.2)
    # Nor by way of one that has no step size.
    for name in ("heun", "predictor-corrector"):
        for sampler, size in ((annealed, 3e-5), (back, 0.01), (again, 3e-5)):
            between = get_sampler(name).from_config(sampler.config)
            assert type(sampler).from_config(between.config).config.step_size == size
        between = get_sampler(name).from_config(back.config)
        assert get_sampler("annealed-langevin").from_config(between.config).config.step_size == 3e-5
        between = get_sampler(name).from_config(annealed.config)
        assert get_sampler("langevin").from_config(between.config).config.step_size is None


def test_a_chain_whose_first_step_is_refused_has_not_begun() -> None:
    sampler = get_sampler("langevin")()
    sampler.set_timesteps(4)
    x, t = torch.zeros(2, 1, 2, 2), sampler.timesteps[0]
    for _ in range(2):
        with pytest.raises(HDZooError, match="generator is"):
            sampler.step(x, t, x, generator=[1, 2])
        assert sampler.step_index is None
