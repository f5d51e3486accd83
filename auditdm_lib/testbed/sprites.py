"""Sprites of single things: a body in the thing's colour and, on some, features in white or black ink on it."""

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from auditdm_lib.testbed.scenes import BEAD, COLOURS, DIGIT, NUMBERS, PICTOGRAMS, SHAPES, digit_scans

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
STROKE = 11  # pixels by which a glyph of 200 pixels is thickened: thin outlines lose their colour at a size of 10 pixels
THINNER = {"snowflake": 5, "horse": 3, "tower": 5, "\u267b": 3, "\u2622": 5}  # less for glyphs whose gaps would close
SMOOTH = 4  # oversampling factor of a `Pen`, for smooth edges
INK = {name: (255, 255, 255) if 0.3 * r + 0.6 * g + 0.1 * b < 150 else (25, 25, 25) for name, (r, g, b) in COLOURS.items()}
HOURS = 12
Point = tuple[float, float]


class Sprite(NamedTuple):
    """Coverage of each pixel, mode L: by the thing's colour, then by ink on top of it."""

    body: Image.Image
    ink: Image.Image | None = None


class Pen:
    """Draws a square mask, antialiased; coordinates are fractions of its side, (0, 0) at the top left."""

    def __init__(self, extent: int):
        self.side = extent * SMOOTH
        self.mask = Image.new("L", (self.side, self.side), 0)
        self.draw = ImageDraw.Draw(self.mask)

    def line(self, points: Iterable[Point], width: float, fill: int = 255) -> None:
        """A line with round ends and corners."""
        points = list(points)
        self.draw.line([(x * self.side, y * self.side) for x, y in points], fill=fill, width=max(1, round(width * self.side)))
        for x, y in points:
            self.disc(x, y, width / 2, fill)

    def disc(self, x: float, y: float, radius: float, fill: int = 255) -> None:
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def ellipse(self, box: tuple[float, float, float, float], fill: int = 255) -> None:
        self.draw.ellipse([v * self.side for v in box], fill=fill)

    def box(self, box: tuple[float, float, float, float], fill: int = 255) -> None:
        """A rectangle up to, not including, its right and lower edge."""
        x1, y1, x2, y2 = (round(v * self.side) for v in box)
        self.draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill)

    def polygon(self, points: Iterable[Point], fill: int = 255) -> None:
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=fill)

    def done(self) -> Image.Image:
        return self.mask.reduce(SMOOTH)


@cache
def sprite(kind: str, detail: str, material: str, extent: int, scan: int | None = None) -> Sprite:
    """A thing drawn to fit a square of `extent` pixels. Raises ValueError for a kind without a drawing."""
    if kind == DIGIT:
        return Sprite(_scan(scan, extent))
    if kind in SHAPES:
        return _of_material(_shape(kind, extent, material), material)
    if kind in _DRAWN:
        body, ink = Pen(extent), Pen(extent)
        _DRAWN[kind](body, ink, detail)
        return Sprite(body.done(), ink.done() if ink.mask.getbbox() else None)
    if kind == "word":
        return _word(detail, extent)
    if kind in PICTOGRAMS:
        return Sprite(_glyph(PICTOGRAMS[kind], extent, THINNER.get(kind, STROKE)))
    raise ValueError(f"No drawing for {kind!r}; add one to sprites.py.")


def _scan(scan: int, extent: int) -> Image.Image:
    pixels = np.clip(digit_scans()[0][scan] / 16 * 1.2, 0, 1) * 255
    return Image.fromarray(pixels.astype(np.uint8)).resize((extent, extent), Image.BICUBIC)


def _shape(kind: str, extent: int, material: str) -> Image.Image:
    mask = Image.new("L", (extent, extent), 0)
    draw, e = ImageDraw.Draw(mask), extent - 1
    if kind == "circle":
        draw.ellipse((0, 0, e, e), fill=255)
    elif kind == "square":
        draw.rectangle((0.07 * e, 0.07 * e, 0.93 * e, 0.93 * e), fill=255)
    elif kind == "triangle":
        draw.polygon([(e / 2, 0), (e, 0.9 * e), (0, 0.9 * e)], fill=255)
    elif kind == "star":
        waist = 0.21 if material == "plain" else 0.28  # room for stripes, dots or a hole
        radius = [0.5 * e if i % 2 == 0 else waist * e for i in range(10)]
        draw.polygon([(e / 2 + r * math.sin(i * math.pi / 5), e / 2 - r * math.cos(i * math.pi / 5))
                      for i, r in enumerate(radius)], fill=255)
    elif kind == "cross":
        draw.rectangle((0.35 * e, 0, 0.65 * e, e), fill=255)
        draw.rectangle((0, 0.35 * e, e, 0.65 * e), fill=255)
    elif kind == "diamond":
        draw.polygon([(e / 2, 0), (0.86 * e, e / 2), (e / 2, e), (0.14 * e, e / 2)], fill=255)
    return mask


