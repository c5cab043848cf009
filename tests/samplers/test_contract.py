"""What every registered sampler owes to diffusers' pipelines and to its user, plugins' included."""

import inspect
import math
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import configuration_utils
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

from hdzoo import HDZooError, get_sampler, list_samplers
from hdzoo.samplers.base import LadderSampler, SingleLevelSampler
from hdzoo.scores import score_weights

NAMES = list_samplers()
EVERY = pytest.mark.parametrize("name", NAMES)
LADDERS = [name for name in NAMES if issubclass(get_sampler(name), LadderSampler)]
SINGLES = [name for name in NAMES if issubclass(get_sampler(name), SingleLevelSampler)]

# Values other than the defaults, which go together in every sampler that has these options: eta is
# 1/2 at 0.1, and within the bounds of consistent sampling on this ladder.
OPTIONS: dict[str, Any] = {
    "sigma_max": 2.0,
    "sigma_min": 0.1,
    "num_levels": 6,
    "sigmas": [2.0, 1.0, 0.5, 0.3, 0.2, 0.1],
    "steps_per_level": 3,
    "step_size": 0.005,
    "sigma": 0.1,
    "num_steps": 7,
    "hand_off": "half",
    "readout": "full",
    "prediction_type": "epsilon",
    "timestep_type": "log_sigma",
    "sigma_data": 0.5,
}


def options(name: str, *left_out: str, **values: Any) -> dict[str, Any]:
    """`OPTIONS` with other `values`, as far as the sampler has them."""
    known = inspect.signature(get_sampler(name).__init__).parameters
    given = {key: value for key, value in OPTIONS.items() if key not in left_out} | values
    return {key: value for key, value in given.items() if key in known}


def make(name: str, **values: Any) -> Any:
    """A sampler with a short ladder for a network that predicts scores from sigma."""
    left_out = ("sigmas", "hand_off", "prediction_type", "timestep_type", "sigma_data")
    return get_sampler(name)(**options(name, *left_out, **values))


def own_config(sampler: Any) -> dict[str, Any]:
    """The sampler's own options, without what it keeps of others'."""
    known = inspect.signature(type(sampler).__init__).parameters
    return {key: sampler.config[key] for key in known if key != "self"}


def sigma_of(sampler: Any, t: torch.Tensor) -> float:
    log = sampler.config.get("timestep_type") == "log_sigma"
    return math.exp(4 * t.item()) if log else t.item()


def predict(sampler: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth network in the sampler's own terms; elementwise, so the same in any batch."""
    sigma = sigma_of(sampler, t)
    a, b = score_weights(sampler.config.get("prediction_type", "score"), sigma)
    score = (1 - x) / (0.5 + sigma**2) + 0.01 * x * x / (1 + sigma**4)
    return (score - b * x) / a


def run(sampler: Any, x: torch.Tensor, generator: Any = None, start: int = 0) -> torch.Tensor:
    for t in sampler.timesteps[start:]:
        x = sampler.step(predict(sampler, x, t), t, x, generator).prev_sample
    return x


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def first_state(*shape: int, seed: int = 99) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fewest(sampler: Any) -> int:
    """The smallest number of steps that the sampler takes."""
    for steps in range(1, 1001):
        try:
            sampler.set_timesteps(steps)
        except HDZooError:
            continue
        return steps
    raise AssertionError(f"{sampler} takes no number of steps up to 1000")


# ---- the number of network evaluations ------------------------------------------------------


@EVERY
def test_network_evaluations_are_those_asked_for(name: str) -> None:
    sampler = make(name)
    least = fewest(sampler)
    for steps in {*range(least, least + 9), 23, 60}:
        sampler.set_timesteps(steps)
        assert len(sampler) == len(sampler.timesteps) == sampler.num_inference_steps == steps
        assert sampler.order == 1
        assert sampler.sigmas[-1] == 0
        levels = sampler.sigmas[:-1].tolist()
        assert [sigma_of(sampler, t) for t in sampler.timesteps] == levels
        assert levels == sorted(levels, reverse=True)
        assert len(levels) == steps
        # Even to within one, and the smaller noise levels get the rest.
        counts = [len(list(run)) for _, run in groupby(levels)]
        assert counts == sorted(counts)
        assert counts[-1] - counts[0] <= 1
        assert sampler.init_noise_sigma == pytest.approx(levels[0], rel=1e-12)
        x = run(sampler, first_state(2, 3), seeded(0)[0])
        assert x.isfinite().all()
        assert sampler.step_index == steps
        with pytest.raises(HDZooError, match=f"chain of {steps} steps has ended"):
            sampler.step(x, sampler.timesteps[-1], x)


@EVERY
def test_too_few_network_evaluations(name: str) -> None:
    # Consistent sampling with a step of one's own may need more, and then says so otherwise.
    sampler = make(name, step_size=None)
    for steps in range(-1, fewest(sampler)):
        with pytest.raises(HDZooError, match=f"num_inference_steps is {steps}.* at least"):
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
    ],
)
def test_fewest_network_evaluations(name: str, least: int) -> None:
    # At eta = 1/2, 2 steps on this ladder would be too long for consistent sampling.
    sampler = make(name, **({"step_size": None} if name.startswith("consistent") else {}))
    assert fewest(sampler) == least


