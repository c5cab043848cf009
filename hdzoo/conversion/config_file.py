"""The authors' ``config.yml``, read as data."""

import math
from pathlib import Path
from typing import Any

import yaml

from hdzoo.errors import HDZooError


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


class AuthorsConfig:
    """What a config file of a training run says about its network, data and sampler.

    Args:
        path: of the file: YAML as the authors wrote it, tags of Python objects included, which are
            read as plain data; or None for a config that says nothing. Sections (``data``,
            ``model``, ``sampling``, ``training``) are looked through for an option, in this order
            of precedence, and what stands outside of sections.

    Raises:
        HDZooError: it cannot be read, or is no such file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
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

    def find(self, *names: str) -> tuple[str, Any]:
        """Name and value of the first of some options that is there; else the first, and None."""
        found = ((name, self.options.get(name)) for name in names)
        return next(((n, value) for n, value in found if value is not None), (names[0], None))

    def get(self, *names: str) -> Any:
        """The value alone."""
        return self.find(*names)[1]

    def number(self, *names: str) -> float | None:
        """The value, a number.

        Raises:
            HDZooError: it is none.
        """
        name, value = self.find(*names)
        try:
            # YAML takes 1e-5 for a word.
            return None if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise HDZooError(f"{self.path} says {name} = {value!r}; it must be a number") from error

    def require(self, allowed: Any, *names: str) -> None:
        """Refuses an option with another value than the one that can be converted.

        Raises:
            HDZooError: it has one.
        """
        name, value = self.find(*names)
        if value is not None and value != allowed:
            raise HDZooError(
                f"{self.path} says {name} = {value!r}, and hdzoo has no such network; only "
                f"{allowed!r} can be converted"
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
        if isinstance(found, float):
            same = math.isclose(self.number(*names) or 0.0, found, rel_tol=1e-6)
        else:
            same = list(told) == found if isinstance(told, list | tuple) else told == found
        if told is not None and not same:
            raise HDZooError(
                f"{self.path} says {name} = {told!r}, and the weights say {found!r}; give the "
                "config of this checkpoint, or none"
            )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise HDZooError(f"there is no config file {path}")
    try:
        content = yaml.load(path.read_text(), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise HDZooError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise HDZooError(
            f"{path} holds a {type(content).__name__}, where a config has options; give the "
            "config.yml of the checkpoint's training run"
        )
    return content
