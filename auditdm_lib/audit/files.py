"""One picture: read from a file or bytes as a person sees it, and opened again whenever it is needed."""

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

MAX_PIXELS = 50_000_000  # larger pictures are refused before they are decoded
LONGEST_SIDE = 2048  # pixels; larger pictures are made smaller, since no model sees more
KEPT_BYTES = 256 * 2**20  # how much memory decoded pictures may take together
KEPT_AT_LEAST = 4  # pictures, however large
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", *(f.upper() for f in ("webp", "avif") if features.check(f))]
WHITE = (255, 255, 255, 255)


class Unreadable(ValueError):
    """A picture that cannot be used: what kind of fault it has, and which exactly."""

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(f"{kind} ({detail})" if detail else kind)
        self.kind, self.detail = kind, detail


def read(source: Path | bytes | None) -> Image.Image:
    """A picture in RGB, 8 bits, upright, on white where it is transparent, at most LONGEST_SIDE pixels wide and high.

    Raises Unreadable. Only pixels in FORMATS are decoded, whatever a file's name says, and only regular files are opened.
    """
    if source is None:
        raise Unreadable("missing")
    if isinstance(source, Path) and not stat.S_ISREG(_stat(source).st_mode):
        raise Unreadable("not a regular file")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:  # the header
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise Unreadable("too large", f"{size} pixels, more than {MAX_PIXELS:,}; make it smaller")
            picture = _on_white(_eight_bits(ImageOps.exif_transpose(image)))
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unreadable("no picture of a format that is read") from None
    except Image.DecompressionBombError:
        raise Unreadable("too large", f"more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise Unreadable("damaged", f"{type(error).__name__}: {error}".splitlines()[0]) from error
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return picture


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise Unreadable("not there", error.strerror or str(error)) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits, or of fractions, scaled to 8 bits; others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, float))
    if image.mode.startswith("I;16"):
        full = 65535
    else:  # no format says what is white in these
        full = next((top for top in (1 if image.mode == "F" else 255, 255, 65535) if values.max() <= top), values.max())
    return Image.fromarray((255 * values / full).round().clip(0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image.convert("RGBA"))
    return image.convert("RGB")


def pixel_hash(image: Image.Image) -> str:
    """What identifies a picture: the sha256 of its size and pixels."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


class OpenedWhenNeeded(Image.Image):
    """An RGB picture like any other, of which the pixels are in memory only while they are used.

    `again` reads the picture once more. Of all such pictures the ones used last are kept, KEPT_BYTES together. To draw into
    one, draw into a copy.
    """

    kept: "OrderedDict[int, OpenedWhenNeeded]" = OrderedDict()
    kept_bytes = 0

    def __init__(self, image: Image.Image, again: Callable[[], Image.Image]):
        super().__init__()
        self._mode, self._size, self._im, self._again = image.mode, image.size, image.im, again
        self._keep()

    def load(self):
        """Pillow calls this before any use of the pixels."""
        if self._im is None:
            self._im = self._again().im
        self._keep()
        return super().load()

    def _keep(self) -> None:
        every = OpenedWhenNeeded
        if id(self) not in every.kept:
            every.kept_bytes += self._bytes()
        every.kept[id(self)] = self
        every.kept.move_to_end(id(self))
        while len(every.kept) > KEPT_AT_LEAST and every.kept_bytes > KEPT_BYTES:
            oldest = every.kept.popitem(last=False)[1]
            oldest._im = None
            every.kept_bytes -= oldest._bytes()

    def _bytes(self) -> int:
        return 4 * self.width * self.height  # Pillow keeps four bytes a pixel

    def __reduce__(self):  # a pickled one is an ordinary picture
        return Image.frombytes, (self.mode, self.size, self.tobytes())
