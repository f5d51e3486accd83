"""Questions in the formats of suites, on their own training pictures, that are learned beside what an audit found.

An auditor asks short questions, and a target that is fine-tuned on these alone unlearns other formats, such as a caption, a box,
or a yes or no to a statement. Models that were tuned for a task have its training set (the paper's labelled case); for others the
formats are rehearsed without a label.
"""

from io import BytesIO

import pandas as pd
from datasets import Dataset, concatenate_datasets
from PIL import Image

from auditdm_lib.answers import same_answer
from auditdm_lib.audit.panel import Panel
from auditdm_lib.models.vlm import answer
from auditdm_lib.protocols import supplier
from auditdm_lib.training.rectify import EXAMPLE


def task_examples(suite_source: str, suites: list[str], n: int, seed: int, panel: Panel, labelled: bool) -> pd.DataFrame:
    """Up to `n` training questions of each suite: suite, image (PIL RGB), question, answer.

    `labelled` takes them all with their true answers. Else no label is used: those that the target and all references answer
    alike, with the target's answer, so that nothing is taught in which it may be wrong alone. Raises ValueError for an unknown
    suite.
    """
    tables = [supplier("suite_source", suite_source).training_table(suite, n, seed).assign(suite=suite) for suite in suites]
    table = pd.concat([pd.DataFrame(columns=["suite", "image", "question", "answer"]), *tables], ignore_index=True)
    if labelled or table.empty:
        return table
    given = [answer(member, table["image"].tolist(), table["question"].tolist()) for member in (panel.target, *panel.references)]
    alike = [said is not None and all(other is not None and same_answer(said, other) for other in others)
             for said, *others in zip(*given, strict=True)]
    return table.assign(answer=given[0])[alike].reset_index(drop=True)


def joined(data: Dataset, examples: pd.DataFrame) -> Dataset:
    """A data set of examples with those of suites behind them; without any of the former, as it is: nothing is rectified."""
    if not len(data) or examples.empty:
        return data
    rows = [dict(image=dict(bytes=_png(row.image), path=None), question=row.question, answer=row.answer)
            for row in examples.itertuples()]
    return concatenate_datasets([data, Dataset.from_list(rows, features=EXAMPLE)])


def _png(image: Image.Image) -> bytes:
    with BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()
