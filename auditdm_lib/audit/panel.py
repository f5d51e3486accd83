"""The panel: the target and the references, asked the same questions, and Equation 1 applied to their answers.

No ground truth is used here: a panel judges by the answers of its members alone.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from auditdm_lib.answers import abstains, normalise, same_answer
from auditdm_lib.audit.consensus import check_rule, consensus, disagrees, still_open
from auditdm_lib.audit.soundness import answering, check_answers
from auditdm_lib.models import endpoint
from auditdm_lib.models.endpoint import Endpoint
from auditdm_lib.models.llm import LLM, load_llm, same_meaning
from auditdm_lib.models.vlm import VLM, load_members, replies
from auditdm_lib.replies import short_answer
from auditdm_lib.run.manifest import Stop


@dataclass(frozen=True)
class Panel:
    """The target, the references whose consensus is the oracle, the consensus rule, and the judge D that compares answers.

    `llm` is the judge; None compares answers by the normalised match. `ask` asks all members (`bulk.spread`); None is `ask_all`.
    Raises ValueError on an unknown rule.
    """

    target: VLM | Endpoint
    references: list[VLM | Endpoint]
    rule: str = "unanimity"
    llm: LLM | None = None
    ask: Callable | None = None

    def __post_init__(self):
        check_rule(self.rule)  # so that a typo is reported before any model is run


def load_panel(setup: SimpleNamespace, seed: int, ask: Callable | None = None) -> Panel:
    """The panel of a notebook's setup (`Stage.setup`), its models loaded; `seed` is that of answers that are sampled."""
    llm = load_llm(setup.judge_model) if setup.judge_model else None
    target, *references = load_members(setup.target, setup.references, setup.answer_prompts, setup.answer_tokens,
                                       setup.answer_batch, setup.answer_temperature, seed)
    return Panel(target, references, setup.consensus_rule, llm, ask)


def members(panel: Panel) -> list[str]:
    """The folders or hub ids of a panel's models: target, references and the LLM judge, if there is one."""
    return [model.name for model in (panel.target, *panel.references, panel.llm) if model]


def try_out(panel: Panel, images: list[Image.Image], questions: list[str]) -> pd.DataFrame:
    """Ask every member question i about image i; one row per member (`soundness.answering`).

    Raises Broken with a member's name if it says nothing or the same to everything. To be called before a training, since an
    auditor learns within minutes to exploit a member that is broken.
    """
    asked = {name: _ask(member, images, questions, name, None) for name, member in named(panel).items()}
    answers, cut = ({name: getattr(given, field) for name, given in asked.items()} for field in ("answers", "unfinished"))
    check_answers(questions, answers, cut, declining=True)
    return answering(answers, cut)


def named(panel: Panel) -> dict[str, VLM]:
    """The target and the references by the names that messages use."""
    return {"target": panel.target} | {f"reference {k}": member for k, member in enumerate(panel.references, 1)}


