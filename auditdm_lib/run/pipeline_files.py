"""A pipeline's folder, checked by its files alone before anything is loaded, and its own settings (`drawing.json`)."""

import inspect
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import hub, manifest, model_files

INDEX, OWN = "model_index.json", "drawing.json"
OWN_KEYS = {"steps": int, "guidance": float, "size": int, "text_lengths": list}
LONGEST_TEXT, LARGEST, MOST_STEPS = 4096, 4096, 1000  # tokens, pixels, sampling steps: more is a slip of the pen
EDITS, DRAWS = "edit", "regeneration"
OTHER_TASKS = ("ControlNet", "Adapter", "Upscale", "SuperResolution", "Refiner", "Prior", "Video", "Animate", "Audio", "Music")
# in the names of classes that take a picture or a text for something else, such as lines to follow
KNOWN = {("FluxPipeline", DRAWS), ("FluxKontextPipeline", EDITS)}  # the paper's: nobody waits for diffusers to be imported


def fault(model: str, kind: str | None = None) -> str | None:
    """What is wrong with a pipeline (a folder or hub id), in one sentence with the remedy; None if nothing is seen.

    `kind` says what it is for: "regeneration" (from a text alone), "edit" (a picture by a command), None either of them. No
    weights are loaded: it reads JSON, the headers of the weights and the signature of the pipeline's class. Of a hub id it is
    only asked whether it can be reached; its files are checked once they are here.
    """
    folder = paths.place(model)
    if model and folder.is_dir():
        return (found := folder_fault(folder, kind)) and f"the folder {model} {found}"
    if model and folder.exists():
        return f"{model} is a file; give the pipeline's folder."
    if not hub.is_id(model):
        return (f"there is no pipeline at {model!r}{paths.looked(model)}: give a folder that save_pretrained wrote, or a hub "
                "id 'org/name'.")
    try:
        hub.revision(model)
    except LookupError as error:
        return f"there is no pipeline {model}: no such folder{paths.looked(model)}, {error}."
    return None


def folder_fault(folder: Path, kind: str | None = None) -> str | None:
    """As `fault`, as the end of a sentence that begins with the folder's name."""
    if not (folder / INDEX).is_file():
        return f"holds no {INDEX}: give the folder that a pipeline's save_pretrained wrote."
    for file in (f for f in (folder / INDEX, folder / OWN, *sorted(folder.glob("*/*config.json"))) if f.is_file()):
        if _json(file) is None:
            return f"has a {file.relative_to(folder).as_posix()} that is no valid JSON object: copy the file again."
    index = _json(folder / INDEX)
    if code := next((f for f in sorted((*folder.glob("*.py"), *folder.glob("*/*.py")))), None):
        return (f"holds code ({code.relative_to(folder).as_posix()}), which is never run here: use a pipeline that diffusers "
                "itself has, and remove the file.")
    return (class_fault(index.get("_class_name"), kind) or own_fault(_json(folder / OWN))
            or next(filter(None, (_part_fault(folder, name, part) for name, part in parts(index))), None)
            or _variants_fault(folder, index))


def parts(index: dict) -> Iterator[tuple[str, Any]]:
    """The components that a model_index.json names: name, and [library, class]."""
    for name, part in index.items():
        if not name.startswith("_") and isinstance(part, list) and part != [None, None]:
            yield name, part


def pipeline_class(name: Any, kind: str | None = None) -> type | None:
    """The class of diffusers that loads a pipeline saved as class `name`, for a kind of picture; None if there is none.

    A pipeline that only makes variations may be loaded as one that draws from a text (`AutoPipelineForText2Image`).
    """
    import diffusers  # seconds
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, _get_task_class

    own = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(own, type) and issubclass(own, diffusers.DiffusionPipeline)) or own is diffusers.DiffusionPipeline:
        return None
    return (kind == DRAWS and _get_task_class(AUTO_TEXT2IMAGE_PIPELINES_MAPPING, name, throw_error_if_not_exist=False)) or own


