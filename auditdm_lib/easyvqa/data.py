"""The data set easy-VQA (Victor Zhou, MIT licence): 64 x 64 pictures of one coloured shape, with questions and answers.

Of the 5,000 pictures of version 1.0, 4,466 have rows that leave one shape and one colour only; the others are left out. Checked
by `tests/test_easyvqa.py`: rows with the same text about pictures of the same shape and colour have the same answer, and each
of the 24 pairs of shape and colour has an answer to 96 of the 107 texts, which are all but those that presuppose another shape
or colour ("what color is the circle?" about a triangle).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SPLITS = {  # pictures of the package by their numbers; no two splits share one
    "train": ("train", range(2000)), "audit": ("train", range(2000, 4000)),
    "probe": ("test", range(500)), "test": ("test", range(500, 1000))}
REMEDY = "the pictures 'easy-vqa' are in a package of their own: pip install easy-vqa==1.0 (3 MB)."


@dataclass(frozen=True)
class Shown:
    """A picture of the data set: its file, its shape and colour, and its own questions with their answers."""

    file: Path
    shape: str
    colour: str
    rows: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return f"{self.file.parent.parent.name}/{self.file.name}"


@cache
def split(name: str) -> tuple[Shown, ...]:
    """The pictures of a split ("train", "audit", "probe" or "test") whose shape and colour the data set tells, by number."""
    part, numbers = SPLITS[name]
    return tuple(shown for number, shown in _package(part).items() if number in numbers)


@cache
def answers() -> dict[tuple[str, str, str], str]:
    """Shape, colour and text of a question -> the answer that the data set gives, learnt from the rows about its pictures."""
    return {(shown.shape, shown.colour, text): answer for part in ("train", "test") for shown in _package(part).values()
            for text, answer in shown.rows}


@cache
def picture(file: Path) -> Image.Image:
    """An RGB picture; the same object each time."""
    with Image.open(file) as opened:
        return opened.convert("RGB")


def tidy(text: str) -> str:
    """A question as the data set writes it: in lower case, one space between words."""
    return " ".join(text.lower().split())


def kind(text: str) -> str:
    """What a question of the data set is about: shape, colour, exists, or negation (with a "no" or "not" in it)."""
    words = tidy(text).rstrip("?").split()
    if words[0] == "what":
        return "colour" if "color" in words else "shape"
    return "negation" if {"no", "not"} & set(words) else "exists"


@cache
def _package(part: str) -> dict[int, Shown]:
    """The pictures of the package's "train" or "test" part by number, without those whose rows leave shape or colour open."""
    try:
        import easy_vqa
    except ModuleNotFoundError:
        raise ModuleNotFoundError(REMEDY) from None
    rows = {}
    for text, answer, number in zip(*getattr(easy_vqa, f"get_{part}_questions")(), strict=True):
        rows.setdefault(number, []).append((tidy(text), answer))
    files, found = getattr(easy_vqa, f"get_{part}_image_paths")(), {}
    for number in sorted(rows):
        shapes, colours = (_left(rows[number], words) for words in (SHAPES, COLOURS))
        if len(shapes) == len(colours) == 1:
            found[number] = Shown(Path(files[number]), *shapes, *colours, tuple(rows[number]))
    return found


def _left(rows: list[tuple[str, str]], words: tuple[str, ...]) -> set[str]:
    """The words (shapes, or colours) that are possible after what the rows about a picture say."""
    left = set(words)
    for text, answer in rows:
        named = left.intersection(text.rstrip("?").split())
        if answer in words:  # "what shape is present?" circle
            left &= {answer}
        elif named and kind(text) in ("shape", "colour"):  # "what is the blue shape?" presupposes that it is blue
            left = named
        elif named:  # "is there a circle?" yes or no, "is there not a circle?" no or yes
            left = named if (answer == "yes") == (kind(text) == "exists") else left - named
    return left
