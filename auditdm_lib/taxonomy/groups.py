"""Skills as the failures show them: questions in groups of one meaning, whether the catalogue lists it, splits it or lacks it.

A question is a point of two parts: its sentence vector, and how well it fits each skill of the catalogue. Ward's method joins
points into groups until a join would lose more than COST of all variance (less where there are many questions, since they are
of more kinds, and each a smaller part), so the number of groups follows from the questions.
Groups that mostly are one and the same skill are one. Questions that fit no skill, and are alike, are an open skill. All this is
our choice; the paper does not state how it groups failures.

Distinct questions count once, however often they are asked. SAMPLE of them, taken by a hash of their text, are encoded and
grouped; where there are more, a ridge regression tells the others' groups by their words.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import solve
from sklearn.feature_extraction.text import TfidfVectorizer

from auditdm_lib.taxonomy.catalogue import Skill, catalogue
from auditdm_lib.taxonomy.naming import named, quoted
from auditdm_lib.taxonomy.skills import NONE, RIDGE, example_weights, foreign, points, targets
from auditdm_lib.taxonomy.vectors import embed, encoded
from auditdm_lib.taxonomy.words import features, scales, stems, unit, word_rows

SAMPLE, FEWEST = 8192, 1024  # distinct questions that are encoded, and how many of those placed later at least
FIT, SHARP = 0.3, 1.5  # weight of the fits beside the sentence vector, and their exponent
COST, PLENTY, FALL = 0.005, 500, 0.75  # share of all variance that a join may lose; from so many questions it falls, and how fast
ROUNDS = 4  # in which each question goes to the nearest mean
TOLD = 0.4  # score by words from which a question's skill is sure
SURE_SHARE, SPLIT, SPLIT_SHARE = 0.5, 3, 0.03  # sure questions in a group that is split; how many, and which share, a part needs
NEAREST = 3  # skills of which a name may tell a question
WEAK, WORDS, FAR = 0.3, 0.4, 0.6  # fit, score by words and likeness to any example below which a question may be of an open skill
LOOSE, NEAR, BELOW = 0.8, 0.4, 0.2  # open skills: width, likeness to its mean, and how much less that may be than to an example
OPEN_SHARE, OPEN_SMALLEST = 0.025, 6  # of all distinct questions in an open skill, and how many at least
REPEATED, REPEATED_SHARE = 3, 0.1  # times, and share of all cases, in which one question is asked to be a skill
BATCH = 4096  # questions whose fits are computed at once
SMOOTH, STEPS = 0.3, 30  # penalty of the regression by words, and steps of its solver


@dataclass(frozen=True)
class Space:
    """Where n distinct questions lie: points (n, D + S); the skill nearest to each (n,), an index of the catalogue or beyond it
    for open ones; whether it fits no skill well (n,), and whether its words tell its skill (n,); the skills that fit it best
    (n, NEAREST); and S, the number of skills that the catalogue lists."""

    points: np.ndarray
    own: np.ndarray
    weak: np.ndarray
    sure: np.ndarray
    near: np.ndarray
    skills: int


@dataclass(frozen=True)
class Groups:
    """Groups of questions: the name of each, its mean point (k, D + S), which skills its questions have (k, S), and for a skill
    the group that mostly is of it, where there is one."""

    names: tuple[str, ...]
    means: np.ndarray
    holds: np.ndarray
    homes: dict[int, int]


@dataclass(frozen=True)
class Listed:
    """The catalogue by sentence vectors: the examples' mean (D,), their directions from it (E, D), weights of their likeness
    to a question for each skill (E, S)."""

    middle: np.ndarray
    examples: np.ndarray
    weights: np.ndarray


@cache
def listed(skills: tuple[Skill, ...], encoder: str | None) -> Listed:
    """A kernel ridge regression (of second degree) from the examples' sentence vectors to the skills."""
    vectors = encoded((text for skill in skills for text in skill.examples), encoder)
    middle = vectors.mean(0)
    examples = unit(vectors - middle).astype(np.float32)
    dual = solve(_kernel(examples @ examples.T) + RIDGE * np.diag(1 / example_weights(skills)), targets(skills), assume_a="pos")
    return Listed(middle, examples, dual.astype(np.float32))


def _kernel(alike: np.ndarray) -> np.ndarray:
    return (alike + 1) ** 2 / 4