def class_fault(name: Any, kind: str | None = None) -> str | None:
    """What is wrong with the class that a model_index.json names."""
    if isinstance(name, str) and (name, kind) in KNOWN:
        return None
    own = pipeline_class(name)
    if lacking := own is None and _lacking(name):
        return f"is a {name}, which needs the package {lacking[0]}: install it."
    if own is None:
        return (f"is of the class {json.dumps(name)[:80]}, which the installed diffusers does not have (code of a pipeline's own "
                "is never run): use a pipeline of diffusers, or install a newer diffusers.")
    fits = [k for k in (DRAWS, EDITS) if _fits(name, k)]
    if kind is None and not fits:
        return f"is a {name}, which neither draws from a text alone nor edits a picture by a command: use another pipeline."
    if kind in (DRAWS, EDITS) and kind not in fits:
        need = ("does not draw from a text alone: give a text-to-image pipeline, such as a FluxPipeline, as image_model"
                if kind == DRAWS else
                "is not asked for an edit by one picture (image) and a command (prompt) alone: give an editing pipeline, such as "
                "a FluxKontextPipeline, as edit_model")
        return f"is a {name}, which {need}."
    return None


def _lacking(name: Any) -> list[str]:
    """The packages without which diffusers has no more than the name of a class of pipelines."""
    import diffusers
    import transformers

    needed = getattr(getattr(diffusers, name, None), "_backends", []) if isinstance(name, str) and name.isidentifier() else []
    known = {package: getattr(transformers.utils, f"is_{package}_available", None) for package in needed}
    return [package for package, there in known.items() if there and not there()]


def _fits(name: str, kind: str) -> bool:
    """Whether a class takes a text alone (regeneration), or a picture and a text and nothing else (edit)."""
    found = pipeline_class(name, kind)
    takes = inspect.signature(found.__call__).parameters
    if "prompt" not in takes or takes.keys() & {"mask_image", "control_image", "strength", "num_frames"}:
        return False
    if any(task in found.__name__ for task in OTHER_TASKS):
        return False
    return "image" in takes if kind == EDITS else found.__name__ != name or not _needs_picture(name, takes)


def _needs_picture(name: str, takes) -> bool:
    """Whether a class cannot do without a picture: it takes one and is not among those that diffusers lists for texts alone."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING as LISTED

    return "image" in takes and name not in {listed.__name__ for listed in LISTED.values()}


def own_fault(own: dict | None) -> str | None:
    """What is wrong with the content of a drawing.json."""
    for key, value in (own or {}).items():
        if key not in OWN_KEYS:
            return f"has a {OWN} with the unknown key {key!r}: it may hold {', '.join(OWN_KEYS)}."
        numbers = value if key == "text_lengths" and isinstance(value, list) else [value]
        whole = key == "guidance" or all(isinstance(number, int) for number in numbers)
        real = numbers and all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
        low, high = {"steps": (1, MOST_STEPS), "guidance": (0, 100), "size": (8, LARGEST),
                     "text_lengths": (1, LONGEST_TEXT)}[key]
        if not (whole and real and all(low <= n <= high for n in numbers)) or (key == "text_lengths") != isinstance(value, list):
            what = {"guidance": "a number", "text_lengths": "a list of whole numbers"}.get(key, "a whole number")
            return f"has a {OWN} in which {key} is {json.dumps(value)[:60]}: give {what} from {low} to {high}."
    return None


def own_settings(folder: Path) -> dict[str, Any]:
    """What a pipeline's drawing.json says, {} without one. Raises ValueError with one sentence if it is faulty."""
    if not (folder / OWN).is_file():
        return {}
    own = _json(folder / OWN)
    if own is None or (found := own_fault(own)):
        found = found if own is not None else f"has a {OWN} that is no valid JSON object: write it anew."
        raise ValueError(f"The pipeline {folder} {found}")
    return own | ({"text_lengths": sorted(own["text_lengths"])} if "text_lengths" in own else {})


