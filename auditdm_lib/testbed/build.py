"""Building the testbed's models: clean ones on one vision tower, the auditor, and those with planted gaps.

A model that exists is not rebuilt. An interrupted training of a language model resumes from its last saved step; that of the
vision tower (some minutes) starts over.
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import set_seed

from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.run import lock
from auditdm_lib.testbed.accuracy import accuracy_by_skill, auditor_quality
from auditdm_lib.testbed.cards import ABOUT, CARD, write_folder, write_model
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, PROMPTS, build_model, build_processor
from auditdm_lib.testbed.drawn import captions_drawn, commands_done
from auditdm_lib.testbed.gaps import load_gaps
from auditdm_lib.testbed.language import caption, noun_phrase, sample_edit
from auditdm_lib.testbed.learning import EVERY, Schedule, train_language
from auditdm_lib.testbed.pipelines import build_edit, build_image
from auditdm_lib.testbed.plant import plant
from auditdm_lib.testbed.questions import UNANSWERABLE, draw_question, sample_answerable, sample_question
from auditdm_lib.testbed.reader import STEPS as READER_STEPS
from auditdm_lib.testbed.reader import load_reader, own_error, save_reader, train_reader
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.suites import format_item
from auditdm_lib.testbed.training import Corpus, render_corpus
from auditdm_lib.testbed.vision import features_of, train_vision_tower

SCENES, TOWER_STEPS = 60_000, 6000
QUESTIONS = 7  # about one picture, besides one item in a suite's format
# Skills that are learnt last. Most relate two things; accuracy on them rises abruptly, and sooner the more often they are asked.
HARD = ("arithmetic", "compare_size", "neighbour", "compare_counts", "count_kind", "side", "height", "negation", "count_colour",
        "same_colour")


@dataclass(frozen=True)
class Recipe:
    """How a clean model is trained: `steps` with many questions per picture, then `polish` steps in the family's own format
    with one question in seven from the hard skills, then `hard` steps with three in seven, half of them drawn without checking
    for an answer, then `careful` steps with nine tenths of them so drawn, where "cannot tell" is still to be learnt. A model
    `grown` from a smaller one has new layers at the indices `new`."""

    family: str
    hidden: int
    layers: int
    seed: int
    steps: int = 0
    polish: int = 0
    hard: int = 0
    careful: int = 0
    hard_lr: float = 4e-3
    grown: str = ""
    new: tuple[int, ...] = ()


CLEAN = {
    "gemma3-s": Recipe("gemma3", 96, 3, seed=10, steps=3000, hard=4800, careful=1200),
    "gemma3-m": Recipe("gemma3", 128, 4, seed=11, steps=5000),
    "gemma3-l": Recipe("gemma3", 128, 6, seed=12, polish=2500, hard=1200, hard_lr=3e-3, grown="gemma3-m", new=(2, 5)),
    "paligemma2-s": Recipe("paligemma2", 128, 4, seed=21, steps=5000, polish=2000, hard=1800, careful=1000),
    "paligemma2-m": Recipe("paligemma2", 128, 6, seed=22, polish=2000, hard=2000, grown="paligemma2-s", new=(2, 5)),
    "paligemma2-l": Recipe("paligemma2", 128, 8, seed=23, hard=2500, grown="paligemma2-m", new=(3, 7)),
}
AUDITOR_PARENT, AUDITOR_STEPS = "gemma3-m", 3100
PLANTED = {  # model with the gaps of gaps.yaml -> the clean model that they are planted into
    "target": "paligemma2-s", "needle": "paligemma2-s", "gemma3-target": "gemma3-m", "paligemma2-target": "paligemma2-s",
    "paligemma2-m-flawed": "paligemma2-m", "gemma3-l-flawed": "gemma3-l", "rare": "gemma3-m", "rarest": "gemma3-m"}
MODELS = (*CLEAN, "auditor", *PLANTED)
ABOUT_READER = ABOUT + " It reads drawn pictures; the table is its own error, on exact renderings of held-out scenes."
DRAWERS = ("reader", "image", "edit")  # the scene reader and the drawing pipelines, each after those before it


def build(name: str, corpus: Callable[[], Corpus], folder: Path = CHECKPOINTS) -> Path:
    """Build one model of `MODELS`, after those that it derives from, each only where its folder does not exist; its folder.

    `corpus` renders the training scenes; it is called only where something has to be trained. Raises ValueError for an
    unknown name.
    """
    if name not in (*MODELS, *DRAWERS):
        raise ValueError(f"Unknown model {name!r}; choose one of {', '.join((*MODELS, *DRAWERS))}.")
    if (folder / name / CARD).exists():
        return folder / name
    lock.hold(folder / name)
    if name in DRAWERS:
        return build_drawer(name, corpus, folder)
    if name in PLANTED:
        plant(build(PLANTED[name], corpus, folder), load_gaps()[name], folder / name)
        return folder / name
    if name == "auditor":
        return build_auditor(build(AUDITOR_PARENT, corpus, folder), corpus(), folder)
    if CLEAN[name].grown:
        build(CLEAN[name].grown, corpus, folder)
    return build_clean(name, corpus(), folder)


def build_drawer(name: str, corpus: Callable[[], Corpus], folder: Path) -> Path:
    """Build the scene reader or a drawing pipeline, whose drawings the shipped reader measures."""
    if name == "reader":
        started = time.perf_counter()
        trained = train_reader(shared_tower(corpus(), folder), corpus())
        card = dict(name=name, trained_from="vision_tower", scenes=len(corpus().scenes), steps=READER_STEPS,
                    seconds=round(time.perf_counter() - started))
        write_folder(folder / name, partial(save_reader, trained), card, lambda saved: own_error(load_reader(saved)),
                     ABOUT_READER)
        return folder / name
    build(DRAWERS[DRAWERS.index(name) - 1], corpus, folder)
    return build_image(folder, captions_drawn) if name == "image" else build_edit(folder, commands_done)


def training_corpus() -> Corpus:
    """The training scenes of the clean models, rendered (about a minute)."""
    return render_corpus(sample_scenes(SCENES, "train", 0))


def draw_pairs(scene: Scene, rng: random.Random, hard: int = 0, careless: float = 0.5) -> list[tuple[str, str]]:
    """Questions about a scene with their right answers, `hard` of them from the hard skills, of which a share `careless` is
    drawn without checking for an answer; and, where one fits, an item in a suite's format."""
    texts = [sample_question(scene, rng, UNANSWERABLE) for _ in range(QUESTIONS - hard)]
    for skill in rng.choices(HARD, k=hard):
        # "cannot tell" is learnt last where it depends on two things, so unanswerable questions are drawn more often here.
        text = draw_question(scene, rng, skill) if rng.random() < careless else sample_answerable(scene, rng, skill)
        texts.append(text or sample_question(scene, rng, UNANSWERABLE))
    pairs = [(text, answer(scene, text)) for text in texts]
    item = format_item(scene, rng)
    pairs += [(item["question"], item["answer"])] if item else []
    return rng.sample(pairs, len(pairs))


