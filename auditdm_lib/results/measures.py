"""The measurements of a run: numbers with their 95 % intervals, computed from the tables in `artefacts`.

Shares and scores are in percent, differences in percentage points. NotTested is raised for what a run cannot measure.
"""

from collections.abc import Callable

import pandas as pd
from scipy.stats import false_discovery_control

from auditdm_lib import stats
from auditdm_lib.audit.probes import overall
from auditdm_lib.evaluate import scores
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.stats import Estimate


class NotTested(Exception):
    """The reason why this run cannot test a claim."""


def percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * x for x in estimate))


def exactly(count: float) -> Estimate:
    return Estimate(count, count, count)


def failures_of(run: Artefacts, auditor: str, kind: str | None = None) -> tuple[int, int]:
    row = attempts_of(run, auditor, kind)
    if pd.isna(row["verified_failures"]):
        raise NotTested("it needs the truth or a verifier, and these pictures have neither")
    return int(row["verified_failures"]), int(row["attempts"])


def attempts_of(run: Artefacts, auditor: str, kind: str | None = None) -> pd.Series:
    rows = run.search if kind else overall(run.search)
    rows = rows[(rows["auditor"] == auditor) & (rows["kind"] == (kind or rows["kind"]))]
    if rows.empty:
        raise NotTested(f"no {kind or ''} probes of the {auditor} auditor")
    return rows.iloc[0]


def share_of_trained(run: Artefacts, of: str, among: str) -> Estimate:
    row = attempts_of(run, "trained")
    if pd.isna(row[of]) or not row[among]:
        raise NotTested("it needs the truth" if pd.isna(row[of]) else f"no probe counts as {among}")
    return percent(stats.proportion(int(row[of]), int(row[among])))


def valid_questions(run: Artefacts) -> Estimate:
    row = attempts_of(run, "prompt_only", "question")
    return percent(stats.proportion(int(row["attempts"] - row["invalid"]), int(row["attempts"])))


def gaps_hit(run: Artefacts) -> Estimate:
    hits = known(run.hits)
    hits = hits[hits["auditor"] == "trained"]
    return exactly(100 * float((hits["hits"] > 0).mean()))


def lone_gap(run: Artefacts, auditor: str) -> pd.Series:
    hits = known(run.hits)
    if hits["gap"].nunique() != 1:
        raise NotTested("this target has several planted gaps")
    return hits[hits["auditor"] == auditor].iloc[0]


def lone_gap_reach(run: Artefacts) -> Estimate:
    row = lone_gap(run, "trained")
    if not row["can_show"]:
        raise NotTested("none of the pictures can show the gap")
    return percent(stats.proportion(int(row["found_in"]), int(row["can_show"])))


def lone_gap_ratio(run: Artefacts) -> Estimate:
    found = [(int(lone_gap(run, a)["hits"]), int(attempts_of(run, a)["attempts"])) for a in ("trained", "prompt_only")]
    return stats.ratio(*found[0], *found[1])


def known(table: pd.DataFrame | None) -> pd.DataFrame:
    if table is None or table.empty:
        raise NotTested("no gaps were planted in this target, or none was met")
    return table


def type_agreement(run: Artefacts) -> Estimate:
    row = known(run.agreement).iloc[0]
    if pd.isna(row["ari"]):
        raise NotTested("failures of fewer than two planted gaps were found")
    return Estimate(row["ari"], row["ari_low"], row["ari_high"])


def gaps_with_own_type(run: Artefacts) -> Estimate:
    gaps = known(run.gaps)
    gaps = gaps[gaps["failures"] >= 20]
    if gaps.empty:
        raise NotTested("no planted gap has 20 failures")
    return exactly(100 * float(gaps["own_category"].mean()))


def pairs(items: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The correctness of two models on the same items, one row per item: suite, skill, gap and bool columns a and b."""
    table = items[items["model"].isin([a, b])].pivot(index=["suite", "item"], columns="model", values="correct")
    if a not in table or b not in table:
        raise NotTested(f"{a} and {b} were not both scored")
    about = items.drop_duplicates(["suite", "item"]).set_index(["suite", "item"])
    about = about.reindex(columns=["skill", "gap"])
    return table.astype(bool).join(about).reset_index()


def suite_average(items: pd.DataFrame, model: str) -> Estimate:
    """The mean of the suites' headline scores without the gap items (Figure 2), in percent."""
    return percent(scores.average(items, model))


def gap_score(items: pd.DataFrame, model: str) -> Estimate:
    """Accuracy on the held-out items inside planted gaps, in percent; NaN if there are none."""
    marks = items[(items["model"] == model) & (items["suite"] == GAP_ITEMS)]["correct"]
    return percent(stats.proportion(int(marks.sum()), len(marks)))


def average_gain(run: Artefacts, a: str, b: str) -> Estimate:
    rows = pairs(run.items, a, b)
    suites = rows[rows["suite"] != GAP_ITEMS].groupby("suite", sort=True)
    if not len(suites):
        raise NotTested("no suite was scored")
    return percent(stats.average([stats.paired_difference(part[a], part[b]) for _, part in suites]))


def gap_gain(run: Artefacts, a: str, b: str) -> Estimate:
    rows = pairs(run.items, a, b)
    rows = rows[rows["suite"] == GAP_ITEMS]
    if rows.empty:
        raise NotTested("no held-out items inside planted gaps")
    return percent(stats.paired_difference(rows[a], rows[b]))


def change_outside_gaps(run: Artefacts) -> Estimate:
    rows = pairs(run.items, "rectified", "target")
    if rows["gap"].isna().all():
        raise NotTested("no gaps were planted in this target")
    rows = rows[(rows["suite"] != GAP_ITEMS) & rows["gap"].isna()]
    return percent(stats.paired_difference(rows["rectified"], rows["target"]))


def lost_share(run: Artefacts) -> Estimate:
    rows = pairs(run.items, "rectified", "target")
    rows = rows[rows["target"] & (rows["suite"] != GAP_ITEMS)]
    if rows.empty:
        raise NotTested("the target had no item right")
    return percent(stats.proportion(int((~rows["rectified"]).sum()), len(rows)))


def failures_by_skill(items: pd.DataFrame) -> pd.DataFrame:
    """Failures of the target and of reference_1 on the same suite items: skill, target, reference_1, p (exact McNemar test)."""
    rows = pairs(items, "target", "reference_1")
    rows = rows[rows["suite"] != GAP_ITEMS]
    table = [(skill, int((~part["target"]).sum()), int((~part["reference_1"]).sum()),
              stats.mcnemar_p(part["target"], part["reference_1"])) for skill, part in rows.groupby("skill", sort=True)]
    return pd.DataFrame(table, columns=["skill", "target", "reference_1", "p"])


def skills_where_sibling_is_worse(run: Artefacts) -> Estimate:
    """Number of skills in which reference_1 fails on more items than the target.

    The lower bound counts only the skills in which it fails significantly more often (McNemar, false discovery rate 5 %). The
    upper bound counts all skills except those in which it fails significantly less often.
    """
    table = failures_by_skill(run.items)
    if table.empty:
        raise NotTested("the items name no skills")
    more, clear = table["reference_1"] > table["target"], false_discovery_control(table["p"]) < 0.05
    less = table["reference_1"] < table["target"]
    return Estimate(int(more.sum()), int((more & clear).sum()), int((~(less & clear)).sum()))


def untested(reason: str) -> Callable[[Artefacts], Estimate]:
    def measure(run: Artefacts) -> Estimate:
        raise NotTested(reason)
    return measure
