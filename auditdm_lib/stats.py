"""Confidence intervals (all at 95 %) and tests. Proportions are in 0-1, counts are whole numbers.

The intervals of proportions (Wilson, Newcombe, Agresti-Min) have a width above 0 also at proportions of 0 and 1, where a
bootstrap interval would have none.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
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
