"""How well the failure types match the planted gaps (testbed only, for grading)."""

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from auditdm_lib.stats import bootstrap

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
