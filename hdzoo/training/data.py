"""Images for training, through `datasets`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from hdzoo import plugins
from hdzoo.errors import HDZooError

if TYPE_CHECKING:
    from datasets import Dataset

MODES = {1: "L", 3: "RGB"}


def load_digits(split: str = "train") -> "Dataset":
    """scikit-learn's digits as 8x8 grey images: a small set that needs no download.

    The last 297 of the 1,797 images are the ``"test"`` split, the others ``"train"``.

    Source: Alpaydin and Kaynak (1998), UCI "Optical Recognition of Handwritten Digits", CC BY 4.0.
    """
    if split not in ("train", "test"):
        raise HDZooError(f"the digits have no split {split!r}; they have 'train' and 'test'")
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    part = slice(1500) if split == "train" else slice(1500, None)
    # The pixels count from 0 to 16.
    pixels = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
    return Dataset.from_dict(
        {"image": [Image.fromarray(image) for image in pixels], "label": digits.target[part]},
        features=Features({"image": ImageFeature(), "label": Value("int64")}),
    )


def load_images(source: str, split: str = "train") -> "Dataset":
    """Loads a data set of images.

    Args:
        source: a registered name (``"digits"``), parquet file(s) (a path or glob that ends in
            ``.parquet``), a folder of images, or a Hub id.
        split: the split of a registered set, of a folder or of a Hub data set.

    Returns:
        A `datasets.Dataset` with an image column.

    Raises:
        HDZooError: there is no such source or split, or it has no image column.
    """
    from datasets import Image as ImageFeature
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    path = Path(source)
    try:
        if source in plugins.names("datasets"):
            dataset = plugins.get("datasets", source)(split)
        elif source.endswith(".parquet"):
            dataset = load_dataset("parquet", data_files={split: source}, split=split)
        elif path.is_dir():
            dataset = load_dataset("imagefolder", data_dir=source, split=split)
        else:
            dataset = load_dataset(source, split=split)
    except HDZooError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        raise HDZooError(
            f"cannot load images from {source!r} (split {split!r}): {error}. Give a registered "
            f"name ({', '.join(plugins.names('datasets'))}), a .parquet file, a folder of images, "
            "or the id of a data set on the Hub"
        ) from error
    if not any(isinstance(feature, ImageFeature) for feature in dataset.features.values()):
        raise HDZooError(f"{source!r} has no image column; its columns are {dataset.column_names}")
    return dataset


def image_transform(
    sample_size: int, in_channels: int, data_range: tuple[float, float]
) -> Callable[[Image.Image], torch.Tensor]:
    """The map from a picture to what a network is trained on.

    The larger side is cropped around the centre, then the square is resized where it has to be.

    Args:
        sample_size: height and width to bring the image to.
        in_channels: 1 for grey, 3 for colour.
        data_range: where black and white go.

    Returns:
        A function from a PIL image to a float32 tensor (in_channels, sample_size, sample_size).

    Raises:
        HDZooError: images have neither 1 nor 3 channels.
    """
    if in_channels not in MODES:
        raise HDZooError(f"in_channels is {in_channels}; images have 1 (grey) or 3 (colour)")
    return partial(
        image_tensor, sample_size=sample_size, mode=MODES[in_channels], data_range=data_range
    )


def image_tensor(
    image: Image.Image, sample_size: int, mode: str, data_range: tuple[float, float]
) -> torch.Tensor:
    """One picture as a tensor; see `image_transform`."""
    image = image.convert(mode)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != sample_size:
        image = image.resize((sample_size, sample_size), Image.Resampling.BICUBIC)
    low, high = data_range
    pixels = np.asarray(image, dtype=np.float32).reshape(sample_size, sample_size, -1)
    return torch.from_numpy(low + (high - low) / 255 * pixels).permute(2, 0, 1)


def flip_half(images: torch.Tensor) -> torch.Tensor:
    """Mirrors each image with probability 1/2, from torch's global generator.

    Args:
        images: shape (batch, channels, height, width).
    """
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


class StepBatchSampler(Sampler[list[int]]):
    """Batches as a function of (seed, step), so that training resumes at any step.

    Each epoch is a permutation of the data that depends on the seed and the epoch alone; the last,
    incomplete batch of an epoch is left out. Each process takes its part of every batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        steps: range,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        if num_samples < batch_size:
            raise HDZooError(
                f"the data has {num_samples} images and train_batch_size is {batch_size}; "
                f"choose at most {num_samples}"
            )
        if batch_size % num_processes:
            raise HDZooError(
                f"train_batch_size {batch_size} does not divide among {num_processes} processes; "
                "choose a multiple"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.part = slice(process_index, batch_size, num_processes)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = self.num_samples // self.batch_size
        current, order = -1, np.empty(0, dtype=np.int64)
        for step in self.steps:
            epoch, batch = divmod(step, per_epoch)
            if epoch != current:
                current = epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
            batch_order = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield batch_order[self.part].tolist()


def image_loader(
    dataset: "Dataset",
    transform: Callable[[Image.Image], torch.Tensor],
    num_workers: int = 0,
    **sampling: Any,
) -> "DataLoader[torch.Tensor]":
    """A loader of image tensors, shape (batch, in_channels, sample_size, sample_size).

    Args:
        dataset: a data set with an image column.
        transform: from a PIL image to a tensor.
        num_workers: processes that decode.
        **sampling: ``batch_sampler`` or ``batch_size``, as `torch.utils.data.DataLoader` takes.
    """
    from datasets import Image as ImageFeature

    column = next(name for name, f in dataset.features.items() if isinstance(f, ImageFeature))

    return DataLoader(
        dataset.with_transform(partial(_decode, column=column, transform=transform), [column]),
        collate_fn=_stack,
        num_workers=num_workers,
        **sampling,
    )


# Not closures: some ways of starting the workers pickle what they are given.
def _decode(
    rows: dict[str, list[Image.Image]],
    column: str,
    transform: Callable[[Image.Image], torch.Tensor],
) -> dict[str, list[torch.Tensor]]:
    return {"image": [transform(image) for image in rows[column]]}


def _stack(rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([row["image"] for row in rows])
