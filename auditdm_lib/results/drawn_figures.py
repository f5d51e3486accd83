"""The figures about drawn pictures, one function each as in `figures`: pairs, drawers, the drawer's fault, the ablation."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib.audit.pairs import DRAWN, EXACT, ORIGINAL
from auditdm_lib.results import measures
from auditdm_lib.results.drawn import drawings, reasons
from auditdm_lib.results.figures import LABEL, NOTE_INCHES, blank
from auditdm_lib.results.paper_style import OKABE, PAGE, SMALL, styled
from auditdm_lib.results.shown_pictures import Shown, opened
from auditdm_lib.shown import drawable
from auditdm_lib.stats import Estimate

MARK = {True: "✓", False: "✗"}
KINDS = {"all": "all drawn\npictures", "edit": "edited by a\ncommand", "regeneration": "drawn from\na caption"}
MEASURES = {"unchecked": ("unchecked", OKABE["orange"], ""), "checked": ("checked", OKABE["green"], "//"),
            "exact": ("exact pictures of the same texts", OKABE["sky"], "..")}
ARMS = {"question": ("questions only", OKABE["blue"], ""), "regeneration": ("regeneration only", OKABE["purple"], "\\\\"),
        "edit": ("editing only", OKABE["orange"], ".."), "all": ("all three", OKABE["green"], "//")}


def _page(width: float, height: float) -> Figure:
    """An empty figure on which everything is placed in inches from the top left corner (`_axes`, `_text`)."""
    figure = blank(width, height)
    figure.set_layout_engine("none")
    return figure


def _axes(figure: Figure, x: float, y: float, width: float, height: float):
    whole, tall = figure.get_size_inches()
    return figure.add_axes((x / whole, 1 - (y + height) / tall, width / whole, height / tall))


def _text(figure: Figure, x: float, y: float, text: str, size: float = SMALL, **more) -> None:
    whole, tall = figure.get_size_inches()
    figure.text(x / whole, 1 - y / tall, text, fontsize=size, **(dict(va="top") | more))


def _picture(figure: Figure, x: float, y: float, size: float, pictures: Path | Shown, name: str | None) -> None:
    axis = _axes(figure, x, y, size, size)
    axis.axis("off")
    if name is None:
        axis.text(0.5, 0.5, "not drawn", ha="center", va="center", fontsize=SMALL, color="#555555")
    else:
        axis.imshow(opened(pictures, name))


def flipped_pairs(versions: pd.DataFrame, probes: pd.DataFrame, member: int, most: int = 4) -> pd.DataFrame:
    """Up to `most` edits that flip a member's answer (0 the target, 1 reference 1, ...): it is right about the original and wrong
    about the edited picture, which passed the check, and all others are right about both.

    First come edits after which the right answer is still the same, so that they are of something that the question is not
    about; among them each question once before any comes twice, then the trained auditor's. Columns are those of
    versions.parquet for the original, with the suffix _new those for the edited picture, and `text`, the command.
    """
    edits = versions[versions["kind"] == "edit"]
    pairs = edits[edits["version"] == ORIGINAL].merge(
        edits[(edits["version"] == DRAWN) & edits["picture_reason"].isna()], on="probe_id", suffixes=("", "_new"))
    pairs = pairs.merge(probes[["probe_id", "edit"]].rename(columns={"edit": "text"}), on="probe_id")

    def marks(target: object, references: object) -> list:
        return [target, *(references if references is not None else [None])]
    found = [all(right == (end == "" or i != member) for end, given in (("", before), ("_new", after))
                 for i, right in enumerate(given)) and member < len(before) for before, after in zip(
        map(marks, pairs["target_right"], pairs["references_right"]),
        map(marks, pairs["target_right_new"], pairs["references_right_new"]), strict=True)]
    pairs = pairs[np.array(found, bool)]
    same, trained = pairs["truth"].notna() & (pairs["truth"] == pairs["truth_new"]), pairs["auditor"] == "trained"
    order = pairs.assign(changed=~same, other=~trained).sort_values(["changed", "other"], kind="stable")
    order = order.assign(again=order.groupby(["changed", "question"]).cumcount())
    return order.sort_values(["changed", "again", "other"], kind="stable").head(most).reset_index(drop=True)


@styled
def fig_flips(versions: pd.DataFrame, flips: pd.DataFrame | None, probes: pd.DataFrame, pictures: Path | Shown,
              columns: int = 2) -> Figure:
    """Small edits that flip an answer, of the target and of reference 1 (see `flipped_pairs`), and how many flips there are.

    A pair has its command above, the original on the left, the edited picture on the right, and below the question and the
    answers to both. `pictures` are those that the column `image` names: a folder, or `Shown`.
    """
    given = versions["reference_answers"].dropna()
    names = ["target", *(f"reference {k + 1}" for k in range(min(3, max(map(len, given), default=1))))]
    counts = None if flips is None else flips[(flips["kind"] == "edit") & flips["auditor"].isin(["prompt_only", "trained"])]
    bars = 0 if counts is None else len(counts)
    cell, label, size = (PAGE - 0.3) / columns, 0.72, 1.1
    found = [flipped_pairs(versions, probes, member, columns) for member in (0, 1)]
    block = [0.28 + (0.3 + size + 0.45 + 0.13 * len(names) if len(rows) else 0.25) for rows in found]
    height = 0.4 + sum(block) + 0.95 + (0.6 + 0.28 * max(bars, 1)) + NOTE_INCHES
    figure = _page(PAGE, height)
    _text(figure, 0.15, 0.1, "Small edits that flip an answer", 9, fontweight="bold")
    top = 0.36
    for member, rows in enumerate(found):
        title = names[member] if member < len(names) else "reference 1"
        _text(figure, 0.15, top, f"The {title} is right on the left and wrong on the right, all others are right on both"
              if member == 0 else f"{title.capitalize()}, in the place of the larger sibling, is wrong on the right alone", 8,
              fontweight="bold")
        if rows.empty:
            _text(figure, 0.15, top + 0.22, "no such edit was found")
        for i, row in rows.iterrows():
            _pair(figure, 0.15 + cell * i, top + 0.2, row, names, pictures, label, size)
        top += block[member]
    shared = ("Shown are edits whose picture passed the check; first those after which the right answer is the same, so that "
              "what changes is nothing that the question is about; among them different questions, then the trained auditor's. "
              f"{MARK[True]} right, {MARK[False]} wrong (by the truth; where nothing is known, by the references' consensus).")
    _text(figure, 0.15, top, textwrap.fill(shared, int(18.5 * PAGE)), color="#333333", linespacing=1.2)
    _flip_counts(_axes(figure, 2.05, top + 0.85, PAGE - 4.15, 0.28 * max(bars, 1)), counts)
    return figure


def _pair(figure: Figure, x: float, y: float, row: pd.Series, names: list[str], pictures: Path | Shown, label: float,
          size: float) -> None:
    """One pair of `fig_flips`, its top left corner at (x, y) inches."""
    y += 0.3
    _text(figure, x + label, y - 0.03, textwrap.fill(f"“{drawable(row['text'], 70)}”", 42), style="italic", va="bottom")
    for shift, file in ((0, row["image"]), (size + 0.2, row["image_new"])):
        _picture(figure, x + label + shift, y, size, pictures, file)
    _text(figure, x + label + size + 0.1, y + size / 2, "→", 9, ha="center", va="center")
    y += size + 0.05
    question = textwrap.wrap(drawable(row["question"], 70), 40)
    _text(figure, x + label, y, "\n".join(question), fontweight="bold")
    y += 0.05 + 0.125 * max(1, len(question))
    for k, name in enumerate(names):
        _text(figure, x + label - 0.05, y + 0.13 * k, name, ha="right")
        for shift, end in ((0, ""), (size + 0.2, "_new")):
            said = [row[f"target_answer{end}"], *row[f"reference_answers{end}"]][k:k + 1]
            right = [row[f"target_right{end}"], *row[f"references_right{end}"]][k:k + 1]
            if said:
                _text(figure, x + label + shift, y + 0.13 * k, f"{MARK[bool(right[0])]} {drawable(said[0], 17)}",
                      fontweight="normal" if right[0] else "bold", color=OKABE["black"] if right[0] else "#B04A00")


def _flip_counts(axis, counts: pd.DataFrame | None) -> None:
    """Bars of the pairs on which a member is right once, with p of the exact McNemar test."""
    axis.set_title("Pairs on which all others are right twice: how often a member is right on one picture alone", fontsize=8)
    if counts is None or counts.empty:
        axis.axis("off")
        axis.text(0, 0.5, "no edited picture was asked about", fontsize=SMALL, va="center", transform=axis.transAxes)
        return
    rows = counts.iloc[::-1].reset_index(drop=True)
    y = np.arange(len(rows))
    for shift, column, name, colour, hatch in ((0.2, "n_right_wrong", "right, then wrong (flip)", OKABE["orange"], ""),
                                               (-0.2, "n_wrong_right", "wrong, then right", OKABE["sky"], "//")):
        axis.barh(y + shift, rows[column], 0.38, color=colour, edgecolor="#333333", linewidth=0.6, hatch=hatch, label=name)
    widest = max(1, rows[["n_right_wrong", "n_wrong_right"]].max().max())
    for i, row in rows.iterrows():
        p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.3f}"
        axis.annotate(f"{row['n_right_wrong']} and {row['n_wrong_right']} of {row['pairs']}, {p}", (1.01, i),
                      xycoords=("axes fraction", "data"),
                      va="center", fontsize=SMALL, annotation_clip=False)
    labels = [f"{LABEL.get(a, a).replace(chr(10), ' ')}: {m.replace('_', ' ')}" for a, m in
              rows[["auditor", "member"]].itertuples(index=False)]
    axis.set_yticks(y, labels, fontsize=SMALL)
    axis.set(xlim=(0, 1.02 * widest), ylim=(-0.5, len(rows) - 0.5), xlabel="pairs; p of the exact McNemar test")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="upper right", bbox_to_anchor=(-0.02, -0.05), fontsize=SMALL, borderaxespad=0.2)


def drawn_rows(versions: pd.DataFrame, probes: pd.DataFrame, most: int = 6) -> pd.DataFrame:
    """Up to `most` probes to show in `fig_drawers`, by turns of each kind and of accepted and rejected pictures, a reason once
    before any comes twice; the trained auditor's if it has any. Columns are those of versions.parquet, and `text`."""
    texts = probes.assign(text=probes["caption"].where(probes["kind"] == "regeneration", probes["edit"]))
    rows = versions[versions["version"] == DRAWN].merge(texts[["probe_id", "text"]], on="probe_id")
    mine = rows[rows["auditor"] == "trained"]
    rows = mine if len(mine) else rows
    fails = rows["picture_reason"].notna()
    again = rows.groupby(["kind", "picture_reason"], dropna=False).cumcount().where(fails, 0)
    rows = rows.assign(fails=fails, again=again).sort_values(["fails", "again"], kind="stable")
    turn = rows.groupby(["kind", "fails"]).cumcount()
    rows = rows.assign(turn=turn).sort_values(["turn", "fails", "kind"], ascending=[True, True, False], kind="stable").head(most)
    return rows.sort_values(["kind", "fails"], ascending=[False, True], kind="stable").reset_index(drop=True)


