"""A run's half of the paper's figures and tables of scores: what stage 05 wrote, in the form that `paper_figures` draws. No model
is loaded. The figures of failures are in `found_figures`.
"""

import re
import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib import paths, stats
from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate import scores
from auditdm_lib.results import paper_tables
from auditdm_lib.results.data_card import model_name
from auditdm_lib.results.measures import percent, with_interval
from auditdm_lib.results.paper_figures import EDGE, FAMILIES, by_size, fig_radar, roles
from auditdm_lib.results.paper_style import SMALL, how_sure, page, rows_of, save, styled
from auditdm_lib.run import manifest
from auditdm_lib.shown import drawable

METRICS = {"vqa_accuracy": "VQA accuracy", "exact_match": "accuracy", "anls": "ANLS", "relaxed_accuracy": "relaxed accuracy",
           "iou": "mean IoU", "cider_d": "CIDEr-D (100 % is 10)", "circular": "accuracy in all rotations",
           "mme": "MME score (100 % is 200 a task)", "accuracy": "accuracy"}
MEAN = "mean"
LOST = 1.0  # points: a suite that falls by more is lost
COLUMNS = ["profile", "arm", "seed", "budget", "examples", "target_calls", "measure", "score", "ci_low", "ci_high"]


def suite_scores(items: pd.DataFrame) -> pd.DataFrame:
    """The headline score of each model on each suite but the gap items, in percent, for fig_radar: series, category, value."""
    rows = [(model, suite, 100 * estimate.value) for model in items["model"].unique()
            for suite, estimate in scores.headlines(items, model).items() if suite != scores.GAP_ITEMS]
    return pd.DataFrame(rows, columns=["series", "category", "value"])


def benchmark_of(suite: str, benchmarks: list[str]) -> str | None:
    """The benchmark whose name begins as the suite's does ("seed-mini": "SEED-Bench-IMG"); None where not exactly one does."""
    def letters(name: str) -> str:
        return re.sub(r"\W", "", name.casefold())
    found = [name for name in benchmarks if letters(name).startswith(letters(suite.removesuffix("-mini")))]
    return found[0] if len(found) == 1 else None


