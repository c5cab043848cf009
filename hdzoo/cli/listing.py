"""Commands that list what there is."""

import json
import warnings
from typing import Annotated

import typer

from hdzoo.cli.options import (
    DEFAULT_MODEL,
    JsonOutput,
    Model,
)
from hdzoo.cli.terminal import print_table, render, render_options, say
from hdzoo.errors import HDZooError
from hdzoo.version import __version__


def samplers(as_json: JsonOutput = False) -> None:
    """List the samplers: source, family, options, and the package each comes from."""
    from hdzoo.catalog import sampler_rows
    from hdzoo.samplers.presets import PRESETS

    rows = sampler_rows()
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    shared = set.intersection(
        *(set(row["options"]) for row in rows if row["package"] == f"hdzoo {__version__}")
    )
    for row in rows:
        own = {key: value for key, value in row["options"].items() if key not in shared}
        options = ", ".join([*row["required"], *filter(None, [render_options(own)])])
        row["sampler"] = f"{row['name']}\n{row['family']}\n{row['package']}"
        row["source and options"] = row["error"] or f"{row['source']}\n{options}"
    print_table(rows, ("sampler", "source and options"))
    others = [row["name"] for row in rows if not shared <= set(row["options"])]
    but = f", but for {', '.join(others)}" if others else ""
    say(f"All take {', '.join(sorted(shared))} as well{but}.")
    presets = [f"{p.name} ({p.num_inference_steps} evaluations)" for p in PRESETS.values()]
    say(f"Presets, by `hdzoo sample --preset`: {', '.join(presets)}; see `hdzoo info`.")


def plugins(as_json: JsonOutput = False) -> None:
    """List the plugins: what each brings, and which are left out and why."""
    import dataclasses

    from hdzoo import plugins as registry

    with warnings.catch_warnings():
        # The table says it already.
        warnings.simplefilter("ignore")
        rows = [dataclasses.asdict(info) for info in registry.plugins()]
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    for row in rows:
        row["plugin"] = f"{row['name']}\n{row['distribution']} {row['version']}"
        brings = [f"{kind}: {', '.join(row[kind])}" for kind in registry.KINDS if row[kind]]
        row["brings"] = "\n".join(brings) or f"nothing: {row['error']}"
    print_table(rows, ("plugin", "brings"))


def info(
    model: Model = DEFAULT_MODEL,
    env: Annotated[
        bool, typer.Option("--env", help="Describe this machine instead, for a report of a fault.")
    ] = False,
    as_json: JsonOutput = False,
) -> None:
    """Describe a model: network, range, sampler, weights, held-out loss. Or this machine."""
    if env and model != DEFAULT_MODEL:
        raise HDZooError(
            f"--env describes this machine, and {model!r} is a model; give one of them"
        )
    if env:
        from hdzoo.environment import describe_environment

        facts = describe_environment()
    else:
        from hdzoo.catalog import describe_model

        facts = describe_model(model)
    if as_json:
        say(json.dumps(facts, indent=2))
    else:
        rows = [{"": key, "value": render(value)} for key, value in facts.items()]
        print_table(rows, ("", "value"))
