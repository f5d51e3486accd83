"""Texts by models and users, made fit for the places where people see them: figures, Markdown and spreadsheets."""

import csv
import html
import re
import textwrap
import unicodedata
from functools import cache
from pathlib import Path

import pandas as pd

UNKNOWN = "\ufffd"  # stands for a character that cannot be shown
FONT = "DejaVu Sans"  # comes with matplotlib
TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # invisible, and can show the rest of a line backwards
STACKED = 2  # marks that may stand on one letter
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a spreadsheet may run a cell that begins so


def one_line(text: object) -> str:
    """A text with its white space joined to single spaces and without what turns a line round; control characters and lone
    surrogates are replaced by UNKNOWN."""
    words = " ".join(TURNS.sub("", str(text)).split())
    return "".join(UNKNOWN if unicodedata.category(c) in ("Cc", "Cs") else c for c in words)


def drawable(text: object, most: int = 300) -> str:
    """One line of at most `most` characters that matplotlib can draw in its own font, whatever the text is.

    A character without a glyph is replaced by UNKNOWN; invisible ones and marks piled on one letter are left out. The caller
    draws it with parse_math=False, so that "$" is a dollar.
    """
    shown, marks = [], 0
    for char in unicodedata.normalize("NFC", one_line(text)):
        kind = unicodedata.category(char)
        marks = marks + 1 if kind.startswith("M") else 0
        if kind != "Cf" and marks <= STACKED:
            shown.append(char if ord(char) in _glyphs() else UNKNOWN)
    return shorten(" ".join("".join(shown).split()), most)


def shorten(text: str, most: int) -> str:
    """A line cut to `most` characters: at a word's end, or within a word that would leave half of the line empty."""
    short = textwrap.shorten(text, most, placeholder=" …")
    return short if len(short) > most / 2 or len(text) <= most else f"{text[:most - 2].rstrip()} …"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font  # slow, and not every text is drawn

    return frozenset(get_font(findfont(FONT)).get_charmap())


def inert(text: object) -> str:
    """One line of Markdown that renders as the text itself: no markup, no HTML, no link, no picture."""
    line = html.escape(one_line(text), quote=False)
    line = re.sub(r"([\\`*_\[\]#~|$@])", r"\\\1", line)
    line = re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", line, flags=re.IGNORECASE)  # bare addresses
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line)  # lists and underlines


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would run as a formula. Numbers stay numbers."""
    def quoted(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        cell = cell.encode("utf-8", "replace").decode().replace("\0", UNKNOWN)  # what no such file can hold
        return f"'{cell}" if cell.startswith(FORMULA) else cell
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(quoted) for name in texts})


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people to open. The kit reads none of these files back where they hold texts by models."""
    safe = spreadsheet_safe(table)
    returns = any("\r" in cell for name in safe for cell in safe[name] if isinstance(cell, str))  # else read as a row's end
    safe.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)
