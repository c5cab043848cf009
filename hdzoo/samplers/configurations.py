"""Configurations that come from another sampler, of ours or of diffusers."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import diffusers
from diffusers import ConfigMixin, SchedulerMixin

from hdzoo import plugins
from hdzoo.bundled import LoadedByName
from hdzoo.errors import HDZooError
from hdzoo.samplers.coordinates import NETWORK_OPTIONS
from hdzoo.scores.clocks import TimeClock, discrete_clock

# What diffusers' schedulers take for granted of the network.
_DIFFUSERS_VE: dict[str, dict[str, Any]] = {
    "ScoreSdeVeScheduler": {"prediction_type": "score", "timestep_type": "sigma"},
    "KarrasVeScheduler": {"prediction_type": "scaled_score", "timestep_type": "sigma"},
    "EDMEulerScheduler": {"timestep_type": "log_sigma"},
    "EDMDPMSolverMultistepScheduler": {"timestep_type": "log_sigma"},
}
_CONTINUOUS_VP = "ScoreSdeVpScheduler"
_DIFFUSERS_VP = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)

# Those that step in x = x0 + sigma z, and ask at the levels of their attribute ``sigmas``:
# HDPipeline translates between them and a network in VE coordinates.
SIGMA_SPACE = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
)
# Those that step in (x0 + sigma z) / sqrt(1 + sigma^2), and have such ``sigmas`` too: likewise.
# Others of this kind (DEIS, SA-Solver) have no step to sigma = 0.
SCALED_SIGMA_SPACE = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
)
# Those that draw samples with a network that is told an index; the rest of the VP ones go from
# images to noise, or need a mask.
DRAWING_VP = tuple(
    name for name in _DIFFUSERS_VP if "Inverse" not in name and name != "RePaintScheduler"
)

# A configuration has its class's name only once it has been printed or saved, and that may be one
# of the user's own. So the options tell: the first that is there.
_TELLTALE_OPTIONS = {
    "beta_min": _CONTINUOUS_VP,
    "sampling_eps": "ScoreSdeVeScheduler",
    "s_churn": "KarrasVeScheduler",
    "clip_denoised": "a scheduler of consistency models",
    "rho": "EDMEulerScheduler",
    "sigma_schedule": "a scheduler of a cosine clock",
    "original_inference_steps": "a scheduler of distilled models",
    "snr_shift_scale": "a CogVideoX scheduler",
    "beta_schedule": "DDPMScheduler",
    "trained_betas": "IPNDMScheduler",
    "use_dynamic_shifting": "a flow-matching scheduler",
    "shift": "a flow-matching scheduler",
}

# At this noise nothing is left of data in [-1, 1]. Cosine schedules go on to 20,000, and those of
# zero terminal signal for ever: a ladder would spend most of its rungs there.
ENOUGH_NOISE = 200.0


def with_assumptions(config: dict[str, Any]) -> dict[str, Any]:
    """Adds what a diffusers scheduler takes for granted of the network; refuses those unfit.

    Args:
        config: of any sampler.

    Returns:
        The same with what is missing. What the configuration says already is from the sampler that
        it was before.

    Raises:
        HDZooError: its scheduler is for models of another kind.
    """
    # One of ours, maybe by way of diffusers.
    if config.get("timestep_type") in ("sigma", "log_sigma", "time"):
        return config
    if config.get("timestep_type") == "discrete" and config.get("coordinates") == "vp":
        return _noise_schedule(config, continuous=False)
    name = _origin(config)
    if name is None:
        return config
    if name in _DIFFUSERS_VE:
        return _DIFFUSERS_VE[name] | config
    flows = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if name not in (_CONTINUOUS_VP, *_DIFFUSERS_VP) or flows:
        raise HDZooError(
            f"the configuration of {name}{' for flow matching' if flows else ''} does not describe "
            "a variance-exploding or variance-preserving model, which these samplers are for; from "
            f"diffusers, {', '.join((*_DIFFUSERS_VE, *_DIFFUSERS_VP))} do. Take one of that "
            "pipeline's own schedulers"
        )
    return _noise_schedule(config, continuous=name == _CONTINUOUS_VP)


def _origin(config: dict[str, Any]) -> str | None:
    """The scheduler of diffusers' that a configuration is of, or what kind it is; None for ours."""
    name = str(config.get("_class_name"))
    # Else an option of a plugin's, called like one of diffusers', would tell.
    if name in {sampler.__name__ for sampler in _registered()}:
        return None
    if name != _CONTINUOUS_VP and hasattr(diffusers, name):
        return name
    return next((kind for option, kind in _TELLTALE_OPTIONS.items() if option in config), None)