@pytest.mark.parametrize("name", ["annealed-langevin", "alpha-half-denoising"])
def test_default_number_of_evaluations(name: str) -> None:
    """Levels times steps, and one for a read-out that is a step of its own."""
    assert len(make(name)) == 6 * 3 + (name == "annealed-langevin")


@EVERY
def test_own_schedule(name: str) -> None:
    """Noise levels of one's own, or timesteps, one for each evaluation."""
    sampler = make(name, step_size=None)
    sampler.set_timesteps(fewest(sampler) + 4)
    levels = sampler.sigmas[:-1].tolist()
    for again in [{"sigmas": levels}, {"timesteps": sampler.timesteps.tolist()}]:
        other = make(name, step_size=None)
        other.set_timesteps(**again)
        ends = [run(s, first_state(2, 3), seeded(0)[0]) for s in (sampler, other)]
        sampler.set_timesteps(len(levels))
        assert torch.equal(*ends)
    with pytest.raises(HDZooError, match="both timesteps and sigmas"):
        sampler.set_timesteps(sigmas=levels, timesteps=levels)
    with pytest.raises(HDZooError, match=f"is {len(levels) + 1} and {len(levels)} noise levels"):
        sampler.set_timesteps(len(levels) + 1, sigmas=levels)
    with pytest.raises(HDZooError, match="noise levels descend"):
        sampler.set_timesteps(sigmas=[1.0, 2.0])


# ---- indexing -------------------------------------------------------------------------------


@EVERY
def test_first_look_up_then_counting(name: str) -> None:
    sampler = make(name)
    sampler.set_timesteps(fewest(sampler) + 8)
    levels = sampler.timesteps.tolist()
    x = first_state(2, 3)
    for t in sorted(set(levels)):
        # A network in float32 may hand the timestep back in float32.
        for given in (t, torch.tensor(t, dtype=torch.float64), torch.tensor(t)):
            sampler.set_timesteps(len(levels))
            assert sampler.index_for_timestep(given) == levels.index(t)
            sampler.step(x, given, x)
            assert sampler.step_index == levels.index(t) + 1
        if sampler.step_index < len(levels):
            sampler.step(x, t, x)
            assert sampler.step_index == levels.index(t) + 2
    sampler.set_timesteps(len(levels))
    with pytest.raises(HDZooError, match=r"timestep 0\.123.* not one of this chain's timesteps"):
        sampler.step(x, 0.123456, x)


