"""Samplers for energy models: Langevin dynamics at any temperature, and moves with a test."""

from hdzoo import hookimpl


# Strings, so that listing imports no torch.
@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    return {
        "sgld": "hdzoo_energy.langevin:SGLDSampler",
        "low-temperature-langevin": "hdzoo_energy.langevin:LowTemperatureLangevinSampler",
        "adjusted-underdamped-langevin": (
            "hdzoo_energy.hamiltonian:AdjustedUnderdampedLangevinSampler"
        ),
        "hmc": "hdzoo_energy.hamiltonian:HMCSampler",
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"energy-samplers": "hdzoo_energy.reproduction:run"}
