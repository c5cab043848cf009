"""One picture: every mode, depth, orientation and kind of damage, with the value that is right."""

import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from pngs import chunk, png

from hdzoo.errors import HDZooError
from hdzoo.images.picture import (
    MOST_PIXELS,
    has_colour,
    power_sums,
    read_header,
    read_picture,
    values,
    white,
)

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RAMP_16 = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(image):
    """What is read, from 0 to 1."""
    picture = read_picture(image, "it")
    return values(picture, 1)[..., 0] / white(picture)


# ---- modes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", None])
def test_sixteen_bits_of_grey_are_kept(kind):
    image = Image.fromarray(RAMP_16)
    picture = read_picture(image if kind is None else encoded(image, kind), "it")
    assert picture.mode == "I;16"
    assert np.array_equal(np.asarray(picture), RAMP_16)
    assert np.array_equal(values(picture, 1)[..., 0] / white(picture), np.float32(RAMP_16) / 65535)
    assert len(np.unique(values(picture, 3))) == 64


def test_sixteen_bits_of_grey_are_kept_whatever_the_order_of_the_bytes():
    for mode in ("I;16B", "I;16L"):
        image = Image.frombytes(mode, (8, 8), RAMP_16.astype(">u2" if mode[-1] == "B" else "<u2"))
        assert np.array_equal(np.asarray(read_picture(image, "it")), RAMP_16)
    # A PPM whose white is 300: 150 is half of it, to the rounding of 16 bits.
    file = b"P5 2 1 300\n" + struct.pack(">2H", 150, 300)
    assert grey(file).tolist() == [[pytest.approx(0.5, abs=1e-5), 1.0]]


def test_ones_and_zeros_are_white_and_black():
    bits = RAMP % 8 == 4
    for image in (
        Image.fromarray(bits),
        encoded(Image.fromarray(bits)),
        encoded(Image.fromarray(bits), "TIFF"),
    ):
        assert np.array_equal(grey(image), bits)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_go_to_the_ends_of_the_range(depth):
    rows = bytes([0]) + bytes([0b00011011 if depth == 2 else 0x0F])
    found = grey(png(8 // depth, 1, depth, 0, rows))[0]
    expected = {1: [0] * 4 + [1] * 4, 2: [0, 1 / 3, 2 / 3, 1], 4: [0, 1]}[depth]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "RGBX", "P", "PA"])
def test_opaque_greys_are_the_same_in_every_mode(mode):
    image = Image.fromarray(RAMP).convert("RGBA" if mode == "RGBX" else mode)
    if mode == "RGBX":
        image = Image.frombytes("RGBX", (8, 8), image.tobytes())
    assert np.array_equal(grey(image), np.float32(RAMP) / 255)
    assert not has_colour(read_picture(image, "it"))
    if mode != "RGBX":
        file = encoded(image, "TIFF" if mode == "PA" else "PNG") if mode != "PA" else image
        assert np.array_equal(grey(file), np.float32(RAMP) / 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "HSV", "P"])
def test_colours_come_as_pillow_converts_them(mode):
    image = Image.fromarray(COLOURS).convert(mode)
    picture = read_picture(image, "it")
    assert picture.mode == "RGB"
    assert has_colour(picture)
    assert np.array_equal(np.asarray(picture), np.asarray(image.convert("RGB")))
    # Luma, ITU-R 601-2, to a rounding.
    luma = np.asarray(picture, float) @ [0.299, 0.587, 0.114]
    assert np.abs(values(picture, 1)[..., 0] - luma).max() <= 0.51


def test_a_palette_of_greys_is_grey_and_one_of_colours_is_not():
    assert read_picture(encoded(Image.fromarray(RAMP).convert("P")), "it").mode == "L"
    assert read_picture(encoded(Image.fromarray(COLOURS).convert("P")), "it").mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_other_formats(kind):
    found = grey(
        encoded(Image.new("L", (8, 8), 200), kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    assert np.abs(found - 200 / 255).max() < 2 / 255


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("I", (8, 8), 70000), "has the mode 'I', whose range is not known"),
        (Image.new("F", (8, 8), 0.5), "has the mode 'F', whose range"),
        (Image.new("LAB", (8, 8)), "has the mode 'LAB'"),
        (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "has the mode 'F'"),
        (encoded(Image.new("I", (8, 8), 5), "TIFF"), "has the mode 'I'"),
        (b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), "has the mode 'F'"),
        (
            png(1, 1, 16, 2, bytes(7)),
            "has 16 bits a channel in the mode 'RGB', of which Pillow reads 8",
        ),
        (png(1, 1, 16, 4, bytes(5)), "has 16 bits a channel"),
        (png(1, 1, 16, 6, bytes(9)), "has 16 bits a channel in the mode 'RGBA'"),
        (b"P6 1 1 65535\n" + bytes(6), "has 16 bits a channel in the mode 'RGB'"),
        (b"P6 1 1 300\n" + bytes(6), "has 16 bits a channel in the mode 'RGB'"),
    ],
)
def test_pixels_of_no_known_range_are_refused(image, message):
    with pytest.raises(HDZooError, match=f"^it {message}"):
        read_picture(image, "it")
    with pytest.raises(HDZooError, match=f"^it {message}"):
        read_header(image, "it")


