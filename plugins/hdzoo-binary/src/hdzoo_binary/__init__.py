"""Data in {-1, 1}^d with bit-flip noise: targets, walks, a network and a trained one."""

from pathlib import Path

from hdzoo import hookimpl


# Strings, so that listing imports no torch.
@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    return {
        "discrete-langevin": "hdzoo_binary.one_stage:DiscreteLangevinSampler",
        "discrete-mala": "hdzoo_binary.one_stage:DiscreteMALASampler",
        "two-stage-discrete-langevin": "hdzoo_binary.two_stage:TwoStageDiscreteLangevinSampler",
        "binary-multimeasurement": "hdzoo_binary.measurements:BinaryMultimeasurementSampler",
    }


@hookimpl
def hdzoo_models() -> dict[str, str]:
    return {
        "binary-unet": "hdzoo_binary.network:BinaryUNetModel",
        "signs-mixture": "hdzoo_binary.targets:SignsMixtureScore",
    }


@hookimpl
def hdzoo_objectives() -> dict[str, str]:
    return {"bit-flip-cross-entropy": "hdzoo_binary.objective:BitFlipCrossEntropy"}


@hookimpl
def hdzoo_pipelines() -> dict[str, Path]:
    return {"binary-mnist": Path(__file__).parent / "binary-mnist"}


@hookimpl
def hdzoo_targets() -> dict[str, str]:
    return {
        "independent-signs": "hdzoo_binary.targets:independent_signs",
        "signs-mixture": "hdzoo_binary.targets:signs_mixture",
        "ising": "hdzoo_binary.targets:ising",
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"discrete-langevin": "hdzoo_binary.literature:run"}