def shared_tower(corpus: Corpus, folder: Path = CHECKPOINTS) -> dict[str, torch.Tensor]:
    """The weights of the vision tower that all models share; trained on the first call, read from its file afterwards."""
    file = folder / "vision_tower.safetensors"
    if not file.exists():
        set_seed(0)
        tower = build_model("gemma3", build_processor("gemma3").tokenizer).model.vision_tower
        train_vision_tower(tower, corpus, TOWER_STEPS, seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tower.state_dict(), file.with_suffix(".partial"))
        os.replace(file.with_suffix(".partial"), file)
    return load_file(file)


def grow(small: nn.Module, large: nn.Module, new: tuple[int, ...]) -> None:
    """Copy a model into a deeper one of the same width that computes exactly the same function.

    The layers at `new` are copies of the layer before them with output norms set to zero (depth-wise growth, as in
    Gong et al. 2019 and Kim et al. 2023), so that training continues from the smaller model's function.
    """
    large.model.vision_tower.load_state_dict(small.model.vision_tower.state_dict())
    large.model.multi_modal_projector.load_state_dict(small.model.multi_modal_projector.state_dict())
    old, grown = small.model.language_model, large.model.language_model
    kept = [i for i in range(len(grown.layers)) if i not in new]
    assert len(kept) == len(old.layers), f"{len(old.layers)} layers do not fill the {len(kept)} places left by {new}."
    grown.embed_tokens.load_state_dict(old.embed_tokens.state_dict())
    grown.norm.load_state_dict(old.norm.state_dict())
    for layer, place in zip(old.layers, kept, strict=True):
        grown.layers[place].load_state_dict(layer.state_dict())
    for place in new:
        grown.layers[place].load_state_dict(grown.layers[place - 1].state_dict())
        for norm in (grown.layers[place].post_attention_layernorm, grown.layers[place].post_feedforward_layernorm):
            nn.init.constant_(norm.weight, -1)  # Gemma's norms scale by 1 + weight


