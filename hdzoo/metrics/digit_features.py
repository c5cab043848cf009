"""The features of the digit classifier that travels with hdzoo."""

from pathlib import Path

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch.nn import functional as F

from hdzoo.bundled import bundled_folder
from hdzoo.checksums import check_tensors
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.metrics.image_features import ImageFeatures


class DigitFeatures(ImageFeatures):
    """`DigitClassifier`'s 128 features and 10 logits; for images of digits only.

    The weights are a folder that `hdzoo train-classifier` has written, or the file in it; by
    default ``mnist-classifier``, whose card says how it was trained. Images become grey by the mean
    over their channels, and are resized to 28x28 where they have another size, bilinear with
    antialiasing. Digits are light on dark ground, in the middle, with a margin as MNIST's.
    """

    label = "digit-classifier features"
    classifies = True
    network: DigitClassifier

    @staticmethod
    def weights_file(given: Path | None) -> Path:
        path = given if given is not None else bundled_folder() / "mnist-classifier"
        return path / SAFETENSORS_WEIGHTS_NAME if path.is_dir() else path

    @staticmethod
    def load(weights: Path) -> DigitClassifier:
        network: DigitClassifier = DigitClassifier.from_config(
            DigitClassifier.load_config(weights.parent)
        )
        check_tensors(weights)
        network.load_state_dict(load_file(weights))
        return network

    def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        config = self.network.config
        grey = images.mean(1, keepdim=True).expand(-1, config.in_channels, -1, -1)
        if grey.shape[-2:] != (config.sample_size, config.sample_size):
            grey = F.interpolate(grey, config.sample_size, mode="bilinear", antialias=True)
        low, high = config.data_range
        output = self.network(low + (high - low) * grey)
        return {"features": output.features, "logits": output.logits}
