"""Sets of images to be judged: generated ones, folders, Parquet files, data sets on the Hub."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.generation.manifest import MANIFEST, read_manifest
from hdzoo.generation.shards import Shards
from hdzoo.images.framing import Framing
from hdzoo.images.images import AS_THEY_ARE, Images
from hdzoo.images.parquet import load_parquet
from hdzoo.images.picture import Given, read_picture
from hdzoo.images.sources import load_images
from hdzoo.metrics.features import Extractor
from hdzoo.text import counted

# Called with what is read, the number of images done, and that of all.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size; from `open_images`.

    Args:
        source: where they are from, as the user said it.
        split: of the source.
        images: its pictures.
        manifest: of a generated set; None for other images.
        image_column: that was asked for.
        framing: what is done to each picture.
    """

    source: str
    split: str
    images: Images
    manifest: dict[str, Any] | None = None
    image_column: str | None = None
    framing: Framing = AS_THEY_ARE

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
            HDZooError: an image cannot be read, has another size than the first, or has 16 bits a
                pixel.
        """
        if batch_size < 1:
            raise HDZooError(f"batch_size is {batch_size}; it must be at least 1")
        batches, done = [], 0
        if on_progress is not None:
            on_progress(self.source, done, len(self))
        for batch in self.batches(batch_size):
            layers = extractor(batch)
            batches.append({name: values.float().cpu() for name, values in layers.items()})
            done += len(batch)
            if on_progress is not None:
                on_progress(self.source, done, len(self))
        layers = {name: torch.cat([layers[name] for layers in batches]) for name in batches[0]}
        return Features(layers, self.image_size)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the first image, which are those of all, in pixels."""
        first = next(self.images.read([0], partial(pixels, framing=self.framing)))
        return first.shape[2], first.shape[1]

    def spread(self, number: int) -> list[int]:
        """The numbers of so many images, evenly spread over the set."""
        return [i * len(self) // number for i in range(number)]

    def batches(
        self, batch_size: int = 256, indices: Sequence[int] | None = None
    ) -> Iterator[torch.Tensor]:
        """Images in bytes: uint8, shape (batch, 3, height, width).

        Args:
            batch_size: images together.
            indices: which, in this order; all by default, in theirs.

        Raises:
            HDZooError: as `extract`, when it comes to the image.
        """
        size, read = self.image_size, partial(pixels, framing=self.framing)
        indices = range(len(self)) if indices is None else indices
        for begin in range(0, len(indices), batch_size):
            part = indices[begin : begin + batch_size]
            batch = list(self.images.read(part, read))
            for i, image in zip(part, batch, strict=True):
                found = (image.shape[2], image.shape[1])
                if found != size:
                    raise HDZooError(
                        f"the images of {self.source} have several sizes: the first is "
                        f"{render(size)}, number {i} is {render(found)}; bring them to one size "
                        "first, since how that is done changes the metrics"
                    )
            yield torch.stack(batch)


@dataclass(frozen=True)
class Features:
    """What an extractor says of a set.

    Args:
        layers: by their names, float32 on the CPU, shape (images, features).
        image_size: width and height in pixels.
    """

    layers: dict[str, torch.Tensor]
    image_size: tuple[int, int]


def open_images(
    source: str | Path,
    split: str = "train",
    image_column: str | None = None,
    framing: Framing = AS_THEY_ARE,
) -> ImageSet:
    """Finds a set of images.

    Args:
        source: the folder of a generated set, or what `hdzoo.images.sources.load_images` takes: a
            folder of images, ``.parquet`` file(s), a registered name, or a Hub id.
        split: of the source; a generated set has none.
        image_column: of the source; by default ``"image"``, or the only one that holds images.
        framing: what is done to each picture; nothing is to a generated set.

    Raises:
        HDZooError: there is no such source, it has no images, or a generated set is incomplete or
            damaged.
    """
    folder, source = named_path(source, "the source of the images"), str(source)
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        rows = load_images(source, split, image_column=image_column)
        return ImageSet(source, split, Images(rows, source), None, image_column, framing)
    images = Images(load_parquet(check_complete(folder, manifest)), source)
    if len(images) != manifest["num_images"]:
        raise HDZooError(
            f"the shards of {source} have {len(images)} images, and its manifest lists "
            f"{manifest['num_images']}"
        )
    return ImageSet(source, "train", images, manifest)


def check_complete(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Refuses a generated set of which something is missing, too much, or damaged.

    Args:
        folder: of the set.
        manifest: that is in it.

    Returns:
        Its shards.
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
    paths = [shards.path(number) for number in range(len(shards))]
    strange = shards.present() - {path.name for path in paths}
    if strange:
        raise HDZooError(
            f"{folder} has {len(strange)} more shards than its manifest lists, such as "
            f"{min(strange)}; take them away"
        )
    for number in range(len(shards)):
        fault = shards.fault(number)
        if fault is not None:
            raise HDZooError(f"{shards.path(number)} is damaged: {fault}; {again}")
    return paths


def pixels(given: Given, name: str, framing: Framing = AS_THEY_ARE) -> torch.Tensor:
    """A picture as extractors take it: uint8, shape (3, height, width).

    Args:
        given: as `hdzoo.images.picture.read_picture` takes it.
        name: what to call it in a message.
        framing: what is done to it.

    Raises:
        HDZooError: it cannot be read, or not with a byte for each channel, or is smaller than the
            crop.
    """
    picture = read_picture(given, name)
    framing.check(picture.size, name)
    if picture.mode == "I;16":
        raise HDZooError(
            f"{name} has 16 bits a pixel (mode 'I;16'), and feature extractors take 8; convert the "
            "images first"
        )
    return torch.from_numpy(np.array(framing(picture).convert("RGB"))).permute(2, 0, 1)


def render(size: tuple[int, int]) -> str:
    """A size for people, width first."""
    return f"{size[0]}x{size[1]}"