def _of_material(shape: Image.Image, material: str) -> Sprite:
    """Stripes and dots are ink inside a rim of the thing's colour; a hollow shape is the rim only."""
    if material == "plain":
        return Sprite(shape)
    if material == "hollow":
        return Sprite(ImageChops.subtract(shape, _eroded(shape, 0.11)))
    pen, step = Pen(shape.width), 0.34
    for i in range(-4, 8):
        if material == "striped":
            pen.line([(0.5 + i * step * 1.41 - 0.6, -0.1), (0.5 + i * step * 1.41 + 0.6, 1.1)], step / 2)
        else:
            for j in range(-3, 4):
                pen.disc(0.5 + j * step * 0.87, 0.5 + i * step + step / 2 * (j % 2), 0.3 * step)
    return Sprite(shape, ImageChops.multiply(pen.done(), _eroded(shape, 0.04)))


def _eroded(mask: Image.Image, depth: float) -> Image.Image:
    """The mask eroded on all sides by `depth`, a fraction of its width."""
    r = max(1, round(depth * mask.width))
    padded = Image.new("L", (mask.width + 2 * r, mask.height + 2 * r), 0)
    padded.paste(mask, (r, r))
    y, x = np.mgrid[-r:r + 1, -r:r + 1]
    pixels, result = np.asarray(padded), np.asarray(mask).copy()
    for dy, dx in zip(*(axis[x**2 + y**2 <= r * r + 1] for axis in (y, x)), strict=True):
        result = np.minimum(result, pixels[r + dy:r + dy + mask.height, r + dx:r + dx + mask.width])
    return Image.fromarray(result)


