"""Held-out questions about pictures that no suite is about: what the models answer is compared with the consensus of the
references, by the judge D, on pictures of the split `test`, which no earlier stage saw.

There are two suites: random questions, and the questions on which the trained auditor found the target to disagree, put to other
pictures. Their only metric is `agreement`; it says how alike the models are, not who is right.
"""

import random

import pandas as pd

from auditdm_lib.audit.panel import Panel, agreement, judge
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.evaluate.benchmarks import COLUMNS
from auditdm_lib.evaluate.scores import AGREEMENT
from auditdm_lib.models.vlm import load_vlm

RANDOM, FAILED = "held-out", "held-out-failures"
COUNTS = ["suite", "pictures", "asked", "without_consensus", "unanswered", "scored"]


def questions(pictures: Pictures, probes: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One question of each suite about each of `pictures`, each pair once: suite, item, group (the picture), image, question.

    `probes` is probes.parquet. Without a disagreement of the trained auditor there are random questions only.
    """
    failed = probes["disagrees"].astype(bool) & probes["picture_reason"].isna()
    found = sorted(set(probes.loc[(probes["auditor"] == "trained") & failed, "question"]))
    rows = []
    for suite in (RANDOM, FAILED) if found else (RANDOM,):
        rng = random.Random(f"{suite}/{seed}")
        asked = [pictures.random_question(i, rng) if suite == RANDOM else rng.choice(found) for i in range(len(pictures))]
        rows += [(suite, f"{name}: {text}", name, image, text)
                 for name, image, text in zip(pictures.names, pictures.images, asked, strict=True)]
    table = pd.DataFrame(rows, columns=["suite", "item", "group", "image", "question"])
    return table.drop_duplicates(["suite", "item"], ignore_index=True)


def with_consensus(panel: Panel, asked: pd.DataFrame) -> pd.DataFrame:
    """`questions` with the references' consensus (`expected`, null where there is none), the target's answer and whether it
    agrees: answer, agrees. `gap`, `skill` and `metric` are as in a suite's table."""
    judged = judge(panel, asked["image"].tolist(), asked["question"].tolist(), [None] * len(asked), desc="held-out questions")
    return asked.assign(expected=judged["consensus"], answer=judged["target_answer"], agrees=~judged["disagrees"],
                        gap=None, skill=None, metric=AGREEMENT)


def score(panel: Panel, tuned: dict[str, str], items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The answers of the target and of the models `tuned` (role -> folder) to the items with a consensus (`benchmarks.COLUMNS`),
    and how many questions of each suite were left out (COUNTS).

    An item that some model gave no answer to (an error, a reply that did not end) is left out for all. One tuned model is in
    memory at a time.
    """
    agreed = items[items["expected"].notna()].reset_index(drop=True)
    given = {"target": agreed[["answer", "agrees"]]}
    for role, path in tuned.items():
        given[role] = agreement(load_vlm(path), role, agreed["image"].tolist(), agreed["question"].tolist(),
                                agreed["expected"].tolist(), panel.llm)
    answered = pd.concat([table["answer"].notna() for table in given.values()], axis=1).all(axis=1)
    scores = pd.concat([agreed.assign(model=role, answer=table["answer"], correct=table["agrees"],
                                      score=table["agrees"].astype(float))[answered] for role, table in given.items()],
                       ignore_index=True)[COLUMNS]
    suites = items.groupby("suite", sort=False)
    kept, whole = (table["suite"].value_counts() for table in (agreed[answered], agreed))
    counts = pd.DataFrame(dict(pictures=suites["group"].nunique(), asked=suites.size()))
    counts["scored"] = kept.reindex(counts.index, fill_value=0)
    counts["unanswered"] = whole.reindex(counts.index, fill_value=0) - counts["scored"]
    counts["without_consensus"] = counts["asked"] - counts["scored"] - counts["unanswered"]
    return scores, counts.reset_index()[COUNTS]
