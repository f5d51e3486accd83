"""Scores of several models on the same held-out items, with intervals, and paired comparisons with the
target.

VQA accuracy here is the exact match of short answers (`consensus.same_answer`), one right answer an item.
"""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from auditdm_lib import models
from auditdm_lib.consensus import same_answer
from auditdm_lib.testbed import suites as testbed

GAP_ITEMS = "gap-items"  # questions inside the planted gaps, on pictures that nothing was trained on
F1_SUITES = {"pope-mini"}  # yes/no suites whose benchmark also reports the F1 of "yes"


def load_items(names: list[str], per_suite: int, per_gap: int, seed: int) -> pd.DataFrame:
    """The items of the named suites: suite, item, image (PIL RGB), question, expected, skill, gap (null
    outside any).

    Raises ValueError for a name that is no suite.
    """
    known = [*testbed.SUITES, GAP_ITEMS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"No suite {unknown[0]!r}: the suites are {', '.join(known)}.")
    tables = [(testbed.gap_items(per_gap, seed) if name == GAP_ITEMS
               else testbed.suite_items(name, per_suite, seed)).assign(suite=name) for name in names]
    items = pd.concat(tables, ignore_index=True)
    return items.rename(columns={"answer": "expected"})


def score(checkpoints: dict[str, str], items: pd.DataFrame, batch_size: int = 128) -> pd.DataFrame:
    """Every model's answer to every item: model, suite, item, correct, question, expected, answer, skill,
    gap.

    `checkpoints` maps a model's role (target, rectified, ...) to its folder or hub id; one is in memory at a
    time.
    """
    tables = []
    for role, path in checkpoints.items():
        vlm = models.load_vlm(path)
        answers = models.answer(vlm, items["image"].tolist(), items["question"].tolist(),
                                batch_size=batch_size, desc=role)
        correct = [same_answer(*pair) for pair in zip(answers, items["expected"], strict=True)]
        tables.append(items.assign(model=role, answer=answers, correct=correct))
    columns = ["model", "suite", "item", "correct", "question", "expected", "answer", "skill", "gap"]
    return pd.concat(tables, ignore_index=True)[columns]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion; it keeps its width at 0 and at 1. NaN where n is 0."""
    return tuple(proportion_confint(successes, n, method="wilson")) if n else (np.nan, np.nan)


def summary(items: pd.DataFrame) -> pd.DataFrame:
    """Scores by model and suite: model, suite, metric, n, score, ci_low, ci_high (all in 0-1).

    The row `average` is the mean accuracy of the suites, gap items left out, as in Figure 2 of the paper.
    """
    rows = []
    for (role, suite), group in items.groupby(["model", "suite"], sort=False):
        right, n = int(group["correct"].sum()), len(group)
        rows.append((role, suite, "accuracy", n, right / n, *wilson(right, n)))
        if suite in F1_SUITES:
            rows.append((role, suite, "f1", n, *_f1(group)))
    table = pd.DataFrame(rows, columns=["model", "suite", "metric", "n", "score", "ci_low", "ci_high"])
    averaged = table[(table["metric"] == "accuracy") & (table["suite"] != GAP_ITEMS)]
    means = [(role, "average", "accuracy", int(group["n"].sum()), *_average(group))
             for role, group in averaged.groupby("model", sort=False)]
    return pd.concat([table, pd.DataFrame(means, columns=table.columns)], ignore_index=True)


def comparisons(items: pd.DataFrame, baseline: str = "target") -> pd.DataFrame:
    """Each other model against the baseline on the same items: model, items, n, before, after, difference,
    ci_*.

    `items` names the subset: the gap items, all suites, the suites' items outside any planted gap, and of all
    items those that the baseline had right (there `before` is 1 by construction, so chance alone makes it
    fall a little).
    """
    table = items.pivot(index=["suite", "item"], columns="model", values="correct").astype(bool)
    gap = items.drop_duplicates(["suite", "item"]).set_index(["suite", "item"])["gap"].reindex(table.index)
    in_suites = table.index.get_level_values("suite") != GAP_ITEMS
    subsets = {GAP_ITEMS: ~in_suites, "suites": in_suites,
               "suites outside gaps": in_suites & gap.isna().to_numpy(),
               "right before": table[baseline].to_numpy()}
    rows = []
    for role in dict.fromkeys(items["model"]):
        for name, rows_in in subsets.items():
            pair = table.loc[rows_in, [baseline, role]].to_numpy()
            if role != baseline and len(pair):
                change = paired_difference(pair[:, 0], pair[:, 1])
                rows.append((role, name, len(pair), *pair.mean(axis=0), *change))
    columns = ["model", "items", "n", "before", "after", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def paired_difference(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Difference of two proportions on the same n items (bool arrays), with its 95 % interval.

    Agresti and Min (2005): half an item is added to each cell of the 2 x 2 table, so that the interval keeps
    its width where no item, or every item, changed.
    """
    gained, lost, n = (after & ~before).sum(), (before & ~after).sum(), len(before)
    centre = (gained - lost) / (n + 2)
    spread = 1.96 * np.sqrt((gained + lost + 1) - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return (gained - lost) / n, max(-1.0, centre - spread), min(1.0, centre + spread)


def _f1(group: pd.DataFrame) -> tuple[float, float, float]:
    # F1 = 2J / (1 + J), where J = tp / (tp + fp + fn) is a proportion and so has a Wilson interval.
    said = group["answer"].map(lambda text: same_answer(text, "yes"))
    true = group["expected"].map(lambda text: same_answer(text, "yes"))
    both, either = int((said & true).sum()), int((said | true).sum())
    low, high = wilson(both, either)
    jaccard = both / either if either else np.nan
    return tuple(2 * j / (1 + j) for j in (jaccard, low, high))


def _average(group: pd.DataFrame) -> tuple[float, float, float]:
    # Interval of a mean of independent proportions from their own intervals (the method of variance
    # recovery).
    mean, k = group["score"].mean(), len(group)
    below, above = group["score"] - group["ci_low"], group["ci_high"] - group["score"]
    return mean, mean - np.sqrt((below ** 2).sum()) / k, mean + np.sqrt((above ** 2).sum()) / k
