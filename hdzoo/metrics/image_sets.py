"""Sets of images to be judged: generated ones, folders, Parquet files, data sets on the Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Image as ImageFeature
from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.generation.manifest import MANIFEST, read_manifest
from hdzoo.generation.shards import Shards
from hdzoo.metrics.features import Extractor
from hdzoo.text import counted
from hdzoo.training.data import load_images

if TYPE_CHECKING:
    from datasets import Dataset

# Pillow's modes with a byte for each channel; of others the range is not known.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")

# Called with what is read, the number of images done, and that of all.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size; from `open_images`.

    Args:
        source: where they are from, as the user said it.
        split: of the source.
        images: one column, ``"image"``.
        manifest: of a generated set; None for other images.
    """

    source: str
    split: str
    images: "Dataset"
    manifest: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def extract(
        self, extractor: Extractor, batch_size: int = 256, on_progress: OnProgress | None = None
    ) -> "Features":
        """The features of all images, in their order.

        Args:
            extractor: whose.
            batch_size: images together; features depend on it by rounding alone.
            on_progress: called at the start and after each batch.

        Raises:
            HDZooError: an image has another size than the first, or no bytes as pixels.
        """
        if batch_size < 1:
            raise HDZooError(f"batch_size is {batch_size}; it must be at least 1")
        batches, size = [], self.images[0]["image"].size
        if on_progress is not None:
            on_progress(self.source, 0, len(self))
        for begin in range(0, len(self), batch_size):
            batch = self.images[begin : begin + batch_size]["image"]
            for i, image in enumerate(batch, begin):
                if image.size != size:
                    raise HDZooError(
                        f"the images of {self.source} have several sizes: the first is "
                        f"{render(size)}, number {i} is {render(image.size)}; bring them to one "
                        "size first, since how that is done changes the metrics"
                    )
            layers = extractor(torch.stack([pixels(image, self.source) for image in batch]))
            batches.append({name: values.float().cpu() for name, values in layers.items()})
            if on_progress is not None:
                on_progress(self.source, begin + len(batch), len(self))
        layers = {name: torch.cat([layers[name] for layers in batches]) for name in batches[0]}
        return Features(layers, size)


@dataclass(frozen=True)
class Features:
    """What an extractor says of a set.

    Args:
        layers: by their names, float32 on the CPU, shape (images, features).
        image_size: width and height in pixels.
    """

    layers: dict[str, torch.Tensor]
    image_size: tuple[int, int]


def open_images(source: str | Path, split: str = "train") -> ImageSet:
    """Finds a set of images.

    Args:
        source: the folder of a generated set, or what `hdzoo.training.data.load_images` takes: a
            registered name, ``.parquet`` file(s), a folder of images, or a Hub id.
        split: of the source; a generated set has none.

    Raises:
        HDZooError: there is no such source, it has no images, or a generated set is incomplete or
            damaged.
    """
    folder = Path(source)
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        images = load_images(str(source), split)
    else:
        check_complete(folder, manifest)
        images, split = load_images(str(folder / "data" / "train-*.parquet")), "train"
    if not len(images):
        raise HDZooError(f"{source} has no images in the split {split!r}")
    column = next(name for name, f in images.features.items() if isinstance(f, ImageFeature))
    images = images.select_columns([column])
    if column != "image":
        images = images.rename_column(column, "image")
    return ImageSet(str(source), split, images, manifest)


def check_complete(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuses a generated set of which something is missing or damaged.

    Args:
        folder: of the set.
        manifest: that is in it.
    """
    again = "give the command of its manifest again, which draws what is missing"
    missing = [key for key in ("model", "chunk_size") if key not in manifest]
    if missing:
        raise HDZooError(
            f"{folder / MANIFEST} has no {' and no '.join(missing)}, so that it is no manifest of "
            "`hdzoo generate`; take it away if these are other images, or give their files"
        )
    shards = Shards(folder, manifest["num_images"], manifest["chunk_size"])
    found = shards.count_images()
    if found != shards.num_images:
        raise HDZooError(
            f"{folder} has {found} of {counted(shards.num_images, 'image')} of its manifest; "
            f"{again}"
        )
    for number in range(len(shards)):
        fault = shards.fault(number)
        if fault is not None:
            raise HDZooError(f"{shards.path(number)} is damaged: {fault}; {again}")


def pixels(image: Image.Image, source: str) -> torch.Tensor:
    """A picture as extractors take it: uint8, shape (3, height, width).

    Raises:
        HDZooError: it does not have a byte for each channel.
    """
    if image.mode not in MODES:
        raise HDZooError(
            f"an image of {source} has the mode {image.mode!r}; the modes {', '.join(MODES)} can "
            "be judged, so convert the images to 8 bits a channel"
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def render(size: tuple[int, int]) -> str:
    """A size for people, width first."""
    return f"{size[0]}x{size[1]}"
