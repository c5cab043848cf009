"""What makes the same pictures without the page: a command, and lines of Python."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from hdzoo.app.drawing import Order
from hdzoo.app.fields import typed
from hdzoo.samplers.held_out import MATCHED


def command(order: Order) -> str:
    """The command, one line for each sampler."""
    lines = []
    for sampler in order.samplers:
        words = ["hdzoo", "sample", order.model, "-s", sampler]
        for name, value in order.options.get(sampler, {}).items():
            words += ["-o", f"{name}={typed(value)}"]
        words += ["-n", str(order.num_images), "-t", str(order.num_inference_steps)]
        words += ["--seed", str(order.seed)]
        lines.append(shlex.join(words))
    return "\n".join(lines)


def python(order: Order) -> str:
    """Lines of Python; the pictures are ``images``, or of several samplers ``images[name]``."""
    lines = [
        "from hdzoo import HDPipeline, get_sampler, sample_generators",
        "",
        f"pipe = HDPipeline.from_pretrained({json.dumps(order.model)})",
    ]
    chosen = {name: order.options.get(name, {}) for name in order.samplers}
    indent = ""
    if len(chosen) == 1:
        ((name, options),) = chosen.items()
        target, called, passed = "images", json.dumps(name), _arguments(options)
        own = "pipe.scheduler.config"
    else:
        own = "own"
        lines += ["own, images = pipe.scheduler.config, {}", "for name, options in {"]
        lines += [f"    {json.dumps(name)}: {_dict(options)}," for name, options in chosen.items()]
        lines += ["}.items():"]
        indent, target, called, passed = "    ", "images[name]", "name", ", **options"
    lines += [
        f"{indent}pipe.scheduler = get_sampler({called}).from_config({own}{passed})",
        f"{indent}generator = sample_generators({order.seed}, range({order.num_images}))",
        f"{indent}{target} = pipe({order.num_images}, {order.num_inference_steps}, "
        "generator=generator).images",
    ]
    return "\n".join(lines)


def _given(options: Mapping[str, Any]) -> dict[str, str]:
    given = {name: _literal(value) for name, value in options.items()}
    if any(options.get(option) == word for option, word in MATCHED.items()):
        given["held_out_loss"] = "pipe.unet.config.held_out_loss"
    return given


def _arguments(options: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value}" for name, value in _given(options).items())


def _dict(options: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{json.dumps(name)}: {value}" for name, value in _given(options).items())
    return f"{{{inner}}}"


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
