"""Which network a checkpoint is for: its class and options, from the names and shapes in it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdzoo.checks import NOISE_LEVEL, POSITIVE, Flag, Many, Number, Rule
from hdzoo.conversion.checkpoint import Weights
from hdzoo.conversion.config_file import AuthorsConfig
from hdzoo.conversion.topology import read_topology
from hdzoo.errors import HDZooError
from hdzoo.models.ncsn import NCSNModel
from hdzoo.models.ncsnpp import NCSNppModel, published_names
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.models.rungs import LadderModel, noise_ladder

# What score_sde_pytorch's configs say of NCSN++ for the variance-exploding process, where its
# weights say nothing.
_PUBLISHED: dict[str, tuple[Any, Rule]] = {
    "scale_by_sigma": (True, Flag()),
    "centered": (False, Flag()),
    "fir": (True, Flag()),
    "skip_rescale": (True, Flag()),
    "fir_kernel": ((1.0, 3.0, 3.0, 1.0), Many(Number(), 2, 16)),
    "dropout": (0.1, Number(low=0, below=1)),
}
# The networks that it was published for, by embedding, progressive and progressive_input. Those
# with Fourier features are for the variance-exploding process alone.
_PUBLISHED_VARIANTS = (
    ("fourier", "none", "residual"),
    ("fourier", "output_skip", "input_skip"),
    ("positional", "none", "residual"),
)

NETWORKS: dict[str, type[LadderModel]] = {
    "ncsn": NCSNModel,
    "ncsnv2": NCSNv2Model,
    "ncsnpp": NCSNppModel,
}


@dataclass(frozen=True)
class Architecture:
    """What the weights, and the config where they are silent, say about a network.

    Attributes:
        family: a key of `NETWORKS`.
        options: of its class, but for those that depend on the size of the images.
        ladder: the noise levels, descending.
        attention_levels: for NCSN++, the levels that have attention.
    """

    family: str
    options: dict[str, Any]
    ladder: list[float]
    attention_levels: list[int] | None = None

    def build(self, sample_size: int) -> LadderModel:
        """The network for images of a size, with any weights."""
        options = self.options | {"sample_size": sample_size}
        if self.attention_levels is not None:
            options["attention_resolutions"] = [sample_size >> i for i in self.attention_levels]
        return NETWORKS[self.family](**options)


def family_of(weights: Weights) -> str:
    """The family of networks that has weights of such names.

    Raises:
        HDZooError: none has.
    """
    if any(key.startswith("all_modules.") for key in weights):
        return "ncsnpp"
    if any(key.startswith("res1.") for key in weights):
        return "ncsn" if any(key.endswith("embed.weight") for key in weights) else "ncsnv2"
    names = ", ".join(list(weights)[:3])
    raise HDZooError(
        f"the weights of this checkpoint ({names}...) are those of no network that hdzoo converts: "
        "NCSN (res1..., with embed.weight), NCSNv2 (res1...), NCSN++ (all_modules...)"
    )


def architecture(weights: Weights, config: AuthorsConfig) -> Architecture:
    """Infers the network from its weights; a config that contradicts them is refused.

    Args:
        weights: under the published names.
        config: of the training run.

    Raises:
        HDZooError: what is needed is not there, or the network is of a kind that hdzoo has not.
    """
    family = family_of(weights)
    if family == "ncsnpp":
        return _ncsnpp(weights, config)
    begin = _shape(weights, "begin_conv.weight", 4)
    config.agree(begin[0], "ngf", "nf")
    config.agree(begin[1], "channels", "num_channels")
    config.require(False, "logit_transform")
    config.require("elu", "nonlinearity")
    config.require("InstanceNorm++", "normalization")
    options: dict[str, Any] = {"base_channels": begin[0], "in_channels": begin[1]}
    if config.assume(False, Flag(), "rescaled"):
        options |= {"centered": True, "data_range": (-1.0, 1.0)}
    if family == "ncsn":
        ladder = _untold_ladder(_shape(weights, "normalizer.embed.weight", 2)[0], config)
    else:
        options["variant"] = _variant(weights)
        ladder = _told_ladder(weights, config)
    return Architecture(family, options | _ladder_options(ladder), ladder)


def published_keys(network: LadderModel) -> dict[str, str]:
    """From the keys of a network's state dict to those of the authors'."""
    if isinstance(network, NCSNppModel):
        return published_names(network)
    return {key: key for key in network.state_dict()}


def _shape(weights: Weights, key: str, ndim: int) -> list[int]:
    if key not in weights or weights[key].ndim != ndim:
        found = f"of shape {list(weights[key].shape)}" if key in weights else "missing"
        raise HDZooError(
            f"{key} is {found} in this checkpoint; the network cannot be told without it"
        )
    return list(weights[key].shape)


def _variant(weights: Weights) -> str:
    stages = {key.partition(".")[0] for key in weights}
    return "deepest" if "res31" in stages else "deeper" if "res5" in stages else "standard"


def _untold_ladder(num_levels: int, config: AuthorsConfig) -> list[float]:
    """NCSN's noise levels, which are not in its checkpoints."""
    config.agree(num_levels, "num_classes")
    config.require("geometric", "sigma_dist")
    ends = {"sigma_begin": 1.0, "sigma_end": 0.01}
    if num_levels != 10 and any(config.read(NOISE_LEVEL, name) is None for name in ends):
        raise HDZooError(
            f"this checkpoint has {num_levels} noise levels and does not say which, and the "
            "published networks have 10; give its config.yml (--config), or say the first and the "
            "last: -o sigma_begin=... -o sigma_end=..."
        )
    sigma_max, sigma_min = (config.assume(level, NOISE_LEVEL, name) for name, level in ends.items())
    return noise_ladder(sigma_max, sigma_min, num_levels)


