"""How well the failure types match the planted gaps, and whether confirmed ones are true (testbed only, for grading)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.probes import attempted
from auditdm_lib.stats import bootstrap, proportion
from auditdm_lib.taxonomy.cluster import SMALLEST
from auditdm_lib.taxonomy.confirm import CONFIRMED

ROUNDS = 300  # bootstrap resamples, and shuffles of the labels


def grade(clustered: pd.DataFrame, grading: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Grade the failure types against the planted gaps (testbed only; the clustering never sees the result).

    `grading` has probe_id and gap (null outside all gaps). Returns

    - gaps: gap, failures, category, precision, recall, own_category. The category is the one for which the smaller of
      precision and recall is largest; it is the gap's own if both are at least 0.7. Failures outside all gaps lower the
      precision.
    - agreement (one row): failures, ari, ari_low, ari_high, shuffled_low, shuffled_high. This is the adjusted Rand index over
      the failures inside planted gaps, each unclustered failure being a cluster of its own, its bootstrap interval over
      pictures, and the interval of the index for shuffled labels.
    """
    rows = clustered[["probe_id", "category", "source_image"]].merge(
        grading[["probe_id", "gap"]], on="probe_id", validate="one_to_one")
    gaps = []
    for gap, inside in rows[rows["gap"].notna()].groupby("gap", sort=True):
        best = (-1, 0.0, 0.0)
        for category, n in inside.loc[inside["category"] >= 0, "category"].value_counts().sort_index().items():
            precision, recall = n / (rows["category"] == category).sum(), n / len(inside)
            if min(precision, recall) > min(best[1:]):
                best = (category, precision, recall)
        gaps.append((gap, len(inside), *best, min(best[1:]) >= 0.7))
    gaps = pd.DataFrame(gaps, columns=["gap", "failures", "category", "precision", "recall", "own_category"])

    inside = rows[rows["gap"].notna()].reset_index(drop=True)
    inside["label"] = _labels(inside)
    if inside["gap"].nunique() < 2:
        nothing = dict(ari=np.nan, ari_low=np.nan, ari_high=np.nan, shuffled_low=np.nan, shuffled_high=np.nan)
        return gaps, pd.DataFrame([dict(failures=len(inside)) | nothing])
    inside["truth"] = pd.factorize(inside["gap"])[0]  # integers, since the index is slow on strings
    rng = np.random.default_rng(seed)
    shuffled = [adjusted_rand_score(inside["truth"], rng.permutation(inside["label"])) for _ in range(ROUNDS)]
    low, high = bootstrap(inside[["truth", "category", "source_image"]],
                          lambda drawn: adjusted_rand_score(drawn["truth"], _labels(drawn)), "source_image", seed, ROUNDS)
    chance_low, chance_high = np.percentile(shuffled, [2.5, 97.5])
    agreement = dict(failures=len(inside), ari=adjusted_rand_score(inside["truth"], inside["label"]), ari_low=low,
                     ari_high=high, shuffled_low=chance_low, shuffled_high=chance_high)
    return gaps, pd.DataFrame([agreement])


def _labels(rows: pd.DataFrame) -> np.ndarray:
    """The clusters of failures; each unclustered failure is a cluster of its own, also a copy of one that a bootstrap drew."""
    return np.where(rows["category"] >= 0, rows["category"], -1 - np.arange(len(rows)))


