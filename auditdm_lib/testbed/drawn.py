"""How much the testbed's drawing pipelines draw right, on held-out texts: by the scene reader, and by pixels.

The reader must choose a class for everything it sees, so it forgives smudges. The pixels do not: a drawn thing is held against
the nearest of several exact renderings of it, since a caption leaves open where in its cell a thing stands.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from auditdm_lib.stats import clustered_proportion, tally
from auditdm_lib.testbed.encoders import description, length_of
from auditdm_lib.testbed.pipelines import DRAWING, edit_pairs
from auditdm_lib.testbed.reader import differences, kind_group, right_by_kind
from auditdm_lib.testbed.render import SIZE, render
from auditdm_lib.testbed.scenes import DIGIT, JITTER, Scene, sample_scenes

CELL = SIZE // 3
MOST_THINGS = 5  # of a held-out caption
OFFSETS = tuple(JITTER * k / 2 for k in range(-2, 3))  # along each axis, in cells, of the renderings that pixels are held against
COLUMNS = ["what", "n", "right", "ci_low", "ci_high", "pixel_error"]


def captions_drawn(folder: Path, n: int = 2000, seed: str = "captions") -> pd.DataFrame:
    """What the text-to-image pipeline at `folder` draws right of `n` held-out captions of up to five things.

    Columns: what (kind of thing, all things, whole pictures), n, right with a 95 % interval (`reader.right_by_kind`), and
    pixel_error, the median root-mean-square difference to the nearest exact rendering (0 to 255; see `pixel_errors`). The last
    row gives that error for exact renderings themselves, which is not 0 since they stand elsewhere in their cells.
    """
    scenes = [scene for scene in sample_scenes(2 * n, "test", seed) if len(scene.things) <= MOST_THINGS][:n]
    rng = random.Random(f"captions/{seed}")
    texts = [description(scene, rng) for scene in scenes]
    drawn = draw(folder, texts)
    table, errors = right_by_kind(drawn, scenes), pixel_errors(drawn, scenes)
    table["pixel_error"] = [_median(errors, what) for what in table["what"]]
    exact = pixel_errors([render(scene) for scene in scenes[:500]], scenes[:500])
    return pd.concat([table, pd.DataFrame([dict(what="exact renderings", n=500, pixel_error=_median(exact, "all things"))])],
                     ignore_index=True)[COLUMNS]


@torch.inference_mode()
def draw(folder: Path, texts: list[str], sources: list[Image.Image] | None = None, batch: int = 64) -> list[Image.Image]:
    """Pictures of texts, or of `sources` after them, by the pipeline at `folder` as diffusers loads and calls it."""
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    own = json.loads((folder / DRAWING).read_text())
    needed, found = length_of(pipeline.tokenizer_2, texts, tuple(own["text_lengths"])), {}
    for length in own["text_lengths"]:
        rows = np.flatnonzero(needed == length)
        for some in tqdm(np.array_split(rows, max(1, -(-len(rows) // batch))), desc=f"texts of {length} tokens", mininterval=5):
            if len(some):
                edit = dict(image=[sources[i] for i in some], max_area=SIZE**2, _auto_resize=False) if sources else {}
                images = pipeline(
                    prompt=[texts[i] for i in some], height=SIZE, width=SIZE, num_inference_steps=own["steps"],
                    guidance_scale=own["guidance"], max_sequence_length=length,
                    generator=[torch.Generator().manual_seed(int(i)) for i in some], **edit).images
                found |= dict(zip(some, images, strict=True))
    return [found[i] for i in range(len(texts))]


def _median(errors: pd.DataFrame, what: str) -> float:
    chosen = errors["error"] if what in ("all things", "whole pictures") else errors.loc[errors["what"] == what, "error"]
    return float(chosen.median())


def pixel_errors(images: list[Image.Image], scenes: list[Scene]) -> pd.DataFrame:
    """One row per thing but digits, whose scans differ: what (kind of thing), error: root-mean-square difference of its cell's
    pixels (0 to 255) to the nearest of 25 exact renderings of the scene, everything in it shifted alike within its cell."""
    rows = []
    for image, scene in zip(images, scenes, strict=True):
        drawn = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.BOX), float)
        near = np.stack([np.asarray(render(shifted(scene, dx, dy)), float) for dx in OFFSETS for dy in OFFSETS])
        squares = ((near - drawn) ** 2).mean(-1)
        for thing in scene.things:
            if thing.kind != DIGIT:
                y, x = CELL * (thing.cell // 3), CELL * (thing.cell % 3)
                error = squares[:, y:y + CELL, x:x + CELL].mean((1, 2)).min()
                rows.append((kind_group(thing.kind), float(error**0.5)))
    return pd.DataFrame(rows, columns=["what", "error"])


def shifted(scene: Scene, dx: float, dy: float) -> Scene:
    """The scene with every thing at the same place within its cell."""
    return replace(scene, things=tuple(replace(thing, dx=dx, dy=dy) for thing in scene.things))


def commands_done(folder: Path, n: int = 2000, seed: str = "commands") -> pd.DataFrame:
    """How many of `n` held-out commands the editing pipeline at `folder` follows, with everything else untouched.

    Columns as in `captions_drawn`, by kind of command; right is a picture in which the reader sees exactly the scene after the
    command, and pixel_error the median root-mean-square change of the cells that the command leaves alone. The last two rows
    give the same for the exact pictures after the command, and for the sources left as they are.
    """
    before, commands, after, kinds = edit_pairs(n, "test", seed)
    sources, exact = [render(scene) for scene in before], [render(scene) for scene in after]
    drawn = draw(folder, commands, sources)
    rows = []
    for what, images in (("", drawn), ("exact pictures", exact), ("sources left alone", sources)):
        right = pd.Series([reason is None for reason in differences(images, after)])
        error = pd.Series([untouched_error(*row) for row in zip(images, sources, exact, strict=True)])
        groups = {kind: [k == kind for k in kinds] for kind in dict.fromkeys(kinds)} if not what else {}
        for name, chosen in (groups | {what or "all commands": [True] * n}).items():
            told = pd.Series(chosen)
            share = clustered_proportion(tally(right[told], right[told].index.to_series()))
            rows.append((name, int(told.sum()), *share, float(error[told].median())))
    return pd.DataFrame(rows, columns=COLUMNS)


def untouched_error(image: Image.Image, source: Image.Image, exact: Image.Image) -> float:
    """Root-mean-square difference (0 to 255) to the source in the pixels that the exact edit leaves as they were."""
    given, was, wanted = (np.asarray(one.convert("RGB").resize((SIZE, SIZE), Image.BOX), float) for one in (image, source, exact))
    same = (was == wanted).all(-1)
    return float(((given - was)[same] ** 2).mean() ** 0.5) if same.any() else 0.0
