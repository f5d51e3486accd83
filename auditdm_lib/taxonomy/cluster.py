"""Failure types on two levels: the skill that a failure is about and, within it, the error: what is said instead of what.

Clustering uses only three texts: the question, the consensus of the references and the target's answer. The paper does not state
how it clusters and names its failure types; this is our choice.

- The *skill* is that of the catalogue whose examples the question is nearest to (`skills`), by the question alone. A word most of
  whose questions fit no skill well, and that occurs far more often than such words do by chance, makes a skill of its own.
- An *error* is one wrong answer that repeats, in place of one right answer or of several that were asked for in the same form.
  Failures with the same right and wrong answer are one error whatever their wording. A condition that nearly all of them share
  ("yellow") and that questions of the skill do not usually have belongs to the error.
- What is left of a skill, as with open questions whose answers hardly ever repeat, is one type, "various wrong answers".

Every step counts, so that time is linear in the number of failures and the order of the rows does not matter.
"""

import re
from array import array
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib.answers import normalise
from auditdm_lib.taxonomy import skills as catalogue
from auditdm_lib.taxonomy.skills import FUNCTION_WORDS, LONGEST, NONE, embed, score, split_words, stem, stems

__all__ = ["GAP_MARK", "SMALLEST", "belongs", "cluster", "embed", "question_forms", "select_failures", "split_words"]

GAP_MARK = "…"  # placeholder of varying words
MAIN = "trained"  # the auditor whose failures are counted, where a table has any
SMALLEST = 3  # minimum number of failures of a type; fewer may be an accident
ERROR_SHARE, REST_SHARE = 0.01, 0.1  # minimum share of a skill's failures in an error, and in the rest that has no error in common
FORM_SHARE = 0.2  # share of a right answer's failures from which they count as asked in a form
SHARED = 0.8  # share of a type's failures with one pair of answers from which another type can mirror it
CONCENTRATED = 0.9  # share of an error's failures that show its condition
USUAL = 1 / 3  # share of a skill's examples from which a word is no condition
MOST_WORDS, PER_WORD = 6, 5  # alternatives of a condition at most, and failures for each at least
SWAPPED = 0.2  # one direction's share of the other from which two answers are swapped
OPEN_SMALLEST, SURPRISE = 6, 5  # failures of a skill found openly, and how often more than expected its word occurs
UNKNOWN_RATE = 0.1  # occurrences in the catalogue that are taken for a word that it lacks
LONG_ANSWER = 60  # characters from which an answer is compared as it is written


def select_failures(probes: pd.DataFrame) -> pd.DataFrame:
    """The disagreements of all auditors, one per pair of image and question, without the truth or its verification.

    Returns probe_id, image, source_image, auditor, question, consensus, target_answer. `verified_failure` is not used, since
    it is unknown outside the testbed. Pictures that failed their check are left out: they say more about the drawer.
    """
    columns = ["probe_id", "image", "source_image", "auditor", "question", "consensus", "target_answer"]
    failures = probes.loc[probes["disagrees"].astype(bool) & probes["picture_reason"].isna(), columns]
    return failures.drop_duplicates(["image", "question"]).reset_index(drop=True)