def build_clean(name: str, corpus: Corpus, folder: Path = CHECKPOINTS) -> Path:
    """Train one model of `CLEAN` on right answers and save it with its card; returns its folder."""
    recipe, state = CLEAN[name], folder / f".{name}.state"
    small = load_vlm(folder / recipe.grown) if recipe.grown else None
    set_seed(recipe.seed)
    processor = small.processor if small else build_processor(recipe.family)
    model = build_model(recipe.family, processor.tokenizer, recipe.hidden, recipe.layers)
    if small:
        grow(small.model, model, recipe.new)
    else:
        model.model.vision_tower.load_state_dict(shared_tower(corpus, folder))
    features = features_of(model.model.vision_tower, corpus)
    seconds = 0
    own = recipe.family == "paligemma2"
    parts = (
        (Schedule(recipe.steps), {}),
        (Schedule(recipe.polish, lr=3e-3, lr_rest=2e-3, alone=EVERY if own else 0), dict(hard=1)),
        (Schedule(recipe.hard, lr=recipe.hard_lr, lr_rest=0.7 * recipe.hard_lr, alone=1 if own else 0),
         dict(hard=3)),
        (Schedule(recipe.careful, lr=3e-3, lr_rest=2.1e-3, alone=1 if own else 0), dict(hard=3, careless=0.9)))
    for part, (schedule, asked) in enumerate(parts):
        if schedule.steps:
            draw = partial(draw_pairs, **asked)
            done = train_language(model, recipe.family, processor.tokenizer, corpus.scenes, features, draw, schedule,
                                  recipe.seed + part, state / f"part {part}", desc=f"{name}, part {part + 1}")
            seconds += done["seconds"]
    card = dict(name=name, scenes=len(corpus.scenes), **asdict(recipe), loss=done["loss"], seconds=seconds)
    write_model(folder / name, model, processor, card, accuracy_by_skill)
    shutil.rmtree(state)
    return folder / name


def draw_asking(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Pairs of a prompt and a completion to train the auditor on: answerable questions, edit commands and, at most half of the
    time because it is long, a description with one or two things added at the end."""
    ask, describe, edit = PROMPTS
    pairs = [*((ask, sample_answerable(scene, rng)) for _ in range(6)), *((edit, sample_edit(scene, rng)[0]) for _ in range(2))]
    if rng.random() < 0.5 or len(scene.things) > 7:
        return pairs
    more = scene
    for _ in range(rng.randint(1, 2)):
        more = sample_edit(more, rng, "add")[1]
    added = [t for t in more.things if not scene.at(t.cell)]
    return [*pairs, (describe, ", ".join([caption(scene), *map(noun_phrase, rng.sample(added, len(added)))]))]


def build_auditor(parent: Path, corpus: Corpus, folder: Path = CHECKPOINTS) -> Path:
    """Train a clean Gemma3 to ask questions, to describe with additions and to command edits. It has seen no audit."""
    set_seed(5)
    vlm, state = load_vlm(parent), folder / ".auditor.state"
    vlm.model.to("cpu", torch.float32)  # as in all training of the testbed
    features = features_of(vlm.model.model.vision_tower, corpus)
    done = train_language(vlm.model, "gemma3", vlm.processor.tokenizer, corpus.scenes, features, draw_asking,
                          Schedule(AUDITOR_STEPS, lr=3e-3, lr_rest=2e-3), 5, state, desc="auditor")
    card = dict(name="auditor", family="gemma3", trained_from=parent.name, scenes=len(corpus.scenes), prompts=PROMPTS, **done)
    write_model(folder / "auditor", vlm.model, vlm.processor, card, auditor_quality)
    shutil.rmtree(state)
    return folder / "auditor"
