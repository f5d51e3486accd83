"""Training sets for the question what an audit is worth: equally large sets that differ only in where their examples come from.

Every set is labelled by the consensus of the references, but for the ceiling, which has the true answers. The sets of failures
(audited, its ceiling, and failures found by chance) hold as many failures, a share FAILURES of the set, and rehearsal: questions,
random ones and the trained auditor's, on which the target agreed with the consensus. The auditor's are near its failures, so the
target does not learn one side of a kind of question only. The paper compares with no other data than none at all.
"""

import random

import numpy as np
import pandas as pd

from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import Pictures

DATASET, PROMPT_ONLY, AUDITED, CEILING, BY_CHANCE = "dataset", "prompt_only", "audited", "true_labels", "by_chance"
ARMS = {  # arm -> what it is called where it is shown
    DATASET: "dataset questions", PROMPT_ONLY: "prompt-only questions", AUDITED: "audited failures",
    CEILING: "audited, true labels", BY_CHANCE: "failures by chance"}
REHEARSAL, NEAR = "rehearsal", "rehearsal near the failures"  # pools, no arms
FAILURES = 0.3  # share of failures in a set of failures, as in stage 04 (our choice, the same for all such sets)
COLUMNS = ["image", "question", "answer", "truth", "failure", "category", "call"]


def examples_of(probes: pd.DataFrame, folder: str) -> pd.DataFrame:
    """What can be learnt from one auditor's probes (rows of probes.parquet, in their order): COLUMNS, each pair of image and
    question once, without those that have no consensus or a picture that failed its check.

    `image` is relative to the run, `folder` being that of the pictures; `answer` is the consensus; `call` counts the target's
    calls up to the probe, from 1; `category` is -1.
    """
    rows = probes.reset_index(drop=True)
    rows = rows.assign(call=rows["target_answer"].notna().cumsum(), category=-1, failure=rows["disagrees"].astype(bool),
                       answer=rows["consensus"], image=folder + "/" + rows["image"])
    return rows[rows["consensus"].notna() & rows["picture_reason"].isna()].drop_duplicates(["image", "question"])[COLUMNS]


def pools(probes: pd.DataFrame, types: pd.DataFrame, chance: pd.DataFrame, folder: str) -> dict[str, pd.DataFrame]:
    """The examples from which each arm draws, and the rehearsal: random questions (REHEARSAL) and the trained auditor's (NEAR).

    `probes` is probes.parquet with its pictures below `folder`; `types` gives the failures in confirmed types their type
    (probe_id, category); `chance` are the failures found by random questions (`failures_by_chance`). All have COLUMNS.
    """
    by = {name: examples_of(rows, folder).join(rows.reset_index(drop=True)["probe_id"])
          for name, rows in probes.groupby("auditor", sort=False) if name in ("random", PROMPT_ONLY, "trained")}
    unselected, asked = (by[name][COLUMNS] for name in ("random", PROMPT_ONLY))
    found = by["trained"][by["trained"]["failure"]].drop(columns="category").merge(types, on="probe_id")[COLUMNS]
    found = found.sort_values("call", ignore_index=True)  # a merge may have another order
    known = found[found["truth"].notna()]
    right, near = (rows[~rows["failure"]] for rows in (unselected, by["trained"][COLUMNS]))
    return {DATASET: unselected, PROMPT_ONLY: asked, AUDITED: found, CEILING: known.assign(answer=known["truth"]),
            BY_CHANCE: chance, REHEARSAL: right, NEAR: near}


def failures_by_chance(panel: Panel, pictures: Pictures, seed: int) -> pd.DataFrame:
    """Ask a random question about each picture, and keep the disagreements with the consensus: COLUMNS, `image` being the place
    of the picture (int).

    A reference is asked only where its answer can change whether the target disagrees, so the calls counted are the target's.
    """
    rng = random.Random(f"failures by chance/{seed}")
    asked = [pictures.random_question(i, rng) for i in range(len(pictures))]
    judged = judge(panel, pictures.images, asked, [None] * len(asked), cascade=panel.llm is None, full_share=0, desc="by chance")
    right = [pictures.truth.right_answer(i, question) if pictures.truth else None for i, question in enumerate(asked)]
    table = pd.DataFrame(dict(image=range(len(asked)), question=asked, answer=judged["consensus"], failure=True, category=-1,
                              truth=pd.Series(right, dtype=object), call=judged["target_answer"].notna().cumsum(),
                              name=pictures.names))
    return table[judged["disagrees"]].drop_duplicates(["name", "question"])[COLUMNS].reset_index(drop=True)


def of_size(pools: dict[str, pd.DataFrame], arm: str, size: int, seed: int) -> pd.DataFrame:
    """`size` examples of an arm, shuffled: COLUMNS. Raises ValueError where the pools hold too few."""
    if arm in (DATASET, PROMPT_ONLY):
        return _sample(pools[arm], size, arm, seed)
    failures = round(size * FAILURES)
    found = spread(_enough(pools[arm], failures, arm), failures, seed)
    return _with_rehearsal(pd.concat([pools[REHEARSAL], pools[NEAR]]), arm, found, size - failures, seed)


def within_calls(pools: dict[str, pd.DataFrame], arm: str, calls: int, most: int, seed: int) -> pd.DataFrame:
    """The failures of an arm that `calls` calls of the target found, and their rehearsal, together at most `most`: COLUMNS.

    The calls of a training come on top. What was right is known of questions asked within the calls only; for failures found by
    an auditor the random questions stand for those of its training. Raises ValueError where no failure was found.
    """
    found, right, near = (pools[name][pools[name]["call"] <= calls] for name in (arm, REHEARSAL, NEAR))
    failures = min(len(_enough(found, 1, arm)), round(most * FAILURES))
    right = right if arm == BY_CHANCE else pd.concat([pools[REHEARSAL], near])
    return _with_rehearsal(right, arm, spread(found, failures, seed), round(failures * (1 / FAILURES - 1)), seed)


def spread(found: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """`n` of the failures, spread over their types (`category`) as evenly as these allow: a type with too few gives all it has.

    Failures of one type only, as those found by chance, are a plain sample. Independent of the order of the rows but for `call`.
    """
    order = np.random.default_rng(seed).permutation(len(found))
    turns = found.sort_values(["call", "question"]).iloc[order]
    return turns.assign(turn=turns.groupby("category").cumcount()).sort_values("turn", kind="stable").head(n)[COLUMNS]


def _with_rehearsal(right: pd.DataFrame, arm: str, failures: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    rehearsal = _sample(right.drop_duplicates(["image", "question"]), n, f"the rehearsal of {arm}", seed)
    return pd.concat([failures, rehearsal]).sample(frac=1, random_state=seed).reset_index(drop=True)


def _sample(pool: pd.DataFrame, n: int, what: str, seed: int) -> pd.DataFrame:
    return _enough(pool, n, what).sample(n, random_state=seed).reset_index(drop=True)


def _enough(pool: pd.DataFrame, n: int, what: str) -> pd.DataFrame:
    if len(pool) < n:
        raise ValueError(f"There are {len(pool)} examples with a consensus for {what.replace('_', ' ')}, fewer than the {n} "
                         "needed: ask more probes in stage 02 (probes_per_auditor), or take references that agree more often.")
    return pool
