"""Score models as diffusers ``ModelMixin``s, each imported when it is first asked for.

A class keeps the module it is written in: diffusers records that path in ``model_index.json``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdzoo.models.ncsn import NCSNModel
    from hdzoo.models.ncsnv2 import NCSNv2Model
    from hdzoo.models.unet import UNetScoreModel

__all__ = ["NCSNModel", "NCSNv2Model", "UNetScoreModel"]

_MODULES = {
    "NCSNModel": "hdzoo.models.ncsn",
    "NCSNv2Model": "hdzoo.models.ncsnv2",
    "UNetScoreModel": "hdzoo.models.unet",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
