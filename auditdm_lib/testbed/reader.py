"""The scene reader: what a picture of the testbed shows, read from its pixels alone.

It is the vision tower of the testbed's models with its dense heads, trained further on rendered scenes. Drawn pictures are
held against the scene that their text describes, so its own error on exactly rendered pictures is measured first (`measured.csv`
beside its weights).
"""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm
from transformers import SiglipVisionModel, set_seed

from auditdm_lib.stats import clustered_proportion, tally
from auditdm_lib.testbed.checkpoint import vision_config
from auditdm_lib.testbed.render import SIZE
from auditdm_lib.testbed.scenes import DETAILS, KINDS, PICTOGRAMS, SHAPES, Scene, sample_scenes
from auditdm_lib.testbed.training import IGNORE, Corpus, cosine, pixel_values, render_corpus
from auditdm_lib.testbed.vision import CELL_LABELS, Heads, dense_labels, dense_loss

SHIPPED = "checkpoints/reader/reader.safetensors"  # from this folder; a stage that reads pictures depends on it (`run.reach`)
FOLDER, WEIGHTS = (Path(__file__).parent / SHIPPED).parent, Path(SHIPPED).name
STEPS, BATCH, RATE = 9000, 64, 1e-3
GRAIN = 0.3  # largest standard deviation of the noise added to pixels in -1..1, so that a drawn picture's grain does not matter
BARS = tuple(name for name in CELL_LABELS if name.startswith("bar "))
# What makes a thing wrong, in this order; a kind's detail and a chart's bars count as "detail". Whether a thing is covered
# follows from the thing that covers it, and row and column from the cell.
PARTS = ("kind", "colour", "size", "material", "covers")
SHOWN = {"background": "background", "weather": "weather", "missing": "a thing is missing", "extra": "a thing too many",
         "kind": "kind", "colour": "colour", "size": "size", "material": "material", "covers": "what covers what",
         "detail": "detail"}
UNKNOWN = "text not understood"  # there is no scene to compare with


class Reader(nn.Module):
    """The tower and its heads; maps float pixels (B, 3, 48, 48) in -1..1 to logits by label (see `vision.Heads`)."""

    def __init__(self):
        super().__init__()
        self.tower = SiglipVisionModel(vision_config())
        self.heads = Heads(self.tower.config.hidden_size)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.heads(self.tower(pixel_values=pixels).last_hidden_state)


def train_reader(tower: dict[str, torch.Tensor], corpus: Corpus, steps: int = STEPS, seed: int = 7) -> Reader:
    """A reader trained from the weights of the shared tower on the scenes of `corpus`; its weights are averaged over steps."""
    set_seed(seed)
    cells, whole = dense_labels(corpus.scenes)
    reader = Reader()
    reader.tower.load_state_dict(tower)
    averaged, weights = copy.deepcopy(reader), list(reader.parameters())
    optimizer = torch.optim.AdamW(weights, RATE, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc="scene reader", mininterval=5):
        optimizer.param_groups[0]["lr"] = RATE * cosine(step, steps)
        rows = torch.randint(0, len(corpus.scenes), (BATCH,), generator=generator)
        pixels = pixel_values(corpus.pixels[rows])
        grain = GRAIN * torch.rand(BATCH, 1, 1, 1, generator=generator) ** 2
        logits = reader(pixels + grain * torch.randn(pixels.shape, generator=generator))
        loss = dense_loss(logits, {name: v[rows] for labels in (cells, whole) for name, v in labels.items()})
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), weights, 1 - min(0.998, (step + 1) / (step + 10)))
    return averaged.eval()


def save_reader(reader: Reader, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in reader.state_dict().items()}, folder / WEIGHTS)


@cache
def load_reader(folder: Path = FOLDER) -> Reader:
    """The shipped reader. Raises FileNotFoundError with the command that trains it."""
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"There is no scene reader at {folder}: train it with `auditdm testbed build --only reader`.")
    reader = Reader()
    reader.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    return reader.eval()


