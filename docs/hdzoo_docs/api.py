"""The reference of the public names, from the `__init__.pyi` of each room that has some."""

import re
from pathlib import Path

import hdzoo

ROOMS = {
    "": "Everything at the top of `hdzoo`.",
    "models": "Score networks.",
    "targets": "Models whose score is exact.",
    "distances": "Distances between laws, and what to ask of chains.",
    "verification": "Exact laws of samplers, bias, the checks of `hdzoo verify`.",
}
IMPORTED = re.compile(r"from (\.[\w.]*) import \(?\s*(\w+) as (\w+)")
# What authors of samplers derive from.
CONTRACT = (
    "hdzoo.samplers.base.Sampler",
    "hdzoo.samplers.base.Move",
    "hdzoo.samplers.base.Limit",
    "hdzoo.samplers.families.LadderSampler",
    "hdzoo.samplers.families.RefinedLadderSampler",
    "hdzoo.samplers.families.SingleLevelSampler",
    "hdzoo.plugins.HookSpecs",
)


def pages() -> dict[str, str]:
    """From a page's name to its Markdown."""
    made = {}
    for room, about in ROOMS.items():
        folder = Path(hdzoo.__file__).parent / room
        names = {}
        for module, name, _ in IMPORTED.findall((folder / "__init__.pyi").read_text()):
            # Rooms have pages of their own.
            if not re.match(r"\.(models|targets|version)?$", module):
                names[name] = ".".join(filter(None, ("hdzoo", room, module[1:], name)))
        title = f"hdzoo.{room}" if room else "hdzoo"
        made[title] = _page(title, about, [names[name] for name in sorted(names)])
    made["contract"] = _page("What samplers derive from", "The contract.", list(CONTRACT))
    return made


def _page(title: str, about: str, paths: list[str]) -> str:
    return "\n\n".join([f"# {title}", about, *(f"::: {path}" for path in paths)]) + "\n"
