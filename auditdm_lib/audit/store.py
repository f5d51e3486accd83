"""A folder of drawn pictures, each a PNG file named by the key of what it was drawn from."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image, PngImagePlugin

from auditdm_lib.audit.files import OpenedWhenNeeded, pixel_hash

PIXELS = "pixels"  # the file's text field that holds the hash of its pixels


def place(store: Path, key: str) -> Path:
    """Where the picture of a key (hex digits) is kept; 256 subfolders, so that none grows large."""
    return store / key[:2] / f"{key}.png"


def kept(file: Path) -> Image.Image | None:
    """The picture in a file, its pixels in memory only while they are used; None if there is none, or a damaged one."""
    picture = _read(file)
    return picture and OpenedWhenNeeded(picture, partial(_again, file))


def keep(file: Path, picture: Image.Image) -> Image.Image:
    """Write a picture to its place; gives what `kept` gives. Raises OSError with one sentence."""
    text = PngImagePlugin.PngInfo()
    text.add_text(PIXELS, pixel_hash(picture))
    with _written(file) as beside:
        picture.save(beside, "PNG", pnginfo=text, compress_level=1)  # a higher level takes longer than some pipelines
    return OpenedWhenNeeded(picture, partial(_again, file))


def noted(file: Path) -> str | None:
    """The note at the place of a picture that there is not, such as why; None without one."""
    try:
        return _note(file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def note(file: Path, text: str) -> None:
    """Leave a note at the place of a picture that there is not. Raises OSError with one sentence."""
    with _written(_note(file)) as beside:
        beside.write_text(text, encoding="utf-8")


def _note(file: Path) -> Path:
    return file.with_suffix(".txt")


@contextlib.contextmanager
def _written(file: Path) -> Iterator[Path]:
    """A file beside the given one, to be written and then moved there, so that a kill or a full disk leaves no half file."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, file)
    except OSError as error:
        raise OSError(error.errno, f"A drawn picture cannot be kept in {file.parents[1]} ({error.strerror or error}): make room "
                                   "or allow writing there, and run the stage again, which goes on from here.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _read(file: Path) -> Image.Image | None:
    try:
        with Image.open(file, formats=["PNG"]) as opened:
            opened.load()
            picture, pixels = opened.convert("RGB"), opened.text.get(PIXELS)
    except Exception:  # a decoder may raise anything on a damaged file
        return None
    return picture if pixels == pixel_hash(picture) else None


def _again(file: Path) -> Image.Image:
    picture = _read(file)
    if picture is None:
        raise FileNotFoundError(f"The drawn picture {file} is gone or damaged while it is in use: run the stage again.")
    return picture
