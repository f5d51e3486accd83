"""Building the models of the easy-VQA audit: the testbed's models, fine-tuned on the data set's train pictures.

The target has seen the same questions as the references but for one form of negation, as if it were missing in its data: what
that does to it is for the audit to find. A model that exists is not rebuilt; a training that is interrupted resumes.
"""

import functools
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import set_seed

from auditdm_lib.answers import same_answer
from auditdm_lib.easyvqa import data
from auditdm_lib.models.asking import is_paligemma
from auditdm_lib.models.vlm import VLM, answer, load_vlm, sample
from auditdm_lib.run import lock
from auditdm_lib.testbed.accuracy import share
from auditdm_lib.testbed.cards import CARD, write_model
from auditdm_lib.testbed.checkpoint import CHECKPOINTS as PARENTS
from auditdm_lib.testbed.checkpoint import PROMPTS
from auditdm_lib.testbed.learning import Schedule, train_language

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
WITHHELD = "is no "  # the beginning of the texts that the target is not taught: "is no red shape present?"
ABOUT = ("A model of the testbed of AuditDM, fine-tuned on easy-VQA's pictures 0 to 1999 of its train part and their own "
         "questions; its accuracy is on pictures 500 to 999 of the test part. What it can do says nothing about real models.")
ASKED = 6  # pairs of one picture in a step


@dataclass(frozen=True)
class Recipe:
    """The checkpoint of the testbed that a model is trained from, the optimiser steps, whether it is taught to ask instead of
    to answer, and the beginning of the questions that are withheld from it ("" for none)."""

    parent: str
    steps: int
    lr: float = 2e-3
    seed: int = 0
    asks: bool = False
    withheld: str = ""


MODELS = {
    "paligemma2-l": Recipe("paligemma2-l", 800, seed=31),
    "gemma3-l": Recipe("gemma3-l", 800, seed=32),
    "target": Recipe("paligemma2-s", 800, seed=33, withheld=WITHHELD),
    "auditor": Recipe("auditor", 400, seed=34, asks=True),
}


def build(name: str, folder: Path = CHECKPOINTS) -> Path:
    """Train one model of `MODELS` where its folder does not exist, and save it with its card; its folder.

    Raises ValueError for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}; choose one of {', '.join(MODELS)}.")
    if (folder / name / CARD).exists():
        return folder / name
    lock.hold(folder / name)
    recipe, state = MODELS[name], folder / f".{name}.state"
    set_seed(recipe.seed)
    vlm = load_vlm(PARENTS / recipe.parent)
    vlm.model.to("cpu", torch.float32)  # as in all training of the testbed
    shown = [one for one in data.split("train") if lessons(one, recipe)]
    family = "paligemma2" if is_paligemma(vlm.processor) else "gemma3"
    schedule = Schedule(recipe.steps, lr=recipe.lr, lr_rest=0.7 * recipe.lr, alone=ASKED if family == "paligemma2" else 0)
    done = train_language(vlm.model, family, vlm.processor.tokenizer, shown, features(vlm, shown),
                          functools.partial(draw, recipe=recipe), schedule, recipe.seed, state, desc=name)
    card = dict(name=name, family=family, trained_from=recipe.parent, withheld=recipe.withheld.strip(), pictures=len(shown),
                seed=recipe.seed, **done)
    write_model(folder / name, vlm.model, vlm.processor, card, asking_quality if recipe.asks else accuracy, about=ABOUT)
    shutil.rmtree(state)
    return folder / name


def lessons(shown: data.Shown, recipe: Recipe) -> list[tuple[str, str]]:
    """What a picture teaches: its own questions with their answers, or the prompt p_q with each of its questions."""
    if recipe.asks:
        return [(PROMPTS[0], text) for text, _ in shown.rows]
    return [row for row in shown.rows if not (recipe.withheld and row[0].startswith(recipe.withheld))]


def draw(shown: data.Shown, rng: random.Random, recipe: Recipe) -> list[tuple[str, str]]:
    """The lessons of a picture in one step, drawn with replacement, since some pictures have two questions only."""
    return rng.choices(lessons(shown, recipe), k=ASKED)


@torch.no_grad()
def features(vlm: VLM, shown: list[data.Shown], batch: int = 250) -> torch.Tensor:
    """What the frozen vision tower makes of pictures, (pictures, 9, hidden)."""
    vlm.model.eval()
    images = [data.picture(one.file) for one in shown]
    parts = [vlm.processor.image_processor(images[i:i + batch], return_tensors="pt")["pixel_values"]
             for i in range(0, len(images), batch)]
    return torch.cat([vlm.model.model.vision_tower(pixel_values=pixels).last_hidden_state for pixels in parts])


def accuracy(path: Path, n: int = 10_000) -> pd.DataFrame:
    """A model's accuracy on at most `n` of the test pictures' questions, by kind, and on those withheld from the target."""
    asked = [(one, text, right) for one in data.split("test") for text, right in one.rows][:n]
    given = answer(load_vlm(path), [data.picture(one.file) for one, _, _ in asked], [text for _, text, _ in asked])
    table = pd.DataFrame(dict(kind=[data.kind(text) for _, text, _ in asked],
                              withheld=[text.startswith(WITHHELD) for _, text, _ in asked],
                              right=[said is not None and same_answer(said, right)
                                     for said, (_, _, right) in zip(given, asked, strict=True)]))
    rows = [share(kind, part["right"]) for kind, part in table.groupby("kind")]
    rows += [share(f"{WITHHELD}... present?", table.loc[table["withheld"], "right"]), share("all", table["right"])]
    return pd.DataFrame(rows)


def asking_quality(path: Path, n: int = 400) -> pd.DataFrame:
    """How often the auditor's questions about `n` test pictures have an answer there, sampled at temperature 1, and the share
    of the questions that are of the withheld form."""
    shown = data.split("test")[:n]
    written = sample(load_vlm(path), [data.picture(one.file) for one in shown], PROMPTS[0], 1.0, 0, 24)
    answerable = [ended and (one.shape, one.colour, data.tidy(text)) in data.answers()
                  for one, (text, ended) in zip(shown, written.itertuples(index=False), strict=True)]
    return pd.DataFrame([share("answerable", answerable),
                         share(f"{WITHHELD}... present?", written["text"].str.startswith(WITHHELD))])