@styled
def fig_drawers(versions: pd.DataFrame, probes: pd.DataFrame, pictures: Path | Shown, most: int = 6) -> Figure:
    """The renderer and the diffusion pipelines side by side on the same texts: the source picture, the text, both drawings, and
    what the check says of the pipeline's (see `drawn_rows`). Without exact pictures their column is left out."""
    rows, size = drawn_rows(versions, probes, most), 1.05
    exact = versions[versions["version"] == EXACT].set_index("probe_id")["image"]
    places = dict(source=0.12, text=0.24 + size) | (dict(renderer=3.4) if len(exact) else {})
    places["pipeline"] = 3.4 + (size + 0.1 if len(exact) else 0)
    places["check"] = places["pipeline"] + size + 0.1
    figure = _page(PAGE, 0.75 + max(len(rows), 0.4) * (size + 0.12) + NOTE_INCHES)
    _text(figure, 0.12, 0.1, "The same texts drawn by the renderer and by diffusion" if len(exact) else
          "Pictures drawn by diffusion", 9, fontweight="bold")
    heads = dict(source="source picture", text="caption or edit command", renderer="renderer: exact",
                 pipeline="diffusion", check="check of the drawing")
    for name, x in places.items():
        _text(figure, x, 0.42, heads[name], 7.5, fontweight="bold")
    if rows.empty:
        _text(figure, 0.12, 0.7, "no picture was drawn")
    for i, row in rows.iterrows():
        y = 0.62 + i * (size + 0.12)
        _picture(figure, places["source"], y, size, pictures, row["source_image"])
        kind = "caption" if row["kind"] == "regeneration" else "command"
        words = textwrap.wrap(drawable(f"{kind}: {row['text']}", 360), 37)
        _text(figure, places["text"], y, "\n".join([*words[:8], *(["…"] if len(words) > 8 else [])]))
        if len(exact):
            file = exact.get(row["probe_id"])
            _picture(figure, places["renderer"], y, size, pictures, file if isinstance(file, str) else None)
        _picture(figure, places["pipeline"], y, size, pictures, row["image"])
        reason = drawable(row["picture_reason"], 90)
        said = f"{MARK[False]} rejected: {reason}" if row["fails"] else f"{MARK[True]} accepted"
        _text(figure, places["check"], y + size / 2, textwrap.fill(said, 20), va="center",
              fontweight="bold" if row["fails"] else "normal", color="#B04A00" if row["fails"] else "#00704F")
    return figure


