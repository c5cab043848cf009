"""One picture: checked by its header, decoded, upright, opaque, of a known range."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hdzoo.errors import HDZooError

# Formats whose depth Pillow tells, and that run no other program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# A side of 8192: 200 MB in colour.
MOST_PIXELS = 2**26

GREY = ("1", "L", "LA", "La")
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
COLOUR = ("RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
PALETTE = ("P", "PA")
MODES = (*GREY, *GREY_16, *COLOUR, *PALETTE)

_TURNED = (5, 6, 7, 8)
_WHITE_IS_ZERO = 0

Given = Image.Image | bytes | str | Path


def read_picture(given: Given, name: str) -> Image.Image:
    """Reads a picture, and refuses what it could only give as another one.

    It is turned as its EXIF orientation says. Palettes, CMYK and YCbCr become RGB; a palette of
    greys becomes grey. An alpha channel is taken away where it hides nothing.

    Args:
        given: a PIL image, a file, or the content of one: PNG, JPEG, WebP, GIF, BMP, TIFF or PPM.
        name: what to call it in a message.

    Returns:
        A picture of mode ``"L"`` or ``"RGB"``, where 255 is white, or ``"I;16"``, where 65535 is.

    Raises:
        HDZooError: it cannot be read, has more than 67 million pixels, several frames, transparent
            pixels, or a mode whose range is not known (``"I"``, ``"F"``), or it has 16 bits a
            channel in colour, of which Pillow reads 8.
    """
    with _readable(name), _opened(given, name) as image:
        _check_header(image, name)
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        _check_opaque(image, name)
        return _plain(image)


def read_header(given: Given, name: str) -> tuple[tuple[int, int], bool]:
    """What a picture's header tells: its size, turned as `read_picture` does, and whether grey.

    The refusals are those of `read_picture` that need no pixel.

    Args:
        given: as `read_picture` takes it.
        name: what to call it in a message.

    Returns:
        The width and height, and whether its mode has no colours.
    """
    with _readable(name), _opened(given, name) as image:
        _check_header(image, name)
        # Image's own method, since that of a PNG decodes it to see what comes after the pixels.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in _TURNED
        # Pillow has turned the size of a TIFF already.
        size = image.size[::-1] if turned and image.format != "TIFF" else image.size
        return size, image.mode in (*GREY, *GREY_16) or _is_wide_grey(image)


def white(picture: Image.Image) -> int:
    """The value of white in what `read_picture` has given."""
    return 65535 if picture.mode == "I;16" else 255


def values(picture: Image.Image, channels: int) -> np.ndarray:
    """The pixels of what `read_picture` has given, from 0 to `white`.

    Args:
        picture: the picture.
        channels: 1 for grey, to which colours go by their luma; or 3.

    Returns:
        float32, shape (height, width, channels).
    """
    if channels == 1 and picture.mode == "RGB":
        picture = picture.convert("L")
    array = np.asarray(picture, dtype=np.float32)
    if array.ndim == 2:
        array = array[..., None]
    return np.broadcast_to(array, (*array.shape[:2], channels))


def has_colour(picture: Image.Image) -> bool:
    """Whether a pixel of what `read_picture` has given is not grey."""
    if picture.mode != "RGB":
        return False
    array = np.asarray(picture)
    return bool((array != array[..., :1]).any())


def power_sums(picture: Image.Image) -> np.ndarray:
    """Sums over the pixels of what `read_picture` has given, 0 black and 1 white.

    Returns:
        The number of pixels, the sum, and that of the squares; a pixel is the mean of its channels.
    """
    # Flat integers, which einsum casts piece by piece.
    array, most = np.asarray(picture).ravel(), white(picture)
    total = np.einsum("i->", array, dtype=np.float64)
    squares = np.einsum("i,i->", array, array, dtype=np.float64)
    pixels = picture.width * picture.height
    return np.array([array.size, total / most, squares / most**2]) * (pixels / array.size)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns whatever Pillow says of a damaged or hostile file into an `HDZooError`."""
    try:
        yield
    except HDZooError:
        raise
    except UnidentifiedImageError:
        raise HDZooError(
            f"{name} is no picture that can be read; the formats are {', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError:
        raise HDZooError(_too_large(name)) from None
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise HDZooError(
            f"{name} cannot be read: {reason or type(error).__name__}; put a whole file in its "
            "place, or leave it out"
        ) from error


@contextmanager
def _opened(given: Given, name: str) -> Iterator[Image.Image]:
    if isinstance(given, Image.Image):
        yield given
        return
    if isinstance(given, bytes):
        empty = not given
    else:
        # Else a pipe would be waited for.
        if not Path(given).is_file():
            raise HDZooError(f"{name} is no file")
        empty = not Path(given).stat().st_size
    if empty:
        raise HDZooError(f"{name} is empty: it has 0 bytes")
    source = io.BytesIO(given) if isinstance(given, bytes) else given
    with Image.open(source, formats=FORMATS) as image:
        yield image


def _check_header(image: Image.Image, name: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise HDZooError(_too_large(name, f"{image.width} x {image.height} pixels, "))
    if not image.width or not image.height:
        raise HDZooError(f"{name} has no pixels: it is {image.width} x {image.height}")
    # What phones put beside the picture, such as a preview, makes an MPO of a JPEG.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise HDZooError(
            f"{name} has {getattr(image, 'n_frames', 'several')} frames; save the one that is "
            "meant as a picture of its own"
        )
    _check_depth(image, name)


def _check_depth(image: Image.Image, name: str) -> None:
    """Refuses pixels whose range is not known, or of which Pillow reads the upper bits alone."""
    raw = [mode for mode, _ in _raw_modes(image)]
    if image.mode in GREY_16 or _is_wide_grey(image):
        if "I;12" in raw:
            raise HDZooError(f"{name} has 12 bits a pixel; save it with 8 or 16")
        tags = getattr(image, "tag_v2", {})
        if tags.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO:
            raise HDZooError(f"{name} is a 16-bit TIFF where 0 is white; save it with 0 as black")
    elif image.mode not in MODES:
        raise HDZooError(
            f"{name} has the mode {image.mode!r}, whose range is not known; save it with 8 bits a "
            "channel, or in grey with 16"
        )
    elif any(re.search(r";16[BLN]", mode) or most > 255 for mode, most in _raw_modes(image)):
        raise HDZooError(
            f"{name} has 16 bits a channel in the mode {image.mode!r}, of which Pillow reads 8; "
            "save it with 8 bits a channel, or in grey with 16"
        )


def _raw_modes(image: Image.Image) -> Iterator[tuple[str, int]]:
    """How the pixels lie in the file, and the largest value where that is said (PPM); nothing of
    an image that is decoded."""
    for tile in getattr(image, "tile", None) or ():
        args = tile[3]
        if isinstance(args, str):
            yield args, 0
        elif args and isinstance(args[0], str):
            yield args[0], args[1] if image.format == "PPM" else 0


def _is_wide_grey(image: Image.Image) -> bool:
    """Whether an image of 32-bit integers is one of 16-bit greys: a PPM, of which Pillow brings
    white to 65535, or, before Pillow 10.3, a PNG."""
    return image.mode == "I" and image.format in ("PPM", "PNG")


def _check_opaque(image: Image.Image, name: str) -> None:
    if not image.has_transparency_data:
        return
    if image.mode in (*GREY_16, "I"):
        hidden = np.asarray(image) == image.info["transparency"]
    else:
        whole = image.convert("LA") if image.mode == "La" else image
        hidden = np.asarray(whole.convert("RGBA"))[..., 3] < 255
    if hidden.any():
        raise HDZooError(
            f"{name} has transparent pixels ({hidden.mean():.1%}), and what lies behind them is "
            "not known; compose it on a background first (Pillow's Image.alpha_composite)"
        )


def _plain(image: Image.Image) -> Image.Image:
    """An image without transparent pixels in one of the three modes."""
    if image.mode in (*GREY_16, "I"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in GREY:
        return image.convert("LA").convert("L") if image.mode == "La" else image.convert("L")
    if image.mode not in PALETTE:
        return image.convert("RGB")
    # By way of RGBA, without which Pillow warns of the transparency that there is none of.
    picture = image.convert("RGBA").convert("RGB")
    return picture if has_colour(picture) else picture.convert("L")


def _too_large(name: str, size: str = "") -> str:
    return (
        f"{name} has {size}more than {MOST_PIXELS:,} pixels by its header, and is not unpacked; "
        "bring it to a smaller size"
    )
