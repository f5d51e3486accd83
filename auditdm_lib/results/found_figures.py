"""A run's half of the paper's figures of failures: Figure 1 (failures beside a report), 4 (failure types, and their rates) and 5
(one example of each), from what stages 02 and 03 wrote. No model is loaded.
"""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib.results.paper_style import OKABE, PAGE, SMALL, page, styled
from auditdm_lib.results.shown_pictures import Shown, opened
from auditdm_lib.shown import drawable
from auditdm_lib.stats import wilson
from auditdm_lib.taxonomy.confirm import CONFIRMED

MODELS = ("target", "references")  # of Figure 4
TOP = 15  # failure types in the paper's Figure 4


def type_shares(confirmation: pd.DataFrame, most: int = TOP) -> pd.DataFrame:
    """Figure 4 of a run: the error rates of the target and, on average, of its references on the same fresh probes of a failure
    type, each pair normalised to 100 %: series (MODELS), category, value; of the `most` largest types on which anybody fails.

    `confirmation` is 03_taxonomy/confirmation.csv, the largest type first.
    """
    total = confirmation["rate"] + confirmation["reference_rate"]
    table, total = confirmation[total > 0].head(most), total[total > 0].head(most)
    share = 100 * table["rate"] / total
    parts = [pd.DataFrame(dict(series=name, category=table["name"], value=value))
             for name, value in zip(MODELS, (share, 100 - share), strict=True)]
    return pd.concat(parts, ignore_index=True)