def _grouped(axis, groups: list, series: dict[str, tuple[str, str, str]], estimates: dict[tuple, Estimate], digits: int = 1,
             **more) -> None:
    """Bars of several series (label, colour, hatch) side by side in each group, with intervals and values; "n/a" where a value is
    NaN, nothing where there is none."""
    width = 0.8 / len(series)
    for k, (name, (label, colour, hatch)) in enumerate(series.items()):
        shift, found = (k - (len(series) - 1) / 2) * width, []
        for i, group in enumerate(groups):
            if (group, name) in estimates and np.isnan(estimates[group, name].value):
                axis.annotate("n/a", (i + shift, 0), (0, 3), textcoords="offset points", ha="center", fontsize=SMALL,
                              color="#555555")
            elif (group, name) in estimates:
                found.append((i, estimates[group, name]))
        if not found:
            continue
        x = np.array([i + shift for i, _ in found])
        value, low, high = np.array([estimate for _, estimate in found], float).T
        axis.bar(x, value, 0.92 * width, color=colour, hatch=hatch, edgecolor="#333333", linewidth=0.6, label=label, **more)
        if (high > low).any():
            axis.errorbar(x, value, [value - low, high - value], fmt="none", ecolor="#222222", capsize=2, linewidth=1)
        for place, number, end in zip(x, value, np.where(value >= 0, np.maximum(high, 0), np.minimum(low, 0)), strict=True):
            axis.annotate(f"{number:.{digits}f}", (place, end), (0, 3 if number >= 0 else -3), textcoords="offset points",
                          ha="center", va="bottom" if number >= 0 else "top", fontsize=SMALL)


