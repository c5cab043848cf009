"""What a feature extractor is made of."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch_fidelity import FeatureExtractorBase

from hdzoo.errors import HDZooError


class ImageFeatures(FeatureExtractorBase):
    """A network in the form that torch-fidelity asks for, with the layers "features" and "logits".

    The Inception score takes the logits, all other metrics take the features. A subclass has a
    `label` that says what its metrics are computed on, such as ``"digit-classifier features"``, and
    the methods `weights_file`, `load` and `extract`.

    Args:
        name: the name that it is registered under.
        features_list: the layers to return, in that order.
        feature_extractor_weights_path: a weights file; what `weights_file` finds by default.
        **kwargs: torch-fidelity's other options, which mean nothing here.
    """

    label: ClassVar[str]
    # Whether the logits are of the classes that the images have, as a classifier of digits' are of
    # digits: then the metrics of class shares are for it.
    classifies: ClassVar[bool] = False
    # The first digits of the SHA-256 of weights on which the metrics have their published names.
    published_weights: ClassVar[str | None] = None

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, features_list)
        given = feature_extractor_weights_path
        self.network = self.load(self.weights_file(Path(given) if given is not None else None))
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def weights_file(given: Path | None) -> Path:
        """The file to load.

        Args:
            given: what the user asked for; None for the extractor's own.

        Raises:
            HDZooError: the extractor's own cannot be had.
        """
        raise NotImplementedError

    @staticmethod
    def load(weights: Path) -> nn.Module:
        """The network with the weights of a file; no pickle is opened in full."""
        raise NotImplementedError

    def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The layers of a batch.

        Args:
            images: float32, shape (batch, 3, height, width), from 0 to 1.

        Returns:
            ``"features"``, shape (batch, features), and ``"logits"``, shape (batch, classes).
        """
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The layers of ``features_list``, in that order.

        Args:
            images: uint8, shape (batch, 3, height, width); grey ones have three equal channels.

        Raises:
            HDZooError: they are not.
        """
        check_images(images)
        layers = self.extract(images.float() / 255)
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


def check_images(images: torch.Tensor) -> None:
    """Refuses what is no batch of pictures in bytes.

    Raises:
        HDZooError: the dtype or the shape is another one.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise HDZooError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; feature extractors take "
            "torch.uint8 of shape (batch, 3, height, width), and grey ones repeated to 3 channels"
        )
