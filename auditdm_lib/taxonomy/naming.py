"""Names of groups of questions: the skills that their questions are nearest to, or words that they share.

A skill is true of a question if it is among the three that fit it best; a word, if the question has it. A name lists what is true
of most, until it is true of TRUE_OF of them; what stays below that says so (MIXED, or ALIKE where the group is open). Nothing
that few questions show is named. The name of an open group, and no other, begins with a quotation mark.
"""

import re
from collections import Counter

import numpy as np

from auditdm_lib.shown import one_line, shorten
from auditdm_lib.taxonomy.words import FUNCTION_WORDS, LONGEST, split_words, stem, stems

TRUE_OF = 0.8  # share of a group's questions of which its name has to be true
MOST = 3  # skills and words that a name lists
JOINT = " / "  # between them
MIXED, ALIKE = "mixed: ", " and the like"
TOLD_APART = re.compile(r" \((“.*”|\d+)\)$")  # what follows a name that several groups would have
OWN = 0.1  # share of a group's questions whose own skill one has to be that is named
WORD, TELLING = 0.2, 0.6  # share of a group's questions that have a word, and of all that have it that are in the group
ADDS, FEWEST = 0.08, 2  # share of the questions, and how many, of which an item alone has to be true


def named(texts: tuple[str, ...], labels: np.ndarray, own: np.ndarray, near: np.ndarray, skills: list[str]) -> dict[int, str]:
    """A name for each label (n,) that is not negative, no two of them alike.

    `own` (n,) is the skill of each text, beyond the list for open ones, and `near` (n, 3) the three that fit it best.
    """
    words = [set(stems(text)) for text in texts]
    known = Counter(word for some in words for word in some)
    found, used = {}, set()
    for label in sorted(set(labels.tolist()) - {-1}):
        rows = np.flatnonzero(labels == label)
        most, opened = _most(texts, words, rows), 2 * (own[rows] >= len(skills)).sum() > len(rows)
        if opened:
            name, whole = _listed(_shared(texts, words, rows, known), len(rows))
            name = (name or most) + ("" if whole else ALIKE)
        else:
            counts = Counter(own[rows].tolist())
            true = {skills[i]: ((near[rows] == i).any(1), own[rows] == i) for i, n in counts.items()
                    if i < len(skills) and n >= max(OWN * len(rows), min(FEWEST, len(rows)))}
            shared = _shared(texts, words, rows, known)
            name, whole = _listed(true | {f"word {word}": holds for word, holds in shared.items()}, len(rows))
            name = ("" if whole else MIXED) + (name or f"word {most}")
        base = name
        for extra in (f" ({most})", *(f" ({k})" for k in range(2, len(texts) + 2))):
            if name not in used:
                break
            name = base + extra
        used.add(name)
        found[label] = name
    return found


def _listed(true: dict[str, tuple[np.ndarray, np.ndarray]], n: int) -> tuple[str, bool]:
    """The items of which one is true of most questions, those first that add most, and whether that is TRUE_OF of them.

    `true` has for each item of which of the n questions it is true, and of which it is the very own skill.
    """
    items, done = [], np.zeros(n, bool)
    while true and len(items) < MOST and done.mean() < TRUE_OF:
        best = min(true, key=lambda item: (-((true[item][0] & ~done).sum() + 0.5 * (true[item][1] & ~done).sum()), item))
        holds, _ = true.pop(best)
        if (holds & ~done).sum() < max(min(FEWEST, n), ADDS * n):
            break
        items.append(best)
        done |= holds
    return JOINT.join(items), bool(done.mean() >= TRUE_OF)


def _shared(texts: tuple[str, ...], words: list[set[str]], rows: np.ndarray, known: Counter) -> dict:
    """The words (in quotation marks) that many of the rows have, and few other texts."""
    counts = Counter(word for i in rows for word in words[i])
    found = {}
    for word, n in counts.items():
        if n >= max(FEWEST + 1, WORD * len(rows)) and n >= TELLING * known[word] and word not in FUNCTION_WORDS and len(word) > 2:
            holds = np.array([word in words[i] for i in rows])
            found[_shown(texts, rows, word)] = holds, holds
    return found


def _most(texts: tuple[str, ...], words: list[set[str]], rows: np.ndarray) -> str:
    """The word that most of the rows have, or, where they have none in common, one of them as it is."""
    counts = Counter(word for i in rows for word in words[i] if word not in FUNCTION_WORDS)
    word = min(counts, key=lambda word: (-counts[word], word), default="")
    return _shown(texts, rows, word) if word and 2 * counts[word] >= len(rows) else quoted(texts[rows[0]])


def _shown(texts: tuple[str, ...], rows: np.ndarray, word: str) -> str:
    shown = Counter(text for i in rows for text in split_words(texts[i]) if stem(text) == word)
    return f"“{min(shown, key=lambda text: (-shown[text], text), default=word)}”"


def quoted(question: str) -> str:
    """The name of a group that is one question asked again and again."""
    return f"“{shorten(' '.join(split_words(question)) or one_line(question) or '(nothing)', LONGEST)}”"


def parts(name: str) -> list[str]:
    """The skills that a group's name lists, without what tells it from another group of the same."""
    return TOLD_APART.sub("", name.removeprefix(MIXED)).split(JOINT)