def grade_confirmed(confirmed: pd.DataFrame, fresh: pd.DataFrame, graded: pd.DataFrame, gaps: pd.DataFrame,
                    planted: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Grade the confirmation of failure types by the truth, where that is known (the verdicts never see the result).

    `confirmed` is confirmation.parquet, `fresh` fresh.parquet, `graded` the probe_id and gap of each fresh probe (null outside
    all gaps), `gaps` the first table of `grade` and `planted` the names of all gaps that were planted in the target. Returns

    - types: category, name, verdict, known (fresh probes with a truth), target_error, references_error (0-1, their mean), true
      (the target's error is the larger one; null where nothing is known), gap (the most frequent among the known probes on which
      the target is odd, null where most lie in none), natural (true and in no gap).
    - recovered: gap, types (confirmed ones whose gap it is), recovered, own_category (the stricter measure of `grade`).
    - marks (one row): confirmed, true_types, precision (one about questions without an answer is not true)
      with its interval, planted, recovered, recall with its interval, own_recovered, natural_gaps, and true types that are not
      confirmed (missed_types).
    """
    rows = fresh[fresh["saw"].ne(False)].merge(graded, on="probe_id", validate="one_to_one")
    types = []
    for one in confirmed.itertuples():
        own = rows[rows["category"].eq(one.category) & rows["truth"].notna()]
        error = _wrong(own["target_answer"], own["truth"])
        others = [_wrong(answers, own["truth"]) for answers in zip(*own["reference_answers"], strict=True)]
        true = bool(error > np.mean(others)) if len(own) else None
        labels = own.loc[own["target_odd"].astype(bool), "gap"].fillna("").value_counts()
        gap = min(labels.index[labels == labels.max()]) or None if len(labels) else None
        types.append((one.category, one.name, one.verdict, len(own), error, float(np.mean(others)) if others else np.nan, true,
                      gap, bool(true) and gap is None))
    columns = ["category", "name", "verdict", "known", "target_error", "references_error", "true", "gap", "natural"]
    types = pd.DataFrame(types, columns=columns).astype({"true": object, "gap": object})
    holds, own = types[types["verdict"] == CONFIRMED], set(gaps.loc[gaps["own_category"].astype(bool), "gap"])
    counts = holds["gap"].value_counts()
    recovered = pd.DataFrame([(gap, int(counts.get(gap, 0)), gap in counts, gap in own) for gap in planted],
                             columns=["gap", "types", "recovered", "own_category"])
    true, found = int(holds["true"].eq(True).sum()), int(recovered["recovered"].sum())
    precision, recall = proportion(true, len(holds)), proportion(found, len(planted))
    marks = dict(confirmed=len(holds), true_types=true, precision=precision.value, precision_low=precision.low,
                 precision_high=precision.high, planted=len(planted), recovered=found, recall=recall.value, recall_low=recall.low,
                 recall_high=recall.high, own_recovered=int(recovered["own_category"].sum()),
                 natural_gaps=int(holds["natural"].sum()),
                 missed_types=int((types["true"].eq(True) & types["verdict"].ne(CONFIRMED)).sum()))
    return types, recovered, pd.DataFrame([marks])


def _wrong(answers: Iterable[str | None], truth: Iterable[str]) -> float:
    """The share of answers that are wrong by the truth; a missing one is."""
    return float(np.mean([a is None or not same_answer(a, t) for a, t in zip(answers, truth, strict=True)] or [np.nan]))


def first_found(probes: pd.DataFrame, found: pd.DataFrame, by: str) -> pd.DataFrame:
    """After how many probes each auditor had met each failure type, or gap, for the third time (SMALLEST): auditor, `by`, probes.

    `found` has the probe_id of each failure and, in the column `by`, its category or gap (-1 or null for none). The probes of an
    auditor that were `attempted` count in the order of the table; null where it met one less often.
    """
    table = attempted(probes)
    table = table.assign(probe=table.groupby("auditor").cumcount() + 1)[["probe_id", "auditor", "probe"]]
    table = table.merge(found[["probe_id", by]].rename(columns={by: "what"}), on="probe_id")
    table = table[table["what"].notna() & table["what"].ne(-1)].sort_values("probe")
    third = table[table.groupby(["auditor", "what"]).cumcount() == SMALLEST - 1].set_index(["auditor", "what"])["probe"]
    rows = [(auditor, what, third.get((auditor, what))) for auditor in probes["auditor"].unique()
            for what in sorted(table["what"].unique())]
    return pd.DataFrame(rows, columns=["auditor", by, "probes"]).astype({"probes": "Int64"})