@styled
def fig4_rates(confirmation: pd.DataFrame, references: int, note: str, most: int = TOP) -> Figure:
    """The twin of Figure 4 with rates: on fresh probes of the `most` largest failure types, how often the target alone is wrong,
    and a reference alone on average, with Wilson's intervals, and the counts.

    On a probe at most one of the `references` is the odd one, so the interval of the mean is that of their sum, divided.
    """
    table = confirmation[confirmation["probes"] > 0].head(most)
    table = table.sort_values(["rate", "name"], ascending=[True, False], ignore_index=True)  # drawn from the bottom up
    note = (f"{note.rstrip('.')}. Filled: confirmed types. Beside each, the probes on which the target, or a reference, is alone "
            "in being wrong.")
    figure = page(0.95 + max(len(table), 2) * (0.2 if len(table) <= 40 else 0.148), note)
    axis = figure.add_subplot()
    columns = (("target", "target_wrong", 1, OKABE["orange"], "o", 0.17), ("references (mean)", "reference_wrong", references,
                                                                         OKABE["blue"], "s", -0.17))
    for label, count, among, colour, marker, shift in columns:
        ends = np.array([wilson(k, n) for k, n in zip(table[count], table["probes"], strict=True)]).reshape(-1, 2) * 100 / among
        rate = 100 * table[count] / table["probes"] / among
        y, sure = table.index.to_numpy() + shift, (table["verdict"] == CONFIRMED).to_numpy()
        axis.hlines(y, ends[:, 0], ends[:, 1], color="#333333", linewidth=0.8)
        for filled, chosen in ((True, sure), (False, ~sure)):
            line, = axis.plot(rate[chosen], y[chosen], marker, color=colour, markersize=4, markeredgecolor="#333333",
                              markeredgewidth=0.6, markerfacecolor=colour if filled else "white",
                              label=label if filled else None, clip_on=False)
            line.set_in_layout(False)  # one without points would count as lying in the corner of the page
    for y, row in enumerate(table.itertuples()):
        axis.annotate(f"{row.target_wrong} and {row.reference_wrong} of {row.probes}", (1.02, y), annotation_clip=False,
                      xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
    axis.set_yticks(range(len(table)), [drawable(name, 56) for name in table["name"]], fontsize=SMALL)
    axis.set(xlim=(0, 100), ylim=(-0.6, max(len(table), 1) - 0.4), xlabel="alone in being wrong (% of fresh probes)")
    axis.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    if len(table):
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    else:
        axis.text(0.5, 0.5, "no failure type has fresh probes", ha="center", transform=axis.transAxes)
    return figure


def one_each(failures: pd.DataFrame, categories: pd.DataFrame, most: int = TOP) -> pd.DataFrame:
    """One example of each of the first `most` failure types of a table, with its `name`: a question about an original picture
    rather than about a drawn one, the trained auditor's rather than another's, else the first by probe_id."""
    named = failures.merge(categories[["category", "name"]].assign(turn=range(len(categories))), on="category")
    order = named.assign(drawn=named["kind"] != "question", other=named["auditor"] != "trained")
    order = order.sort_values(["turn", "drawn", "other", "probe_id"]).drop_duplicates("category")
    return order.head(most).reset_index(drop=True)


@styled
def fig5_examples(examples: pd.DataFrame, pictures: Path | Shown, note: str, columns: int = 5) -> Figure:
    """Figure 5: one example of each failure type (see `one_each`): its picture, the question, the answers of the two sides."""
    rows, wide = max(-(-len(examples) // columns), 1), PAGE / columns
    tall = wide + 1.0
    figure = page(rows * tall + 0.1, note)
    figure.set_layout_engine("none")
    for i, row in enumerate(examples.itertuples()):
        _example(figure, (i % columns) * wide, 0.06 + (i // columns) * tall, wide, row, pictures)
    if examples.empty:
        figure.text(0.5, 0.6, "no failure type was found", ha="center", fontsize=8)
    return figure


@styled
def fig1_report(examples: pd.DataFrame, pictures: Path | Shown, report: dict[str, list[str]], note: str) -> Figure:
    """Figure 1: up to three failures that the audit found beside its report in words.

    `report` holds the lines below each heading, such as "strong at", "weak at" and "to train on", in the order shown.
    """
    wide, left = 1.25, 3 * 1.25 + 0.25
    paragraphs = {heading: [line for text in lines or ["nothing"]
                            for line in textwrap.wrap(f"• {drawable(text, 220)}", 53, subsequent_indent="   ")]
                  for heading, lines in report.items()}
    lines = sum(len(part) for part in paragraphs.values())
    height = max(wide + 1.15, 0.25 + 0.22 * len(paragraphs) + 0.125 * lines)
    figure = page(height, note)
    figure.set_layout_engine("none")
    for i, row in enumerate(examples.head(3).itertuples()):
        _example(figure, i * wide, 0.06, wide, row, pictures)
    if examples.empty:
        _write(figure, 0.1, 0.1, "no failure was found", 8)
    y = 0.1
    for heading, part in paragraphs.items():
        _write(figure, left, y, heading, 8, fontweight="bold")
        _write(figure, left, y + 0.15, "\n".join(part), linespacing=1.2)
        y += 0.22 + 0.125 * len(part)
    return figure


def _example(figure: Figure, x: float, y: float, wide: float, row: tuple, pictures: Path | Shown) -> None:
    """A picture with its type's name, question and answers in a column `wide` inches broad; x and y from the upper left."""
    whole, tall = figure.get_size_inches()
    chars, size = int(wide * 16), wide - 0.16
    name = textwrap.wrap(drawable(row.name), chars, max_lines=3, placeholder=" …")
    _write(figure, x + wide / 2, y + 0.4, "\n".join(name), fontweight="bold", ha="center", va="bottom", linespacing=1.1)
    axis = figure.add_axes(((x + 0.08) / whole, 1 - (y + 0.44 + size) / tall, size / whole, size / tall))
    axis.axis("off")
    axis.imshow(opened(pictures, row.image))
    asked = textwrap.wrap(drawable(row.question), chars, max_lines=3, placeholder=" …")
    said = [drawable(f"references: {row.consensus}", chars), drawable(f"target: {row.target_answer}", chars)]
    _write(figure, x + wide / 2, y + 0.48 + size, "\n".join([*asked, *said]), ha="center", linespacing=1.15)


def _write(figure: Figure, x: float, y: float, text: str, size: float = SMALL, **more) -> None:
    whole, tall = figure.get_size_inches()
    figure.text(x / whole, 1 - y / tall, text, fontsize=size, **(dict(va="top") | more))
