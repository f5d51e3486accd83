"""Failure types on two levels: the skill that a failure is about and, within it, the error: what is said instead of what.

Clustering uses only three texts: the question, the consensus of the references and the target's answer. The paper does not
state how it clusters and names its failure types; this is our choice.

- The *skill* is that of the catalogue whose examples the question is nearest to (`skills`), by the question alone. A word most
  of whose questions fit no skill well, and that occurs far more often than such words do by chance, makes a skill of its own.
- An *error* is one wrong answer that repeats, in place of one right answer or of several that were asked for in the same form.
  Failures with the same right and wrong answer are one error whatever their wording. A condition that nearly all of them share
  ("yellow") and that questions of the skill do not usually have belongs to the error.
- What is left of a skill, as with open questions whose answers hardly ever repeat, is one type, "various wrong answers".

Every step counts, so that time is linear in the number of failures and the order of the rows does not matter.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from auditdm_lib.answers import normalise
from auditdm_lib.taxonomy.catalogue import catalogue, word_rates
from auditdm_lib.taxonomy.forms import GAP_MARK, marked, pattern, question_forms
from auditdm_lib.taxonomy.groups import grouped, groups_of, placed
from auditdm_lib.taxonomy.naming import parts, quoted
from auditdm_lib.taxonomy.skills import NONE
from auditdm_lib.taxonomy.words import FUNCTION_WORDS, LONGEST, split_words, stem

__all__ = ["GAP_MARK", "SMALLEST", "belongs", "cluster", "question_forms", "select_failures", "split_words"]

MAIN = "trained"  # the auditor whose failures are counted, where a table has any
SMALLEST = 3  # minimum number of failures of a type; fewer may be an accident
ERROR_SHARE, REST_SHARE = 0.01, 0.1  # minimum share of a skill's failures in an error, and in what is left of them
FORM_SHARE = 0.2  # share of a right answer's failures from which they count as asked in a form
SHARED = 0.8  # share of a type's failures with one pair of answers from which another type can mirror it
CONCENTRATED = 0.9  # share of an error's failures that show its condition
USUAL = 1 / 3  # share of a skill's examples from which a word is no condition
MOST_WORDS, PER_WORD = 6, 5  # alternatives of a condition at most, and failures for each at least
SWAPPED = 0.2  # one direction's share of the other from which two answers are swapped
LONG_ANSWER = 60  # characters from which an answer is compared as it is written


def select_failures(probes: pd.DataFrame) -> pd.DataFrame:
    """The disagreements of all auditors, one per pair of image and question, without the truth or its verification.

    Where several auditors asked the same, the failure is of the one that is counted (`main_rows`).
    Returns probe_id, image, source_image, auditor, question, consensus, target_answer. `verified_failure` is not used, since
    it is unknown outside the testbed. Pictures that failed their check are left out: they say more about the drawer.
    """
    columns = ["probe_id", "image", "source_image", "auditor", "question", "consensus", "target_answer"]
    failures = probes.loc[probes["disagrees"].astype(bool) & probes["picture_reason"].isna(), columns].reset_index(drop=True)
    counted = main_rows(failures).sort_values(ascending=False, kind="stable").index
    return failures.loc[counted].drop_duplicates(["image", "question"]).sort_index().reset_index(drop=True)


def cluster(failures: pd.DataFrame, seed: int = 0, skills: Path | None = None, encoder: str | None = None) -> pd.DataFrame:
    """Assign each failure (row: question, consensus, target_answer, and auditor if there are several) to a skill and a type.

    `skills` is a user's catalogue (`skills.catalogue`), `encoder` a sentence encoder for other languages (`skills.score`).
    Nothing is drawn at random, so that `seed` changes nothing. Returns the rows with

    - skill: a name of the catalogue, or an openly found word in quotation marks, or "" where no skill fits;
    - category: 0 is the largest type; -1 marks failures in no type of at least SMALLEST failures of the main auditor ("trained"
      where the table has it, else all);
    - form (the question with "…" for varying words), condition (words of which each failure of the type shows one) and error
      (the answers that make the type; "" for various ones).

    Other auditors' failures are in a type that their texts fit. The table may be empty.
    """
    rows, listed = failures.copy(), catalogue(skills)
    texts = {name: [as_text(value) for value in rows[name]] for name in ("question", "consensus", "target_answer")}
    keys = {text: key(text) for text in {*texts["consensus"], *texts["target_answer"]}}
    work = pd.DataFrame(dict(question=texts["question"], agreed=[keys[text] for text in texts["consensus"]],
                             given=[keys[text] for text in texts["target_answer"]], main=main_rows(rows).to_numpy()))
    skill = grouped(texts["question"], work["main"].to_numpy(), skills, encoder)
    form, condition, error = ([""] * len(work) for _ in range(3))
    category, types = np.full(len(work), -1), []
    for name, part in work.groupby(np.array(skill, object), sort=True) if len(work) else ():
        members = [Failure(row.Index, split_words(row.question)[:LONGEST], row.agreed, row.given, asked, row.main)
                   for row, asked in zip(part.itertuples(), question_forms(part), strict=True)]
        for failure in members:
            form[failure.row] = failure.form
        if name != NONE:
            some = [listed[one] for one in parts(name) if one in listed] or listed.values()
            usual = {word for word, share in word_rates(*some).items() if share >= USUAL} | {
                stem(word) for word in split_words(name)} | FUNCTION_WORDS
            for said, shown, found in _errors(members, usual):
                types.append((-sum(failure.main for failure in found), name, said, shown, found))
    for number, (_, _, said, shown, found) in enumerate(sorted(types, key=lambda row: row[:4])):
        for failure in found:
            category[failure.row], condition[failure.row], error[failure.row] = number, shown, said
    return rows.assign(skill=skill, form=form, condition=condition, error=error, category=category)


def main_rows(rows: pd.DataFrame) -> pd.Series:
    """Which failures are counted: those of the auditor MAIN where there is any, else all."""
    main = rows["auditor"].isin([MAIN]) if "auditor" in rows else pd.Series(False, rows.index)
    return main if main.any() else pd.Series(True, rows.index)


def as_text(value: object) -> str:
    """A cell as a text without lone surrogates, which no table can hold; nothing (None, NaN, pd.NA) is an empty one."""
    text = value if isinstance(value, str) else "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def key(answer: str) -> str:
    """What answers are compared by: `answers.normalise`, or a long one, which hardly ever repeats, in lower case."""
    return normalise(answer) if len(answer) <= LONG_ANSWER else " ".join(answer.lower().split())


class Failure(NamedTuple):
    """What the types of one skill are made of: the place in the table, the question's words, and its form."""

    row: int
    words: tuple[str, ...]
    agreed: str
    given: str
    form: str
    main: bool


