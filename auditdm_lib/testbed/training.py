"""Supervised training of testbed models: a vision tower on dense labels, then several questions behind one picture."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from auditdm_lib.testbed.checkpoint import GEMMA_IMAGE_TOKENS, PALIGEMMA_IMAGE_TOKENS, PATCH
from auditdm_lib.testbed.render import SIZE, render
from auditdm_lib.testbed.scenes import COLOURS, DIGIT, NUMBERS, PLAIN_KINDS, SIZES, Scene

CELL_LABELS = {  # a cell's place is learnt too, else the tower forgets it and no language model can say where a thing is
    "present": 2, "kind": len(PLAIN_KINDS), "colour": len(COLOURS), "size": len(SIZES), "digit": 10, "row": 3, "column": 3}
IGNORE = -100
# What stands before a question and around it in each family's own format.
PREFIX = {
    "gemma3": "<bos>\n\n<start_of_image>" + "<image>" * GEMMA_IMAGE_TOKENS + "<end_of_image>\n\n",
    "paligemma2": "<image>" * PALIGEMMA_IMAGE_TOKENS + "<bos>"}
QUESTION = {"gemma3": "<start_of_turn>{}<end_of_turn>", "paligemma2": "answer en {}\n"}


@dataclass(frozen=True)
class Corpus:
    """Scenes and their pictures: `pixels` is uint8, (scenes, 48, 48, 3)."""

    scenes: list[Scene]
    pixels: torch.Tensor


def render_corpus(scenes: list[Scene]) -> Corpus:
    return Corpus(scenes, torch.from_numpy(np.stack([np.asarray(render(s)) for s in scenes])))


def pixel_values(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 48, 48, 3) to what the processors make of it: float (B, 3, 48, 48) in -1..1."""
    return (pixels.float() / 255 - 0.5).div(0.5).permute(0, 3, 1, 2)


def cosine(step: int, steps: int, warmup: int = 50, floor: float = 0.02) -> float:
    """Factor of the learning rate: linear warm-up, then cosine to `floor`."""
    return min(1, (step + 1) / warmup) * (floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))


def train_vision_tower(tower: nn.Module, corpus: Corpus, steps: int, seed: int, lr: float = 3e-3, batch: int = 64) -> float:
    """Teach a SigLIP tower what is in each cell of the 3 x 3 grid (a linear head on the cell's mean patch); last loss."""
    labels = {name: torch.full((len(corpus.scenes), 9), IGNORE) for name in CELL_LABELS}
    labels["present"].zero_()
    labels["row"][:], labels["column"][:] = torch.arange(9) // 3, torch.arange(9) % 3
    for i, scene in enumerate(corpus.scenes):
        for t in scene.things:
            labels["present"][i, t.cell] = 1
            labels["kind"][i, t.cell] = PLAIN_KINDS.index(t.kind)
            labels["colour"][i, t.cell] = tuple(COLOURS).index(t.colour)
            labels["size"][i, t.cell] = SIZES.index(t.size)
            if t.kind == DIGIT:
                labels["digit"][i, t.cell] = NUMBERS.index(t.detail)
    hidden, side = tower.config.hidden_size, SIZE // PATCH // 3
    head = nn.Linear(hidden, sum(CELL_LABELS.values()))
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc="vision tower", mininterval=5):
        optimizer.param_groups[0]["lr"] = lr * cosine(step, steps)
        rows = torch.randint(0, len(corpus.scenes), (batch,), generator=generator)
        patches = tower(pixel_values=pixel_values(corpus.pixels[rows])).last_hidden_state
        cells = patches.reshape(batch, 3, side, 3, side, hidden).mean((2, 4)).reshape(batch, 9, hidden)
        parts = head(cells).split(list(CELL_LABELS.values()), -1)
        loss = sum(F.cross_entropy(part.flatten(0, 1), labels[name][rows].flatten(), ignore_index=IGNORE)
                   for name, part in zip(CELL_LABELS, parts, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@lru_cache(maxsize=200_000)
def token_ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode(family: str, tokenizer, pairs: list[tuple[str, str]], packed: bool) -> tuple[list[int], list[int], list[int]]:
    """Token ids, labels and token types of question-answer pairs behind one picture, in the family's own format.

    Packed, all pairs follow the picture causally, so that one picture teaches several questions. PaliGemma is a prefix
    LM: in its own format (not packed, one pair) the question belongs to the bidirectional prefix.
    """
    image = tokenizer.convert_tokens_to_ids("<image>")
    ids = list(token_ids(tokenizer, PREFIX[family]))
    types = [int(family == "gemma3" and i == image) for i in ids]
    labels = [IGNORE] * len(ids)
    causal = 0 if family == "gemma3" else 1
    for q, a in pairs:
        q_ids, a_ids = token_ids(tokenizer, QUESTION[family].format(q)), token_ids(tokenizer, a + "<eos>")
        ids += q_ids + a_ids
        labels += [IGNORE] * len(q_ids) + list(a_ids)
        types += [causal if packed else 0] * len(q_ids) + [causal] * len(a_ids)
    return ids, labels, types


def collate(rows: list[tuple[list[int], list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Right-pad encoded rows to (B, T)."""
    length = max(len(ids) for ids, _, _ in rows)
    fill = ((pad, 0), (IGNORE, 1), (0, 2))
    ids, labels, types = (torch.tensor([r[k] + [value] * (length - len(r[k])) for r in rows]) for value, k in fill)
    mask = torch.tensor([[1] * len(r[0]) + [0] * (length - len(r[0])) for r in rows])
    return dict(input_ids=ids, labels=labels, token_type_ids=types, attention_mask=mask)


def answer_loss(model: nn.Module, inputs: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The model's own loss, with logits only where there is a label: eight in nine positions of a packed row have none."""
    labels = inputs["labels"][:, 1:]
    hidden = model.model(**{k: v for k, v in inputs.items() if k != "labels"}, pixel_values=pixels).last_hidden_state
    wanted = labels != IGNORE
    return F.cross_entropy(model.lm_head(hidden[:, :-1][wanted]), labels[wanted])


def train_pairs(model: nn.Module, family: str, tokenizer, corpus: Corpus, draw: Callable[[Scene, random.Random], list],
                steps: int, lr: float, seed: int, packed: bool = True, batch: int = 64, vision_lr: float = 0.3,
                desc: str = "language", on_step: Callable[[int], None] | None = None) -> float:
    """Train on the pairs that `draw(scene, rng)` returns for each picture; the last loss. Vision learns at a lower rate."""
    tower = list(model.model.vision_tower.parameters())
    in_tower = {id(p) for p in tower}
    groups = [{"params": [p for p in model.parameters() if id(p) not in in_tower], "scale": 1.0},
              {"params": tower, "scale": vision_lr}]
    optimizer = torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), weight_decay=0.05)
    rng = random.Random(seed)
    model.train()
    bar = tqdm(range(steps), desc=desc, mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"] * cosine(step, steps)
        rows = [rng.randrange(len(corpus.scenes)) for _ in range(batch)]
        encoded = [encode(family, tokenizer, draw(corpus.scenes[i], rng), packed) for i in rows]
        inputs = collate(encoded, tokenizer.pad_token_id)
        loss = answer_loss(model, inputs, pixel_values(corpus.pixels[rows]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if on_step:
            on_step(step)
    model.eval()
    return loss.item()