@EVERY
def test_begin_index(name: str) -> None:
    """A chain taken up at move k goes on as the whole one does, repeated timesteps or not."""
    sampler = make(name)
    steps = fewest(sampler) + 5
    sampler.set_timesteps(steps)
    assert (sampler.begin_index, sampler.step_index) == (None, None)
    whole, (generator,) = first_state(2, 3), seeded(0)
    for k, t in enumerate(sampler.timesteps):
        rest = sampler.from_config(sampler.config)
        rest.set_timesteps(steps)
        rest.set_begin_index(k)
        assert rest.begin_index == k
        there = torch.Generator()
        there.set_state(generator.get_state())
        expected = sampler.step(predict(sampler, whole, t), t, whole, generator).prev_sample
        assert torch.equal(rest.step(predict(rest, whole, t), t, whole, there)[0], expected)
        assert rest.step_index == k + 1
        whole = expected


@EVERY
def test_no_transfer_in_step(name: str) -> None:
    """On the meta device whatever asks for a value raises."""
    sampler = make(name)
    steps = fewest(sampler) + 3
    sampler.set_timesteps(steps, device="meta")
    sampler.set_begin_index(0)
    x = torch.empty(2, 3, 4, 4, device="meta")
    for t in sampler.timesteps:
        assert t.device.type == "meta"
        x = sampler.step(torch.empty_like(sampler.scale_model_input(x, t)), t, x).prev_sample
    assert sampler.step_index == steps


# ---- randomness -----------------------------------------------------------------------------


@EVERY
def test_each_sample_has_its_own_generator(name: str) -> None:
    """Bit for bit the same, alone or among others."""
    sampler = make(name)
    steps = fewest(sampler) + 5
    x = first_state(7, 3, 5, 5)
    sampler.set_timesteps(steps)
    together = run(sampler, x, seeded(*range(7)))
    assert torch.unique(together.flatten(1), dim=0).shape[0] == 7
    for i in range(7):
        for generator in (seeded(i), seeded(i)[0]):
            sampler.set_timesteps(steps)
            assert torch.equal(run(sampler, x[i : i + 1], generator)[0], together[i])
    for wrong in (1, 6, 8):
        sampler.set_timesteps(steps)
        with pytest.raises(HDZooError, match=f"{wrong} generators are given for 7 samples"):
            run(sampler, x, seeded(*range(wrong)))


@EVERY
def test_determinism(name: str) -> None:
    sampler = make(name)
    ends = []
    for seed in (0, 0, 1):
        sampler.set_timesteps(fewest(sampler) + 3)
        (generator,) = seeded(seed)
        before = generator.get_state()
        ends.append(run(sampler, first_state(2, 3), generator))
        used = not torch.equal(generator.get_state(), before)
    assert torch.equal(ends[0], ends[1])
    # A sampler that draws nothing leaves its generator alone.
    assert torch.equal(ends[0], ends[2]) != used


@EVERY
@pytest.mark.parametrize("timestep_type", ["sigma", "log_sigma"])
def test_add_noise(name: str, timestep_type: str) -> None:
    sampler = make(name, timestep_type=timestep_type)
    sampler.set_timesteps(fewest(sampler) + 3)
    for dtype, rounding in [(torch.float64, 1e-14), (torch.float32, 1e-6)]:
        clean, noise = first_state(3, 2, 2).to(dtype), first_state(3, 2, 2, seed=5).to(dtype)
        for k in ([0], [-1], [0, 1, -1] if len(sampler) > 2 else [0]):
            noisy = sampler.add_noise(clean, noise, sampler.timesteps[k])
            sigma = sampler.sigmas[:-1][k].to(dtype).view(-1, 1, 1)
            # Three roundings of numbers of order 10.
            torch.testing.assert_close(noisy, clean + sigma * noise, rtol=rounding, atol=rounding)
            assert noisy.dtype == dtype


# ---- precision and layout -------------------------------------------------------------------