def _errors(members: list[Failure], usual: set[str]) -> list[tuple[str, str, list[Failure]]]:
    """The types of one skill, whose questions have the `usual` stems: (error, condition, members), various errors last."""
    main = [failure for failure in members if failure.main]
    least, said = max(SMALLEST, ERROR_SHARE * len(main)), defaultdict(list)
    for failure in main:
        said[failure.given].append(failure)
    shown, found = _fillers(members), []
    for given in sorted(said):
        if len(said[given]) >= least:
            for some in _asked_alike(said[given]):
                condition = _condition(some, shown, usual) if len(some) >= least else frozenset()
                fits = [failure for failure in some if _shows(failure.words, condition)]
                if len(fits) >= least:
                    found.append((frozenset(failure.agreed for failure in some), given, condition, fits))
    errors = _merged(found)
    types, of_pair = [[] for _ in errors], defaultdict(list)
    for number, (pairs, _) in enumerate(errors):
        for pair in pairs:
            of_pair[pair].append(number)
    rest = []
    for failure in members:
        fits = [i for i in of_pair[failure.agreed, failure.given] if _shows(failure.words, errors[i][1])]
        (types[fits[0]] if fits else rest).append(failure)
    named = [(" | ".join(sorted({given or "(nothing)" for _, given in pairs})), " or ".join(sorted(condition)), some)
             for (pairs, condition), some in zip(errors, types, strict=True)]
    return named + [("", "", rest)] * (sum(failure.main for failure in rest) >= max(SMALLEST, REST_SHARE * len(main)))


def _asked_alike(said: list[Failure]) -> list[list[Failure]]:
    """Failures with one wrong answer, in groups whose right answers were asked for in the same forms.

    A form leaves out the varying words of all questions, or the words that less than half of the right answer's questions
    share.
    """
    parent, by_agreed = {}, defaultdict(list)

    def root(node):
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for failure in said:
        by_agreed[failure.agreed].append(failure)
    for agreed in sorted(by_agreed):
        some = by_agreed[agreed]
        words = Counter(word for failure in some for word in set(failure.words))
        kept = Counter(marked(failure.words, [2 * words[word] < len(some) for word in failure.words]) for failure in some)
        for counts in (kept, Counter(failure.form for failure in some)):
            for form, n in counts.items():
                if n >= FORM_SHARE * len(some):
                    parent[root(("agreed", agreed))] = root(("form", form))
    groups = defaultdict(list)
    for agreed in sorted(by_agreed):
        groups[root(("agreed", agreed))] += by_agreed[agreed]
    return list(groups.values())


def _fillers(members: list[Failure]) -> dict[tuple[int, int], Counter]:
    """How often each word stands at each place: (index, number of words of the question) -> words."""
    shown = defaultdict(Counter)
    for failure in members:
        for i, word in enumerate(failure.words):
            shown[i, len(failure.words)][word] += 1
    return shown