@lru_cache(4)
def space(texts: tuple[str, ...], extra: Path | None = None, encoder: str | None = None, opened: bool = False) -> Space:
    """Where distinct texts lie; with `opened` open skills are looked for among them."""
    skills = tuple(catalogue(extra).values())
    known = listed(skills, encoder)
    words = points(list(texts), extra, encoder).astype(np.float32)
    told = words.max(1, initial=0)
    vectors = unit(encoded(texts, encoder) - known.middle).astype(np.float32)
    fits, near = np.zeros((len(texts), len(skills)), np.float32), np.zeros(len(texts), np.float32)
    for start in range(0, len(texts), BATCH):
        alike = vectors[start:start + BATCH] @ known.examples.T
        near[start:start + BATCH], fits[start:start + BATCH] = alike.max(1), _kernel(alike) @ known.weights
    weak = (fits.max(1, initial=0) < WEAK) & (told < WORDS) & (near < FAR)
    of = _open(vectors, weak, near) if opened else np.full(len(texts), -1)
    fits += words
    own = np.where(of >= 0, len(skills) + of, fits.argmax(1))
    best = np.argsort(-fits, axis=1, kind="stable")[:, :NEAREST]
    shown = unit(np.maximum(fits, 0) ** SHARP)
    shown[of >= 0] = 0
    return Space(np.hstack([vectors, FIT * shown]).astype(np.float32), own, weak, told >= TOLD, best, len(skills))


