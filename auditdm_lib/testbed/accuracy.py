"""Accuracy of the testbed's models: by skill, inside and outside gaps, and of the references as an ensemble."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from auditdm_lib.answers import same_answer
from auditdm_lib.models.vlm import VLM, answer, load_vlm, sample
from auditdm_lib.stats import wilson
from auditdm_lib.testbed.checkpoint import PROMPTS
from auditdm_lib.testbed.gaps import Gap, gap_of, questions_in_gap
from auditdm_lib.testbed.language import Refusal, apply_edit, parse_caption
from auditdm_lib.testbed.questions import UNANSWERABLE, sample_answerable, sample_question
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, parse_question
from auditdm_lib.testbed.skills import answer as right_answer


def share(name: str, correct: list[bool] | pd.Series) -> dict:
    """A row of a table: skill (`name`, which may also be a gap or another group), n, accuracy, ci_low, ci_high (Wilson, 95 %)."""
    low, high = wilson(int(sum(correct)), len(correct))
    return dict(skill=name, n=len(correct), accuracy=sum(correct) / len(correct) if len(correct) else math.nan, ci_low=low,
                ci_high=high)


def _asked(n: int, seed: int | str) -> tuple[list[Scene], list[str], list[str]]:
    """New scenes of the test split, a question about each, and the right answers."""
    rng = random.Random(f"accuracy/{seed}")
    scenes = sample_scenes(n, "test", f"accuracy/{seed}")
    texts = [sample_question(scene, rng, UNANSWERABLE) for scene in scenes]
    return scenes, texts, [right_answer(scene, text) for scene, text in zip(scenes, texts, strict=True)]


def _answers(vlm: VLM, scenes: list[Scene], texts: list[str], desc: str | None = None) -> list[str]:
    """The model's answers; one that has not ended counts as empty."""
    return [said or "" for said in answer(vlm, [render(scene) for scene in scenes], texts, desc=desc)]


def accuracy_by_skill(path: Path, n: int = 40_000, seed: int = 0) -> pd.DataFrame:
    """Accuracy on new questions by skill and overall, and recall and precision of "cannot tell"; rows as in `share`."""
    scenes, texts, right = _asked(n, seed)
    given = _answers(load_vlm(path), scenes, texts, desc=f"{path.name.strip('.').split('.')[0]}: accuracy")
    frame = pd.DataFrame(dict(skill=[parse_question(t).skill for t in texts], right=right, given=given))
    frame["correct"] = [same_answer(a, b) for a, b in zip(right, given, strict=True)]
    groups = [*((skill, frame[frame["skill"] == skill]) for skill in SKILLS), ("all", frame),
              ("cannot tell: recall", frame[frame["right"] == CANNOT_TELL]),
              ("cannot tell: precision", frame[frame["given"] == CANNOT_TELL])]
    return pd.DataFrame([share(name, rows["correct"]) for name, rows in groups])


