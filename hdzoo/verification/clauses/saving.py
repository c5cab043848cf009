"""Configurations: what is saved and loaded, alone and in a pipeline."""

import json
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.verification.chain import Step, first_state, on_signs, run, same_chains, seeded
from hdzoo.verification.checks import CheckFailed, during, listed, same_bits
from hdzoo.verification.small import Watched, fewest, option_names, options_of, small_sampler


def save_load(sampler_class: type[Any]) -> str:
    """A sampler saved and loaded, or built from its configuration, is the same sampler.

    All options are in ``config``, whatever their value; the chain is the same bit for bit;
    ``from_config`` changes the options it is told to and no other. By way of the configuration of
    ``annealed-langevin`` and back, none is lost: an option called like one of hdzoo's means the
    same, and is allowed the same values.
    """
    from hdzoo.plugins import get_sampler

    base = small_sampler(sampler_class)
    changes = list(_changes(sampler_class, base))
    for change in ({}, *changes):
        sampler = sampler_class(**_given(base) | change)
        options = _options(sampler, change)
        with during(f"with {listed(change)}" if change else "as built"):
            with tempfile.TemporaryDirectory() as folder:
                Watched(sampler).save_pretrained(folder)
                loaded = Watched(sampler_class).from_pretrained(folder)
            chain = _short_chain(sampler)
            _check_same_sampler(loaded, sampler, options, chain, "saved and loaded")
            try:
                between = get_sampler("annealed-langevin").from_config(sampler.config)
            except HDZooError as error:
                raise CheckFailed(
                    f"annealed-langevin's from_config refuses the configuration: {error}. An "
                    "option called like one of hdzoo's must mean the same; rename one that does not"
                ) from error
            back = Watched(sampler_class).from_config(between.config)
            way = "by way of annealed-langevin and back"
            _check_same_sampler(back, sampler, options, chain, way)
            built = Watched(sampler_class).from_config(base.config, **change)
            _check_same_sampler(built, sampler, options, chain, "by from_config")
    return f"{len(options)} options, {len(changes)} ways to change them"


def _changes(sampler_class: type[Any], base: Any) -> Iterator[dict[str, Any]]:
    """Another value for each option, where one is known that the sampler takes."""
    choices = getattr(sampler_class, "option_choices", {})
    words: dict[str, list[Any]] = {
        "sigmas": [[2.0, 1.0, 0.5, 0.3, 0.2, 0.1]],
        "prediction_type": ["epsilon", "sample", "score"],
        "timestep_type": ["log_sigma", "sigma"],
    }
    given = _given(base)
    # A preconditioned network predicts no score.
    preconditioned = {"sigma_data": 0.5, "prediction_type": "epsilon"}
    if set(preconditioned) <= set(given) and _takes(sampler_class, given | preconditioned):
        yield preconditioned
    for name, value in given.items():
        candidates = [*choices.get(name, []), *words.get(name, [])]
        if isinstance(value, bool):
            candidates.append(not value)
        elif isinstance(value, int):
            candidates.append(value + 1)
        elif isinstance(value, float):
            candidates += [0.9 * value, 1.1 * value]
        for candidate in candidates:
            if candidate != value and _takes(sampler_class, given | {name: candidate}):
                yield {name: candidate}
                break


def _takes(sampler_class: type[Any], options: dict[str, Any]) -> bool:
    try:
        sampler_class(**options)
    except Exception:  # a guess, whose refusal says nothing
        return False
    return True


def _given(sampler: Any) -> dict[str, Any]:
    """A sampler's options; raises a `CheckFailed` if its configuration lacks one."""
    options = options_of(sampler)
    for name in option_names(type(sampler)):
        if name not in options:
            raise CheckFailed(
                f"the option {name} is not in the configuration, and is lost on saving; decorate "
                "__init__ with diffusers' register_to_config"
            )
    return options


