"""One function per figure: data frames in, a matplotlib Figure out; `save` writes it. Figures show only what is in the
tables of a run, at the size at which they are printed (`paper_style`)."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from scipy.stats import norm

from auditdm_lib import stats
from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate import scores
from auditdm_lib.results import measures, paper_style
from auditdm_lib.results.paper_style import OKABE, PAGE, SMALL, STYLE, styled
from auditdm_lib.results.shown_pictures import Shown, opened, seen
from auditdm_lib.shown import drawable

COLOUR = {"target": OKABE["orange"], "rectified": OKABE["green"], "control": OKABE["sky"], "reference_1": OKABE["blue"],
          "reference_2": OKABE["purple"], "random": "#999999", "prompt_only": OKABE["sky"], "trained": OKABE["green"],
          "plain_grpo": OKABE["red"]}
HATCH = {"rectified": "//", "control": "..", "reference_1": "\\\\", "reference_2": "xx", "prompt_only": "..", "trained": "//",
         "plain_grpo": "\\\\"}  # so that models and auditors can be told apart in grey
LINE = {"random": ":", "prompt_only": "--", "trained": "-", "plain_grpo": "-."}
LABEL = {"target": "target", "rectified": "target,\nrectified", "control": "target,\ncontrol",
         "reference_1": "reference 1", "reference_2": "reference 2", "random": "random\nquestions",
         "prompt_only": "prompt-only\nauditor", "trained": "trained\nauditor", "plain_grpo": "plain GRPO\n(Equation 1)",
         "union": "union of\ncheckpoints"}
MILESTONES = r"step_\d+|plain_\d+|imitation"  # intermediate checkpoints, shown only in fig_coverage
COUNTED = {"verified_failures": "verified failures", "disagrees": "disagreements"}  # columns of search.csv
OFTEN = 5  # verified failures from which a planted gap counts as covered
NOTE_INCHES = 0.24  # height of the strip for the footer below the axes


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches. It is none of pyplot, which would keep each one in memory and show it twice."""
    figure = Figure(figsize=(width, height))
    figure.get_layout_engine().set(rect=(0, NOTE_INCHES / height, 1, 1 - NOTE_INCHES / height), w_pad=0.06, h_pad=0.06)
    return figure


def save(figure: Figure, folder: Path, name: str, note: str) -> Figure:
    """Add the footer `note` and write `name`.pdf and `name`.png. The same figure gives the same bytes."""
    note = drawable(note)
    with matplotlib.rc_context(STYLE):
        if not figure.texts or figure.texts[-1].get_text() != note:
            figure.text(0.99, 0.05 / figure.get_figheight(), note, ha="right", va="bottom", fontsize=SMALL, color="#555555")
    paper_style.save(figure, folder, name)
    return figure


def bars(axis, x, estimates: list[stats.Estimate], whose: list[str], width: float = 0.75) -> None:
    """Bars at `x` with their intervals and values, in the colours and hatches of the models or auditors `whose`."""
    value, low, high = np.array(estimates, float).T
    axis.bar(x, value, width, color=[COLOUR.get(name, OKABE["yellow"]) for name in whose], edgecolor="#333333", linewidth=0.6,
             hatch=[HATCH.get(name, "") for name in whose])
    axis.errorbar(x, value, [value - low, high - value], fmt="none", ecolor="#222222", capsize=3, linewidth=1)
    for place, number, top in zip(x, value, high, strict=True):
        axis.annotate(f"{number:.1f}", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=SMALL)


