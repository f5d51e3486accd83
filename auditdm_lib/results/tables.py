"""The tables of a run, as data frames and as csv and tex files."""

from pathlib import Path

import pandas as pd
from scipy.stats import norm

from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate.scores import GAP_ITEMS, headlines, held_out
from auditdm_lib.results import measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import with_interval
from auditdm_lib.results.paper_style import rows_of
from auditdm_lib.shown import one_line, write_csv
from auditdm_lib.stats import Estimate, proportion

PAPER_ARMS = {"prompt_only": "prompt-only auditor", "trained": "AuditDM"}  # the paper's names of two of a run's auditors


def all_tables(run: Artefacts, values: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All tables of this run by file name; that of the planted gaps only if gaps were planted, those about pairs of pictures only
    if pictures were drawn. `values` is figures/paper_values.csv."""
    tables = {"table_scores": scores(run.items), "table_search": search(run.search, values),
              "table_assumptions": assumptions(run.search), "table_categories": categories(run.categories)}
    if run.gaps is not None and run.hits is not None:
        tables["table_gaps"] = gaps(run.gaps, run.hits, run.categories)
    if run.benchmarks is not None:
        tables["table_benchmarks"] = benchmarks(run.benchmarks)
    about_drawings = {"table_flips": (flips, run.flips), "table_survival": (survival, run.survival),
                      "table_drawer": (drawer, run.faults), "table_pairings": (pairings, run.pairings)}
    return tables | {name: made(table) for name, (made, table) in about_drawings.items() if table is not None and len(table)}


def write(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write `name`.csv, safe to open in a spreadsheet, and `name`.tex. The same table gives the same bytes."""
    write_csv(table, folder / f"{name}.csv")
    shown = table.map(lambda cell: one_line(cell) if isinstance(cell, str) else cell)
    text = shown.to_latex(index=False, escape=True, na_rep="--", float_format="%.2f")
    (folder / f"{name}.tex").write_text(text, encoding="utf-8")


def scores(items: pd.DataFrame) -> pd.DataFrame:
    """The headline score of each suite in percent with its interval: one row per model, one column per suite, then their
    average and the gap items, which held-out questions have not."""
    rows = []
    for model in items["model"].unique():
        row = {"model": model}
        for suite, estimate in headlines(items, model).items():
            if suite != GAP_ITEMS:
                row[suite] = with_interval(measures.percent(estimate))
        if not held_out(items):
            row["average of suites"] = with_interval(measures.suite_average(items, model))
            row[GAP_ITEMS] = with_interval(measures.gap_score(items, model))
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["model"])


def benchmarks(table: pd.DataFrame) -> pd.DataFrame:
    """The scores that lmms-eval computed, in its units, with the interval of its standard error by the normal approximation (none
    where it gives none, or 0): one row per task and metric, one column per model."""
    reach = norm.ppf(0.975) * table["stderr"]
    low, high = table["score"] - reach, table["score"] + reach
    shown = [f"{s:.4g} [{a:.4g}, {b:.4g}]" if b > a else f"{s:.4g}" for s, a, b in zip(table["score"], low, high, strict=True)]
    out = table.assign(shown=shown).pivot(index=["task", "metric", "n"], columns="model", values="shown")
    return out[list(table["model"].unique())].reset_index().rename_axis(columns=None)


