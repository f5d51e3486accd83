"""Which claims of the paper this run reproduces: each a measurement with its interval and a predicate over it.

Shares and scores are in percent, differences in percentage points. Intervals are 95 %; a count has an interval of no
width, except where a claim's text says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from auditdm_lib import stats
from auditdm_lib.evaluate import scores
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.stats import Estimate

HOLDS, FAILS, NOT_TESTED = "holds", "does not hold", "not tested"
COLUMNS = ["claim", "paper_value", "run_value", "ci_low", "ci_high", "verdict", "reads"]


@dataclass(frozen=True)
class Artefacts:
    """The tables of a run that figures, tables, claims and the report read; null where the run has no such file."""

    history: pd.DataFrame  # 01_auditor/history.csv
    probes: pd.DataFrame  # 02_probes/probes.parquet
    search: pd.DataFrame  # 02_probes/search.csv
    hits: pd.DataFrame | None  # 02_probes/gap_hits.csv, where gaps were planted
    failures: pd.DataFrame  # 03_taxonomy/failures.parquet (probe_id, category) with the probes' columns
    categories: pd.DataFrame  # 03_taxonomy/categories.csv
    gaps: pd.DataFrame | None  # 03_taxonomy/grading.csv, testbed only
    agreement: pd.DataFrame | None  # 03_taxonomy/agreement.csv, testbed only
    items: pd.DataFrame  # 05_scores/items.parquet


def load(auditor: Path, probes: Path, taxonomy: Path, scores: Path) -> Artefacts:
    """Read the artefacts from the folders of stages 01, 02, 03 and 05."""
    def testbed_only(path: Path) -> pd.DataFrame | None:
        return pd.read_csv(path) if path.exists() else None

    asked = pd.read_parquet(probes / "probes.parquet")
    clustered = pd.read_parquet(taxonomy / "failures.parquet")
    return Artefacts(
        history=pd.read_csv(auditor / "history.csv"), probes=asked,
        search=pd.read_csv(probes / "search.csv"), hits=testbed_only(probes / "gap_hits.csv"),
        failures=clustered.merge(asked, on="probe_id", validate="one_to_one"),
        categories=pd.read_csv(taxonomy / "categories.csv", keep_default_na=False),  # "None" is an answer
        gaps=testbed_only(taxonomy / "grading.csv"), agreement=testbed_only(taxonomy / "agreement.csv"),
        items=pd.read_parquet(scores / "items.parquet"))


class NotTested(Exception):
    """Why this run says nothing about a claim."""


@dataclass(frozen=True)
class Claim:
    """`measure` gives the run's value or raises NotTested; `holds` judges its interval; `paper` is the paper's value."""

    text: str
    reads: str
    measure: Callable[[Artefacts], Estimate]
    holds: Callable[[Estimate, Artefacts], bool] = lambda estimate, run: False
    paper: Callable[[pd.DataFrame], float] = lambda values: np.nan


def evaluate(run: Artefacts, paper: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The claims table (COLUMNS), one row a claim, rounded to three decimals.

    `paper` is figures/paper_values.csv. Raises RuntimeError where the profile must test a claim and the run cannot.
    """
    rows = []
    for name, claim in CLAIMS.items():
        try:
            estimate, reads = claim.measure(run), claim.reads
            verdict = HOLDS if claim.holds(estimate, run) else FAILS
        except NotTested as reason:
            if name in MUST_TEST.get(profile, ()):
                raise RuntimeError(f"The profile {profile!r} must test “{claim.text}”, but {reason}.") from None
            estimate, verdict, reads = Estimate(np.nan, np.nan, np.nan), NOT_TESTED, f"{claim.reads}: {reason}"
        rows.append((claim.text, claim.paper(paper), *estimate, verdict, reads))
    return pd.DataFrame(rows, columns=COLUMNS).round(3)


# What is measured

def percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * x for x in estimate))