def judge(panel: Panel, images: list[Image.Image], questions: list[str], invalid: list[str | None], cascade: bool = False,
          full_share: float = 0.05, seed: int | str = 0, desc: str | None = None) -> pd.DataFrame:
    """Ask the panel question i about image i, unless `invalid[i]` gives a reason not to.

    Returns one row per question:
      target_answer      the short answer in the target's reply; None if it was not asked, did not end or raised an error
      reference_answers  list with one entry per reference; None likewise
      consensus          by the panel's rule; None where there is none or not every reference was asked
      disagrees          Equation 1
      in_full            every member was asked, whatever the others answered (with `cascade`: a random sample of the rows), and
                         no judge behind a server left the consensus open
      errors             number of members that raised an error on this row
      unfinished         number of members whose reply did not end within its limit on this row
      target_missing     why an asked target has no answer: "error", "unfinished", or None; "not judged" where a judge behind a
                         server gave no verdict; "not asked" where a limit of calls or of cost (`endpoint.limit`) kept some
                         member or the judge from being asked

    With `cascade` a reference is asked only while the earlier answers leave open whether the target disagrees. This gives the
    same `disagrees` as asking all references, with fewer calls. The rows whose consensus is then known are a biased sample, so
    a random share `full_share` of the rows is asked in full: compute rates over the rows with `in_full`.

    If a member raises RuntimeError, ValueError or OSError on a question, its answer is missing; one warning gives the number
    of missing answers. Raises Broken if a member says nothing or the same to everything (`soundness.check_answers`),
    RuntimeError if it fails on every one of several questions, and ValueError for `cascade` with an LLM judge.
    """
    if cascade and panel.llm is not None:
        raise ValueError("The cascade needs an equivalence relation between answers, which an LLM judge does not give: "
                         "ask all members (cascade=False) or compare answers by the normalised match (llm=None).")
    n = len(questions)
    cascade = cascade and len(panel.references) > 1  # with one reference no call can be saved
    rng = random.Random(f"asked in full/{seed}")
    drawn = [not cascade or rng.random() < full_share for _ in range(n)]  # for all rows: independent of `invalid`
    rows = [i for i, reason in enumerate(invalid) if reason is None]
    asked, rows = (panel.ask or ask_all)(panel, images, questions, rows, drawn, desc)
    check_answers(questions, {name: given.answers for name, given in asked.items()},
                  {name: given.unfinished for name, given in asked.items()})
    target, references = asked["target"], [asked[name] for name in list(asked)[1:]]
    votes = [[given.answers[i] for given in references] for i in range(n)]
    errors = [sum(given.failed[i] for given in asked.values()) for i in range(n)]
    if failures := [f"{name} ({member.name}): {asked[name].failure}" for name, member in named(panel).items()
                    if asked[name].failure is not None]:
        warnings.warn(f"{sum(errors)} answers are missing because a model raised an error; the first was raised by the "
                      f"{failures[0]}", stacklevel=2)
    same, unjudged = same_by(panel.llm, {i: (questions[i], [target.answers[i], *votes[i]]) for i in rows})
    limited = [any(given.limited[i] for given in asked.values()) or unjudged.get(i) == endpoint.LIMIT for i in range(n)]
    agreed = {i: consensus(votes[i], panel.rule, same(i)) for i in rows if i not in unjudged}
    return pd.DataFrame(dict(
        target_answer=pd.Series(target.answers, dtype=object), reference_answers=pd.Series(votes, dtype=object),
        consensus=pd.Series([agreed.get(i) for i in range(n)], dtype=object),
        disagrees=pd.Series([i in agreed and disagrees(target.answers[i], agreed[i], same(i)) for i in range(n)], dtype=bool),
        in_full=pd.Series([d and r is None and not left and i not in unjudged for i, (d, r, left) in enumerate(
            zip(drawn, invalid, limited, strict=True))], dtype=bool),
        errors=pd.Series(errors, dtype=int),
        unfinished=pd.Series([sum(given.unfinished[i] for given in asked.values()) for i in range(n)], dtype=int),
        target_missing=pd.Series(["not asked" if limited[i] else "unfinished" if target.unfinished[i] else
                                  "error" if target.failed[i] else "not judged" if i in unjudged else None
                                  for i in range(n)], dtype=object)))


def agreement(member: VLM, name: str, images: list[Image.Image], questions: list[str], agreed: list[str],
              llm: LLM | None = None) -> pd.DataFrame:
    """A member's short answer to question i about image i (None: an error, unfinished or not judged), and whether it is
    `agreed[i]` by the judge D: answer, agrees."""
    given = _ask(member, images, questions, name, name)
    if given.failure:
        warnings.warn(f"{sum(given.failed)} answers of the {name} are missing because it raised an error: {given.failure}",
                      stacklevel=2)
    same, unjudged = same_by(llm, {i: (q, [given.answers[i], agreed[i]]) for i, q in enumerate(questions)})
    answers = [None if i in unjudged else a for i, a in enumerate(given.answers)]
    agrees = [a is not None and not disagrees(a, agreed[i], same(i)) for i, a in enumerate(answers)]
    return pd.DataFrame(dict(answer=pd.Series(answers, dtype=object), agrees=pd.Series(agrees, dtype=bool)))


def answers_of(panel: Panel, images: list[Image.Image], questions: list[str], wanted: np.ndarray,
               desc: str | None = None) -> list[list[str | None]]:
    """The members' short answers to question i about image i, the target's first: only those of member k where `wanted[i, k]`.

    None where a member is not asked, and where its reply did not end or it raised an error. Raises RuntimeError if a member fails
    on every one of several questions.
    """
    found = [[None] * wanted.shape[1] for _ in questions]
    for k, (name, member) in enumerate(named(panel).items()):
        rows = np.flatnonzero(wanted[:, k]).tolist()
        given = _ask(member, [images[i] for i in rows], [questions[i] for i in rows], name, desc)
        for i, answer in zip(rows, given.answers, strict=True):
            found[i][k] = answer
    return found


@dataclass
class Given:
    """What a member gave to each question: its short answer (None: not asked, unfinished or an error), whether its reply did not
    end, whether it raised an error, whether a limit kept it from being asked; and its first error message."""

    answers: list[str | None]
    unfinished: list[bool]
    failed: list[bool]
    limited: list[bool]
    failure: str | None = None


