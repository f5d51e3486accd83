"""Which claims of the paper this run reproduces. A claim is a measurement with an interval and a predicate on that interval.

Shares and scores are in percent, differences in percentage points. Intervals are 95 % confidence intervals. A count has an
interval of zero width, unless the text of the claim defines another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from auditdm_lib import stats
from auditdm_lib.results import measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import NotTested, exactly, failures_of, percent
from auditdm_lib.stats import Estimate

HOLDS, FAILS, NOT_TESTED = "holds", "does not hold", "not tested"
COLUMNS = ["claim", "paper_value", "run_value", "ci_low", "ci_high", "verdict", "reads"]


@dataclass(frozen=True)
class Claim:
    """`measure` returns the run's value or raises NotTested, `holds` decides from its interval, `paper` is the paper's value."""

    text: str
    reads: str
    measure: Callable[[Artefacts], Estimate]
    holds: Callable[[Estimate, Artefacts], bool] = lambda estimate, run: False
    paper: Callable[[pd.DataFrame], float] = lambda values: np.nan


def evaluate(run: Artefacts, paper: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The claims table (COLUMNS), one row per claim, rounded to three decimals.

    `paper` is figures/paper_values.csv. Raises RuntimeError if the profile must test a claim and the run cannot.
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


# Values printed in the paper

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


# The claims. One holds if its whole interval satisfies it, unless its text is weaker ("no sign", "meets or passes").
_AUDITED = "PaliGemma2-3B + AuditDM"
CLAIMS = {
    "trained_above_prompt_only": Claim(
        "The trained auditor's search success is above the prompt-only auditor's (points)", "02_probes/search.csv",
        lambda run: percent(stats.difference(*failures_of(run, "trained"), *failures_of(run, "prompt_only"))),
        lambda e, run: e.low > 0, lambda v: _search(v, "AuditDM") - _search(v, "prompt-only auditor")),
    "three_times_prompt_only": Claim(
        "The trained auditor's search success is at least 3 times the prompt-only auditor's (ratio)", "02_probes/search.csv",
        lambda run: stats.ratio(*failures_of(run, "trained"), *failures_of(run, "prompt_only")),
        lambda e, run: e.low >= 3, lambda v: _search(v, "AuditDM") / _search(v, "prompt-only auditor")),
    "reaches_paper": Claim(
        "The trained auditor's search success reaches the paper's 91.1 % (the interval meets or passes it)",
        "02_probes/search.csv", lambda run: percent(stats.proportion(*failures_of(run, "trained"))),
        lambda e, run: e.high >= 91.1, lambda v: _search(v, "AuditDM")),
    "prompt_only_near_paper": Claim(
        "The prompt-only auditor's search success is within 10 points of the paper's 21.4 %", "02_probes/search.csv",
        lambda run: percent(stats.proportion(*failures_of(run, "prompt_only"))),
        lambda e, run: 11.4 <= e.low and e.high <= 31.4, lambda v: _search(v, "prompt-only auditor")),
    "prompt_only_valid": Claim(
        "At least 90 % of the prompt-only auditor's questions are valid (so the comparison is fair)", "02_probes/search.csv",
        measures.valid_questions, lambda e, run: e.low >= 90),
    "prompt_only_not_below_random": Claim(
        "No sign that the prompt-only auditor's questions are below random valid ones (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *failures_of(run, "prompt_only", "question"), *failures_of(run, "random"))),
        lambda e, run: e.high >= 0),
    "gaps_hit": Claim(
        "At least half of the planted gaps are among the trained auditor's failures (% of the gaps)", "02_probes/gap_hits.csv",
        measures.gaps_hit, lambda e, run: e.low >= 50),
    "lone_gap_found": Claim(
        "A lone, rare gap is found in at least 60 % of the pictures that can show it (%)", "02_probes/gap_hits.csv",
        measures.lone_gap_reach, lambda e, run: e.low >= 60),
    "lone_gap_ratio": Claim(
        "The trained auditor finds a lone, rare gap at least 8 times as often as the prompt-only one (ratio)",
        "02_probes/gap_hits.csv", measures.lone_gap_ratio, lambda e, run: e.low >= 8),
    "answerable": Claim(
        "Answerability: of the trained auditor's probes with a consensus at least 95 % have an answer (%)",
        "02_probes/search.csv", lambda run: measures.share_of_trained(run, "consensus_answerable", "consensus_probes"),
        lambda e, run: e.low >= 95),
    "target_only_correct_is_rare": Claim(
        "Rarity of target-only-correct: in at most 5 % of the trained auditor's disagreements the target alone is right (%)",
        "02_probes/search.csv", lambda run: measures.share_of_trained(run, "label_noise", "disagrees"),
        lambda e, run: e.high <= 5),
    "more_than_20_types": Claim(
        "The audit names more than 20 failure types (count)", "03_taxonomy/categories.csv",
        lambda run: exactly(len(run.categories)), lambda e, run: e.low > 20, lambda v: 20),
    "types_match_gaps": Claim(
        "The failure types match the planted gaps better than shuffled labels do (adjusted Rand index)",
        "03_taxonomy/agreement.csv", measures.type_agreement, lambda e, run: e.low > run.agreement["shuffled_high"].iloc[0]),
    "gaps_own_category": Claim(
        "Three quarters of the planted gaps with 20 or more failures have a failure type of their own (%)",
        "03_taxonomy/grading.csv", measures.gaps_with_own_type, lambda e, run: e.low >= 75),
    "rectified_on_gaps": Claim(
        "Rectified beats target by at least 20 points on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: measures.gap_gain(run, "rectified", "target"), lambda e, run: e.low >= 20),
    "rectified_on_average": Claim(
        "Rectified beats target on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: measures.average_gain(run, "rectified", "target"), lambda e, run: e.low > 0,
        lambda v: _fig2(v, _AUDITED, "PaliGemma2-3B")),
    "rectified_above_sibling": Claim(
        "Rectified beats reference 1, in the place of the paper's 28B sibling, on the average of the suites (points, paired)",
        "05_scores/items.parquet (reference_1)", lambda run: measures.average_gain(run, "rectified", "reference_1"),
        lambda e, run: e.low > 0, lambda v: _fig2(v, _AUDITED, "PaliGemma2-28B")),
    "kept_outside_gaps": Claim(
        "Outside the planted gaps, rectified loses at most 1 point on the suites (change in points, paired)",
        "05_scores/items.parquet", measures.change_outside_gaps, lambda e, run: e.low >= -1),
    "lost_at_most_1": Claim(
        "Of the suite items that the target had right, rectified has at most 1 % wrong (%)", "05_scores/items.parquet",
        measures.lost_share, lambda e, run: e.high <= 1),
    "beats_control_on_gaps": Claim(
        "Audited data beat as much un-audited data on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: measures.gap_gain(run, "rectified", "control"), lambda e, run: e.low > 0),
    "beats_control_on_average": Claim(
        "Audited data beat as much un-audited data on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: measures.average_gain(run, "rectified", "control"), lambda e, run: e.low > 0),
    "sibling_worse_somewhere": Claim(
        "Reference 1, in the place of the 28B sibling, fails more than the target in some skills (count; interval: clearly "
        "more to not clearly less)",
        "05_scores/items.parquet (reference_1)", measures.skills_where_sibling_is_worse,
        lambda e, run: e.low >= 1, _worse_of_fifteen),
    "sixteen_benchmarks": Claim(
        "Gains on all 16 benchmarks", "05_scores", measures.untested("the testbed's suites only have the benchmarks' formats")),
    "regeneration": Claim(
        "Pictures drawn from captions expose failures too: trained above prompt-only (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *failures_of(run, "trained", "regeneration"), *failures_of(run, "prompt_only", "regeneration"))),
        lambda e, run: e.low > 0),
    "editing": Claim(
        "Edited pictures expose failures too: trained above prompt-only (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *failures_of(run, "trained", "edit"), *failures_of(run, "prompt_only", "edit"))), lambda e, run: e.low > 0),
    "editing_above_regeneration": Claim(
        "The trained auditor finds more failures by editing than by regeneration (points of search success)",
        "02_probes/search.csv", lambda run: percent(stats.difference(
            *failures_of(run, "trained", "edit"), *failures_of(run, "trained", "regeneration"))), lambda e, run: e.low > 0),
    "gemma_above_12b": Claim(
        "Gemma3-4B with AuditDM beats Gemma3-12B on the average (points)", "05_scores",
        measures.untested("the target is of the PaliGemma2 family"),
        paper=lambda v: _fig2(v, "Gemma3-4B + AuditDM", "Gemma3-12B")),
    "shrinking_gap_over_rounds": Claim(
        "Auditing the rectified model again raises the score further", "04_rectified", measures.untested("this run audits once")),
}

# The claims that each profile must test: "not tested" is an error there.
_LONE = {"lone_gap_found", "lone_gap_ratio"}
_ALWAYS = {name for name in CLAIMS} - _LONE - {"sixteen_benchmarks", "gemma_above_12b", "shrinking_gap_over_rounds"}
MUST_TEST = {
    "testbed": _ALWAYS,
    "full": _ALWAYS,
    "needle": _LONE | {"trained_above_prompt_only", "gaps_hit", "answerable"},
    "smoke": _ALWAYS - {"gaps_own_category", "types_match_gaps", "target_only_correct_is_rare"},  # too few failures
}
