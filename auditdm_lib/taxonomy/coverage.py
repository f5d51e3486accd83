"""How many failure types the search has not met yet: types found by number of probes, and two estimates of what is unseen.

A *kind* of failure is a failure type, or, for failures in no type, their skill (or else their question) with both answers: few
failures of a kind are no type yet, but they are what the estimates rest on. Probes count in any order; what a server or a limit
kept from being an attempt (`attempted`) does not count, nor does a failure in it, as these are no fair sample.
"""

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from auditdm_lib.answers import normalise
from auditdm_lib.audit.probes import attempted
from auditdm_lib.stats import Estimate, proportion
from auditdm_lib.taxonomy.cluster import SMALLEST

POINTS = 40  # of each curve
ENOUGH = 0.01  # the search may stop when fewer of its next probes would show an unseen kind
UNSEEN_COLUMNS = ["auditor", "probes", "failures", "kinds", "singletons", "doubletons", "unseen_share", "share_low", "share_high",
                  "unseen_kinds", "kinds_low", "kinds_high"]


def kinds(clustered: pd.DataFrame) -> pd.Series:
    """The kind of each failure (cluster.cluster: question, consensus, target_answer, category and, where there is one, skill)."""
    skill = clustered["skill"].replace("", None) if "skill" in clustered else pd.Series(None, clustered.index, dtype=object)
    about = skill.fillna(clustered["question"].astype(str))
    lone = [repr((a, normalise(str(b)), normalise(str(c)))) for a, b, c in
            zip(about, clustered["consensus"], clustered["target_answer"], strict=True)]
    return pd.Series(np.where(clustered["category"] >= 0, clustered["category"].astype(str), lone), index=clustered.index)


def coverage(clustered: pd.DataFrame, probes: pd.DataFrame, confirmed: list[int] | None = None) -> pd.DataFrame:
    """Types found against probes, by auditor: auditor, probes, types (expected in that many random ones of its probes; found
    means with SMALLEST failures), confirmed (of these, the categories `confirmed`; null where nothing was asked again).

    `clustered` are the failures with probe_id, auditor and category, `probes` is probes.parquet.
    """
    clustered, tables = _of(clustered, probes), []
    for auditor, n in _numbers(probes).items():
        own = clustered[clustered["auditor"].eq(auditor) & clustered["category"].ge(0)]
        sizes = own["category"].value_counts().sort_index()
        at = np.unique(np.linspace(0, n, POINTS + 1).round().astype(int))
        found = hypergeom.sf(SMALLEST - 1, n, sizes.to_numpy()[:, None], at[None])  # (types, points)
        held = np.nan if confirmed is None else found[sizes.index.isin(confirmed)].sum(0)
        tables.append(pd.DataFrame(dict(auditor=auditor, probes=at, types=found.sum(0), confirmed=held)))
    return pd.concat(tables, ignore_index=True)


def unseen(clustered: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """What each auditor's search has not met yet, one row per auditor: UNSEEN_COLUMNS.

    `unseen_share` is the Good-Turing estimate of the share of probes that would show an unseen kind of failure (0-1): kinds met
    once, per probe, with Wilson's interval. `unseen_kinds` is the Chao1 estimate of how many there are at least.
    """
    clustered = _of(clustered, probes)
    kind, rows = kinds(clustered), []
    for auditor, n in _numbers(probes).items():
        own = kind[clustered["auditor"].eq(auditor)].value_counts()
        once, twice = int((own == 1).sum()), int((own == 2).sum())
        failures = int(own.sum())
        rows.append((auditor, n, failures, len(own), once, twice, *proportion(once, n), *chao1(once, twice, failures)))
    return pd.DataFrame(rows, columns=UNSEEN_COLUMNS)


def _numbers(probes: pd.DataFrame) -> dict[str, int]:
    """The number of attempted probes by auditor, 0 for one of whom nothing was asked."""
    counts = attempted(probes)["auditor"].value_counts()
    return {auditor: int(counts.get(auditor, 0)) for auditor in probes["auditor"].unique()}


def _of(clustered: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    return clustered[clustered["probe_id"].isin(attempted(probes)["probe_id"])]


def chao1(once: int, twice: int, n: int) -> Estimate:
    """The number of kinds not seen in `n` failures, at least, of which `once` and `twice` are the kinds met that often.

    The bias-corrected estimate with its log-normal interval (Chao 1987; EstimateS, appendix B). Without a kind met once none is
    estimated, with an interval from 0 to 3 as for an event that never happened (the rule of three); NaN where n is 0.
    """
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan)
    if once == 0:
        return Estimate(0.0, 0.0, 3.0)
    part = (n - 1) / n
    value = part * once * (once - 1) / (2 * (twice + 1))
    if value == 0:  # one kind met once: at most what the rule of three allows
        return Estimate(0.0, 0.0, 3.0)
    variance = value + part**2 * once * (2 * once - 1)**2 / (4 * (twice + 1)**2) \
        + part**2 * once**2 * twice * (once - 1)**2 / (4 * (twice + 1)**4)
    spread = np.exp(1.96 * np.sqrt(np.log1p(variance / value**2)))
    return Estimate(float(value), float(value / spread), float(value * spread))


def stop_rule(table: pd.DataFrame, auditor: str) -> str:
    """What the estimates say about going on with the search of an auditor (`unseen`), in one or two sentences."""
    row = table[table["auditor"] == auditor].iloc[0]
    if row["probes"] == 0:
        return f"No probe of the {auditor} auditor was asked, so nothing can be said about what it would find."
    if row["failures"] == 0:
        return f"The {auditor} auditor found no failure in {row['probes']} probes, so nothing can be said about what is unseen."
    text = (f"Of the next 100 probes by the {auditor} auditor about {100 * row['unseen_share']:.1f} "
            f"({100 * row['share_low']:.1f} to {100 * row['share_high']:.1f}) would show a kind of failure that it has not met; "
            f"at least {row['unseen_kinds']:.0f} such kinds are estimated to exist ({row['kinds_low']:.0f} to "
            f"{row['kinds_high']:.0f}). ")
    if row["share_high"] < ENOUGH:
        return f"{text}That is less than {ENOUGH:.0%} of the probes: more of the same search is hardly worth its calls."
    return f"{text}More probes are worth their calls until fewer than {ENOUGH:.0%} of them show something new."