def exactly(count: float) -> Estimate:
    return Estimate(count, count, count)


def overall(search: pd.DataFrame) -> pd.DataFrame:
    """One row an auditor of search.csv: that of all kinds of probes together, or of the only kind."""
    return search[(search["kind"] == "all") | ~search["auditor"].duplicated(keep=False)].reset_index(drop=True)


def _found(run: Artefacts, auditor: str, kind: str | None = None) -> tuple[int, int]:
    row = _attempts(run, auditor, kind)
    if pd.isna(row["verified_failures"]):
        raise NotTested("it needs the truth or a verifier, and these pictures have neither")
    return int(row["verified_failures"]), int(row["attempts"])


def _attempts(run: Artefacts, auditor: str, kind: str | None = None) -> pd.Series:
    rows = run.search if kind else overall(run.search)
    rows = rows[(rows["auditor"] == auditor) & (rows["kind"] == (kind or rows["kind"]))]
    if rows.empty:
        raise NotTested(f"no {kind or ''} probes of the {auditor} auditor")
    return rows.iloc[0]


def _share(run: Artefacts, of: str, among: str) -> Estimate:
    row = _attempts(run, "trained")
    if pd.isna(row[of]) or not row[among]:
        raise NotTested("it needs the truth" if pd.isna(row[of]) else f"no probe counts as {among}")
    return percent(stats.proportion(int(row[of]), int(row[among])))


def _valid(run: Artefacts) -> Estimate:
    row = _attempts(run, "prompt_only", "question")
    return percent(stats.proportion(int(row["attempts"] - row["invalid"]), int(row["attempts"])))


def _gaps_hit(run: Artefacts) -> Estimate:
    hits = _known(run.hits)
    hits = hits[hits["auditor"] == "trained"]
    return exactly(100 * float((hits["hits"] > 0).mean()))


def _lone_gap(run: Artefacts, auditor: str) -> pd.Series:
    hits = _known(run.hits)
    if hits["gap"].nunique() != 1:
        raise NotTested("this target has several planted gaps")
    return hits[hits["auditor"] == auditor].iloc[0]


def _reach(run: Artefacts) -> Estimate:
    row = _lone_gap(run, "trained")
    if not row["can_show"]:
        raise NotTested("none of the pictures can show the gap")
    return percent(stats.proportion(int(row["found_in"]), int(row["can_show"])))


def _lone_ratio(run: Artefacts) -> Estimate:
    found = [(int(_lone_gap(run, a)["hits"]), int(_attempts(run, a)["attempts"])) for a in ("trained", "prompt_only")]
    return stats.ratio(*found[0], *found[1])


def _known(table: pd.DataFrame | None) -> pd.DataFrame:
    if table is None or table.empty:
        raise NotTested("no gaps were planted in this target, or none was met")
    return table


def _ari(run: Artefacts) -> Estimate:
    row = _known(run.agreement).iloc[0]
    if pd.isna(row["ari"]):
        raise NotTested("failures of fewer than two planted gaps were found")
    return Estimate(row["ari"], row["ari_low"], row["ari_high"])


def _own_category(run: Artefacts) -> Estimate:
    gaps = _known(run.gaps)
    gaps = gaps[gaps["failures"] >= 20]
    if gaps.empty:
        raise NotTested("no planted gap has 20 failures")
    return exactly(100 * float(gaps["own_category"].mean()))


