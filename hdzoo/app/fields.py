"""The options of a sampler as fields to fill in, made from its signature."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hdzoo import plugins
from hdzoo.app.limits import MOST_TYPED
from hdzoo.checks import Flag, OneOf, Rule
from hdzoo.errors import HDZooError
from hdzoo.samplers.coordinates import NETWORK_OPTIONS
from hdzoo.text import plain, typed_value

# What the network is, which its model says: no choice.
NOT_ASKED = (*NETWORK_OPTIONS, "held_out_loss")


@dataclass(frozen=True)
class Field:
    """One option.

    Attributes:
        name: of the option.
        default: its value when nothing is typed.
        words: those to choose from, where it has nothing but a choice; else empty.
        allowed: what it may be, in words; empty where nothing is known.
        required: whether it has no default.
    """

    name: str
    default: Any = None
    words: tuple[str, ...] = ()
    allowed: str = ""
    required: bool = False

    @property
    def text(self) -> str:
        """The default as it is typed."""
        return "" if self.default is None else typed(self.default)


def fields_of(sampler: str, config: Mapping[str, Any]) -> list[Field]:
    """The options of a sampler for a model.

    Args:
        sampler: a registered name.
        config: of the model's own sampler, of which it takes what it has in common with it.

    Raises:
        HDZooError: there is no such sampler, or it cannot be looked at.
    """
    found = plugins.get_sampler(sampler)
    try:
        return plugins.call_foreign(partial(_fields, found, config))
    except HDZooError:
        raise
    # Another's class may be anything.
    except Exception as error:
        raise HDZooError(
            f"the options of {sampler!r} cannot be read: {plugins.describe(error)}"
        ) from error


def _fields(sampler: type[Any], config: Mapping[str, Any]) -> list[Field]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    rules: Mapping[str, Rule] = getattr(sampler.__init__, "rules", {})
    parameters = inspect.signature(sampler.__init__).parameters.values()
    chosen = [p for p in parameters if p.kind in named and p.name != "self"]
    required = [p.name for p in chosen if p.default is inspect.Parameter.empty]
    taken = config if required else sampler.from_config(dict(config)).config
    fields = []
    for parameter in chosen:
        name = parameter.name
        if name in NOT_ASKED:
            continue
        default = None if name in required else taken.get(name, parameter.default)
        rule = rules.get(name)
        words: tuple[str, ...] = ()
        if isinstance(rule, OneOf) and isinstance(default, str):
            words = rule.words
        elif isinstance(default, bool) and (rule is None or isinstance(rule, Flag)):
            words = ("true", "false")
        fields.append(Field(name, default, words, allowed(name, rule), name in required))
    return fields


def allowed(name: str, rule: Rule | None) -> str:
    """What a rule allows, in its own words: those in which it refuses what nobody means.

    Args:
        name: of the option.
        rule: its rule, if there is one.
    """
    if rule is None or isinstance(rule, OneOf | Flag):
        return ""
    try:
        rule(name, object())
    except Exception as error:
        for words in ("it must be ", "allowed are "):
            _, found, said = str(error).partition(words)
            if found:
                return said.replace("<object object>", "").strip()
    return ""


def changed(fields: Sequence[Field], texts: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were changed, as a sampler takes them.

    Args:
        fields: of the sampler.
        texts: what is in the fields; one that is empty, or not there, has its default.

    Raises:
        HDZooError: there is no such option, one is required, or far too much was typed.
    """
    by_name = {field.name: field for field in fields}
    unknown = [name for name in texts if name not in by_name]
    if unknown:
        raise HDZooError(
            f"there is no option {unknown[0]!r}; the options are {', '.join(by_name) or 'none'}"
        )
    options = {}
    for field in fields:
        text = texts.get(field.name)
        text = "" if text is None else text if isinstance(text, str) else typed(text)
        text = text.strip()
        if len(text) > MOST_TYPED:
            raise HDZooError(
                f"{field.name} has {len(text):,} characters; give at most {MOST_TYPED:,}"
            )
        if text in ("", field.text):
            if field.required:
                raise HDZooError(f"{field.name} is empty, and has no default; give it a value")
            continue
        options[field.name] = typed_value(text)
    return options


def typed(value: Any) -> str:
    """A value as it is typed on the command line: JSON, and words as they are."""
    if isinstance(value, str):
        # A word that JSON would read as something else.
        return value if typed_value(value) == value else json.dumps(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return plain(value)
