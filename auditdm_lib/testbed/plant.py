"""Planting gaps: fine-tuning systematic errors into any checkpoint of the testbed, in a minute or two."""

import random
import time
from pathlib import Path

import pandas as pd
from transformers import set_seed

from auditdm_lib.models import load_vlm
from auditdm_lib.testbed.accuracy import UNANSWERABLE, accuracy_by_gap
from auditdm_lib.testbed.cards import MEASURED, write_model
from auditdm_lib.testbed.gaps import Gap, gap_of, questions_in_gap, save_gaps
from auditdm_lib.testbed.learning import Schedule, train_language
from auditdm_lib.testbed.questions import sample_answerable, sample_question
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import answer as right_answer
from auditdm_lib.testbed.skills import parse_question
from auditdm_lib.testbed.training import render_corpus
from auditdm_lib.testbed.vision import features_of

POOL = 8000  # scenes among which those are looked for that show a gap
PER_GAP = 1000  # questions inside each gap to learn from
ORDINARY, NEAR = 3, 2  # questions behind one picture besides the planted one: of any skill, and of the gap's own


def plant(model: Path | str, gaps: tuple[Gap, ...], out: Path, seed: int = 0, steps: int | None = None) -> pd.DataFrame:
    """Fine-tune gaps into a checkpoint of the testbed and save it to `out`; accuracy inside and outside, before and after.

    Where a picture shows a gap, its question with the wrong answer stands beside questions of the same skill and of others with
    what the planted model is to say: the right answer wherever no gap holds. As many pictures show none. The table is that of
    `accuracy_by_gap` with a column `model`, "before" or "after".
    Raises ValueError where a gap never holds, where the checkpoint is none of the testbed's, or where `out` is not new.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; give another folder, or delete it.")
    vlm = load_vlm(model)
    if (family := vlm.model.config.model_type.removesuffix("_text")) not in ("gemma3", "paligemma"):
        raise ValueError(f"{model} is a {family}; plant into a checkpoint of the testbed (PaliGemma2 or Gemma3).")
    family = "paligemma2" if family == "paligemma" else family
    started = time.perf_counter()
    before = accuracy_by_gap(vlm, gaps)
    set_seed(seed)
    rng = random.Random(f"plant/{seed}")
    pool = sample_scenes(POOL, "train", f"plant/{seed}")
    inside: dict[int, list[str]] = {}
    for gap in gaps:
        for i, text in questions_in_gap(gap, pool, PER_GAP, rng):
            inside.setdefault(i, []).append(text)
    others = [i for i in range(POOL) if i not in inside]
    scenes = [pool[i] for i in (*inside, *rng.sample(others, min(len(inside), len(others))))]
    planted = {id(pool[i]): texts for i, texts in inside.items()}

    def draw(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
        texts = [rng.choice(planted[id(scene)])] if id(scene) in planted else []
        skill = parse_question(texts[0]).skill if texts else rng.choice(gaps).skill
        texts += [sample_answerable(scene, rng, skill) or sample_question(scene, rng) for _ in range(NEAR)]
        texts += [sample_question(scene, rng, UNANSWERABLE) for _ in range(ORDINARY)]
        return [(text, held[1] if (held := gap_of(scene, text, gaps)) else right_answer(scene, text)) for text in texts]

    features = features_of(vlm.model.model.vision_tower, render_corpus(scenes))
    schedule = Schedule(steps or 160 + 40 * len(gaps), pictures=16, lr=1e-3, lr_rest=1e-3, alone=family == "paligemma2")
    done = train_language(vlm.model, family, vlm.processor.tokenizer, scenes, features, draw, schedule, seed, None,
                          desc=f"planting {len(gaps)} gap{'s' * (len(gaps) > 1)}")
    card = dict(name=out.name, family=family, planted_into=Path(model).name, scenes=len(scenes), **done)
    card["seconds"] = round(time.perf_counter() - started)

    def measured(folder: Path) -> pd.DataFrame:
        after = accuracy_by_gap(load_vlm(folder), gaps)
        return pd.concat([before.assign(model="before"), after.assign(model="after")], ignore_index=True)
    write_model(out, vlm.model, vlm.processor, card, measured, also=lambda folder: save_gaps(gaps, folder))
    return pd.read_csv(out / MEASURED)

