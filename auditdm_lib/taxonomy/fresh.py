"""Fresh probes: new questions about pictures that no auditor saw, which confirm failure types or do not (see `confirm`).

The trained auditor asks about each picture; a type that gets too few probes that way is asked by *templates*: questions of its
failures about these pictures, word for word or only begun so, the auditor going on. Most such pairs make no sense, so one member
of {target, references}, drawn by lot, is asked first, and only a pair to which its answer is one of the type's answers goes on.

All members are treated alike up to the count: by the lot, by the *agreed* answer (that of all members but at most one) and by
`belongs`, which takes the type from the question and the agreed answer without seeing who gave it. So a type's probes are no more
often failures of the target than of a reference, unless the target fails more often.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from auditdm_lib.answers import abstains, normalise
from auditdm_lib.audit.auditor import stream
from auditdm_lib.audit.consensus import consensus
from auditdm_lib.audit.panel import Panel, answers_of, same_by
from auditdm_lib.audit.pictures import Pictures, load_pictures, save_pictures
from auditdm_lib.audit.probes import malformed
from auditdm_lib.models.vlm import VLM, sample
from auditdm_lib.stats import wilson

WANTED = 30  # probes of a type; then no more templates are asked
ROUNDS = 4  # of templates
TRIES = 3  # templates that may be tried, per fresh picture
SHARED = 3  # different questions of a type that begin alike, so that the auditor may go on from there
OPEN = 0.5  # distinct answers per failure above which a type's answers say little about which pair makes sense
CONTROLS, ASKED = 6, 5  # control questions; how often a question must have been asked to be one
Belongs = Callable[[list[str], list[str]], np.ndarray]  # questions, agreed answers -> categories; -1 for none
FRESH_COLUMNS = ["probe_id", "category", "made_by", "picture", "image", "question", "target_answer", "reference_answers",
                 "agreed", "target_odd", "references_odd", "control_question", "control_agreed", "control_target_answer", "saw",
                 "truth"]


def remembered(belongs: Belongs) -> Belongs:
    """The same function, which looks at each pair of question and answer once."""
    known = {}

    def within(questions: list[str], answers: list[str]) -> np.ndarray:
        pairs = list(zip(questions, answers, strict=True))
        if new := sorted(set(pairs) - known.keys()):
            known.update(zip(new, belongs(*map(list, zip(*new, strict=True))), strict=True))
        return np.array([known[pair] for pair in pairs], int)
    return within


def fresh_pictures(source: str, n: int, seed: int, damaged: str = "skip") -> Pictures:
    """At most `n` different pictures of the split "test", which neither the auditor's training nor the search saw."""
    pictures = load_pictures(source, n, seed, split="test", damaged=damaged)
    first = {name: i for i, name in reversed(list(enumerate(pictures.names)))}
    return pictures.take(sorted(first.values()))


@dataclass(frozen=True)
class Writer:
    """Who writes fresh questions, and how: the trained auditor, its prompt, the sampling temperature, the most tokens, and how
    many questions at a time."""

    auditor: VLM
    prompt: str
    temperature: float
    max_new_tokens: int
    batch: int = 128

    def questions(self, images: list, seed: int, begun: list[str] | None = None, desc: str | None = None) -> list[str | None]:
        """A question about each image, which begins as `begun` says; None where it is malformed or a server gave none."""
        said = sample(self.auditor, images, self.prompt, self.temperature, seed, self.max_new_tokens, self.batch, desc, begun)
        rows = said[["text", "ended", "error"]].itertuples(index=False)
        return [None if malformed(*row) else row.text.strip() for row in rows]


