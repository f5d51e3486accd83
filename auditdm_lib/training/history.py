"""The history of an auditor's training, one row per round or step."""

import pandas as pd

from auditdm_lib.audit.auditor import written
from auditdm_lib.training.topics import topics_of

HISTORY = ["phase", "step", "kind", "reward", "disagrees", "reward_std", "frac_reward_zero_std", "entropy", "kl", "invalid",
           "no_consensus", "distinct", "topics_hit", "target_calls", "reference_calls"]


def summary(judged: pd.DataFrame, found: set, calls: list[int]) -> dict:
    """A row of the history from judged probes with rewards: the kind of probe (or `all`), the mean reward, and the shares of
    disagreements, invalid probes, probes without consensus (among those put to all members) and distinct texts.

    `found` collects the topics of all disagreements of this phase so far, `calls` the numbers of calls of the target and of
    the references. Both are updated in place.
    """
    found |= {topics_of(row) for row in judged[judged["disagrees"]].itertuples()}
    calls[0] += int(judged["target_answer"].notna().sum())
    calls[1] += int(sum(a is not None for answers in judged["reference_answers"] for a in answers))
    full = judged[judged["in_full"]]
    return dict(
        kind=judged["kind"].iloc[0] if judged["kind"].nunique() == 1 else "all",
        reward=float(judged["reward"].mean()), disagrees=float(judged["disagrees"].mean()),
        invalid=float(judged["invalid_reason"].notna().mean()),
        no_consensus=float(full["consensus"].isna().mean()) if len(full) else float("nan"),
        distinct=len(set(written(judged))) / len(judged), topics_hit=len(found), target_calls=calls[0], reference_calls=calls[1])
