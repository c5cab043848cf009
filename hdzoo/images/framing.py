"""How a picture becomes the square that a network sees: cropped around its centre, and resized."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hdzoo.checks import Maybe, OneOf, Whole
from hdzoo.errors import HDZooError

# Pillow's filters, of the widest use first.
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "hamming", "box", "nearest")
SIDE = Maybe(Whole(1))


@dataclass(frozen=True)
class Framing:
    """What is done to a picture before it is looked at; nothing by default.

    The pixels are those of torchvision's ``CenterCrop`` and ``Resize`` on a PIL image of 8 bits.

    Args:
        side: height and width to bring it to, in pixels; None for no resizing.
        center_crop: side of the square around the centre that is cropped first; None for the
            largest there is, where a side is given.
        interpolation: of the resizing, one of `INTERPOLATIONS`; antialiased where it becomes
            smaller, but for ``"nearest"``.

    Raises:
        HDZooError: a number is none of pixels, or the interpolation is unknown.
    """

    side: int | None = None
    center_crop: int | None = None
    interpolation: str = INTERPOLATIONS[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", SIDE("sample_size", self.side))
        object.__setattr__(self, "center_crop", SIDE("center_crop", self.center_crop))
        OneOf(INTERPOLATIONS)("image_interpolation_mode", self.interpolation)

    def check(self, size: tuple[int, int], name: str) -> None:
        """Refuses a picture that is smaller than what is to be cropped of it.

        Args:
            size: its width and height.
            name: what to call it in a message.

        Raises:
            HDZooError: it is.
        """
        if self.center_crop is not None and min(size) < self.center_crop:
            raise HDZooError(
                f"{name} is {size[0]} x {size[1]} pixels, and center_crop is {self.center_crop}; "
                f"give at most {min(size)}, or take the picture away"
            )

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture, framed.

        Args:
            picture: what `hdzoo.images.picture.read_picture` has given.

        Raises:
            HDZooError: it is smaller than what is to be cropped of it.
        """
        self.check(picture.size, "a picture")
        crop = self.center_crop or (self.side and min(picture.size))
        if crop is None:
            return picture
        # Halves are rounded as torchvision does, to even numbers.
        left, top = (round((length - crop) / 2) for length in picture.size)
        picture = picture.crop((left, top, left + crop, top + crop))
        if self.side in (None, crop):
            return picture
        return _resized(picture, self.side or crop, Image.Resampling[self.interpolation.upper()])


def _resized(picture: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    if picture.mode != "I;16":
        return picture.resize((side, side), resampling)
    # Pillow resizes those in floating point only, where some filters go beyond the range.
    wide = Image.fromarray(np.asarray(picture, dtype=np.float32))
    resized = np.asarray(wide.resize((side, side), resampling))
    return Image.fromarray(resized.round().clip(0, 65535).astype(np.uint16))
