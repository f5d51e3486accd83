"""Forms of questions: what is left when the words that vary are taken out ("what colour is the …")."""

import re
from array import array
from collections import Counter, defaultdict
from itertools import chain

import numpy as np
import pandas as pd

from auditdm_lib.taxonomy.words import LONGEST, split_words

GAP_MARK = "…"  # placeholder of varying words
MOST_FILLED = 6  # words that stand for one placeholder at most
FEWEST = 3  # different fillers from which a place varies


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
                yield hash((pair, ids[:i], ids[i + n:])), i, i + n

    found = [array("q", (place for place, *_ in places(*row))) for row in distinct]
    values, counts = np.unique(np.frombuffer(array("q", chain.from_iterable(found)), np.int64), return_counts=True)
    often = set(values[counts >= FEWEST].tolist())
    shared = [row for row, some in zip(distinct, found, strict=True) if not often.isdisjoint(some)]
    fillers = defaultdict(set)
    for ids, pair in shared:
        for place, i, end in places(ids, pair):
            if place in often:
                fillers[place].add(ids[i:end])
    free = {place: _free(found) for place, found in fillers.items()}
    free = {place: found for place, found in free.items() if len(found) >= FEWEST}
    varying = {f[0] for found in free.values() for f in found if len(f) == 1}
    masked = dict.fromkeys(distinct, frozenset())
    for ids, pair in shared:
        masked[ids, pair] = {k for place, i, end in places(ids, pair) if ids[i:end] in free.get(place, ()) for k in range(i, end)}
    forms = {(ids, pair): [k in held or word in varying for k, word in enumerate(ids)] for (ids, pair), held in masked.items()}
    return [marked(words, forms[tuple(number[word] for word in words), pair]) for words, pair in zip(texts, pairs, strict=True)]


def marked(words: tuple[str, ...], gaps: list[bool]) -> str:
    """The words with one GAP_MARK for each run of gaps."""
    shown = [GAP_MARK if gap else word for word, gap in zip(words, gaps, strict=True)]
    return " ".join(word for k, word in enumerate(shown) if word != GAP_MARK or k == 0 or shown[k - 1] != GAP_MARK)


def _free(fillers: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    # Single words, and longer fillers whose first and last words are unique: "red things" and "blue things" differ in only
    # one word, and so do "cup left of" and "star left of".
    first, last = Counter(f[0] for f in fillers), Counter(f[-1] for f in fillers)
    return {f for f in fillers if len(f) == 1 or first[f[0]] == last[f[-1]] == 1}


def pattern(form: str) -> re.Pattern:
    """What the words of a question in this form match, joined by spaces."""
    filler = rf"\S+(?: \S+){{0,{MOST_FILLED - 1}}}"
    return re.compile(" ".join(filler if word == GAP_MARK else re.escape(word) for word in form.split()))
