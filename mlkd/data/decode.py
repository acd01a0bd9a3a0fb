"""One image file as an RGB image, whatever its format, color mode and orientation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mlkd.data.paths import check_file, file_error
from mlkd.errors import DataError

T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read, by content and not by suffix. Pillow knows others, one of which starts a program (EPS)."""
MAX_MEGAPIXELS = 100
"""The largest image: four bytes for each pixel take 400 MB while it is decoded, and twice that if it is converted."""
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""

# Pillow warns from 89 megapixels on; `MAX_MEGAPIXELS` is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_file(path: Path, size: int | None = None) -> Image.Image:
    """An image file in RGB, upright by its EXIF orientation; of an animation, the first frame.

    Gray values of 16 bits are scaled to 8 bits, and transparent pixels are blended with white. CMYK is converted
    without a color profile.

    Args:
        path: a JPEG, PNG, WEBP, GIF, BMP or TIFF file.
        size: decode a JPEG file at a half, a quarter or an eighth of its size if both sides stay at least `size`.
            This is much faster, and sufficient for an image that is then resized to `size`.

    Raises:
        DataError: the file is missing, cannot be read, is truncated, broken, not an image of these formats, has 32 bits
            per channel, or is larger than `MAX_MEGAPIXELS`.
    """

    def decode(image: Image.Image) -> Image.Image:
        if size is not None:
            image.draft("RGB", (size, size))
        image.load()
        return _upright(_to_rgb(image), _orientation(image))

    return _read(path, decode)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an upright image, from the file's header.

    Raises:
        DataError: as `decode_file`, except for broken pixels.
    """

    def read_size(image: Image.Image) -> tuple[int, int]:
        sideways = _orientation(image) >= 5 and image.format != "TIFF"  # Pillow has turned TIFF's size already
        return image.size[::-1] if sideways else image.size

    return _read(path, read_size)


def _read(path: Path, read: Callable[[Image.Image], T]) -> T:
    check_file(path)
    formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    broken = f"{path}: the file is truncated, broken or not an image"
    try:
        file = path.open("rb")
    except OSError as error:
        raise file_error(path, error, "an image") from error
    try:
        with file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 10**6:
                raise Image.DecompressionBombError
            return read(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: the image is too large; expected at most {MAX_MEGAPIXELS} megapixels.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{broken}; expected {formats}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of every type for broken files
        raise DataError(f"{broken} ({error}).") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or the EXIF data are broken."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # errors of every type; a broken orientation does not make the pixels unusable
        return 1
    return orientation if orientation in TRANSPOSITIONS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # PNG's depth is at most 16
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError("the image has signed or 32-bit pixels, whose range is unknown; expected 8 or 16 bits.")
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(transparent, mask=transparent.getchannel("A"))
        return rgb
    return image if image.mode == "RGB" else image.convert("RGB")
