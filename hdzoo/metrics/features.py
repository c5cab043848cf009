"""Feature extractors: the networks that FID, KID, IS, precision and recall are computed on.

A metric is only as good as its features, and comparable only with numbers on the same ones. So an
extractor carries a label that its metrics are printed with, and the hash of its weights:

.. code-block:: python

    from torch_fidelity import calculate_metrics

    extractor = get_extractor("digits")
    found = calculate_metrics(input1=folder, input2=other, fid=True, **extractor.options())
    print(extractor.metric_name("fid"))  # FD (digit-classifier features)

``FID``, ``KID`` and ``IS`` without a label mean Inception-v3 with the published weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.files import file_hash
from hdzoo.metrics.image_features import check_images

# torch-fidelity's name of a metric: its published name, and its name on other features.
METRICS = {
    "fid": ("FID", "FD"),
    "kid": ("KID", "KD"),
    "isc": ("IS", "IS"),
    "prc": ("precision and recall", "precision and recall"),
}
# hdzoo's own, for features that come with a classifier of the images.
CLASS_METRICS = {
    "wfid": ("class-weighted FID", "class-weighted FD"),
    "tv": ("total variation of class shares", "total variation of class shares"),
}


@dataclass(frozen=True)
class Extractor:
    """A feature extractor that is ready for use; from `get_extractor`.

    Args:
        name: its registered name, here and with torch-fidelity.
        label: what metrics on it are printed with, such as ``"digit-classifier features"``.
        layers: torch-fidelity's name of a metric (``fid``, ``kid``, ``isc``, ``prc``) to the layer
            that it is computed on.
        weights: the file that the weights are from.
        weights_sha256: of that file, in hexadecimal.
        published: whether metrics on it may have their published names.
        device: where the network is.
        network: it; from images to a tuple of its layers.
        classifies: whether its logits are of the classes that the images have.
    """

    name: str
    label: str
    layers: dict[str, str]
    weights: Path
    weights_sha256: str
    published: bool
    device: torch.device
    network: FeatureExtractorBase = field(repr=False)
    classifies: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be had with it."""
        return (*METRICS, *(CLASS_METRICS if self.classifies else ()))

    def check_metrics(self, metrics: Sequence[str]) -> None:
        """Refuses metrics that are unknown, or not for these features."""
        check_metrics(metrics)
        for metric in metrics:
            if metric not in self.metrics:
                raise HDZooError(
                    f"the metric {metric!r} needs features with a classifier of the images, and "
                    f"{self.name!r} has none; take {', '.join(self.metrics)}, or other features, "
                    "such as 'digits' for digits"
                )

    def metric_name(self, metric: str) -> str:
        """What a metric is to be called, such as ``FID`` or ``FD (digit-classifier features)``.

        Precision and recall have their label always: the published ones are on VGG-16.

        Args:
            metric: one of `METRICS` or `CLASS_METRICS`.

        Raises:
            HDZooError: it is not.
        """
        check_metrics([metric])
        published, other = (METRICS | CLASS_METRICS)[metric]
        bare = self.published and metric not in ("prc", "tv")
        return published if bare else f"{other} ({self.label})"

    def options(self) -> dict[str, Any]:
        """What to give to ``torch_fidelity.calculate_metrics`` so that it uses this extractor.

        Its cache knows inputs and extractors by name alone: put ``weights_sha256`` into
        ``input1_cache_name`` where you set it.
        """
        return {
            "feature_extractor": self.name,
            "feature_extractor_weights_path": str(self.weights),
            "cuda": self.device.type == "cuda",
            **{f"feature_layer_{metric}": layer for metric, layer in self.layers.items()},
        }

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The layers of a batch, by name, float32 on `device`.

        Args:
            images: uint8, shape (batch, 3, height, width); grey ones have three equal channels.

        Raises:
            HDZooError: they are not.
        """
        check_images(images)
        layers: dict[str, torch.Tensor] = self.network.convert_features_tuple_to_dict(
            self.network(images.to(self.device))
        )
        return layers


def check_metrics(metrics: Sequence[str]) -> None:
    """Refuses unknown metrics, and none."""
    known = METRICS | CLASS_METRICS
    unknown = [metric for metric in metrics if metric not in known]
    if unknown or not metrics:
        what = f"metric {unknown[0]!r}" if len(unknown) == 1 else "metrics " + ", ".join(unknown)
        raise HDZooError(
            f"unknown {what if unknown else 'metrics (none)'}; the metrics are {', '.join(known)}"
        )


def get_extractor(
    name: str, weights: str | Path | None = None, device: str | torch.device | None = None
) -> Extractor:
    """Finds a feature extractor, loads it, and registers it with torch-fidelity.

    Args:
        name: its registered name: ``"digits"``, ``"inception-v3-compat"``, or a plugin's.
        weights: a weights file in the place of its own.
        device: where to put it; the one that Accelerate chooses by default.

    Raises:
        HDZooError: no plugin brings it, its weights cannot be had or do not fit, or torch-fidelity
            has another one of that name.
    """
    extractor = _checked(name, plugins.get("feature_extractors", name))
    path = extractor.weights_file(Path(weights) if weights is not None else None)
    if not path.is_file():
        raise HDZooError(f"there is no weights file {str(path)!r} for the extractor {name!r}")
    default_layer = extractor.get_default_feature_layer_for_metric
    layers = {metric: default_layer(metric) for metric in METRICS}
    distinct = list(dict.fromkeys(layers.values()))
    device = torch.device(device) if device is not None else PartialState().device
    try:
        network = extractor(name, distinct, feature_extractor_weights_path=str(path), verbose=False)
    except HDZooError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HDZooError(
            f"the extractor {name!r} cannot load the weights {str(path)!r}: {reason} Give a file "
            "made for it, or none for its own weights"
        ) from error
    _register(name, extractor)
    digest, published = file_hash(path), extractor.published_weights
    return Extractor(
        name=name,
        label=extractor.label,
        layers=layers,
        weights=path,
        weights_sha256=digest,
        published=published is not None and digest.startswith(published),
        device=device,
        network=network.to(device),
        classifies=bool(getattr(extractor, "classifies", False)),
    )


def _checked(name: str, extractor: Any) -> Any:
    source = plugins.provider("feature_extractors", name)
    if not (isinstance(extractor, type) and issubclass(extractor, FeatureExtractorBase)):
        raise HDZooError(
            f"the feature extractor {name!r} of {source} is {extractor!r}; it must be a subclass "
            "of torch_fidelity.FeatureExtractorBase, such as "
            "hdzoo.metrics.image_features.ImageFeatures"
        )
    wanted = ("label", "weights_file", "published_weights")
    missing = [attribute for attribute in wanted if not hasattr(extractor, attribute)]
    if missing:
        raise HDZooError(
            f"the feature extractor {name!r} of {source} has no {', '.join(missing)}; derive it "
            "from hdzoo.metrics.image_features.ImageFeatures, or add what is missing"
        )
    return extractor


def _register(name: str, extractor: type[FeatureExtractorBase]) -> None:
    known = FEATURE_EXTRACTORS_REGISTRY.get(name)
    if known is None:
        register_feature_extractor(name, extractor)
    # torch-fidelity's own stay as they are, and ours, derived from them, only know more of them.
    elif not issubclass(extractor, known):
        raise HDZooError(
            f"torch-fidelity already has an extractor {name!r}, {known.__module__}."
            f"{known.__name__}; rename {extractor.__module__}.{extractor.__name__}"
        )
