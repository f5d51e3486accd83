"""Counterfactual pictures drawn by diffusion pipelines: from captions (text to image) and by edit commands.

Picture i depends on its own text, its source (for an edit), the seed, the settings and the pipeline, never on what else is drawn.
So each is drawn once and kept in a store.
"""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from auditdm_lib.audit import pipelines
from auditdm_lib.audit.files import pixel_hash
from auditdm_lib.audit.pipelines import Pipeline
from auditdm_lib.audit.store import keep, kept, note, noted, place
from auditdm_lib.run import manifest
from auditdm_lib.run.pipeline_files import DRAWS, EDITS, LARGEST, MOST_STEPS, fault, identity, own_settings

__all__ = ["Drawing", "draw_pictures", "fault"]

PARAMETERS = {DRAWS: "image_model", EDITS: "edit_model"}  # kind of picture -> the field that names its pipeline
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OFFLOADS = ("none", "model", "sequential")
EMPTY = "empty text"
FEW = 3  # batches; more have a progress bar
PLAIN_TEXT = "a picture"  # what any pipeline can draw
LOADED: dict[tuple, Any] = {}  # the pipelines in memory: one on a GPU, one of each kind on a CPU


@dataclass(frozen=True)
class Drawing:
    """How counterfactual pictures are drawn: the values of the stage parameters."""

    drawer: str = "renderer"  # "renderer" or "diffusion"
    image_model: str = ""  # folder or hub id of a text-to-image pipeline
    edit_model: str = ""  # folder or hub id of an instruction-editing pipeline
    steps: int = 0  # sampling steps; 0: the pipeline's own (drawing.json in its folder, else its class's)
    guidance: float = -1.0  # guidance scale; -1: the pipeline's own
    size: int = 0  # side of the drawn pictures in pixels; 0: the pipeline's own
    dtype: str = "auto"  # auto, float32, bfloat16 or float16; auto: bfloat16 on a GPU that can, else float32
    offload: str = "none"  # none, model or sequential: what of the pipeline waits in the main memory
    batch: int = 32  # pictures per call; on a CPU calls of fewer than 4 are filled up to 4, all those of a UNet to 8


@dataclass(frozen=True)
class _Task:
    """One picture to draw."""

    kind: str
    text: str
    source: Image.Image | None  # of an edit
    key: str  # what it depends on, 64 hex digits
    seed: int


def draw_pictures(drawing: Drawing, images: list[Image.Image], names: list[str], kinds: list[str], texts: list[str | None],
                  seed: int, store: Path | None, desc: str | None = None) -> tuple[list[Image.Image | None], list[str | None]]:
    """Picture i drawn from the caption `texts[i]` (kind `regeneration`), or `images[i]` edited by that command (`edit`).

    RGB pictures, None where `texts[i]` is None or gave none; and then why (None where there is a picture or no text). With a
    `store` (a folder) every picture is kept there as soon as it is drawn, those that it holds already are not drawn again, and
    their pixels are in memory only while they are used; so are the reasons that another try would not change. `names` are for
    people and change nothing. Raises ValueError with one sentence about a setting or pipeline that cannot be used, MemoryError
    where not even one picture fits, OSError where the store cannot be written.
    """
    if not len(images) == len(names) == len(kinds) == len(texts):
        raise ValueError(f"{len(images)} images, {len(names)} names, {len(kinds)} kinds, {len(texts)} texts: give one of each.")
    _check(drawing)
    pictures, reasons = [None] * len(images), [None] * len(images)
    for kind in (DRAWS, EDITS):
        rows = [i for i, text in enumerate(texts) if text is not None and kinds[i] == kind]
        for i in rows:
            reasons[i] = None if _says(texts[i]) else EMPTY
        rows = [i for i in rows if reasons[i] is None]
        if not rows:
            continue
        drawn = _drawn(drawing, kind, [(texts[i], images[i]) for i in rows], seed, store, desc)
        for i, found in zip(rows, drawn, strict=True):
            pictures[i], reasons[i] = (None, found) if isinstance(found, str) else (found, None)
    return pictures, reasons


def _check(drawing: Drawing) -> None:
    """Raise ValueError, in one sentence, for a setting out of range."""
    ranges = {"steps": (0, MOST_STEPS), "size": (0, LARGEST), "batch": (1, 4096), "guidance": (-1, 100)}
    for name, (low, high) in ranges.items():
        if not low <= getattr(drawing, name) <= high:
            raise ValueError(f"drawing_{name} is {getattr(drawing, name)}: give a number from {low} to {high}.")
    for name, choices in {"dtype": ("auto", *DTYPES), "offload": OFFLOADS}.items():
        if getattr(drawing, name) not in choices:
            raise ValueError(f"drawing_{name} is {getattr(drawing, name)!r}: give one of {', '.join(choices)}.")


def _says(text: str) -> bool:
    return bool(text.replace("\0", " ").strip())


def _drawn(drawing: Drawing, kind: str, asked: list[tuple[str, Image.Image]], seed: int, store: Path | None,
           desc: str | None) -> list[Image.Image | str]:
    """The picture of each text and source, or why there is none; from the store, or drawn by a pipeline that is loaded then."""
    model = getattr(drawing, PARAMETERS[kind])
    if not model:
        raise ValueError(f"{PARAMETERS[kind]} is empty, but pictures of the kind {kind!r} are asked for: name a pipeline.")
    folder = pipelines.folder_of(model)
    settings = _settings(drawing, folder)
    common = {"model": identity(folder), **settings, "device": _device(),
              "versions": [version("diffusers"), version("transformers"), version("torch")]}
    edits = kind == EDITS
    hashes = {id(source): pixel_hash(source.convert("RGB")) for _, source in asked} if edits else {}
    results, tasks, keys = {}, {}, []
    for text, source in asked:
        what = {"kind": kind, "seed": seed, "text": text, "source": hashes.get(id(source))}
        keys.append(key := manifest.digest(common | what))
        if edits and pipelines.too_narrow(source.size):
            results[key] = pipelines.TOO_NARROW
        elif key not in results and key not in tasks and not (store and (found := _stored(store, key))):
            tasks[key] = _Task(kind, text, source if edits else None, key, int(manifest.digest(what)[:15], 16))
        elif key not in results and key not in tasks:
            results[key] = found
    if tasks:
        pipeline = _pipeline(drawing, kind, model, folder, settings)
        for task, found in _all(pipeline, list(tasks.values()), drawing.batch, desc):
            results[task.key] = _store(store, task.key, found) if store else found
    return [results[key] for key in keys]


