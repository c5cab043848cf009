"""Inception-v3 as in the published FID, with torch-fidelity's port of its weights."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from hdzoo.errors import HDZooError


class InceptionFeatures(FeatureExtractorInceptionV3):
    """torch-fidelity's ``inception-v3-compat``: 2048 features, 1008 logits without their bias.

    The weights, 91 MB, are downloaded once into torch's cache and checked against their hash, as
    torch-fidelity does it. On others the metrics do not have their published names.

    Source: Heusel et al. (arXiv 1706.08500), with the TensorFlow graph of 2015-12-05.

    Args:
        name: the name that it is registered under.
        features_list: the layers to return.
        feature_extractor_weights_path: a state dict as torch saves it; downloaded by default.
        **kwargs: torch-fidelity's other options.
    """

    label = "Inception-v3 features"
    # The end of the file's name is the start of its hash.
    published_weights = Path(URL_INCEPTION_V3).stem.rpartition("-")[2]

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        given = feature_extractor_weights_path
        path = self.weights_file(Path(given) if given is not None else None)
        # Refuses a pickle that would run code: torch-fidelity opens whatever it gets.
        torch.load(path, map_location="cpu", weights_only=True)
        super().__init__(name, features_list, str(path), **kwargs)

    @staticmethod
    def weights_file(given: Path | None) -> Path:
        """The file that is given, or the published weights, downloaded where they are missing.

        Raises:
            HDZooError: they cannot be downloaded.
        """
        if given is not None:
            return given
        path = Path(torch.hub.get_dir(), "checkpoints", Path(URL_INCEPTION_V3).name)
        if path.is_file():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with redirect_stdout(sys.stderr):
                torch.hub.download_url_to_file(
                    URL_INCEPTION_V3, str(path), InceptionFeatures.published_weights
                )
        except (OSError, RuntimeError) as error:
            raise HDZooError(
                f"the weights of Inception-v3 cannot be downloaded from {URL_INCEPTION_V3} to "
                f"{path}: {error}. Bring that file here and give its path as weights, or choose an "
                "extractor that has its weights with it, such as 'digits'"
            ) from error
        return path
