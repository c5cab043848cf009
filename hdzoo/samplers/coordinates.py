"""Where a sampler's state lives, and how its network is asked."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.special import ndtri

from hdzoo.checks import floating, refuse
from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import check_schedule
from hdzoo.scores.clocks import (
    DISCRETE_OPTIONS,
    TIME_OPTIONS,
    Clock,
    DiscreteClock,
    clock_of,
    float_dtype,
)
from hdzoo.scores.conversions import score_weights, state_scale

# What a configuration may say of the network, whether or not a sampler's signature has it.
NETWORK_OPTIONS = (
    "prediction_type",
    "timestep_type",
    "sigma_data",
    "coordinates",
    *DISCRETE_OPTIONS,
    *TIME_OPTIONS,
)


STATE_SPACES = ("real", "signs")


class Edge(NamedTuple):
    """One evaluation at the edge between a chain and its network.

    Attributes:
        sigma: the noise level at which the network is asked.
        scale: what the state is multiplied by to be VE.
        a, b: score = ``a * prediction + b * x``, ``x`` in VE coordinates.
        scale_after: what the next state is multiplied by to be VE.
    """

    sigma: float
    scale: float
    a: float
    b: float
    scale_after: float

    def __deepcopy__(self, memo: dict[int, Any]) -> "Edge":
        # Of numbers alone; a sampler, which has one for each evaluation, is copied at every call.
        return self

    def to_ve(
        self, state: torch.Tensor, prediction: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state and its score, in VE coordinates."""
        x = state if self.scale == 1 else state * self.scale
        if self.b == 0:
            return x, prediction if self.a == 1 else prediction * self.a
        return x, (x * self.b).add_(prediction, alpha=self.a)

    def moved_by(self, alpha: float, noise: float) -> tuple[float, float, float]:
        """``x + alpha s + noise z`` in terms of the state, the prediction and ``z``: the next state
        is the sum of these three multiples of them."""
        keep = (1 + alpha * self.b) * self.scale
        return keep / self.scale_after, alpha * self.a / self.scale_after, noise / self.scale_after

    def denoised(self, state: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """The denoised state, ``x + sigma^2 s``; a prediction of it is returned as it is."""
        kept = (1 + self.sigma**2 * self.b) * self.scale
        return kept * state + self.sigma**2 * self.a * prediction


class NetworkCoordinates:
    """The edge of a chain, which is VE inside: its first state, its network's input and output.

    By ``config.coordinates`` the state is ``x`` (``"ve"``, also where it says nothing) or
    ``x / sqrt(1 + sigma^2)`` (``"vp"``), at the noise level of the next evaluation; the last state
    is a sample, and the same in both. The network is given the state as it is, so that a pipeline
    of either kind need not know.
    """

    config: Any
    levels: Sequence[float]
    state_space: str

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the first state about the data: the first noise level, 1 in VP
        coordinates."""
        return self.levels[0] if self._coordinates == "ve" else 1.0

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
        r"""Brings clean samples to a noise level: ``x0 + sigma z``, in the state's coordinates.

        In the space of signs each is kept with probability
        :math:`1 / (1 + e^{-2 / \sigma^2})` and turned over otherwise: the posterior of ``x0`` given
        the noisy signs is that given ``x0 + sigma z`` at the same point.

        Args:
            original_samples: ``x0``, shape (batch, ...).
            noise: ``z``, same shape, standard normal; signs are turned over where it is large.
            timesteps: elements of `timesteps`, shape (batch,) or (1,).
        """
        sigma = self._noise_of(original_samples, noise, timesteps)
        like = original_samples.device, original_samples.dtype
        if self.state_space == "signs":
            most = ndtri(torch.sigmoid(2 / sigma.to(float_dtype(noise.device)) ** 2))
            return torch.where(noise <= most.to(noise.device), original_samples, -original_samples)
        if self._coordinates == "ve":
            return original_samples + sigma.to(*like) * noise
        # Divided before they are added: half precision would lose the sample in the noise.
        keep = 1 / state_scale(sigma, self._coordinates)
        return keep.to(*like) * original_samples + (sigma * keep).to(*like) * noise

    def _noise_of(self, samples: Any, noise: Any, timesteps: Any) -> torch.Tensor:
        """The noise level of each sample, of as many axes as they have."""
        floating("original_samples", samples, "of shape (batch, ...)")
        floating("noise", noise, "of the shape of original_samples")
        if noise.shape != samples.shape or not samples.numel():
            raise HDZooError(
                f"original_samples has the shape {tuple(samples.shape)} and noise "
                f"{tuple(noise.shape)}; they are to have one shape, of one sample or more"
            )
        allowed = "a tensor of one number for all samples, or of one for each"
        if not isinstance(timesteps, torch.Tensor) or timesteps.numel() not in (1, len(samples)):
            refuse("timesteps", timesteps, allowed)
        if timesteps.dtype == torch.bool or timesteps.is_complex():
            refuse("timesteps", timesteps, allowed)
        sigma = self._sigma_of(timesteps)
        # To look at those on an accelerator would wait.
        if sigma.device.type == "cpu" and not ((sigma > 0) & (sigma < math.inf)).all():
            raise HDZooError(
                f"timesteps has {timesteps.flatten()[:3].tolist()}, which stand for no noise level;"
                " take some of scheduler.timesteps"
            )
        return torch.as_tensor(sigma).view(-1, *[1] * (samples.ndim - 1))

    def _levels_at(self, timesteps: Any) -> list[float]:
        """The noise levels that the network is told by some timesteps."""
        told = check_schedule("timesteps", timesteps).tolist()
        try:
            return [float(self._sigma_of(timestep)) for timestep in told]
        except HDZooError:
            raise
        except (ValueError, OverflowError) as error:
            refuse("timesteps", timesteps, "what the network can be told", error)

    def from_ve(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """A state in VE coordinates, in the sampler's own.

        Args:
            x: the state, any shape.
            sigma: its noise level.
        """
        return x / state_scale(sigma, self._coordinates)

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
        told = clock.timesteps(sigmas)
        indices = isinstance(clock, DiscreteClock) and bool((told == told.round()).all())
        dtype = torch.int64 if indices else float_dtype(device)
        return torch.from_numpy(told.copy()).to(device, dtype)

    def _edge(self, sigma: float, sigma_after: float) -> Edge:
        """An evaluation at a noise level, and the next state at another; 0 for a sample."""
        scales = (state_scale(level, self._coordinates) for level in (sigma, sigma_after))
        scale, scale_after = scales
        return Edge(sigma, scale, *self._score_weights(sigma), scale_after)

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

    def _parts(
        self, model_output: torch.Tensor, sample: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The prediction proper, and the variance of a network that predicts one beside it."""
        if model_output.shape == sample.shape:
            return model_output, None
        if self.config.get("variance_type") in ("learned", "learned_range"):
            mean, variance = model_output.chunk(2, dim=1)
            if mean.shape == sample.shape:
                return mean, variance
        raise HDZooError(
            f"the network's output has the shape {tuple(model_output.shape)} and the state "
            f"{tuple(sample.shape)}; a sampler needs a prediction for each number of the state"
        )

    @property
    def _step_is_own(self) -> bool:
        """Whether the sampler makes its steps itself, which are in VE coordinates."""
        raise NotImplementedError

    def _check_coordinates(self) -> None:
        """Refuses combinations that mean nothing."""
        state_scale(1.0, self._coordinates)
        if self.state_space not in STATE_SPACES:
            raise HDZooError(
                f"{type(self).__name__}.state_space is {self.state_space!r}; allowed are "
                + ", ".join(STATE_SPACES)
            )
        if self.state_space == "signs" and self._coordinates != "ve":
            raise HDZooError(
                f"{type(self).__name__} has states in {{-1, 1}}^d and the network is in "
                f"{self._coordinates!r} coordinates, where they are scaled; take a network in VE "
                "coordinates"
            )
        timestep_type = self.config.get("timestep_type", "sigma")
        if self._coordinates == "ve" and timestep_type in ("discrete", "time"):
            raise HDZooError(
                f"timestep_type is {timestep_type!r} with coordinates 've'; a network that is told "
                "the time of a VP process is in VP coordinates. Build the sampler by from_config "
                "from the configuration of the network's diffusers scheduler"
            )
        if self._coordinates == "ve" or not self._step_is_own:
            return
        if "coordinates" not in inspect.signature(type(self).__init__).parameters:
            raise HDZooError(
                f"{type(self).__name__} makes its steps itself, in VE coordinates, and the network "
                f"is in {self._coordinates!r}; take another sampler. (One that overrides update "
                "in place of step copes with both.)"
            )