def one_step(name: str, output: torch.Tensor, x: torch.Tensor) -> Any:
    sampler = make(name)
    return sampler.step(output, sampler.timesteps[0], x, seeded(3)[0])


@EVERY
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, half: torch.dtype) -> None:
    output, x = first_state(4, 9), first_state(4, 9, seed=1)
    for network_dtype, state_dtype in [(half, torch.float32), (half, half), (torch.float32, half)]:
        found = one_step(name, output.to(network_dtype), x.to(state_dtype))
        # The same, computed in float32 and rounded at the end.
        exact = one_step(name, output.to(network_dtype).float(), x.to(state_dtype).float())
        for key in ("prev_sample", "pred_original_sample"):
            assert found[key].dtype == state_dtype
            assert torch.equal(found[key], exact[key].to(state_dtype))


@EVERY
def test_double_precision(name: str) -> None:
    output, x = first_state(4, 9).double(), first_state(4, 9, seed=1).double()
    sampler = make(name)
    state = sampler.step(output, sampler.timesteps[0], x, seeded(3)[0])
    sigma = sampler.sigmas[0].item()
    assert state.prev_sample.dtype == torch.float64
    # Tweedie's formula, in float64: three roundings.
    torch.testing.assert_close(
        state.pred_original_sample, x + sigma**2 * output, rtol=1e-14, atol=1e-14
    )


@EVERY
def test_layout(name: str) -> None:
    """The shape and the memory layout of the state change nothing."""
    output, x = first_state(4, 3, 2, 5), first_state(4, 3, 2, 5, seed=1)
    expected = one_step(name, output, x).prev_sample
    flat = one_step(name, output.flatten(1), x.flatten(1)).prev_sample
    assert torch.equal(flat, expected.flatten(1))
    last = one_step(name, output, x.to(memory_format=torch.channels_last)).prev_sample
    assert torch.equal(last, expected)
    strided = torch.stack([x, -x], -1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(one_step(name, output, strided).prev_sample, expected)
    before = x.clone()
    sampler = make(name)
    (tuple_state,) = sampler.step(
        output, sampler.timesteps[0], x, generator=seeded(3)[0], return_dict=False
    )
    assert torch.equal(tuple_state, expected)
    assert torch.equal(x, before)


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


@pytest.mark.parametrize("which", CONFIGURATIONS)
@pytest.mark.parametrize(("name", "other"), list(product(NAMES, NAMES)))
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
    with pytest.raises(HDZooError, match=r"has no option 'eta'; it has .*prediction_type"):
        type(sampler).from_config(sampler.config, eta=0.1)
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
    for key in set(own_config(ours)) & set(own_config(theirs)):
        assert ours.config[key] == theirs.config[key]
    # By another of ours it stays the same.
    for other in NAMES:
        through = get_sampler(other).from_config(ours.config)
        assert own_config(type(ours).from_config(through.config)) == own_config(ours)
    x, output = first_state(2, 9).double(), first_state(2, 9, seed=1).double()
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
    "scheduler_class", [diffusers.DDPMScheduler, diffusers.FlowMatchEulerDiscreteScheduler]
)
def test_scheduler_of_another_kind(scheduler_class: type[Any], printed: bool, name: str) -> None:
    scheduler = scheduler_class()
    if printed:
        str(scheduler)
    message = "does not describe a variance-exploding model; .*ScoreSdeVeScheduler"
    with pytest.raises(HDZooError, match=message):
        get_sampler(name).from_config(scheduler.config)


def test_compatibles() -> None:
    compatibles = make("langevin").compatibles
    assert {get_sampler(name) for name in NAMES} <= set(compatibles)
    assert diffusers.EDMEulerScheduler in compatibles
    assert diffusers.DDPMScheduler not in compatibles


