"""The answers of several models to the same held-out items, and the score of each; `scores` aggregates and compares them.

Each suite is scored by the metric of the benchmark it is named after, as its owners compute it (`metrics`, whose docstrings
list the departures). All scores lie in 0-1, so that suites can be averaged: MME's score of 0-200 for a task is divided by
200 and averaged over the tasks, which MME adds up, and CIDEr-D of 0-10 is divided by 10. The paper averages CIDEr points
(100 x CIDEr-D) with percentages.
"""

from pathlib import Path

import pandas as pd

from auditdm_lib.audit.soundness import check_answers
from auditdm_lib.evaluate import metrics
from auditdm_lib.evaluate.scores import GAP_ITEMS
from auditdm_lib.models.vlm import VLM, is_chat, load_vlm, replies
from auditdm_lib.protocols import supplier
from auditdm_lib.replies import without_thought
from auditdm_lib.run.manifest import Stop

METRICS = {  # a suite's metric -> the score of one prediction against its accepted answers; `scores` aggregates each in its way
    "exact_match": metrics.exact_match, "circular": metrics.exact_match, "vqa_accuracy": metrics.vqa_accuracy,
    "anls": metrics.anls, "relaxed_accuracy": metrics.relaxed_accuracy, "iou": metrics.iou, "accuracy": metrics.polled,
    "mme": metrics.polled_by_mme, "cider_d": metrics.cider_d}  # CIDEr-D scores all captions of a suite together
COLUMNS = ["model", "suite", "item", "group", "metric", "score", "correct", "question", "expected", "answer", "skill", "gap"]
CIDER_BEST = 10  # maximum of CIDEr-D
RIGHT, RIGHT_CAPTION = 0.5, 0.1  # an item is correct from this score on: a half, and for captions 100 CIDEr points


def load_items(suite_source: str, names: list[str], per_suite: int, per_gap: int, seed: int, target: str | Path) -> pd.DataFrame:
    """The items of the named suites: suite, item, image (PIL RGB), question, expected, answers, options, group, skill, gap,
    metric, tokens.

    `suite_source` names the supplier of the suites (`protocols.SuiteSource`), `target` the audited model. `gap` is the gap
    planted in the target in which the question lies, null outside. If none was planted, the gap items are left out with a
    message. Raises ValueError for an unknown suite, and if no suite is left.
    """
    source = supplier("suite_source", suite_source)
    if unknown := [name for name in names if name not in source.suite_names()]:
        raise ValueError(f"No suite {unknown[0]!r}: the suites are {', '.join(source.suite_names())}.")
    tables = []
    for name in names:
        table = source.suite_table(name, per_gap if name == GAP_ITEMS else per_suite, seed, target).assign(suite=name)
        if table.empty:
            print(f"{name} is left out: no gaps were planted in {target}.")
        else:
            tables.append(table)
    if not tables:
        raise ValueError(f"There is no suite to score; name one of {', '.join(source.suite_names())}.")
    return pd.concat(tables, ignore_index=True).rename(columns={"answer": "expected"})


def score(checkpoints: dict[str, str], items: pd.DataFrame, batch_size: int = 128,
          asked: dict[str, dict] | None = None) -> pd.DataFrame:
    """Every model's answer to every item (COLUMNS).

    `checkpoints` maps a model's role (target, rectified, ...) to its folder or hub id, `asked` some roles to what replaces fields
    of its `Asking`. Only one model is in memory at a time. Items that a server left unanswered are left out for all. An answer is
    the whole reply without its thinking, since each metric reads it in its own way. `score` is 0-1 by the suite's metric.
    `correct` is a score of a half or more (like RefCOCO's accuracy at an IoU of 0.5), for captions of a tenth or more (100 CIDEr
    points). Raises Broken if a model says nothing or the same to everything.
    """
    given = {role: _answers(load_vlm(path, (asked or {}).get(role)), items, batch_size, role)
             for role, path in checkpoints.items()}
    answered, tables = pd.concat(given, axis=1).notna().all(axis=1), []
    if not answered.all():
        print(f"{(~answered).sum()} of {len(items)} items are left out, since a server gave no answer to them.")
        items = items[answered]
    if items.empty:
        raise Stop("No item was answered by all models, because of an error of a server or of a limit: see what was said above.")
    for role, answers in given.items():
        scores = pd.concat([_scores(part.assign(answer=answers)) for _, part in items.groupby("suite", sort=False)])
        threshold = items["metric"].eq("cider_d").map({True: RIGHT_CAPTION, False: RIGHT})
        tables.append(items.assign(model=role, answer=answers, score=scores, correct=scores >= threshold))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _answers(vlm: VLM, items: pd.DataFrame, batch_size: int, role: str) -> pd.Series:
    """A model's answers to all items, None where a server gave none. Chat models are not told to be short where a caption or a
    box is asked for."""
    answers, cut = pd.Series(index=items.index, dtype=object), pd.Series(False, items.index)
    long = items["metric"].isin(["cider_d", "iou"]) & is_chat(vlm)
    for (tokens, bare), part in items.groupby(["tokens", long]):
        given = replies(vlm, part["image"].tolist(), part["question"].tolist(), max(tokens, vlm.asking.max_new_tokens),
                        batch_size, role, bare, partly=True)
        answers[part.index] = [reply if reply is None else without_thought(reply) for reply in given["reply"]]
        cut[part.index] = (~given["ended"] & given["reply"].notna()).to_numpy(bool)
    if cut.any():
        print(f"{role}: {cut.sum()} of {len(cut)} replies did not end within their limit and are scored as they are.")
    check_answers(items["question"].tolist(), {role: answers.tolist(), "suites": items["expected"].tolist()},
                  {role: [False] * len(items), "suites": [False] * len(items)}, declining=True)
    return answers


def _scores(part: pd.DataFrame) -> pd.Series:
    """The score of each item of one suite, 0-1."""
    metric = part["metric"].iloc[0]
    if metric == "cider_d":
        return pd.Series(metrics.cider_d(part["answer"].tolist(), part["answers"].tolist()) / CIDER_BEST, part.index)
    return pd.Series([
        float(metrics.choice(item.answer, item.options) == item.expected) if isinstance(item.options, list)
        else METRICS[metric](item.answer, item.answers) for item in part.itertuples()], part.index, dtype=float)