def ask_fresh(panel: Panel, pictures: Pictures, clustered: pd.DataFrame, belongs: Belongs, writer: Writer,
              seed: int) -> pd.DataFrame:
    """Probes of the trained auditor and by templates about `pictures`: FRESH_COLUMNS up to the control question, without image.

    `clustered` are the failures with their `category` (cluster.cluster). A type has at most one probe about a picture. `row`, the
    picture's place, is added. Nothing is asked where nothing could be confirmed: without a type, and of one reference without a
    truth.
    """
    if not clustered["category"].ge(0).any() or len(panel.references) == 1 and pictures.truth is None:
        pictures = pictures.take([])
    written = writer.questions(pictures.images, stream("fresh", seed), desc="fresh questions")
    asked = pd.DataFrame(dict(row=range(len(pictures)), question=written, made_by="auditor")).dropna().reset_index(drop=True)
    probes = _put(panel, pictures, asked, belongs, desc="fresh probes")
    probes = _once(pd.concat([probes, _templates(panel, pictures, clustered, belongs, writer, probes, seed)], ignore_index=True))
    probes["probe_id"] = [f"fresh-{seed}-{i:05d}" for i in range(len(probes))]
    probes["picture"] = [pictures.names[i] for i in probes["row"]]
    return probes


def _once(probes: pd.DataFrame) -> pd.DataFrame:
    """The first probe of each type about each picture, and all that belong to no type; each question about a picture once."""
    again = probes.duplicated(["row", "category"]) & probes["category"].ge(0)
    return probes[~again & ~probes.duplicated(["row", "question"])].reset_index(drop=True)


def _put(panel: Panel, pictures: Pictures, asked: pd.DataFrame, belongs: Belongs, given: list[list[str | None]] | None = None,
         desc: str | None = None) -> pd.DataFrame:
    """`asked` (row, question, made_by) with the answers of all members, who is odd, and the category. `given` holds the answers
    that are known already."""
    images, questions = [pictures.images[i] for i in asked["row"]], asked["question"].tolist()
    known = given or [[None] * (1 + len(panel.references))] * len(asked)
    wanted = np.array([[a is None for a in row] for row in known], bool).reshape(len(asked), 1 + len(panel.references))
    new = answers_of(panel, images, questions, wanted, desc)
    answers = [[b if a is None else a for a, b in zip(*pair, strict=True)] for pair in zip(known, new, strict=True)]
    truth = [pictures.truth.right_answer(i, q) if pictures.truth else None for i, q in zip(asked["row"], questions, strict=True)]
    voted = [[*a, t] if len(panel.references) == 1 else a for a, t in zip(answers, truth, strict=True)]  # a second vote
    same, unjudged = same_by(panel.llm, {i: (questions[i], votes) for i, votes in enumerate(voted)})
    judged = [odd_one([None] * len(votes) if i in unjudged else votes, same(i)) for i, votes in enumerate(voted)]
    agreed = [answer for answer, _ in judged]
    category, rows = np.full(len(asked), -1), [i for i, answer in enumerate(agreed) if answer is not None]
    if rows:
        category[rows] = belongs([questions[i] for i in rows], [agreed[i] for i in rows])
    return asked.assign(target_answer=_objects(a[0] for a in answers), reference_answers=_objects(a[1:] for a in answers),
                        agreed=_objects(agreed), target_odd=[odd[0] for _, odd in judged],
                        references_odd=_objects(odd[1:1 + len(panel.references)] for _, odd in judged), category=category,
                        truth=_objects(truth))


