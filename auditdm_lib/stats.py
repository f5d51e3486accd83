"""Confidence intervals (all at 95 %) and tests. Proportions are in 0-1, counts are whole numbers.

The intervals of proportions (Wilson, Newcombe, Agresti-Min) have a width above 0 also at proportions of 0 and 1, where a
bootstrap interval would have none.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson interval of a proportion: (low, high); NaN if n is 0."""
    if n == 0:
        return np.nan, np.nan
    low, high = proportion_confint(successes, n, method="wilson")
    # at 0 and 1, rounding can put the bound slightly inside the proportion; matplotlib rejects negative error bars
    return min(float(low), successes / n), max(float(high), successes / n)


def proportion(successes: int, n: int) -> Estimate:
    """A proportion with its Wilson interval; NaN if n is 0."""
    return Estimate(successes / n if n else np.nan, *wilson(successes, n))


def difference(successes: int, n: int, successes_0: int, n_0: int) -> Estimate:
    """Difference of two independent proportions with Newcombe's interval (1998, method 10)."""
    low, high = confint_proportions_2indep(successes, n, successes_0, n_0, method="newcomb", compare="diff")
    return Estimate(successes / n - successes_0 / n_0, float(low), float(high))


def ratio(successes: int, n: int, successes_0: int, n_0: int) -> Estimate:
    """Ratio of two independent proportions with its adjusted log interval; infinite if successes_0 is 0, NaN if both
    numbers of successes are."""
    low, high = confint_proportions_2indep(successes, n, successes_0, n_0, method="log-adjusted", compare="ratio")
    value = successes / n / (successes_0 / n_0) if successes_0 else np.inf if successes else np.nan
    return Estimate(value, float(low), float(high))


def paired_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """mean(a) - mean(b) of two boolean arrays over the same n items, with the interval of Agresti and Min (2005).

    Half an item is added to each cell of the 2 x 2 table, so that the interval has a width above 0 even if no item differs.
    Raises ValueError if the arrays differ in length or are empty.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"A paired difference needs the same items twice, not {len(a)} and {len(b)}.")
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((~a & b).sum())
    centre = (only_a - only_b) / (n + 2)
    reach = norm.ppf(0.975) * np.sqrt(only_a + only_b + 1 - (only_a - only_b) ** 2 / (n + 2)) / (n + 2)
    return Estimate((only_a - only_b) / n, float(max(-1.0, centre - reach)), float(min(1.0, centre + reach)))


def tally(successes: pd.Series, clusters: pd.Series) -> pd.DataFrame:
    """Successes k and attempts n by cluster (probes about one picture, items of one group), indexed by cluster."""
    return pd.DataFrame(dict(k=successes.astype(float).to_numpy(), n=1.0), index=clusters.to_numpy()).groupby(level=0).sum()


def clustered_proportion(table: pd.DataFrame) -> Estimate:
    """A proportion with Wilson's interval, its sample size reduced by how alike the attempts of a cluster are (see `tally`).

    The effective sample size is that of Korn and Graubard (1998): p (1 - p) divided by the variance between clusters, and
    adjusted for the degrees of freedom. With one attempt in each cluster it is Wilson's interval of the attempts.
    """
    k, n, groups = table["k"].sum(), table["n"].sum(), len(table)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan)
    p = k / n
    if (table["n"] == 1).all() or groups < 2:
        return Estimate(p, *wilson(k, n if groups > 1 else 1)) if groups > 1 else Estimate(p, 0.0, 1.0)
    variance = groups / (groups - 1) * ((table["k"] - p * table["n"]) ** 2).sum() / n**2
    size = min(n, p * (1 - p) / variance) if variance > 0 else groups
    size *= (norm.ppf(0.975) / t.ppf(0.975, groups - 1)) ** 2
    return Estimate(p, *wilson(p * size, size))


def clustered_difference(a: pd.DataFrame, b: pd.DataFrame) -> Estimate:
    """Difference of two proportions over the same or overlapping clusters (see `tally`), paired by cluster.

    The standard error is that of the linearised difference between clusters, with Student's t. Where no cluster differs from
    the proportions, it is Newcombe's interval of independent ones, which has a width above 0.
    """
    p, q = a["k"].sum() / a["n"].sum(), b["k"].sum() / b["n"].sum()
    reach = _reach(_residuals(a).sub(_residuals(b), fill_value=0))
    if reach == 0:
        return difference(int(a["k"].sum()), int(a["n"].sum()), int(b["k"].sum()), int(b["n"].sum()))
    return Estimate(p - q, float(max(-1.0, p - q - reach)), float(min(1.0, p - q + reach)))


def clustered_ratio(a: pd.DataFrame, b: pd.DataFrame) -> Estimate:
    """Ratio of two proportions over the same or overlapping clusters, paired by cluster, on the logarithmic scale.

    Where one of them is 0 or 1, it is the interval of independent ones (`ratio`).
    """
    p, q = a["k"].sum() / a["n"].sum(), b["k"].sum() / b["n"].sum()
    if not 0 < p < 1 or not 0 < q < 1:
        return ratio(int(a["k"].sum()), int(a["n"].sum()), int(b["k"].sum()), int(b["n"].sum()))
    reach = np.exp(_reach((_residuals(a) / p).sub(_residuals(b) / q, fill_value=0)))
    return Estimate(p / q, float(p / q / reach), float(p / q * reach))


def _residuals(table: pd.DataFrame) -> pd.Series:
    """What each cluster adds to the proportion's error: (k - p n) / N."""
    return (table["k"] - table["k"].sum() / table["n"].sum() * table["n"]) / table["n"].sum()


