"""hdzoo's own parts, brought through the same hooks as any plugin's."""

from hdzoo.plugins import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    return {
        "langevin": "hdzoo.samplers.langevin:LangevinSampler",
        "annealed-langevin": "hdzoo.samplers.langevin:AnnealedLangevinSampler",
        "noise-corrected-langevin": "hdzoo.samplers.half_denoising:NoiseCorrectedLangevinSampler",
        "half-denoising": "hdzoo.samplers.half_denoising:HalfDenoisingSampler",
        "annealed-half-denoising": "hdzoo.samplers.half_denoising:AnnealedHalfDenoisingSampler",
        "alpha-half-denoising": "hdzoo.samplers.half_denoising:AlphaHalfDenoisingSampler",
        "consistent-annealed-sampling": "hdzoo.samplers.consistent:ConsistentAnnealedSampler",
    }


@hookimpl
def hdzoo_models() -> dict[str, str]:
    return {
        "ncsn": "hdzoo.models.ncsn:NCSNModel",
        "ncsnv2": "hdzoo.models.ncsnv2:NCSNv2Model",
        "unet": "hdzoo.models.unet:UNetScoreModel",
    }


@hookimpl
def hdzoo_datasets() -> dict[str, str]:
    return {"digits": "hdzoo.training.data:load_digits"}
