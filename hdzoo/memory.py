"""Sizes are checked before anything of that size is built."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil
import torch
from torch.overrides import TorchFunctionMode

from hdzoo.errors import HDZooError

Init = TypeVar("Init", bound=Callable[..., None])

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.rand, torch.randn)


def within_memory(init: Init) -> Init:
    """An ``__init__`` that builds no more than this machine can hold, all tensors together.

    The sizes are added up first, of the same without any memory (on PyTorch's meta device) where
    that can be, so that too much is refused at once.

    Args:
        init: of a model, which then raises an `HDZooError` at the tensor that would be too much.
    """

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        try:
            with _Counted(name), torch.device("meta"):
                # Its configuration is registered before.
                init(copy.copy(self), *args, **kwargs)
        except HDZooError:
            raise
        # What needs numbers cannot be without memory.
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
            pass
        with _Counted(name):
            init(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


class _Counted(TorchFunctionMode):
    """Adds up the bytes of what is made.

    Args:
        what: is being built, for the error.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.num_bytes = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in _MAKERS:
            size = args[0] if args and isinstance(args[0], Sequence) else args
            total = psutil.virtual_memory().total
            try:
                self.num_bytes += function(*args, **kwargs | {"device": "meta"}).nbytes
            except (RuntimeError, OverflowError, TypeError):
                # More numbers than can be counted.
                self.num_bytes = total + 1
            if self.num_bytes > total:
                raise HDZooError(
                    f"{self.what} of these options takes more than {total / 1e9:,.0f} GB, the "
                    f"memory of this machine (a tensor in it is {' x '.join(map(str, size))}); "
                    "choose smaller ones"
                )
        return function(*args, **kwargs)
