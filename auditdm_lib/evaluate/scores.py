"""Scores by suite, and comparisons of models on the same items, computed from a table of scored items.

The items come from `benchmarks.score`: model, suite, item, group, metric, score, correct, answer, expected, skill, gap.
"""

import numpy as np
import pandas as pd

from auditdm_lib import stats
from auditdm_lib.evaluate.metrics import pope

GAP_ITEMS = "gap-items"  # questions inside the planted gaps, on pictures that were not used in training
AGREEMENT = "agreement"  # the metric of `held_out`: with the consensus of the references, whose truth nobody knows
ROUNDS = 500  # bootstrap resamples


def held_out(items: pd.DataFrame) -> bool:
    """Whether the items are held-out questions scored against the consensus, and no suites; true also if none was scored."""
    return bool(items["metric"].eq(AGREEMENT).all())


def headlines(items: pd.DataFrame, model: str) -> dict[str, stats.Estimate]:
    """A model's score (0-1) on each suite by its headline metric, gap items included."""
    mine = items[items["model"] == model]
    return {suite: _measures(part)[0][2] for suite, part in mine.groupby("suite", sort=False)}


def average(items: pd.DataFrame, model: str) -> stats.Estimate:
    """The mean of a model's headline scores (0-1) without the gap items, as in Figure 2 of the paper."""
    return stats.average([estimate for suite, estimate in headlines(items, model).items() if suite != GAP_ITEMS])


def summary(items: pd.DataFrame) -> pd.DataFrame:
    """Scores by model and suite: model, suite, metric, n (groups of items), score, ci_low, ci_high (all in 0-1).

    The first row of a suite is its headline metric. The row `average` is the mean of the headline scores without the gap
    items, as in Figure 2 of the paper; held-out questions have none. Intervals are Wilson's if every group scores 0 or 1, else a
    bootstrap over the groups; agreement has one clustered by picture.
    """
    rows = [(role, suite, metric, n, *estimate) for (role, suite), part in items.groupby(["model", "suite"], sort=False)
            for metric, n, estimate in _measures(part)]
    groups = items[items["suite"] != GAP_ITEMS].groupby(["model", "suite"])["group"].nunique().groupby("model").sum()
    if not held_out(items):
        rows += [(role, "average", "mean", groups[role], *average(items, role)) for role in items["model"].unique()]
    return pd.DataFrame(rows, columns=["model", "suite", "metric", "n", "score", "ci_low", "ci_high"])


def _measures(part: pd.DataFrame) -> list[tuple[str, int, stats.Estimate]]:
    """The metrics of a suite, the headline first: name, number of groups, and value with its interval.

    MME's three are means over its tasks, which are the skills of the items: each counts the same, however many items it has.
    """
    metric, groups = part["metric"].iloc[0], part.groupby("group", sort=True)["score"]
    if metric == AGREEMENT:
        return [(metric, len(groups), stats.clustered_proportion(stats.tally(part["score"], part["group"])))]
    tasks = _tasks(part)
    measured = {metric: _by_group(part)}
    if metric == "circular":
        measured |= {"exact_match": groups.mean()}
    elif metric == "mme":
        measured |= {"accuracy": groups.mean(), "accuracy+": groups.min()}
    table = [(name, len(scores), _mean(scores, tasks)) for name, scores in measured.items()]
    if metric == "accuracy":
        yes = part["answer"].map(_says_yes)
        table += [("f1", len(part), _f1(part)), ("yes_ratio", len(part), stats.proportion(int(yes.sum()), len(part)))]
    return table


def _by_group(part: pd.DataFrame) -> pd.Series:
    """The headline score of each group of a suite's items: the mean, for CircularEval the worst, for MME the mean of the two."""
    metric, groups = part["metric"].iloc[0], part.groupby("group", sort=True)["score"]
    return groups.min() if metric == "circular" else (groups.mean() + groups.min()) / 2 if metric == "mme" else groups.mean()


def _tasks(part: pd.DataFrame) -> pd.Series | None:
    """The task of each group of MME's items; None for other suites."""
    return part.groupby("group", sort=True)["skill"].first() if part["metric"].iloc[0] == "mme" else None


