"""The exact law of a sampler, its bias, and the checks of `hdzoo verify`."""