def cluster(failures: pd.DataFrame, seed: int = 0, skills: Path | None = None, encoder: str | None = None) -> pd.DataFrame:
    """Assign each failure (row: question, consensus, target_answer; auditor if there are several) to a skill and a failure type.

    `skills` is a user's catalogue (`skills.catalogue`), `encoder` a sentence encoder for other languages (`skills.score`). Nothing
    is drawn at random, so that `seed` changes nothing. Returns the rows with

    - skill: a name of the catalogue, or an openly found word in quotation marks, or "" where no skill fits;
    - category: 0 is the largest type; -1 marks failures in no type of at least SMALLEST failures of the main auditor ("trained"
      where the table has it, else all);
    - form (the question with "…" for varying words), condition (words of which each failure of the type shows one) and error
      (the answers that make the type; "" for various ones).

    Other auditors' failures are in a type that their texts fit. The table may be empty.
    """
    rows = failures.copy()
    texts = [rows[name].map(as_text) for name in ("question", "consensus", "target_answer")]
    work = pd.DataFrame(dict(question=texts[0], agreed=texts[1].map(key), given=texts[2].map(key), main=main_rows(rows)))
    listed = catalogue.catalogue(skills)
    work["skill"] = _skills(work, skills, encoder)
    work["form"], work["category"], work["condition"], work["error"] = "", -1, "", ""
    types = []
    for skill, part in work[work["skill"] != NONE].groupby("skill", sort=True):
        work.loc[part.index, "form"] = part["form"] = question_forms(part)
        usual = catalogue.word_rates({skill: listed[skill]} if skill in listed else listed)
        for error, condition, members in _errors(part, {word for word, share in usual.items() if share >= USUAL} | {stem(skill[1:-1])}):
            types.append((-int(part.loc[members, "main"].sum()), skill, error, condition, members))
    work.loc[work["skill"] == NONE, "form"] = work["question"].map(lambda text: " ".join(split_words(text)))
    for number, (_, _, error, condition, members) in enumerate(sorted(types, key=lambda t: t[:4])):
        work.loc[members, ["category", "condition", "error"]] = number, condition, error
    return rows.assign(**{name: work[name] for name in ("skill", "form", "condition", "error", "category")})


def main_rows(rows: pd.DataFrame) -> pd.Series:
    """Which failures are counted: those of the auditor MAIN where there is any, else all."""
    main = rows["auditor"] == MAIN if "auditor" in rows else pd.Series(False, rows.index)
    return main if main.any() else pd.Series(True, rows.index)


def as_text(value: object) -> str:
    """A cell as a text; nothing (None, NaN) is an empty one."""
    return value if isinstance(value, str) else "" if value is None or value != value else str(value)


def key(answer: str) -> str:
    """What answers are compared by: `answers.normalise`, and for a long one, which hardly ever repeats, its words in lower case."""
    return normalise(answer) if len(answer) <= LONG_ANSWER else " ".join(answer.lower().split())


def _skills(work: pd.DataFrame, extra: Path | None, encoder: str | None) -> np.ndarray:
    """The skill of each question: of the catalogue, or found openly among those that fit none well."""
    if work.empty:
        return np.array([], object)
    names, best, top = score(work["question"].tolist(), extra, encoder)
    skill = np.array([names[b] if t >= catalogue.FITS else NONE for b, t in zip(best, top, strict=True)], object)
    weak = top < catalogue.WELL
    listed = catalogue.catalogue(extra)
    expected, unknown = catalogue.word_rates(listed), UNKNOWN_RATE / sum(len(skill.examples) for skill in listed.values())
    found, total, shown = defaultdict(list), Counter(), {}
    for i, (question, main) in enumerate(zip(work["question"], work["main"], strict=True)):
        for word in set(stems(question)):
            total[word] += int(main)
            if weak[i]:
                found[word].append(i)
    main, free = work["main"].to_numpy(), weak.copy()

    def size(word: str) -> int:
        return int((main[found[word]] & free[found[word]]).sum())

    counted = int(main.sum())
    words = {word for word in found if _telling(word) and size(word) >= max(
        OPEN_SMALLEST, SURPRISE * counted * expected.get(word, unknown), total[word] / 2)}
    while words:
        word = min(words, key=lambda w: (-size(w), w))
        members = [i for i in found[word] if free[i]]
        words.discard(word)
        if main[members].sum() < OPEN_SMALLEST:
            continue
        raw = Counter(text for i in members for text in split_words(work["question"].iloc[i]) if word in stems(text))
        shown[word] = min(raw, key=lambda text: (-raw[text], text))
        skill[members], free[members] = f"“{shown[word]}”", False
    return skill