def accuracy_by_gap(vlm: VLM, gaps: tuple[Gap, ...], n: int = 100, n_outside: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Accuracy on answerable questions of the test split inside each gap (`skill` is its name) and outside all of them."""
    rng = random.Random(f"gap accuracy/{seed}")
    scenes = sample_scenes(4000, "test", f"gap accuracy/{seed}")
    outside = []
    while len(outside) < n_outside:
        i = rng.randrange(len(scenes))
        if not gap_of(scenes[i], text := sample_answerable(scenes[i], rng), gaps):
            outside.append((i, text))
    rows = []
    for name, asked in [*((g.name, questions_in_gap(g, scenes, n, rng)) for g in gaps), ("outside", outside)]:
        given = _answers(vlm, [scenes[i] for i, _ in asked], [text for _, text in asked])
        rows.append(share(name, [same_answer(a, right_answer(scenes[i], text))
                                 for a, (i, text) in zip(given, asked, strict=True)]))
    return pd.DataFrame(rows)


def failures_by_gap(path: Path, gaps: tuple[Gap, ...], n: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Failures of a model on random answerable questions: overall, inside each gap and outside; each as a share of all
    questions (with Wilson's interval) and of all its failures."""
    rng = random.Random(f"failures/{seed}")
    scenes = sample_scenes(n, "test", f"failures/{seed}")
    texts = [sample_answerable(scene, rng) for scene in scenes]
    given = _answers(load_vlm(path), scenes, texts, desc=f"{path.name}: failures")
    wrong = pd.Series([not same_answer(a, right_answer(s, t)) for a, s, t in zip(given, scenes, texts, strict=True)])
    held = [gap_of(scene, text, gaps) for scene, text in zip(scenes, texts, strict=True)]
    where = pd.Series([found[0].name if found else "outside" for found in held])
    rows = []
    for name, failed in [("all", wrong), *((name, wrong & (where == name)) for name in (*(g.name for g in gaps), "outside"))]:
        low, high = wilson(int(failed.sum()), n)
        rows.append(dict(gap=name, asked=n if name == "all" else int((where == name).sum()), failures=int(failed.sum()),
                         share_of_questions=failed.mean(), ci_low=low, ci_high=high,
                         share_of_failures=failed.sum() / wrong.sum()))
    return pd.DataFrame(rows)


def consensus_quality(references: list[Path], consensus: Callable[[list[str]], str | None], n: int = 10_000,
                      seed: int = 0) -> pd.DataFrame:
    """Quality of the references' consensus, rows as in `share`: how often there is one on an answerable question, how often it
    is then wrong, and how often there is one on a question that has no answer.

    `consensus` maps the answers of all references to one question to the answer they agree on, or None.
    """
    scenes, texts, right = _asked(n, f"consensus/{seed}")
    pictures = [render(s) for s in scenes]
    votes = zip(*(answer(load_vlm(path), pictures, texts, desc=f"{Path(path).name}: votes") for path in references), strict=True)
    agreed = [consensus(list(row)) for row in votes]
    has = [r != CANNOT_TELL for r in right]
    exists = [a is not None for a, h in zip(agreed, has, strict=True) if h]
    wrong = [not same_answer(a, r) for a, r, h in zip(agreed, right, has, strict=True) if h and a is not None]
    confident = [a is not None for a, h in zip(agreed, has, strict=True) if not h]
    return pd.DataFrame([share("exists, of the answerable", exists), share("wrong, where it exists", wrong),
                         share("confident, of the unanswerable", confident)])


def adds(scene: Scene, description: str) -> bool:
    """Whether a description can be drawn, keeps everything in the scene, and adds something."""
    drawn = parse_caption(description)
    return not isinstance(drawn, Refusal) and set(scene.things) < set(drawn.things)


def auditor_quality(path: Path, n: int = 4000, seed: int = 0, temperature: float = 0.7) -> pd.DataFrame:
    """Validity of an auditor's outputs for its three prompts on new pictures, at the temperature of notebook 02, rows as in
    `share`: answerable questions by skill and overall, descriptions that can be drawn and add something, edit commands that
    can be applied and change the picture."""
    vlm, scenes = load_vlm(path), sample_scenes(n, "test", f"auditor/{seed}")
    pictures = [render(s) for s in scenes]
    asked, described, edited = (
        sample(vlm, pictures, prompt, temperature, seed, tokens, desc=prompt)["text"].tolist()
        for prompt, tokens in zip(PROMPTS, (24, 128, 32), strict=True))
    questions = pd.DataFrame(dict(
        skill=[getattr(parse_question(text), "skill", None) for text in asked],
        answerable=[right_answer(s, t) not in (None, CANNOT_TELL) for s, t in zip(scenes, asked, strict=True)]))
    more = [adds(s, text) for s, text in zip(scenes, described, strict=True)]
    follows = [isinstance(new := apply_edit(s, t), Scene) and new != s for s, t in zip(scenes, edited, strict=True)]
    return pd.DataFrame([
        *(share(skill, questions.loc[questions["skill"] == skill, "answerable"]) for skill in SKILLS),
        share("questions: answerable", questions["answerable"]), share("descriptions: can be drawn, add and keep", more),
        share("edits: can be followed", follows)])
