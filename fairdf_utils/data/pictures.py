"""The one reader of pictures: training, checks, extraction and prediction see the same pixels of the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

READER = 2  # part of the name of a store of decoded pixels: raise it when a file's pixels change with this module


class UnreadablePicture(OSError):
    """A file that gives no picture; its text says why in a few words."""


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture as one sees it: uint8 (H, W, 3), RGB, upright.

    It is turned as its EXIF data say. 16 bits a channel are scaled to 8, and so are floats between 0 and 1; floats
    between 0 and 255 are rounded. What is transparent is black, as what lies outside a frame is. Of an animation it is
    the first frame.

    Raises
    ------
    UnreadablePicture
        No picture of a kind that Pillow knows, cut off, damaged, too large, or of numbers whose range is unknown.
    OSError
        The file is not there, or may not be read.
    """
    with opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_eight_bits(image).convert("RGB"))


@contextmanager
def opened(file: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """A Pillow image whose pixels are read later; what Pillow raises in the block becomes an UnreadablePicture."""
    try:
        with Image.open(file) as image:
            yield image
    except Image.UnidentifiedImageError:  # its own text names an object in memory
        raise UnreadablePicture("not a picture of a known kind") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise UnreadablePicture(f"more than {limit} megapixels: make it smaller") from None
    except Exception as error:  # damaged bytes make Pillow raise far more than OSError; each means the same here
        if isinstance(error, UnreadablePicture) or getattr(error, "errno", None):
            raise
        text = str(error) or type(error).__name__
        raise UnreadablePicture("truncated" if "truncated" in text.lower() else text) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that Pillow converts to RGB without a loss that shows."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    if image.mode.startswith("I;16") or image.mode == "I" and image.format in ("PNG", "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # as Pillow does with colours of 16 bits
    if image.mode not in ("I", "F"):
        return image
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if image.mode == "I" or not 0 <= low <= high <= 255:
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UnreadablePicture(f"{kind} from {low:g} to {high:g}, of unknown range: save it with 8 or 16 bits")
    return Image.fromarray(np.rint(pixels * (255 if high <= 1 else 1)).astype(np.uint8))
