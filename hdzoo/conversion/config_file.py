"""The authors' ``config.yml``, read as data, and what is said in its place."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hdzoo.checks import Rule, shown
from hdzoo.errors import HDZooError

# Of a config file, of which the authors' have 2 kB.
MAX_BYTES = 10_000_000

# Every name that a conversion looks for.
NAMES = (
    *("image_size", "channels", "num_channels", "dataset", "category", "rescaled", "centered"),
    *("logit_transform", "ngf", "nf", "num_classes", "num_scales", "sigma_begin", "sigma_max"),
    *("sigma_end", "sigma_min", "sigma_dist", "nonlinearity", "normalization", "n_steps_each"),
    *("step_lr", "denoise", "snr", "sde", "ch_mult", "num_res_blocks", "attn_resolutions"),
    *("embedding_type", "progressive", "progressive_input", "progressive_combine"),
    *("resblock_type", "attention_type", "conditional", "resamp_with_conv", "fir", "fir_kernel"),
    *("fourier_scale", "skip_rescale", "scale_by_sigma", "dropout"),
)


class _PlainLoader(yaml.SafeLoader):
    """YAML in which an object of Python is what it was written from: a dict, a list or a string."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        fields = loader.construct_mapping(node, deep=True)
        # How ml_collections writes its ConfigDict.
        return fields.get("_fields", fields)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
# YAML takes 1e-5 for a word.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), "-+0123456789"
)


class AuthorsConfig:
    """What is said about a network, its data and its sampler, and what is taken for granted.

    Args:
        path: of the config file of its training run: YAML as the authors wrote it, tags of Python
            objects included, which are read as plain data; or None for none. Sections (``data``,
            ``model``, ``sampling``, ``training``) are looked through for an option, in this order
            of precedence, and what stands outside of sections.
        options: what is said besides, by the names that such a file has; comes before the file.

    Attributes:
        assumed: what `assume` took for granted so far.

    Raises:
        HDZooError: the file cannot be read, or is no such file; or an option is unknown.
    """

    def __init__(self, path: Path | None = None, options: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.assumed: dict[str, Any] = {}
        content: Any = {} if path is None else _read(path)
        self.options: dict[str, Any] = {
            key: value for key, value in content.items() if not isinstance(value, dict)
        }
        for section in ("training", "sampling", "model", "data"):
            part = content.get(section, {})
            self.options |= part if isinstance(part, dict) else {}
        if path is not None and not self.options:
            raise HDZooError(
                f"{path} says nothing that a conversion needs; give the config.yml of the "
                "checkpoint's training run, with the sections model and data"
            )
        self._said = dict(options or {})
        self._looked_for: set[str] = set()
        unknown = [name for name in self._said if name not in NAMES]
        if unknown:
            raise HDZooError(
                f"option {unknown[0]!r} is none of a config that a conversion looks for; those are "
                + ", ".join(NAMES)
            )

    def find(self, *names: str) -> tuple[str, Any]:
        """Name and value of the first of some options that is there; else the first, and None."""
        self._looked_for.update(names)
        for told in (self._said, self.options):
            for name in names:
                if told.get(name) is not None:
                    return name, told[name]
        return names[0], None

    def origin(self, name: str) -> str:
        """Who says what an option is, for an error."""
        return "the option -o" if name in self._said else str(self.path)

    def read(self, rule: Rule, *names: str) -> Any:
        """The value of an option, None where nothing is said.

        Args:
            rule: what it may be, of `hdzoo.checks`.
            *names: what it may be called.

        Raises:
            HDZooError: it is something else.
        """
        name, value = self.find(*names)
        return None if value is None else rule(f"{name} in {self.origin(name)}", value)

    def assume(self, value: Any, rule: Rule, *names: str) -> Any:
        """The value of an option, and another one, noted in `assumed`, where nothing is said.

        Args:
            value: what is taken for granted.
            rule: what it may be, of `hdzoo.checks`.
            *names: what it may be called.

        Raises:
            HDZooError: it is something else.
        """
        told = self.read(rule, *names)
        if told is None:
            self.assumed[names[0]] = value
        return value if told is None else told

    def require(self, allowed: Any, *names: str) -> None:
        """Refuses an option with another value than the one that can be converted, which is
        otherwise assumed.

        Raises:
            HDZooError: it has one.
        """
        name, value = self.find(*names)
        if value is None:
            self.assumed[names[0]] = allowed
        elif _lower(value) != _lower(allowed) or isinstance(value, bool) != isinstance(
            allowed, bool
        ):
            raise HDZooError(
                f"{self.origin(name)} says {name} = {shown(value)}, and hdzoo has no such network; "
                f"only {allowed!r} can be converted"
            )

    def agree(self, found: Any, *names: str) -> None:
        """Refuses an option that contradicts the weights.

        Args:
            found: its value according to them.
            *names: what it may be called.

        Raises:
            HDZooError: it contradicts them.
        """
        name, told = self.find(*names)
        if told is None:
            return
        if isinstance(told, list | tuple):
            same = list(told) == found
        elif isinstance(found, bool) or isinstance(told, bool):
            same = told is found
        elif isinstance(found, float) and isinstance(told, int | float):
            same = math.isclose(told, found, rel_tol=1e-6)
        else:
            same = _lower(told) == _lower(found)
        if not same:
            self._contradicted(name, told, found)

    def check_all_used(self, family: str) -> None:
        """Refuses options that were given and that nobody has looked for.

        Args:
            family: of the network, for the message.

        Raises:
            HDZooError: there is one.
        """
        unused = [name for name in self._said if name not in self._looked_for]
        if unused:
            raise HDZooError(
                f"option {unused[0]!r} changes nothing of this checkpoint, which holds a network "
                f"of the family {family}; leave it out"
            )

    def _contradicted(self, name: str, told: Any, found: Any) -> NoReturn:
        raise HDZooError(
            f"{self.origin(name)} says {name} = {shown(told)}, and the weights say {found!r}; give "
            "the config of this checkpoint, or none"
        )


def _lower(value: Any) -> Any:
    # The authors' code does not mind the case of words.
    return value.lower() if isinstance(value, str) else value


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise HDZooError(f"there is no config file {path}")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise HDZooError(f"{path} has {size:,} bytes; a config.yml has at most {MAX_BYTES:,}")
    try:
        content = yaml.load(path.read_text(), _PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise HDZooError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise HDZooError(
            f"{path} holds a {type(content).__name__}, where a config has options; give the "
            "config.yml of the checkpoint's training run"
        )
    return content