def _reach(residuals: pd.Series) -> float:
    """Half the width of the interval of a sum of clusters' residuals; those that only one side has count as they are."""
    groups = len(residuals)
    return float(t.ppf(0.975, groups - 1) * np.sqrt(groups / (groups - 1) * (residuals**2).sum())) if groups > 1 else np.inf


def mean_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """mean(a) - mean(b) of two arrays of scores over the same n items or groups, with Student's paired interval.

    Scores that are all 0 or 1, or the same in both arrays, take the interval of `paired_difference`. Raises ValueError as that
    does.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) != len(b) or len(a) == 0 or np.isin([a, b], (0, 1)).all():
        return paired_difference(a, b)
    change = a - b
    if not change.any():  # the spread of the changes would give no width
        return paired_difference(np.zeros(len(a)), np.zeros(len(a)))
    reach = t.ppf(0.975, len(a) - 1) * change.std(ddof=1) / np.sqrt(len(a)) if len(a) > 1 else np.inf
    return Estimate(float(change.mean()), float(change.mean() - reach), float(change.mean() + reach))


def average(parts: list[Estimate]) -> Estimate:
    """The mean of independent estimates; its interval combines theirs in quadrature (MOVER, Zou and Donner 2008)."""
    value, low, high = np.array(parts, float).T
    return Estimate(float(value.mean()), float(value.mean() - np.sqrt(((value - low) ** 2).sum()) / len(parts)),
                    float(value.mean() + np.sqrt(((high - value) ** 2).sum()) / len(parts)))


def mcnemar_p(a: np.ndarray, b: np.ndarray) -> float:
    """p-value of the two-sided exact McNemar test that two boolean arrays over the same items have the same mean."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    return float(mcnemar(table, exact=True).pvalue)


def bootstrap(frame: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], cluster: str, seed: int,
              rounds: int = 500) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, resampling whole clusters (questions about one image) with replacement."""
    rng = np.random.default_rng(seed)
    groups = list(frame.groupby(cluster, sort=True).indices.values())
    values = [statistic(frame.iloc[np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])])
              for _ in range(rounds)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