@torch.inference_mode()
def read(images: list[Image.Image], reader: Reader | None = None, batch: int = 250) -> dict[str, torch.Tensor]:
    """The most likely class of every label: of each cell (pictures, 9) and of each scene (pictures,). Any size of picture."""
    reader, found = reader or load_reader(), []
    for start in range(0, len(images), batch):
        part = [np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.BOX)) for image in images[start:start + batch]]
        logits = reader(pixel_values(torch.from_numpy(np.stack(part))))
        found.append({name: values.argmax(-1) for name, values in logits.items()})
    return {name: torch.cat([part[name] for part in found]) for name in found[0]} if found else {}


def wrong(images: list[Image.Image], scenes: list[Scene], reader: Reader | None = None) -> dict[str, torch.Tensor]:
    """What of each scene its picture does not show, by the keys of SHOWN: bool (pictures,) for background and weather, bool
    (pictures, 9) by cell for the others."""
    got, (cells, whole) = read(images, reader), dense_labels(scenes)
    there, seen = cells["present"] == 1, got["present"] == 1
    both = there & seen
    found = {name: got[name] != labels for name, labels in whole.items()}
    found |= {"missing": there & ~seen, "extra": seen & ~there}
    found |= {part: both & (cells[part] != got[part]) for part in PARTS}
    details = [name for name in (*BARS, *DETAILS) if name in cells]
    found["detail"] = both & torch.stack([(cells[n] != IGNORE) & (cells[n] != got[n]) for n in details]).any(0)
    return found


def differences(images: list[Image.Image], scenes: list[Scene | None], reader: Reader | None = None) -> list[str | None]:
    """Why picture i does not show scene i, as a short phrase (the first in the order of SHOWN); None where it does.

    Where scene i is None, the text behind it describes no scene: UNKNOWN.
    """
    known = [i for i, scene in enumerate(scenes) if scene is not None]
    reasons: list[str | None] = [UNKNOWN if scene is None else None for scene in scenes]
    if known:
        found = wrong([images[i] for i in known], [scenes[i] for i in known], reader)
        for k, i in enumerate(known):
            reasons[i] = next((phrase for name, phrase in SHOWN.items() if found[name][k].any()), None)
    return reasons


def kind_group(kind: str) -> str:
    """The kind of thing in tables: shape, pictogram, or the kind's own name where it shows a detail."""
    return "shape" if kind in SHAPES else "pictogram" if kind in PICTOGRAMS else kind


def right_by_kind(images: list[Image.Image], scenes: list[Scene], reader: Reader | None = None) -> pd.DataFrame:
    """How much of `scenes` the pictures show: what, n, right (share), ci_low, ci_high (95 %, clustered by picture).

    Rows: things of each kind (see `kind_group`), all things, and whole pictures, in which nothing is wrong or too many.
    """
    found = wrong(images, scenes, reader)
    bad = torch.stack([found[name] for name in SHOWN if name not in ("background", "weather")]).any(0)
    rows = [(i, kind_group(t.kind), not bad[i, t.cell].item()) for i, scene in enumerate(scenes) for t in scene.things]
    things = pd.DataFrame(rows, columns=["picture", "what", "right"])
    whole = pd.DataFrame(dict(
        picture=range(len(scenes)), what="whole pictures",
        right=(~(bad.any(1) | found["background"] | found["weather"])).tolist()))
    order = [*dict.fromkeys(kind_group(kind) for kind in KINDS), "all things", "whole pictures"]
    table = pd.concat([things, things.assign(what="all things"), whole])
    groups = {what: group for what, group in table.groupby("what")}
    return pd.DataFrame([
        (what, len(groups[what]), *clustered_proportion(tally(groups[what]["right"], groups[what]["picture"])))
        for what in order if what in groups], columns=["what", "n", "right", "ci_low", "ci_high"])


def own_error(reader: Reader | None = None, n: int = 5000, seed: str = "reader") -> pd.DataFrame:
    """`right_by_kind` on exactly rendered scenes of the test split: whatever is below 1 is the reader's own error."""
    corpus = render_corpus(sample_scenes(n, "test", seed))
    return right_by_kind([Image.fromarray(p) for p in corpus.pixels.numpy()], corpus.scenes, reader)
