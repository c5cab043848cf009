"""What PyTorch needs before it differentiates a network forwards, or twice."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib import import_module

from torch.nn.attention import SDPBackend, sdpa_kernel


def plain_attention() -> AbstractContextManager[None]:
    """Attention by PyTorch's plain kernel: the fused ones have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def forward_mode() -> Iterator[None]:
    """Derivatives in forward mode, of which the fused kernels of attention have none either."""
    _load_formulas()
    with plain_attention():
        yield


@cache
def _load_formulas() -> None:
    """Loads what PyTorch itself loads with the first dual tensor, and what it warns of there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated", FutureWarning)
        import_module("torch._decomp.decompositions_for_jvp")
