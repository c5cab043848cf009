"""What the network gives beside its prediction."""

from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.verification.chain import EXTRAS, first_state, network, run, seeded
from hdzoo.verification.checks import CheckFailed, during, must_refuse
from hdzoo.verification.small import fewest, small_sampler, watched


def extras(sampler_class: type[Any]) -> str:
    """A sampler that needs more than the network's prediction says so, and is refused without.

    ``needs`` and ``uses`` name what a network may give beside it: ``"energy"``, ``"variance"``.
    Without what it needs, its step is refused, and so is `HDPipeline`, before the network is asked
    and before anything is drawn. Without what it only uses, it runs.
    """
    sampler = watched(sampler_class)
    needs, uses = (tuple(getattr(sampler_class, name, ())) for name in ("needs", "uses"))
    for name in (*needs, *uses):
        if name not in EXTRAS:
            raise CheckFailed(
                f"it asks for the network's {name!r} (needs, uses); networks give "
                + ", ".join(EXTRAS)
            )
    if not needs and not uses:
        return "asks for nothing beside the prediction"
    sampler.set_timesteps(fewest(sampler))
    state, t = first_state(sampler, 2, 3), sampler.timesteps[0]
    if not needs:
        with during(f"without the network's {', '.join(uses)}, which it only uses"):
            for t in sampler.timesteps:
                output = network(sampler, state, t)
                state = sampler.step(output, t, state, generator=seeded(0)[0]).prev_sample
        return f"runs with {', '.join(uses)}, and without"
    must_refuse(
        f"it needs {', '.join(needs)}",
        f"a step without the network's {', '.join(needs)}",
        ValueError,
        sampler.step,
        *(network(sampler, state, t), t, state),
        generator=seeded(0)[0],
    )
    _check_pipeline_refuses(sampler_class, needs)
    run(watched(sampler_class, fewest(sampler)), state, seeded(0)[0])
    return f"runs with {', '.join(needs)}, and is refused without"


def _check_pipeline_refuses(sampler_class: type[Any], needs: tuple[str, ...]) -> None:
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.targets.mixture import GaussianMixtureScore

    class Silent(GaussianMixtureScore):
        """A network that gives its prediction alone."""

        provides: Any = ()

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("it is asked")

    sampler = small_sampler(
        sampler_class, prediction_type="score", timestep_type="sigma", sigma_data=None
    )
    (generator,) = seeded(0)
    before = generator.get_state()
    try:
        HDPipeline(Silent((2,)), sampler)(latents=torch.ones(1, 2), generator=generator)
    except HDZooError:
        pass
    except Exception as error:
        raise CheckFailed(
            f"HDPipeline on a network that does not give {', '.join(needs)} raised "
            f"{type(error).__name__}: {error}; it must refuse it before anything is asked or drawn"
        ) from error
    else:
        raise CheckFailed(f"HDPipeline takes a network that does not give {', '.join(needs)}")
    if not torch.equal(generator.get_state(), before):
        raise CheckFailed("HDPipeline draws something before it refuses the network")
