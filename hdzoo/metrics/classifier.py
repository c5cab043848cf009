"""A small classifier of digits, whose features and logits image metrics are computed on."""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class DigitClassifierOutput(BaseOutput):
    """What a `DigitClassifier` says of a batch of images.

    Args:
        logits: of the classes, shape (batch, num_classes).
        features: of the layer before them, shape (batch, num_features).
    """

    logits: torch.Tensor
    features: torch.Tensor


class DigitClassifier(ModelMixin, ConfigMixin):
    """Five convolutions with batch norm and ReLU, the mean over the picture, a linear layer.

    The sides are halved by the first convolution, by a pooling after the second, and by the last
    convolution: 28 becomes 14, 7 and 4. The features are the means of the last convolution's
    channels after its ReLU: not negative, and blind to a shift of a few pixels.

    Args:
        sample_size: height and width in pixels; at least 8.
        in_channels: channels of the image.
        num_classes: how many classes there are.
        block_out_channels: width of the first two convolutions, and of the next two.
        num_features: width of the last convolution.
        dropout: share of the features left out at random in training.
        data_range: lowest and highest value of a pixel.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        num_classes: int = 10,
        block_out_channels: tuple[int, int] = (32, 64),
        num_features: int = 128,
        dropout: float = 0.2,
        data_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        first, second = block_out_channels
        self.body = nn.Sequential(
            *_convolution(in_channels, first, kernel_size=5, stride=2),
            *_convolution(first, first),
            nn.MaxPool2d(2),
            *_convolution(first, second),
            *_convolution(second, second),
            *_convolution(second, num_features, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> DigitClassifierOutput | tuple[torch.Tensor, torch.Tensor]:
        """Classifies.

        Args:
            sample: images, shape (batch, in_channels, sample_size, sample_size), in ``data_range``:
                light digits on dark ground, as MNIST's.
            return_dict: whether to return a `DigitClassifierOutput` or a tuple of the same.

        Returns:
            Logits and features.
        """
        features = self.body(sample)
        logits = self.head(features)
        if not return_dict:
            return logits, features
        return DigitClassifierOutput(logits=logits, features=features)


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> tuple[nn.Module, ...]:
    # The norm has a bias of its own.
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
    )
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
