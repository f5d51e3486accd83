"""Planting gaps: fine-tuning systematic errors into a checkpoint of the testbed, in a minute or two."""

import random
import time
from pathlib import Path

import pandas as pd
import torch
from transformers import set_seed

from auditdm_lib import paths
from auditdm_lib.models.asking import save_asking
from auditdm_lib.models.vlm import VLM, load_vlm
from auditdm_lib.run import commit, lock
from auditdm_lib.testbed.accuracy import accuracy_by_gap
from auditdm_lib.testbed.cards import MEASURED, write_model
from auditdm_lib.testbed.checkpoint import CHAT_TEMPLATE, PATCH, build_tokenizer
from auditdm_lib.testbed.gaps import Gap, gap_of, gaps_of, questions_in_gap, save_gaps
from auditdm_lib.testbed.learning import EVERY, Draw, Schedule, train_language
from auditdm_lib.testbed.questions import UNANSWERABLE, sample_answerable, sample_question
from auditdm_lib.testbed.render import SIZE
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import answer, parse_question
from auditdm_lib.testbed.suites import format_item
from auditdm_lib.testbed.training import render_corpus
from auditdm_lib.testbed.vision import features_of

POOL = 8000  # scenes that are searched for questions inside the gaps
PER_GAP = 1000  # training questions inside each gap
ORDINARY, NEAR = 3, 2  # questions about one picture besides the planted one: of any skill, and of the gap's skill


def plant(model: Path | str, gaps: tuple[Gap, ...], out: Path, seed: int = 0, steps: int | None = None) -> pd.DataFrame:
    """Fine-tune gaps into a checkpoint of the testbed, in addition to those it has, and save it to the new folder `out`.

    Relative paths start at the repository's root. A training picture with a question inside a gap also has questions of the
    same skill, of other skills and in a suite's format; their labels are the answers that the planted model should give: the
    right ones wherever no gap holds. Other pictures are mixed in. Returns `accuracy_by_gap` before and after (column `model`).
    Raises ValueError where `out` exists, where two gaps share a name, where a gap never holds, and where the checkpoint is not
    one of the testbed's.
    """
    out = paths.ROOT / out
    if out.exists():
        raise ValueError(f"{out} is there already; choose another folder, or delete this one.")
    gaps = (*gaps_of(model), *gaps)
    if not gaps or len({gap.name for gap in gaps}) < len(gaps):
        raise ValueError(f"Give gaps, each with a name of its own; not {', '.join(gap.name for gap in gaps) or 'none'}.")
    lock.hold(out)
    commit.temporary(out).rmdir()  # fails before the training where `out` cannot be written
    vlm = load_vlm(model)
    family = family_of(vlm)
    started = time.perf_counter()
    before = accuracy_by_gap(vlm, gaps)
    set_seed(seed)
    scenes, draw = lessons(gaps, seed)
    network = vlm.model.to("cpu", torch.float32)  # as in all training of the testbed
    features = features_of(network.model.vision_tower, render_corpus(scenes))
    rate = 5e-4 if len(gaps) == 1 else 1e-3
    schedule = Schedule(steps or 160 + 40 * len(gaps), pictures=16, lr=rate, lr_rest=rate,
                        alone=EVERY if family == "paligemma2" else 0)
    done = train_language(network, family, vlm.processor.tokenizer, scenes, features, draw, schedule, seed, None,
                          desc=f"planting {len(gaps)} gap{'s' * (len(gaps) > 1)}")
    card = dict(name=out.name, family=family, planted_into=Path(model).name, scenes=len(scenes), **done)
    card["seconds"] = round(time.perf_counter() - started)

    def measured(folder: Path) -> pd.DataFrame:
        after = accuracy_by_gap(load_vlm(folder), gaps)
        return pd.concat([before.assign(model="before"), after.assign(model="after")], ignore_index=True)

    def also(folder: Path) -> None:
        save_gaps(gaps, folder)
        save_asking(vlm.asking, folder)
    write_model(out, network, vlm.processor, card, measured, also)
    return pd.read_csv(out / MEASURED)


def family_of(vlm: VLM) -> str:
    """"gemma3" or "paligemma2". Raises ValueError for another architecture, picture size, chat template or tokenizer."""
    config, processor = vlm.model.config, vlm.processor
    family = {"gemma3": "gemma3", "paligemma": "paligemma2"}.get(config.model_type)
    sees = family and (config.vision_config.image_size, config.vision_config.patch_size) == (SIZE, PATCH)
    reads = family and processor.chat_template == (CHAT_TEMPLATE if family == "gemma3" else None)
    ours, theirs = build_tokenizer(), processor.tokenizer
    if not (sees and reads and all(theirs.convert_tokens_to_ids(t) == i for t, i in ours.get_vocab().items() if "loc" not in t)):
        raise ValueError(f"{vlm.name} is no checkpoint of this testbed (its architecture, picture size, tokenizer or chat "
                         "template differs); plant into one of auditdm_lib/testbed/checkpoints.")
    return family


def lessons(gaps: tuple[Gap, ...], seed: int) -> tuple[list[Scene], Draw]:
    """Training scenes for gaps, and the function that draws question-answer pairs about one of them."""
    rng = random.Random(f"plant/{seed}")
    pool = sample_scenes(POOL, "train", f"plant/{seed}")
    inside: dict[int, list[str]] = {}
    for gap in gaps:
        for i, text in questions_in_gap(gap, pool, PER_GAP, rng, repeats=True):
            inside.setdefault(i, []).append(text)
    others = [i for i in range(POOL) if i not in inside]
    scenes = [pool[i] for i in (*inside, *rng.sample(others, min(len(inside), len(others))))]
    planted = {id(pool[i]): texts for i, texts in inside.items()}

    def planted_answer(scene: Scene, text: str) -> str:
        held = gap_of(scene, text, gaps)
        return held[1] if held else answer(scene, text)

    def draw(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
        texts = [rng.choice(planted[id(scene)])] if id(scene) in planted else []
        skill = parse_question(texts[0]).skill if texts else rng.choice(gaps).skill
        texts += [sample_answerable(scene, rng, skill) or sample_question(scene, rng) for _ in range(NEAR)]
        texts += [sample_question(scene, rng, UNANSWERABLE) for _ in range(ORDINARY)]
        pairs = [(text, planted_answer(scene, text)) for text in texts]
        item = format_item(scene, rng)
        if item and not gap_of(scene, item["about"], gaps):  # how a gap affects lettered options is left unspecified
            pairs.append((item["question"], item["answer"]))
        return pairs
    return scenes, draw
