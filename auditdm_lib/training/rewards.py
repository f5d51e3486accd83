"""The reward of GRPO: Equation 1, or a function of one's own of the auditor's texts and the members' answers.

Such a function takes the table of a step's judged probes (COLUMNS, one row a probe) and gives one finite number for each row. In
`my_rewards.py`, below the repository or on PYTHONPATH:

    import numpy as np

    def short_questions(probes):
        "Equation 1, and half of it for a question of more than eight words."
        words = probes["question"].fillna("").str.split().str.len()
        return probes["disagrees"] * np.where(words > 8, 0.5, 1.0)

`reward: my_rewards:short_questions` in a profile puts it in the place of Equation 1. A result depends on the source of that file
and on the library; what else the file imports is not looked at: after a change there, use --fresh and start a new kernel.
"""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd

from auditdm_lib import paths
from auditdm_lib.run import functions
from auditdm_lib.run.manifest import Stop

EQUATION_1 = "equation_1"
COLUMNS = ["kind", "pairing", "caption", "edit", "question", "invalid_reason", "target_answer", "reference_answers", "consensus",
           "disagrees"]
TRIAL = pd.DataFrame([  # a hit, agreement, no consensus, an invalid text, and an answer that did not end
    ("question", "Q*,I", None, None, "What is it?", None, "a cat", ["a dog", "a dog"], "a dog", True),
    ("question", "Q*,I", None, None, "What colour is it?", None, "red", ["red", "red"], "red", False),
    ("edit", "Q*,I*", None, "Add a dog.", "What was added?", None, "a cat", ["a dog", "cannot tell"], None, False),
    ("regeneration", "Q*,I*", "A red", None, None, "unfinished", None, [None, None], None, False),
    ("question", "Q*,I", None, None, "How many?", None, None, ["two", "two"], "two", True)], columns=COLUMNS)


def equation_1(judged: pd.DataFrame, no_consensus_reward: float = 0.0) -> np.ndarray:
    """Equation 1 for each judged probe: 1 if the target's answer differs from the references' consensus, else 0.

    `no_consensus_reward` is that of invalid probes and those without a consensus. 0 is the paper's; a value below 0 discourages
    questions that make no sense.
    """
    answered = judged["invalid_reason"].isna() & judged["consensus"].notna()
    return np.where(judged["disagrees"], 1.0, np.where(answered, 0.0, no_consensus_reward))


def without_errors(judged: pd.DataFrame, rewards: np.ndarray, group_size: int) -> np.ndarray:
    """The rewards of groups of `group_size` rows, with the mean of the others in its group for a probe that the error of a model
    or of a server kept from being judged (0 where it kept all): its advantage is 0, as the auditor has no part in it."""
    failed = judged["target_missing"].isin(["error", "not judged", "not asked"])
    failed |= judged["errors"].gt(0) & judged["consensus"].isna()
    known = np.where(failed, np.nan, rewards).reshape(-1, group_size)
    counted = np.maximum((~np.isnan(known)).sum(1, keepdims=True), 1)
    return np.where(np.isnan(known), np.nansum(known, 1, keepdims=True) / counted, known).ravel()


def load_reward(name: str, no_consensus_reward: float = 0.0) -> Callable[[pd.DataFrame], np.ndarray]:
    """The reward of judged probes by its name: "equation_1" or "module:function".

    One's own is tried on a few probes first. Raises Stop, also in use, if it gives anything but a finite number for each.
    """
    if name == EQUATION_1:
        return lambda judged: equation_1(judged, no_consensus_reward)
    if fault := functions.fault(name):
        raise Stop(f"reward: {fault}")
    module, _, function = name.partition(":")
    if str(paths.ROOT) not in sys.path:
        sys.path.append(str(paths.ROOT))
    try:
        given = getattr(_module(module), function)
        _checked(name, given, TRIAL)
    except Stop:
        raise
    except Exception as error:  # whatever a module of one's own raises
        raise Stop(f"reward: {name} raised {type(error).__name__} when it was tried: {error}") from error
    return lambda judged: _checked(name, given, judged[COLUMNS])


def _module(name: str) -> ModuleType:
    """The module as its source is now: an import would give the one that this process imported earlier, and might find another
    file than the one that `functions.digest` hashes."""
    file = functions.source_of(name)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, file))
    before = sys.modules.get(name)
    sys.modules[name] = module  # while it runs, too, as dataclasses look themselves up there
    try:
        exec(compile(file.read_bytes(), file, "exec"), vars(module))  # not the loader, which may take an older bytecode
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _checked(name: str, given: Callable[[pd.DataFrame], np.ndarray], probes: pd.DataFrame) -> np.ndarray:
    rewards = np.asarray(given(probes.copy()), float)
    if rewards.shape != (len(probes),):
        raise Stop(f"reward: {name} gave numbers of the shape {rewards.shape} for {len(probes)} probes: return one for each row.")
    if not np.isfinite(rewards).all():
        raise Stop(f"reward: {name} gave {rewards[~np.isfinite(rewards)][0]} for a probe: return finite numbers.")
    return rewards
