"""diffusers' schedulers that have noise levels of their own, on a network in VE coordinates."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.pipelines.walk import taken
from hdzoo.samplers.base import SamplerOutput
from hdzoo.samplers.configurations import SCALED_SIGMA_SPACE
from hdzoo.samplers.coordinates import NetworkCoordinates
from hdzoo.samplers.ladders import check_ladder, geometric_ladder, whole_number
from hdzoo.samplers.noise import Generator
from hdzoo.scores.conversions import state_scale
from hdzoo.text import counted


class SigmaSpaceChain(NetworkCoordinates):
    r"""One chain of a scheduler that has ``sigmas``, as `Walk` runs it.

    Such a scheduler steps in :math:`x = x_0 + \sigma z` and divides its network's input by
    :math:`\sqrt{\sigma^2 + \sigma_d^2}`, or it steps in :math:`x / \sqrt{1 + \sigma^2}`
    throughout; it takes the output for noise, and asks at the noise levels of a DDPM. Here the
    network is given the state and told the noise level as it was trained to; the scheduler gets the
    noise that follows from the prediction, :math:`z = -\sigma s(x, \sigma)`, and noise levels that
    the network knows.

    They are, whatever the scheduler's own are: those given; else rungs of the network's ladder,
    evenly by index; else from ``sigma_max`` to ``sigma_min``, of the scheduler's configuration or
    else of the network's, on the curve of Karras et al. (arXiv 2206.00364, equation 5), or on a
    geometric one if the configuration says ``exponential``; else the scheduler's.

    Args:
        scheduler: one of ``SIGMA_SPACE`` or ``SCALED_SIGMA_SPACE`` in
            `hdzoo.samplers.configurations`; left alone.
        network: a score network.
        told: what it predicts and how it is told the noise level, as in a sampler's configuration.
        num_inference_steps: steps of the scheduler. At each it asks the network once, and
            `HeunDiscreteScheduler` twice, but for the last.
        sigmas: the noise level of each step, descending.
        device: of the state.

    Raises:
        HDZooError: an argument is out of its range.
    """

    state_space = "real"
    starts_from_noise = True

    def __init__(
        self,
        scheduler: Any,
        network: Any,
        told: Mapping[str, Any],
        num_inference_steps: int | None,
        sigmas: Sequence[float] | None,
        device: str | torch.device | None,
    ) -> None:
        self.config = dict(told)
        self.scheduler = inner = deepcopy(scheduler)
        levels = self._ladder(network, num_inference_steps, sigmas)
        if levels is not None:
            num_inference_steps = len(levels)
        elif num_inference_steps is None:
            raise HDZooError(
                f"num_inference_steps is None, and {type(scheduler).__name__} has no number of its "
                "own; give one"
            )
        final = inner.config.get("final_sigmas_type", "zero")
        # With 1 in place of the standard deviation of the data, the least is lost by rounding.
        inner.register_to_config(
            prediction_type="epsilon",
            sigma_data=1.0,
            final_sigmas_type="zero",
            timestep_type="discrete",
        )
        inner.set_timesteps(whole_number(num_inference_steps, "num_inference_steps"))
        if levels is not None:
            # Heun's has each noise level but the first twice.
            own, places = torch.unique_consecutive(inner.sigmas, return_inverse=True)
            if len(own) != len(levels) + 1:
                raise HDZooError(
                    f"num_inference_steps is {num_inference_steps}, and {type(scheduler).__name__} "
                    f"has {len(own) - 1} noise levels for it; ask for fewer steps"
                )
            last = 0.0 if final == "zero" else levels[-1]
            inner.sigmas = torch.tensor([*levels, last], dtype=torch.float32)[places]
        inner.register_to_config(final_sigmas_type=final)
        inner.set_begin_index(0)
        self.sigmas = inner.sigmas
        self.levels = inner.sigmas.tolist()
        lives = {base.__name__ for base in type(scheduler).__mro__}
        coordinates = "ve" if lives.isdisjoint(SCALED_SIGMA_SPACE) else "vp"
        self._scales = [state_scale(sigma, coordinates) for sigma in self.levels]
        self.timesteps = self._timesteps_of(self.levels[:-1], device)
        self._taken = taken(inner.step, ("generator", "return_dict"))
        self._step_index = 0

    def _ladder(
        self, network: Any, num_inference_steps: int | None, sigmas: Sequence[float] | None
    ) -> list[float] | None:
        """The noise level of each step; None for the scheduler's own."""
        asked = num_inference_steps
        if sigmas is not None:
            if asked not in (None, len(sigmas)):
                raise HDZooError(
                    f"num_inference_steps is {asked} and sigmas has "
                    f"{counted(len(sigmas), 'noise level')}; leave one of them out"
                )
            return check_ladder(sigmas)
        config, of_network = self.scheduler.config, network.config
        for option in ("use_beta_sigmas", "use_lu_lambdas"):
            if config.get(option):
                raise HDZooError(
                    f"{option} is for the noise levels of a DDPM, which this network does not "
                    "know; take use_karras_sigmas or use_exponential_sigmas, or give sigmas"
                )
        ends = [config.get(name) or of_network.get(name) for name in ("sigma_max", "sigma_min")]
        rungs = getattr(network, "sigmas", None)
        if rungs is not None and of_network.get("sigma_rounding", "strict") == "strict":
            high, low = ends
            kept = [s for s in rungs.tolist() if 0.999 * low <= s <= 1.001 * high]
            count = len(kept) if asked is None else whole_number(asked, "num_inference_steps")
            if count > len(kept):
                raise HDZooError(
                    f"num_inference_steps is {asked}, and the network knows {len(kept)} noise "
                    f"levels from {high:g} to {low:g}; {type(self.scheduler).__name__} asks at "
                    "each once, so at most so many"
                )
            return [kept[round(i * (len(kept) - 1) / max(1, count - 1))] for i in range(count)]
        if asked is None or None in ends:
            return None
        high, low = ends
        count = whole_number(asked, "num_inference_steps")
        ladder = geometric_ladder(high, low, max(2, count))
        if config.get("use_exponential_sigmas") or config.get("sigma_schedule") == "exponential":
            return ladder[:count]
        root = 1 / config.get("rho", 7.0)
        step = (low**root - high**root) / max(1, count - 1)
        return [(high**root + i * step) ** (1 / root) for i in range(count)]

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> SamplerOutput | tuple[torch.Tensor]:
        """One step of the scheduler; arguments and result as in `Sampler.step`."""
        k, inner = self._step_index, self.scheduler
        sigma = self.levels[k]
        prediction, _ = self._parts(model_output, sample)
        x, score = self._edge(sigma, self.levels[k + 1]).to_ve(sample, prediction.to(sample.dtype))
        noise = -sigma * score
        if hasattr(inner, "precondition_outputs"):
            # It will multiply by c_out and add c_skip x.
            total = (sigma**2 + 1) ** 0.5
            noise = (sigma / total) * x - total * noise
        t = inner.timesteps[k]
        scale, scale_after = self._scales[k : k + 2]
        inner.scale_model_input(x, t)
        arguments = {"generator": generator, "return_dict": False}
        given = {name: value for name, value in arguments.items() if name in self._taken}
        moved = (scale_after * inner.step(noise, t, x / scale, **given)[0]).to(sample.dtype)
        self._step_index = k + 1
        if not return_dict:
            return (moved,)
        return SamplerOutput(
            prev_sample=moved, pred_original_sample=x + sigma**2 * score, score=score
        )