def ask_all(panel: Panel, images: list[Image.Image], questions: list[str], rows: list[int], drawn: list[bool],
            desc: str | None, some: bool = False) -> tuple[dict[str, Given], list[int]]:
    """What each member gives to the questions in `rows`, and the rows on which every reference was asked.

    A row that is not `drawn` is asked of a reference only while the answers so far leave open whether the target disagrees. If
    these are only `some` of the questions, a member may fail on all of them.
    """
    n, others, asked = len(questions), len(panel.references), {}
    for k, (name, member) in enumerate(named(panel).items()):
        if k:
            rows = [i for i in rows if not any(given.limited[i] for given in asked.values())]
            votes = [given.answers for given in list(asked.values())[1:]]
            rows = [i for i in rows if drawn[i] or still_open(
                asked["target"].answers[i], [vote[i] for vote in votes], others - k + 1, panel.rule)]
        given = _ask(member, [images[i] for i in rows], [questions[i] for i in rows], name, desc, some)
        asked[name] = Given([None] * n, [False] * n, [False] * n, [False] * n, given.failure)
        for place, i in enumerate(rows):
            for field in ("answers", "unfinished", "failed", "limited"):
                getattr(asked[name], field)[i] = getattr(given, field)[place]
    return asked, rows


def _ask(member: VLM, images: list[Image.Image], questions: list[str], name: str, desc: str | None, some: bool = False) -> Given:
    """What a member gives to these questions.

    A batch that raises an error is halved until the single questions at fault are found. Raises RuntimeError if all
    questions, and at least two, are at fault, unless they are only `some` of those to ask. Of a server each question
    fails by itself (`endpoint.ask`).
    """
    if isinstance(member, Endpoint):
        return _asked_of_server(member, images, questions, desc and f"{desc}: {name}")
    n, failed, first = len(questions), 0, None
    texts, cut, todo = [None] * n, [False] * n, [range(n)] if n else []
    while todo:
        part = todo.pop()
        try:
            given = replies(member, [images[i] for i in part], [questions[i] for i in part],
                            desc=f"{desc}: {name}" if desc and len(part) == n else None)
        except Stop:  # that the answers cannot be kept is no fault of the member
            raise
        except (RuntimeError, ValueError, OSError) as error:
            # the retry runs outside this block, in which the exception would keep the batch's memory alive
            if len(part) > 1:
                todo += [part[len(part) // 2:], part[:len(part) // 2]]
            else:
                failed, first = failed + 1, first if first is not None else error
            continue
        for i, reply, ended in zip(part, given["reply"], given["ended"], strict=True):
            texts[i], cut[i] = short_answer(reply, questions[i]) if ended else None, not ended
    reason = first and f"{type(first).__name__}: {first}".splitlines()[0]
    if failed == n > 1 and not some:
        raise failing(member, name, n, reason) from first
    return Given(texts, cut, [a is None and not u for a, u in zip(texts, cut, strict=True)], [False] * n, reason)


def failing(member: VLM, name: str, n: int, reason: str) -> RuntimeError:
    """What is raised of a member that failed on all of n questions."""
    return RuntimeError(f"The {name} ({member.name}) raised an error on every one of {n} questions ({reason}): it is broken, "
                        "so check that it can answer a single question, or use another model.")


def _asked_of_server(member: Endpoint, images: list[Image.Image], questions: list[str], desc: str | None) -> Given:
    """What a model behind a server gives to these questions."""
    given = endpoint.replies(member, images, questions, desc=desc)
    limited, missing = given["error"].eq(endpoint.LIMIT), given["error"].notna()
    failed = missing & ~limited
    answers = [short_answer(reply, question) if ended else None
               for reply, ended, question in zip(given["reply"], given["ended"], questions, strict=True)]
    return Given(answers, (~given["ended"] & ~missing).tolist(), failed.tolist(), limited.tolist(),
                  given.loc[failed, "error"].iloc[0] if failed.any() else None)


def same_by(llm: LLM | Endpoint | None, rows: dict[int, tuple[str, list[str | None]]],
            ) -> tuple[Callable[[int], Callable[[str, str], bool]], dict[int, str]]:
    """The judge D for each row of `rows` {row: (question, answers)}; an LLM judges all pairs of different answers in one call.

    Also the rows that a judge behind a server left without a verdict, with why (`endpoint.ask`): nothing can be said of these.
    """
    if llm is None:
        return lambda i: same_answer, {}
    asked, pairs = {}, []
    for i, (question, answers) in rows.items():
        # one spelling for each normalised answer, independent of the order of the references
        spelled = {normalise(a): a for a in sorted((a for a in answers if not abstains(a)), reverse=True)}
        for a, b in combinations(sorted(spelled), 2):
            asked.setdefault((question, a, b), (question, spelled[a], spelled[b]))
            pairs.append((i, (question, a, b)))
    verdicts = dict(zip(asked, same_meaning(llm, list(asked.values())), strict=True))
    missing = {i: verdicts[pair] for i, pair in pairs if isinstance(verdicts[pair], str)}

    def same(i: int) -> Callable[[str, str], bool]:
        # a pair that was not asked contains an abstention, which equals no other answer
        return lambda a, b: same_answer(a, b) or verdicts.get((rows[i][0], *sorted((normalise(a), normalise(b)))), False)
    return same, missing
