"""The papers' settings for each data set: image size, ladder, and how samples are drawn."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hdzoo.checks import POSITIVE, Flag, Number, refuse
from hdzoo.conversion.config_file import AuthorsConfig
from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import EVALUATIONS


@dataclass(frozen=True)
class Setting:
    """What a paper did on a data set.

    Attributes:
        family: of the networks: ``"ncsn"``, ``"ncsnv2"`` or ``"ncsnpp"``.
        dataset: its short name.
        in_channels: channels of the images.
        sample_size: their height and width in pixels.
        sigma_max: the largest noise level; the smallest is 0.01 in all of them.
        num_levels: number of noise levels, in geometric progression.
        steps_per_level: network evaluations on each.
        step_size: ``alpha`` on the last level.
    """

    family: str
    dataset: str
    in_channels: int
    sample_size: int
    sigma_max: float
    num_levels: int
    steps_per_level: int
    step_size: float

    def has_ladder(self, ladder: list[float]) -> bool:
        """Whether these are its noise levels, by their ends and their number."""
        ends = zip((ladder[0], ladder[-1]), (self.sigma_max, 0.01), strict=True)
        return len(ladder) == self.num_levels and all(
            math.isclose(one, other, rel_tol=1e-4) for one, other in ends
        )


def corrector_step_size(snr: float, sigma_min: float = 0.01) -> float:
    """The step size of a Langevin corrector with this signal-to-noise ratio, on the last level.

    Source: Song et al. (arXiv 2011.13456), Algorithm 4, ``2 (snr |z| / |s|)^2``, with the norm
    ``|z| / sigma`` that the score has where the data are thin.
    """
    return 2 * (snr * sigma_min) ** 2


SETTINGS = (
    # Song and Ermon (arXiv 1907.05600), section 5 and appendix B.
    Setting("ncsn", "mnist", 1, 28, 1.0, 10, 100, 2e-5),
    Setting("ncsn", "cifar10", 3, 32, 1.0, 10, 100, 2e-5),
    Setting("ncsn", "celeba", 3, 32, 1.0, 10, 100, 2e-5),
    # Song and Ermon (arXiv 2006.09011), appendix B. Church is 96 pixels there, 64 in the code.
    Setting("ncsnv2", "cifar10", 3, 32, 50.0, 232, 5, 6.2e-6),
    Setting("ncsnv2", "celeba", 3, 64, 90.0, 500, 5, 3.3e-6),
    Setting("ncsnv2", "church", 3, 64, 140.0, 788, 4, 4.9e-6),
    Setting("ncsnv2", "bedroom", 3, 128, 190.0, 1086, 3, 1.8e-6),
    Setting("ncsnv2", "tower", 3, 128, 190.0, 1086, 3, 1.8e-6),
    Setting("ncsnv2", "ffhq", 3, 256, 348.0, 2311, 3, 9e-7),
    # The code of Song et al. (arXiv 2011.13456): a predictor and a corrector step on each level.
    Setting("ncsnpp", "cifar10", 3, 32, 50.0, 1000, 2, corrector_step_size(0.16)),
    Setting("ncsnpp", "celeba", 3, 64, 90.0, 1000, 2, corrector_step_size(0.17)),
    Setting("ncsnpp", "bedroom", 3, 256, 378.0, 2000, 2, corrector_step_size(0.075)),
    Setting("ncsnpp", "church", 3, 256, 380.0, 2000, 2, corrector_step_size(0.075)),
    Setting("ncsnpp", "ffhq", 3, 256, 348.0, 2000, 2, corrector_step_size(0.075)),
    Setting("ncsnpp", "celebahq", 3, 256, 348.0, 2000, 2, corrector_step_size(0.075)),
    Setting("ncsnpp", "ffhq", 3, 1024, 1348.0, 2000, 2, corrector_step_size(0.15)),
    Setting("ncsnpp", "celebahq", 3, 1024, 1348.0, 2000, 2, corrector_step_size(0.15)),
)

# How samples are drawn from a network with a ladder of its own: NCSN's step size in units of its
# last level, technique 4 of NCSNv2, and the corrector as for CIFAR-10.
_OWN_LADDER: dict[str, dict[str, Any]] = {
    "ncsn": {"steps_per_level": 100, "step_size": None},
    "ncsnv2": {"steps_per_level": 5, "step_size": "ncsnv2"},
    "ncsnpp": {"steps_per_level": 2},
}
# The rest of `AnnealedLangevinSampler`'s options. NCSN++ was published with a predictor, for which
# half-denoising stands here: as a hand-off it is the probability flow's Euler step.
_FAMILY_OPTIONS: dict[str, dict[str, Any]] = {
    "ncsn": {"readout": None},
    "ncsnv2": {"readout": "full"},
    "ncsnpp": {"readout": "full", "hand_off": "half"},
}
# What config files call otherwise.
_CONFIG_NAMES = {"church_outdoor": "church"}


def find_setting(
    family: str, in_channels: int, ladder: list[float], dataset: str | None, config: AuthorsConfig
) -> tuple[Setting | None, str | None]:
    """The paper's settings that go with a checkpoint, and the data set that it is for.

    Args:
        family: of its network.
        in_channels: of its network.
        ladder: of its network.
        dataset: what the user says; None for what follows from config and ladder.
        config: of the training run.

    Returns:
        The settings with that ladder, those of that data set first; else those of that data set
        with another ladder; else None, also for a data set that is none of the paper's. And the
        name of the data set, or None if it does not follow.

    Raises:
        HDZooError: the paper has no such data set, or the ladder is another one's.
    """
    told = _told_by(config) if dataset is None else dataset
    known = [s for s in SETTINGS if s.family == family and s.in_channels == in_channels]
    fitting = [s for s in known if s.has_ladder(ladder)]
    named = [s for s in known if s.dataset == told]
    if dataset is not None and not named:
        allowed = ", ".join(_names(known)) or "none"
        raise HDZooError(
            f"dataset is {dataset!r}, and there are no published settings of {family} with "
            f"{in_channels} channel(s) for it; allowed are {allowed}. For another data set, give "
            "the checkpoint's config.yml instead (--config)"
        )
    both = [s for s in fitting if s in named]
    if told in _names(s for s in SETTINGS if s.family == family) and not named:
        raise HDZooError(
            f"dataset is {told!r}, whose images have another number of channels than the "
            f"{in_channels} of this checkpoint; give the config of this checkpoint"
        )
    if named and fitting and not both:
        raise HDZooError(
            f"dataset is {told!r}, and the {len(ladder)} noise levels of this checkpoint, from "
            f"{ladder[0]:g} to {ladder[-1]:g}, are those of {' or '.join(_names(fitting))}; give "
            "that, or the config of this checkpoint"
        )
    if told is not None and not named:
        return None, told
    setting = next(iter(both + fitting + named), None)
    if told is None and len(_names(fitting)) == 1:
        told = fitting[0].dataset
    return setting, told


def sampler_options(
    family: str, ladder: list[float], setting: Setting | None, config: AuthorsConfig
) -> dict[str, Any]:
    """Options of `AnnealedLangevinSampler` for a checkpoint, its ladder excepted.

    Args:
        family: of its network.
        ladder: of its network.
        setting: of the paper; used if it has that ladder.
        config: of the training run; what it says comes first.

    Raises:
        HDZooError: the config says no numbers where they belong.
    """
    options = _FAMILY_OPTIONS[family] | _OWN_LADDER[family]
    if setting is not None and setting.has_ladder(ladder):
        options |= {"steps_per_level": setting.steps_per_level, "step_size": setting.step_size}
    if family == "ncsnpp":
        snr = config.read(Number(above=0, below=1), "snr")
        if snr is not None or "step_size" not in options:
            options["step_size"] = corrector_step_size(snr or 0.16, ladder[-1])
        return options
    steps, step_size = options["steps_per_level"], options["step_size"]
    denoise = config.assume(options["readout"] == "full", Flag(), "denoise")
    return options | {
        "steps_per_level": config.assume(steps, EVALUATIONS, "n_steps_each"),
        "step_size": config.assume(step_size, POSITIVE, "step_lr"),
        "readout": "full" if denoise else None,
    }


def _names(settings: Iterable[Setting]) -> list[str]:
    return list(dict.fromkeys(setting.dataset for setting in settings))


def _told_by(config: AuthorsConfig) -> str | None:
    # Categories of LSUN are data sets of their own.
    word, name = config.find("category", "dataset")
    if name is None:
        return None
    if not isinstance(name, str):
        refuse(f"{word} in {config.origin(word)}", name, "a name")
    return _CONFIG_NAMES.get(name.lower(), name.lower())