def _told_ladder(weights: Weights, config: AuthorsConfig) -> list[float]:
    """The noise levels in a checkpoint, as the shortest decimals that float32 tells apart."""
    num_levels = _shape(weights, "sigmas", 1)[0]
    ladder = [float(str(np.float32(sigma))) for sigma in weights["sigmas"].tolist()]
    noise_ladder(0, 0, 0, ladder)
    config.agree(num_levels, "num_scales", "num_classes")
    config.agree(ladder[0], "sigma_begin", "sigma_max")
    config.agree(ladder[-1], "sigma_end", "sigma_min")
    return ladder


def _ladder_options(ladder: list[float]) -> dict[str, Any]:
    """A ladder as options: three numbers for a geometric one, else all levels."""
    options = {"sigma_max": ladder[0], "sigma_min": ladder[-1], "num_levels": len(ladder)}
    geometric = _tensor(noise_ladder(ladder[0], ladder[-1], len(ladder)))
    if torch.allclose(_tensor(ladder), geometric, rtol=1e-5, atol=0):
        return options
    return options | {"sigma_levels": ladder}


def _tensor(ladder: list[float]) -> Tensor:
    return torch.tensor(ladder, dtype=torch.float64)


def _ncsnpp(weights: Weights, config: AuthorsConfig) -> Architecture:
    options = read_topology(weights)
    attention_levels = options.pop("attention_levels")
    config.agree(options["base_channels"], "nf", "ngf")
    config.agree(options["in_channels"], "num_channels", "channels")
    config.agree(options["channel_multipliers"], "ch_mult")
    for option in ("num_res_blocks", "progressive", "progressive_input"):
        config.agree(options[option], option)
    config.agree(options["embedding"], "embedding_type")
    for option, allowed in (
        ("sde", "vesde"),
        ("resblock_type", "biggan"),
        ("progressive_combine", "sum"),
        ("attention_type", "ddpm"),
        ("nonlinearity", "swish"),
        ("normalization", "GroupNorm"),
        ("conditional", True),
        ("resamp_with_conv", True),
    ):
        config.require(allowed, option)
    if options["progressive_input"] == "residual":
        # A convolution behind a filter has a name of its own.
        config.agree(True, "fir")
    _ask(config, tuple(options[key] for key in ("embedding", "progressive", "progressive_input")))
    told = {name: config.assume(value, rule, name) for name, (value, rule) in _PUBLISHED.items()}
    if not told.pop("fir"):
        config.assumed.pop("fir_kernel", None)
        told["fir_kernel"] = (1.0, 1.0)
    if told.pop("centered"):
        options |= {"centered": True, "data_range": (-1.0, 1.0)}
    scale = config.read(POSITIVE, "fourier_scale")
    if scale is not None:
        # The frequencies themselves are in the weights.
        options["fourier_scale"] = scale
    ladder = _told_ladder(weights, config)
    levels = _ladder_options(ladder)
    if options["embedding"] == "fourier":
        # It knows all levels in between.
        levels.pop("sigma_levels", None)
    return Architecture("ncsnpp", options | told | levels, ladder, attention_levels)


def _ask(config: AuthorsConfig, variant: tuple[str, ...]) -> None:
    """Refuses a checkpoint of NCSN++ that may be of several networks, if nobody says of which.

    Args:
        config: of the training run.
        variant: embedding, progressive and progressive_input.

    Raises:
        HDZooError: something is not said.
    """
    if variant == ("positional", "none", "residual"):
        needed, why = ["sde"], "the same was published for vesde, vpsde and subvpsde"
    elif variant in _PUBLISHED_VARIANTS:
        return
    else:
        needed = ["sde", "scale_by_sigma", "skip_rescale", "centered"]
        needed += [] if variant[2] == "residual" else ["fir"]
        why = (
            f"none for vesde was published with {variant[0]!r} embedding, progressive "
            f"{variant[1]!r} and progressive_input {variant[2]!r} (DDPM++, for vpsde, has "
            "'positional', 'none' and 'none')"
        )
    missing = [name for name in needed if config.find(name)[1] is None]
    if missing:
        raise HDZooError(
            f"the weights of this checkpoint of NCSN++ do not tell {', '.join(missing)}, and "
            f"{why}; give its config.yml (--config), or say each: "
            + " ".join(f"-o {name}={'vesde' if name == 'sde' else '...'}" for name in missing)
            + "; only vesde can be converted"
        )
