"""The paper's figures from its printed numbers: one function each, data frames in, a matplotlib Figure out.

`values` is figures/paper_values.csv. What takes another table draws a run's as well (see `paper_runs`). Each figure carries a
note of where its numbers come from and how sure they are.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib.results.paper_style import AFTER, BEFORE, LARGER, OKABE, SMALL, how_sure, page, rows_of, styled
from auditdm_lib.shown import drawable

FAMILIES = {"PaliGemma2": ("paligemma2_benchmarks", "average of 8 tasks"),
            "Gemma3": ("gemma3_benchmarks", "average of 7 benchmarks")}
BASELINE = "baseline"
ARMS = {"probing question only": ("questions only", OKABE["blue"], ""),
        "image generation only": ("regeneration only", OKABE["purple"], "\\\\"),
        "image editing only": ("editing only", OKABE["orange"], ".."),
        "best combination": ("best combination", OKABE["green"], "//")}
WITHOUT_NUMBERS = "The text says without a number that regeneration does harm on AI2D and that only filtered edits help RefCOCO."
SPOKES = 12  # as many names fit around a radar chart; with more, numbers stand there and the names below
EDGE = dict(edgecolor="#333333", linewidth=0.6)


def role(series: str, place: int) -> tuple[str, str, str, str, str]:
    """How a model is drawn: as the one before (place 0), after AuditDM, or one of the larger ones (from place 1 on)."""
    if "+ AuditDM" in series or series == "rectified":
        return AFTER
    return LARGER[(place - 1) % len(LARGER)] if place else BEFORE


def roles(series: list[str]) -> dict[str, tuple[str, str, str, str, str]]:
    """`role` of each model, in the order in which they are given."""
    plain = [name for name in series if role(name, 0) is not AFTER]
    return {name: role(name, plain.index(name) if name in plain else 0) for name in series}


def by_size(series) -> list[str]:
    """Models of a family, smallest first, each followed by itself after AuditDM: "PaliGemma2-3B", "PaliGemma2-3B + AuditDM"."""
    def size(name: str) -> tuple[float, bool]:
        digits = name.partition("-")[2].partition("B")[0]
        return float(digits), "+" in name
    return sorted(dict.fromkeys(series), key=size)


@styled
def fig2_averages(values: pd.DataFrame) -> Figure:
    """Figure 2: the average score before and after AuditDM and of the larger models, a panel for each family."""
    rows = rows_of(values, "fig2_average")
    note = "Above the bar after AuditDM: its gain over the same model before. The average of Gemma3 leaves MME out."
    figure = page(2.5, f"{how_sure(rows)} {note}")
    for axis, (family, (_, unit)) in zip(figure.subplots(1, 2), FAMILIES.items(), strict=True):
        mine = rows[rows["series"].str.startswith(family)].set_index("series")["value"]
        looks = roles(by_size(mine.index))
        for place, (series, (label, colour, hatch, *_)) in enumerate(looks.items()):
            axis.bar(place, mine[series], 0.7, color=colour, hatch=hatch, label=label, **EDGE)
            before = mine.get(series.partition(" + ")[0])
            gain = f"\n+{mine[series] - before:.2f}" if "+" in series and before is not None else ""
            axis.annotate(f"{mine[series]:.2f}{gain}", (place, mine[series]), (0, 2), textcoords="offset points", ha="center",
                          fontsize=7.5, linespacing=1.1)
        names = [series.removeprefix(f"{family}-").replace(" + ", "\n+ ") for series in looks]
        axis.set(title=family, ylabel=f"score, {unit}", ylim=(0, 1.25 * mine.max()), xticks=range(len(mine)), xticklabels=names)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


@styled
def fig4_failure_types(shares: pd.DataFrame, models: tuple[str, str], note: str) -> Figure:
    """Figure 4: the failures of two models in each failure type, each pair normalised to 100 %.

    `shares` has the columns series (one of the models), category and value (percent). The types are ordered from those in which
    the first model makes most of the failures to those in which the second does; types with equal shares by name.
    """
    table = shares.pivot(index="category", columns="series", values="value").reindex(columns=list(models)).reset_index()
    table = table.sort_values([models[0], "category"], ascending=[True, False], ignore_index=True)  # drawn from the bottom up
    n = len(table)
    figure = page(0.9 + max(n, 2) * (0.19 if n <= 40 else 0.145), note)
    axis = figure.add_subplot()
    left = np.zeros(n)
    for model, colour, hatch in zip(models, (OKABE["orange"], OKABE["sky"]), ("", "///"), strict=True):
        axis.barh(range(n), table[model], 0.78, left=left, color=colour, hatch=hatch, label=drawable(model, 40), **EDGE)
        left = left + table[model].to_numpy()
    for i, row in enumerate(table[list(models)].to_numpy()):
        narrow = row[0] < 7  # too narrow for its number, which then stands beside it
        axis.text(row[0] + 1 if narrow else 1, i, f"{row[0]:.1f}", va="center", fontsize=SMALL,
                  bbox=dict(boxstyle="square,pad=0.05", facecolor="white", edgecolor="none") if narrow else None)
        axis.text(101, i, f"{row[1]:.1f}", va="center", fontsize=SMALL)
    axis.axvline(50, color="black", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(n), [drawable(name, 56) for name in table["category"]], fontsize=SMALL)
    axis.set(xlim=(0, 108), ylim=(-0.6, max(n, 1) - 0.4), xticks=range(0, 101, 25),
             xlabel="share of the failure type's failures (%)")
    if n:
        figure.legend(loc="outside upper center", ncols=2)
    else:
        axis.text(0.5, 0.5, "no failure type was found", ha="center", transform=axis.transAxes)
    return figure


@styled
def fig_radar(scores: pd.DataFrame, title: str, note: str) -> Figure:
    """A radar chart of the scores of several models: the columns are series, category and value, spokes in the order of rows.

    Each spoke has its own scale, as benchmarks differ in theirs: the lowest score stands half-way, the highest at the rim.
    """
    looks, names = roles(list(dict.fromkeys(scores["series"]))), list(dict.fromkeys(scores["category"]))
    table = scores.pivot(index="category", columns="series", values="value").loc[names, list(looks)]
    low, high = table.min(axis=1), table.max(axis=1)
    places = 0.5 + 0.5 * table.sub(low, axis=0).div((high - low).where(high > low, 1), axis=0)
    labels = [f"{drawable(name, 30)}\n{a:,.1f} to {b:,.1f}" for name, a, b in zip(names, low, high, strict=True)]
    numbered, angles = len(names) > SPOKES, 2 * np.pi * np.arange(len(names)) / max(len(names), 1)
    key = [f"{i}  {label.replace(chr(10), ': ')}" for i, label in enumerate(labels, 1)] if numbered else []
    lines = -(-len(key) // 2)
    note = f"{note.rstrip('.')}. Each spoke has a scale of its own: the lowest score half-way, the highest at the rim."
    figure = page(4.2 + 0.113 * lines, note, 5.6)
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    axis = figure.add_axes(((width - 2.7) / 2 / width, (height - 3.75) / height, 2.7 / width, 2.7 / height), projection="polar")
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    around = np.arange(len(names) + 1) % max(len(names), 1)
    for name, (_, colour, _, marker, line) in looks.items():
        axis.plot(angles[around], places[name].to_numpy()[around], color=colour, linestyle=line, marker=marker, markersize=4,
                  linewidth=1.4, markeredgecolor="#333333", markeredgewidth=0.5, clip_on=False, zorder=3,
                  label=drawable(name.replace("_", " "), 26))
    for i, (angle, label) in enumerate(zip(angles, labels, strict=True)):
        sideways, upwards = np.sin(angle), np.cos(angle)
        axis.annotate(str(i + 1) if numbered else label, (angle, 1.02), (9 * sideways, 9 * upwards), textcoords="offset points",
                      fontsize=SMALL, ha="center" if abs(sideways) < 0.2 or numbered else "left" if sideways > 0 else "right",
                      va="center" if abs(upwards) < 0.95 or numbered else "bottom" if upwards > 0 else "top")
    axis.set(ylim=(0, 1.02), yticks=[0.5, 1], yticklabels=[], xticks=angles, xticklabels=[])
    axis.grid(color="#CCCCCC", linewidth=0.6)
    axis.spines["polar"].set_visible(False)
    figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top", fontsize=9, fontweight="bold")
    figure.legend(*axis.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 1 - 0.19 / height),
                  ncols=max(2, -(-len(looks) // 2)), handlelength=3)
    for column in range(2):
        figure.text((0.1 + column * width / 2) / width, 1 - 4.05 / height, "\n".join(key[column * lines:(column + 1) * lines]),
                    fontsize=SMALL, va="top", linespacing=1.1)
    return figure


@styled
def fig_ablation(values: pd.DataFrame) -> Figure:
    """The ablation: what PaliGemma2-3B (224 px) gains on each benchmark from each kind of probe; the score stands beside it."""
    rows = rows_of(values, "ablation_paligemma2_3b_224px")
    table = rows.pivot(index="series", columns="category", values="value")
    benchmarks, arms = list(dict.fromkeys(rows["category"])), list(ARMS)[::-1]
    gaps = "; ".join(f"{ARMS[arm][0]} on {name}" for arm in ARMS for name in benchmarks if arm not in table.index or
                     np.isnan(table.loc[arm, name]))
    figure = page(1.9, f"{how_sure(rows)} Not known, so left out: {gaps or 'nothing'}. {WITHOUT_NUMBERS}")
    axes = figure.subplots(1, len(benchmarks), sharex=True, sharey=True, squeeze=False)[0]
    gains = table.sub(table.loc[BASELINE]).reindex(arms)
    for axis, name in zip(axes, benchmarks, strict=True):
        for y, arm in enumerate(arms):
            _, colour, hatch = ARMS[arm]
            gain, known = gains.loc[arm, name], not np.isnan(gains.loc[arm, name])
            if known:
                axis.barh(y, gain, 0.72, color=colour, hatch=hatch, **EDGE)
            words = f"{gain:+.1f} ({table.loc[arm, name]:.1f})" if known else "not known"
            axis.annotate(words, (max(gain, 0) if known else 0, y), (3, 0), textcoords="offset points", va="center",
                          fontsize=SMALL, color="black" if known else "#555555", fontstyle="normal" if known else "italic")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(title=f"{name} (baseline {table.loc[BASELINE, name]:.1f})", xlabel="gain (score)", yticks=range(len(arms)),
                 yticklabels=[ARMS[arm][0] for arm in arms])
    axes[0].set_xlim(min(0, 1.2 * gains.min().min()), 1.6 * gains.max().max())
    return figure


@styled
def fig_search_success(values: pd.DataFrame) -> Figure:
    """Search success, verified failures per attempt, of the auditor before and after its training."""
    rows = rows_of(values, "search_success")
    where = "; ".join(dict.fromkeys(rows["category"]))
    figure = page(1.35, f"{how_sure(rows)} {where}. No interval: none is printed.", 5.0)
    axis = figure.add_subplot()
    rows = rows.sort_values("value", ascending=False, kind="stable").reset_index(drop=True)  # drawn from the bottom up
    for y, row in rows.iterrows():
        _, colour, hatch, *_ = AFTER if row["series"] == "AuditDM" else BEFORE
        axis.barh(y, row["value"], 0.65, color=colour, hatch=hatch, **EDGE)
        axis.annotate(f"{row['value']:.1f} %", (row["value"], y), (4, 0), textcoords="offset points", va="center")
    axis.set(xlim=(0, 112), xticks=range(0, 101, 20), yticks=range(len(rows)), xlabel="verified failures per attempt (%)",
             yticklabels=[textwrap.fill(name, 22) for name in rows["series"]])
    return figure
