"""Scenes of the testbed: what is in a picture, as data. Drawing is `render.py`, questions are `skills.py`."""

import random
from dataclasses import dataclass
from functools import cache

from sklearn.datasets import load_digits

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
# Glyphs of DejaVu Sans, which matplotlib carries; drawn in any colour.
PICTOGRAMS = {
    "umbrella": "\u2602", "cloud": "\u2601", "snowman": "\u2603", "heart": "\u2665", "anchor": "\u2693", "plane": "\u2708",
    "phone": "\u260e", "cup": "\u2615", "letter": "\u2709", "scissors": "\u2702", "flag": "\u2691", "sun": "\u2600",
}
DIGIT = "digit"
KINDS = (*SHAPES, *PICTOGRAMS, DIGIT)
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (235, 200, 30),
    "purple": (140, 60, 180), "orange": (245, 130, 20), "black": (25, 25, 25), "pink": (245, 140, 190),
}
BACKGROUNDS = {"white": (250, 250, 250), "grey": (175, 175, 175), "mint": (200, 240, 215)}
SIZES = ("small", "large")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
SPLITS = ("train", "audit", "probe", "test")  # models are trained on the first, auditors on the second, probes made on the third


@dataclass(frozen=True)
class Thing:
    """One thing in a scene. `cell` counts the 3 x 3 grid row by row; `dx`, `dy` are in cells; `scan` is a digit's scan."""

    kind: str
    colour: str
    size: str
    cell: int
    dx: float = 0.0
    dy: float = 0.0
    scan: int | None = None

    @property
    def row(self) -> str:
        return ROWS[self.cell // 3]

    @property
    def column(self) -> str:
        return COLUMNS[self.cell % 3]


@dataclass(frozen=True)
class Scene:
    """A background and two to six things in different cells."""

    background: str
    things: tuple[Thing, ...]


@cache
def digit_scans() -> tuple:
    """The 1,797 handwritten digits of scikit-learn: images (n, 8, 8) in 0..16 and labels (n,)."""
    data = load_digits()
    return data.images, data.target


@cache
def scans_of(split: str) -> tuple[int, ...]:
    """Indices of the scans that belong to `split`: six tenths train, one tenth audit, one probe, two test."""
    part = {"train": (0, 1, 2, 5, 6, 7), "audit": (3,), "probe": (8,), "test": (4, 9)}[split]
    return tuple(i for i in range(len(digit_scans()[1])) if i % 10 in part)


def sample_scene(rng: random.Random, split: str) -> Scene:
    """Draw a scene. Few colours and repeated kinds make counting and comparing worth asking."""
    n = rng.choice((2, 3, 3, 4, 4, 5, 5, 6))
    palette = rng.sample(tuple(COLOURS), 4)
    things, kinds = [], []
    for cell in sorted(rng.sample(range(9), n)):
        repeat = kinds and rng.random() < 0.2
        kind = rng.choice(kinds) if repeat else rng.choice(KINDS) if rng.random() > 0.18 else DIGIT
        kinds.append(kind)
        things.append(Thing(
            kind=kind, colour=rng.choice(palette), size=rng.choice(SIZES), cell=cell,
            dx=round(rng.uniform(-0.08, 0.08), 3), dy=round(rng.uniform(-0.08, 0.08), 3),
            scan=rng.choice(scans_of(split)) if kind == DIGIT else None,
        ))
    return Scene(rng.choice(tuple(BACKGROUNDS)), tuple(things))


def sample_scenes(n: int, split: str, seed: int) -> list[Scene]:
    """`n` scenes of a split; splits differ in scenes (independent streams) and in digit scans (disjoint)."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    rng = random.Random(f"scenes/{split}/{seed}")
    return [sample_scene(rng, split) for _ in range(n)]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def caption(scene: Scene) -> str:
    """The scene in words: 'on mint: a small red star top left, ...'."""
    things = ", ".join(f"{article(t.size)} {t.size} {t.colour} {t.kind} {t.row} {t.column}" for t in scene.things)
    return f"on {scene.background}: {things}"
