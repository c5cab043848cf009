"""A network and a sampler, to images."""
