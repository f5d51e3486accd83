"""Held-out suites of the testbed, each in the item format of the benchmark it is named after, and held-out items of gaps.

It is what `protocols.SuiteSource` asks for: `suite_names`, `suite_table` and `training_table`.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from auditdm_lib.answers import LETTERS
from auditdm_lib.boxes import location
from auditdm_lib.testbed.gaps import Gap, gap_of, gaps_of, questions_in_gap
from auditdm_lib.testbed.language import caption, noun_phrase, place, reference
from auditdm_lib.testbed.questions import sample_answerable
from auditdm_lib.testbed.render import bounding_box, render
from auditdm_lib.testbed.scenes import COLOURS, KINDS, NUMBERS, Scene, Thing, sample_scenes
from auditdm_lib.testbed.skills import NOTHING, SAME, SKILLS, Question, answer, parse_question, phrase

CHOICES = 4
ANNOTATORS, ERRING = 10, 0.05  # of an annotated question, and how often one errs, each in a way of their own
STRATEGIES = ("random", "popular", "adversarial")  # how POPE chooses what is not there
POPULAR = 6  # kinds that count as popular
CHUNKS = 200  # of n scenes each, before a suite gives up
COLUMNS = ["item", "image", "question", "answer", "answers", "options", "group", "skill", "gap"]


@dataclass(frozen=True)
class Suite:
    """What a suite asks about (skills), how it makes items, and how they are scored (the name of a metric of `benchmarks`).

    `make(scene, skill, rng, k)` gives the items of a skill's k-th question, none where the scene does not suit.
    `stands_for` names the benchmark, `departs` says in what this suite is not like it. `tokens` bounds an answer's length.
    """

    skills: tuple[str, ...]
    make: Callable[..., list[dict]]
    metric: str
    stands_for: str
    departs: str
    tokens: int = 8


def _item(question: str, answer: str, answers: list[str], about: str, options: list[str] | None = None) -> dict:
    """One item; `about` is the question in the testbed's words, or the pseudo-skill where it is none."""
    return dict(question=question, answer=answer, answers=answers, options=options, about=about, tag="")


def _accepted(right: str) -> list[str]:
    return [right, str(NUMBERS.index(right))] if right in NUMBERS else [right]