def gains(items: pd.DataFrame, a: str, b: str) -> dict[str, stats.Estimate]:
    """The headline score (0-1) of model `a` minus that of model `b` on each suite, paired by group of items."""
    found = {}
    for suite, part in items[items["model"].isin([a, b])].groupby("suite", sort=False):
        one, other = (_by_group(part[part["model"] == model]) for model in (a, b))
        tasks = _tasks(part[part["model"] == a])
        parts = [one.index] if tasks is None else [rows.index for _, rows in tasks.groupby(tasks, dropna=False)]
        found[suite] = stats.average([stats.mean_difference(one[rows], other[rows]) for rows in parts])
    return found


def _says_yes(text: str) -> bool:
    """Whether an answer is a yes to POPE's script; an empty one is neither yes nor no."""
    return bool(text.strip()) and pope(text) == "yes"


def _mean(scores: pd.Series, tasks: pd.Series | None = None) -> stats.Estimate:
    """The mean of the groups' scores with its interval; the mean of the means by task where the groups belong to tasks."""
    if tasks is not None:
        return stats.average([_mean(task) for _, task in scores.groupby(tasks, dropna=False)])
    if scores.isin([0, 1]).all():
        return stats.proportion(int(scores.sum()), len(scores))
    frame = pd.DataFrame({"score": scores.to_numpy(), "group": range(len(scores))})
    return stats.Estimate(float(scores.mean()), *stats.bootstrap(frame, lambda f: f["score"].mean(), "group", 0, ROUNDS))


def comparisons(items: pd.DataFrame, baseline: str = "target") -> pd.DataFrame:
    """Each other model against the baseline on the same items: model, items, n, before, after, difference.

    The difference in accuracy (column `correct`) has a paired interval (ci_low, ci_high), by group where groups have several
    items. `items` names the subset: the gap items, all suites, the suites' items outside any planted gap, and, of all items,
    those that the baseline had right (`before` is 1 there by construction, so the accuracy falls a little by chance alone). For
    held-out questions there is a row for each suite instead.
    """
    rows, columns = [], ["model", "items", "n", "before", "after", "difference", "ci_low", "ci_high"]
    if items.empty:
        return pd.DataFrame(rows, columns=columns)
    table = items.pivot(index=["suite", "item"], columns="model", values="correct").astype(bool)
    about = items.drop_duplicates(["suite", "item"]).set_index(["suite", "item"])[["gap", "group"]].reindex(table.index)
    suite = table.index.get_level_values("suite")
    if held_out(items):
        subsets = {name: suite == name for name in suite.unique()}
    else:
        subsets = {GAP_ITEMS: suite == GAP_ITEMS, "suites": suite != GAP_ITEMS,
                   "suites outside gaps": (suite != GAP_ITEMS) & about["gap"].isna().to_numpy(),
                   "right before": table[baseline].to_numpy()}
    for role in dict.fromkeys(items["model"]):
        for name, rows_in in subsets.items():
            pair = table.loc[rows_in, [baseline, role]].to_numpy()
            if role != baseline and len(pair):
                change = _difference(pair[:, 1], pair[:, 0], suite[rows_in] + "/" + about.loc[rows_in, "group"])
                rows.append((role, name, len(pair), *pair.mean(axis=0), *change))
    return pd.DataFrame(rows, columns=columns)


def _difference(a: np.ndarray, b: np.ndarray, groups: pd.Series) -> stats.Estimate:
    """mean(a) - mean(b) of boolean arrays over the same items, paired by item, or by group where groups have several."""
    if groups.is_unique:
        return stats.paired_difference(a, b)
    return stats.clustered_difference(*(stats.tally(pd.Series(marks), groups) for marks in (a, b)))


def _f1(group: pd.DataFrame) -> stats.Estimate:
    # F1 = 2J / (1 + J), where J = tp / (tp + fp + fn) is a proportion and so has a Wilson interval.
    yes, true = group["answer"].map(_says_yes), group["expected"].map(_says_yes)
    jaccard = stats.proportion(int((yes & true).sum()), int((yes | true).sum()))
    return stats.Estimate(*(2 * j / (1 + j) for j in jaccard))