def _noise_schedule(config: dict[str, Any], continuous: bool) -> dict[str, Any]:
    """Adds the ladder's ends, and how a VP network is asked."""
    if continuous:
        clock = TimeClock(*(config[key] for key in ("beta_min", "beta_max") if key in config))
        end = config.get("sampling_eps", 1e-3)
        low, high = (clock.sigma(clock.factor * t) for t in (end, 1.0))
    else:
        sigmas = discrete_clock(config).sigmas
        low, high = sigmas[0], max(sigmas[0], sigmas[sigmas <= ENOUGH_NOISE][-1])
    ends = {"sigma_max": float(high), "sigma_min": float(low)}
    return {
        "prediction_type": "epsilon",
        "timestep_type": "time" if continuous else "discrete",
        "coordinates": "vp",
        **config,
        # diffusers writes None for what a scheduler finds for itself.
        **{key: value for key, value in ends.items() if config.get(key) is None},
    }


def _registered() -> Iterator[type[SchedulerMixin]]:
    for name in plugins.list_samplers():
        # One that cannot be imported is no reason to be silent about the others.
        with suppress(HDZooError):
            yield plugins.get_sampler(name)


def compatible_classes(config: Mapping[str, Any]) -> Iterator[type[SchedulerMixin]]:
    """The schedulers that draw with a network.

    Args:
        config: of a sampler for it.
    """
    yield from _registered()
    names: Iterable[str] = ()
    if config.get("coordinates", "ve") == "ve":
        names = (*SIGMA_SPACE, *SCALED_SIGMA_SPACE)
    elif config.get("timestep_type") == "discrete":
        names = DRAWING_VP
    for name in names:
        scheduler = getattr(diffusers, name)
        # A dummy stands for a class whose own dependencies are missing.
        if issubclass(scheduler, SchedulerMixin) and _takes_over(scheduler, config):
            yield scheduler


def _takes_over(scheduler: type[SchedulerMixin], config: Mapping[str, Any]) -> bool:
    """Whether a scheduler can be built of a configuration: EDM's take no ``rho`` of None."""
    takes_rho = "rho" in inspect.signature(scheduler.__init__).parameters
    return not takes_rho or config.get("rho", 7.0) is not None


def keep_own_step_size(
    config: dict[str, Any], others_mark: str, others: str, own: str
) -> dict[str, Any]:
    """Keeps apart the step sizes of the two families, epsilon on a ladder and alpha at one level.

    One carried over as the other would be off by the square of a ratio of noise levels. So a
    configuration of the other family (it has the option ``others_mark``) puts its ``step_size``
    away as ``others``, and gets back what was put away as ``own``.
    """
    if others_mark not in config or others in config:
        return config
    kept = {key: value for key, value in config.items() if key not in ("step_size", own)}
    kept[others] = config.get("step_size")
    return kept | ({"step_size": config[own]} if own in config else {})


