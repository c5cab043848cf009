"""hdzoo's own parts, brought through the same hooks as any plugin's."""

from pathlib import Path

from hdzoo.bundled import bundled_models
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
        "averaged-noise-langevin": "hdzoo.samplers.averaged_noise:AveragedNoiseLangevinSampler",
        "averaged-noise-annealed-langevin": (
            "hdzoo.samplers.averaged_noise:AveragedNoiseAnnealedLangevinSampler"
        ),
        "underdamped-langevin": "hdzoo.samplers.underdamped:UnderdampedLangevinSampler",
        "underdamped-annealed-langevin": (
            "hdzoo.samplers.underdamped:UnderdampedAnnealedLangevinSampler"
        ),
        "mala": "hdzoo.samplers.metropolis:MALASampler",
        "consistent-annealed-sampling": "hdzoo.samplers.consistent:ConsistentAnnealedSampler",
        "heun": "hdzoo.samplers.heun:HeunSampler",
        "dpm-solver-pp-2m": "hdzoo.samplers.dpm_solver:DPMSolverPP2MSampler",
        "unipc": "hdzoo.samplers.unipc:UniPCSampler",
        "predictor-corrector": "hdzoo.samplers.predictor_corrector:PredictorCorrectorSampler",
    }


@hookimpl
def hdzoo_models() -> dict[str, str]:
    return {
        "ncsn": "hdzoo.models.ncsn:NCSNModel",
        "ncsnv2": "hdzoo.models.ncsnv2:NCSNv2Model",
        "ncsnpp": "hdzoo.models.ncsnpp:NCSNppModel",
        "unet": "hdzoo.models.unet:UNetScoreModel",
        "energy": "hdzoo.models.energy:EnergyModel",
        "conv-energy": "hdzoo.models.conv_energy:ConvEnergyModel",
        "gaussian-mixture": "hdzoo.targets.mixture:GaussianMixtureScore",
        "segment": "hdzoo.targets.manifold:SegmentScore",
        "sphere": "hdzoo.targets.manifold:SphereScore",
        "laplace": "hdzoo.targets.laplace:LaplaceScore",
        "empirical": "hdzoo.targets.empirical:EmpiricalScore",
    }


@hookimpl
def hdzoo_objectives() -> dict[str, str]:
    return {
        "denoising": "hdzoo.training.objectives.denoising:Denoising",
        "explicit": "hdzoo.training.objectives.explicit:Explicit",
        "implicit": "hdzoo.training.objectives.implicit:Implicit",
        "sliced": "hdzoo.training.objectives.implicit:Sliced",
        "sure": "hdzoo.training.objectives.sure:Sure",
        "contrastive-divergence": "hdzoo.training.objectives.contrastive:ContrastiveDivergence",
    }


@hookimpl
def hdzoo_pipelines() -> dict[str, Path]:
    return bundled_models()


@hookimpl
def hdzoo_datasets() -> dict[str, str]:
    return {"digits": "hdzoo.images.digits:load_digits"}


@hookimpl
def hdzoo_feature_extractors() -> dict[str, str]:
    return {
        "digits": "hdzoo.metrics.digit_features:DigitFeatures",
        "inception-v3-compat": "hdzoo.metrics.inception:InceptionFeatures",
    }


@hookimpl
def hdzoo_targets() -> dict[str, str]:
    return {
        "gaussian": "hdzoo.targets.named:gaussian",
        "gaussian-anisotropic": "hdzoo.targets.named:gaussian_anisotropic",
        "two-gaussians": "hdzoo.targets.named:two_gaussians",
        "two-points": "hdzoo.targets.named:two_points",
        "laplace": "hdzoo.targets.named:laplace",
        "ncsn-toy": "hdzoo.targets.named:ncsn_toy",
        "eight-gaussians": "hdzoo.targets.named:eight_gaussians",
        "moons": "hdzoo.targets.named:moons",
        "circle": "hdzoo.targets.named:circle",
        "segment": "hdzoo.targets.named:segment",
        "sphere": "hdzoo.targets.named:sphere",
        "spectrum": "hdzoo.targets.named:spectrum_target",
        "digits": "hdzoo.targets.named:digits",
        "digits-empirical": "hdzoo.targets.named:digits_empirical",
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {
        "score-matching": "hdzoo.literature.score_matching:run",
        "noise-corrected-langevin": "hdzoo.literature.noise_corrected:run",
        "half-or-full-denoising": "hdzoo.literature.half_or_full:run",
        "ncsn-toy": "hdzoo.literature.ncsn_toy:run",
        "ncsnv2-techniques": "hdzoo.literature.ncsnv2_techniques:run",
        "consistent-annealing": "hdzoo.literature.consistent_annealing:run",
        "alpha-half-denoising": "hdzoo.literature.alpha_half:run",
        "frontier": "hdzoo.literature.frontier:run",
        "half-denoising-factorial": "hdzoo.literature.factorial.run:run",
    }