def _open(vectors: np.ndarray, weak: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The open skill of each question (n,), -1 for none: weak questions that are alike, by average linkage."""
    out, at = np.full(len(vectors), -1), np.flatnonzero(weak)
    if len(at) < OPEN_SMALLEST:
        return out
    least = max(OPEN_SMALLEST, OPEN_SHARE * len(vectors))
    rows = vectors[at]
    of = fcluster(linkage(_distances(rows) ** 2 / 2, "average"), LOOSE, "distance")
    seeds = [rows[of == x].mean(0) for x in range(1, of.max() + 1) if (of == x).sum() >= OPEN_SMALLEST]
    for last in (False, False, True):
        if not seeds:
            return out
        alike = rows @ unit(np.array(seeds)).T
        of, fits = alike.argmax(1), alike.max(1) >= np.maximum(NEAR, near[at] - BELOW)
        if last:
            out[at[fits]] = of[fits]
        else:
            seeds = [rows[fits & (of == x)].mean(0) for x in range(len(seeds)) if (fits & (of == x)).sum() >= least]
    return out


def grouped(questions: list[str], counted: np.ndarray, extra: Path | None = None, encoder: str | None = None) -> list[str]:
    """The name of the group of each question, NONE for what is in none.

    Groups are made of the `counted` questions (a flag each); the others are `placed`. In no group are questions in a language
    that the catalogue does not know, unless there is an `encoder`, and few questions that fit no skill; of these, one that is
    asked REPEATED times and in REPEATED_SHARE of all cases is a group of its own.
    """
    asked = Counter()
    for question, count in zip(questions, counted, strict=True):
        asked[question] += bool(count)
    texts = _readable([text for text in asked if asked[text]], extra, encoder)
    some = sample(texts, SAMPLE)
    of, made = [], None
    if some:
        place = space(some, extra, encoder, True)
        labels = group(place)
        of, made = _called(some, place, labels, extra)
    known = dict(zip(some, of, strict=True))
    rest = _readable([text for text in asked if text not in known], extra, encoder)
    known |= dict(zip(rest, placed(rest, known, made, extra, encoder), strict=True))
    often = max(REPEATED, REPEATED_SHARE * asked.total())
    for text in asked:
        if known.get(text, NONE) == NONE:
            known[text] = quoted(text) if asked[text] >= often else NONE
    return [known[question] for question in questions]


def groups_of(questions: list[str], names: list[str], extra: Path | None = None,
              encoder: str | None = None) -> tuple[dict[str, str], Groups | None]:
    """The encoded ones of some counted questions with their groups, and these groups, as `grouped` had made them."""
    of = dict(zip(questions, names, strict=True))
    some = sample(_readable(of, extra, encoder), SAMPLE)
    known = {text: of[text] for text in some}
    return known, _groups(space(some, extra, encoder, True), [known[text] for text in some], extra) if some else None


def placed(texts: list[str], known: dict[str, str], groups: Groups | None, extra: Path | None = None,
           encoder: str | None = None) -> list[str]:
    """The group to which each of distinct texts belongs, NONE where none has a question of its skill.

    So many of them as make SAMPLE with the `known` questions (with their groups), or FEWEST, are encoded and go to the group of
    their skill, where their words tell it, or to the nearest mean. The others go where their words say, which is learnt from all
    that are encoded, and from the catalogue's examples.
    """
    if groups is None or not texts:
        return [NONE] * len(texts)
    some = sample(texts, max(SAMPLE - len(known), FEWEST))
    found = dict(zip(some, _to_means(space(some, extra, encoder), groups), strict=True))
    if rest := [text for text in texts if text not in found]:
        examples = sorted({text for skill in catalogue(extra).values() for text in skill.examples})
        examples = dict(zip(examples, _to_means(space(tuple(examples), extra, encoder), groups), strict=True))
        found |= dict(zip(rest, by_words(examples | known | found, rest), strict=True))
    return [found[text] for text in texts]


def sample(texts: Iterable[str], most: int) -> tuple[str, ...]:
    """At most so many of distinct texts, those with the lowest hashes, so that it is the same whatever else there is."""
    keys = {text: hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in texts}
    return tuple(sorted(sorted(keys, key=lambda text: (keys[text], text))[:most]))


def _readable(texts: Iterable[str], extra: Path | None, encoder: str | None) -> list[str]:
    found = [text for text in sorted(texts) if stems(text)]
    return found if encoder is not None else [text for text, odd in zip(found, foreign(found, extra), strict=True) if not odd]


def _called(texts: tuple[str, ...], place: Space, labels: np.ndarray, extra: Path | None) -> tuple[list[str], Groups | None]:
    skills = list(catalogue(extra))
    alone = [g for g in range(labels.max() + 1) if (labels == g).sum() < OPEN_SMALLEST and place.weak[labels == g].mean() > 0.5]
    labels = np.where(np.isin(labels, alone), -1, labels)
    called = named(texts, labels, place.own, place.near, skills)
    of = [called[g] if g >= 0 else NONE for g in labels.tolist()]
    return of, _groups(place, of, extra)


def _groups(place: Space, names: list[str], extra: Path | None) -> Groups | None:
    kept = sorted(set(names) - {NONE})
    if not kept:
        return None
    number = {name: i for i, name in enumerate(kept)}
    rows = [i for i, name in enumerate(names) if name in number]
    of = np.array([number[names[i]] for i in rows])
    holds = np.zeros((len(kept), len(catalogue(extra))), bool)
    own = place.own[rows]
    inside = own < holds.shape[1]
    holds[of[inside], own[inside]] = True
    homes = {skill: group for group, skill in _mostly(of, own).items()}
    return Groups(tuple(kept), _means(place.points[rows], of), holds, homes)


def _to_means(place: Space, groups: Groups) -> list[str]:
    opened = np.array([name.startswith("“") for name in groups.names])
    allowed = groups.holds[:, place.own].T | (opened & place.weak[:, None])  # (n, k)
    far = np.where(allowed, (groups.means ** 2).sum(1) - 2 * place.points @ groups.means.T, np.inf)
    nearest = np.where(allowed.any(1), far.argmin(1), -1)
    at = [groups.homes.get(own, g) if sure else g for g, own, sure in zip(
        nearest.tolist(), place.own.tolist(), place.sure.tolist(), strict=True)]
    return [groups.names[g] if g >= 0 else NONE for g in at]


def by_words(known: dict[str, str], texts: list[str]) -> list[str]:
    """The label of each text, learnt from `known` texts by a ridge regression on words and sums of word vectors."""
    labels = sorted(set(known.values()))
    number = {label: i for i, label in enumerate(labels)}
    words = TfidfVectorizer(analyzer=features, norm=None, dtype=np.float32).fit(known)
    scale = scales(words).astype(np.float32)

    def rows(some):
        return word_rows(words, scale, some), embed(some).astype(np.float32)
    by_word, by_sum = rows(list(known))
    goal = np.zeros((len(known), len(labels)), np.float32)
    goal[np.arange(len(known)), [number[label] for label in known.values()]] = 1
    dual = _solved(lambda x: by_word @ (by_word.T @ x) + by_sum @ (by_sum.T @ x) + SMOOTH * x, goal)
    word_weights, sum_weights = by_word.T @ dual, by_sum.T @ dual
    found = []
    for start in range(0, len(texts), 4 * BATCH):
        word, summed = rows(texts[start:start + 4 * BATCH])
        found += (word @ word_weights + summed @ sum_weights).argmax(1).tolist()
    return [labels[i] for i in found]


def _solved(times, goal: np.ndarray) -> np.ndarray:
    """What a positive definite matrix (given by its product) takes to `goal`, by conjugate gradients for each column."""
    x, rest = np.zeros_like(goal), goal.copy()
    way, size = rest.copy(), (rest ** 2).sum(0)
    for _ in range(STEPS):
        ahead = times(way)
        step = size / np.maximum((way * ahead).sum(0), 1e-20)
        x, rest = x + step * way, rest - step * ahead
        before, size = size, (rest ** 2).sum(0)
        way = rest + size / np.maximum(before, 1e-20) * way
    return x


def group(place: Space) -> np.ndarray:
    """The group of each question (n,), numbered from 0 in the order of the first one of each."""
    points, n = place.points, len(place.points)
    if n < 2:
        return np.zeros(n, int)
    spread = float(((points - points.mean(0)) ** 2).sum())
    lost = COST * spread / max(1, n / PLENTY) ** FALL
    of = fcluster(linkage(_distances(points), "ward"), (2 * lost) ** 0.5, "distance") - 1
    for _ in range(ROUNDS):
        of = _nearest(points, _means(points, of))
    of = _merged(_split(_merged(of, place.own), place), place.own)
    for _ in range(ROUNDS):  # a group may become mostly of one skill when the questions of others have left it
        of = _merged(_home(of, place), place.own)
    return _numbered(of)


def _mostly(of: np.ndarray, own: np.ndarray) -> dict[int, int]:
    """The skill that most of a group's questions are nearest to, by group, where there is one."""
    found = {}
    for g in np.unique(of).tolist():
        skills, counts = np.unique(own[of == g], return_counts=True)
        if 2 * counts.max() > counts.sum():
            found[g] = int(skills[counts.argmax()])
    return found


def _merged(of: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Groups that mostly are one and the same skill as one."""
    first = {}
    to = {g: first.setdefault(skill, g) for g, skill in _mostly(of, own).items()}
    return np.array([to.get(g, g) for g in of.tolist()])


def _home(of: np.ndarray, place: Space) -> np.ndarray:
    """Each question whose skill its words tell goes to the group that mostly is of that skill, where there is one."""
    of_skill = {skill: g for g, skill in _mostly(of, place.own).items()}
    return np.array([of_skill.get(own, g) if sure else g
                     for g, own, sure in zip(of.tolist(), place.own.tolist(), place.sure.tolist(), strict=True)])


def _split(of: np.ndarray, place: Space) -> np.ndarray:
    """Groups most of whose questions surely are of the catalogue, by its skills: to each with so many sure questions as it takes
    go its own, and those of other skills that fit it best."""
    out, after = of.copy(), of.max() + 1
    fits = place.points[:, -place.skills:]
    for g in np.unique(of):
        rows = np.flatnonzero(of == g)
        sure = rows[place.sure[rows] & (place.own[rows] < place.skills)]
        skills, counts = np.unique(place.own[sure], return_counts=True)
        kept = skills[counts >= max(SPLIT, SPLIT_SHARE * len(rows))]
        if len(sure) >= SURE_SHARE * len(rows) and len(kept) > 1:
            nearest = np.where(place.own[rows, None] == kept, 2, fits[rows][:, kept]).argmax(1)
            out[rows] = np.where(nearest == 0, g, after + nearest)
            after += len(kept)
    return out


def _numbered(labels: np.ndarray) -> np.ndarray:
    first = {}
    return np.array([first.setdefault(label, len(first)) for label in labels.tolist()], int)


def _distances(points: np.ndarray) -> np.ndarray:
    # condensed, as scipy takes them, by products of matrices: its own loop over pairs is thirty times as slow
    points, n = points.astype(np.float64), len(points)
    lengths, out, at = (points ** 2).sum(1), np.empty(n * (n - 1) // 2), 0
    for start in range(0, n, 512):
        squares = lengths[start:start + 512, None] + lengths[start:] - 2 * points[start:start + 512] @ points[start:].T
        for i, row in enumerate(squares, 1):
            out[at:at + len(row) - i] = row[i:]
            at += len(row) - i
    np.sqrt(np.maximum(out, 0, out=out), out=out)
    return out


def _means(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    pick = sparse.csr_matrix((np.ones(len(of), np.float32), (of, np.arange(len(of)))), (of.max() + 1, len(of)))
    return np.asarray(pick @ points) / np.maximum(np.bincount(of, minlength=of.max() + 1), 1)[:, None].astype(np.float32)


def _nearest(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    return ((means ** 2).sum(1) - 2 * points @ means.T).argmin(1)