def _glyph(character: str, extent: int, stroke: int) -> Image.Image:
    mask, glyph = Image.new("L", (extent, extent), 0), _ink_of(character, "DejaVuSans.ttf", stroke)
    scale = extent / max(glyph.size)
    glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))), Image.LANCZOS)
    mask.paste(glyph, ((extent - glyph.width) // 2, (extent - glyph.height) // 2))
    return mask


@cache
def _ink_of(character: str, font: str, stroke: int) -> Image.Image:
    """A glyph cropped to its ink, mode L, about 200 pixels high."""
    canvas = Image.new("L", (400, 400), 0)
    ImageDraw.Draw(canvas).text((80, 60), character, fill=255, font=ImageFont.truetype(str(FONTS / font), 200))
    if stroke:
        canvas = canvas.filter(ImageFilter.MaxFilter(stroke))
    return canvas.crop(canvas.getbbox())


def _word(word: str, extent: int) -> Sprite:
    """A plate of 17 x 13 pixels of a 48-pixel picture, its letters fitted to whole pixels: three or four wide, nine high."""
    pixel = extent / 17
    widths = [3 if len(word) > 3 or letter == "t" else 4 for letter in word]  # a stem in the middle needs an odd width
    left = (17 - sum(widths) - len(word) + 1) // 2
    body, ink = (Image.new("L", (extent, extent), 0) for _ in range(2))
    ImageDraw.Draw(body).rectangle((0, round(2 * pixel), extent, round(15 * pixel) - 1), fill=255)
    for letter, wide in zip(word.upper(), widths, strict=True):
        x1, y1, x2, y2 = (round(v * pixel) for v in (left, 4, left + wide, 13))
        ink.paste(_ink_of(letter, "DejaVuSansMono-Bold.ttf", 0).resize((x2 - x1, y2 - y1), Image.BOX), (x1, y1))
        left += wide + 1
    return Sprite(body, ink)


def _clock(body: Pen, ink: Pen, hour: str) -> None:
    body.disc(0.5, 0.5, 0.5)
    for tick in range(0, HOURS, 3):
        ink.line([_on_circle(0.42, tick), _on_circle(0.39, tick)], 0.05)
    ink.line([(0.5, 0.5), _on_circle(0.33, NUMBERS.index(hour))], 0.13)


def _on_circle(radius: float, hour: float) -> Point:
    angle = hour * 2 * math.pi / HOURS
    return 0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)


def _arrow(body: Pen, ink: Pen, direction: str) -> None:
    up = [(0.5, 0.0), (1.0, 0.5), (0.66, 0.5), (0.66, 1.0), (0.34, 1.0), (0.34, 0.5), (0.0, 0.5)]
    turned = {"up": lambda x, y: (x, y), "down": lambda x, y: (x, 1 - y), "left": lambda x, y: (y, x),
              "right": lambda x, y: (1 - y, x)}
    body.polygon(turned[direction](x, y) for x, y in up)


_PEOPLE = {  # action -> centre of the head, lines
    "waving": ((0.46, 0.15), [[(0.46, 0.3), (0.46, 0.62)], [(0.27, 0.93), (0.46, 0.62), (0.65, 0.93)],
                              [(0.2, 0.6), (0.46, 0.38), (0.74, 0.4), (0.85, 0.1)]]),
    "running": ((0.68, 0.15), [[(0.6, 0.32), (0.46, 0.6)], [(0.46, 0.6), (0.72, 0.68), (0.66, 0.93)],
                               [(0.46, 0.6), (0.3, 0.8), (0.06, 0.78)],
                               [(0.2, 0.52), (0.3, 0.34), (0.6, 0.36), (0.76, 0.52), (0.93, 0.42)]]),
    "jumping": ((0.5, 0.15), [[(0.5, 0.3), (0.5, 0.52)], [(0.14, 0.12), (0.5, 0.37), (0.86, 0.12)],
                              [(0.2, 0.76), (0.5, 0.52), (0.8, 0.76)]]),
    "sitting": ((0.3, 0.15), [[(0.3, 0.3), (0.3, 0.62), (0.72, 0.62), (0.72, 0.93), (0.86, 0.93)], [(0.3, 0.4), (0.62, 0.42)]]),
    "sleeping": ((0.17, 0.62), [[(0.38, 0.66), (0.93, 0.66)], [(0.06, 0.92), (0.94, 0.92)]]),
}


def _person(body: Pen, ink: Pen, action: str) -> None:
    (x, y), lines = _PEOPLE[action]
    body.disc(x, y, 0.15)
    for points in lines:
        body.line(points, 0.12)
    if action == "sitting":
        body.box((0.1, 0.76, 0.54, 1.0))  # a stool
    if action == "jumping":
        body.line([(0.25, 0.95), (0.75, 0.95)], 0.07)  # the ground
    if action == "sleeping":
        body.line([(0.5, 0.08), (0.78, 0.08), (0.5, 0.38), (0.78, 0.38)], 0.09)  # Z


def _face(body: Pen, ink: Pen, mood: str) -> None:
    body.disc(0.5, 0.5, 0.5)
    for x in (0.32, 0.68):
        ink.disc(x, 0.4 if mood == "angry" else 0.35, 0.08)
    if mood == "happy":
        ink.draw.chord([v * ink.side for v in (0.22, 0.3, 0.78, 0.86)], 10, 170, fill=255)
    elif mood == "sad":
        ink.line([_on_arc(0.5, 0.92, 0.27, a) for a in range(-60, 61, 10)], 0.1)
    elif mood == "angry":
        ink.line([(0.18, 0.2), (0.42, 0.36)], 0.09)
        ink.line([(0.82, 0.2), (0.58, 0.36)], 0.09)
        ink.line([(0.3, 0.73), (0.7, 0.73)], 0.11)
    else:
        ink.disc(0.5, 0.7, 0.16)


def _on_arc(x: float, y: float, radius: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return x + radius * math.sin(angle), y - radius * math.cos(angle)


def _sign(body: Pen, ink: Pen, meaning: str) -> None:
    if meaning == "danger":
        body.polygon([(0.5, 0.0), (1.0, 0.94), (0.0, 0.94)])
        ink.line([(0.5, 0.36), (0.5, 0.6)], 0.13)
        ink.disc(0.5, 0.8, 0.075)
    elif meaning == "no entry":
        body.disc(0.5, 0.5, 0.5)
        ink.box((0.16, 0.4, 0.84, 0.6))
    elif meaning == "poison":
        for y in (0.0, 1.0):
            body.line([(0.08, 0.7 + 0.22 * y), (0.92, 0.92 - 0.22 * y)], 0.13)
        body.ellipse((0.18, 0.0, 0.82, 0.62))
        body.box((0.3, 0.5, 0.7, 0.74))
        for x in (0.36, 0.64):
            ink.disc(x, 0.33, 0.1)
        ink.polygon([(0.5, 0.44), (0.56, 0.54), (0.44, 0.54)])
    else:
        character = {"radiation": "\u2622", "recycling": "\u267b"}[meaning]
        body.mask.paste(_glyph(character, body.side, THINNER[character]))


def _chart(body: Pen, ink: Pen, heights: str) -> None:
    """Bars in steps of three pixels of a 48-pixel picture, with an ink line at the foot of each step to count them by."""
    body.box((0, 14 / 15, 1, 1))
    for i, height in enumerate(NUMBERS.index(word) for word in heights.split()):
        left = (1 + 5 * i) / 15
        body.box((left, (14 - 3 * height) / 15, left + 3 / 15, 14 / 15))
        for step in range(height):
            ink.box((left, (14 - 3 * step) / 15, left + 3 / 15, (14.4 - 3 * step) / 15))


def _crown(body: Pen, ink: Pen, detail: str) -> None:
    tips = [(0.08, 0.3), (0.5, 0.16), (0.92, 0.3)]
    body.polygon([(0.14, 0.9), tips[0], (0.31, 0.56), tips[1], (0.69, 0.56), tips[2], (0.86, 0.9)])
    for x, y in tips:
        body.disc(x, y, 0.08)
    ink.box((0.16, 0.72, 0.84, 0.8))


def _bead(body: Pen, ink: Pen, detail: str) -> None:
    body.disc(0.5, 0.5, 0.5)
    ink.disc(0.5, 0.5, 0.2)  # its hole, without which it would look like a circle


def _moon(body: Pen, ink: Pen, detail: str) -> None:
    body.disc(0.5, 0.5, 0.5)
    body.disc(0.78, 0.24, 0.43, fill=0)


def _cat(body: Pen, ink: Pen, detail: str) -> None:
    body.polygon([(0.04, 0.02), (0.45, 0.2), (0.04, 0.6)])
    body.polygon([(0.96, 0.02), (0.55, 0.2), (0.96, 0.6)])
    body.ellipse((0.02, 0.14, 0.98, 0.96))
    for x in (0.3, 0.7):
        ink.disc(x, 0.46, 0.075)
    ink.polygon([(0.42, 0.6), (0.58, 0.6), (0.5, 0.7)])
    for side in (-1, 1):
        ink.line([(0.5 + side * 0.2, 0.66), (0.5 + side * 0.42, 0.6)], 0.04)
        ink.line([(0.5 + side * 0.2, 0.74), (0.5 + side * 0.42, 0.78)], 0.04)


def _mouse(body: Pen, ink: Pen, detail: str) -> None:
    for x in (0.22, 0.78):
        body.disc(x, 0.24, 0.24)
        ink.disc(x, 0.24, 0.11)
    body.polygon([(0.2, 0.4), (0.8, 0.4), (0.62, 0.9), (0.38, 0.9)])
    body.ellipse((0.16, 0.22, 0.84, 0.86))
    body.disc(0.5, 0.86, 0.14)
    for x in (0.37, 0.63):
        ink.disc(x, 0.54, 0.07)
    ink.disc(0.5, 0.88, 0.09)


def _cow(body: Pen, ink: Pen, detail: str) -> None:
    for side in (-1, 1):
        body.line([(0.5 + side * 0.22, 0.22), (0.5 + side * 0.34, 0.16), (0.5 + side * 0.34, 0.05)], 0.1)  # horns
        body.ellipse((0.5 + side * 0.33 - 0.17, 0.27, 0.5 + side * 0.33 + 0.17, 0.47))  # ears
    body.ellipse((0.24, 0.14, 0.76, 0.8))
    body.ellipse((0.2, 0.58, 0.8, 1.0))
    for x in (0.38, 0.62):
        ink.disc(x, 0.42, 0.06)
        ink.ellipse((x - 0.06, 0.72, x + 0.06, 0.86))


def _pencil(body: Pen, ink: Pen, detail: str) -> None:
    """Slanted, with its point at the lower left."""
    def along(t: float, across: float) -> Point:
        return t + across, 1 - t + across
    body.polygon([along(0.02, 0.0), along(0.24, -0.15), along(0.24, 0.15)])
    body.polygon([along(0.24, -0.15), along(0.85, -0.15), along(0.85, 0.15), along(0.24, 0.15)])
    ink.polygon([along(0.12, -0.07), along(0.24, -0.15), along(0.24, 0.15), along(0.12, 0.07)])
    ink.line([along(0.74, -0.13), along(0.74, 0.13)], 0.05)


# Animals, crown, moon and pencil have glyphs too, but these are unrecognisable at 10 to 16 pixels.
_DRAWN = {"clock": _clock, "arrow": _arrow, "person": _person, "face": _face, "sign": _sign, "chart": _chart, BEAD: _bead,
          "cat": _cat, "mouse": _mouse, "cow": _cow, "pencil": _pencil, "crown": _crown, "moon": _moon}