def tiff(tags, pixels):
    """A TIFF of one strip, by its tags, each a number of 16 bits."""
    tags = {**tags, 273: 8 + 2 + 12 * (len(tags) + 2) + 4, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def test_tiffs_of_other_depths_are_refused():
    size = {256: 2, 257: 1, 259: 1, 277: 1, 278: 1}
    whole = tiff(size | {258: 16, 262: 1}, struct.pack("<2H", 0, 65535))
    assert grey(whole).tolist() == [[0, 1]]
    with pytest.raises(HDZooError, match="16-bit TIFF where 0 is white"):
        read_picture(tiff(size | {258: 16, 262: 0}, bytes(4)), "it")
    with pytest.raises(HDZooError, match="12 bits a pixel"):
        read_picture(tiff(size | {258: 12, 262: 1}, bytes(3)), "it")
    # Of 8 bits it is turned to black as 0.
    assert grey(tiff(size | {258: 8, 262: 0}, bytes([0, 255]))).tolist() == [[1, 0]]


# ---- transparency ---------------------------------------------------------------------------

HIDDEN = Image.fromarray(np.dstack([COLOURS, np.uint8(255 * (RAMP > 8))]))
TRANSPARENT = {
    "RGBA": HIDDEN,
    "RGBA png": encoded(HIDDEN),
    "RGBa": HIDDEN.convert("RGBa"),
    "LA": HIDDEN.convert("LA"),
    "La": HIDDEN.convert("LA").convert("La"),
    "PA": HIDDEN.convert("PA"),
    "shape in alpha": Image.merge("LA", [Image.new("L", (8, 8), 255), Image.fromarray(RAMP)]),
    "nearly opaque": Image.fromarray(np.dstack([COLOURS, np.full((8, 8), 254, np.uint8)])),
    "palette": encoded(Image.fromarray(RAMP).convert("P"), transparency=4),
    "palette of alphas": encoded(
        Image.fromarray(RAMP).convert("P"), transparency=b"\xff" * 8 + b"\x80"
    ),
    "GIF": encoded(Image.fromarray(RAMP), "GIF", transparency=0),
    "WEBP": encoded(HIDDEN, "WEBP"),
    "grey of a key": encoded(Image.fromarray(RAMP), transparency=4),
    "colour of a key": encoded(
        Image.fromarray(COLOURS), transparency=tuple(COLOURS[0, 0].tolist())
    ),
    "16 bits of a key": png(1, 1, 16, 0, b"\0\x12\x34", chunk(b"tRNS", b"\x12\x34")),
    "bits of a key": encoded(Image.fromarray(RAMP > 8), transparency=0),
}


@pytest.mark.parametrize("image", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_pixels_are_refused(image):
    with pytest.raises(HDZooError, match=r"^it has transparent pixels .*compose it on a back"):
        read_picture(image, "it")


def test_an_alpha_channel_or_a_key_that_hides_nothing_is_taken_away():
    opaque = Image.fromarray(np.dstack([COLOURS, np.full((8, 8), 255, np.uint8)]))
    for image in (opaque, encoded(opaque), encoded(opaque, "WEBP", lossless=True)):
        assert np.array_equal(np.asarray(read_picture(image, "it")), COLOURS)
    for image in (
        encoded(Image.fromarray(RAMP), transparency=3),
        encoded(Image.fromarray(RAMP).convert("P"), transparency=b"\xff" * 256),
    ):
        assert np.array_equal(grey(image), np.float32(RAMP) / 255)
    assert grey(png(1, 1, 16, 0, b"\0\x12\x34", chunk(b"tRNS", b"\x12\x35"))) == 0x1234 / 65535


# ---- orientation ----------------------------------------------------------------------------

# What a viewer does to the stored picture, by the Exif standard's table of the 0th row and column.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_as_their_exif_says(orientation, kind):
    # Blocks of a size that a JPEG keeps.
    array = np.kron([[0, 50, 100], [150, 200, 250]], np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    file = encoded(Image.fromarray(array), kind, exif=exif, **options)
    expected = TURNS[orientation](array)
    # By its file, and as somebody has opened it in Python, before and after it is decoded.
    opened, loaded = Image.open(io.BytesIO(file)), Image.open(io.BytesIO(file))
    loaded.load()
    for image in (file, opened, loaded):
        found = np.asarray(read_picture(image, "it").convert("L"), int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= (2 if kind == "JPEG" else 0)
    assert read_header(file, "it")[0] == expected.shape[::-1]
    # Once is enough.
    turned = read_picture(file, "it")
    assert np.array_equal(read_picture(turned, "it"), turned)


def test_sixteen_bits_are_turned_too():
    exif = Image.Exif()
    exif[0x112] = 6
    file = encoded(Image.fromarray(RAMP_16), exif=exif)
    assert np.array_equal(np.asarray(read_picture(file, "it")), np.rot90(RAMP_16, -1))


# ---- damaged and hostile files --------------------------------------------------------------

WHOLE = {kind: encoded(Image.fromarray(COLOURS), kind) for kind in ("PNG", "JPEG", "GIF", "BMP")}
FRAMES = [Image.new("RGB", (8, 8), i) for i in (0, 99)]
DAMAGED = {
    **{
        f"truncated {kind}": (
            file[: 2 * len(file) // 3],
            "(cannot be read|is no picture that can be read)",
        )
        for kind, file in WHOLE.items()
    },
    "empty": (b"", "is empty: it has 0 bytes"),
    "text": (b"<html>404</html>", "is no picture that can be read; the formats are PNG, JPEG"),
    "a flipped bit": (WHOLE["PNG"][:60] + b"\xff" + WHOLE["PNG"][61:], "cannot be read"),
    # Which Pillow would hand to another program.
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is no picture that can be read"),
    **{
        f"frames of {kind}": (
            encoded(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:]),
            "has 2 frames",
        )
        for kind in ("GIF", "TIFF", "PNG", "WEBP")
    },
    "nowhere": ("nowhere.png", "is no file"),
    "folder": (".", "is no file"),
}


@pytest.mark.parametrize(("image", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused_by_name(image, message):
    with pytest.raises(HDZooError, match=f"^it {message}"):
        read_picture(image, "it")


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(HDZooError, match="is no file"):
        read_picture(tmp_path / "pipe.png", "it")


def test_what_a_phone_puts_beside_the_picture_is_left_alone():
    file = encoded(FRAMES[1], "MPO", save_all=True, append_images=FRAMES[:1])
    assert np.asarray(read_picture(file, "it")).mean() == pytest.approx(33, abs=1)


def test_an_image_in_memory_without_pixels_is_refused():
    with pytest.raises(HDZooError, match="no pixels: it is 0 x 8"):
        read_picture(Image.new("L", (0, 8)), "it")


@pytest.mark.parametrize("side", [8193, 12000, 30000])
def test_a_bomb_is_refused_by_its_header(side):
    # A gigabyte in a kilobyte: what is compressed is a part of the pixels.
    file = png(side, side, 8, 0, bytes(1000))
    tracemalloc.start()
    for read in (read_picture, read_header):
        with pytest.raises(HDZooError, match=f"^it has .*more than {MOST_PIXELS:,} pixels by its"):
            read(file, "it")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


# ---- what is done with them -----------------------------------------------------------------


@pytest.mark.parametrize("array", [RAMP, RAMP_16, COLOURS])
def test_power_sums_are_those_of_the_pixels(array):
    scaled = array / (65535 if array.dtype == np.uint16 else 255)
    if scaled.ndim == 3:
        expected = [64, scaled.mean(-1).sum(), (scaled**2).mean(-1).sum()]
    else:
        expected = [64, scaled.sum(), (scaled**2).sum()]
    found = power_sums(read_picture(Image.fromarray(array), "it"))
    assert found == pytest.approx(expected, rel=1e-13)


def test_whatever_a_file_holds_ends_in_a_picture_or_in_one_error():
    rng = np.random.default_rng(0)
    whole = [
        encoded(Image.fromarray(COLOURS), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    ]
    whole += [encoded(Image.fromarray(COLOURS).convert("P")), DAMAGED["frames of GIF"][0]]
    read = 0
    for i in range(700):
        file = bytearray(whole[i % len(whole)])
        for place in rng.integers(0, len(file), rng.integers(1, 6)):
            file[place] = rng.integers(256)
        content = bytes(file[: rng.integers(1, 2 * len(file))])
        for reading in (read_header, read_picture):
            # Any other error fails the test.
            with contextlib.suppress(HDZooError):
                reading(content, "it")
                read += 1
    assert read > 100
