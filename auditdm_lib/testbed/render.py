"""Drawing scenes: 48 pixels for the models, larger for people, from the same description."""

import math
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from auditdm_lib.testbed.scenes import BACKGROUNDS, COLOURS, DIGIT, PICTOGRAMS, Scene, digit_scans

SIZE = 48
EXTENT = {"small": 0.66, "large": 0.94}  # side of a thing in cells
STROKE = 11  # pixels by which a glyph of 200 pixels is thickened


def render(scene: Scene, size: int = SIZE, oversample: int = 3) -> Image.Image:
    """Draw a scene as an RGB image of `size` x `size` pixels, smoothed by drawing `oversample` times larger."""
    side = size * oversample
    image = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    cell = side / 3
    for thing in scene.things:
        extent = round(EXTENT[thing.size] * cell)
        left = round((thing.cell % 3 + 0.5 + thing.dx) * cell - extent / 2)
        top = round((thing.cell // 3 + 0.5 + thing.dy) * cell - extent / 2)
        mask = _scan_mask(thing.scan, extent) if thing.kind == DIGIT else _mask(thing.kind, extent)
        image.paste(COLOURS[thing.colour], (left, top), mask)
    return image.resize((size, size), Image.BOX) if oversample > 1 else image


@cache
def _mask(kind: str, extent: int) -> Image.Image:
    """Coverage of a shape or pictogram, mode L, `extent` x `extent`."""
    mask = Image.new("L", (extent, extent), 0)
    draw, e = ImageDraw.Draw(mask), extent - 1
    if kind in PICTOGRAMS:
        glyph = _glyph(PICTOGRAMS[kind])
        scale = extent / max(glyph.size)
        glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))), Image.LANCZOS)
        mask.paste(glyph, ((extent - glyph.width) // 2, (extent - glyph.height) // 2))
    elif kind == "circle":
        draw.ellipse((0, 0, e, e), fill=255)
    elif kind == "square":
        draw.rectangle((0.07 * e, 0.07 * e, 0.93 * e, 0.93 * e), fill=255)
    elif kind == "triangle":
        draw.polygon([(e / 2, 0), (e, 0.9 * e), (0, 0.9 * e)], fill=255)
    elif kind == "star":
        radius = [0.5 * e if i % 2 == 0 else 0.21 * e for i in range(10)]
        draw.polygon([(e / 2 + r * math.sin(i * math.pi / 5), e / 2 - r * math.cos(i * math.pi / 5))
                      for i, r in enumerate(radius)], fill=255)
    elif kind == "cross":
        draw.rectangle((0.35 * e, 0, 0.65 * e, e), fill=255)
        draw.rectangle((0, 0.35 * e, e, 0.65 * e), fill=255)
    elif kind == "diamond":
        draw.polygon([(e / 2, 0), (0.86 * e, e / 2), (e / 2, e), (0.14 * e, e / 2)], fill=255)
    else:
        raise ValueError(f"No drawing for {kind!r}.")
    return mask


@cache
def _glyph(character: str) -> Image.Image:
    """A DejaVu Sans glyph cut to its ink, mode L, about 200 pixels high."""
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 200)
    canvas = Image.new("L", (400, 400), 0)
    ImageDraw.Draw(canvas).text((80, 60), character, fill=255, font=font)
    canvas = canvas.filter(ImageFilter.MaxFilter(STROKE))  # thin outlines would lose their colour at 10 pixels
    return canvas.crop(canvas.getbbox())


@cache
def _scan_mask(scan: int, extent: int) -> Image.Image:
    pixels = np.clip(digit_scans()[0][scan] / 16 * 1.2, 0, 1) * 255
    return Image.fromarray(pixels.astype(np.uint8)).resize((extent, extent), Image.BICUBIC)
