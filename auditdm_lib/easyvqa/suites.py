"""The held-out suite of easy-VQA: its own questions about pictures that nothing was trained or audited on.

It is what `protocols.SuiteSource` asks for: `suite_names`, `suite_table` and `training_table`.
"""

import random
from pathlib import Path

import pandas as pd

from auditdm_lib.easyvqa import data

SUITE = "easy-vqa"


def suite_names() -> tuple[str, ...]:
    """The one suite."""
    return (SUITE,)


def suite_table(suite: str, n: int, seed: int, target: str | Path) -> pd.DataFrame:
    """At most `n` of the questions about the test pictures, one group a picture; no gap is planted in any target.

    Raises ValueError for another suite.
    """
    return pd.DataFrame([dict(
        item=f"{shown.name}: {text}", image=data.picture(shown.file), question=text, answer=answer, answers=[answer],
        options=None, group=shown.name, skill=data.kind(text), gap=None, metric="exact_match", tokens=8)
        for shown, text, answer in _asked(suite, "test", seed)[:n]])


def training_table(suite: str, n: int, seed: int) -> pd.DataFrame:
    """At most `n` of the questions about the training pictures, with their answers. Raises ValueError for another suite."""
    return pd.DataFrame([dict(image=data.picture(shown.file), question=text, answer=answer)
                         for shown, text, answer in _asked(suite, "train", seed)[:n]], columns=["image", "question", "answer"])


def _asked(suite: str, split: str, seed: int) -> list[tuple]:
    """The questions about the pictures of a split, shuffled: (picture, question, answer)."""
    if suite != SUITE:
        raise ValueError(f"Unknown suite {suite!r}; there is {SUITE}.")
    asked = [(shown, text, answer) for shown in data.split(split) for text, answer in dict(shown.rows).items()]
    random.Random(f"suite/easy-vqa/{seed}").shuffle(asked)
    return asked
