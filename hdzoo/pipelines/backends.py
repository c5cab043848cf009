"""Back-ends: what computes a pipeline's network, PyTorch or another program in its place."""

from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.models.onnx_unet import OnnxUNet, check_packages

BACKENDS = ("torch", "onnxruntime")


def check_backend(backend: str, dtype: torch.dtype) -> None:
    """Refuses a back-end that there is not, or that does not compute in a dtype.

    Args:
        backend: one of `BACKENDS`.
        dtype: of the network's weights.

    Raises:
        HDZooError: there is none, its packages are missing, or it is for another dtype.
    """
    if backend not in BACKENDS:
        raise HDZooError(f"unknown backend {backend!r}; allowed are {', '.join(BACKENDS)}")
    if backend == "torch":
        return
    if dtype != torch.float32:
        raise HDZooError(
            f"backend is {backend!r} and dtype is {str(dtype).removeprefix('torch.')!r}; ONNX "
            "Runtime computes in float32, so leave one of the two out"
        )
    check_packages()


def backend_of(network: Any) -> str:
    """What computes a network, for the record: ``"torch"``, or another program and its version.

    Args:
        network: of a pipeline.
    """
    return next((m.backend for m in network.modules() if isinstance(m, OnnxUNet)), "torch")