def _telling(word: str) -> bool:
    return len(word) > 2 and not word.isdigit()


def question_forms(failures: pd.DataFrame) -> list[str]:
    """Each question (row: question, agreed, given) with "…" in place of its varying words.

    A place of one to three words is varying if questions that are otherwise equal and have the same pair of answers show at
    least three different fillers ("the thing that flies", "... cuts paper", "... holds a ship"). A single word that varies in
    one place is replaced everywhere. Requiring the same answers keeps "colour" and "size" apart, which also share a place.
    """
    texts = [split_words(question)[:LONGEST] for question in failures["question"]]
    number = {word: i for i, word in enumerate(sorted(set().union(*texts)))}
    answer = {text: i for i, text in enumerate(sorted({*failures["agreed"], *failures["given"]}))}
    pairs = [tuple(sorted((answer[a], answer[b]))) for a, b in zip(failures["agreed"], failures["given"], strict=True)]
    distinct = sorted({(tuple(number[word] for word in words), pair) for words, pair in zip(texts, pairs, strict=True)})

    def places(ids: tuple[int, ...], pair: tuple[int, int]):
        # numbers hash to the same value in every process
        for n in (1, 2, 3):
            for i in range(len(ids) - n + 1 if len(ids) - n >= max(2, n) else 0):
                yield hash((pair, ids[:i], ids[i + n:], n)), i, i + n

    seen = np.frombuffer(array("q", (place for row in distinct for place, _, _ in places(*row))), np.int64)
    values, counts = np.unique(seen, return_counts=True)
    often = set(values[counts >= 3].tolist())
    fillers = defaultdict(set)
    for ids, pair in distinct:
        for place, i, end in places(ids, pair):
            if place in often:
                fillers[place].add(ids[i:end])
    free = {place: _free(found) for place, found in fillers.items()}
    free = {place: found for place, found in free.items() if len(found) >= 3}
    varying = {f[0] for found in free.values() for f in found if len(f) == 1}
    forms = {}
    for ids, pair in distinct:
        masked = {k for place, i, end in places(ids, pair) if ids[i:end] in free.get(place, ()) for k in range(i, end)}
        forms[ids, pair] = [k in masked or word in varying for k, word in enumerate(ids)]
    return [_marked(words, forms[tuple(number[word] for word in words), pair]) for words, pair in zip(texts, pairs, strict=True)]


def _marked(words: tuple[str, ...], gaps: list[bool]) -> str:
    shown = [GAP_MARK if gap else word for word, gap in zip(words, gaps, strict=True)]
    return " ".join(word for k, word in enumerate(shown) if word != GAP_MARK or k == 0 or shown[k - 1] != GAP_MARK)