@styled
def fig2_averages(items: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Figure 2: the average suite scores of this run's models, next to the averages printed in the paper.

    `items` is items.parquet, `paper` is paper_values.csv. They do not share an axis, as models and suites differ.
    """
    figure = blank(PAGE, 4.7)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.35, 1], hspace=0.12)
    roles = [role for role in ("target", "rectified", "control", "reference_1", "reference_2") if role in set(items["model"])]
    panels = [(grid[0, 0], "This run: average of the suites", measures.suite_average),
              (grid[1, 0], "This run: inside the planted gaps", measures.gap_score)]
    for place, title, score in panels:
        axis = figure.add_subplot(place)
        estimates = [score(items, role) for role in roles]
        if np.isnan(estimates[0].value):
            axis.text(0.5, 0.5, "no held-out items inside planted gaps", ha="center", transform=axis.transAxes)
        else:
            bars(axis, range(len(roles)), estimates, roles)
        axis.set(title=title, ylabel="accuracy (%)", ylim=(0, 112), yticks=range(0, 101, 20), xticks=range(len(roles)),
                 xticklabels=[LABEL[role].replace(" ", "\n") for role in roles])
    printed = paper[paper["item"] == "fig2_average"]
    for row, (family, unit) in enumerate([("PaliGemma2", "average of 8 tasks"), ("Gemma3", "average of 7 benchmarks")]):
        rows = printed[printed["series"].str.startswith(family)].reset_index(drop=True)
        axis = figure.add_subplot(grid[row, 1], facecolor="#F5F5F5")
        colours = [OKABE["green"] if "AuditDM" in s else OKABE["orange"] if i == 0 else OKABE["blue"]
                   for i, s in enumerate(rows["series"])]
        hatches = ["//" if "AuditDM" in s else "" if i == 0 else "\\\\" for i, s in enumerate(rows["series"])]
        axis.bar(range(len(rows)), rows["value"], 0.75, color=colours, edgecolor="#333333", linewidth=0.6, hatch=hatches)
        for i, value in enumerate(rows["value"]):
            axis.annotate(f"{value:.1f}", (i, value), (0, 2), textcoords="offset points", ha="center", fontsize=SMALL)
        axis.set(title=f"The paper, {family} (Figure 2)", ylabel=f"score, {unit}", ylim=(0, 112), yticks=range(0, 101, 20),
                 xticks=range(len(rows)),
                 xticklabels=[s.removeprefix(f"{family}-").replace(" + ", "\n+ ") for s in rows["series"]])
    return figure


@styled
def fig_held_out(items: pd.DataFrame) -> Figure:
    """Agreement of each model with the consensus of the references on held-out questions, by suite, with intervals by picture."""
    figure, suites = blank(PAGE, 3.4), list(items["suite"].unique())
    axis, roles = figure.add_subplot(), list(items["model"].unique())
    for i, role in enumerate(roles):
        mine = scores.headlines(items, role)
        bars(axis, np.arange(len(suites)) + (i - (len(roles) - 1) / 2) * 0.26, [measures.percent(mine[s]) for s in suites],
              [role] * len(suites), width=0.24)
        axis.containers[-2][0].set_label(LABEL[role].replace("\n", " "))
    names = {"held-out": "random questions", "held-out-failures": "questions on which the target\ndisagreed elsewhere"}
    axis.set(xticks=range(len(suites)), xticklabels=[names.get(suite, suite) for suite in suites], ylim=(0, 112),
             yticks=range(0, 101, 20), ylabel="same answer as the references (%)")
    axis.set_title("Agreement with the references on pictures that no earlier stage saw", pad=20)
    if roles:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.2)
    else:
        axis.text(0.5, 0.5, "no held-out question had a consensus", ha="center", transform=axis.transAxes)
    return figure


@styled
def fig_benchmarks(table: pd.DataFrame) -> Figure:
    """Each model's score on each benchmark that lmms-eval scored (`table` is benchmarks.csv), before and after rectification and
    beside its references, with the interval of the harness's standard error; a panel, in the harness's unit, for each metric."""
    parts = list(table.groupby(["task", "metric"], sort=False))
    roles = list(table["model"].unique())
    rows = -(-len(parts) // 2)
    figure = blank(PAGE, 0.5 + rows * (0.75 + 0.22 * len(roles)))
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axis, ((task, metric), part) in zip(axes, parts, strict=False):
        mine = part.drop_duplicates("model").set_index("model").reindex(roles)
        for y, role in enumerate(roles):
            axis.errorbar(mine.at[role, "score"], y, xerr=norm.ppf(0.975) * np.nan_to_num(mine.at[role, "stderr"]), fmt="o",
                          color=COLOUR.get(role, OKABE["yellow"]), markeredgecolor="#333333", ecolor="#222222", capsize=3)
        axis.set(yticks=range(len(roles)), yticklabels=[role.replace("_", " ") for role in roles],
                 ylim=(len(roles) - 0.5, -0.5), xlabel=drawable(metric, 50))
        axis.set_title(drawable(f"{task}, {part['n'].iloc[0]:,} items", 46), parse_math=False)
    for axis in axes[len(parts):]:
        axis.axis("off")
    return figure


@styled
def fig4_failure_shares(items: pd.DataFrame) -> Figure:
    """Figure 4: for each skill, the shares of its failures made by the target and by reference 1 (each row adds up to 100 %).

    Both answer the same held-out suite items. The counts are printed, since a share of few failures says little.
    """
    table = measures.failures_by_skill(items)
    total = table["target"] + table["reference_1"]
    silent = sorted(table.loc[total == 0, "skill"])
    table = table.assign(share=100 * table["target"] / total.where(total > 0))[total > 0]
    table = table.sort_values(["share", "skill"], ascending=[True, False]).reset_index(drop=True)  # drawn bottom to top
    figure = blank(PAGE, 1.5 + 0.2 * max(len(table), 2))
    axis = figure.add_subplot()
    y = np.arange(len(table))
    edge = dict(edgecolor="#333333", linewidth=0.6)
    axis.barh(y, table["share"], 0.75, color=COLOUR["target"], label="target", **edge)
    axis.barh(y, 100 - table["share"], 0.75, left=table["share"], color=OKABE["sky"], hatch="///", label="reference 1", **edge)
    for i, row in table.iterrows():
        narrow = row["share"] < 6  # too narrow for its number, which then stands beside it
        axis.text(row["share"] + 1 if narrow else 1, i, f"{row['target']}", va="center", ha="left", fontsize=SMALL,
                  bbox=dict(boxstyle="square,pad=0.05", facecolor="white", edgecolor="none") if narrow else None)
        axis.text(101, i, f"{row['reference_1']}", va="center", ha="left", fontsize=SMALL)
    axis.axvline(50, color="black", linewidth=0.8, linestyle=":")
    labels = [drawable(skill.replace("_", " "), 60) + (" *" if p < 0.05 else "")
              for skill, p in zip(table["skill"], table["p"], strict=True)]
    axis.set(yticks=y, yticklabels=labels, xlim=(0, 106), ylim=(-0.6, max(len(table), 1) - 0.4),
             xlabel="share of the skill's failures (%); numbers: failed items")
    axis.tick_params(axis="y", labelsize=SMALL)
    axis.set_title("Failures of the two models by skill, on the same held-out items", pad=20)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
    note = "* the models differ (exact McNemar test, p < 0.05)"
    if silent:
        note += "\n" + textwrap.fill(drawable("no failure of either: " + ", ".join(silent).replace("_", " "), 2000), 110)
    axis.annotate(note, (0, 0), (0, -30), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL, va="top")
    return figure


@styled
def fig_search_success(search: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Search success of each auditor with its interval, its ceiling, and the paper's values.

    If failures cannot be verified, the share of disagreements is shown instead, with a label that states it. Values that `paper`
    lacks are left out.
    """
    search = overall(search)
    search = search[~search["auditor"].str.fullmatch(MILESTONES)].reset_index(drop=True)
    verified = search["verified_failures"].notna().all()
    estimates = measures.rates(search, verified)
    figure = blank(PAGE, 3.8)
    axis = figure.add_subplot()
    x = np.arange(len(search))
    bars(axis, x, estimates, list(search["auditor"]), width=0.6)
    if verified and search["ceiling"].notna().all():
        for place, ceiling in zip(x, search["ceiling"], strict=True):
            axis.hlines(100 * ceiling, place - 0.38, place + 0.38, color=OKABE["red"], linestyle="--", linewidth=1.5,
                        label="ceiling: pictures with a failing question" if place == 0 else None)
    series = {"prompt_only": "prompt-only auditor", "trained": "AuditDM"}
    printed = paper[paper["item"] == "search_success"].set_index("series")["value"]
    for place, auditor in zip(x, search["auditor"], strict=True):
        if verified and (value := printed.get(series.get(auditor))) is not None:
            axis.plot(place + 0.36, value, "D", color="black", markersize=6, clip_on=False, zorder=4,
                      label="the paper (other models and pictures)" if auditor == "trained" else None)
            axis.annotate(f"{value:.1f}", (place + 0.36, value), (7, 0), textcoords="offset points", va="center",
                          fontsize=SMALL)
    calls = [f"{n:,} calls" + (f"\n+ {t:,}\nin training" if t else "")
             for n, t in zip(search["probing_calls"].astype(int), search["training_calls"].astype(int), strict=True)]
    names = [LABEL.get(a, f"{a.replace('_', ' ')},\nprompt-only") for a in search["auditor"]]
    axis.set(xticks=x, xticklabels=[f"{a}\n{c}" for a, c in zip(names, calls, strict=True)],
             xlim=(-0.6, len(search) - 0.2), ylim=(0, 118), yticks=range(0, 101, 20),
             ylabel="verified failures per attempt (%)" if verified else "disagreements per attempt, not verified (%)")
    axis.set_title("Search success: how often one probe exposes the target" if verified else
                   "How often the target disagrees with the consensus of the references", pad=20)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@styled
def fig_kinds(search: pd.DataFrame) -> Figure:
    """Search success of the untrained and the trained auditor by kind of probe, with intervals."""
    search = search[search["auditor"].isin(["prompt_only", "trained"])]
    kinds = [kind for kind in ("question", "regeneration", "edit") if kind in set(search["kind"])]
    figure = blank(5.4, 3.4)
    axis = figure.add_subplot()
    for shift, auditor in [(-0.2, "prompt_only"), (0.2, "trained")]:
        rows = search[search["auditor"] == auditor].set_index("kind").reindex(kinds)
        counted = "verified_failures" if rows["verified_failures"].notna().all() else "disagrees"
        estimates = measures.rates(rows, counted == "verified_failures")
        bars(axis, np.arange(len(kinds)) + shift, estimates, [auditor] * len(kinds), width=0.38)
        axis.containers[-2][0].set_label(LABEL[auditor].replace("\n", " "))
    names = {"question": "question about\nthe picture", "regeneration": "question about one\nfrom a caption",
             "edit": "question about\nan edited picture"}
    axis.set(xticks=range(len(kinds)), xticklabels=[names[kind] for kind in kinds], ylim=(0, 112), yticks=range(0, 101, 20),
             ylabel=f"{COUNTED[counted]} per attempt (%)")
    axis.set_title(f"{COUNTED[counted].capitalize()} by kind of probe" if counted == "disagrees" else
                   "Search success by kind of probe", pad=20)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@styled
def fig_coverage(search: pd.DataFrame, hits: pd.DataFrame) -> Figure:
    """Search success and coverage by checkpoint over the target calls used in training, for the kit's auditor and plain GRPO.

    Coverage is the share of planted gaps with at least OFTEN verified failures among an auditor's probes.
    """
    asked = overall(search).set_index("auditor").rename(columns={"training_calls": "calls"})
    asked[["success", "low", "high"]] = np.array(measures.rates(asked))
    asked["coverage"] = 100 * hits.assign(covered=hits["hits"] >= OFTEN).groupby("auditor")["covered"].mean()
    lines = {"trained": ("self-imitation, then GRPO (trained)", r"prompt_only|imitation|step_\d+|trained"),
             "plain_grpo": ("plain GRPO (Equation 1)", r"prompt_only|plain_\d+|plain_grpo")}
    figure = blank(PAGE, 3.2)
    for axis, (column, title) in zip(figure.subplots(1, 2), [
            ("success", "Search success"), ("coverage", f"Planted gaps found at least {OFTEN} times")], strict=True):
        for name, (label, pattern) in lines.items():
            rows = asked[asked.index.str.fullmatch(pattern)].sort_values("calls")
            axis.plot(rows["calls"] / 1000, rows[column], "o-" if name == "trained" else "s--", color=COLOUR[name], label=label,
                      markersize=4)
            if column == "success":
                axis.fill_between(rows["calls"] / 1000, rows["low"], rows["high"], color=COLOUR[name], alpha=0.2, linewidth=0)
        if "union" in asked.index:
            axis.plot(asked.loc["union", "calls"] / 1000, asked.loc["union", column], "D", color=OKABE["yellow"],
                      markeredgecolor="#333333", label="union of the checkpoints")
        axis.set(title=title, xlabel="calls of the target in training (thousands)", ylim=(0, 105), yticks=range(0, 101, 20),
                 ylabel=f"{'verified failures per attempt' if column == 'success' else 'share of the planted gaps'} (%)")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def fig_categories(categories: pd.DataFrame, most: int = 20, verified: bool = True) -> Figure:
    """Sizes of the `most` largest failure types by name, with one example each; called suspicions where nothing was verified."""
    table = categories.head(most).iloc[::-1].reset_index(drop=True)
    figure = blank(PAGE, 1.1 + 0.34 * max(len(table), 1))
    axis = figure.add_subplot()
    axis.barh(range(len(table)), table["size"], 0.62, color=OKABE["blue"])
    labels = []
    for i, row in table.iterrows():
        axis.annotate(f"{row['size']:,}", (row["size"], i), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
        example = (f"“{drawable(row['example_question'], 34)}” {'right' if verified else 'references'}: "
                   f"{drawable(row['example_consensus'], 12)}, target: {drawable(row['example_target'], 12)}")
        labels.append(f"{drawable(row['name'], 62)}\n{example}")
    axis.set_yticks(range(len(table)), labels, fontsize=SMALL)
    axis.set(xlabel="failures (probes)" if verified else "suspicions (probes)",
             xlim=(0, 1.2 * max([1, *table["size"]])), ylim=(-0.6, max(len(table), 1) - 0.4))
    axis.set_title(f"{'Failure types' if verified else 'Types of suspicion'} found, each with an example")
    if table.empty:
        axis.text(0.5, 0.5, f"no {'failure type' if verified else 'type of suspicion'} was found", ha="center",
                  transform=axis.transAxes)
    left_out = len(categories) - len(table)
    if left_out:
        axis.annotate(f"and {left_out} smaller types", (0.98, 0.04), xycoords="axes fraction", ha="right",
                      fontsize=SMALL)
    return figure


@styled
def fig_cost(search: pd.DataFrame) -> Figure:
    """Calls of the target, training included, that a given number of failures costs: shows when the training pays off.

    Each auditor with failures has one line: training_calls plus, per failure, its probing_calls divided by its failures. If
    failures cannot be verified, disagreements are counted. Best of n has no line, as it makes prompt-only probes at the same
    cost.
    """
    search = overall(search)
    search = search[~search["auditor"].str.fullmatch(rf"{MILESTONES}|best_of_\d+")]
    counted = "verified_failures" if search["verified_failures"].notna().all() else "disagrees"
    figure = blank(5.4, 3.6)
    axis = figure.add_subplot()
    wanted = np.geomspace(10, 100_000, 100)
    for row in search[search[counted] > 0].itertuples():
        each = row.probing_calls / getattr(row, counted)
        name = LABEL.get(row.auditor, row.auditor.replace("_", " ")).replace("\n", " ")
        training = f" after {row.training_calls:,.0f} in training" if row.training_calls else ""
        axis.plot(wanted, row.training_calls + each * wanted, LINE.get(row.auditor, "-"),
                  color=COLOUR.get(row.auditor, OKABE["yellow"]),
                  label=f"{name}: {each:.1f} per {COUNTED[counted].split()[-1].removesuffix('s')}{training}")
    axis.set(xscale="log", yscale="log", xlabel=f"number of {COUNTED[counted]}", ylabel="calls of the target")
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_title(f"Calls of the target for a number of {COUNTED[counted].split()[-1]}")
    if axis.lines:
        axis.legend(fontsize=SMALL, loc="upper left", handlelength=3)
    else:
        axis.text(0.5, 0.5, f"no {COUNTED[counted].removesuffix('s')}", ha="center", transform=axis.transAxes)
    return figure


@styled
def fig_training(history: pd.DataFrame) -> Figure:
    """The auditor's training over calls of the target: shares of disagreements, of invalid probes, of probes without a
    consensus, and of distinct probes.

    A point is a round of self-imitation. A line shows the GRPO steps of one kind of probe (each step has one kind) as a running
    mean over a tenth of them.
    """
    history = history[history["phase"] != "plain"]
    spent = history.groupby("phase", sort=False)["target_calls"].max().shift(fill_value=0).cumsum()
    calls = (history["target_calls"] + history["phase"].map(spent)) / 1000
    panels = dict(disagrees="Disagreements", invalid="Invalid probes", no_consensus="Probes without consensus",
                  distinct="Distinct probes")
    looks = {"all": (OKABE["black"], "-"), "question": (OKABE["blue"], "-"), "regeneration": (OKABE["purple"], ":"),
             "edit": (OKABE["orange"], "--")}
    figure = blank(PAGE, 4.4)
    axes = figure.subplots(2, 2).ravel()
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for (phase, kind), rows in history.groupby(["phase", "kind"], sort=False):
            window = 1 if phase == "imitation" else max(1, len(rows) // 10)
            values = 100 * rows[column].rolling(window, min_periods=1).mean()
            colour, line = looks[kind]
            axis.plot(calls[rows.index], values, "o--" if phase == "imitation" else line, color=colour, markersize=4,
                      linewidth=1.3, label="self-imitation" if phase == "imitation" else f"GRPO, {kind.replace('all', 'probe')}s")
        axis.set(title=title, xlabel="calls of the target (thousands)", ylabel="share of probes (%)",
                 xlim=(0, None), ylim=(0, max(axis.get_ylim()[1], 10)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def fig_probes(failures: pd.DataFrame, pictures: Path | Shown, columns: int = 5, rows: int = 2, verified: bool = True) -> Figure:
    """Example failures: the picture, the question, the consensus and the target's answer.

    First one example of each failure type, the largest types first, then further ones. `pictures` are those that the column
    `image` names: a folder, or `Shown`, which draws them large where it can; then the last place shows one as the models saw it.
    """
    typed = failures[failures["category"] >= 0]
    turn = typed.groupby("category").cumcount()
    shown = typed.assign(turn=turn).sort_values(["turn", "category"], kind="stable").head(columns * rows)
    coarse = next((name for name in shown["image"] if pictures.is_large(name)), None) if isinstance(pictures, Shown) else None
    shown = shown.head(columns * rows - (coarse is not None))
    figure = blank(PAGE / 5 * columns, (PAGE / 5 + 0.95) * rows + 0.5)
    figure.suptitle(f"{'Failures found by the audit' if verified else 'Suspicions'}: the references agree, the target disagrees",
                    fontweight="bold", fontsize=9)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid:
        axis.axis("off")
    if shown.empty:
        figure.text(0.5, 0.5, f"no {'failure type' if verified else 'type of suspicion'} was found", ha="center")
    for axis, row in zip(grid, shown.itertuples(), strict=False):
        axis.imshow(opened(pictures, row.image))
        asked = textwrap.wrap(drawable(row.question, 70), 23, max_lines=3, placeholder=" …")
        axis.set_title("\n".join(asked), fontsize=SMALL, fontweight="normal")
        for y, who, answer, colour, weight in [(-0.05, "references", row.consensus, "#00573F", "normal"),
                                               (-0.17, "target", row.target_answer, "#9A3700", "bold")]:
            axis.text(0.5, y, drawable(f"{who}: {answer}", 23), transform=axis.transAxes, ha="center", va="top", fontsize=SMALL,
                      color=colour, fontweight=weight)
    if coarse is not None:
        small = seen(pictures.folder / coarse)
        grid[len(shown)].imshow(small, interpolation="nearest")
        which = 1 + shown["image"].tolist().index(coarse)
        said = f"picture {which} as the models\nsee it, {small.width} × {small.height} pixels"
        grid[len(shown)].set_title(said, fontsize=SMALL, fontweight="normal")
    return figure
