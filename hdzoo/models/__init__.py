"""Score models as diffusers ``ModelMixin``s, each imported when it is first asked for.

A class keeps the module it is written in: diffusers records that path in ``model_index.json``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdzoo.models.ncsn import NCSNModel
    from hdzoo.models.ncsnpp import NCSNppModel
    from hdzoo.models.ncsnv2 import NCSNv2Model
    from hdzoo.models.unet import UNetScoreModel
    from hdzoo.targets.empirical import EmpiricalScore
    from hdzoo.targets.laplace import LaplaceScore
    from hdzoo.targets.manifold import SegmentScore, SphereScore
    from hdzoo.targets.mixture import GaussianMixtureScore

__all__ = [
    "EmpiricalScore",
    "GaussianMixtureScore",
    "LaplaceScore",
    "NCSNModel",
    "NCSNppModel",
    "NCSNv2Model",
    "SegmentScore",
    "SphereScore",
    "UNetScoreModel",
]

_MODULES = {
    "EmpiricalScore": "hdzoo.targets.empirical",
    "GaussianMixtureScore": "hdzoo.targets.mixture",
    "LaplaceScore": "hdzoo.targets.laplace",
    "NCSNModel": "hdzoo.models.ncsn",
    "NCSNppModel": "hdzoo.models.ncsnpp",
    "NCSNv2Model": "hdzoo.models.ncsnv2",
    "SegmentScore": "hdzoo.targets.manifold",
    "SphereScore": "hdzoo.targets.manifold",
    "UNetScoreModel": "hdzoo.models.unet",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
