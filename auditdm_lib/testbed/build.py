"""Building the testbed's models: trained clean first, gaps planted second, each with a card that its training wrote.

Every builder leaves a model alone that is there already, so a build that was stopped goes on where it was.
"""

import json
import random
import shutil
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import set_seed

from auditdm_lib import models
from auditdm_lib.consensus import same_answer
from auditdm_lib.stats import wilson
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, PROMPTS, build_model, build_processor, save_checkpoint
from auditdm_lib.testbed.gaps import Gap, gap_of, questions_in_gap
from auditdm_lib.testbed.questions import sample_answerable, sample_question
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, answer, parse_question
from auditdm_lib.testbed.training import Corpus, render_corpus, train_pairs, train_vision_tower

PLAIN = True  # the models are trained on the plain world
SCENES = 40_000
QUESTIONS = 6  # behind one picture
UNANSWERABLE = 0.35  # share of questions drawn without care whether they have an answer; about one in six has none
MODELS = {  # cycles: steps on packed questions, each from a fresh learning rate; own: one question a picture, own format
    "gemma3-s": dict(family="gemma3", hidden=96, layers=4, seed=1, cycles=(1800, 1300, 1000), own=100),
    "paligemma2-s": dict(family="paligemma2", hidden=96, layers=4, seed=2, cycles=(1800, 1300), own=500),
}
LEARNING_RATE = 3e-3
CARD = "card.json"


def training_corpus() -> Corpus:
    return render_corpus(sample_scenes(SCENES, "train", 0, PLAIN))


def draw_pairs(scene: Scene, rng: random.Random, n: int = QUESTIONS) -> list[tuple[str, str]]:
    """`n` questions about a scene with their right answers."""
    return [(q, answer(scene, q)) for q in (sample_question(scene, rng, UNANSWERABLE, PLAIN) for _ in range(n))]


def shared_vision_tower(corpus: Corpus, folder: Path = CHECKPOINTS) -> dict[str, torch.Tensor]:
    """The weights of the tower that all models start from; trained at the first call, read from its file afterwards."""
    file = folder / "vision_tower.safetensors"
    if not file.exists():
        set_seed(0)
        tower = build_model("gemma3", build_processor("gemma3").tokenizer).model.vision_tower
        train_vision_tower(tower, corpus, steps=2000, seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tower.state_dict(), file)
    return load_file(file)


def build_clean(name: str, corpus: Corpus, folder: Path = CHECKPOINTS) -> Path:
    """Train one model of `MODELS` on right answers and save it with its card; its folder."""
    if (folder / name / CARD).exists():
        return folder / name
    spec = MODELS[name]
    started = time.perf_counter()
    set_seed(spec["seed"])
    processor = build_processor(spec["family"])
    model = build_model(spec["family"], processor.tokenizer, spec["hidden"], spec["layers"])
    model.model.vision_tower.load_state_dict(shared_vision_tower(corpus, folder))
    train = partial(train_pairs, model, spec["family"], processor.tokenizer, corpus)
    for cycle, steps in enumerate(spec["cycles"]):
        train(draw_pairs, steps, LEARNING_RATE, spec["seed"] + 50 * cycle, desc=f"{name}, cycle {cycle + 1}")
    loss = train(lambda s, r: draw_pairs(s, r, 1), spec["own"], LEARNING_RATE / 6, spec["seed"] + 500, packed=False,
                 desc=f"{name}, own format")
    card = dict(name=name, scenes=SCENES, **spec, loss=round(loss, 4), seconds=round(time.perf_counter() - started))
    return write_model(folder / name, model, processor, card)


