"""A picture by its address: a file or a URL."""

from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.images.picture import read_picture

# Of what is read from a URL, and how long is waited for it, in seconds.
MOST_BYTES = 2**28
TIMEOUT = 60


def open_picture(address: str | Path) -> Image.Image:
    """Reads the picture of a file or a URL, as `hdzoo.images.picture.read_picture`.

    Args:
        address: an existing file, whatever its name; or what begins with http:// or https://.

    Raises:
        HDZooError: it cannot be had, has more than `MOST_BYTES`, or is refused by that.
    """
    name = str(address)
    if not name.startswith(("http://", "https://")) or Path(name).exists():
        return read_picture(name, repr(name))
    try:
        with urlopen(name, timeout=TIMEOUT) as answer:
            content = answer.read(MOST_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise HDZooError(f"{name} does not give a picture: {error}") from error
    if len(content) > MOST_BYTES:
        raise HDZooError(f"{name} has more than {MOST_BYTES:,} bytes; download it yourself")
    return read_picture(content, name)
