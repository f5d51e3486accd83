"""Rendering of scenes: 48 x 48 pixels for the models, or larger for people."""

import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from auditdm_lib.testbed.scenes import BACKGROUNDS, COLOURS, DIGIT, NEIGHBOURS, PICTOGRAMS, SHAPES, Scene, Thing
from auditdm_lib.testbed.sprites import INK, Sprite, sprite

SIZE = 48
OVERSAMPLE = 3  # scenes are drawn this many times larger and then reduced, for smooth edges
EXTENT = {"small": 0.66, "large": 0.94, "tiny": 0.32}  # side of a thing, in cells
WORD = 17  # side of a word's plate, in pixels of a 48-pixel picture
# These kinds may lose a pixel at the picture's edge when they are large; every pixel of other kinds may carry information.
MAY_BE_CUT = (*SHAPES, *tuple(PICTOGRAMS)[:12], DIGIT)
HIDDEN = 0.22  # share of a covered thing's area that is hidden
FARTHEST = 0.28  # maximum shift of a thing, in cells, to reach that share
HALO = 0.04  # width, in cells, of the background-coloured rim around a covering thing
WEATHER_TINTS = {
    "rainy": {"other": (100, 140, 195)}, "snowy": {"white": (180, 203, 225), "other": (255, 255, 255)},
    "foggy": {"grey": (225, 225, 225), "other": (200, 200, 206)}}


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Draw a scene as an RGB image of `size` x `size` pixels, antialiased by oversampling.

    Raises AssertionError where a digit has no scan yet.
    """
    side = size * OVERSAMPLE
    image = _background(scene.background, scene.weather, side).copy()
    placed = [(thing, *_placed(thing, scene, side)) for thing in scene.things]
    for layer in (False, True):  # covering things are drawn last
        things = [item for item in placed if bool(item[0].covers) == layer]
        for thing, left, top, drawn in things:
            if thing.covers:
                margin = round(HALO * side / 3)
                image.paste(BACKGROUNDS[scene.background], (left - margin, top - margin),
                            _halo(thing.kind, thing.material, drawn.body.width, margin))
            image.paste(COLOURS[thing.colour], (left, top), drawn.body)
        for thing, left, top, drawn in things:  # after all bodies, so that no neighbour's edge hides a letter
            if drawn.ink:
                image.paste(INK[thing.colour], (left, top), drawn.ink)
    return image.resize((size, size), Image.BOX)


def bounding_box(thing: Thing, scene: Scene) -> tuple[float, float, float, float]:
    """Bounding box of a thing of the scene: (x1, y1, x2, y2) in fractions of the picture, its hidden part included."""
    side = 3 * SIZE
    left, top, drawn = _placed(thing, scene, side)
    x1, y1, x2, y2 = drawn.body.point(lambda v: 255 * (v > 127)).getbbox()
    return tuple(min(max(v / side, 0.0), 1.0) for v in (left + x1, top + y1, left + x2, top + y2))


def _placed(thing: Thing, scene: Scene, side: int) -> tuple[int, int, Sprite]:
    """Left and top edge, in pixels, and the sprite of a thing in a picture of `side` x `side` pixels."""
    assert thing.kind != DIGIT or thing.scan is not None, "A digit has no scan to draw; call pose() on the scene first."
    cell, pixel = side / 3, side / SIZE
    dx, dy = _offset(thing, scene)
    extent = round(WORD * pixel) if thing.kind == "word" else round(EXTENT[thing.size] * cell)
    x, y = (thing.cell % 3 + 0.5 + dx) * cell - extent / 2, (thing.cell // 3 + 0.5 + dy) * cell - extent / 2
    if thing.kind == "word":  # on whole pixels of a 48-pixel picture, for sharp letters; no jitter, or plates would overlap
        x, y = (round(v / pixel) * pixel for v in (x - dx * cell, y))
    left, top = round(x), round(y)
    if thing.kind not in MAY_BE_CUT:
        left, top = (min(max(v, 0), side - extent) for v in (left, top))
    return left, top, sprite(thing.kind, thing.detail, thing.material, extent, thing.scan)


def _offset(thing: Thing, scene: Scene) -> tuple[float, float]:
    """Offset of a thing from the centre of its cell, in cells: its jitter, or, where one covers another, towards the other."""
    front = thing if thing.covers else scene.coverer(thing)
    if front is None:
        return thing.dx, thing.dy
    back = scene.covered(front)
    rows, columns = NEIGHBOURS[front.covers]
    step = _approach(front.kind, front.material, back.kind, back.material, front.covers) * (1 if thing is front else -1)
    return front.dx * (not columns) + columns * step, front.dy * (not rows) + rows * step


@cache
def _approach(front: str, front_material: str, back: str, back_material: str, direction: str) -> float:
    """Shift, in cells, of each of two large things at which the front one hides `HIDDEN` of the other's area."""
    rows, columns = NEIGHBOURS[direction]
    extent, margin, distance = round(EXTENT["large"] * SIZE), round(HALO * SIZE), SIZE  # in pixels of a cell of SIZE
    hider, back_body = _halo(front, front_material, extent, margin), sprite(back, "", back_material, extent).body
    area = np.asarray(back_body, float).sum()
    while distance > SIZE * (1 - 2 * FARTHEST):
        shown = back_body.copy()
        shown.paste(0, (-columns * distance - margin, -rows * distance - margin), hider)
        if np.asarray(shown, float).sum() <= (1 - HIDDEN) * area:
            break
        distance -= 1
    return (1 - distance / SIZE) / 2


@cache
def _halo(kind: str, material: str, extent: int, margin: int) -> Image.Image:
    """Mask of a shape dilated by `margin` pixels on every side."""
    grown = Image.new("L", (extent + 2 * margin, extent + 2 * margin), 0)
    grown.paste(sprite(kind, "", material, extent).body, (margin, margin))
    return grown.filter(ImageFilter.MaxFilter(2 * margin + 1))


@cache
def _background(background: str, weather: str, side: int) -> Image.Image:
    """The empty picture. Each weather has one fixed pattern, of which the things hide parts."""
    image = Image.new("RGB", (side, side), BACKGROUNDS[background])
    if weather == "fair":
        return image
    rng, unit = random.Random(f"weather/{weather}"), side / SIZE
    mask = Image.new("L", (side, side), 0)
    draw, tint = ImageDraw.Draw(mask), WEATHER_TINTS[weather]
    for row in range(-1, 9):
        if weather == "foggy":
            draw.rectangle((0, (8 * row + 2) * unit, side, (8 * row + 6) * unit), fill=170)
            continue
        for column in range(-1, 9):
            x, y = (7 * column + 3.5 * (row % 2) + rng.uniform(-1.2, 1.2)) * unit, (7 * row + rng.uniform(-1.2, 1.2)) * unit
            if weather == "rainy":
                draw.line((x, y, x - 1.6 * unit, y + 4.5 * unit), fill=255, width=round(0.7 * unit))
            else:
                draw.ellipse((x - 1.1 * unit, y - 1.1 * unit, x + 1.1 * unit, y + 1.1 * unit), fill=255)
    if weather == "foggy":
        mask = mask.filter(ImageFilter.GaussianBlur(1.2 * unit))
    image.paste(tint.get(background, tint["other"]), (0, 0), mask)
    return image
