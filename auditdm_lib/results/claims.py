"""Which claims of the paper this run reproduces. A claim is a measurement with an interval and a range that it must lie in.

Shares and scores are in percent, differences in percentage points. Intervals are 95 % confidence intervals. A claim holds if its
whole interval lies in the range, does not hold if the whole interval lies outside, and is undecided otherwise. Values of the
paper, limits included, are read from figures/paper_values.csv.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from auditdm_lib.audit.pairs import OTHER_SEED, RE_ENCODED
from auditdm_lib.results import drawn, measures
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.results.measures import LeftOut, NotTested
from auditdm_lib.stats import Estimate

HOLDS, FAILS, UNDECIDED, NOT_TESTED = "holds", "does not hold", "undecided", "not tested"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_TESTED)
COLUMNS = ["claim", "paper_value", "run_value", "ci_low", "ci_high", "verdict", "reads"]
ABOVE_0 = np.nextafter(0.0, 1.0)
ABOVE_HALF = np.nextafter(50.0, 100.0)
Values = pd.DataFrame  # figures/paper_values.csv


@dataclass(frozen=True)
class Claim:
    """`measure` returns the run's value or raises NotTested; `least` and `most` bound the range in which the claim holds.

    A bound may be a function of the paper's values or, for `least`, of the run. `paper` is the paper's value, "{paper}" in the
    text.
    """

    text: str
    reads: str
    measure: Callable[[Artefacts], Estimate]
    least: float | Callable[[Values, Artefacts], float] = -np.inf
    most: float | Callable[[Values, Artefacts], float] = np.inf
    paper: Callable[[Values], float] = lambda values: np.nan

    def worded(self, values: Values) -> str:
        return self.text.replace("{paper}", f"{self.paper(values):.4g}")


def evaluate(run: Artefacts, paper: Values, must_test: str = "none") -> pd.DataFrame:
    """The claims table (COLUMNS), one row per claim, rounded to three decimals.

    `must_test` names a row of MUST_TEST. Raises RuntimeError if the run cannot test a claim of that row, unless its parameters
    leave out what the claim is about or the audit found nothing; claims about planted gaps are asked only of a target that has
    some.
    """
    required, rows = MUST_TEST.get(must_test, set()) - (set() if run.hits is not None else ABOUT_GAPS), []
    required = required if len(run.failures) else set()
    for name, claim in CLAIMS.items():
        try:
            estimate, reads = known(claim.measure(run)), claim.reads
            limits = [bound(paper, run) if callable(bound) else bound for bound in (claim.least, claim.most)]
            verdict = verdict_of(estimate, *limits)
        except NotTested as reason:
            if name in required and not isinstance(reason, LeftOut):
                raise RuntimeError(f"This run must test “{claim.worded(paper)}” (must_test: {must_test}), but "
                                   f"{reason}.") from None
            estimate, verdict, reads = Estimate(np.nan, np.nan, np.nan), NOT_TESTED, f"{claim.reads}: {reason}"
        rows.append((claim.worded(paper), claim.paper(paper), *estimate, verdict, reads))
    return pd.DataFrame(rows, columns=COLUMNS).round(3)


def known(estimate: Estimate) -> Estimate:
    """The estimate; raises LeftOut for a ratio of nothing to nothing."""
    if np.isnan(estimate.value):
        raise LeftOut("no failure was found on either side")
    return estimate


def verdict_of(estimate: Estimate, least: float, most: float) -> str:
    """HOLDS if the interval lies within the range, FAILS if it lies outside, else UNDECIDED."""
    if least <= estimate.low and estimate.high <= most:
        return HOLDS
    return FAILS if estimate.high < least or estimate.low > most else UNDECIDED


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


_AUDITED = "PaliGemma2-3B + AuditDM"
CLAIMS = {
    "trained_above_prompt_only": Claim(
        "The trained auditor's search success is above the prompt-only auditor's (points, paired)", "02_probes/probes.parquet",
        lambda run: measures.success_gain(run, "trained", "prompt_only"), ABOVE_0,
        paper=lambda v: _search(v, "AuditDM") - _search(v, "prompt-only auditor")),
    "three_times_prompt_only": Claim(
        "The trained auditor's search success is at least 3 times the prompt-only auditor's (ratio, paired)",
        "02_probes/probes.parquet", lambda run: measures.success_ratio(run, "trained", "prompt_only"), 3,
        paper=lambda v: _search(v, "AuditDM") / _search(v, "prompt-only auditor")),
    "reaches_paper": Claim(
        "The trained auditor's search success reaches the paper's {paper} %", "02_probes/probes.parquet",
        lambda run: measures.success(run, "trained"), lambda v, run: _search(v, "AuditDM"),
        paper=lambda v: _search(v, "AuditDM")),
    "prompt_only_near_paper": Claim(
        "The prompt-only auditor's search success is within 10 points of the paper's {paper} %", "02_probes/probes.parquet",
        lambda run: measures.success(run, "prompt_only"), lambda v, run: _search(v, "prompt-only auditor") - 10,
        lambda v, run: _search(v, "prompt-only auditor") + 10, lambda v: _search(v, "prompt-only auditor")),
    "prompt_only_valid": Claim(
        "At least 90 % of the prompt-only auditor's questions are valid (so the comparison is fair)", "02_probes/probes.parquet",
        measures.valid_questions, 90),
    "prompt_only_not_below_random": Claim(
        "The prompt-only auditor's questions are at most 3 points below random valid ones (points of search success, paired)",
        "02_probes/probes.parquet", lambda run: measures.success_gain(run, "prompt_only", "random", "question"), -3),
    "trained_above_random": Claim(
        "At as many probes, the trained auditor's search success is above that of random questions (points, paired)",
        "02_probes/probes.parquet", lambda run: measures.success_gain(run, "trained", "random"), ABOVE_0),
    "cheaper_than_random": Claim(
        "At the same total of target calls, training included, the trained auditor finds a failure for fewer calls than random "
        "questions (ratio of calls per verified failure)", "02_probes/search.csv, probes.parquet",
        lambda run: measures.cost_ratio(run, "trained", "random"), most=1),
    "cheaper_than_prompt_only": Claim(
        "At the same total of target calls, training included, the trained auditor finds a failure for fewer calls than the "
        "prompt-only one (ratio of calls per verified failure)", "02_probes/search.csv, probes.parquet",
        lambda run: measures.cost_ratio(run, "trained", "prompt_only"), most=1),
    "gaps_hit": Claim(
        "The trained auditor finds at least half of the planted gaps five times or more (% of the gaps)",
        "02_probes/gap_hits.csv", measures.share_of_gaps_found, 50),
    "gaps_beyond_random": Claim(
        "The trained auditor finds more of the planted gaps five times or more than as many random questions do (points, paired)",
        "02_probes/gap_hits.csv", measures.gaps_found_beyond_random, ABOVE_0),
    "lone_gap_found": Claim(
        "A lone, rare gap is found in at least 60 % of the pictures that can show it (%)", "02_probes/gap_hits.csv",
        measures.lone_gap_reach, 60),
    "lone_gap_ratio": Claim(
        "The trained auditor finds a lone, rare gap at least 4 times as often as the prompt-only one at the same temperature "
        "(ratio)", "02_probes/gap_hits.csv", measures.lone_gap_ratio, 4),
    "answerable": Claim(
        "Answerability: of the trained auditor's probes with a consensus at least 95 % have an answer (%)",
        "02_probes/probes.parquet", measures.answerable, 95),
    "target_only_correct_is_rare": Claim(
        "Rarity of target-only-correct: in at most 5 % of the trained auditor's disagreements the target alone is right (%)",
        "02_probes/probes.parquet", measures.target_only_correct, most=5),
    "more_than_20_types": Claim(
        "More than {paper} failure types of the trained auditor are confirmed on fresh pictures (count)",
        "03_taxonomy/confirmation.parquet", measures.confirmed_types, lambda v, run: _printed(v, "failure_types", "AuditDM") + 1,
        paper=lambda v: _printed(v, "failure_types", "AuditDM")),
    "types_match_gaps": Claim(
        "The failure types match the planted gaps better than shuffled labels do (adjusted Rand index)",
        "03_taxonomy/agreement.csv", measures.type_agreement, lambda v, run: run.agreement["shuffled_high"].iloc[0]),
    "gaps_own_category": Claim(
        "Three quarters of the planted gaps with 20 or more failures have a failure type of their own (%)",
        "03_taxonomy/grading.csv", measures.gaps_with_own_type, 75),
    "rectified_on_gaps": Claim(
        "Rectified beats target by at least 20 points on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: measures.gap_gain(run, "rectified", "target"), 20),
    "rectified_on_average": Claim(
        "Rectified beats target on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: measures.average_gain(run, "rectified", "target"), ABOVE_0,
        paper=lambda v: _fig2(v, _AUDITED, "PaliGemma2-3B")),
    "rectified_above_sibling": Claim(
        "Rectified beats reference 1, in the place of the paper's 28B sibling, on the average of the suites (points, paired)",
        "05_scores/items.parquet (reference_1)", lambda run: measures.average_gain(run, "rectified", "reference_1"), ABOVE_0,
        paper=lambda v: _fig2(v, _AUDITED, "PaliGemma2-28B")),
    "kept_outside_gaps": Claim(
        "Outside the planted gaps, rectified loses at most 1 point on the suites (change in points, paired)",
        "05_scores/items.parquet", measures.change_outside_gaps, -1),
    "lost_at_most_1": Claim(
        "Of the suite items that the target had right, rectified has at most 1 % wrong (%)", "05_scores/items.parquet",
        measures.lost_share, most=1),
    "beats_control_on_gaps": Claim(
        "Audited data beat as much un-audited data on held-out items inside the gaps (points, paired)",
        "05_scores/items.parquet", lambda run: measures.gap_gain(run, "rectified", "control"), ABOVE_0),
    "beats_control_on_average": Claim(
        "Audited data beat as much un-audited data on the average of the suites (points, paired)", "05_scores/items.parquet",
        lambda run: measures.average_gain(run, "rectified", "control"), ABOVE_0),
    "sibling_worse_somewhere": Claim(
        "Reference 1, in the place of the 28B sibling, fails more than the target in some skills (count; interval: clearly "
        "more to not clearly less)",
        "05_scores/items.parquet (reference_1)", measures.skills_where_sibling_is_worse, 1, paper=_worse_of_fifteen),
    "sixteen_benchmarks": Claim(
        "Gains on all 16 benchmarks", "05_scores", measures.untested("no stage scores the benchmarks themselves")),
    "regeneration": Claim(
        "Pictures drawn from captions expose failures too: trained above prompt-only (points of search success, paired)",
        "02_probes/probes.parquet", lambda run: measures.success_gain(run, "trained", "prompt_only", "regeneration"), ABOVE_0),
    "editing": Claim(
        "Edited pictures expose failures too: trained above prompt-only (points of search success, paired)",
        "02_probes/probes.parquet", lambda run: measures.success_gain(run, "trained", "prompt_only", "edit"), ABOVE_0),
    "editing_above_regeneration": Claim(
        "The trained auditor finds more failures by editing than by regeneration (points of search success)",
        "02_probes/probes.parquet",
        lambda run: measures.success_gain(run, "trained", "trained", "edit", "regeneration"), ABOVE_0),
    "drawn_consensus_right": Claim(
        "Of the trained auditor's accepted probes on drawn pictures with a consensus at least 95 % have the right one (%)",
        "02_probes/probes.parquet", drawn.consensus_right, 95),
    "drawers_fault": Claim(
        "At most a fifth of the trained auditor's apparent successes with drawn pictures are the drawer's fault (%)",
        "02_probes/drawer.csv", drawn.fault, most=20),
    "drawn_near_exact": Claim(
        "On drawn pictures the trained auditor's search success with the pipelines is at most 10 points below that with exact "
        "pictures of the same texts (points, paired by picture)", "02_probes/versions.parquet", drawn.success_beside_exact, -10),
    "edits_flip": Claim(
        "The trained auditor's edits turn a right answer of the target into a wrong one more often than the reverse (% of the "
        "pairs that differ, the references right on both pictures)", "02_probes/flips.csv", drawn.flipped, ABOVE_HALF),
    "survives_seed": Claim(
        "At least 80 % of the trained auditor's disagreements on drawn pictures are there again when the same text is drawn by "
        "another seed (%)", "02_probes/survival.csv", lambda run: drawn.survival(run, OTHER_SEED), 80),
    "survives_encoding": Claim(
        "At least 90 % of the trained auditor's disagreements on drawn pictures are there again after the picture is re-encoded "
        "as JPEG (%)", "02_probes/survival.csv", lambda run: drawn.survival(run, RE_ENCODED), 90),
    "gemma_above_12b": Claim(
        "Gemma3-4B with AuditDM beats Gemma3-12B on the average (points)", "05_scores",
        measures.untested("this run audits one target"),
        paper=lambda v: _fig2(v, "Gemma3-4B + AuditDM", "Gemma3-12B")),
    "shrinking_gap_over_rounds": Claim(
        "Auditing the rectified model again raises the score further", "04_rectified", measures.untested("this run audits once")),
}

# The claims that a profile must test (its parameter must_test): "not tested" is an error there.
_LONE = {"lone_gap_found", "lone_gap_ratio"}
_ALWAYS = {name for name in CLAIMS} - _LONE - {"sixteen_benchmarks", "gemma_above_12b", "shrinking_gap_over_rounds"}
ABOUT_GAPS = _LONE | {"gaps_hit", "gaps_beyond_random", "types_match_gaps", "gaps_own_category", "rectified_on_gaps",
                      "kept_outside_gaps", "beats_control_on_gaps"}
MUST_TEST = {
    "testbed": _ALWAYS,
    "needle": _LONE | {"trained_above_prompt_only", "gaps_hit", "answerable"},
    "smoke": _ALWAYS - {"gaps_own_category", "types_match_gaps", "target_only_correct_is_rare",  # too few failures
                        "drawers_fault", "edits_flip", "survives_seed", "survives_encoding"},
}