def families(items: pd.DataFrame, values: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The items of each family of the paper all of whose eight benchmarks the run has a suite for, in the paper's order, with
    the column `benchmark`. `values` is figures/paper_values.csv."""
    found = {}
    for family, (item, _) in FAMILIES.items():
        benchmarks = list(rows_of(values, item)["category"].unique())
        named = {suite: benchmark_of(suite, benchmarks) for suite in items["suite"].unique()}
        mine = items.assign(benchmark=items["suite"].map(named)).dropna(subset="benchmark")
        if set(mine["benchmark"]) == set(benchmarks):
            found[family] = mine.sort_values("benchmark", key=lambda column: column.map(benchmarks.index), kind="stable")
    return found


def main_table(items: pd.DataFrame, values: pd.DataFrame, family: str) -> tuple[pd.DataFrame, str]:
    """A main table and its caption: each suite's score by model in percent of its metric's best, the gain of rectified over
    target with its interval (paired by group of items), and the paper's scores; last the mean of the suites.

    `items` are those of a family (see `families`). The gain is missing where nothing was rectified.
    """
    printed = rows_of(values, FAMILIES[family][0])
    papers = printed.pivot(index="category", columns="series", values="value")[by_size(printed["series"])]
    papers.loc[MEAN] = rows_of(values, "fig2_average").set_index("series")["value"]
    after = next(name for name in papers if "+ AuditDM" in name)
    papers["the paper's gain"] = papers[after] - papers[after.partition(" + ")[0]]
    models, by_model = list(items["model"].unique()), {}
    for model in models:
        by_model[model] = scores.headlines(items, model) | {MEAN: scores.average(items, model)}
    gains = _gains(items, "rectified", "target") if "rectified" in models else {}
    about, rows = items.drop_duplicates("suite").set_index("suite"), []
    for suite in (*about.index, MEAN):
        metric, benchmark = (METRICS[about.loc[suite, "metric"]], about.loc[suite, "benchmark"]) if suite != MEAN else ("", MEAN)
        row = {"suite": suite, "metric": metric} | {model: 100 * by_model[model][suite].value for model in models}
        row["gain [95 % interval]"] = with_interval(percent(gains[suite])) if suite in gains else ""
        rows.append(row | {"the paper's benchmark": benchmark} | dict(papers.loc[benchmark]))
    return pd.DataFrame(rows).round(2), (
        f"Left, this run: small models on drawn pictures; in the mean each suite counts the same. Right, the paper's {family} in "
        f"its own scales (its mean: {FAMILIES[family][1]}). Only the directions compare. {how_sure(printed)}")


def _gains(items: pd.DataFrame, a: str, b: str) -> dict[str, stats.Estimate]:
    """The score (0-1) of model `a` minus that of `b` on each suite, and their mean."""
    found = scores.gains(items, a, b)
    return found | {MEAN: stats.average(list(found.values()))}


def standing(items: pd.DataFrame, model: str = "rectified") -> pd.DataFrame:
    """A model against each other one on the same suites: the difference of the means in points with its interval, on how many
    suites it is ahead, and those on which it is behind by more than a point. No rows where the model was not scored."""
    rows = []
    for other in items["model"].unique():
        if model in set(items["model"]) and other != model:
            gains = {suite: percent(gain) for suite, gain in _gains(items, model, other).items()}
            mean = gains.pop(MEAN)
            lost = [f"{suite} ({with_interval(gain)})" for suite, gain in gains.items() if gain.value < -LOST]
            rows.append((other, *mean, sum(gain.value > 0 for gain in gains.values()), len(gains), "; ".join(lost)))
    return pd.DataFrame(rows, columns=[f"{model} minus", "difference", "ci_low", "ci_high", "ahead on", "suites",
                                       "behind by more than a point"]).round(2)


@styled
def fig2_family(items: pd.DataFrame, values: pd.DataFrame, family: str, note: str) -> Figure:
    """Figure 2 for a family: the mean of the eight suites by model with its interval, and beside it the paper's averages."""
    averages = rows_of(values, "fig2_average")
    printed, sure = averages[averages["series"].str.startswith(family)].set_index("series")["value"], how_sure(averages)
    figure = page(2.6, f"{note}. Left: means of suites in percent, with intervals; right: other models, tasks and scales. {sure}")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    means = {model: percent(scores.average(items, model)) for model in items["model"].unique()}
    looks = roles(list(means))
    for place, (model, (_, colour, hatch, *_)) in enumerate(looks.items()):
        value, low, high = means[model]
        left.bar(place, value, 0.7, color=colour, hatch=hatch, **EDGE)
        left.errorbar(place, value, [[value - low], [high - value]], fmt="none", ecolor="#222222", capsize=2.5, linewidth=0.9)
        left.annotate(f"{value:.1f}", (place, high), (0, 2), textcoords="offset points", ha="center", fontsize=7.5)
    left.set(title="this run: mean of 8 suites", ylabel="score (%)", xticks=range(len(looks)), ylim=(0, 118),
             yticks=range(0, 101, 20), xticklabels=[textwrap.fill(drawable(model.replace("_", " ")), 11) for model in looks])
    left.tick_params(axis="x", labelsize=SMALL)
    looks = roles(by_size(printed.index))
    for place, (series, (_, colour, hatch, *_)) in enumerate(looks.items()):
        right.bar(place, printed[series], 0.7, color=colour, hatch=hatch, **EDGE)
        right.annotate(f"{printed[series]:.1f}", (place, printed[series]), (0, 2), textcoords="offset points", ha="center",
                       fontsize=7.5)
    right.set(title=f"the paper: {family}", ylabel=f"score, {FAMILIES[family][1]}", xticks=range(len(looks)), ylim=(0, 118),
              yticks=range(0, 101, 20), xticklabels=[name.removeprefix(f"{family}-").replace(" + ", "\n+ ") for name in looks])
    return figure


def siblings(references: list[str]) -> dict[str, str]:
    """What to call the references: {"reference_1": "gemma3-m"}, with their number where two have one name."""
    names = [Path(model_name(path)).name for path in references]
    return {f"reference_{i}": name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, 1)}


