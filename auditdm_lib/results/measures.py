"""The measurements of a run: numbers with their 95 % intervals, computed from the tables in `artefacts`.

Shares and scores are in percent, differences in percentage points. NotTested is raised for what a run cannot measure.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import binom, false_discovery_control

from auditdm_lib import stats
from auditdm_lib.answers import same_answer
from auditdm_lib.audit.probes import attempts, overall
from auditdm_lib.evaluate import scores
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.results.artefacts import Artefacts
from auditdm_lib.stats import Estimate
from auditdm_lib.taxonomy.confirm import CONFIRMED, LEVEL

FOUND = 5  # verified failures from which a gap counts as found


class NotTested(Exception):
    """The reason why this run cannot test a claim."""


class LeftOut(NotTested):
    """The run's parameters, or an audit that found nothing, leave out what a claim is about: no fault of the run."""


def percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * x for x in estimate))


def with_interval(estimate: Estimate) -> str:
    """'81.9 [80.1, 83.5]'; empty if there is no value."""
    return "" if pd.isna(estimate.value) else f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def exactly(count: float) -> Estimate:
    return Estimate(count, count, count)


def failures_of(run: Artefacts, auditor: str, kind: str | None = None) -> pd.DataFrame:
    """Verified failures k and attempts n by picture (`stats.tally`); of one kind of probe, or of all."""
    attempts_of(run, auditor, kind)
    tried = attempts(run.probes[(run.probes["auditor"] == auditor) & (run.probes["kind"] == (kind or run.probes["kind"]))])
    tried = tried[tried["verified_failure"].notna()]
    if tried.empty:
        raise NotTested("it needs the truth or a verifier, and these probes have neither")
    return stats.tally(tried["verified_failure"].astype(bool), tried["source_image"])


def success(run: Artefacts, auditor: str) -> Estimate:
    """Search success in percent."""
    return percent(stats.clustered_proportion(failures_of(run, auditor)))


def success_gain(run: Artefacts, a: str, b: str, kind: str | None = None, other: str | None = None) -> Estimate:
    """Difference in search success of two auditors in points, paired by picture; of probes of one kind, or of two kinds."""
    return percent(stats.clustered_difference(failures_of(run, a, kind), failures_of(run, b, other or kind)))


def success_ratio(run: Artefacts, a: str, b: str) -> Estimate:
    """Ratio of the search success of two auditors, paired by picture."""
    return stats.clustered_ratio(failures_of(run, a), failures_of(run, b))


def cost_ratio(run: Artefacts, a: str, b: str) -> Estimate:
    """Target calls per verified failure of auditor `a`, its training included, as a ratio to those of `b`."""
    rows = attempts_of(run, a), attempts_of(run, b)
    calls = [(row["probing_calls"] + row["training_calls"]) / row["attempts"] for row in rows]
    found = stats.clustered_ratio(failures_of(run, b), failures_of(run, a))
    return Estimate(*(calls[0] / calls[1] * x for x in found))


def rates(search: pd.DataFrame, verified: bool = True) -> list[Estimate]:
    """The search success of each row of search.csv in percent, or its share of disagreements where nothing was verified."""
    if verified:
        return [percent(Estimate(*row)) for row in search[["success", "ci_low", "ci_high"]].itertuples(index=False)]
    share = search["disagrees"] / search["attempts"]
    return [percent(Estimate(*row)) for row in zip(share, search["disagrees_low"], search["disagrees_high"], strict=True)]


def attempts_of(run: Artefacts, auditor: str, kind: str | None = None) -> pd.Series:
    rows = run.search if kind else overall(run.search)
    rows = rows[(rows["auditor"] == auditor) & (rows["kind"] == (kind or rows["kind"]))]
    if kind and kind not in set(run.search.loc[run.search["auditor"].isin(["prompt_only", "trained"]), "kind"]):
        raise LeftOut(f"no {kind} probes")
    if rows.empty:
        raise NotTested(f"no {kind or ''} probes of the {auditor} auditor")
    return rows.iloc[0]


def of_trained(run: Artefacts) -> pd.DataFrame:
    """The attempts of the trained auditor. Raises NotTested where no truth is known."""
    attempts_of(run, "trained")
    tried = attempts(run.probes[run.probes["auditor"] == "trained"])
    if tried["verified_failure"].isna().all():
        raise NotTested("it needs the truth")
    return tried


def answerable(run: Artefacts) -> Estimate:
    """Share of the trained auditor's probes with a consensus whose question has an answer, in percent. Rejected pictures are left
    out, since nothing is known about them."""
    return share(of_trained(run), lambda p: p["consensus"].notna() & p["picture_reason"].isna(),
                 lambda p: p["truth"].notna(), "a consensus")


