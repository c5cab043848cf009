"""hdzoo: a zoo of score-based samplers on Hugging Face diffusers.

Everything here is imported when it is first asked for, so ``import hdzoo`` is quick and loads no
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdzoo.errors import HDZooError
    from hdzoo.models.ncsn import NCSNModel
    from hdzoo.models.ncsnpp import NCSNppModel
    from hdzoo.models.ncsnv2 import NCSNv2Model
    from hdzoo.models.unet import UNetScoreModel
    from hdzoo.pipelines.inpainting import HDInpaintPipeline
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.plugins import get_sampler, hookimpl, list_samplers
    from hdzoo.samplers.consistent import ConsistentAnnealedSampler
    from hdzoo.samplers.half_denoising import (
        AlphaHalfDenoisingSampler,
        AnnealedHalfDenoisingSampler,
        HalfDenoisingSampler,
        NoiseCorrectedLangevinSampler,
    )
    from hdzoo.samplers.langevin import AnnealedLangevinSampler, LangevinSampler
    from hdzoo.targets.empirical import EmpiricalScore
    from hdzoo.targets.laplace import LaplaceScore
    from hdzoo.targets.manifold import SegmentScore, SphereScore
    from hdzoo.targets.mixture import GaussianMixtureScore

__all__ = [
    "AlphaHalfDenoisingSampler",
    "AnnealedHalfDenoisingSampler",
    "AnnealedLangevinSampler",
    "ConsistentAnnealedSampler",
    "EmpiricalScore",
    "GaussianMixtureScore",
    "HDInpaintPipeline",
    "HDPipeline",
    "HDZooError",
    "HalfDenoisingSampler",
    "LangevinSampler",
    "LaplaceScore",
    "NCSNModel",
    "NCSNppModel",
    "NCSNv2Model",
    "NoiseCorrectedLangevinSampler",
    "SegmentScore",
    "SphereScore",
    "UNetScoreModel",
    "__version__",
    "get_sampler",
    "hookimpl",
    "list_samplers",
]

__version__ = "0.1.0"

_MODULES = {
    "AlphaHalfDenoisingSampler": "hdzoo.samplers.half_denoising",
    "AnnealedHalfDenoisingSampler": "hdzoo.samplers.half_denoising",
    "AnnealedLangevinSampler": "hdzoo.samplers.langevin",
    "ConsistentAnnealedSampler": "hdzoo.samplers.consistent",
    "EmpiricalScore": "hdzoo.targets.empirical",
    "GaussianMixtureScore": "hdzoo.targets.mixture",
    "HDInpaintPipeline": "hdzoo.pipelines.inpainting",
    "HDPipeline": "hdzoo.pipelines.pipeline",
    "HDZooError": "hdzoo.errors",
    "HalfDenoisingSampler": "hdzoo.samplers.half_denoising",
    "LangevinSampler": "hdzoo.samplers.langevin",
    "LaplaceScore": "hdzoo.targets.laplace",
    "NCSNModel": "hdzoo.models.ncsn",
    "NCSNppModel": "hdzoo.models.ncsnpp",
    "NCSNv2Model": "hdzoo.models.ncsnv2",
    "NoiseCorrectedLangevinSampler": "hdzoo.samplers.half_denoising",
    "SegmentScore": "hdzoo.targets.manifold",
    "SphereScore": "hdzoo.targets.manifold",
    "UNetScoreModel": "hdzoo.models.unet",
    "get_sampler": "hdzoo.plugins",
    "hookimpl": "hdzoo.plugins",
    "list_samplers": "hdzoo.plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