def pairs(items: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Two models' marks on the same items: one row an item, columns suite, skill, gap and bool columns a and b."""
    table = items[items["model"].isin([a, b])].pivot(index=["suite", "item"], columns="model", values="correct")
    if a not in table or b not in table:
        raise NotTested(f"{a} and {b} were not both scored")
    about = items.drop_duplicates(["suite", "item"]).set_index(["suite", "item"])
    about = about.reindex(columns=["skill", "gap"])
    return table.astype(bool).join(about).reset_index()


def suite_average(items: pd.DataFrame, model: str) -> Estimate:
    """Mean over the suites of each one's own score, gap items left out (Figure 2), in percent."""
    return percent(scores.average(items, model))


def gap_score(items: pd.DataFrame, model: str) -> Estimate:
    """Accuracy on the held-out items inside planted gaps, in percent; NaN where there are none."""
    marks = items[(items["model"] == model) & (items["suite"] == GAP_ITEMS)]["correct"]
    return percent(stats.proportion(int(marks.sum()), len(marks)))


def _average_gain(run: Artefacts, a: str, b: str) -> Estimate:
    rows = pairs(run.items, a, b)
    suites = rows[rows["suite"] != GAP_ITEMS].groupby("suite", sort=True)
    if not len(suites):
        raise NotTested("no suite was scored")
    return percent(stats.average([stats.paired_difference(part[a], part[b]) for _, part in suites]))


def _gap_gain(run: Artefacts, a: str, b: str) -> Estimate:
    rows = pairs(run.items, a, b)
    rows = rows[rows["suite"] == GAP_ITEMS]
    if rows.empty:
        raise NotTested("no held-out items inside planted gaps")
    return percent(stats.paired_difference(rows[a], rows[b]))


def _outside_gaps(run: Artefacts) -> Estimate:
    rows = pairs(run.items, "rectified", "target")
    if rows["gap"].isna().all():
        raise NotTested("no gaps were planted in this target")
    rows = rows[(rows["suite"] != GAP_ITEMS) & rows["gap"].isna()]
    return percent(stats.paired_difference(rows["rectified"], rows["target"]))


def _lost(run: Artefacts) -> Estimate:
    rows = pairs(run.items, "rectified", "target")
    rows = rows[rows["target"] & (rows["suite"] != GAP_ITEMS)]
    if rows.empty:
        raise NotTested("the target had no item right")
    return percent(stats.proportion(int((~rows["rectified"]).sum()), len(rows)))


def failures_by_skill(items: pd.DataFrame) -> pd.DataFrame:
    """Failures of the target and of reference_1 on the same suite items by skill: target, reference_1, p (McNemar)."""
    rows = pairs(items, "target", "reference_1")
    rows = rows[rows["suite"] != GAP_ITEMS]
    table = [(skill, int((~part["target"]).sum()), int((~part["reference_1"]).sum()),
              stats.mcnemar_p(part["target"], part["reference_1"])) for skill, part in rows.groupby("skill", sort=True)]
    return pd.DataFrame(table, columns=["skill", "target", "reference_1", "p"])


def _sibling_worse(run: Artefacts) -> Estimate:
    table = failures_by_skill(run.items)
    if table.empty:
        raise NotTested("the items name no skills")
    more, clear = table["reference_1"] > table["target"], false_discovery_control(table["p"]) < 0.05
    less = table["reference_1"] < table["target"]
    return Estimate(int(more.sum()), int((more & clear).sum()), int((~(less & clear)).sum()))


def _untested(reason: str) -> Callable[[Artefacts], Estimate]:
    def measure(run: Artefacts) -> Estimate:
        raise NotTested(reason)
    return measure


# What the paper says

def _search(values: pd.DataFrame, series: str) -> float:
    return _printed(values, "search_success", series)


def _printed(values: pd.DataFrame, item: str, series: str) -> float:
    rows = values[(values["item"] == item) & (values["series"] == series)]
    if len(rows) != 1:
        raise KeyError(f"paper_values.csv has {len(rows)} rows of {item} for {series}, not one")
    return float(rows["value"].iloc[0])


def _fig2(values: pd.DataFrame, a: str, b: str) -> float:
    return _printed(values, "fig2_average", a) - _printed(values, "fig2_average", b)


def _worse_of_fifteen(values: pd.DataFrame) -> float:
    shares = values[(values["item"] == "fig4_failure_share") & (values["series"] == "PaliGemma2-28B")]["value"]
    return int((shares > 50).sum())


# The claims. An interval must lie wholly where the claim says, unless the text says "no sign".
_AUDITED = "PaliGemma2-3B + AuditDM"
CLAIMS = {
    "trained_above_prompt_only": Claim(
        "The trained auditor's search success is above the prompt-only auditor's (points)", "02_probes/search.csv",
        lambda run: percent(stats.difference(*_found(run, "trained"), *_found(run, "prompt_only"))),
        lambda e, run: e.low > 0, lambda v: _search(v, "AuditDM") - _search(v, "prompt-only auditor")),
    "three_times_prompt_only": Claim(
        "The trained auditor's search success is at least 3 times the prompt-only auditor's (ratio)", "02_probes/search.csv",
        lambda run: stats.ratio(*_found(run, "trained"), *_found(run, "prompt_only")),
        lambda e, run: e.low >= 3, lambda v: _search(v, "AuditDM") / _search(v, "prompt-only auditor")),
    "reaches_paper": Claim(
        "The trained auditor's search success reaches the paper's 91.1 % (the interval meets or passes it)",
        "02_probes/search.csv", lambda run: percent(stats.proportion(*_found(run, "trained"))),
        lambda e, run: e.high >= 91.1, lambda v: _search(v, "AuditDM")),
    "prompt_only_near_paper": Claim(
        "The prompt-only auditor's search success is within 10 points of the paper's 21.4 %", "02_probes/search.csv",
        lambda run: percent(stats.proportion(*_found(run, "prompt_only"))),
        lambda e, run: 11.4 <= e.low and e.high <= 31.4, lambda v: _search(v, "prompt-only auditor")),
    "prompt_only_valid": Claim(
        "At least 90 % of the prompt-only auditor's questions are valid (so the comparison is fair)", "02_probes/search.csv",
        _valid, lambda e, run: e.low >= 90),
    "prompt_only_not_below_random": Claim(
        "No sign that the prompt-only auditor's questions are below random valid ones (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *_found(run, "prompt_only", "question"), *_found(run, "random"))),
        lambda e, run: e.high >= 0),
    "gaps_hit": Claim(
        "At least half of the planted gaps are among the trained auditor's failures (% of the gaps)", "02_probes/gap_hits.csv",
        _gaps_hit, lambda e, run: e.low >= 50),
    "lone_gap_found": Claim(
        "A lone, rare gap is found in at least 60 % of the pictures that can show it (%)", "02_probes/gap_hits.csv", _reach,
        lambda e, run: e.low >= 60),
    "lone_gap_ratio": Claim(
        "The trained auditor finds a lone, rare gap at least 8 times as often as the prompt-only one (ratio)",
        "02_probes/gap_hits.csv", _lone_ratio, lambda e, run: e.low >= 8),
    "answerable": Claim(
        "Answerability: of the trained auditor's probes with a consensus at least 95 % have an answer (%)",
        "02_probes/search.csv", lambda run: _share(run, "consensus_answerable", "consensus_probes"),
        lambda e, run: e.low >= 95),
    "target_only_correct_is_rare": Claim(
        "Rarity of target-only-correct: in at most 5 % of the trained auditor's disagreements the target alone is right (%)",
        "02_probes/search.csv", lambda run: _share(run, "label_noise", "disagrees"), lambda e, run: e.high <= 5),
    "more_than_20_types": Claim(
        "The audit names more than 20 failure types (count)", "03_taxonomy/categories.csv",
        lambda run: exactly(len(run.categories)), lambda e, run: e.low > 20, lambda v: 20),
    "types_match_gaps": Claim(
        "The failure types match the planted gaps better than shuffled labels do (adjusted Rand index)",
        "03_taxonomy/agreement.csv", _ari, lambda e, run: e.low > run.agreement["shuffled_high"].iloc[0]),
    "gaps_own_category": Claim(
        "Three quarters of the planted gaps with 20 or more failures have a failure type of their own (%)",
        "03_taxonomy/grading.csv", _own_category, lambda e, run: e.low >= 75),
    "rectified_on_gaps": Claim(
        "Rectified beats target by at least 20 points on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: _gap_gain(run, "rectified", "target"), lambda e, run: e.low >= 20),
    "rectified_on_average": Claim(
        "Rectified beats target on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: _average_gain(run, "rectified", "target"), lambda e, run: e.low > 0,
        lambda v: _fig2(v, _AUDITED, "PaliGemma2-3B")),
    "rectified_above_sibling": Claim(
        "Rectified beats reference 1, in the place of the paper's 28B sibling, on the average of the suites (points, paired)",
        "05_scores/items.parquet (reference_1)", lambda run: _average_gain(run, "rectified", "reference_1"),
        lambda e, run: e.low > 0, lambda v: _fig2(v, _AUDITED, "PaliGemma2-28B")),
    "kept_outside_gaps": Claim(
        "Outside the planted gaps, rectified loses at most 1 point on the suites (change in points, paired)",
        "05_scores/items.parquet", _outside_gaps, lambda e, run: e.low >= -1),
    "lost_at_most_1": Claim(
        "Of the suite items that the target had right, rectified has at most 1 % wrong (%)", "05_scores/items.parquet",
        _lost, lambda e, run: e.high <= 1),
    "beats_control_on_gaps": Claim(
        "Audited data beat as much un-audited data on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: _gap_gain(run, "rectified", "control"), lambda e, run: e.low > 0),
    "beats_control_on_average": Claim(
        "Audited data beat as much un-audited data on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: _average_gain(run, "rectified", "control"), lambda e, run: e.low > 0),
    "sibling_worse_somewhere": Claim(
        "Reference 1, in the place of the 28B sibling, fails more than the target in some skills (count; interval: clearly "
        "more to not clearly less)",
        "05_scores/items.parquet (reference_1)", _sibling_worse, lambda e, run: e.low >= 1, _worse_of_fifteen),
    "sixteen_benchmarks": Claim(
        "Gains on all 16 benchmarks", "05_scores", _untested("the testbed's suites only have the benchmarks' formats")),
    "regeneration": Claim(
        "Pictures drawn from captions expose failures too: trained above prompt-only (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *_found(run, "trained", "regeneration"), *_found(run, "prompt_only", "regeneration"))), lambda e, run: e.low > 0),
    "editing": Claim(
        "Edited pictures expose failures too: trained above prompt-only (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *_found(run, "trained", "edit"), *_found(run, "prompt_only", "edit"))), lambda e, run: e.low > 0),
    "editing_above_regeneration": Claim(
        "The trained auditor finds more failures by editing than by regeneration (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *_found(run, "trained", "edit"), *_found(run, "trained", "regeneration"))), lambda e, run: e.low > 0),
    "gemma_above_12b": Claim(
        "Gemma3-4B with AuditDM beats Gemma3-12B on the average (points)", "05_scores",
        _untested("the target is of the PaliGemma2 family"), paper=lambda v: _fig2(v, "Gemma3-4B + AuditDM", "Gemma3-12B")),
    "shrinking_gap_over_rounds": Claim(
        "Auditing the rectified model again raises the score further", "04_rectified", _untested("this run audits once")),
}

# Which claims each profile must test; there, "not tested" stops the run.
_LONE = {"lone_gap_found", "lone_gap_ratio"}
_ALWAYS = {name for name in CLAIMS} - _LONE - {"sixteen_benchmarks", "gemma_above_12b", "shrinking_gap_over_rounds"}
MUST_TEST = {
    "testbed": _ALWAYS,
    "full": _ALWAYS,
    "needle": _LONE | {"trained_above_prompt_only", "gaps_hit", "answerable"},
    "smoke": _ALWAYS - {"gaps_own_category", "types_match_gaps", "target_only_correct_is_rare"},  # too few failures
}
