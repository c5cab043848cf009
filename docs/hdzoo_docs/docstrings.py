"""The parts of a sampler's docstring."""

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

from hdzoo import plugins
from hdzoo.verification.small import option_names

SECTION = re.compile(r"^(Args|Raises|Attributes|Returns):$")
ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)")
OTHERS = re.compile(r"options\s+are\s+those\s+of\s+`(\w+)`")


@dataclass
class Parts:
    """What a docstring says.

    Attributes:
        summary: its first paragraph.
        text: what follows: the formula, and about it.
        axes: the choices on the four axes.
        source: authors and places.
        options: by name, those that it describes itself.
        remark: on the other options.
    """

    summary: str
    text: str = ""
    axes: str = ""
    source: str = ""
    options: dict[str, str] = field(default_factory=dict)
    remark: str = ""


def parts(thing: Any) -> Parts:
    """Takes a docstring apart."""
    said = (inspect.getdoc(thing) or "").strip()
    summary, *paragraphs = re.split(r"\n\n", said)
    found = Parts(" ".join(summary.split()))
    kept: list[str] = []
    section = ""
    for paragraph in paragraphs:
        head = SECTION.match(paragraph.partition("\n")[0])
        # A section ends where the text is no longer indented.
        section = head[1] if head else section if paragraph.startswith("    ") else ""
        if section == "Args":
            found.options |= _entries(paragraph)
        elif section:
            continue
        elif paragraph.startswith("Axes: "):
            found.axes = " ".join(paragraph.removeprefix("Axes: ").split()).rstrip(".")
        elif paragraph.startswith("Source: "):
            found.source = " ".join(paragraph.removeprefix("Source: ").split())
        elif OTHERS.search(paragraph):
            found.remark = " ".join(paragraph.split())
        else:
            kept.append(paragraph)
    found.text = "\n\n".join(kept)
    return found


def _entries(paragraph: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in paragraph.splitlines():
        if entry := ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def options(sampler: type[Any]) -> dict[str, tuple[str, str]]:
    """Each option that a sampler takes: its default, and what it is.

    Said by the sampler's docstring, or by that of a class whose options it says that they are.
    """
    known = _classes(sampler)
    queue, described = list(reversed(sampler.__mro__)), {}
    for cls in queue:
        described |= parts(cls).options if cls.__module__.startswith("hdzoo") else {}
    others, seen = OTHERS.findall(inspect.getdoc(sampler) or ""), set()
    while others:
        name = others.pop()
        if name in known and name not in seen:
            seen.add(name)
            described = parts(known[name]).options | described
            others += OTHERS.findall(inspect.getdoc(known[name]) or "")
    signature = inspect.signature(sampler.__init__).parameters
    found = {}
    for name in option_names(sampler):
        default = signature[name].default
        shown = "required" if default is inspect.Parameter.empty else f"{default!r}"
        found[name] = shown, described.get(name, "")
    return found


def _classes(sampler: type[Any]) -> dict[str, Any]:
    """Classes by name: registered samplers, and what they and this one derive from."""
    found = {cls.__name__: cls for cls in sampler.__mro__}
    for name in plugins.list_samplers():
        found |= {cls.__name__: cls for cls in reversed(plugins.get_sampler(name).__mro__)}
    return found
