"""Image files of all kinds: right, or refused in one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data import DataError, ImageFiles, decode
from mlkd.data.decode import MAX_MEGAPIXELS, decode_file, image_size

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def quadrants() -> np.ndarray:
    """An image of 32 x 48 pixels that every rotation and every flip changes."""
    return np.kron(np.array([[RED, GREEN, BLUE], [BLACK, WHITE, RED]], np.uint8), np.ones((16, 16, 1), np.uint8))


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}
"""By EXIF orientation. Such as 6: row 0 of the file is the right side, column 0 the top."""


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    path, image = tmp_path / f"a.{suffix}", Image.fromarray(quadrants())
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif, quality=95, subsampling=0, lossless=True)
    expected = UPRIGHT[orientation](quadrants()).astype(int)
    assert image_size(path) == expected.shape[1::-1]
    assert np.abs(np.asarray(decode_file(path)) - expected).max() <= (12 if suffix == "jpg" else 0)
    files = ImageFiles(tmp_path, [path.name])
    assert files[0].shape == expected.shape
    assert files.size(0) == expected.shape[1::-1]


def test_orientation_of_a_jpeg_decoded_at_reduced_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(quadrants()).resize((480, 320), Image.Resampling.NEAREST).save(tmp_path / "a.jpg", exif=exif)
    image = decode_file(tmp_path / "a.jpg", size=40)
    assert image.size == (40, 60)
    assert np.abs(np.asarray(image)[5, 35].astype(int) - RED).max() < 12  # the first pixel, at the right side now


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"]
)
def test_broken_orientation_is_ignored(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(quadrants()).save(tmp_path / "a.jpg", exif=exif)
    assert decode_file(tmp_path / "a.jpg").size == image_size(tmp_path / "a.jpg") == (48, 32)


@pytest.mark.parametrize(("suffix", "order"), [("png", ">"), ("tif", "<"), ("tif", ">")])
def test_gray_of_16_bits_is_scaled(tmp_path: Path, suffix: str, order: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"gray.{suffix}"
    if order == "<" or suffix == "png":
        Image.fromarray(values).save(path)
    else:
        Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes()).save(path)
    expected = np.floor(values / 65535 * 255 + 0.5)
    decoded = np.asarray(decode_file(path))
    assert (decoded == expected[..., None]).all()
    assert len(np.unique(decoded)) == 256


def test_color_of_16_bits(tmp_path: Path) -> None:
    """Written by hand, since Pillow writes no such file."""
    pixels = struct.pack(">9H", 65535, 0, 0, 0, 65535, 0, 256, 32768, 65280)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    (tmp_path / "a.png").write_bytes(content + chunk(b"IEND", b""))
    assert np.asarray(decode_file(tmp_path / "a.png")).tolist() == [[[255, 0, 0], [0, 255, 0], [1, 128, 255]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4), 7).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: the image has signed or 32-bit pixels"):
        decode_file(tmp_path / "a.tif")


MODES = {
    "one bit": ("png", Image.new("1", (4, 4), 1), WHITE),
    "gray": ("png", Image.new("L", (4, 4), 77), (77, 77, 77)),
    "palette": ("png", Image.new("RGB", (4, 4), RED).quantize(2), RED),
    "palette gif": ("gif", Image.new("RGB", (4, 4), GREEN).quantize(2), GREEN),
    "alpha": ("png", Image.new("RGBA", (4, 4), (0, 0, 255, 255)), BLUE),
    "transparent": ("png", Image.new("RGBA", (4, 4), (0, 0, 255, 0)), WHITE),
    "half transparent": ("webp", Image.new("RGBA", (4, 4), (0, 0, 0, 128)), (127, 127, 127)),
    "gray with alpha": ("png", Image.new("LA", (4, 4), (10, 255)), (10, 10, 10)),
    "cmyk": ("jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), RED),
    "cmyk tiff": ("tif", Image.new("CMYK", (4, 4), (255, 0, 255, 0)), GREEN),
    "bmp": ("bmp", Image.new("RGB", (4, 4), GREEN), GREEN),
    "one pixel": ("png", Image.new("RGB", (1, 1), BLUE), BLUE),
    "one pixel jpeg": ("jpg", Image.new("RGB", (1, 1), WHITE), WHITE),
    "upper case": ("JPG", Image.new("RGB", (16, 16), WHITE), WHITE),
}


@pytest.mark.parametrize("case", MODES)
def test_color_modes(tmp_path: Path, case: str) -> None:
    suffix, image, expected = MODES[case]
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    decoded = decode_file(path)
    assert (decoded.mode, decoded.size) == ("RGB", image.size)
    assert image_size(path) == image.size
    assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= (2 if suffix.lower() == "jpg" else 0)


def test_transparent_color_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    for suffix in ("png", "gif"):
        image.save(tmp_path / f"a.{suffix}", transparency=0)
        assert np.asarray(decode_file(tmp_path / f"a.{suffix}")).tolist() == [[list(WHITE), list(GREEN)]]
    Image.fromarray(np.array([[RED, GREEN]], np.uint8)).save(tmp_path / "b.png", transparency=RED)
    assert np.asarray(decode_file(tmp_path / "b.png")).tolist() == [[list(WHITE), list(GREEN)]]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert (np.asarray(decode_file(tmp_path / f"a.{suffix}")) == RED).all()


@pytest.mark.parametrize(("suffix", "form"), [("jpg", "PNG"), ("png", "WEBP"), ("data", "JPEG")])
def test_the_content_decides_not_the_suffix(tmp_path: Path, suffix: str, form: str) -> None:
    Image.new("RGB", (8, 8), WHITE).save(tmp_path / f"a.{suffix}", form)
    assert (np.asarray(decode_file(tmp_path / f"a.{suffix}")) == 255).all()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("form", ["EPS", "ICO", "PPM", "TGA", "DDS", "AVIF", "JPEG2000"])
def test_other_formats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """EPS would start Ghostscript."""
    monkeypatch.setattr("subprocess.Popen", None)
    path = tmp_path / "photo.jpg"
    if form == "EPS":
        path.write_bytes(EPS)
    else:
        Image.new("RGB", (16, 16)).save(path, form)
    for read in (decode_file, image_size):
        with pytest.raises(
            DataError, match=r"photo\.jpg: .*not an image; expected JPEG, PNG, WEBP, GIF, BMP or TIFF\."
        ):
            read(path)


def test_limit_of_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may hold a large image; it is refused before it is decoded."""
    assert 1 <= MAX_MEGAPIXELS <= 100
    monkeypatch.setattr(decode, "MAX_MEGAPIXELS", 1)
    Image.new("1", (1000, 1000)).save(tmp_path / "a.png")
    Image.new("1", (1001, 1000)).save(tmp_path / "b.png")
    assert decode_file(tmp_path / "a.png").size == (1000, 1000)
    monkeypatch.setattr(Image.Image, "load", None)
    for read in (decode_file, image_size):
        with pytest.raises(DataError, match=r"b\.png: the image is too large; expected at most 1 megapixels\.$"):
            read(tmp_path / "b.png")


def test_a_size_that_pillow_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png: the image is too large; expected at most 100 megapixels\.$"):
        decode_file(tmp_path / "a.png")