def _condition(some: list[Failure], shown: dict[tuple[int, int], Counter], usual: set[str]) -> frozenset[str]:
    """The words on which failures concentrate, of which nearly each shows one; none where nothing stands out.

    Words that questions of the skill usually have are no condition. Words of one place are alternatives ("pink or orange"), few
    among all that failures of the skill show there.
    """
    best = []
    for place, counts in sorted(_fillers(some).items()):
        found = sorted((-n, word) for word, n in counts.items() if n >= PER_WORD and len(word) > 2 and stem(word) not in usual)
        for k in range(1, min(MOST_WORDS, len(found), len(shown[place]) // 3) + 1):
            words = frozenset(word for _, word in found[:k])
            if sum(_shows(failure.words, words) for failure in some) >= CONCENTRATED * len(some):
                best.append((k, place, words))
                break
    return min(best, key=lambda row: row[:2])[2] if best else frozenset()


def _shows(words: tuple[str, ...], condition: frozenset[str]) -> bool:
    return not condition or not condition.isdisjoint(words)


def _merged(found: list) -> list[tuple[frozenset[tuple[str, str]], frozenset[str]]]:
    """The errors, largest first, as sets of pairs (right answer, wrong answer) with their condition.

    Two that mirror each other, "left" for "right" and "right" for "left" in the same form, are one.
    """
    errors, used = [], set()
    usual = []
    for *_, some in found:
        agreed, n = min(Counter(failure.agreed for failure in some).items(), key=lambda item: (-item[1], item[0]))
        usual.append(agreed if n >= SHARED * len(some) else None)
    of = {(given, usual[i]): i for i, (_, given, condition, _) in enumerate(found) if not condition and usual[i] is not None}
    for i, (agreed, given, condition, some) in enumerate(found):
        if i in used:
            continue
        pairs, j = {(a, given) for a in agreed}, of.get((usual[i], given), i)
        if j > i and j not in used and not condition:
            few, many = sorted((len(some), len(found[j][3])))
            if few >= SWAPPED * many and _same_form(some, found[j][3], given):
                pairs |= {(a, found[j][1]) for a in found[j][0]}
                used.add(j)
        errors.append((len(some), frozenset(pairs), condition))
    errors.sort(key=lambda row: (-row[0], sorted(row[1]), sorted(row[2])))
    return [(pairs, condition) for _, pairs, condition in errors]


def _same_form(one: list[Failure], other: list[Failure], answer: str) -> bool:
    # What is said of one thing is invented or overlooked; only a relation of two things can be mirrored by yes and no.
    counts = [Counter(failure.form for failure in some) for some in (one, other)]
    both = set.intersection(*({form for form, n in found.items() if n >= FORM_SHARE * found.total()} for found in counts))
    return any(answer not in ("yes", "no") or form.count(GAP_MARK) >= 2 for form in both)


def belongs(clustered: pd.DataFrame, questions: list[str], answers: list[str], skills: Path | None = None,
            encoder: str | None = None) -> np.ndarray:
    """The category (questions,) into which a failure on each question would fall, given its right answer; -1 for none.

    No answer of the target is seen. A question belongs to a type of its group (`groups.placed`) whose condition it shows and
    whose members have its right answer, in its form where the form is known; else to the group's various wrong answers, where
    these are a type. Of several types the one with most such members is taken.
    """
    questions = [as_text(question) for question in questions]
    if not questions:
        return np.zeros(0, int)
    counted, parts = clustered[main_rows(clustered)], clustered.groupby("skill", sort=True)
    members = {name: _Known(part) for name, part in parts if part["category"].ge(0).any()}
    asked = sorted(set(questions))
    where = placed(asked, *groups_of(counted["question"].map(as_text).tolist(), counted["skill"].tolist(), skills, encoder),
                   skills, encoder)
    of = {text: quoted(text) if quoted(text) in members else name for text, name in zip(asked, where, strict=True)}
    return np.array([members[of[question]].best(question, key(as_text(answer))) if of[question] in members else -1
                     for question, answer in zip(questions, answers, strict=True)], int)


class _Known:
    """The types of one skill as counts: how many failures each has by right answer and form."""

    def __init__(self, part: pd.DataFrame):
        inside = part["category"] >= 0
        errors, various = part[inside & (part["error"] != "")], part.loc[inside & (part["error"] == ""), "category"]
        agreed = errors["consensus"].map(as_text).map(key)
        self.counts = Counter(zip(errors["category"], errors["condition"], agreed, errors["form"], strict=True))
        self.various = int(various.max()) if len(various) else -1
        often = [form for form, n in Counter(part["form"]).items() if n >= SMALLEST]  # in no type, too: it is asked otherwise
        self.forms = {*errors["form"], *often}
        self.patterns = {form: pattern(form) for form in sorted(self.forms) if GAP_MARK in form}

    def best(self, question: str, answer: str) -> int:
        words = split_words(question)[:LONGEST]
        text = " ".join(words)
        forms = {form for form, pattern in self.patterns.items() if pattern.fullmatch(text)} | self.forms & {text}
        sizes = Counter()
        for (category, condition, agreed, form), n in self.counts.items():
            needed = frozenset(filter(None, condition.split(" or ")))
            if agreed == answer and (not forms or form in forms) and _shows(words, needed):
                sizes[int(category)] += n
        return min(sizes, key=lambda category: (-sizes[category], category)) if sizes else self.various
