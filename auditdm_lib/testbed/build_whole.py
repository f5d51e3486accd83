"""Clean models of the whole world: one vision tower for all, then a language model on its ready features, then both together.

The default run still uses the plain world's models (`build.py`); these take their place once gaps are planted in them.
"""

import random
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import set_seed

from auditdm_lib.testbed.build import CARD, UNANSWERABLE, write_model
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, build_model, build_processor
from auditdm_lib.testbed.learning import Schedule, train_language
from auditdm_lib.testbed.questions import sample_question
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.suites import SUITES
from auditdm_lib.testbed.training import Corpus, render_corpus, train_pairs
from auditdm_lib.testbed.vision import features_of, train_vision_tower

WHOLE = CHECKPOINTS / "whole"
SCENES, TOWER_STEPS, STEPS, OWN_STEPS, OWN_RATE = 60_000, 6000, 5000, 600, 1e-3
QUESTIONS = 7  # behind one picture, and one item in a suite's format
FORMATS = {"mmt-mini": 3, "mme-mini": 2, "refcoco-mini": 2, "cococap-mini": 1}  # suite -> weight
MODELS = {
    "gemma3-m": dict(family="gemma3", hidden=128, layers=4, seed=11),
    "paligemma2-m": dict(family="paligemma2", hidden=128, layers=4, seed=21)}


def whole_corpus() -> Corpus:
    return render_corpus(sample_scenes(SCENES, "train", 0))


def draw_pairs(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Questions about a scene with their right answers, and, where one fits, an item in a suite's format."""
    pairs = [(text, answer(scene, text)) for text in (sample_question(scene, rng, UNANSWERABLE) for _ in range(QUESTIONS))]
    suite = SUITES[rng.choices(tuple(FORMATS), tuple(FORMATS.values()))[0]]
    for _ in range(6):
        if made := suite.make(scene, rng.choice(suite.skills), rng, 0, False):
            item = rng.choice(made)
            return [*pairs, (item["question"], item["answer"])]
    return pairs


def whole_tower(corpus: Corpus, folder: Path = WHOLE) -> dict[str, torch.Tensor]:
    """The weights of the vision tower; trained at the first call, read from its file afterwards."""
    file = folder / "vision_tower.safetensors"
    if not file.exists():
        set_seed(0)
        tower = build_model("gemma3", build_processor("gemma3").tokenizer).model.vision_tower
        train_vision_tower(tower, corpus, TOWER_STEPS, seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tower.state_dict(), file)
    return load_file(file)


def build_whole(name: str, corpus: Corpus, folder: Path = WHOLE) -> Path:
    """Train one model of `MODELS` and save it with its card; its folder. A stopped build goes on where it was."""
    if (folder / name / CARD).exists():
        return folder / name
    spec, state = MODELS[name], folder / f".{name}.state"
    set_seed(spec["seed"])
    processor = build_processor(spec["family"])
    model = build_model(spec["family"], processor.tokenizer, spec["hidden"], spec["layers"])
    model.model.vision_tower.load_state_dict(whole_tower(corpus, folder))
    features = features_of(model.model.vision_tower, corpus)
    card = train_language(model, spec["family"], processor.tokenizer, corpus.scenes, features, draw_pairs, Schedule(STEPS),
                          spec["seed"], state, desc=name)
    started = time.perf_counter()
    loss = train_pairs(
        model, spec["family"], processor.tokenizer, corpus, lambda scene, rng: [rng.choice(draw_pairs(scene, rng))],
        OWN_STEPS, OWN_RATE, spec["seed"], packed=False, batch=96, desc=f"{name}, own format")
    card = dict(name=name, scenes=SCENES, **spec, steps=STEPS, own_steps=OWN_STEPS, loss=round(loss, 4),
                seconds=card["seconds"] + round(time.perf_counter() - started))
    write_model(folder / name, model, processor, card)
    shutil.rmtree(state)
    return folder / name
