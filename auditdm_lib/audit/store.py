"""A folder of drawn pictures, each a PNG file named by the key of what it was drawn from."""

import contextlib
import os
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
    """Write a picture beside its place and move it there, so that a kill leaves no half file; gives what `kept` gives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    text = PngImagePlugin.PngInfo()
    text.add_text(PIXELS, pixel_hash(picture))
    try:
        picture.save(beside, "PNG", pnginfo=text, compress_level=1)  # a higher level takes longer than some pipelines
        os.replace(beside, file)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return OpenedWhenNeeded(picture, partial(_again, file))


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
