"""References: what the features of real images are, kept so that no real image is needed."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from hdzoo import plugins
from hdzoo.checks import SEED
from hdzoo.checksums import check_tensors, save_tensors
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import check_file
from hdzoo.hub.resolve import resolve_model
from hdzoo.metrics.features import Extractor
from hdzoo.metrics.image_sets import Features, ImageSet, OnProgress
from hdzoo.metrics.metrics import LEAST_IMAGES, Moments, moments
from hdzoo.text import counted

# The entry of a file's metadata.
PROTOCOL = "hdzoo_reference"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Reference:
    """Real images as an extractor sees them.

    Args:
        moments: of all images, on the layer of the Fréchet distance, float64.
        layers: of some of the images, or all, float32, shape (images, features); what kernel
            distance, precision, recall and the floors are computed on.
        protocol: what it was made from and by.
    """

    moments: Moments
    layers: dict[str, torch.Tensor]
    protocol: dict[str, Any]

    @property
    def num_images(self) -> int:
        """How many images the moments are of."""
        return int(self.protocol["num_images"])

    @property
    def num_features(self) -> int:
        """How many images the layers are of."""
        return len(next(iter(self.layers.values())))

    def known_extractor(self) -> str:
        """The name of its extractor.

        Raises:
            HDZooError: no package that is installed brings it.
        """
        name, package = self.protocol["extractor"], self.protocol.get("package")
        if package is not None and name not in plugins.names("feature_extractors"):
            raise HDZooError(
                f"the reference has the features of {name!r}, which the package {package} brings; "
                "install that, or give another reference"
            )
        return str(name)

    def check_extractor(self, extractor: Extractor) -> None:
        """Refuses another extractor, or one with other weights, than it was made with."""
        name, digest = self.protocol["extractor"], self.protocol["weights_sha256"]
        if name != extractor.name:
            raise HDZooError(
                f"the reference has the features of {name!r}, not of {extractor.name!r}; leave "
                "the features out, or give another reference"
            )
        if digest != extractor.weights_sha256:
            raise HDZooError(
                f"the reference was made with weights of {name!r} whose SHA-256 is {digest}, and "
                f"that of {extractor.weights} is {extractor.weights_sha256}; give the same "
                "weights, or make a reference with these by `hdzoo reference`"
            )

    def save(self, path: Path) -> None:
        """Writes a safetensors file: the layers rounded to float16, of the covariance the lower
        triangle in float32.

        The Fréchet distance from the whole reference changes by 1e-9 of itself: from 10,000 of
        CIFAR-10's images on 1,280 features. That from 5,000 of MNIST's images, by their layers,
        changes by 1.3e-5 of itself on the digit features.

        Raises:
            HDZooError: the path has another ending, or a feature is too large for float16.
        """
        check_place(path)
        halves = {f"layers.{name}": values.half() for name, values in self.layers.items()}
        if not all(bool(values.isfinite().all()) for values in halves.values()):
            raise HDZooError(
                f"features of {self.protocol['extractor']!r} are not finite or exceed 65504, the "
                "largest number of float16; name the images themselves as the reference"
            )
        tensors = {
            "mean": torch.from_numpy(self.moments["mu"]),
            "covariance": _triangle(torch.from_numpy(self.moments["sigma"])),
            **{name: values.contiguous() for name, values in halves.items()},
        }
        save_tensors(tensors, path, {PROTOCOL: json.dumps(self.protocol)})


def _triangle(covariance: torch.Tensor) -> torch.Tensor:
    """The lower triangle of a symmetric matrix, row by row, in float32."""
    rows, columns = torch.tril_indices(*covariance.shape)
    return covariance[rows, columns].float()


def _whole(covariance: torch.Tensor, size: int) -> torch.Tensor:
    """The matrix of a `_triangle`, in float64; files of before have it whole."""
    if covariance.ndim == 2:
        return covariance
    rows, columns = torch.tril_indices(size, size)
    whole = torch.zeros(size, size, dtype=torch.float64)
    whole[rows, columns] = whole[columns, rows] = covariance.double()
    return whole


def check_place(path: Path) -> None:
    """Refuses, before any work, a file that could be no reference or not be written.

    Args:
        path: of the file.

    Raises:
        HDZooError: it has another ending, or nothing can be written there.
    """
    if path.suffix != SUFFIX:
        raise HDZooError(f"a reference is a {SUFFIX} file; {str(path)!r} is none")
    check_file(path)


def make_reference(
    images: ImageSet,
    extractor: Extractor,
    *,
    max_features: int | None = None,
    seed: int = 0,
    dataset: str | None = None,
    batch_size: int = 256,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Reference:
    """Makes a reference of images.

    Args:
        images: real ones.
        extractor: of their features.
        max_features: of how many images, a random choice, the layers are kept; all by default. The
            moments are of all images in any case.
        seed: of the choice.
        dataset: what to call them, such as their Hub id; the source by default.
        batch_size: images that go through the extractor together.
        command: what the user typed.
        on_progress: called after each batch.

    Raises:
        HDZooError: there are too few images, or they do not fit together.
    """
    if max_features is not None and max_features < LEAST_IMAGES:
        raise HDZooError(f"max_features is {max_features}; at least {LEAST_IMAGES} are needed")
    SEED("seed", seed)
    check_enough(len(images), images.source)
    found: Features = images.extract(extractor, batch_size, on_progress)
    layers = found.layers
    if max_features is not None and max_features < len(images):
        chosen = np.random.default_rng(seed).permutation(len(images))[:max_features]
        layers = {name: values[np.sort(chosen)] for name, values in layers.items()}
    return Reference(
        moments(found.layers[extractor.layers["fid"]]),
        layers,
        {
            "dataset": dataset or images.source,
            "source": images.source,
            "split": images.split,
            "image_column": images.image_column,
            "num_images": len(images),
            "num_features": len(next(iter(layers.values()))),
            "image_size": list(found.image_size),
            "framing": dataclasses.asdict(images.framing),
            "seed": seed,
            "extractor": extractor.name,
            "package": plugins.provider("feature_extractors", extractor.name).distribution,
            "label": extractor.label,
            "weights_sha256": extractor.weights_sha256,
            "versions": versions("torch", "torch-fidelity"),
            "command": command,
        },
    )


def load_reference(path: Path) -> Reference:
    """Reads what `Reference.save` has written.

    Raises:
        HDZooError: there is no such file, or it is none.
    """
    if not path.is_file():
        raise HDZooError(f"there is no reference {str(path)!r}; make one by `hdzoo reference`")
    check_tensors(path)
    try:
        with safe_open(path, "pt") as file:
            protocol = json.loads((file.metadata() or {})[PROTOCOL])
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        mean, covariance = tensors.pop("mean"), tensors.pop("covariance")
        covariance = _whole(covariance, len(mean))
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise HDZooError(
            f"{path} is no reference, or damaged: {error}; make one by `hdzoo reference`"
        ) from error
    return Reference(
        {"mu": mean.numpy(), "sigma": covariance.numpy()},
        {name.removeprefix("layers."): values.float() for name, values in tensors.items()},
        protocol,
    )


def reference_of(model: str | Path, features: str | None = None) -> Path:
    """The reference that a model has with it: ``reference-FEATURES.safetensors`` in its folder.

    Args:
        model: a folder, a bundled name, or a Hub id.
        features: the name of an extractor; may be left out if there is one reference alone.

    Raises:
        HDZooError: there is none, or a choice.
    """
    name = "reference-"
    found = {
        path.stem.removeprefix(name): path
        for path in sorted(resolve_model(model).glob(f"{name}*{SUFFIX}"))
    }
    if features in found:
        return found[features]
    if features is None and len(found) == 1:
        return next(iter(found.values()))
    raise HDZooError(
        f"the model {str(model)!r} has references for the features {', '.join(found) or 'none'}"
        f"{f', not for {features!r}' if features else ''}; choose one of them"
    )


def check_enough(count: int, source: str) -> None:
    """Refuses fewer images than the metrics can do with."""
    if count < LEAST_IMAGES:
        raise HDZooError(
            f"{source} has {counted(count, 'image')}; at least {LEAST_IMAGES} are needed"
        )
