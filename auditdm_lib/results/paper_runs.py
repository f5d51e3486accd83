"""A run's half of the paper's figures and tables of scores: what stage 05 wrote, in the form that `paper_figures` draws. No model
is loaded. The figures of failures are in `found_figures`.
"""

import re

import pandas as pd

from auditdm_lib.evaluate import scores
from auditdm_lib.results.paper_figures import FAMILIES
from auditdm_lib.results.paper_style import rows_of


def suite_scores(items: pd.DataFrame) -> pd.DataFrame:
    """The headline score of each model on each suite but the gap items, in percent, for fig_radar: series, category, value."""
    rows = [(model, suite, 100 * estimate.value) for model in items["model"].unique()
            for suite, estimate in scores.headlines(items, model).items() if suite != scores.GAP_ITEMS]
    return pd.DataFrame(rows, columns=["series", "category", "value"])


def benchmark_of(suite: str, benchmarks: list[str]) -> str | None:
    """The benchmark whose name begins as the suite's does ("seed-mini": "SEED-Bench-IMG"); None where not exactly one does."""
    def letters(name: str) -> str:
        return re.sub(r"\W", "", name.casefold())
    found = [name for name in benchmarks if letters(name).startswith(letters(suite.removesuffix("-mini")))]
    return found[0] if len(found) == 1 else None


def beside_the_paper(items: pd.DataFrame, values: pd.DataFrame, family: str) -> pd.DataFrame:
    """A main table with this run's scores beside the paper's, in percent: one row per suite that stands for one of the family's
    benchmarks. The gain of rectified over target has its interval, paired by group of items. Other models, other pictures: only
    the direction compares.
    """
    printed = rows_of(values, FAMILIES[family][0]).pivot(index="category", columns="series", values="value")
    after = next(name for name in printed if "+ AuditDM" in name)
    before, rows = after.partition(" + ")[0], []
    models = {name: scores.headlines(items, name) for name in ("target", "rectified")}
    gains = scores.gains(items, "rectified", "target") if models["rectified"] else {}
    for suite, gain in gains.items():
        benchmark = benchmark_of(suite, list(printed.index))
        if benchmark:
            paper = printed.loc[benchmark]
            rows.append((suite, *(100 * models[name][suite].value for name in models), *(100 * x for x in gain), benchmark,
                         paper[before], paper[after], paper[after] - paper[before]))
    return pd.DataFrame(rows, columns=["suite", "target", "rectified", "gain", "ci_low", "ci_high", "the paper's benchmark",
                                       before, after, "the paper's gain"]).round(2)
