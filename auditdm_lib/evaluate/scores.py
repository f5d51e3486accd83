"""What a table of scored items says: each suite's score, and models compared on the same items.

The items are those of `benchmarks.score`: model, suite, item, group, metric, score, correct, answer, expected, skill, gap.
"""

import pandas as pd

from auditdm_lib import stats
from auditdm_lib.evaluate.metrics import yes_no

GAP_ITEMS = "gap-items"  # questions inside the planted gaps, on pictures that nothing was trained on
ROUNDS = 500  # of the bootstrap


def headlines(items: pd.DataFrame, model: str) -> dict[str, stats.Estimate]:
    """A model's score (0-1) on each suite by its headline metric, gap items included."""
    mine = items[items["model"] == model]
    return {suite: _measures(part)[0][2] for suite, part in mine.groupby("suite", sort=False)}


def average(items: pd.DataFrame, model: str) -> stats.Estimate:
    """The mean of a model's headlines (0-1), gap items left out, as in Figure 2 of the paper."""
    return stats.average([estimate for suite, estimate in headlines(items, model).items() if suite != GAP_ITEMS])


def summary(items: pd.DataFrame) -> pd.DataFrame:
    """Scores by model and suite: model, suite, metric, n (groups of items), score, ci_low, ci_high (all in 0-1).

    The first row of a suite is its headline. The row `average` is the mean of the headlines, gap items left out, as in
    Figure 2 of the paper. Intervals are Wilson's where every group earns all or nothing, else a bootstrap over the groups.
    """
    rows = [(role, suite, metric, n, *estimate) for (role, suite), part in items.groupby(["model", "suite"], sort=False)
            for metric, n, estimate in _measures(part)]
    groups = items[items["suite"] != GAP_ITEMS].groupby(["model", "suite"])["group"].nunique().groupby("model").sum()
    rows += [(role, "average", "mean", groups[role], *average(items, role)) for role in items["model"].unique()]
    return pd.DataFrame(rows, columns=["model", "suite", "metric", "n", "score", "ci_low", "ci_high"])


def _measures(part: pd.DataFrame) -> list[tuple[str, int, stats.Estimate]]:
    """Each measure of a suite, the headline first: its name, how many groups it is over, and its value with interval."""
    metric, groups = part["metric"].iloc[0], part.groupby("group", sort=True)["score"]
    singly, whole = groups.mean(), groups.min()
    if metric == "circular":
        measured = {metric: whole, "exact_match": singly}
    elif metric == "mme":
        measured = {metric: (singly + whole) / 2, "accuracy": singly, "accuracy+": whole}
    else:
        measured = {metric: singly}
    table = [(name, len(scores), _mean(scores)) for name, scores in measured.items()]
    if metric == "accuracy":
        said = part["answer"].map(lambda text: yes_no(text) == "yes")
        table += [("f1", len(part), _f1(part)), ("yes_ratio", len(part), stats.proportion(int(said.sum()), len(part)))]
    return table


def _mean(scores: pd.Series) -> stats.Estimate:
    """The mean of one score a group."""
    if scores.isin([0, 1]).all():
        return stats.proportion(int(scores.sum()), len(scores))
    frame = pd.DataFrame({"score": scores.to_numpy(), "group": range(len(scores))})
    return stats.Estimate(float(scores.mean()), *stats.bootstrap(frame, lambda f: f["score"].mean(), "group", 0, ROUNDS))


def comparisons(items: pd.DataFrame, baseline: str = "target") -> pd.DataFrame:
    """Each other model against the baseline on the same items: model, items, n, before, after, difference.

    The interval of the difference is paired (ci_low, ci_high) and of the marks `correct`. `items` names the subset: the gap
    items, all suites, the suites' items outside any planted gap, and of all items those that the baseline had right
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
    said = group["answer"].map(lambda text: yes_no(text) == "yes")
    true = group["expected"].map(lambda text: yes_no(text) == "yes")
    jaccard = stats.proportion(int((said & true).sum()), int((said | true).sum()))
    return stats.Estimate(*(2 * j / (1 + j) for j in jaccard))
