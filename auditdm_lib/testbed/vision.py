"""The vision tower that all models of the testbed start from, trained to predict what is in each cell of a scene."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    BARS,
    COLOURS,
    DETAILS,
    KINDS,
    MATERIALS,
    NEIGHBOURS,
    NUMBERS,
    SIZES,
    WEATHERS,
    Scene,
)
from auditdm_lib.testbed.training import IGNORE, Corpus, cosine, pixel_values

CELLS = 9
COVERS = ("", *NEIGHBOURS)
# Labels of a cell, with their numbers of classes. The tower must predict a cell's position too: otherwise its features lose it,
# and no language model can tell where a thing is.
CELL_LABELS = {
    "present": 2, "kind": len(KINDS), "colour": len(COLOURS), "size": len(SIZES), "material": len(MATERIALS), "row": 3,
    "column": 3, "covers": len(COVERS), "covered": len(COVERS), **{f"bar {i}": len(NUMBERS) for i in range(BARS)},
    **{kind: len(details) for kind, details in DETAILS.items() if kind != "chart"}}
SCENE_LABELS = {"background": len(BACKGROUNDS), "weather": len(WEATHERS)}


def dense_labels(scenes: list[Scene]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Class indices of every cell (scenes, 9), IGNORE where a label does not apply, and of every scene (scenes,)."""
    cells = {name: np.full((len(scenes), CELLS), IGNORE) for name in CELL_LABELS}
    cells["present"][:] = 0
    cells["row"][:], cells["column"][:] = np.arange(CELLS) // 3, np.arange(CELLS) % 3
    for i, scene in enumerate(scenes):
        for t in scene.things:
            hider = scene.coverer(t)
            shown = dict(
                present=1, kind=KINDS.index(t.kind), colour=tuple(COLOURS).index(t.colour), size=SIZES.index(t.size),
                material=MATERIALS.index(t.material), covers=COVERS.index(t.covers),
                covered=COVERS.index(hider.covers if hider else ""))
            if t.kind == "chart":
                shown |= {f"bar {k}": NUMBERS.index(word) for k, word in enumerate(t.detail.split())}
            elif t.detail:
                shown[t.kind] = DETAILS[t.kind].index(t.detail)
            for name, value in shown.items():
                cells[name][i, t.cell] = value
    whole = {"background": [tuple(BACKGROUNDS).index(s.background) for s in scenes],
             "weather": [WEATHERS.index(s.weather) for s in scenes]}
    return {k: torch.from_numpy(v) for k, v in cells.items()}, {k: torch.tensor(v) for k, v in whole.items()}


class Heads(nn.Module):
    """Linear heads on each cell's feature and, for the labels of the whole scene, on their mean."""

    def __init__(self, hidden: int):
        super().__init__()
        self.cell, self.scene = nn.Linear(hidden, sum(CELL_LABELS.values())), nn.Linear(hidden, sum(SCENE_LABELS.values()))

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by label from features (B, 9, hidden): (B, 9, classes), and (B, classes) for the scene's."""
        cells = self.cell(features).split(list(CELL_LABELS.values()), -1)
        whole = self.scene(features.mean(1)).split(list(SCENE_LABELS.values()), -1)
        return dict(zip((*CELL_LABELS, *SCENE_LABELS), (*cells, *whole), strict=True))


def train_vision_tower(tower: nn.Module, corpus: Corpus, steps: int, seed: int, lr: float = 3e-3, batch: int = 64,
                       noise: float = 1.0) -> float:
    """Train a SigLIP tower with one patch per cell on all dense labels; returns the last loss.

    Noise of `noise` times the features' standard deviation is added before the heads. It makes the tower encode every label
    with enough energy for a language model to use it; without it a cell's position ends up in tiny differences.
    """
    cells, whole = dense_labels(corpus.scenes)
    heads = Heads(tower.config.hidden_size)
    weights = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc="vision tower", mininterval=5):
        optimizer.param_groups[0]["lr"] = lr * cosine(step, steps)
        rows = torch.randint(0, len(corpus.scenes), (batch,), generator=generator)
        features = tower(pixel_values=pixel_values(corpus.pixels[rows])).last_hidden_state
        features = features + noise * features.detach().std() * torch.randn(features.shape, generator=generator)
        logits = heads(features)
        loss = dense_loss(logits, {name: labels[rows] for labelled in (cells, whole) for name, labels in labelled.items()})
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return loss.item()


def dense_loss(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum over all labels of their mean cross-entropies, where a label applies (see `dense_labels`)."""
    return sum(_loss(logits[name], values) for name, values in labels.items())


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if not (labels != IGNORE).any():
        return logits.sum() * 0  # the label applies nowhere in this batch
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)


@torch.no_grad()
def features_of(tower: nn.Module, corpus: Corpus, batch: int = 500) -> torch.Tensor:
    """The tower's features of all pictures of a corpus, (pictures, 9, hidden)."""
    tower.eval()
    return torch.cat([tower(pixel_values=pixel_values(pixels)).last_hidden_state for pixels in corpus.pixels.split(batch)])