def target_only_correct(run: Artefacts) -> Estimate:
    """Share of the trained auditor's disagreements with a known answer in which the target is right, in percent."""
    return share(of_trained(run), lambda p: p["disagrees"].astype(bool) & p["truth"].notna() & p["picture_reason"].isna(),
                 lambda p: [same_answer(a, t) for a, t in zip(p["target_answer"], p["truth"], strict=True)],
                 "a disagreement with a known answer")


def share(tried: pd.DataFrame, among: Callable, of: Callable, what: str) -> Estimate:
    """Of the attempts `among`, the share that `of` marks, clustered by picture, in percent."""
    part = tried[among(tried)]
    if part.empty:
        raise NotTested(f"no probe has {what}")
    return percent(stats.clustered_proportion(stats.tally(pd.Series(of(part), part.index), part["source_image"])))


def valid_questions(run: Artefacts) -> Estimate:
    """Share of the prompt-only auditor's questions that are valid, in percent."""
    attempts_of(run, "prompt_only", "question")
    if not run.verified:
        raise NotTested("nobody knows which questions about these pictures have an answer")
    return share(attempts(run.probes[run.probes["auditor"] == "prompt_only"]), lambda p: p["kind"] == "question",
                 lambda p: p["valid"], "a question")


def gaps_found(run: Artefacts, auditor: str) -> pd.Series:
    """For each planted gap, whether an auditor's probes found it at least FOUND times."""
    hits = known(run.hits)
    hits = hits[hits["auditor"] == auditor].set_index("gap")["hits"].sort_index() >= FOUND
    if hits.empty:
        raise NotTested(f"no probes of the {auditor} auditor")
    return hits


def share_of_gaps_found(run: Artefacts) -> Estimate:
    """Share of the planted gaps that the trained auditor found at least FOUND times, in percent; the interval is over gaps."""
    found = gaps_found(run, "trained")
    return percent(stats.proportion(int(found.sum()), len(found)))


def gaps_found_beyond_random(run: Artefacts) -> Estimate:
    """Share of the gaps found at least FOUND times, the trained auditor minus random questions, paired by gap, in points."""
    return percent(stats.paired_difference(gaps_found(run, "trained"), gaps_found(run, "random")))


def confirmed_types(run: Artefacts, rounds: int = 300) -> Estimate:
    """Number of failure types that fresh probes confirm.

    The interval repeats the verdicts on probes drawn anew from those of each type (one a picture, so they are independent): its
    odd target, odd reference and neither. As resampling adds noise to what has been sampled, it lies low rather than high.
    """
    table = run.confirmation
    if not run.verified:
        raise NotTested("it needs verified failures, and these are suspicions")
    if table is None:
        raise LeftOut("the failure types were not asked again on fresh pictures (fresh_probes is 0)")
    value = int((table["verdict"] == CONFIRMED).sum())
    if not len(table):
        return exactly(0)
    chance = 1 / (1 + len(run.probes["reference_answers"].iloc[0]))
    seen = table[["target_wrong", "reference_wrong", "probes"]].to_numpy(int)
    shares = np.column_stack([seen[:, :2], seen[:, 2] - seen[:, :2].sum(1)]) / np.maximum(seen[:, 2:], 1)
    shares[seen[:, 2] == 0, 2] = 1
    drawn = np.random.default_rng(0).multinomial(seen[:, 2], shares, (rounds, len(seen)))  # (rounds, types, 3)
    p_values = binom.sf(drawn[..., 0] - 1, drawn[..., 0] + drawn[..., 1], chance)
    counts = (false_discovery_control(p_values, axis=1) <= LEVEL).sum(1)
    return Estimate(value, *widened(value, np.percentile(counts, [2.5, 97.5])))


def widened(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    """An interval that holds its value (a count of types falls when pictures are resampled)."""
    return min(value, interval[0]), max(value, interval[1])


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
    found = [(int(lone_gap(run, a)["found_in"]), int(lone_gap(run, a)["can_show"])) for a in ("trained", "prompt_only")]
    if not all(can_show for _, can_show in found):
        raise NotTested("none of the pictures can show the gap")
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
    return percent(stats.proportion(int(gaps["own_category"].sum()), len(gaps)))


def pairs(items: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The correctness of two models on the same items, one row per item: suite, skill, gap and bool columns a and b."""
    if scores.held_out(items):
        raise NotTested("no suite is about these pictures, so none was scored")
    table = items[items["model"].isin([a, b])].pivot(index=["suite", "item"], columns="model", values="correct")
    if a not in table or b not in table:
        raise LeftOut(f"{a} and {b} were not both made and scored")
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
    """Difference of two models' averages of the suites (`suite_average`), paired by group of items, in points."""
    pairs(run.items, a, b)  # both were scored
    gains = [gain for suite, gain in scores.gains(run.items, a, b).items() if suite != GAP_ITEMS]
    if not gains:
        raise NotTested("no suite was scored")
    return percent(stats.average(gains))


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