def search(table: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Search success in percent with the paper's beside it (other models and pictures), the other outcomes of the attempts, and
    the cost in calls of the target."""
    out = table[["auditor", "kind", "attempts", "invalid", "no_consensus", "disagrees", "verified_failures"]].copy()
    out["success % [95 % interval]"] = [
        "" if pd.isna(rate.value) else with_interval(rate) for rate in measures.rates(table)]
    out["ceiling %"] = (100 * table["ceiling"]).round(1)
    found = table["verified_failures"].where(table["verified_failures"] > 0)
    out["calls per failure"] = (table["probing_calls"] / found).round(1)
    whole = table.index.isin(overall(table.reset_index())["index"])  # a training covers all kinds of probe
    printed = rows_of(values, "search_success").set_index("series")["value"]
    out["the paper's success %"] = table["auditor"].map(PAPER_ARMS).map(printed).where(whole)
    out["with training"] = ((table["probing_calls"] + table["training_calls"]) / found).where(whole).round(1)
    return out.join(table[["gaps_found", "probing_calls", "training_calls"]])


def assumptions(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's two assumptions, in percent: a probe with a consensus has an answer; if the target disagrees with the
    consensus, it is rarely right. The columns are empty where the truth is unknown."""
    out = table[["auditor", "kind", "consensus_probes", "disagrees"]].copy()
    for name, part, whole in [("answerable %", "consensus_answerable", "consensus_probes"),
                              ("target alone is right %", "label_noise", "disagreements_known")]:
        out[f"{name} [95 % interval]"] = [
            "" if pd.isna(k) or not n else with_interval(measures.percent(proportion(int(k), int(n))))
            for k, n in zip(table[part], table[whole], strict=True)]
    return out


def gaps(grading: pd.DataFrame, hits: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    """Each planted gap: verified failures by auditor, clustered failures, and the failure type that matches it best."""
    counts = hits.pivot(index="gap", columns="auditor", values="hits")[list(hits["auditor"].unique())]
    table = counts.add_prefix("hits ").reset_index().merge(grading, on="gap", how="left")
    table["failures"] = table["failures"].fillna(0).astype(int)
    table["category"] = table["category"].map(categories.set_index("category")["name"]).fillna("none")
    table["own_category"] = table["own_category"].map({True: "yes", False: "no"}).fillna("no")
    table = table.sort_values(["failures", "gap"], ascending=[False, True]).round(3)
    return table.rename(columns={"category": "best failure type", "own_category": "its own"})


def categories(table: pd.DataFrame) -> pd.DataFrame:
    """The failure types, largest first: name, size, share of all failures in percent, an example."""
    out = table[["name", "size"]].copy()
    out["share %"] = (100 * table["share"]).round(1)
    return out.join(table[["example_question", "example_consensus", "example_target"]])


def flips(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of an original and a drawn picture on which all other members are right: how often each member is right on both, on
    one, on none, and its share of flips among those right on the original, in percent."""
    out = table[["auditor", "kind", "member", "pairs"]].copy()
    out[["right on both", "right, then wrong", "wrong, then right", "wrong on both"]] = table[
        ["n_right_right", "n_right_wrong", "n_wrong_right", "n_wrong_wrong"]]
    out["flips % [95 % interval]"] = _shares(table, "flips")
    out["p (exact McNemar)"] = [f"{p:.2g}" for p in table["p"]]
    return out


def survival(table: pd.DataFrame) -> pd.DataFrame:
    """Disagreements on drawn pictures whose picture was made in another way, and the share that is there again, in percent."""
    out = table[["auditor", "kind", "version", "disagreements", "rejected", "asked", "survived"]].copy()
    return out.assign(**{"survived % [95 % interval]": _shares(table, "survival")})


def drawer(table: pd.DataFrame) -> pd.DataFrame:
    """Success with drawn pictures, in percent, by what is counted as one (see `audit.pairs.drawer_fault`)."""
    out = table[["auditor", "kind", "measure", "successes", "n"]].copy()
    return out.assign(**{"share % [95 % interval]": _shares(table, "share")})


def pairings(table: pd.DataFrame) -> pd.DataFrame:
    """Search success in percent by auditor and pairing of question and picture."""
    out = table[["auditor", "pairing", "attempts", "disagrees", "verified_failures", "verifiable"]].copy()
    return out.assign(**{"success % [95 % interval]": _shares(table, "success")})


def _shares(table: pd.DataFrame, name: str) -> list[str]:
    """A share (0-1) of each row in percent with its interval."""
    return [with_interval(measures.percent(Estimate(*row))) for row in table[[name, "ci_low", "ci_high"]].itertuples(index=False)]
