"""Scenes of the testbed: the content of a picture, as data. `render.py` draws it, `language.py` describes it, `skills.py` asks.

A scene is a background with weather and up to nine things, each in a cell of a 3 x 3 grid. Two scenes are equal when a caption
cannot distinguish them: a thing's exact position within its cell and the scan of a digit do not count.
"""

import random
import zlib
from dataclasses import dataclass, field, replace
from functools import cache

from sklearn.datasets import load_digits

from auditdm_lib.wording import NUMBER_WORDS

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
# Glyphs of DejaVu Sans, which matplotlib ships, in any colour; a few are drawn by hand instead (`sprites.py`).
PICTOGRAMS = {
    "umbrella": "\u2602", "cloud": "\u2601", "snowman": "\u2603", "heart": "\u2665", "anchor": "\u2693", "plane": "\u2708",
    "phone": "\u260e", "cup": "\u2615", "letter": "\u2709", "scissors": "\u2702", "flag": "\u2691", "sun": "\u2600",
    "moon": "\u263e", "snowflake": "\u2744", "scales": "\u2696", "gear": "\u2699", "bolt": "\u26a1", "crown": "\u265b",
    "horse": "\u265e", "tower": "\u265c", "spade": "\u2660", "club": "\u2663", "note": "\u266b", "flower": "\u273f",
    "cat": "\U0001f431", "mouse": "\U0001f42d", "cow": "\U0001f42e", "pencil": "\u270f",
}
NUMBERS = NUMBER_WORDS[:19]
DIRECTIONS = ("up", "down", "left", "right")
BARS = 3  # bars of a chart
DETAILS = {  # kind -> what a thing of it can show, besides its colour, size and place
    "digit": NUMBERS[:10],
    "clock": NUMBERS[1:13],
    "arrow": DIRECTIONS,
    "person": ("waving", "running", "jumping", "sitting", "sleeping"),
    "face": ("happy", "sad", "angry", "surprised"),
    "word": ("tea", "bus", "zoo", "exit", "open", "sale", "taxi", "park"),
    "sign": ("danger", "poison", "radiation", "recycling", "no entry"),
    "chart": tuple(f"{a} {b} {c}" for a in NUMBERS[1:5] for b in NUMBERS[1:5] for c in NUMBERS[1:5]),  # heights, left to right
}
DIGIT, BEAD = "digit", "bead"
KINDS = (*SHAPES, *PICTOGRAMS, *DETAILS, BEAD)
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (235, 200, 30),
    "purple": (140, 60, 180), "orange": (245, 130, 20), "black": (25, 25, 25), "pink": (245, 140, 190),
}
MATERIALS = ("plain", "striped", "dotted", "hollow")  # of shapes; all other kinds are plain
BACKGROUNDS = {"white": (250, 250, 250), "grey": (175, 175, 175), "mint": (200, 240, 215)}
WEATHERS = ("fair", "rainy", "snowy", "foggy")
SIZES = ("small", "large", "tiny")
BOTH_SIZES = (*SHAPES, *tuple(PICTOGRAMS)[:23], DIGIT, "arrow")  # small or large; others need the room: large (bead: tiny)
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
NEIGHBOURS = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}  # (rows, columns) to the neighbouring cell
UNCOVERED = ("diamond", "spade", "club", "umbrella", "cloud", "crown")  # mistaken for something else when partly hidden
JITTER = 0.08  # maximum offset of a thing from the centre of its cell along each axis, in cells
SPLITS = {  # tenths of all scenes and of all digit scans: no two splits share a scene or a scan
    "train": (0, 1, 2, 5, 6, 7), "validation": (9,), "audit": (3,), "probe": (8,), "test": (4,)}


