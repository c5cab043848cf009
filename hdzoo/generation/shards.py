"""Shards: the Parquet files of a generated set, each whole or not there."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hdzoo.checks import IMAGES
from hdzoo.errors import HDZooError
from hdzoo.files import file_hash, whole_file, writing
from hdzoo.text import counted

# A shard's number has five digits, so that the order of the names is that of the images.
MOST_SHARDS = 100_000
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "index": datasets.Value("int64"),
        "seed": datasets.Value("int64"),
        "sampler": datasets.Value("string"),
    }
)


@dataclass(frozen=True)
class Shards:
    """The shards of a folder: ``data/train-00000.parquet`` has the images of the first chunk.

    ``datasets.load_dataset(folder)`` reads them in this order as the split "train". Beside each is
    its SHA-256, ``checksums/00000.sha256``, in the format of ``sha256sum``.

    Args:
        folder: of the set.
        num_images: of the whole set.
        chunk_size: images of a shard; the last has what is left.

    Raises:
        HDZooError: a number is not positive, or there are too many shards.
    """

    folder: Path
    num_images: int
    chunk_size: int

    def __post_init__(self) -> None:
        for name in ("num_images", "chunk_size"):
            IMAGES(name, getattr(self, name))
        if len(self) > MOST_SHARDS:
            raise HDZooError(
                f"chunk_size {self.chunk_size} divides {counted(self.num_images, 'image')} into "
                f"{len(self):,} shards; {MOST_SHARDS:,} are allowed, so give a larger chunk_size"
            )

    def __len__(self) -> int:
        return -(-self.num_images // self.chunk_size)

    def indices(self, number: int) -> range:
        """The images of a shard."""
        begin = number * self.chunk_size
        return range(begin, min(begin + self.chunk_size, self.num_images))

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.folder / "data" / f"train-{number:05d}.parquet"

    def checksum_path(self, number: int) -> Path:
        """Where its SHA-256 lies."""
        return self.folder / "checksums" / f"{number:05d}.sha256"

    def present(self) -> set[str]:
        """The names of the shards that are there."""
        return {path.name for path in self.path(0).parent.glob("train-*.parquet")}

    def count_images(self) -> int:
        """How many images they have."""
        present = self.present()
        return sum(len(self.indices(n)) for n in range(len(self)) if self.path(n).name in present)

    def write(self, number: int, images: Sequence[Image.Image], seed: int, sampler: str) -> None:
        """Writes a shard; the same images give the same bytes.

        Args:
            number: of the shard.
            images: of its `indices`.
            seed: of the set.
            sampler: what drew them.

        Raises:
            HDZooError: the folder cannot be written.
        """
        content = encode(images, self.indices(number), seed, sampler)
        path = self.path(number)
        line = f"{hashlib.sha256(content).hexdigest()}  {path.relative_to(self.folder)}\n"
        with writing(self.folder):
            # The checksum goes first: no kill leaves a shard without one.
            with whole_file(self.checksum_path(number)) as partial:
                partial.write_text(line)
            with whole_file(path) as partial:
                partial.write_bytes(content)

    def fault(self, number: int) -> str | None:
        """What is wrong with a shard that is there, in words; None if it is as it was written."""
        path, checksum = self.path(number), self.checksum_path(number)
        try:
            expected = checksum.read_text().split()[0]
        except (OSError, ValueError, IndexError):
            return f"its checksum, {checksum.relative_to(self.folder)}, is missing or damaged"
        try:
            found = file_hash(path)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if found != expected:
            return (
                f"{path.stat().st_size:,} bytes with the SHA-256 {found[:8]}..., where "
                f"{expected[:8]}... was written"
            )
        return None

    def remove(self, number: int) -> None:
        """Takes a shard away.

        Raises:
            HDZooError: the folder cannot be written.
        """
        with writing(self.folder):
            self.path(number).unlink(missing_ok=True)


def encode(images: Sequence[Image.Image], indices: range, seed: int, sampler: str) -> bytes:
    """A Parquet file of images as PNGs.

    Args:
        images: as many as indices.
        indices: of the images in the set.
        seed: of the set.
        sampler: what drew them.
    """
    columns = {
        "image": [{"bytes": encode_png(image), "path": None} for image in images],
        "index": list(indices),
        "seed": [seed] * len(indices),
        "sampler": [sampler] * len(indices),
    }
    buffer = io.BytesIO()
    # The schema carries the features, by which datasets knows the images for images.
    pq.write_table(pa.Table.from_pydict(columns, schema=FEATURES.arrow_schema), buffer)
    return buffer.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """A PNG file's content."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
