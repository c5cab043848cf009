"""The data set that travels with scikit-learn."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hdzoo.errors import HDZooError

if TYPE_CHECKING:
    from datasets import Dataset


def load_digits(split: str = "train") -> "Dataset":
    """scikit-learn's digits as 8x8 grey images: a small set that needs no download.

    The last 297 of the 1,797 images are the ``"test"`` split, the others ``"train"``.

    Source: Alpaydin and Kaynak (1998), UCI "Optical Recognition of Handwritten Digits", CC BY 4.0.
    """
    if split not in ("train", "test"):
        raise HDZooError(f"the digits have no split {split!r}; they have 'train' and 'test'")
    # Another object each time, for a format may be set in place.
    return _digits(split).with_format(None)


@cache
def _digits(split: str) -> "Dataset":
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
