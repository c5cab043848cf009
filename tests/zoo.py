"""The samplers that these tests run on.

Those of other packages are tested there, by the kit; the example's stands for them here, so that
the time does not grow with what is installed.
"""

from hdzoo import list_samplers
from hdzoo.plugins import provider

SAMPLERS = [
    name
    for name in list_samplers()
    if provider("samplers", name).distribution in ("hdzoo", "hdzoo-example-sampler")
]
