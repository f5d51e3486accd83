"""The panel: the target and the references, asked the same questions, and Equation 1 applied to their answers.

No ground truth is used here: a panel judges by the answers of its members alone.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from PIL import Image

from auditdm_lib.answers import abstains, normalise, same_answer
from auditdm_lib.audit.consensus import check_rule, consensus, disagrees, still_open
from auditdm_lib.models.llm import LLM, same_meaning
from auditdm_lib.models.vlm import VLM, answer


@dataclass(frozen=True)
class Panel:
    """The target, the references whose consensus is the oracle, the consensus rule, and the judge D that compares answers.

    `llm` is the judge; None compares answers by the normalised match. Raises ValueError on an unknown rule.
    """

    target: VLM
    references: list[VLM]
    rule: str = "unanimity"
    llm: LLM | None = None

    def __post_init__(self):
        check_rule(self.rule)  # so that a typo is reported before any model is run


def members(panel: Panel) -> list[str]:
    """The folders or hub ids of a panel's models: target, references and the LLM judge, if there is one."""
    return [model.name for model in (panel.target, *panel.references, panel.llm) if model]


def judge(panel: Panel, images: list[Image.Image], questions: list[str], invalid: list[str | None], cascade: bool = False,
          full_share: float = 0.05, seed: int | str = 0, desc: str | None = None) -> pd.DataFrame:
    """Ask the panel question i about image i, unless `invalid[i]` gives a reason not to.

    Returns one row per question:
      target_answer      None if the target was not asked or raised an error
      reference_answers  list with one entry per reference; None if it was not asked or raised an error
      consensus          by the panel's rule; None where there is none or not every reference was asked
      disagrees          Equation 1
      in_full            every member was asked, whatever the others answered (with `cascade`: a random sample of the rows)
      errors             number of members that raised an error on this row

    With `cascade` a reference is asked only while the earlier answers leave open whether the target disagrees. This gives the
    same `disagrees` as asking all references, with fewer calls. The rows whose consensus is then known are a biased sample, so
    a random share `full_share` of the rows is asked in full: compute rates over the rows with `in_full`.

    If a member raises RuntimeError, ValueError or OSError on a question, its answer is missing; one warning gives the number
    of missing answers. Raises RuntimeError if a member fails on every one of several questions, and ValueError for `cascade`
    with an LLM judge.
    """
    if cascade and panel.llm is not None:
        raise ValueError("The cascade needs an equivalence relation between answers, which an LLM judge does not give: "
                         "ask all members (cascade=False) or compare answers by the normalised match (llm=None).")
    n, others = len(questions), len(panel.references)
    cascade = cascade and others > 1  # with one reference no call can be saved
    rng = random.Random(f"asked in full/{seed}")
    drawn = [not cascade or rng.random() < full_share for _ in range(n)]  # for all rows: independent of `invalid`
    rows = [i for i, reason in enumerate(invalid) if reason is None]
    target, votes, errors, failures = [None] * n, [[None] * others for _ in range(n)], [0] * n, []

    def collect_answers(member: VLM, name: str) -> list[str | None]:
        given, failure = _ask(member, [images[i] for i in rows], [questions[i] for i in rows], name, desc)
        for i, text in zip(rows, given, strict=True):
            errors[i] += text is None
        if failure is not None:
            failures.append(f"{name} ({member.name}): {failure}")
        return given

    for i, text in zip(rows, collect_answers(panel.target, "target"), strict=True):
        target[i] = text
    for k, reference in enumerate(panel.references):
        rows = [i for i in rows if drawn[i] or still_open(target[i], votes[i][:k], others - k, panel.rule)]
        for i, text in zip(rows, collect_answers(reference, f"reference {k + 1}"), strict=True):
            votes[i][k] = text
    if failures:
        warnings.warn(f"{sum(errors)} answers are missing because a model raised an error; the first was raised by the "
                      f"{failures[0]}", stacklevel=2)
    # `rows` are now the rows on which every reference was asked
    same = _same_by(panel.llm, {i: (questions[i], [target[i], *votes[i]]) for i in rows})
    agreed = {i: consensus(votes[i], panel.rule, same(i)) for i in rows}
    return pd.DataFrame(dict(
        target_answer=pd.Series(target, dtype=object), reference_answers=pd.Series(votes, dtype=object),
        consensus=pd.Series([agreed.get(i) for i in range(n)], dtype=object),
        disagrees=pd.Series([i in agreed and disagrees(target[i], agreed[i], same(i)) for i in range(n)], dtype=bool),
        in_full=pd.Series([d and r is None for d, r in zip(drawn, invalid, strict=True)], dtype=bool),
        errors=pd.Series(errors, dtype=int)))


def _ask(member: VLM, images: list[Image.Image], questions: list[str], name: str,
         desc: str | None) -> tuple[list[str | None], str | None]:
    """A member's answers (None where it raised an error) and its first error message.

    A batch that raises an error is halved until the single questions at fault are found. Raises RuntimeError if all
    questions, and at least two, are at fault.
    """
    n, failed, first = len(questions), 0, None
    texts, todo = [None] * n, [range(n)] if n else []
    while todo:
        part = todo.pop()
        try:
            given = answer(member, [images[i] for i in part], [questions[i] for i in part],
                           desc=f"{desc}: {name}" if desc and len(part) == n else None)
        except (RuntimeError, ValueError, OSError) as error:
            # the retry runs outside this block, in which the exception would keep the batch's memory alive
            if len(part) > 1:
                todo += [part[len(part) // 2:], part[:len(part) // 2]]
            else:
                failed, first = failed + 1, first if first is not None else error
            continue
        for i, text in zip(part, given, strict=True):
            texts[i] = text
    reason = first and f"{type(first).__name__}: {first}".splitlines()[0]
    if failed == n > 1:
        raise RuntimeError(f"The {name} ({member.name}) raised an error on every one of {n} questions ({reason}): it is broken, "
                           "so check that it can answer a single question, or use another model.") from first
    return texts, reason


def _same_by(llm: LLM | None, rows: dict[int, tuple[str, list[str | None]]]) -> Callable[[int], Callable[[str, str], bool]]:
    """The judge D for each row of `rows` {row: (question, answers)}; an LLM judges all pairs of different answers in one call."""
    if llm is None:
        return lambda i: same_answer
    asked = {}
    for question, answers in rows.values():
        # one spelling for each normalised answer, independent of the order of the references
        spelled = {normalise(a): a for a in sorted((a for a in answers if not abstains(a)), reverse=True)}
        for a, b in combinations(sorted(spelled), 2):
            asked.setdefault((question, a, b), (question, spelled[a], spelled[b]))
    verdicts = dict(zip(asked, same_meaning(llm, list(asked.values())), strict=True))
    # a pair without a verdict contains an abstention, which equals no other answer
    return lambda i: lambda a, b: same_answer(a, b) or verdicts.get((rows[i][0], *sorted((normalise(a), normalise(b)))), False)
