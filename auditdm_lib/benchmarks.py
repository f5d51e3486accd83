"""Scores of several models on the same held-out items, and their paired comparison with the target.

VQA accuracy here is the exact match of short answers (`consensus.same_answer`), one right answer an item.
"""

import pandas as pd

from auditdm_lib import models, stats
from auditdm_lib.consensus import same_answer
from auditdm_lib.testbed import suites as testbed

GAP_ITEMS = "gap-items"  # questions inside the planted gaps, on pictures that nothing was trained on
F1_SUITES = {"pope-mini"}  # yes/no suites whose benchmark also reports the F1 of "yes"


def load_items(names: list[str], per_suite: int, per_gap: int, seed: int) -> pd.DataFrame:
    """The items of the named suites: suite, item, image (PIL RGB), question, expected, skill, gap.

    `gap` is null outside the planted gaps. Raises ValueError for a name that is no suite.
    """
    known = [*testbed.SUITES, GAP_ITEMS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"No suite {unknown[0]!r}: the suites are {', '.join(known)}.")
    tables = [(testbed.gap_items(per_gap, seed) if name == GAP_ITEMS
               else testbed.suite_items(name, per_suite, seed)).assign(suite=name) for name in names]
    items = pd.concat(tables, ignore_index=True)
    return items.rename(columns={"answer": "expected"})


def score(checkpoints: dict[str, str], items: pd.DataFrame, batch_size: int = 128) -> pd.DataFrame:
    """Every model's answer to every item: model, suite, item, correct, question, expected, answer, skill ...

    `checkpoints` maps a model's role (target, rectified, ...) to its folder or hub id. One model is in memory
    at a time.
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


def summary(items: pd.DataFrame) -> pd.DataFrame:
    """Scores by model and suite: model, suite, metric, n, score, ci_low, ci_high (all in 0-1).

    The row `average` is the mean accuracy of the suites, gap items left out, as in Figure 2 of the paper.
    """
    rows = []
    for (role, suite), group in items.groupby(["model", "suite"], sort=False):
        accuracy = stats.proportion(int(group["correct"].sum()), len(group))
        rows.append((role, suite, "accuracy", len(group), *accuracy))
        if suite in F1_SUITES:
            rows.append((role, suite, "f1", len(group), *_f1(group)))
    table = pd.DataFrame(rows, columns=["model", "suite", "metric", "n", "score", "ci_low", "ci_high"])
    averaged = table[(table["metric"] == "accuracy") & (table["suite"] != GAP_ITEMS)]
    means = []
    for role, group in averaged.groupby("model", sort=False):
        parts = group[["score", "ci_low", "ci_high"]].itertuples(index=False)
        means.append((role, "average", "accuracy", int(group["n"].sum()), *stats.average(list(parts))))
    return pd.concat([table, pd.DataFrame(means, columns=table.columns)], ignore_index=True)


def comparisons(items: pd.DataFrame, baseline: str = "target") -> pd.DataFrame:
    """Each other model against the baseline on the same items: model, items, n, before, after, difference.

    The interval of the difference is paired (ci_low, ci_high). `items` names the subset: the gap items, all
    suites, the suites' items outside any planted gap, and of all items those that the baseline had right
    (there `before` is 1 by construction, so chance alone makes it fall a little).
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
                change = stats.paired_difference(pair[:, 1], pair[:, 0])
                rows.append((role, name, len(pair), *pair.mean(axis=0), *change))
    columns = ["model", "items", "n", "before", "after", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def _f1(group: pd.DataFrame) -> stats.Estimate:
    # F1 = 2J / (1 + J), where J = tp / (tp + fp + fn) is a proportion and so has a Wilson interval.
    said = group["answer"].map(lambda text: same_answer(text, "yes"))
    true = group["expected"].map(lambda text: same_answer(text, "yes"))
    jaccard = stats.proportion(int((said & true).sum()), int((said | true).sum()))
    return stats.Estimate(*(2 * j / (1 + j) for j in jaccard))
