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
        "ncsnpp": "hdzoo.models.ncsnpp:NCSNppModel",
        "unet": "hdzoo.models.unet:UNetScoreModel",
        "gaussian-mixture": "hdzoo.models.mixture:GaussianMixtureScore",
        "segment": "hdzoo.models.manifold:SegmentScore",
        "sphere": "hdzoo.models.manifold:SphereScore",
        "laplace": "hdzoo.models.laplace:LaplaceScore",
        "empirical": "hdzoo.models.empirical:EmpiricalScore",
    }


@hookimpl
def hdzoo_datasets() -> dict[str, str]:
    return {"digits": "hdzoo.training.data:load_digits"}


@hookimpl
def hdzoo_feature_extractors() -> dict[str, str]:
    return {
        "digits": "hdzoo.evaluation.digit_features:DigitFeatures",
        "inception-v3-compat": "hdzoo.evaluation.inception:InceptionFeatures",
    }


@hookimpl
def hdzoo_targets() -> dict[str, str]:
    return {
        "gaussian": "hdzoo.evaluation.targets:gaussian",
        "gaussian-anisotropic": "hdzoo.evaluation.targets:gaussian_anisotropic",
        "two-gaussians": "hdzoo.evaluation.targets:two_gaussians",
        "two-points": "hdzoo.evaluation.targets:two_points",
        "laplace": "hdzoo.evaluation.targets:laplace",
        "ncsn-toy": "hdzoo.evaluation.targets:ncsn_toy",
        "eight-gaussians": "hdzoo.evaluation.targets:eight_gaussians",
        "moons": "hdzoo.evaluation.targets:moons",
        "circle": "hdzoo.evaluation.targets:circle",
        "segment": "hdzoo.evaluation.targets:segment",
        "sphere": "hdzoo.evaluation.targets:sphere",
        "spectrum": "hdzoo.evaluation.targets:spectrum_target",
        "digits": "hdzoo.evaluation.targets:digits",
        "digits-empirical": "hdzoo.evaluation.targets:digits_empirical",
    }
