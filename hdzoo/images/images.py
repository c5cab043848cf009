"""Images of a data set, each read and checked as it is asked for."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from hdzoo.errors import HDZooError
from hdzoo.images.framing import Framing
from hdzoo.images.picture import (
    Given,
    has_colour,
    power_sums,
    read_header,
    read_picture,
)
from hdzoo.images.sources import IMAGE, name_row, with_image_column
from hdzoo.text import counted

if TYPE_CHECKING:
    from datasets import Dataset

T = TypeVar("T")

# What a survey decodes at most: all of 130,000 small pictures or of 27,000 of 218 x 178, in about
# half a minute. To open a picture costs as much as to decode so many pixels.
SURVEYED_PIXELS = 2**30
OPENING_PIXELS = 2**13
ROWS = 256
# Of a mean of squares up to 1.
ROUNDING = 1e-14
AS_THEY_ARE = Framing()


@dataclass(frozen=True)
class Survey:
    """What the pictures of a data set have in common.

    Args:
        num_images: how many there are.
        num_decoded: of how many the pixels were read; of all others the headers alone.
        smallest: width and height of the one with the fewest pixels.
        largest: of the one with the most.
        one_size: whether all have the same.
        channels: 3 if one of them is stored in colour, else 1.
        num_grey: how many are stored in grey.
        has_colour: whether a pixel is not grey, as far as they were decoded; those that were not
            have colour if they are stored so.
        mean: of all pixels that were decoded, where 0 is black and 1 is white.
        std: their standard deviation.
    """

    num_images: int
    num_decoded: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    one_size: bool
    channels: int
    num_grey: int
    has_colour: bool
    mean: float
    std: float

    @property
    def side(self) -> int | None:
        """The side of all images, if they are squares of one size."""
        width, height = self.smallest
        return width if self.one_size and width == height else None

    def render_size(self) -> str:
        """The size of all, or from which to which they go, for people."""
        size = "{} x {}".format(*self.smallest)
        return size if self.one_size else f"{size} to {{}} x {{}}".format(*self.largest)

    def __str__(self) -> str:
        colour = "grey" if self.channels == 1 else "colour" if self.has_colour else "RGB, all grey"
        if self.channels == 3 and self.num_grey:
            colour += f" ({self.num_grey:,} in grey)"
        of = "all" if self.num_decoded == self.num_images else f"{self.num_decoded:,} of them"
        return (
            f"{counted(self.num_images, 'image')}, {self.render_size()} pixels, {colour}; mean "
            f"{self.mean:.4g} and standard deviation {self.std:.4g} (of {of}; 0 is black, 1 white)"
        )


class Images(Sequence[Image.Image]):
    """A data set as a sequence of pictures, as `read_picture` gives them.

    Args:
        dataset: one of `datasets`, with images in the column ``"image"``, or in one column alone.
        name: of the data set in messages: what `load_images` has taken.

    Raises:
        HDZooError: there is no such column, or there are no images.
    """

    def __init__(self, dataset: "Dataset", name: str) -> None:
        from datasets import Image as ImageFeature

        self.name = name
        self.dataset = with_image_column(dataset, name)
        self._rows = self.dataset.select_columns([IMAGE]).cast_column(
            IMAGE, ImageFeature(decode=False)
        )
        if not len(self._rows):
            raise HDZooError(f"{name} has no images")
        self._surveys: dict[Framing, Survey] = {}

    @classmethod
    def of(cls, images: "Images | Dataset", name: str = "the data set") -> "Images":
        """Those, or those of a data set."""
        return images if isinstance(images, Images) else cls(images, name)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Image.Image]:
        """Several at a time, as PyTorch's loaders ask for them."""
        return list(self.read(indices, read_picture))

    def survey(self, framing: Framing = AS_THEY_ARE) -> Survey:
        """Reads the pictures, and refuses one that cannot be read or framed, by its file or row.

        The headers of all are read; decoded are all if they have no more than `SURVEYED_PIXELS`
        together, else so many, evenly spaced. What was found once is kept.

        Args:
            framing: the mean and the deviation are of the pixels in this frame; sizes and colours
                are of the whole pictures.

        Raises:
            HDZooError: one cannot be read, or is smaller than the crop.
        """
        if framing not in self._surveys:
            self._surveys[framing] = self._survey(framing)
        return self._surveys[framing]

    def _survey(self, framing: Framing) -> Survey:
        def header(given: Given, name: str) -> tuple[tuple[int, int], bool]:
            size, is_grey = read_header(given, name)
            framing.check(size, name)
            return size, is_grey

        def whole(given: Given, name: str) -> Image.Image:
            picture = read_picture(given, name)
            framing.check(picture.size, name)
            return picture

        seen = range(0, len(self), -(-len(self) // ROWS))
        pixels = [max(w * h, OPENING_PIXELS) for (w, h), _ in self.read(seen, header)]
        step = max(1, round(len(self) * sum(pixels) / len(seen) / SURVEYED_PIXELS))
        sizes: set[tuple[int, int]] = set()
        channels: Counter[int] = Counter()
        if step > 1:
            for size, is_grey in self.read(range(len(self)), header, "headers"):
                sizes.add(size)
                channels[1 if is_grey else 3] += 1
        colour, sums = 3 in channels, np.zeros(3)
        chosen = range(0, len(self), step)
        for picture in self.read(chosen, whole, "images"):
            sizes.add(picture.size)
            if step == 1:
                channels[3 if picture.mode == "RGB" else 1] += 1
            colour = colour or has_colour(picture)
            sums += power_sums(framing(picture))
        by_area = sorted(sizes, key=lambda size: size[0] * size[1])
        mean, mean_square = sums[1:] / sums[0]
        variance = mean_square - mean**2
        return Survey(
            num_images=len(self),
            num_decoded=len(chosen),
            smallest=by_area[0],
            largest=by_area[-1],
            one_size=len(by_area) == 1,
            channels=max(channels),
            num_grey=channels[1],
            has_colour=colour,
            mean=float(mean),
            # What is left of equal pixels is rounding.
            std=float(variance**0.5) if variance > ROUNDING else 0.0,
        )

    def read(
        self, indices: Sequence[int], read: Callable[[Given, str], T], what: str | None = None
    ) -> Iterator[T]:
        """What a function finds in pictures, in their order.

        Args:
            indices: of the pictures.
            read: called with a file or its content, and its name, such as `read_picture`.
            what: the files are checked for, for a bar that is shown if it takes long; None for no
                bar.
        """
        off = True if what is None else None
        bar = tqdm(total=len(indices), desc=f"checking {what}", delay=2, leave=False, disable=off)
        with bar:
            for begin in range(0, len(indices), ROWS):
                part = indices[begin : begin + ROWS]
                for index, row in zip(part, self._rows[list(part)][IMAGE], strict=True):
                    yield self._read(index, row, read)
                    bar.update()

    def _read(self, index: int, row: dict[str, Any] | None, read: Callable[[Given, str], T]) -> T:
        row = row or {"bytes": None, "path": None}
        given = row["path"] if row["bytes"] is None else row["bytes"]
        if given is None:
            raise HDZooError(f"{self._name_row(index)} is empty (null); take it out")
        try:
            return read(given, self.name)
        except HDZooError:
            # Once more with its own name, which takes long to find.
            name = row["path"] if row["bytes"] is None else self._name_row(index)
            return read(given, name)

    def _name_row(self, index: int) -> str:
        return name_row(self.name, index, len(self))
