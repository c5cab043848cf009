"""Nearest images: whether samples are copies of what a model was trained on."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdzoo.checks import IMAGES, Whole
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import write_json
from hdzoo.images.framing import Framing
from hdzoo.images.images import AS_THEY_ARE
from hdzoo.metrics.features import Extractor, get_extractor
from hdzoo.metrics.image_sets import ImageSet, OnProgress, open_images, render
from hdzoo.text import counted

MOST_IMAGES = 1000
# Below, no quantile of real distances would be told from the smallest one.
LEAST_REAL = 20
# Of the distances of real images that are not in the data.
QUANTILES = (0.01, 0.05, 0.5)
PIXELS = "pixels"
# Rows of the images that are compared with a batch of the data at a time.
ROWS = 1024


@dataclass(frozen=True)
class Compared:
    """A number of each image beside that of real ones: the smaller, the more it may be a copy.

    Args:
        images: of each image, shape (images,).
        real: of each real image, shape (real images,); empty without any.
    """

    images: np.ndarray
    real: np.ndarray

    @property
    def quantiles(self) -> dict[float, float]:
        """Those of `QUANTILES` that so many real images tell, and their values."""
        told = [q for q in QUANTILES if q * len(self.real) >= 1]
        return {q: float(np.quantile(self.real, q)) for q in told}

    def share(self, quantile: float) -> tuple[float, float]:
        """The share of images below a quantile of the real ones.

        Args:
            quantile: one of `quantiles`: the share that is expected.

        Returns:
            The share, and its standard error by the numbers of images and of real ones.
        """
        number = len(self.images)
        below = int((self.images < self.quantiles[quantile]).sum())
        # A share of 0 or 1 has an error too (Agresti and Coull 1998).
        likely = (below + 1) / (number + 2)
        variance = likely * (1 - likely) / number + quantile * (1 - quantile) / len(self.real)
        return below / number, math.sqrt(variance)


@dataclass(frozen=True)
class Distances:
    """The nearest data of each image, by one distance.

    Args:
        name: of the distance: ``"pixels"``, the root mean square difference of all numbers of two
            images, 0 being black and 1 white; or the features' label, the Euclidean distance.
        values: of each image to its nearest, ascending, shape (images, neighbours).
        indices: the numbers of these in the data, likewise.
        real: of each real image to its nearest, shape (real images, neighbours).
    """

    name: str
    values: np.ndarray
    indices: np.ndarray
    real: np.ndarray

    @property
    def nearest(self) -> Compared:
        """The distance to the nearest."""
        return Compared(self.values[:, 0], self.real[:, 0])

    @property
    def relative(self) -> Compared:
        """The distance to the nearest over that to the last neighbour that was asked for: small for
        copies, and near 1 for images that are near to everything. Nothing of one neighbour.

        Source: Carlini et al. (arXiv 2301.13188), sec. 5.1, who divide by a mean of distances.
        """
        return Compared(_first_over_last(self.values), _first_over_last(self.real))


def _first_over_last(values: np.ndarray) -> np.ndarray:
    if values.shape[1] == 1:
        return np.empty(0)
    last = values[:, -1]
    return np.divide(values[:, 0], last, out=np.zeros(len(values)), where=last > 0)


@dataclass(frozen=True)
class Neighbours:
    """What `find_neighbours` found, and all that it depends on.

    Args:
        distances: by pixels, and by features if they were asked for.
        chosen: the numbers of the images in their set.
        images: the set that is looked at.
        data: what it is compared with.
        real: real images that are not in the data; None without any.
        protocol: what the numbers depend on.
    """

    distances: list[Distances]
    chosen: list[int]
    images: ImageSet
    data: ImageSet
    real: ImageSet | None
    protocol: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.protocol | {
            "images": self.chosen,
            "distances": [
                {
                    "name": one.name,
                    "neighbours": one.indices.tolist(),
                    "distances": one.values.tolist(),
                    "real": one.real.tolist(),
                    # By quantile: the share, and its standard error.
                    "nearer_than_real": _shares(one.nearest),
                    "relatively_nearer_than_real": _shares(one.relative),
                }
                for one in self.distances
            ],
        }

    def save(self, path: Path) -> None:
        """Writes JSON."""
        write_json(path, self.to_dict())

    def rows(self) -> list[dict[str, str]]:
        """A table for people: a column for each distance."""
        rows: dict[str, dict[str, str]] = {}

        def add(what: str, one: Distances, number: str) -> None:
            rows.setdefault(what, {"distance to the nearest": what})[f"by {one.name}"] = number

        last = f"relative to number {self.distances[0].values.shape[1]}"
        for one in self.distances:
            for name, values in (("images", one.nearest.images), ("real images", one.nearest.real)):
                if len(values):
                    add(f"{name}, least", one, f"{values.min():.4g}")
                    add(f"{name}, median", one, f"{np.median(values):.4g}")
            for q, (share, error) in _shares(one.nearest).items():
                add(f"images nearer than {q:.0%} of the real", one, f"{share:.1%} ± {error:.1%}")
            for q, (share, error) in _shares(one.relative).items():
                add(f"the same, {last}, {q:.0%}", one, f"{share:.1%} ± {error:.1%}")
        return list(rows.values())

    def legend(self) -> list[str]:
        """What the table means, in lines."""
        of = counted(len(self.chosen), "image")
        lines = [
            f"{of} of {self.images.source}, each with the nearest of "
            f"{counted(len(self.data), 'image')} of {self.data.source}."
        ]
        if self.real is None:
            return [*lines, "No real images (--real), so that nothing says what is near."]
        of = counted(len(self.distances[0].real), "image")
        return [
            *lines,
            f"Real: {of} of {self.real.source}, which are not in the data. If the images are no "
            "nearer to the data than those, 1% of them are nearer than 1% of the real ones are, "
            "and so on (± standard error); where there are copies, more.",
            "Plain images, of few edges or little contrast, are near to all others: what tells "
            "copies from those is the distance to the nearest relative to that of the others.",
        ]


def _shares(compared: Compared) -> dict[float, tuple[float, float]]:
    return {q: compared.share(q) for q in compared.quantiles}


class Search:
    """The nearest rows of data that comes in batches, exact to the rounding of float64.

    Args:
        rows: what neighbours are looked for, shape (images, numbers).
        k: how many.
    """

    def __init__(self, rows: torch.Tensor, k: int) -> None:
        self.rows = rows
        self.squares = torch.full((len(rows), k), math.inf, dtype=torch.float64)
        self.indices = torch.full((len(rows), k), -1)
        self.seen = 0

    def add(self, batch: torch.Tensor) -> None:
        """Looks among the next rows of the data.

        Args:
            batch: shape (batch, numbers).
        """
        data = batch.double()
        numbers = torch.arange(self.seen, self.seen + len(data))
        for begin in range(0, len(self.rows), ROWS):
            part = slice(begin, begin + ROWS)
            # Bytes as whole numbers, of which this is exact.
            found = _squared_distances(self.rows[part].double(), data)
            squares = torch.cat([self.squares[part], found], 1)
            indices = torch.cat([self.indices[part], numbers.expand(len(found), -1)], 1)
            # Of equal distances the first in the data comes first.
            order = squares.argsort(dim=1, stable=True)[:, : self.squares.shape[1]]
            self.squares[part] = squares.gather(1, order)
            self.indices[part] = indices.gather(1, order)
        self.seen += len(data)


def _squared_distances(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    cross = one @ two.T
    return (one.square().sum(1)[:, None] + two.square().sum(1) - 2 * cross).clamp_(min=0)


def find_neighbours(
    images: str | Path,
    data: str | Path,
    *,
    real: str | Path | None = None,
    num_neighbours: int = 5,
    features: str | None = None,
    weights: str | Path | None = None,
    num_images: int | None = None,
    split: str = "train",
    data_split: str = "train",
    real_split: str = "test",
    image_column: str | None = None,
    framing: Framing = AS_THEY_ARE,
    batch_size: int = 256,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Neighbours:
    """Finds the images of a data set that some images are nearest to, and how near they are.

    Real images that are not in the data say what is near: of images that are drawn from the same
    law, as many are nearer than a quantile of the real distances as it says. The data is read once,
    in batches.

    Args:
        images: such as generated ones, as `hdzoo.metrics.image_sets.open_images` takes them.
        data: what a model was trained on, likewise.
        real: real images that it was not trained on, likewise, such as the test split.
        num_neighbours: of each image.
        features: an extractor, for the distance by features beside that by pixels.
        weights: of the extractor, in the place of its own.
        num_images: how many of the images, and of the real ones, evenly spread over each set; by
            default 1000, or all if there are fewer.
        split: of the images.
        data_split: of the data.
        real_split: of the real images.
        image_column: of all.
        framing: what is done to pictures of the data, and to real ones.
        batch_size: images of the data together.
        command: what the user typed, for the record.
        on_progress: called with what is read, how much of it, and of how much.

    Raises:
        HDZooError: something is not found or does not fit, or a set has too few images.
    """
    begin = time.perf_counter()
    k = Whole(1)("num_neighbours", num_neighbours)
    IMAGES("batch_size", batch_size)
    if num_images is not None:
        IMAGES("num_images", num_images)
    sets = {"images": open_images(images, split, image_column)}
    if real is not None:
        sets["real"] = open_images(real, real_split, image_column, framing)
    among = open_images(data, data_split, image_column, framing)
    if k > len(among):
        raise HDZooError(
            f"num_neighbours is {k} and {among.source} has {counted(len(among), 'image')}; give at "
            "most as many"
        )
    chosen = {}
    for role, found in sets.items():
        check_size(found, among)
        number = num_images or min(MOST_IMAGES, len(found))
        if number > len(found):
            raise HDZooError(
                f"num_images is {number:,} and {found.source} has "
                f"{counted(len(found), 'image')}; give at most as many"
            )
        chosen[role] = found.spread(number)
    if real is not None and len(chosen["real"]) < LEAST_REAL:
        raise HDZooError(
            f"{counted(len(chosen['real']), 'real image')} to compare with; at least {LEAST_REAL} "
            "are needed"
        )
    extractor = None if features is None else get_extractor(features, weights)
    asked = [
        rows_of(found, extractor, batch_size, chosen[role], on_progress)
        for role, found in sets.items()
    ]
    searches = [Search(torch.cat(parts), k) for parts in zip(*map(_joined, asked), strict=True)]
    for batch in rows_of(among, extractor, batch_size, None, on_progress):
        for search, rows in zip(searches, batch, strict=True):
            search.add(rows)
    number, numbers = len(chosen["images"]), 3 * math.prod(among.image_size)
    distances = []
    for i, search in enumerate(searches):
        values = search.squares.sqrt().numpy() / (255 * math.sqrt(numbers) if i == 0 else 1)
        name = PIXELS if i == 0 or extractor is None else extractor.label
        indices = search.indices[:number].numpy()
        distances.append(Distances(name, values[:number], indices, values[number:]))
    protocol = {
        "sets": {
            role: {
                "source": one.source,
                "split": one.split,
                "num_images": len(one),
                "framing": dataclasses.asdict(one.framing),
                "manifest": one.manifest,
            }
            for role, one in (sets | {"data": among}).items()
        },
        "extractor": extractor
        and {"name": extractor.name, "weights_sha256": extractor.weights_sha256},
        "versions": versions("torch", "numpy"),
        "command": command,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Neighbours(
        distances, chosen["images"], sets["images"], among, sets.get("real"), protocol
    )


def check_size(images: ImageSet, data: ImageSet) -> None:
    """Refuses images of another size than the data.

    Raises:
        HDZooError: they are.
    """
    one, two = images.image_size, data.image_size
    if one != two:
        raise HDZooError(
            f"the images of {images.source} have {render(one)} pixels and those of {data.source} "
            f"{render(two)}; bring the data to the same size as for training (--center-crop, "
            "--resolution)"
        )


def rows_of(
    images: ImageSet,
    extractor: Extractor | None,
    batch_size: int,
    indices: Sequence[int] | None,
    on_progress: OnProgress | None,
) -> Iterator[list[torch.Tensor]]:
    """Batches of what distances are of: the pixels in bytes, and the features, a row each.

    Args:
        images: whose.
        extractor: of the features; None for none.
        batch_size: images together.
        indices: of the images; all by default.
        on_progress: called at the start and after each batch.
    """
    done, total = 0, len(images) if indices is None else len(indices)
    if on_progress is not None:
        on_progress(images.source, done, total)
    for batch in images.batches(batch_size, indices):
        rows = [batch.flatten(1)]
        if extractor is not None:
            rows.append(extractor(batch)[extractor.layers["fid"]].float().cpu())
        yield rows
        done += len(batch)
        if on_progress is not None:
            on_progress(images.source, done, total)


def _joined(batches: Iterator[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]
