"""Building the models of the easy-VQA audit: the testbed's models, fine-tuned on the data set's train pictures.

First their common vision tower learns the shapes and colours, then each language model the questions. The target sees the same
questions as the references but for one form of negation, as if its data lacked it: what that does to it is for the audit to
find. A model that exists is not rebuilt, and a training of a language model that was interrupted resumes.
"""

import functools
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm
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
ASKED = 2  # pairs of one picture in a step
TURNED = 8  # ways to turn and mirror a picture: no answer depends on where the shape is
TOWER_STEPS, TOWER_BATCH, TOWER_LR, HEAD_LR = 2000, 64, 1e-3, 3e-3


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
    "auditor": Recipe("auditor", 300, seed=34, asks=True),
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
    vlm.model.model.vision_tower.load_state_dict(shared_tower(folder))
    shown = [one for one in data.split("train") if lessons(one, recipe)]
    family = "paligemma2" if is_paligemma(vlm.processor) else "gemma3"
    schedule = Schedule(recipe.steps, lr=recipe.lr, lr_rest=0.7 * recipe.lr, alone=ASKED if family == "paligemma2" else 0)
    done = train_language(vlm.model, family, vlm.processor.tokenizer, shown * TURNED, features(vlm, shown),
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


def pixels(vlm: VLM, shown: list[data.Shown]) -> torch.Tensor:
    """Pictures as the model's processor gives them, (pictures, 3, 48, 48)."""
    return vlm.processor.image_processor([data.picture(one.file) for one in shown], return_tensors="pt")["pixel_values"]


def turned(pictures: torch.Tensor, way: int) -> torch.Tensor:
    """Pictures (B, 3, H, W) in one of the TURNED ways: four turns, then the same mirrored."""
    rotated = torch.rot90(pictures, way % 4, (2, 3))
    return rotated.flip(3) if way >= 4 else rotated


@torch.no_grad()
def features(vlm: VLM, shown: list[data.Shown], batch: int = 500) -> torch.Tensor:
    """What the vision tower makes of pictures in every way to turn them, (TURNED * pictures, 9, hidden)."""
    tower, pictures = vlm.model.model.vision_tower.eval(), pixels(vlm, shown)
    return torch.cat([tower(pixel_values=part).last_hidden_state
                      for way in range(TURNED) for part in turned(pictures, way).split(batch)])


def shared_tower(folder: Path = CHECKPOINTS) -> dict[str, torch.Tensor]:
    """The weights of the vision tower of all four models; trained on the first call (minutes), read from its file afterwards.

    The testbed's tower learns to tell shape and colour by a linear layer on the mean of its 9 patches.
    """
    file = folder / "vision_tower.safetensors"
    if not file.exists():
        set_seed(30)
        vlm, shown = load_vlm(PARENTS / MODELS["target"].parent), data.split("train")
        pictures, tower = pixels(vlm, shown), vlm.model.model.vision_tower.to("cpu", torch.float32)
        head = nn.Linear(tower.config.hidden_size, len(data.SHAPES) + len(data.COLOURS))
        shapes, colours = (torch.tensor([names.index(name) for name in told]) for names, told in (
            (data.SHAPES, [one.shape for one in shown]), (data.COLOURS, [one.colour for one in shown])))
        optimizer = torch.optim.AdamW([dict(params=head.parameters(), lr=HEAD_LR), dict(params=tower.parameters(), lr=TOWER_LR)],
                                      weight_decay=0.05)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, [HEAD_LR, TOWER_LR], total_steps=TOWER_STEPS)
        for _ in tqdm(range(TOWER_STEPS), desc="vision tower", mininterval=10):
            rows, ways = torch.randint(len(shown), (TOWER_BATCH,)), torch.randint(TURNED, (TOWER_BATCH,))
            batch = torch.cat([turned(pictures[row:row + 1], int(way)) for row, way in zip(rows, ways, strict=True)])
            told = head(tower(pixel_values=batch).last_hidden_state.mean(1)).split([len(data.SHAPES), len(data.COLOURS)], 1)
            loss = F.cross_entropy(told[0], shapes[rows]) + F.cross_entropy(told[1], colours[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.contiguous() for name, weight in tower.state_dict().items()}, file.with_suffix(".partial"))
        os.replace(file.with_suffix(".partial"), file)
    return load_file(file)


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
                  for one, (text, ended) in zip(shown, zip(written["text"], written["ended"], strict=True), strict=True)]
    return pd.DataFrame([share("answerable", answerable),
                         share(f"{WITHHELD}... present?", written["text"].str.startswith(WITHHELD))])