@dataclass(frozen=True)
class Thing:
    """One thing in a scene.

    `cell` numbers the 3 x 3 grid row by row. `detail` is one of `DETAILS[kind]`. `covers` names the neighbour (left, right,
    above, below) that this thing partly hides. `dx` and `dy`, in cells, and `scan`, the index of a digit's scan, affect only
    the drawing: comparisons ignore them.
    """

    kind: str
    colour: str
    size: str
    cell: int
    detail: str = ""
    material: str = "plain"
    covers: str = ""
    dx: float = field(default=0.0, compare=False)
    dy: float = field(default=0.0, compare=False)
    scan: int | None = field(default=None, compare=False)

    @property
    def row(self) -> str:
        return ROWS[self.cell // 3]

    @property
    def column(self) -> str:
        return COLUMNS[self.cell % 3]


@dataclass(frozen=True)
class Scene:
    """A background, its weather, and things in different cells, in the order of their cells."""

    background: str
    things: tuple[Thing, ...]
    weather: str = "fair"

    def at(self, cell: int | None) -> Thing | None:
        return next((t for t in self.things if t.cell == cell), None)

    def covered(self, thing: Thing) -> Thing | None:
        """The thing that `thing` partly hides."""
        return self.at(neighbour(thing.cell, thing.covers)) if thing.covers else None

    def coverer(self, thing: Thing) -> Thing | None:
        """The thing that partly hides `thing`."""
        return next((t for t in self.things if t.covers and neighbour(t.cell, t.covers) == thing.cell), None)


def neighbour(cell: int, direction: str) -> int | None:
    """The cell next to `cell`; None outside the grid."""
    rows, columns = NEIGHBOURS[direction]
    row, column = cell // 3 + rows, cell % 3 + columns
    return 3 * row + column if 0 <= row < 3 and 0 <= column < 3 else None


def faults(scene: Scene) -> list[str]:
    """What makes a scene invalid, in words; empty for a proper scene."""
    found = [f"{what} {word!r} is unknown" for what, word, known in (
        ("background", scene.background, BACKGROUNDS), ("weather", scene.weather, WEATHERS),
        *(("kind", t.kind, KINDS) for t in scene.things), *(("colour", t.colour, COLOURS) for t in scene.things),
        *(("direction", t.covers, ("", *NEIGHBOURS)) for t in scene.things)) if word not in known]
    cells = [t.cell for t in scene.things]
    if not set(cells) <= set(range(9)):
        found.append("a thing outside the nine places")
    if found:
        return found
    if len(set(cells)) < len(cells):
        found.append("two things in one place")
    if cells != sorted(cells):
        found.append("things out of the order of their places")
    for t in scene.things:
        if t.detail not in DETAILS.get(t.kind, ("",)):
            found.append(f"no {t.kind} can show {t.detail!r}")
        if t.size not in sizes_of(t.kind):
            found.append(f"no {t.kind} can be {t.size}")
        if t.material not in (MATERIALS if t.kind in SHAPES else ("plain",)):
            found.append(f"no {t.kind} can be {t.material}")
        if t.covers and not can_cover(t, scene.covered(t)):
            found.append(f"the {t.kind} covers nothing that it can cover")
        if t.covers and (scene.coverer(t) or (hidden := scene.covered(t)) and hidden.covers):
            found.append(f"the {t.kind} is part of a pile")
    hidden = [cell for t in scene.things if t.covers and (cell := neighbour(t.cell, t.covers)) is not None]
    if len(set(hidden)) < len(hidden):
        found.append("one thing is covered twice")
    return found


def sizes_of(kind: str) -> tuple[str, ...]:
    return ("tiny",) if kind == BEAD else ("small", "large") if kind in BOTH_SIZES else ("large",)


COVERABLE = tuple(kind for kind in (*SHAPES, *PICTOGRAMS) if kind not in UNCOVERED)


def can_cover(front: Thing, back: Thing | None) -> bool:
    """Whether `front` may partly hide `back`: a large shape, and a large shape or pictogram that stays recognisable."""
    return (back is not None and front.kind in SHAPES and front.material != "hollow" and back.kind in COVERABLE
            and front.size == back.size == "large" and front.kind != back.kind and front.colour != back.colour)


@cache
def digit_scans() -> tuple:
    """The 1,797 handwritten digits of scikit-learn: images (n, 8, 8) in 0..16 and labels (n,)."""
    data = load_digits()
    return data.images, data.target


@cache
def scans_of(split: str, digit: str | None = None) -> tuple[int, ...]:
    """Indices of the scans that belong to `split`, of one digit ("seven") or of all digits."""
    return tuple(i for i, label in enumerate(digit_scans()[1]) if i % 10 in SPLITS[split] and digit in (None, NUMBERS[label]))


def split_of(scene: Scene) -> str:
    """The split that a scene belongs to, by a fixed hash of its content, so that no scene is in two splits."""
    text = repr((scene.background, scene.weather, [
        (t.kind, t.colour, t.size, t.cell, t.detail, t.material, t.covers) for t in scene.things]))
    tenth = zlib.crc32(text.encode()) % 10
    return next(split for split, tenths in SPLITS.items() if tenth in tenths)


def pose(scene: Scene, rng: random.Random, split: str) -> Scene:
    """The same scene with new jitter and, for digits, new scans of the split."""
    def placed(t: Thing) -> Thing:
        dx, dy = (round(rng.uniform(-JITTER, JITTER), 3) for _ in range(2))
        return replace(t, dx=dx, dy=dy, scan=rng.choice(scans_of(split, t.detail)) if t.kind == DIGIT else None)
    return replace(scene, things=tuple(placed(t) for t in scene.things))


def pose_after(before: Scene, after: Scene, text: str, split: str) -> Scene:
    """The scene after an edit or a caption, posed: things that are new get a place in their cells and a scan, by `text`; the
    others stay where they were drawn in `before`, so that nothing changes but what the text says."""
    fresh = pose(after, random.Random(text), split)

    def kept(t: Thing, f: Thing) -> Thing:
        placed = t if t.dx or t.dy else next((old for old in before.things if old == t), f)
        return replace(placed, scan=f.scan) if placed.kind == DIGIT and placed.scan is None else placed
    return replace(after, things=tuple(map(kept, after.things, fresh.things)))


THEMES = (  # content of a scene besides random things, so that there are often questions of each skill
    *((kind,) for kind in ("clock", "arrow", "person", "face", "word", "sign", "chart", BEAD, DIGIT)),
    (DIGIT, DIGIT), ("cover",), ("cover",), (), ())


def _draw_thing(rng: random.Random, kind: str, palette: list[str], cell: int) -> Thing:
    return Thing(
        kind=kind, colour=rng.choice(palette), size=rng.choice(sizes_of(kind)), cell=cell,
        detail=rng.choice(DETAILS[kind]) if kind in DETAILS else "",
        material=rng.choice(MATERIALS) if kind in SHAPES and rng.random() < 0.6 else "plain")


def _draw_scene(rng: random.Random) -> Scene:
    """A random scene. Few colours and repeated kinds make questions of counting and comparison informative."""
    palette = rng.sample(tuple(COLOURS), 4)
    themes = [theme for pair in rng.sample(THEMES, 2) for theme in pair]
    kinds = [theme for theme in themes if theme in KINDS]
    n = max(len(kinds), rng.choice((2, 3, 3, 4, 4, 5, 5, 6)))
    while len(kinds) < n:
        chance = rng.random()
        kinds.append(rng.choice(kinds) if kinds and chance < 0.15 else rng.choice(SHAPES) if chance < 0.5
                     else rng.choice(tuple(PICTOGRAMS)) if chance < 0.88 else rng.choice((*DETAILS, BEAD)))
    rng.shuffle(kinds)
    cells = rng.sample(range(9), n)
    things = {cell: _draw_thing(rng, kind, palette, cell) for cell, kind in zip(cells, kinds, strict=True)}
    if "cover" in themes:
        _cover(rng, things, palette)
    weather = rng.choice(WEATHERS) if rng.random() < 0.8 else "fair"
    return Scene(rng.choice(tuple(BACKGROUNDS)), tuple(things[cell] for cell in sorted(things)), weather)


def _cover(rng: random.Random, things: dict[int, Thing], palette: list[str]) -> None:
    """Place a large shape partly over a large shape or pictogram in a neighbouring cell."""
    back = rng.choice([cell for cell in range(9) if cell not in things] or list(things))
    direction = rng.choice([d for d in NEIGHBOURS if neighbour(back, d) is not None])
    front = neighbour(back, direction)
    hidden = rng.choice([k for k in COVERABLE if (k in SHAPES) == (rng.random() < 0.5)])
    kinds = [rng.choice([shape for shape in SHAPES if shape != hidden]), hidden]
    colours = rng.sample(palette, 2)
    for cell, kind, colour in zip((front, back), kinds, colours, strict=True):
        things[cell] = replace(_draw_thing(rng, kind, palette, cell), size="large", colour=colour)
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[direction]
    things[front] = replace(things[front], covers=opposite, material=rng.choice(MATERIALS[:3]))


def sample_scenes(n: int, split: str, seed: int | str) -> list[Scene]:
    """`n` scenes of a split; splits share no scene and no digit scan. Raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    rng = random.Random(f"scenes/{split}/{seed}")
    scenes = []
    while len(scenes) < n:
        if split_of(scene := _draw_scene(rng)) == split:
            scenes.append(pose(scene, rng, split))
    return scenes