def _part_fault(folder: Path, name: str, part: list) -> str | None:
    """What is wrong with one component: its class, its files."""
    library, cls = part if len(part) == 2 else (None, None)
    found = _part_class(library, cls)
    if found is None:
        return (f"names {json.dumps(part)[:80]} as its {name}, which the installed libraries do not have (code of a model's own "
                "is never run): use a pipeline made of classes of diffusers and transformers.")
    if not (folder / name).is_dir() or not any((folder / name).iterdir()):
        return f"lacks the component {name}, which its {INDEX} names: copy the folder again."
    import torch

    return weights_fault(folder / name) if issubclass(found, torch.nn.Module) else None


def _part_class(library: Any, cls: Any) -> type | None:
    import diffusers
    import transformers
    from diffusers import pipelines

    if not (isinstance(library, str) and isinstance(cls, str) and cls.isidentifier()):
        return None
    known = {"diffusers": diffusers, "transformers": transformers}
    module = known.get(library) or getattr(pipelines, library, None)  # such as stable_diffusion, for its safety checker
    found = getattr(module, cls, None)
    return found if isinstance(found, type) else None


def weights_fault(part: Path) -> str | None:
    """What is wrong with the weights of one component: safetensors, whole, one file or the shards that an index names."""
    if not (part / "config.json").is_file():
        return f"lacks {part.name}/config.json: copy the folder again."
    named = set()
    for index in sorted(part.glob("*.safetensors.index*.json")):
        shards = (_json(index) or {}).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            return f"has a {part.name}/{index.name} that names no weights: copy the file again."
        named |= {str(shard) for shard in shards.values()}
    files = {file.name for file in part.glob("*.safetensors")}
    if missing := sorted(named - files):
        return f"lacks {part.name}/{missing[0]}, which an index there names: copy the folder again."
    if not files:
        pickled = sorted(file.name for file in part.iterdir() if file.suffix in model_files.PICKLED)
        if pickled:
            return (f"holds pickled weights ({part.name}/{pickled[0]}), which can run code when they are loaded: save them as "
                    "safetensors, with save_pretrained.")
        return f"holds no weights (safetensors) for its {part.name}: copy the folder again."
    for name in sorted(files):
        if not model_files.whole(part / name):
            return f"has a cut-off or damaged {part.name}/{name}: copy the file again."
    return None


def variant(folder: Path) -> str | None:
    """The variant ("fp16") under which weights have to be loaded because some component has no others; None for plain ones."""
    found = set()
    for name, _ in parts(_json(folder / INDEX) or {}):
        tags = [_tag(file.name) for file in (folder / name).glob("*.safetensors")]
        if tags and "" not in tags:
            found |= set(tags)
    return sorted(found)[0] if found else None


def _tag(name: str) -> str:
    """The variant in the name of a weights file: "fp16" of model.fp16.safetensors, model.fp16-00001-of-00002.safetensors."""
    stem = name.removesuffix(".safetensors").partition("-0")[0]
    return stem.partition(".")[2]


def _variants_fault(folder: Path, index: dict) -> str | None:
    alone = {name: {_tag(file.name) for file in (folder / name).glob("*.safetensors")} for name, _ in parts(index)}
    chosen = variant(folder)
    if odd := sorted(name for name, tags in alone.items() if chosen and tags and not tags & {"", chosen}):
        return f"has no common variant of weights ({odd[0]} lacks {chosen}): save the whole pipeline again."
    return None


def identity(folder: Path) -> str:
    """What tells a pipeline from another: a digest of the names and bytes of the files that are loaded."""
    index = _json(folder / INDEX) or {}
    files = [*folder.glob("*.json"), *(f for name, _ in parts(index) for f in (folder / name).rglob("*"))]
    seen = sorted((f.relative_to(folder).as_posix(), f) for f in files
                  if f.is_file() and not f.name.startswith(".") and f.suffix not in model_files.PICKLED)
    return manifest.digest([[name, _bytes_of(file, file.stat().st_mtime_ns, file.stat().st_size)] for name, file in seen])


@lru_cache(maxsize=4096)
def _bytes_of(file: Path, changed: int, size: int) -> str:
    """The hash of a file's bytes, read again only if the file has changed."""
    return manifest.hash_file(file)


def _json(file: Path) -> dict | None:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