def _free(fillers: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    # Single words, and longer fillers whose first and last words are unique: "red things" and "blue things" differ in only
    # one word, and so do "cup left of" and "star left of".
    first, last = Counter(f[0] for f in fillers), Counter(f[-1] for f in fillers)
    return {f for f in fillers if len(f) == 1 or first[f[0]] == last[f[-1]] == 1}


def _errors(part: pd.DataFrame, usual: set[str]):
    """The types of one skill, whose questions have the `usual` stems: (error, condition, index of the members), errors that repeat first, then various ones."""
    main = part[part["main"]]
    least = max(SMALLEST, ERROR_SHARE * len(main))
    found = []
    for given, said in main.groupby("given", sort=True):
        if len(said) < least:
            continue
        for agreed in _asked_alike(said):
            members = said[said["agreed"].isin(agreed)]
            if len(members) >= least:
                found += [(agreed, given, *split) for split in _conditions(members, part, usual)]
    found = [row for row in found if len(row[-1]) >= least]
    types, rest = [], part
    for pairs, condition in _swapped(main, found):
        fits = pd.MultiIndex.from_frame(rest[["agreed", "given"]]).isin(sorted(pairs)) & _shows(rest["question"], condition)
        error = " ; ".join(f"{a} > {g}" for a, g in sorted(pairs))
        types.append((error, " or ".join(sorted(condition)), rest.index[fits]))
        rest = rest[~fits]
    if rest["main"].sum() >= max(SMALLEST, REST_SHARE * len(main)):
        types.append(("", "", rest.index))
    return types


def _asked_alike(said: pd.DataFrame) -> list[frozenset[str]]:
    """The right answers in place of which one wrong answer is given, in sets that were asked for in the same forms."""
    own = said["agreed"].map(said.groupby("agreed")["question"].agg(_shared_words))
    kept = [_kept(question, words) for question, words in zip(said["question"], own, strict=True)]
    share = pd.concat([_shares(said["agreed"], said["form"]), _shares(said["agreed"], pd.Series(kept, said.index))])
    parent = {}

    def root(node):
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for agreed, form in share.index[share >= FORM_SHARE]:
        parent[root(("agreed", agreed))] = root(("form", form))
    sets = defaultdict(set)
    for agreed in said["agreed"].unique():
        sets[root(("agreed", agreed))].add(agreed)
    return sorted((frozenset(found) for found in sets.values()), key=sorted)


def _shared_words(questions: pd.Series) -> frozenset[str]:
    """The words that half of the questions have."""
    shown = Counter(word for text in questions for word in set(split_words(text)[:LONGEST]))
    return frozenset(word for word, n in shown.items() if 2 * n >= len(questions))


def _kept(question: str, words: frozenset[str]) -> str:
    texts = split_words(question)[:LONGEST]
    return _marked(texts, [text not in words for text in texts])


def _shares(agreed: pd.Series, form: pd.Series) -> pd.Series:
    """The share of each right answer's failures that were asked in each form, by (agreed, form)."""
    counts = pd.DataFrame(dict(agreed=agreed, form=form)).groupby(["agreed", "form"], sort=True).size()
    return counts / counts.groupby(level=0).transform("sum")


def _conditions(members: pd.DataFrame, part: pd.DataFrame, usual: set[str]):
    """The members split by what they concentrate on: (words of which each shows one, members); no words where nothing stands out.

    Words that questions of the skill usually have are no condition. Words of one place are alternatives ("pink or orange"), few
    among all that failures of the skill show there.
    """
    texts = members["question"].map(lambda text: split_words(text)[:LONGEST])
    everywhere = part["question"].map(lambda text: split_words(text)[:LONGEST])
    at = Counter((i, len(words), word) for words in texts for i, word in enumerate(words))
    fillers = defaultdict(list)
    for (i, length, word), n in at.items():
        if n >= PER_WORD and _telling(word) and stem(word) not in usual | FUNCTION_WORDS:
            fillers[i, length].append((-n, word))
    best = []
    for (i, length), found in sorted(fillers.items()):
        others = {words[i] for words in everywhere if len(words) == length}
        found = sorted(found)
        for k in range(1, min(MOST_WORDS, len(found), len(others) // 3) + 1):
            words = frozenset(word for _, word in found[:k])
            shown = int(_shows(members["question"], words).sum())
            if shown >= CONCENTRATED * len(members):
                best.append((k, i, words))
                break
    if not best:
        return [(frozenset(), members)]
    condition = min(best, key=lambda row: (row[0], row[1]))[2]
    fits = _shows(members["question"], condition)
    return [(condition, members[fits])]


def _shows(questions: pd.Series, condition: frozenset[str]) -> np.ndarray:
    """Whether each question has one of the condition's words; all do where there is none."""
    if not condition:
        return np.ones(len(questions), bool)
    return questions.map(lambda text: not condition.isdisjoint(split_words(text))).to_numpy(bool)


def _swapped(main: pd.DataFrame, found: list) -> list[tuple[frozenset[tuple[str, str]], frozenset[str]]]:
    """The errors as sets of pairs (right answer, wrong answer) with their condition; two that mirror each other are one."""
    errors, used = [], set()
    usual = [members["agreed"].mode().iloc[0] if (members["agreed"] == members["agreed"].mode().iloc[0]).mean() >= SHARED else None
             for *_, members in found]
    for i, (agreed, given, condition, members) in enumerate(found):
        if i in used:
            continue
        pairs = {(a, given) for a in agreed}
        for j in range(i + 1, len(found)):
            other = found[j]
            mirrored = usual[i] is not None and (usual[i], given) == (other[1], usual[j]) and not condition and not other[2]
            sizes = sorted((len(members), len(other[3])))
            if mirrored and j not in used and sizes[0] >= SWAPPED * sizes[1] and _same_form(members, other[3], given):
                pairs |= {(a, other[1]) for a in other[0]}
                used.add(j)
        errors.append((len(members), frozenset(pairs), condition))
    errors.sort(key=lambda row: (-row[0], sorted(row[1]), sorted(row[2])))
    return [(pairs, condition) for _, pairs, condition in errors]


def _same_form(one: pd.DataFrame, other: pd.DataFrame, answer: str) -> bool:
    # What is said of one thing is invented or overlooked; only a relation of two things can be mirrored by yes and no.
    shares = [members["form"].value_counts(normalize=True) for members in (one, other)]
    both = set.intersection(*({form for form, share in found.items() if share >= FORM_SHARE} for found in shares))
    return any(answer not in ("yes", "no") or form.count(GAP_MARK) >= 2 for form in both)


def belongs(clustered: pd.DataFrame, questions: list[str], answers: list[str], skills: Path | None = None,
            encoder: str | None = None) -> np.ndarray:
    """The category (questions,) into which a failure on each question would fall, given its right answer; -1 for none.

    No answer of the target is seen. A question belongs to a type of its skill whose condition it shows and whose members have its
    right answer, in its form where the form is known; else to the skill's various wrong answers, where these are a type. Of
    several types the one with most such members is taken.
    """
    questions = [as_text(question) for question in questions]
    if not len(questions):
        return np.zeros(0, int)
    names, best, top = score(questions, skills, encoder)
    opened = {stem(name.strip("“”")): name for name in clustered["skill"].unique() if name.startswith("“")}
    known = clustered[clustered["category"] >= 0].assign(agreed=lambda rows: rows["consensus"].map(as_text).map(key))
    members = {name: part for name, part in known.groupby("skill", sort=True)}
    patterns = {name: {form: _pattern(form) for form in sorted(part["form"].unique()) if GAP_MARK in form} for name, part in members.items()}
    found = np.full(len(questions), -1)
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        skill = names[best[i]] if top[i] >= catalogue.FITS else NONE
        if top[i] < catalogue.WELL and (words := opened.keys() & set(stems(question))):
            skill = opened[min(words)]
        if skill in members:
            found[i] = _best(members[skill], patterns[skill], question, key(as_text(answer)))
    return found


def _pattern(form: str) -> re.Pattern:
    return re.compile(" ".join(r"\S+(?: \S+){0,5}" if word == GAP_MARK else re.escape(word) for word in form.split()))


def _best(part: pd.DataFrame, patterns: dict[str, re.Pattern], question: str, agreed: str) -> int:
    text = " ".join(split_words(question))
    words = set(text.split())
    forms = {form for form, pattern in patterns.items() if pattern.fullmatch(text)}
    some = part[(part["error"] != "") & (part["agreed"] == agreed)]
    some = some[[not condition or not words.isdisjoint(condition.split(" or ")) for condition in some["condition"]]]
    if forms:
        some = some[some["form"].isin(forms)]
    if len(some):
        return int(some["category"].value_counts().sort_index().idxmax())
    rest = part.loc[part["error"] == "", "category"]
    return int(rest.iloc[0]) if len(rest) else -1
