"""The feature extractor ``efficientnet-lite0``, registered with hdzoo."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_feature_extractors() -> dict[str, str]:
    # A string, so that listing the plugins does not import torch.
    return {"efficientnet-lite0": "hdzoo_efficientnet_lite0.features:EfficientNetLite0Features"}