def write(items: pd.DataFrame, values: pd.DataFrame, folder: Path, note: str, references: list[str]) -> dict[str, pd.DataFrame]:
    """Write the main table, the standing of the rectified model, Figure 2 and the radar chart of each family that the run has
    whole (see `families`) to `folder`; the tables by file name, none where no family is whole. `references` are the run's."""
    made = {}
    for family, mine in families(items.replace({"model": siblings(references)}), values).items():
        name = family.lower()
        main, caption = main_table(mine, values, family)
        paper_tables.write(main, caption, folder, f"table_{name}")
        above = standing(mine)
        paper_tables.write(above, f"The rectified model against each other one on the suites of {family}: the difference of the "
                           "means in points, with its interval at 95 %.", folder, f"table_{name}_standing")
        save(fig2_family(mine, values, family, note), folder, f"fig2_{name}")
        shown = suite_scores(mine[mine["model"] != "control"])  # as the paper's chart: before, after and the larger ones
        save(fig_radar(shown, f"The suites that stand for {family}'s benchmarks", f"{note}."), folder, f"fig_radar_{name}")
        made |= {f"table_{name}": main, f"table_{name}_standing": above}
    return made


def rows(run: str, values: pd.DataFrame) -> pd.DataFrame:
    """What a finished run adds to figures/reference/rectification.csv (COLUMNS): of each model the score of each suite of the
    families that it has whole, and their means, in percent; and of `rectified` the differences of the means to each other model.

    `examples` is the size of the set that the model was fine-tuned on, `target_calls` what the audits asked of the target, the
    auditor's training included (0 for models that no audit made, the control included; each further round of bootstrapping at
    most: one question of each of its pictures and its probes). Raises manifest.Stop where a stage is missing.
    """
    folders = {name: paths.result(run, name) for name in ("02_probes", "04_rectified", "05_scores")}
    records = {name: manifest.load(folder) for name, folder in folders.items()}
    items = pd.read_parquet(folders["05_scores"] / "items.parquet")
    sets = pd.read_csv(folders["04_rectified"] / "sets.csv").set_index("set")["examples"]
    rounds = pd.read_csv(folders["04_rectified"] / "rounds.csv").set_index("round")
    asked = overall(pd.read_csv(folders["02_probes"] / "search.csv")).set_index("auditor")
    calls = int(asked.loc["trained", ["probing_calls", "training_calls"]].sum())
    given = records["04_rectified"]["key"]["parameters"]
    for number in rounds.index[1:]:
        probes = pd.read_parquet(folders["04_rectified"] / "rounds" / str(number) / "probes.parquet", columns=["probe_id"])
        calls += given["imitation_rounds"] * given["imitation_pictures"] + len(probes)
    seed, found = records["05_scores"]["key"]["parameters"]["seed"], []
    of_suites = int(rounds["examples"].iloc[0] - sets["audited"])  # learned beside both sets
    learned = {"rectified": (int(rounds.loc[rounds["taken"], "examples"].iloc[0]), calls),
               "control": (int(sets["control"]) + of_suites, 0)}
    for family, mine in families(items, values).items():
        mean = f"{MEAN} of 8 suites, {family}"
        for model in mine["model"].unique():
            measured = {suite: percent(estimate) for suite, estimate in scores.headlines(mine, model).items()}
            measured[mean] = percent(scores.average(mine, model))
            if model != "rectified" and "rectified" in set(mine["model"]):
                measured[f"rectified minus this, {mean}"] = percent(_gains(mine, "rectified", model)[MEAN])
            examples, spent = learned.get(model, (0, 0))
            found += [(run, model, seed, f"{examples} examples", examples, spent, *row) for row in
                      ((name, *estimate) for name, estimate in measured.items())]
    return pd.DataFrame(found, columns=COLUMNS).round(3)
