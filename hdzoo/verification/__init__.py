"""The exact law of a sampler, its bias, and the checks of `hdzoo verify`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