# ---- options out of their range -------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prediction_type": "noise"}, "prediction_type 'noise'; allowed are score, epsilon"),
        ({"timestep_type": "index"}, "timestep_type 'index'; allowed are sigma, log_sigma"),
        ({"prediction_type": "sample", "sigma_data": 0.5}, "'sample' does not go with sigma_data"),
        ({"prediction_type": "epsilon", "sigma_data": 0.0}, r"sigma_data is 0\.0; .* positive"),
    ],
)
def test_bad_coordinates(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        make(name, **values)


@pytest.mark.parametrize("name", LADDERS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigmas": [0.1, 0.2]}, r"from 0\.1 to 0\.2; noise levels descend"),
        ({"sigmas": [0.2, 0.2]}, "noise levels descend"),
        ({"sigmas": [0.2, -0.1]}, r"holds -0\.1; noise levels are finite and positive"),
        ({"sigmas": [0.2, 0.0]}, r"holds 0\.0"),
        ({"sigmas": [math.nan, 0.1]}, "holds nan"),
        ({"sigmas": []}, "no noise level"),
        ({"sigma_max": 0.05}, r"sigma_max is 0\.05 and sigma_min is 0\.1"),
        ({"sigma_max": math.nan}, "sigma_max is nan"),
        ({"sigma_min": 0.0}, r"sigma_min is 0\.0"),
        ({"num_levels": 0}, "num_levels is 0; .* at least 1"),
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
                (0.0, "alpha = 0 "),
                (-0.1, "alpha = -"),
                (math.nan, "alpha = nan"),
                ([0.1, 0.1], "2 numbers and the ladder 6 levels"),
                ("ncsnv3", "step_size is 'ncsnv3'; allowed are a number.*'ncsnv2'"),
            ]
        ),
        *(
            (name, {"steps_per_level": 0}, "steps_per_level is 0; at least 1")
            for name in ("annealed-langevin", "annealed-half-denoising")
        ),
        *((name, {"sigma": -1.0}, r"holds -1\.0") for name in SINGLES),
        *((name, {"num_steps": 0}, "is 0; at least 1") for name in SINGLES),
        *(
            (name, {"step_size": step_size}, f"step_size is {step_size}; .* positive number")
            for name in ("langevin", "noise-corrected-langevin")
            for step_size in (0.0, -0.1, math.nan)
        ),
        ("langevin", {"step_size": "ncsnv2"}, "step_size is 'ncsnv2'; .* positive number"),
        (
            "noise-corrected-langevin",
            {"step_size": 0.0049},
            r"\(mu\) is 0\.0049 at noise level 0\.1; .* mu >= sigma\^2 / 2 = 0\.005",
        ),
        ("annealed-langevin", {"hand_off": "all"}, "hand_off 'all'; allowed are own, next, half"),
        *(
            (name, {"readout": "whole"}, "readout 'whole'; allowed are None, 'alpha', 'half', 'fu")
            for name in ("annealed-langevin", "consistent-annealed-sampling")
        ),
        ("consistent-annealed-sampling", {"step_size": 0.0001}, r"eta = 0\.01 .* <= eta <= 1\."),
        ("consistent-annealed-sampling", {"step_size": 0.0199}, r"eta = 1\.99 .* <= eta <= 1\."),
        ("consistent-annealed-sampling", {"step_size": math.nan}, "eta = nan"),
        ("consistent-annealed-sampling", {"step_size": "ncsnv2"}, "is 'ncsnv2'; .* a number or N"),
    ],
)
def test_bad_option(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        make(name, **values)


@pytest.mark.parametrize("name", SINGLES)
def test_single_level_takes_one(name: str) -> None:
    with pytest.raises(HDZooError, match=f"{get_sampler(name).__name__} walks at one noise level"):
        make(name).set_timesteps(sigmas=[0.2, 0.1])


def test_consistent_sampling_asks_once_at_each_level() -> None:
    with pytest.raises(HDZooError, match="a noise level is repeated"):
        make("consistent-annealed-sampling").set_timesteps(sigmas=[0.2, 0.1, 0.1])


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
