"""How the paper's figures look: pages of print size, notes, colours with hatches and markers that tell the same apart in grey.

It imports neither torch nor SciPy, so that the figures are there in seconds.
"""

import textwrap
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib.run.manifest import Stop

PAGE = 7.0  # inches, the width of the text on a two-column page; figures are drawn at the size at which they are printed
SMALL = 7  # points, the smallest type
LINE = 0.125  # inches, a line of SMALL type
OKABE = dict(zip("black orange sky green yellow blue red purple".split(), matplotlib.color_sequences["okabe_ito"], strict=True))
# by the role of a model: colour, hatch, marker, line
BEFORE, AFTER = ("before", OKABE["orange"], "", "o", "--"), ("after AuditDM", OKABE["green"], "//", "s", "-")
LARGER = [("larger model", OKABE["sky"], "..", "^", ":"), ("largest model", "#888888", "\\\\", "D", "-."),
          ("", OKABE["purple"], "xx", "P", (0, (1, 3))), ("", OKABE["blue"], "++", "v", (0, (6, 2)))]
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold", "axes.labelsize": 7.5,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.linewidth": 0.7, "hatch.linewidth": 0.6, "legend.frameon": False,
    "figure.dpi": 100, "savefig.dpi": 200, "figure.constrained_layout.use": True, "text.parse_math": False}


def styled(draw):
    """The function `draw`, drawing with STYLE whatever the settings of the notebook are."""
    def inner(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)
    inner.__doc__, inner.__name__ = draw.__doc__, draw.__name__
    return inner


def page(height: float, note: str, width: float = PAGE) -> Figure:
    """An empty figure of so many inches, with the note on a strip below them. It is none of pyplot, which would keep it."""
    words = textwrap.wrap(note, int(19 * width))
    strip = 0.08 + LINE * len(words)
    whole = height + strip
    figure = Figure(figsize=(width, whole))
    figure.get_layout_engine().set(rect=(0, strip / whole, 1, 1 - strip / whole), w_pad=0.06, h_pad=0.06)
    figure.text(0.06 / width, 0.05 / whole, "\n".join(words), fontsize=SMALL, color="#444444", va="bottom", linespacing=1.2)
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.pdf and `name`.png. The same figure gives the same bytes."""
    with matplotlib.rc_context(STYLE):
        _settle(figure)
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, to show it in a notebook without saving it."""
    with matplotlib.rc_context(STYLE), BytesIO() as file:
        figure.savefig(file, metadata={"Software": None})
        return file.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out once and keep it so, to a millionth of its size: the solver of the layout adds in an order that differs
    from call to call, and a PDF shows the last digit. The 0.3 keeps round fractions such as 1/128 off the edge of a step."""
    if figure.get_layout_engine() is None:
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.floor(np.array(axes.get_position(original=True).bounds) * 1e6 + 0.3) / 1e6)


def rows_of(values: pd.DataFrame, item: str) -> pd.DataFrame:
    """The rows of an item of paper_values.csv. Raises Stop where there is none, where one stands twice, or one is no number."""
    rows = values[values["item"] == item]
    numbers = pd.to_numeric(rows["value"], errors="coerce")
    if rows.empty or numbers.isna().any() or rows.duplicated(["series", "category"]).any():
        raise Stop(f"paper_values.csv must hold each number of {item} exactly once: restore the file from the repository.")
    return rows.assign(value=numbers).reset_index(drop=True)


def how_sure(rows: pd.DataFrame) -> str:
    """Where numbers come from and how sure they are, as a note says it: each source with its confidence."""
    known = rows.drop_duplicates(["source", "confidence"])
    parts = [f"{source} (confidence: {sure})" for source, sure in zip(known["source"], known["confidence"], strict=True)]
    return f"As printed in the paper (arXiv 2512.16921). Read from: {'; '.join(parts)}."