def _stored(store: Path, key: str) -> Image.Image | str | None:
    """The picture of a key in the store, or why there is none; None where it has not been drawn."""
    reason = noted(file := place(store, key))
    return reason if reason in pipelines.LASTING else kept(file)


def _store(store: Path, key: str, found: Image.Image | str) -> Image.Image | str:
    """Keep a picture, or the reason why there is none and never will be; gives what `_stored` gives from now on."""
    if isinstance(found, str):
        if found in pipelines.LASTING:
            note(place(store, key), found)
        return found
    return keep(place(store, key), found)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _settings(drawing: Drawing, folder: Path) -> dict[str, Any]:
    """What pictures depend on besides the model: the stage's parameters, else the pipeline's own, else None (its class's)."""
    own = own_settings(folder)
    gpu = torch.cuda.is_available()
    auto = "bfloat16" if gpu and torch.cuda.is_bf16_supported() else "float32"
    return {"steps": drawing.steps or own.get("steps"), "size": drawing.size or own.get("size"),
            "guidance": own.get("guidance") if drawing.guidance == -1 else drawing.guidance,
            "text_lengths": own.get("text_lengths", []), "dtype": auto if drawing.dtype == "auto" else drawing.dtype}


def _pipeline(drawing: Drawing, kind: str, model: str, folder: Path, settings: dict[str, Any]) -> Pipeline:
    """The pipeline of a model, loaded once; what it replaces is released first."""
    wanted = (kind, str(folder), identity(folder), settings["dtype"], drawing.offload)
    if wanted not in LOADED:
        for old in [old for old in LOADED if torch.cuda.is_available() or old[0] == kind]:
            del LOADED[old]
        pipelines.release()
        LOADED[wanted] = pipelines.load(model, folder, kind, DTYPES[settings["dtype"]], drawing.offload)
    return Pipeline(model, LOADED[wanted], settings["steps"], settings["guidance"], settings["size"],
                    tuple(settings["text_lengths"]))


def _all(pipeline: Pipeline, tasks: list[_Task], batch: int, desc: str | None) -> Iterator[tuple[_Task, Image.Image | str]]:
    """Each task with its picture or reason, batch by batch. A call holds texts of one length and sources of one size."""
    groups: dict[tuple, list[_Task]] = {}
    for task in tasks:
        size = pipelines.side_lengths(pipeline, task.source.size) if task.source else None
        tokens = pipelines.token_count(pipeline, task.text) if pipelines.varies(pipeline) else 0
        groups.setdefault((pipelines.text_length(pipeline, task.text), size, tokens), []).append(task)
    most = pipelines.at_most(pipeline, tasks[0].kind, batch)
    batches = [(group, members[i:i + most]) for group, found in sorted(groups.items(), key=str)
               for members in [sorted(found, key=lambda task: task.text)] for i in range(0, len(members), most)]
    for (length, size, _), members in tqdm(batches, desc=desc, disable=desc is None or len(batches) <= FEW):
        yield from zip(members, _batch(pipeline, members, length, size), strict=True)


def _batch(pipeline: Pipeline, tasks: list[_Task], length: int | None, size: tuple[int, int] | None) -> list[Image.Image | str]:
    """The pictures of one call, or why there is none. A call that is too large is halved; one that fails is tried one by one."""
    try:
        return _call(pipeline, tasks, length, size)
    except Exception as error:
        failed = error
        traceback.clear_frames(error.__traceback__)  # they hold what was in memory, and the next try needs that
    full = isinstance(failed, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(failed)
    if full:
        pipelines.release()
    if full and len(tasks) == 1:
        raise MemoryError(f"The memory does not hold one picture of {pipeline.name}: lower drawing_batch to 1, set "
                          "drawing_offload to model or sequential, or lower drawing_size.") from failed
    if len(tasks) > 1:
        half = len(tasks) // 2 if full else 1
        return [found for i in range(0, len(tasks), half) for found in _batch(pipeline, tasks[i:i + half], length, size)]
    plain = replace(tasks[0], text=PLAIN_TEXT, source=tasks[0].source and Image.new("RGB", tasks[0].source.size, "grey"))
    try:
        _call(pipeline, [plain], length, size)
    except Exception as error:
        raise ValueError(f"The pipeline {pipeline.name} ({type(pipeline.pipe).__name__}) cannot draw any picture "
                         f"({pipelines.reason(error)}): check its files and the drawing_ parameters, or use another "
                         "pipeline.") from error
    return [f"{pipelines.FAILED} ({pipelines.reason(failed)})"]


def _call(pipeline: Pipeline, tasks: list[_Task], length: int | None, size: tuple[int, int] | None) -> list[Image.Image | str]:
    texts, seeds = [task.text for task in tasks], [task.seed for task in tasks]
    if size is None:
        return pipelines.drawn_from_captions(pipeline, texts, seeds, length)
    return pipelines.edited(pipeline, [task.source for task in tasks], texts, seeds, length, size)
