"""Several models' answers to the same held-out items and the score of each; `scores` adds them up and compares models.

Each suite is scored as the benchmark that it stands in for. All scores lie in 0-1, so that suites can be averaged: MME's
score of 0-200 is divided by 200, and CIDEr-D of 0-10 by 10. The paper averages CIDEr points, 100 x CIDEr-D, with percentages.
"""

from pathlib import Path

import pandas as pd

from auditdm_lib.evaluate import metrics
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.models import vlm as models
from auditdm_lib.testbed import suites as testbed
from auditdm_lib.testbed.gaps import gaps_of

GRADED = {  # metrics of one prediction and its answers; the others are exact matches, added up in their own ways
    "vqa_accuracy": metrics.vqa_accuracy, "anls": metrics.anls, "relaxed_accuracy": metrics.relaxed_accuracy, "iou": metrics.iou,
    "accuracy": metrics.polled, "mme": metrics.polled}
CIDER_BEST = 10  # of CIDEr-D
RIGHT, RIGHT_CAPTION = 0.5, 0.1  # the score above which an item counts as correct: half, and for a caption 100 CIDEr points


def load_items(names: list[str], per_suite: int, per_gap: int, seed: int, target: str | Path) -> pd.DataFrame:
    """The items of the named suites: suite, item, image (PIL RGB), question, expected, answers, options, group, skill, gap.

    `target` is the audited model: `gap` names the gap planted in it that the question meets, null outside. Where none is
    planted, the gap items are left out, and a line says so. Raises ValueError for a name that is no suite, and where no suite
    is left.
    """
    known = [*testbed.SUITES, GAP_ITEMS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"No suite {unknown[0]!r}: the suites are {', '.join(known)}.")
    gaps = gaps_of(target)
    if GAP_ITEMS in names and not gaps:
        print(f"{GAP_ITEMS} is left out: no gaps were planted in {target}.")
        names = [name for name in names if name != GAP_ITEMS]
    if not names:
        raise ValueError(f"There is no suite to score; name one of {', '.join(testbed.SUITES)}.")
    tables = [(testbed.gap_items(per_gap, seed, gaps) if name == GAP_ITEMS
               else testbed.suite_items(name, per_suite, seed, gaps=gaps)).assign(suite=name) for name in names]
    return pd.concat(tables, ignore_index=True).rename(columns={"answer": "expected"})


def score(checkpoints: dict[str, str], items: pd.DataFrame, batch_size: int = 128) -> pd.DataFrame:
    """Every model's answer to every item: model, suite, item, group, metric, score, correct, question, expected, answer, skill,
    gap.

    `checkpoints` maps a model's role (target, rectified, ...) to its folder or hub id. One model is in memory at a time.
    `score` is 0-1 by the suite's metric; `correct` is a score above a half (as RefCOCO's accuracy at an IoU of 0.5 is), for
    captions above a tenth (100 CIDEr points).
    """
    tables = []
    for role, path in checkpoints.items():
        vlm, answers = models.load_vlm(path), pd.Series(index=items.index, dtype=object)
        for tokens, part in items.groupby(items["suite"].map(_answer_length)):
            answers[part.index] = models.answer(vlm, part["image"].tolist(), part["question"].tolist(), max_new_tokens=tokens,
                                                batch_size=batch_size, desc=role)
        scores = pd.concat([_scores(suite, part.assign(answer=answers)) for suite, part in items.groupby("suite", sort=False)])
        tables.append(items.assign(model=role, metric=items["suite"].map(_metric), answer=answers, score=scores,
                                   correct=scores > items["suite"].map(_threshold)))
    columns = ["model", "suite", "item", "group", "metric", "score", "correct", "question", "expected", "answer", "skill", "gap"]
    return pd.concat(tables, ignore_index=True)[columns]


def _metric(suite: str) -> str:
    return testbed.SUITES[suite].metric if suite in testbed.SUITES else "exact_match"


def _answer_length(suite: str) -> int:
    return testbed.SUITES[suite].tokens if suite in testbed.SUITES else 8


def _threshold(suite: str) -> float:
    return RIGHT_CAPTION if _metric(suite) == "cider_d" else RIGHT


def _scores(suite: str, part: pd.DataFrame) -> pd.Series:
    """The score of each of a suite's items, 0-1."""
    metric = _metric(suite)
    if metric == "cider_d":
        return pd.Series(metrics.cider_d(part["answer"].tolist(), part["answers"].tolist()) / CIDER_BEST, part.index)
    graded = GRADED.get(metric, metrics.exact_match)
    return pd.Series([
        float(metrics.choice(item.answer, item.options) == item.expected) if isinstance(item.options, list)
        else graded(item.answer, item.answers) for item in part.itertuples()], part.index, dtype=float)
