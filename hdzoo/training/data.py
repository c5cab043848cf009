"""Images as a network is trained on them, and the order of batches."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from hdzoo.errors import HDZooError
from hdzoo.images.framing import INTERPOLATIONS, Framing
from hdzoo.images.images import Images
from hdzoo.images.picture import values, white

if TYPE_CHECKING:
    from datasets import Dataset


def image_transform(
    sample_size: int,
    in_channels: int,
    data_range: tuple[float, float],
    center_crop: int | None = None,
    interpolation: str = INTERPOLATIONS[0],
) -> Callable[[Image.Image], torch.Tensor]:
    """The map from a picture to what a network is trained on.

    Args:
        sample_size: height and width to bring the image to.
        in_channels: 1 for grey, 3 for colour.
        data_range: where black and white go.
        center_crop: as in `hdzoo.images.framing.Framing`.
        interpolation: likewise.

    Returns:
        A function from what `hdzoo.images.picture.read_picture` gives to a float32 tensor
        (in_channels, sample_size, sample_size).

    Raises:
        HDZooError: images have neither 1 nor 3 channels.
    """
    if in_channels not in (1, 3):
        raise HDZooError(f"in_channels is {in_channels}; images have 1 (grey) or 3 (colour)")
    if not isinstance(sample_size, int):
        raise HDZooError(
            f"sample_size is {sample_size}; it must be the side of a square, in pixels"
        )
    framing = Framing(sample_size, center_crop, interpolation)
    return partial(image_tensor, framing=framing, in_channels=in_channels, data_range=data_range)


def image_tensor(
    picture: Image.Image, framing: Framing, in_channels: int, data_range: tuple[float, float]
) -> torch.Tensor:
    """One picture as a tensor; see `image_transform`."""
    picture = framing(picture)
    low, high = data_range
    pixels = low + (high - low) / white(picture) * values(picture, in_channels)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def data_range_of(network: Any) -> tuple[float, float]:
    """Where a network has black and white: as its configuration says, or as in diffusers."""
    low, high = network.config.get("data_range", (-1.0, 1.0))
    return low, high


def flip_half(images: torch.Tensor) -> torch.Tensor:
    """Mirrors each image with probability 1/2, from torch's global generator.

    Args:
        images: shape (batch, channels, height, width).
    """
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def dequantized(images: torch.Tensor, data_range: tuple[float, float]) -> torch.Tensor:
    r"""Adds noise within one of 256 grey levels, from torch's global generator.

    The level :math:`k`, of 0 to 255, becomes :math:`(k + u) / 256` of the range, :math:`u` uniform
    on [0, 1): data of a density, in the same range, from data on a grid.

    Source: Uria, Murray, Larochelle (arXiv 1306.0186); Theis, van den Oord, Bethge (arXiv
    1511.01844).

    Args:
        images: shape (batch, channels, height, width).
        data_range: where black and white are.
    """
    low, high = data_range
    return low + (255 * (images - low) + (high - low) * torch.rand_like(images)) / 256


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
    images: "Images | Dataset",
    transform: Callable[[Image.Image], torch.Tensor],
    num_workers: int = 0,
    **sampling: Any,
) -> "DataLoader[torch.Tensor]":
    """A loader of image tensors, shape (batch, in_channels, sample_size, sample_size).

    Args:
        images: pictures, or a data set that has them.
        transform: from what `hdzoo.images.picture.read_picture` gives to a tensor.
        num_workers: processes that decode.
        **sampling: ``batch_sampler`` or ``batch_size``, and others that
            `torch.utils.data.DataLoader` takes.
    """
    tensors: Any = _Tensors(Images.of(images), transform)
    return _Loader(tensors, collate_fn=_stack, num_workers=num_workers, **sampling)


# Not closures: some ways of starting the workers pickle what they are given.
class _Tensors:
    def __init__(self, images: Images, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor] | HDZooError:
        try:
            return [self.transform(picture) for picture in self.images.__getitems__(indices)]
        except HDZooError as error:
            # Raised in a worker it would come out with that one's traceback.
            return error


def _stack(tensors: list[torch.Tensor] | HDZooError) -> torch.Tensor | HDZooError:
    return tensors if isinstance(tensors, HDZooError) else torch.stack(tensors)


class _Loader(DataLoader[torch.Tensor]):
    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, HDZooError):
                raise batch
            yield batch
