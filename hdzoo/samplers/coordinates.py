"""Where a sampler's state lives, and how its network is asked."""

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.scores.clocks import (
    DISCRETE_OPTIONS,
    TIME_OPTIONS,
    Clock,
    DiscreteClock,
    clock_of,
    float_dtype,
)
from hdzoo.scores.conversions import score_weights, state_scale

if TYPE_CHECKING:
    from hdzoo.samplers.base import Move

# What a configuration may say of the network, whether or not a sampler's signature has it.
NETWORK_OPTIONS = (
    "prediction_type",
    "timestep_type",
    "sigma_data",
    "coordinates",
    *DISCRETE_OPTIONS,
    *TIME_OPTIONS,
)


class NetworkCoordinates:
    """The edge of a chain, which is VE inside: its first state, its network's input and output.

    By ``config.coordinates`` the state is ``x`` (``"ve"``, also where it says nothing) or
    ``x / sqrt(1 + sigma^2)`` (``"vp"``), at the noise level of the next evaluation; the last state
    is a sample, and the same in both. The network is given the state as it is, so that a pipeline
    of either kind need not know.
    """

    config: Any
    moves: list["Move"]

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the first state about the data: the first noise level, 1 in VP
        coordinates."""
        return self.moves[0].sigma if self._coordinates == "ve" else 1.0

    def scale_model_input(
        self, sample: torch.Tensor, timestep: float | torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the network is given: the state itself, or with ``sigma_data`` the state divided by
        ``sqrt(sigma^2 + sigma_data^2)``."""
        sigma_data = self.config.get("sigma_data")
        if sigma_data is None or timestep is None:
            return sample
        return sample / (self._sigma_of(timestep) ** 2 + sigma_data**2) ** 0.5

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Brings clean samples to a noise level: ``x0 + sigma z``, in the state's coordinates.

        Args:
            original_samples: ``x0``, shape (batch, ...).
            noise: ``z``, same shape.
            timesteps: elements of `timesteps`, shape (batch,) or (1,).
        """
        sigma = self._sigma_of(timesteps).view(-1, *[1] * (original_samples.ndim - 1))
        like = original_samples.device, original_samples.dtype
        if self._coordinates == "ve":
            return original_samples + sigma.to(*like) * noise
        # Divided before they are added: half precision would lose the sample in the noise.
        keep = 1 / state_scale(sigma, self._coordinates)
        return keep.to(*like) * original_samples + (sigma * keep).to(*like) * noise

    @property
    def _coordinates(self) -> str:
        return str(self.config.get("coordinates", "ve"))

    @property
    def _clock(self) -> Clock:
        return clock_of(self.config)

    def _sigma_of(self, timestep: Any) -> Any:
        return self._clock.sigma(timestep)

    def _timesteps_of(
        self, sigmas: Sequence[float], device: str | torch.device | None
    ) -> torch.Tensor:
        """What the network is told at each noise level; integers where all are indices, for
        networks that look them up in a table."""
        clock = self._clock
        told = [clock.timestep(sigma) for sigma in sigmas]
        indices = isinstance(clock, DiscreteClock) and all(t.is_integer() for t in told)
        dtype = torch.int64 if indices else float_dtype(device)
        return torch.tensor(told, dtype=dtype, device=device)

    def _state_scale(self, sigma: float) -> float:
        """What the state at a noise level is multiplied by to be VE."""
        return state_scale(sigma, self._coordinates)

    def _score_weights(self, sigma: float) -> tuple[float, float]:
        """``(a, b)`` with score = a * model_output + b * x."""
        sigma_data = self.config.get("sigma_data")
        prediction_type = self.config.get("prediction_type", "score")
        if sigma_data is None:
            return score_weights(prediction_type, sigma, self._coordinates)
        signs = {"epsilon": 1, "v_prediction": -1}
        if prediction_type not in signs:
            raise HDZooError(
                f"prediction_type {prediction_type!r} does not go with sigma_data, "
                "which stands for Karras' preconditioning; allowed are " + ", ".join(signs)
            )
        if not sigma_data > 0:
            raise HDZooError(f"sigma_data is {sigma_data}; it must be positive, or None")
        if self._coordinates != "ve":
            raise HDZooError(
                f"sigma_data is {sigma_data} with coordinates {self._coordinates!r}; Karras' "
                "preconditioning is of networks in VE coordinates, so set it to None"
            )
        total = sigma**2 + sigma_data**2
        sign = signs[prediction_type]
        return sign * sigma_data / (sigma * math.sqrt(total)), -1 / total

    def _coefficients_of(self, move: "Move", scale_after: float) -> tuple[float, float, float]:
        """The move in terms of the state, the network's output, and fresh noise.

        Args:
            move: the move.
            scale_after: what the next state is multiplied by to be VE.
        """
        a, b = self._score_weights(move.sigma)
        keep = (1 + move.alpha * b) * self._state_scale(move.sigma)
        return keep / scale_after, move.alpha * a / scale_after, move.noise / scale_after

    def _mean_part(self, model_output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The prediction proper, of a network that may predict a variance beside it."""
        if model_output.shape == sample.shape:
            return model_output
        if self.config.get("variance_type") in ("learned", "learned_range"):
            mean = model_output.chunk(2, dim=1)[0]
            if mean.shape == sample.shape:
                return mean
        raise HDZooError(
            f"the network's output has the shape {tuple(model_output.shape)} and the state "
            f"{tuple(sample.shape)}; a sampler needs a prediction for each number of the state"
        )

    def _check_coordinates(self, step_is_own: bool) -> None:
        """Refuses combinations that mean nothing.

        Args:
            step_is_own: whether the sampler makes its steps itself, which are in VE coordinates.
        """
        state_scale(1.0, self._coordinates)
        timestep_type = self.config.get("timestep_type", "sigma")
        if self._coordinates == "ve" and timestep_type in ("discrete", "time"):
            raise HDZooError(
                f"timestep_type is {timestep_type!r} with coordinates 've'; a network that is told "
                "the time of a VP process is in VP coordinates. Build the sampler by from_config "
                "from the configuration of the network's diffusers scheduler"
            )
        names = inspect.signature(type(self).__init__).parameters
        if self._coordinates != "ve" and step_is_own and "coordinates" not in names:
            raise HDZooError(
                f"{type(self).__name__} makes its steps itself, in VE coordinates, and the network "
                f"is in {self._coordinates!r}; take another sampler. (A sampler that copes with "
                "both names the option coordinates in its __init__.)"
            )
