"""PNG files by their bytes: of modes and sizes that Pillow does not write."""

import struct
import zlib


def chunk(name, content):
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def png(width, height, depth, colour, pixels, *chunks):
    """A PNG.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits of a channel.
        colour: type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        pixels: the rows, each behind the number of its filter.
        *chunks: that come before them.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    rest = [*chunks, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(rest)
