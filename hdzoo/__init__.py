"""hdzoo: a zoo of score-based samplers on Hugging Face diffusers.

The public names are listed in ``__init__.pyi``. Each is imported when it is first asked for, so
``import hdzoo`` is quick and loads no torch.
"""

from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    # diffusers' loader looks the base classes up beside each component ("hdzoo" in the index).
    if name in ("ModelMixin", "SchedulerMixin"):
        import diffusers

        return getattr(diffusers, name)
    return _public(name)
