"""Random configurations of a sampler, on networks of both kinds, and random Gaussian data."""

from typing import Any

import numpy as np
from diffusers import DDPMScheduler

from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.gaussian import numbered_levels
from hdzoo.verification.checks import CheckFailed, listed, on_options
from hdzoo.verification.laws import Gaussian
from hdzoo.verification.small import option_names, options_of

PREDICTIONS = ("score", "epsilon", "scaled_score", "sample", "v_prediction")
# Of a refused configuration another is drawn, so many times.
MOST_REFUSALS = 1000


def random_target(rng: np.random.Generator) -> Gaussian:
    """A Gaussian target of dimension 3, turned at random; half of them are singular."""
    values = rng.uniform(0.05, 2.0, 3) ** 2
    if rng.random() < 0.5:
        values[0] = 0.0
    vectors = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Gaussian(rng.uniform(-2, 2, 3), vectors * values @ vectors.T)


def random_sampler(sampler_class: type[Any], rng: np.random.Generator, vp: bool = False) -> Any:
    """A sampler with random options, as far as it has those that hdzoo's samplers share.

    Other options are drawn from the class attribute ``option_choices``. Those that the sampler
    refuses (`HDZooError`) are drawn anew.

    Args:
        sampler_class: a scheduler.
        rng: the source of randomness.
        vp: for a network in VP coordinates, told the number of a noise level or the time.

    Returns:
        The sampler with its chain fixed.

    Raises:
        CheckFailed: all are refused, or something else is raised.
    """
    known, refusal = option_names(sampler_class), ""
    for _ in range(MOST_REFUSALS):
        options = {key: value for key, value in _random_options(rng).items() if key in known}
        for key, choices in getattr(sampler_class, "option_choices", {}).items():
            options[key] = choices[rng.integers(len(choices))]
        steps = int(rng.integers(1, 25))
        network = _random_schedule(rng) if vp else None
        try:
            if network is None:
                sampler = sampler_class(**options)
            else:
                kept = options.keys() - {"timestep_type", "sigma_data", "prediction_type"}
                kind = PREDICTIONS[rng.integers(len(PREDICTIONS))]
                options = {key: options[key] for key in kept} | {"prediction_type": kind}
                sampler = sampler_class.from_config(network, **options)
            sampler.set_timesteps(steps)
        except HDZooError as error:
            refusal = f"{error} [{listed(options | {'num_inference_steps': steps})}]"
            continue
        except Exception as error:
            with on_options(options | {"num_inference_steps": steps}):
                raise error
        return sampler
    raise CheckFailed(
        f"{MOST_REFUSALS} random configurations were refused, the last with: {refusal}"
    )


def configuration(sampler: Any) -> dict[str, Any]:
    """What to tell of a sampler whose chain is fixed: its options, and of a VP network its kind."""
    told: dict[str, Any] = options_of(sampler)
    if sampler.config.get("coordinates", "ve") != "ve":
        told |= {key: sampler.config[key] for key in _SCHEDULE if key in sampler.config}
    return told | {"num_inference_steps": sampler.num_inference_steps}


_SCHEDULE = ("coordinates", "timestep_type", "beta_schedule", "beta_start", "beta_end", "beta_max")


def takes_vp(sampler_class: type[Any]) -> bool:
    """Whether a sampler is for networks in VP coordinates as well.

    One that makes its steps itself is in VE coordinates, and refused there.
    """
    if not issubclass(sampler_class, Sampler):
        return False
    try:
        return sampler_class.from_config(DDPMScheduler().config) is not None
    except HDZooError:
        return False


def _random_schedule(rng: np.random.Generator) -> Any:
    """The configuration of a scheduler of diffusers' for a VP network."""
    chosen = rng.integers(4)
    if chosen == 3:
        return {"_class_name": "ScoreSdeVpScheduler", "beta_min": 0.1, "beta_max": 12.0}
    options: tuple[dict[str, Any], ...] = (
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
    )
    return DDPMScheduler(**options[chosen]).config


def _random_options(rng: np.random.Generator) -> dict[str, Any]:
    # Ratios of neighbouring levels as in published ladders and coarser.
    ladder = float(rng.uniform(0.5, 4)) * np.cumprod(rng.uniform(0.45, 0.95, rng.integers(1, 9)))
    sigma = float(rng.uniform(0.05, 2))
    smallest = sigma if rng.random() < 0.5 else float(ladder[-1])
    eta = float(rng.uniform(0.05, 1.9))
    options: dict[str, Any] = {
        "sigma": smallest,
        "sigma_max": float(ladder[0]) * 1.1,
        "sigma_min": smallest,
        "num_levels": len(ladder),
        "num_steps": int(rng.integers(1, 33)),
        "steps_per_level": int(rng.integers(1, 7)),
        "timestep_type": ("sigma", "log_sigma")[rng.integers(2)],
        "sigma_data": None,
        "prediction_type": PREDICTIONS[rng.integers(5)],
    }
    if rng.random() < 0.5:
        options |= {"sigmas": ladder.tolist()}
    if rng.random() < 0.2:
        options |= {
            "prediction_type": ("epsilon", "v_prediction")[rng.integers(2)],
            "sigma_data": float(rng.uniform(0.2, 2)),
        }
    smallest = options.get("sigmas", [smallest])[-1]
    step_sizes = (eta * smallest**2, (eta * ladder**2).tolist(), "ncsnv2", None)
    options["step_size"] = step_sizes[rng.integers(4)]
    return options


def check_told(sampler: Any) -> None:
    """Compares the noise levels that the network is told with those of the chain.

    Raises:
        CheckFailed: a timestep stands for another level.
    """
    t = sampler.timesteps.double().numpy()
    config, levels = sampler.config, sampler.sigmas[:-1].double().numpy()
    match config.get("timestep_type", "sigma"):
        case "log_sigma":
            told = np.exp(4 * t)
        case "discrete":
            known = numbered_levels(config)
            told = np.exp(np.interp(t, np.arange(len(known)), np.log(known)))
        case "time":
            low, high = config.get("beta_min", 0.1), config.get("beta_max", 20.0)
            told = np.sqrt(np.expm1(low * t / 999 + (high - low) / 2 * (t / 999) ** 2))
        case _:
            told = t
    # Either may have been through float32.
    wrong = np.flatnonzero(~np.isclose(told, levels, rtol=1e-5, atol=0))
    if len(wrong):
        i = wrong[0]
        raise CheckFailed(
            f"timesteps[{i}] is {t[i]:g}, which stands for noise level {told[i]:g}, and "
            f"sigmas[{i}] is {levels[i]:g}"
        )
