"""Sizes are checked before anything of that size is built."""

import copy
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hdzoo.errors import HDZooError

Init = TypeVar("Init", bound=Callable[..., None])

_MAKERS = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.rand, torch.randn)
)
# What gives weights their first numbers, which a sketch has not.
_FILLERS = frozenset(
    (
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.uniform_,
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    )
)


def within_memory(init: Init) -> Init:
    """An ``__init__`` that builds no more than this machine can hold, all tensors together.

    The sizes are added up first, of the same without any memory (on PyTorch's meta device) where
    that can be, so that too much is refused at once.

    Args:
        init: of a model, which then raises an `HDZooError` at the tensor that would be too much.
    """

    # What has been found to fit, by its class and its options.
    fits: set[tuple[type, str]] = set()

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        name, known = type(self).__name__, (type(self), _written(args, kwargs))
        if known in fits:
            init(self, *args, **kwargs)
            return
        if torch.get_default_device().type != "meta":
            try:
                with _Counted(name, sketch=True), torch.device("meta"):
                    # Its configuration is registered before.
                    init(copy.copy(self), *args, **kwargs)
            except HDZooError:
                raise
            # What needs numbers cannot be without memory.
            except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
                pass
            else:
                if known[1]:
                    fits.add(known)
                init(self, *args, **kwargs)
                return
        with _Counted(name):
            init(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def _written(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Options in full; nothing where they are more than a configuration holds."""
    try:
        return json.dumps([args, kwargs])
    except (TypeError, ValueError, RecursionError):
        return ""


class _Counted(TorchFunctionMode):
    """Adds up the bytes of what is made.

    Args:
        what: is being built, for the error.
        sketch: whether it is built without memory, so that it is filled with nothing.
    """

    def __init__(self, what: str, sketch: bool = False) -> None:
        super().__init__()
        self.what, self.sketch = what, sketch
        self.num_bytes = 0
        self.total = psutil.virtual_memory().total

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.sketch and function in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        if function in _MAKERS:
            size = args[0] if args and isinstance(args[0], Sequence) else args
            try:
                self.num_bytes += function(*args, **kwargs | {"device": "meta"}).nbytes
            except (RuntimeError, OverflowError, TypeError):
                # More numbers than can be counted.
                self.num_bytes = self.total + 1
            if self.num_bytes > self.total:
                raise HDZooError(
                    f"{self.what} of these options takes more than {self.total / 1e9:,.0f} GB, the "
                    f"memory of this machine (a tensor in it is {' x '.join(map(str, size))}); "
                    "choose smaller ones"
                )
        return function(*args, **kwargs)
