"""An example plugin: one sampler, registered with hdzoo."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    # A string, so that listing the samplers does not import torch.
    return {"example-ddim": "hdzoo_example_sampler.sampler:ExampleDDIMSampler"}