def keep_own_solver_type(config: dict[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """Keeps apart the options ``solver_type`` of solvers whose words for it are others.

    Another's is put away as ``other_solver_type``; what was put away is got back if it is one's
    own, else the first is taken.
    """
    given, other = config.get("solver_type", own[0]), config.get("other_solver_type")
    if given in own:
        return config
    return config | {"solver_type": other if other in own else own[0], "other_solver_type": given}


class Configured(LoadedByName, SchedulerMixin, ConfigMixin):
    """A sampler that is built from the configuration of any sampler, ours or diffusers'."""

    @property
    def compatibles(self) -> list[type[SchedulerMixin]]:
        """The scheduler classes that draw with the network that this sampler is for.

        Each is built by its ``from_config`` from this sampler's ``config``, and back.
        """
        return list(compatible_classes(self.config))

    def register_to_config(self, **kwargs: Any) -> None:
        # diffusers forgets what is at its default when another class takes a configuration over;
        # of a network, nothing may be forgotten.
        kwargs.pop("_use_default_values", None)
        said = {"prediction_type": "score", "timestep_type": "sigma"}
        known = getattr(self, "_internal_dict", {})
        super().register_to_config(**{k: v for k, v in said.items() if k not in known} | kwargs)

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Translates the options that another sampler calls alike but means otherwise.

        Args:
            config: of any sampler.

        Returns:
            The same in this sampler's terms, with nothing lost.
        """
        return config

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Builds this sampler from the configuration of any sampler, ours or diffusers'.

        Options that the two share are taken over, those left at the other's defaults too; the rest
        is kept in the configuration, so that going back loses nothing. A step size is taken over
        among samplers on a ladder, and among those at a single level.

        A diffusers scheduler with a ``beta_schedule`` stands for a VP network that is told the
        index of a noise level: the sampler gets ``coordinates="vp"``, and a ladder between the
        noise levels that the network was trained at, unless ``sigma_max`` or ``sigma_min`` are
        given. What is about the other scheduler's own chain has no effect here:
        ``timestep_spacing``, ``steps_offset``, ``clip_sample``, ``thresholding``...; predictions
        are not clipped.

        Args:
            config: a scheduler's ``config``.
            return_unused_kwargs: whether to return them as well.
            **kwargs: options to override, those of the network (`NETWORK_OPTIONS`) too.

        Raises:
            HDZooError: an option is unknown or has a wrong type, or the configuration is that of a
                diffusers scheduler that does not fit.
        """
        known = set(inspect.signature(cls.__init__).parameters) - {"self"}
        unknown = sorted(set(kwargs) - known - {*NETWORK_OPTIONS} - _LOADING_OPTIONS)
        if unknown:
            raise HDZooError(
                f"{cls.__name__} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        if not isinstance(config, Mapping):
            raise HDZooError(
                f"from_config is given {type(config).__name__!r}; it takes a configuration, such "
                "as scheduler.config. A folder or a model is loaded by from_pretrained"
            )
        told = {key: kwargs.pop(key) for key in NETWORK_OPTIONS if key in kwargs}
        config = cls.adopt(with_assumptions(dict(config) | told))
        # diffusers forgets the options that the other class left at its own defaults, and warns of
        # those that this class does not have; so they are added afterwards. Only then is it known
        # what a network of a noise schedule is told.
        own = {key: value for key, value in config.items() if key in known}
        foreign = config | {"_class_name": cls.__name__}
        for key in known | {"_use_default_values"}:
            foreign.pop(key, None)
        in_noise_schedule = own.get("timestep_type") in ("discrete", "time")
        if in_noise_schedule:
            foreign["timestep_type"] = own.pop("timestep_type")
        try:
            sampler, unused = super().from_config(own, return_unused_kwargs=True, **kwargs)
        except TypeError as error:
            raise HDZooError(
                f"an option of {cls.__name__} has a wrong type: {error}; given are "
                + ", ".join(f"{key}={value!r}" for key, value in (own | kwargs).items())
            ) from error
        sampler.register_to_config(**foreign)
        if not set(NETWORK_OPTIONS).isdisjoint(foreign):
            sampler.set_timesteps()
        return (sampler, unused | foreign) if return_unused_kwargs else sampler


_LOADING_OPTIONS = {"_commit_hash", "_from_auto", "_from_pipeline"}
