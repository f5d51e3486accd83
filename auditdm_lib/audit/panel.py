"""The panel: the audited model and its references, asked together, and Equation 1 on what they say.

Nothing here knows the right answers: a panel judges by its members' answers alone.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from PIL import Image

from auditdm_lib.answers import abstains, normalise, same_answer
from auditdm_lib.audit.consensus import check_rule, consensus, disagrees, open_still
from auditdm_lib.models.llm import LLM, same_meaning
from auditdm_lib.models.vlm import VLM, answer


@dataclass(frozen=True)
class Panel:
    """Who answers a probe: the audited model and the models whose consensus is the oracle; and by which rule and judge D.

    `llm` None: answers are compared by the normalised match. Raises ValueError on an unknown rule.
    """

    target: VLM
    references: list[VLM]
    rule: str = "unanimity"
    llm: LLM | None = None

    def __post_init__(self):
        check_rule(self.rule)  # before any model is asked


def members(panel: Panel) -> list[str]:
    """The folders or hub ids of a panel's models: target, references and, where there is one, the LLM judge."""
    return [model.name for model in (panel.target, *panel.references, panel.llm) if model]


def judge(panel: Panel, images: list[Image.Image], questions: list[str], invalid: list[str | None], cascade: bool = False,
          full_share: float = 0.05, seed: int | str = 0, desc: str | None = None) -> pd.DataFrame:
    """Put question i about image i to the panel, except where `invalid[i]` names a reason not to.

    Returns one row a question:
      target_answer      None where not asked, or where the target raised an error
      reference_answers  list, one a reference; None for a member that was not asked or raised an error
      consensus          by the panel's rule; known where every reference was asked, else None
      disagrees          Equation 1
      in_full            every member was asked whatever the others said (with `cascade` only the rows drawn for it)
      errors             how many members raised an error on this row

    With `cascade` a reference is asked only where those before it leave open whether the target disagrees: `disagrees` is
    that of asking all, at fewer calls. But the rows whose consensus is then known are no fair sample, so a random share
    `full_share` of the rows is asked in full: take rates over the rows with `in_full`.

    A question on which a member raises RuntimeError, ValueError or OSError goes without its answer; one warning says how
    many did. Raises RuntimeError where a member raises on every one of several questions, and ValueError for `cascade`
    with an LLM judge.
    """
    if cascade and panel.llm is not None:
        raise ValueError("The cascade needs answers that fall into classes, which the verdicts of an LLM judge do not: "
                         "ask all members (cascade=False) or compare answers by the normalised match (llm=None).")
    n, others = len(questions), len(panel.references)
    cascade = cascade and others > 1  # with one reference there is nothing to spare
    rng = random.Random(f"asked in full/{seed}")
    drawn = [not cascade or rng.random() < full_share for _ in range(n)]  # for all rows: the draw does not hang on `invalid`
    rows = [i for i, reason in enumerate(invalid) if reason is None]
    target, votes, errors, failures = [None] * n, [[None] * others for _ in range(n)], [0] * n, []

    def put(member: VLM, name: str) -> list[str | None]:
        given, failure = _ask(member, [images[i] for i in rows], [questions[i] for i in rows], name, desc)
        for i, text in zip(rows, given, strict=True):
            errors[i] += text is None
        if failure is not None:
            failures.append(f"{name} ({member.name}): {failure}")
        return given

    for i, text in zip(rows, put(panel.target, "target"), strict=True):
        target[i] = text
    for k, reference in enumerate(panel.references):
        rows = [i for i in rows if drawn[i] or open_still(target[i], votes[i][:k], others - k, panel.rule)]
        for i, text in zip(rows, put(reference, f"reference {k + 1}"), strict=True):
            votes[i][k] = text
    if failures:
        warnings.warn(f"{sum(errors)} answers are missing because a model raised an error; the first was of the {failures[0]}",
                      stacklevel=2)
    # `rows` are now those whose every reference was asked
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
    """A member's answers, None where it raised an error, and its first error in words.

    A list that raises is halved until the single questions that do are found. Raises RuntimeError where all of at least
    two do.
    """
    n, failed, first = len(questions), 0, None
    texts, todo = [None] * n, [range(n)] if n else []
    while todo:
        part = todo.pop()
        try:
            given = answer(member, [images[i] for i in part], [questions[i] for i in part],
                           desc=f"{desc}: {name}" if desc and len(part) == n else None)
        except (RuntimeError, ValueError, OSError) as error:
            # tried again after this block, not in it, where the error would still hold the batch's memory
            if len(part) > 1:
                todo += [part[len(part) // 2:], part[:len(part) // 2]]
            else:
                failed, first = failed + 1, first if first is not None else error
            continue
        for i, text in zip(part, given, strict=True):
            texts[i] = text
    said = first and f"{type(first).__name__}: {first}".splitlines()[0]
    if failed == n > 1:
        raise RuntimeError(f"The {name} ({member.name}) raised an error on every one of {n} questions ({said}): it is broken, "
                           "so check that this model answers a single question, or give another.") from first
    return texts, said


def _same_by(llm: LLM | None, rows: dict[int, tuple[str, list[str | None]]]) -> Callable[[int], Callable[[str, str], bool]]:
    """The judge D on each row, of `rows` {row: (question, answers)}; an LLM is asked once, about all pairs that differ."""
    if llm is None:
        return lambda i: same_answer
    asked = {}
    for question, answers in rows.values():
        # one spelling for what is equal when normalised, the same in any order of the references
        spelled = {normalise(a): a for a in sorted((a for a in answers if not abstains(a)), reverse=True)}
        for a, b in combinations(sorted(spelled), 2):
            asked.setdefault((question, a, b), (question, spelled[a], spelled[b]))
    said = dict(zip(asked, same_meaning(llm, list(asked.values())), strict=True))
    # a pair that is not among them has an abstention in it, which is the same as no answer
    return lambda i: lambda a, b: same_answer(a, b) or said.get((rows[i][0], *sorted((normalise(a), normalise(b)))), False)
