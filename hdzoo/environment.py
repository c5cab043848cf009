"""What the numbers depend on besides the program: packages, Python, the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hdzoo import plugins
from hdzoo.version import __version__

# Those that compute, load or draw, the required ones first.
PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "accelerate",
    "huggingface-hub",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
    "typer",
    "datasets",
    "matplotlib",
    "tensorboard",
    "torch-fidelity",
    "POT",
    "gradio",
    "onnx",
    "onnxruntime",
)


def versions(*packages: str) -> dict[str, str]:
    """Of hdzoo and of packages that are installed, by name.

    Args:
        packages: names of distributions, each installed.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not.
    """
    return {"hdzoo": __version__} | {name: version(name) for name in packages}


def describe_environment() -> dict[str, Any]:
    """What a report of a fault needs: versions, machine and plugins, as JSON has them.

    No variable of the environment, for there are tokens among them.
    """
    import torch

    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    return {
        "hdzoo": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads of torch": torch.get_num_threads(),
        "instructions of torch": torch.backends.cpu.get_cpu_capability(),
        "accelerator": "none" if accelerator is None else _accelerator(accelerator.type),
        **{name: _installed(name) for name in PACKAGES},
        "plugins": {
            f"{plugin.name} ({plugin.distribution} {plugin.version})": plugin.error or "loaded"
            for plugin in plugins.plugins()
        },
    }


def _accelerator(kind: str) -> str:
    import torch

    device = getattr(torch, kind)
    count = torch.accelerator.device_count()
    names = {device.get_device_name(i) for i in range(count) if hasattr(device, "get_device_name")}
    return f"{count} x {', '.join(sorted(names)) or kind}"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
