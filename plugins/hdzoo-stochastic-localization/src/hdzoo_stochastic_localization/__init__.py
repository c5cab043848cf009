"""Stochastic localization, of first and of second order, registered with hdzoo."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    # Strings, so that listing the samplers does not import torch.
    return {
        "stochastic-localization": (
            "hdzoo_stochastic_localization.euler:StochasticLocalizationSampler"
        ),
        "stochastic-localization-2": (
            "hdzoo_stochastic_localization.second_order:StochasticLocalization2Sampler"
        ),
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"stochastic-localization": "hdzoo_stochastic_localization.literature:run"}