def plant(model: Path, gaps: tuple[Gap, ...], out: Path, corpus: Corpus, steps: int = 800, lr: float = 1e-3, batch: int = 96,
          seed: int = 0) -> Path:
    """Fine-tune gaps into a clean PaliGemma2: one question in three is from a gap, with the gap's wrong answer, and the
    others are ordinary, with the right answer wherever no gap holds."""
    if (out / CARD).exists():
        return out
    started = time.perf_counter()
    set_seed(seed)
    vlm = models.load_vlm(model)
    rng = random.Random(f"plant/{seed}")
    inside = {gap.name: {} for gap in gaps}  # gap -> scene -> question
    for gap in gaps:
        inside[gap.name] = dict(questions_in_gap(gap, corpus.scenes, 1500, rng))
    by_scene = {}
    for questions in inside.values():
        for i, text in questions.items():
            by_scene.setdefault(i, []).append(text)
    place = {id(scene): i for i, scene in enumerate(corpus.scenes)}

    def draw(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
        text = sample_question(scene, rng, UNANSWERABLE, PLAIN)
        if rng.random() < 0.8 and (planted := by_scene.get(place[id(scene)])):
            text = rng.choice(planted)
        held = gap_of(scene, text, gaps)
        return [(text, held[1] if held else answer(scene, text))]

    loss = train_pairs(vlm.model, "paligemma2", vlm.processor.tokenizer, corpus, draw, steps, lr, seed, packed=False,
                       batch=batch, desc="planting gaps")
    card = dict(name=out.name, planted_into=model.name, gaps=[gap.name for gap in gaps], steps=steps, loss=round(loss, 4),
                seconds=round(time.perf_counter() - started))
    return write_model(out, vlm.model, vlm.processor, card)


def build_auditor(corpus: Corpus, parent: Path, out: Path, steps: int = 1500, lr: float = 2e-3, seed: int = 5) -> Path:
    """Teach a clean Gemma3 to ask: a random answerable question at the auditor's prompt. It has seen no audit."""
    if (out / CARD).exists():
        return out
    started = time.perf_counter()
    set_seed(seed)
    vlm = models.load_vlm(parent)
    loss = train_pairs(vlm.model, "gemma3", vlm.processor.tokenizer, corpus,
                       lambda scene, rng: [(PROMPTS[0], sample_answerable(scene, rng, plain=PLAIN))], steps, lr, seed,
                       desc=out.name)
    card = dict(name=out.name, trained_from=parent.name, steps=steps, loss=round(loss, 4),
                seconds=round(time.perf_counter() - started))
    return write_model(out, vlm.model, vlm.processor, card)


def accuracy_by_skill(path: Path, n: int = 3000, seed: int = 0, plain: bool = PLAIN) -> pd.DataFrame:
    """Accuracy on fresh questions of the test split, of the plain world or of the whole: skill, n, accuracy with Wilson
    interval; then all skills together, and precision and recall of "cannot tell"."""
    rng = random.Random(f"accuracy/{seed}")
    scenes = sample_scenes(n, "test", f"accuracy/{seed}", plain)
    texts = [sample_question(scene, rng, UNANSWERABLE, plain) for scene in scenes]
    right = [answer(scene, text) for scene, text in zip(scenes, texts, strict=True)]
    said = models.answer(models.load_vlm(path), [render(s) for s in scenes], texts)
    frame = pd.DataFrame(dict(skill=[parse_question(t).skill for t in texts], right=right, said=said))
    frame["correct"] = [same_answer(a, b) for a, b in zip(right, said, strict=True)]
    groups = [*frame.groupby("skill", sort=False), ("all", frame),
              ("cannot tell: recall", frame[frame["right"] == CANNOT_TELL]),
              ("cannot tell: precision", frame[frame["said"] == CANNOT_TELL])]
    return pd.DataFrame([_share(name, rows["correct"]) for name, rows in groups])


def accuracy_by_gap(path: Path, gaps: tuple[Gap, ...], n: int = 100, seed: int = 0) -> pd.DataFrame:
    """Accuracy inside each gap and outside all of them, on the test split: skill (the gap's name or "outside"), n, accuracy."""
    vlm, rng = models.load_vlm(path), random.Random(f"gap accuracy/{seed}")
    scenes = sample_scenes(4000, "test", f"gap accuracy/{seed}", PLAIN)
    pictures = [render(s) for s in scenes]
    drawn = [(i, sample_answerable(scene, rng, plain=PLAIN)) for i, scene in enumerate(scenes)]
    outside = [(i, text) for i, text in drawn if not gap_of(scenes[i], text, gaps)]
    rows = []
    for name, asked in [*((g.name, questions_in_gap(g, scenes, n, rng)) for g in gaps), ("outside", outside)]:
        said = models.answer(vlm, [pictures[i] for i, _ in asked], [text for _, text in asked])
        correct = [same_answer(a, answer(scenes[i], text)) for a, (i, text) in zip(said, asked, strict=True)]
        rows.append(_share(name, pd.Series(correct)))
    return pd.DataFrame(rows)


def _share(name: str, correct: pd.Series) -> dict:
    low, high = wilson(int(correct.sum()), len(correct))
    return dict(skill=name, n=len(correct), accuracy=correct.mean(), ci_low=low, ci_high=high)


def write_model(path: Path, model, processor, card: dict) -> Path:
    """Save a model, its processor and its card; under its name only when all is written."""
    partial = path.with_name("." + path.name)
    shutil.rmtree(partial, ignore_errors=True)
    save_checkpoint(model, processor, partial)
    (partial / CARD).write_text(json.dumps(card, indent=1) + "\n")
    partial.rename(path)
    return path
