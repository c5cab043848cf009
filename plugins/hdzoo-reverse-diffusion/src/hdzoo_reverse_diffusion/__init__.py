"""The reverse process, its probability flow, and predictor-corrector, registered with hdzoo."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    # Strings, so that listing the samplers does not import torch.
    return {
        name: f"hdzoo_reverse_diffusion.{reference}"
        for name, reference in {
            "ornstein-uhlenbeck": "ornstein_uhlenbeck:OrnsteinUhlenbeckSampler",
            "reverse-sde": "reverse_sde:ReverseSDESampler",
            "score-sde-pc": "predictor_corrector:ScoreSDEPCSampler",
            "probability-flow": "probability_flow:ProbabilityFlowSampler",
            "probability-flow-rk45": "runge_kutta:ProbabilityFlowRK45Sampler",
        }.items()
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"reverse-diffusion": "hdzoo_reverse_diffusion.literature:run"}