def _options(sampler: Any, given: dict[str, Any]) -> dict[str, str]:
    """The options in a configuration, as JSON, in which a tuple is a list."""
    options = _given(sampler)
    for name, value in given.items():
        if options[name] != value:
            raise CheckFailed(f"{name}={value!r} is in the configuration as {options[name]!r}")
    return {name: json.dumps(value, default=repr) for name, value in options.items()}


def _short_chain(sampler: Any) -> list[Step]:
    """A chain of few steps; the sampler is left as it was built."""
    one = Watched(sampler)
    one.set_timesteps(fewest(one) + 3)
    steps = run(one, first_state(one, 2, 3), seeded(0)[0])
    one.set_timesteps()
    return steps


def _check_same_sampler(
    found: Any, sampler: Any, options: dict[str, str], chain: list[Step], what: str
) -> None:
    for name, value in _options(found, {}).items():
        if value != options[name]:
            raise CheckFailed(f"{what}, the option {name} is {value}; it must be {options[name]}")
    if not torch.equal(found.timesteps, sampler.timesteps):
        raise CheckFailed(f"{what}, the sampler has other timesteps")
    same_chains(_short_chain(found), chain, f"{what}, the sampler's states and the original's")


def pipeline(sampler_class: type[Any]) -> str:
    """The sampler runs in `HDPipeline` on an exact score, and is saved and loaded with it.

    The network is asked ``num_inference_steps`` times. The pipeline loaded again draws the same
    bits, and with one generator for each sample a batch of 3 is the first 3 of a batch of 5.
    """
    from hdzoo.pipelines.generators import sample_generators
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.targets.mixture import GaussianMixtureScore

    signs = on_signs(sampler_class)
    sampler = small_sampler(
        sampler_class, prediction_type="score", timestep_type="sigma", sigma_data=None
    )
    steps = max(5, fewest(Watched(sampler)))
    mean, covariance = ([1.0, -1.0], 0.0) if signs else ([1.0, -0.5], [[[0.5, 0.2], [0.2, 0.3]]])
    model = GaussianMixtureScore.from_components([mean], covariance)
    pipe = HDPipeline(model, sampler)
    asked: list[int] = []
    model.register_forward_hook(lambda *_: asked.append(1))
    start: torch.Tensor | None = None
    if not getattr(sampler_class, "starts_from_noise", True):
        clean, z = model.sample(5, seeded(0)[0]).float(), torch.randn(5, 2, generator=seeded(1)[0])
        start = Watched(sampler).add_noise(clean, z, Watched(sampler).timesteps[:1])

    def draw(pipe: Any, count: int) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        try:
            samples: torch.Tensor = pipe(
                batch_size=count,
                num_inference_steps=steps,
                generator=sample_generators(0, range(count)),
                latents=None if start is None else start[:count],
            ).images
        except Exception as error:
            raise CheckFailed(
                f"HDPipeline with it raised {type(error).__name__}: {error}"
            ) from error
        return samples

    five = draw(pipe, 5)
    if len(asked) != steps:
        raise CheckFailed(
            f"HDPipeline asks the network {len(asked)} times for num_inference_steps={steps}"
        )
    # Products of matrices may be summed in another order in another batch.
    if not torch.allclose(draw(pipe, 3), five[:3], rtol=1e-4, atol=1e-4):
        raise CheckFailed(
            "a batch of 3 is not the first 3 of a batch of 5, with one generator for each sample"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            pipe.save_pretrained(folder)
            loaded = HDPipeline.from_pretrained(folder)
        except Exception as error:
            raise CheckFailed(
                f"a pipeline with this sampler cannot be saved and loaded: {error}"
            ) from error
    if type(loaded.scheduler) is not sampler_class:
        raise CheckFailed(
            f"saved and loaded, the pipeline's sampler is {type(loaded.scheduler).__name__}"
        )
    same_bits(draw(loaded, 5), five, "samples of the pipeline, and of the same saved and loaded,")
    return f"{steps} steps; batches of 3 and 5; saved and loaded"
