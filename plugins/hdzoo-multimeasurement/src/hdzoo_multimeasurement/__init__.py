"""Sampling by many noisy measurements of one sample, all at once or one after the other."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    return {
        "joint-multimeasurement": "hdzoo_multimeasurement.joint:JointMultimeasurementSampler",
        "sequential-multimeasurement": (
            "hdzoo_multimeasurement.sequential:SequentialMultimeasurementSampler"
        ),
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"multimeasurement": "hdzoo_multimeasurement.reproduction:run"}
