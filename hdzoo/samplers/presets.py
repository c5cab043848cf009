"""Samplers ready to use: ``fast``, ``balanced`` and ``best``, with their numbers of evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdzoo import plugins
from hdzoo.checks import shown
from hdzoo.errors import HDZooError

# Of the digits that the presets were found on, in the units of their noise levels.
DATA_STD = 0.3081
# Below, in units of that of the data, a first level of noise leaves them visible.
LEAST_FIRST_LEVEL = 2.0


@dataclass(frozen=True)
class Preset:
    r"""A sampler with its options and its cost: consistent annealing of second order.

    `DPMSolverPP2MSampler` with more noise than the reverse SDE has, on a short geometric ladder
    that ends early, from the noisy data's own mean and variance. Noise repairs what a learned score
    gets wrong; the second-order term makes so few evaluations enough.

    Found on `ncsn-mnist`, in its noise levels. On other networks they are multiplied by the ratio
    of the standard deviations of the data, which is a guess: `describe` says so.

    Attributes:
        name: of the preset.
        num_inference_steps: network evaluations for each image.
        sigma_max: the first noise level.
        sigma_last: the last one, at which the denoised state is the sample.
        eta: how much noise is added, by noise level, as in `DPMSolverPP2MSampler`.
        noise_scale: what the noise is multiplied by.
    """

    name: str
    num_inference_steps: int
    sigma_max: float
    sigma_last: float
    eta: Sequence[tuple[float, float]]
    noise_scale: float = 1.0

    sampler = "dpm-solver-pp-2m"

    def for_model(self, pipe: Any) -> Any:
        """The sampler for a pipeline's network: ``pipe.scheduler = preset.for_model(pipe)``.

        Args:
            pipe: an `HDPipeline`.

        Raises:
            HDZooError: it is none, the network's noise levels do not admit the preset, or nothing
                says how large its data are.
        """
        if not (hasattr(pipe, "unet") and hasattr(pipe, "scheduler")):
            raise HDZooError(
                f"a preset is for a model, and {shown(pipe)} is none; give the pipeline, such as "
                "HDPipeline.from_pretrained('ncsn-mnist')"
            )
        kind, config = plugins.get_sampler(self.sampler), pipe.scheduler.config
        if not says_range(pipe.unet):
            # A noise schedule of diffusers' becomes a range there.
            config = kind.from_config(config).config
        return kind.from_config(config, **self.options(pipe.unet, config))

    def options(self, network: Any, config: Any) -> dict[str, Any]:
        """The sampler's options on a network.

        Args:
            network: whose config has ``sigma_min`` and ``sigma_max``, or which has a ladder,
                ``sigmas``.
            config: of a sampler on it, for the noise levels of a network that says nothing itself.
        """
        scale = data_scale(network)
        own = network.config.get("data_std") is not None
        return {
            **self._ladder(network, config, scale),
            "eta": [[level * scale, eta] for level, eta in self.eta],
            "solver_type": "heun",
            "noise_scale": self.noise_scale,
            "start": "gaussian" if own else "normal",
        }

    def describe(self, pipe: Any) -> str:
        """What it is on a pipeline's network, in words: its noise levels, and where they are from.

        Args:
            pipe: as in `for_model`; so are the errors.
        """
        found = self.for_model(pipe)
        first, last = found.levels[0], found.levels[-2]
        return (
            f"{self.num_inference_steps} evaluations at noise levels from {first:.3g} to {last:.3g}"
            f", {basis(pipe.unet)}"
        )

    def _ladder(self, network: Any, config: Any, scale: float) -> dict[str, Any]:
        known = noise_range(network, config)
        first, last = min(self.sigma_max * scale, known[0]), max(self.sigma_last * scale, known[-1])
        if first < max(LEAST_FIRST_LEVEL * scale * DATA_STD, 2 * last):
            raise HDZooError(
                f"preset {self.name!r} goes down from noise that hides the data, whose standard "
                f"deviation is {scale * DATA_STD:.3g}, and {type(network).__name__} knows noise "
                f"levels from {known[0]:g} to {known[-1]:g}; take another sampler "
                "(`hdzoo samplers`)"
            )
        if getattr(network, "sigmas", None) is None:
            return {"geomspace": [first, last, self.num_inference_steps]}
        if len(known) < self.num_inference_steps:
            raise HDZooError(
                f"preset {self.name!r} asks at {self.num_inference_steps} noise levels, and "
                f"{type(network).__name__} knows {len(known)} alone; take a sampler that walks on "
                "each, such as annealed-langevin"
            )
        places = np.linspace(0, len(known) - 1, self.num_inference_steps).round().astype(int)
        sigmas = [known[i] for i in places]
        return {"sigmas": sigmas, "num_steps": self.num_inference_steps, "geomspace": None}


def says_range(network: Any) -> bool:
    """Whether a network says itself which noise levels it knows."""
    ends = (network.config.get("sigma_max"), network.config.get("sigma_min"))
    return getattr(network, "sigmas", None) is not None or None not in ends


def noise_range(network: Any, config: Any) -> list[float]:
    """The noise levels of a network, descending: its ladder, or the ends of its range.

    Args:
        network: which.
        config: of a sampler on it, for the ends that the network does not say.
    """
    if getattr(network, "sigmas", None) is not None:
        return [float(sigma) for sigma in network.sigmas]
    told = network.config if says_range(network) else config
    return [float(told["sigma_max"]), float(told["sigma_min"])]


def data_scale(network: Any) -> float:
    """What noise levels for digits are multiplied by for a network."""
    std, data_range = network.config.get("data_std"), network.config.get("data_range", (-1, 1))
    if std is None and data_range is None:
        raise HDZooError(
            f"nothing says how large the data of {type(network).__name__} are: its samples are no "
            "images, and it records no data_std; take another sampler (`hdzoo samplers`)"
        )
    # Karras et al. (arXiv 2206.00364) take 0.5 for images in [-1, 1].
    return float((data_range[1] - data_range[0]) / 4 if std is None else std) / DATA_STD


def basis(network: Any) -> str:
    """Where the noise levels of presets are from on a network, in words."""
    if getattr(network, "sigmas", None) is not None:
        return "of the network's own ladder"
    scale = data_scale(network)
    if scale == 1:
        return "as found on digits"
    known = "data_std" if network.config.get("data_std") is not None else "a guess at data_std"
    return f"those for digits times {scale:.3g}, by {known}: not measured"


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("fast", 10, 5.0, 0.15, ((1.3, 1.44), (0.0, 6.76)), 1.05),
        Preset("balanced", 20, 5.0, 0.05, ((0.0, 4.84),)),
        Preset("best", 50, 10.0, 0.01, ((0.0, 4.84),)),
    )
}

# What models are saved with whose sampler nobody has chosen.
DEFAULT_PRESET = "balanced"


def get_preset(name: str) -> Preset:
    """A sampler ready to use, by the name of its preset: ``"fast"``, ``"balanced"``, ``"best"``.

    ``pipe.scheduler = get_preset("fast").for_model(pipe)``; then ``pipe(batch_size=16)`` takes the
    preset's number of evaluations.

    Args:
        name: which.

    Raises:
        HDZooError: there is none of that name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        allowed = ", ".join(
            f"{preset.name} ({preset.num_inference_steps} evaluations)"
            for preset in PRESETS.values()
        )
        raise HDZooError(f"there is no preset {shown(name)}; there are {allowed}")
    return PRESETS[name]