def _short(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """A free question with one right answer, numbers in words or digits."""
    text = sample_answerable(scene, rng, skill)
    return [_item(text, right := answer(scene, text), _accepted(right), text)] if text else []


def _annotated(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """A free question with the answers of ten annotators, of whom a few err, no two alike: an error is worth 0.3 at most."""
    if not (text := sample_answerable(scene, rng, skill)):
        return []
    right = answer(scene, text)
    others = [other for other in SKILLS[skill].answers if other != right]
    erring = min(sum(rng.random() < ERRING for _ in range(ANNOTATORS)), len(others), 2)
    answers = [right] * (ANNOTATORS - erring) + rng.sample(others, erring)
    return [_item(text, right, rng.sample(answers, ANNOTATORS), text)]


def _options(scene: Scene, text: str, right: str, rng: random.Random, without: str = "") -> list[str]:
    """Up to four answers, the right one among them: numbers that are neighbours, else what question or picture suggest first."""
    answers = [option for option in SKILLS[parse_question(text).skill].answers if option != without]
    if right in NUMBERS:
        least = max(0, min(answers.index(right) - rng.randrange(CHOICES), len(answers) - CHOICES))
        chosen = answers[least:least + CHOICES]
    else:
        things = scene.things
        shown = {SAME, NOTHING, *parse_question(text).slots.values(), *(t.kind for t in things), *(t.colour for t in things)}
        others = sorted(rng.sample(answers, len(answers)), key=lambda option: option not in shown)
        chosen = [right, *[other for other in others if other != right][:CHOICES - 1]]
    return rng.sample(chosen, len(chosen))


def _chosen(text: str, options: list[str], right: str) -> dict:
    """A multiple-choice item, whose answer is a letter. The question goes without its options, see `listed`."""
    letter = LETTERS[options.index(right)]
    return _item(text, letter, [letter], text, options)


def listed(item: dict) -> str:
    """An item's question with its options behind it: "what colour is the cup? A. red B. blue".

    The clean models were trained on some of this form and did not learn it: they choose a little better than by chance, also
    where they know the answer. So suites ask the question alone, and the reply is matched with the options.
    """
    marked = (f"{mark}. {option}" for mark, option in zip(LETTERS, item["options"] or [], strict=False))
    return " ".join((item["question"], *marked))


def _choice(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    if not (text := sample_answerable(scene, rng, skill)):
        return []
    right = answer(scene, text)
    return [_chosen(text, _options(scene, text, right, rng), right)]


def _circular(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """The same choice in every rotation of its options."""
    if not (text := sample_answerable(scene, rng, skill)):
        return []
    right = answer(scene, text)
    options = _options(scene, text, right, rng)
    return [_chosen(text, options[i:] + options[:i], right) for i in range(len(options))]


def _unguessable(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """A choice that leaves out the best guess without the picture: it is neither right nor an option."""
    guess, text = best_guess(skill), sample_answerable(scene, rng, skill)
    if not text or (right := answer(scene, text)) == guess:
        return []
    return [_chosen(text, _options(scene, text, right, rng, guess), right)]


@cache
def best_guess(skill: str) -> str:
    """The commonest right answer of a skill in scenes of the train split: the best guess of one who sees no picture."""
    rng = random.Random(f"guess/{skill}")
    asked = [(scene, sample_answerable(scene, rng, skill)) for scene in _others()]
    return Counter(answer(scene, text) for scene, text in asked if text).most_common(1)[0][0]


@cache
def _others() -> list[Scene]:
    """Scenes of no suite, to know what is common."""
    return sample_scenes(1500, "train", "common")


def _mixed(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """By turns a choice and a free question."""
    return (_choice, _short)[k % 2](scene, skill, rng, k)


def _yes_and_no(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """Two questions about one picture, one with the answer yes and one with no, in either order."""
    if skill == "exists":
        pair = [_poll(scene, rng, there, "adversarial") for there in (True, False)]
        return rng.sample(sum(pair, []), 2) if all(pair) else []
    if not (text := sample_answerable(scene, rng, skill)):
        return []
    right = answer(scene, text)
    wrong = rng.choice([option for option in _options(scene, text, right, rng) if option != right])
    pair = [_item(f"{text} is the answer {said}?", mark, [mark], text) for said, mark in ((right, "yes"), (wrong, "no"))]
    return rng.sample(pair, 2)


def _polled(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """By turns about what is there and about what is not, the latter chosen by each strategy in turn."""
    strategy = STRATEGIES[k // 2 % 3]
    return [item | {"tag": f"-{strategy}"} for item in _poll(scene, rng, k % 2 == 0, strategy)]


def _poll(scene: Scene, rng: random.Random, there: bool, strategy: str) -> list[dict]:
    """Is there any thing of a colour and kind: one that is, or one that is not, plausible by the strategy.

    random: any colour and kind; popular: a kind that many pictures show; adversarial: a colour and a kind that are both in
    the picture, but not in one thing.
    """
    present = [(t.colour, t.kind) for t in scene.things]
    colours, kinds = tuple(COLOURS), KINDS
    if strategy == "popular":
        kinds = _popular_kinds()
    elif strategy == "adversarial":
        colours, kinds = map(dict.fromkeys, zip(*present, strict=True))
    candidates = present if there else [pair for pair in itertools.product(colours, kinds) if pair not in present]
    if not candidates:
        return []
    colour, kind = rng.choice(candidates)
    form = rng.randrange(len(SKILLS["exists"].forms))
    text, right = phrase(Question("exists", dict(colour=colour, kind=kind)), form), "yes" if there else "no"
    return [_item(text, right, [right], text)]


@cache
def _popular_kinds() -> tuple[str, ...]:
    return tuple(kind for kind, _ in Counter(t.kind for scene in _others() for t in scene.things).most_common(POPULAR))


def _detect(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """A thing to find by its noun phrase, or, where that fits several, by what singles it out."""
    thing = rng.choice(scene.things)
    fitting = [t for t in scene.things if (t.size, t.colour, t.kind, t.detail) == (
        thing.size, thing.colour, thing.kind, thing.detail) and thing.material in ("plain", t.material)]  # may be striped
    words = f"the {noun_phrase(thing, where=False).split(' ', 1)[1]}" if fitting == [thing] else reference(scene, thing)
    where = location(bounding_box(thing, scene))
    return [_item(f"detect {words}", where, [where], skill)]


def _captioned(scene: Scene, skill: str, rng: random.Random, k: int) -> list[dict]:
    """A picture to describe, with the captions of five people: the first is the testbed's own."""
    answers = [caption(scene), *_captions(scene, rng)]
    return [_item("Describe this picture.", answers[0], answers, skill)]


def _captions(scene: Scene, rng: random.Random) -> list[str]:
    """Four ways in which people would describe a scene, each with its own order, words and detail."""
    def shuffled() -> list[Thing]:
        return rng.sample(scene.things, len(scene.things))
    sky = "" if scene.weather == "fair" else f"{scene.weather} "
    behind = f"{sky}{scene.background} background"
    return [
        f"a picture with {' and '.join(noun_phrase(t, where=False) for t in shuffled())} on a {behind}",
        f"a {behind} with, {', '.join(f'{place(t.cell)}, {noun_phrase(t, where=False)}' for t in shuffled())}",
        f"there is {', '.join(f'a {t.colour} {t.kind} {place(t.cell)}' for t in shuffled())} on {scene.background}",
        f"{' and '.join(f'a {t.size} {t.colour} {t.kind}' for t in scene.things)} in front of a {behind}"]


_VQA = "Ten simulated annotators, one in twenty of whom errs."
_MATCHED = ("The question is put without its options, since the models have not learnt to choose by letter; a reply that is none "
            "of the options is wrong, nothing is guessed for it.")
SUITES = {
    "vqav2-mini": Suite(tuple(SKILLS), _annotated, "vqa_accuracy", "VQAv2", f"All skills in equal shares. {_VQA}"),
    "gqa-mini": Suite(
        ("row", "column", "size", "colour", "side", "height", "neighbour", "same_colour", "compare_size", "order", "material"),
        _short, "exact_match", "GQA", "Compositional questions from templates, without scene graphs and consistency scores."),
    "okvqa-mini": Suite(("knowledge",), _annotated, "vqa_accuracy", "OK-VQA",
                        f"What things do or are for, eighteen facts in all. {_VQA} OK-VQA has five annotators, counted twice."),
    "ai2d-mini": Suite(("orientation", "order", "neighbour", "occlusion"), _choice, "exact_match", "AI2D",
                       f"Arrows and layout instead of textbook diagrams. {_MATCHED}"),
    "docvqa-mini": Suite(("text", "digit"), _short, "anls", "DocVQA", "One word or one handwritten digit instead of a page."),
    "chartqa-mini": Suite(("chart", "peak"), _short, "relaxed_accuracy", "ChartQA",
                          "Charts of three bars with heights from one to four, right as a word or a digit; exactly 5 % off "
                          "is right."),
    "refcoco-mini": Suite(("detect",), _detect, "iou", "RefCOCO",
                          "Expressions from templates; a box in location tokens, as PaliGemma answers, around all of a thing, "
                          "its hidden part included; the mean IoU."),
    "cococap-mini": Suite(
        ("caption",), _captioned, "cider_d", "COCO captions",
        "Five reference captions from templates; words are split by the Penn Treebank's rules, without Stanford's tokenizer.",
        tokens=128),
    "mmbench-mini": Suite(
        ("colour", "name", "count_all", "count_kind", "material", "action", "mood", "weather", "neighbour", "sign", "text",
         "clock", "small_object", "order"), _circular, "circular", "MMBench",
        f"Four options in four rotations, which are all one to a model that does not see them. {_MATCHED}"),
    "mmt-mini": Suite(tuple(SKILLS), _choice, "exact_match", "MMT-Bench", f"All skills in equal shares. {_MATCHED}"),
    "seed-mini": Suite(
        ("background", "weather", "name", "colour", "row", "column", "count_kind", "side", "height", "occlusion",
         "compare_counts", "text"), _choice, "exact_match", "SEED-Bench", f"Single pictures only, no video. {_MATCHED}"),
    "mme-mini": Suite(
        ("exists", "count_all", "count_colour", "row", "column", "colour", "text", "digit"), _yes_and_no, "mme", "MME",
        "Existence, count, position, colour and reading, of MME's perception tasks; none of its cognition tasks. Each skill "
        "is a task; the score is the mean over the tasks, where MME has their sum."),
    "mmmu-mini": Suite(
        ("arithmetic", "chart", "peak", "clock", "compare_counts", "negation", "knowledge", "sign"), _mixed, "exact_match",
        "MMMU", f"Sums, clocks and charts instead of college exams; half choices, half open. {_MATCHED}"),
    "mmstar-mini": Suite(
        ("colour", "name", "clock", "text", "sign", "action", "order", "small_object", "neighbour", "distraction", "digit"),
        _unguessable, "exact_match", "MMStar",
        f"The best guess without the picture, a skill's commonest answer, is never right and never an option. {_MATCHED}"),
    "realworldqa-mini": Suite(
        ("weather", "sign", "orientation", "text", "side", "height", "count_kind", "distraction", "action"), _mixed,
        "exact_match", "RealWorldQA",
        f"Signs, weather, arrows and places instead of photographs; half choices, half short answers. {_MATCHED}"),
    "pope-mini": Suite(("exists",), _polled, "accuracy", "POPE",
                       "One question a picture; the three strategies are mixed, an item's name says which made it. Adversarial "
                       "are colours and kinds that are both there, not things that often go together. An empty answer is wrong; "
                       "POPE's script takes it, like any other answer without a no in it, for a yes."),
}

FORMATS = {"mmt-mini": 3, "mme-mini": 2, "refcoco-mini": 2, "cococap-mini": 1}  # to learn from: suite -> weight


def format_item(scene: Scene, rng: random.Random) -> dict | None:
    """An item about a scene (question with its options, answer, about ...), to learn formats from; None where none was found."""
    suite = SUITES[rng.choices(tuple(FORMATS), tuple(FORMATS.values()))[0]]
    for _ in range(6):
        if made := suite.make(scene, rng.choice(suite.skills), rng, 0):
            item = rng.choice(made)
            return item | dict(question=listed(item))
    return None


def suite_items(name: str, n: int, seed: int, split: str = "test", gaps: tuple[Gap, ...] = ()) -> pd.DataFrame:
    """`n` items of a suite, rounded up to whole groups, on scenes and digit scans of a split; one question or group a picture.

    Columns: item, image (48 x 48 RGB), question (all that a model is shown), answer (a letter where there are options), answers
    (all that count, or the references), options (or None), group (items that are scored together), skill, gap (the name of the
    first of `gaps` that the bare question meets, or None). Skills have equal shares: none is asked again before each was. Raises
    ValueError for an unknown suite or split; AssertionError where a suite's skills are hardly ever answerable.
    """
    if name not in SUITES:
        raise ValueError(f"Unknown suite {name!r}; choose one of {', '.join(SUITES)}.")
    suite, rows, asked = SUITES[name], [], Counter()
    rng, scenes = random.Random(f"suite/{name}/{split}/{seed}"), _scenes(n, split, f"{name}/{seed}")
    while len(rows) < n:
        scene = next(scenes)
        least = min(asked[skill] for skill in suite.skills)
        for skill in (skill for skill in suite.skills if asked[skill] == least):
            if made := suite.make(scene, skill, rng, least):
                rows += _rows(name, split, scene, made, len(rows), gaps)
                asked[skill] += 1
                break
    return pd.DataFrame(rows, columns=COLUMNS)


def _scenes(n: int, split: str, seed: str) -> Iterator[Scene]:
    for chunk in range(CHUNKS):
        yield from sample_scenes(n, split, f"{seed}/{chunk}")
    raise AssertionError(f"{CHUNKS * n} scenes were too few for {seed}: its skills are too rarely answerable.")


def _rows(name: str, split: str, scene: Scene, made: list[dict], first: int, gaps: tuple[Gap, ...]) -> list[dict]:
    image, rows = render(scene), []
    for i, item in enumerate(made):
        question, held = parse_question(item["about"]), gap_of(scene, item["about"], gaps)
        rows.append(item | dict(
            item=f"{name}-{split}{item['tag']}-{first + i:05d}", image=image, group=f"{name}-{split}-{first:05d}",
            skill=question.skill if question else item["about"], gap=held[0].name if held else None))
    return rows


def gap_items(n_per_gap: int, seed: int, gaps: tuple[Gap, ...]) -> pd.DataFrame:
    """`n_per_gap` items inside each of the gaps, on scenes of the test split; columns as in `suite_items`, no rows for no gaps.

    `gap` names the first gap that a question meets, which is another than its own where two overlap.
    """
    scenes = sample_scenes(4000, "test", f"gaps/{seed}") if gaps else []
    rng, rows = random.Random(f"gap items/{seed}"), []
    for g, gap in enumerate(gaps):
        for k, (i, text) in enumerate(questions_in_gap(gap, scenes, n_per_gap, rng)):
            right, item = answer(scenes[i], text), f"gap-{g:02d}-{k:04d}"
            rows.append(_item(text, right, _accepted(right), text) | dict(
                item=item, image=render(scenes[i]), group=item, skill=gap.skill, gap=gap_of(scenes[i], text, gaps)[0].name))
    return pd.DataFrame(rows, columns=COLUMNS)


GAP_ITEMS = "gap-items"  # questions inside the gaps planted in the target, on pictures that nothing was trained on


def suite_names() -> tuple[str, ...]:
    """The suites of the testbed, the held-out items of planted gaps included."""
    return (*SUITES, GAP_ITEMS)


def suite_table(suite: str, n: int, seed: int, target: str | Path) -> pd.DataFrame:
    """`n` items of a suite, or of each gap planted in `target` (see `protocols.SuiteSource`); no rows where none is planted."""
    gaps = gaps_of(target)
    if suite == GAP_ITEMS:
        return gap_items(n, seed, gaps).assign(metric="exact_match", tokens=8)
    return suite_items(suite, n, seed, gaps=gaps).assign(metric=SUITES[suite].metric, tokens=SUITES[suite].tokens)


def training_table(suite: str, n: int, seed: int) -> pd.DataFrame:
    """Up to `n` questions of a suite on scenes of the train split, each once, with what a model should reply (see
    `protocols.SuiteSource`): the text of the right option where there are options."""
    items = suite_items(suite, n, seed, split="train").drop_duplicates(["group", "question"], ignore_index=True)
    said = [item.options[LETTERS.index(item.answer)] if item.options else item.answer for item in items.itertuples()]
    return items[["image", "question"]].assign(answer=said)
