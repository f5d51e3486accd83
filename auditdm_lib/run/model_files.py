"""A model's folder, checked by its files alone, before anything is loaded."""

import filecmp
import json
import re
import struct
from pathlib import Path

WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PLAIN = re.compile(r"[\w ./\\:~-]+")  # a name that is safe to show within a command
MERGE = ("python -c \"from peft import PeftModel; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
         "b = '{base}'; PeftModel.from_pretrained(M.from_pretrained(b), '{name}').merge_and_unload()"
         ".save_pretrained('{merged}'); P.from_pretrained(b).save_pretrained('{merged}')\"")


def fault(folder: Path) -> str | None:
    """What is wrong with a model's folder, as the end of a sentence that begins with its name; None if nothing is seen.

    It reads the configuration files and the headers of the weights: an adapter without its model, pickled, missing or cut-off
    weights, and JSON that is none.
    """
    if (folder / ADAPTER).is_file():
        return adapter_fault(folder)
    if not (folder / "config.json").is_file():
        return "holds no config.json: give the folder that save_pretrained wrote."
    for file in sorted(folder.glob("*.json")):
        try:
            if not isinstance(json.loads(file.read_bytes()), dict):
                raise ValueError
        except (ValueError, RecursionError):
            return f"has a {file.name} that is no valid JSON object: copy the file again, or save the model again."
    return weights_fault(folder)


def adapter_fault(folder: Path) -> str:
    """What to do with a folder of adapters: transformers would load the model that the adapter names, not what is here."""
    try:
        base = str(json.loads((folder / ADAPTER).read_bytes())["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError, RecursionError):
        base = ""
    base = base if PLAIN.fullmatch(base) else "THE MODEL IT WAS TRAINED ON"
    name = folder.as_posix() if PLAIN.fullmatch(folder.as_posix()) else "THIS FOLDER"
    command = MERGE.format(base=base, name=name, merged=f"{name}-merged")
    return f"holds an adapter ({ADAPTER}), not a whole model: merge it first and give the new folder:\n  {command}"


def weights_fault(folder: Path) -> str | None:
    """What is wrong with the weights, by the names, sizes and headers of their files."""
    files, named_by = [WEIGHTS], "the folder of a model needs"
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        shards = json.loads((folder / INDEX).read_bytes()).get("weight_map")
        files, named_by = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else [], f"its {INDEX} names"
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    for name in files or [WEIGHTS]:
        if (folder / name).is_file():
            if not whole(folder / name):
                return f"has a cut-off or damaged {name}: copy the file again."
        elif pickled:
            return (f"holds pickled weights ({pickled[0]}), which can run code when they are loaded: save them as safetensors, "
                    "with save_pretrained.")
        else:
            return f"lacks {name}, which {named_by}: copy the folder again."
    return None


def whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, JSON, then the tensors."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            length = struct.unpack("<Q", opened.read(8))[0]
            header = json.loads(opened.read(length)) if length <= size else None
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        return size == 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False


def same_weights(one: Path, other: Path) -> bool:
    """Whether two folders are one, or hold the same weights (files of equal sizes and bytes)."""
    if one.resolve() == other.resolve():
        return True
    files, others = (sorted(folder.glob("*.safetensors")) for folder in (one, other))
    return bool(files) and len(files) == len(others) and all(
        filecmp.cmp(a, b, shallow=False) for a, b in zip(files, others, strict=True))