def _objects(values) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def odd_one(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> tuple[str | None, list[bool]]:
    """The agreed answer of at least three voters, that of all but at most one, and for each whether it is the odd one.

    (None, all False) where more than one differs or somebody gave no answer. A voter that abstains while the others agree is odd.
    """
    agreed = consensus(list(answers), "majority", same) if len(answers) > 2 and None not in answers else None
    odd = [agreed is not None and not same(a, agreed) for a in answers]
    return (agreed, odd) if sum(odd) < 2 else (None, [False] * len(answers))


def _templates(panel: Panel, pictures: Pictures, clustered: pd.DataFrame, belongs: Belongs, writer: Writer,
               probes: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Probes of the types that have fewer than WANTED in `probes`: their own questions, on pictures in random order.

    A type asks word for word and by begun questions in turn, and after the first round in the way that gave it more probes.
    """
    members = dict(list(clustered[clustered["category"] >= 0].groupby("category", sort=True)))
    questions = {category: rows["question"].sort_values().tolist() for category, rows in members.items()}
    begun = {category: begin(texts) for category, texts in questions.items()}
    fitting = {category: _fitting(rows) for category, rows in members.items()}
    rng, found, left = random.Random(f"templates/{seed}"), [probes.assign(way=None)], TRIES * len(pictures)
    waiting = {category: rng.sample(range(len(pictures)), len(pictures)) for category in questions}
    for turn in tqdm(range(ROUNDS), desc="templates"):
        have = pd.concat(found).query("category >= 0").drop_duplicates(["row", "category"])
        counts, used = have["category"].value_counts(), set(zip(have["row"], have["category"], strict=True))
        short = [category for category in questions if counts.get(category, 0) < WANTED and waiting[category]]
        if not short:
            break
        share, ways = left // (ROUNDS - turn) // len(short), have.groupby("category")["way"].value_counts().to_dict()
        tries = []
        for category in short:
            better = max((False, True), key=lambda way, c=category: ways.get((c, way), 0))
            for k, row in enumerate(_next(waiting[category], share)):
                text, way = rng.choice(questions[category]), bool(k % 2) if turn == 0 else better
                if (row, category) not in used:
                    tries.append((row, begun[category].get(text) if way else text, category, way))
        left -= len(tries)
        tries = pd.DataFrame([one for one in tries if one[1]], columns=["row", "question", "for", "way"])
        found.append(_tried(panel, pictures, tries, fitting, belongs, writer, rng))
    return pd.concat([probes.iloc[:0], *found[1:]], ignore_index=True).drop(columns=["way", "for"], errors="ignore")


def begin(questions: list[str]) -> dict[str, str]:
    """The first words of each question that at least SHARED different ones begin with, as many as possible; none where there are
    no such words, or where they are all of it."""
    split = {question: tuple(question.split()) for question in questions}
    shared = Counter(words[:n] for words in set(split.values()) for n in range(1, len(words)))
    longest = {question: next((words[:n] for n in range(len(words) - 1, 0, -1) if shared[words[:n]] >= SHARED), ())
               for question, words in split.items()}
    return {question: " ".join(words) for question, words in longest.items() if words}


def _next(waiting: list[int], n: int) -> list[int]:
    taken, waiting[:] = waiting[:n], waiting[n:]
    return taken


def _fitting(rows: pd.DataFrame) -> Callable[[str | None], bool]:
    """Whether a member's answer lets a pair of picture and question go on: one of the type's right or wrong answers, or, where
    these hardly ever repeat, any that is no abstention."""
    if rows["consensus"].map(normalise).nunique() > OPEN * len(rows):
        return lambda answer: answer is not None and not abstains(answer)
    answers = {normalise(a) for name in ("consensus", "target_answer") for a in rows[name] if not abstains(a)}
    return lambda answer: answer is not None and normalise(answer) in answers


def _tried(panel: Panel, pictures: Pictures, tries: pd.DataFrame, fitting: dict[int, Callable], belongs: Belongs, writer: Writer,
           rng: random.Random) -> pd.DataFrame:
    """The probes that come of `tries` (row, question, for: the type, way: whether the question is only begun): those on which
    the answer of one member, drawn by lot, fits the type."""
    begun = tries[tries["way"].astype(bool)]
    tries.loc[begun.index, "question"] = writer.questions([pictures.images[row] for row in begun["row"]], rng.getrandbits(32),
                                                          begun["question"].tolist())
    tries = tries.dropna(subset="question").reset_index(drop=True)
    size = 1 + len(panel.references)
    drawn = [rng.randrange(size) for _ in range(len(tries))]
    first = answers_of(panel, [pictures.images[row] for row in tries["row"]], tries["question"].tolist(),
                       np.eye(size, dtype=bool)[drawn].reshape(len(tries), size))
    kept = [i for i, category in enumerate(tries["for"]) if fitting[category](first[i][drawn[i]])]
    asked = tries.iloc[kept].reset_index(drop=True).assign(made_by="template")
    return _put(panel, pictures, asked, belongs, [first[i] for i in kept])


def control_questions(probes: pd.DataFrame, belongs: Belongs) -> list[str]:
    """Up to CONTROLS questions of the search on which all members agreed most reliably, with more than one answer: best first.

    `probes` is probes.parquet. Questions that lie in no failure type come before the others.
    """
    asked = probes[probes["in_full"].astype(bool) & probes["picture_reason"].isna() & probes["question"].str.strip().ne("")]
    found = []
    for question, rows in asked.groupby("question", sort=True):
        agreed = rows[rows["consensus"].notna() & ~rows["disagrees"].astype(bool)]
        if len(rows) >= ASKED and agreed["consensus"].map(normalise).nunique() > 1:
            found.append((question, wilson(len(agreed), len(rows))[0], sorted(set(agreed["consensus"]))))
    texts = [question for question, _, answers in found for _ in answers]
    types = belongs(texts, [answer for *_, answers in found for answer in answers]) if texts else []
    inside = {question for question, category in zip(texts, types, strict=True) if category >= 0}
    return [question for question, *_ in sorted(found, key=lambda one: (one[0] in inside, -one[1]))[:CONTROLS]]


def add_controls(panel: Panel, pictures: Pictures, probes: pd.DataFrame, controls: list[str]) -> pd.DataFrame:
    """The probes with control_question, control_agreed, control_target_answer and `saw`: whether the target gave the references'
    answer to the first control question on which these agree, about the same picture. Null where there is no such question, and
    for probes that belong to no type, whose pictures are not asked about."""
    rows, told = sorted(set(probes.loc[probes["category"] >= 0, "row"])), {}
    for question in controls:
        asked = [row for row in rows if row not in told]
        given = _members(panel, pictures, asked, [question] * len(asked), target=False)
        same, unjudged = same_by(panel.llm, {row: (question, a[1:]) for row, a in zip(asked, given, strict=True)})
        agreed = {row: consensus(a[1:], "unanimity", same(row)) for row, a in zip(asked, given, strict=True)
                  if row not in unjudged}
        told |= {row: (question, answer) for row, answer in agreed.items() if answer is not None}
    rows = [row for row in rows if row in told]
    given = _members(panel, pictures, rows, [told[row][0] for row in rows], target=True)
    same, unjudged = same_by(panel.llm, {row: (told[row][0], [a[0], told[row][1]]) for row, a in zip(rows, given, strict=True)})
    for row, (answer, *_) in zip(rows, given, strict=True):
        told[row] = (None,) * 4 if row in unjudged else (
            *told[row], answer, answer is not None and same(row)(answer, told[row][1]))
    parts = [told.get(row, (None,) * 4) for row in probes["row"].where(probes["category"] >= 0)]
    columns = ("control_question", "control_agreed", "control_target_answer", "saw")
    return probes.assign(**{name: _objects(part[k] for part in parts) for k, name in enumerate(columns)})


def _members(panel: Panel, pictures: Pictures, rows: list[int], questions: list[str], target: bool) -> list[list[str | None]]:
    """The answers of the target, or of the references, to a question about each of these pictures."""
    wanted = np.tile([target] + [not target] * len(panel.references), (len(rows), 1))
    return answers_of(panel, [pictures.images[row] for row in rows], questions, wanted, desc="control questions")


def keep_pictures(pictures: Pictures, probes: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Store the pictures of the probes that belong to a type in `folder`, once each; the probes with FRESH_COLUMNS."""
    rows = sorted(set(probes.loc[probes["category"] >= 0, "row"]))
    files = dict(zip(rows, save_pictures(pictures.take(rows), folder), strict=True))
    images = [files[row] if category >= 0 else None for row, category in zip(probes["row"], probes["category"], strict=True)]
    return probes.assign(image=_objects(images))[FRESH_COLUMNS]