@styled
def fig_drawer_fault(faults: pd.DataFrame | None, probes: pd.DataFrame, most: int = 10, verified: bool = True) -> Figure:
    """Is it the model or the picture? Success of probes on drawn pictures without the check, with it, and with exact pictures of
    the same texts, by auditor and kind (drawer.csv); and why pictures were rejected, the `most` frequent reasons (probes).

    Where nothing was verified, a success is called a disagreement.
    """
    drawn = drawings(probes)
    why = reasons(drawn)
    shown_tall = 0.9 + 0.24 * max(1, min(most, len(why)))
    figure = blank(PAGE, 3.4 + shown_tall)
    left, right = figure.subplots(2, 1, height_ratios=[3.2, shown_tall])
    rows = pd.DataFrame(columns=["auditor", "kind", "measure"]) if faults is None else faults
    rows = rows[rows["measure"].isin(MEASURES)]
    groups = list(dict.fromkeys(rows[["auditor", "kind"]].itertuples(index=False, name=None)))
    estimates = {((row.auditor, row.kind), row.measure): measures.percent(Estimate(row.share, row.ci_low, row.ci_high))
                 for row in rows.itertuples()}
    _grouped(left, groups, MEASURES, estimates, digits=0)
    labels = [f"{KINDS.get(kind, kind)}\n{LABEL.get(auditor, auditor)}" for auditor, kind in groups]
    left.set(xticks=range(len(groups)), xlim=(-0.6, max(len(groups), 1) - 0.4), ylim=(0, 112), yticks=range(0, 101, 20),
             ylabel="target disagrees and is wrong (% of probes)" if verified else "disagreements per probe (%)")
    left.set_xticklabels(labels, fontsize=SMALL)
    left.set_title("Success with drawn pictures" if verified else "Disagreements on drawn pictures", pad=20)
    if left.patches:
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.2)
    elif not groups:
        left.text(0.5, 0.5, "no probe asks about a drawn picture", ha="center", transform=left.transAxes)
    shown = why.head(most).iloc[::-1]
    right.barh(range(len(shown)), shown, 0.65, color=OKABE["orange"], edgecolor="#333333", linewidth=0.6)
    for i, count in enumerate(shown):
        right.annotate(f"{count:,}", (count, i), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    right.set_yticks(range(len(shown)), [textwrap.fill(drawable(reason, 48), 25) for reason in shown.index], fontsize=SMALL)
    rarer = f"pictures ({len(why) - most} rarer reasons are not shown)" if len(why) > most else "pictures"
    right.set(xlim=(0, 1.18 * max([1, *shown])), ylim=(-0.6, max(len(shown), 1) - 0.4), xlabel=rarer)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_title(f"Rejected drawings: {why.sum():,} of {len(drawn):,}")
    if shown.empty:
        right.text(0.5, 0.5, "no drawing was rejected", ha="center", transform=right.transAxes)
    return figure


@styled
def fig_ablation(table: pd.DataFrame) -> Figure:
    """The ablation: what the target gains from each kind of probe, and beside it the paper's gains (see `ablation.table`)."""
    figure = blank(PAGE, 5.6)
    for axis, low, column, title, hatched in zip(
            figure.subplots(2, 1), (["ci_low", "ci_high"], []), ("gain", "paper_gain"),
            ("This run: rectified minus target", "The paper: PaliGemma2-3B, 224 px (other data)"), (False, True), strict=True):
        rows = table[table["measure"].isin(table.loc[table[column].notna(), "measure"])]
        groups = list(dict.fromkeys(rows["measure"]))
        estimates = {(row["measure"], row["arm"]): Estimate(*(row[[column, *low]] if low else [row[column]] * 3))
                     for _, row in rows.iterrows()}
        _grouped(axis, groups, ARMS, estimates, alpha=0.8 if hatched else 1)
        names = dict(zip(rows["measure"], rows["paper_benchmark" if hatched else "measure"], strict=True))
        axis.set(xticks=range(len(groups)), xlim=(-0.6, max(len(groups), 1) - 0.4), ylabel="gain (points)")
        axis.set_xticklabels([textwrap.fill(str(names[group]), 14) for group in groups], fontsize=SMALL)
        axis.set_title(title, pad=8)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.margins(y=0.12)
        if hatched:
            axis.set_facecolor("#F5F5F5")
        if not groups:
            axis.text(0.5, 0.6, "no gain was measured", ha="center", transform=axis.transAxes)
    figure.legend(*_all_arms(figure), loc="outside upper center", ncols=4)
    return figure


def _all_arms(figure: Figure) -> tuple[list, list]:
    """Handles and labels of the arms in their order, each from the first panel that has it."""
    found = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = [label for label, *_ in ARMS.values() if label in found]
    return [found[label] for label in labels], labels
