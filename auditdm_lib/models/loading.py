"""Loading a checkpoint: the files and the revision that the run's manifest names, safetensors only, none of its code, checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import cached_file, logging

from auditdm_lib import paths
from auditdm_lib.models import placement
from auditdm_lib.run import hub, model_files

TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


class Unusable(ValueError):
    """Why a checkpoint cannot be used, as the end of a sentence that begins with its name."""


def where(path: str | Path) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a model: its folder, or its hub id with the revision that the manifest records.

    Raises FileNotFoundError if there is neither.
    """
    source = paths.resolve(str(path))
    if paths.place(path).is_dir():
        return source, {}
    if not hub.ID.fullmatch(source):
        raise FileNotFoundError(f"No model at {path}{paths.looked(str(path))}: give a folder that holds a checkpoint, or "
                                "a hub id 'org/name'.")
    try:
        return source, {"revision": hub.revision(source)}
    except LookupError as error:
        raise FileNotFoundError(f"No model at {path}: no such folder{paths.looked(str(path))}, {error}.") from error


def local(path: str | Path) -> str:
    """The folder of a model: its own, or the one in the hub's cache that holds the recorded revision."""
    source, revision = where(path)
    return source if not revision else str(Path(cached_file(source, "config.json", **revision)).parent)


def load_reader(path: str | Path, reader_class: type, check: Callable[[Any], None], kind: str) -> Any:
    """A checkpoint's processor or tokenizer (`reader_class`), passed by `check`, which raises Unusable.

    `kind` describes the expected model in error messages. Raises FileNotFoundError if there is no such model, ValueError if the
    files of its folder show a fault, or if nothing of this kind can be loaded.
    """
    source, revision = where(path)
    if not revision and (fault := model_files.fault(Path(source))):
        raise ValueError(f"{path} {fault}")
    try:
        reader = reader_class.from_pretrained(source, trust_remote_code=False, **revision)
        check(reader)
    except Unusable as error:
        raise ValueError(f"{path} {error}") from error.__cause__
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ValueError(_sentence(path, kind, error)) from error
    return reader


def load_weights(path: str | Path, model_class: type, kind: str, trained: bool = False,
                 all_weights: bool = False, device: str | None = None) -> PreTrainedModel:
    """A checkpoint's model in eval mode, placed as `placement` says.

    `trained`: it is to be trained, so it is neither quantised nor spread over devices; with `all_weights` it is in float32.
    `device` is where it is to lie, if not where the placement says. Of the checkpoint's generation settings only the token ids
    are kept: sampling, beams and penalties would give other answers than greedy decoding. Raises ValueError if tensors are
    missing, of other shapes or not finite.
    """
    logging.disable_progress_bar()  # otherwise each model shows a bar for a few milliseconds
    (source, revision), how = where(path), placement.loading(trained, all_weights, device)
    try:
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **how, **revision)
    except Exception as error:  # safetensors and torch have exceptions of their own
        raise ValueError(_sentence(path, kind, error)) from error
    if info["missing_keys"] or info["mismatched_keys"]:  # transformers would initialise these at random
        faulty = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise ValueError(f"{path} lacks {len(faulty)} of its tensors ({faulty[0]} ...): the checkpoint is incomplete or of "
                         "another architecture; save it again with save_pretrained.")
    for name, tensor in model.state_dict().items():
        # what accelerate keeps on the disk or in the main memory is a meta tensor here, without numbers to look at
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise ValueError(f"{path} holds numbers that are not finite, first in {name}: its training diverged or the file is "
                             "damaged, so take an earlier checkpoint or another copy.")
    given = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(given, name) for name in TOKEN_IDS}, do_sample=False)
    if "device_map" not in how:
        model.to(device or ("cpu" if placement.waits(trained) else placement.device()))
    return model.eval()


def _sentence(path: str | Path, kind: str, error: Exception) -> str:
    """One sentence about a library's error: it may be of any type and any length, and seldom names the folder."""
    reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200].rstrip(". ")
    if "trust_remote_code" in str(error):
        return f"{path} needs code of its own, which is never run here: use an architecture that transformers itself has."
    if "scaled_dot_product_attention" in str(error) or "flash" in str(error).lower():
        return f"{path} cannot compute its attention in the chosen way ({reason}): set attention to auto."
    if "size mismatch" in str(error) or "mismatched_sizes" in str(error):
        return (f"{path} holds tensors of other shapes than its config.json says ({reason}): the checkpoint is incomplete or of "
                "another architecture; save it again with save_pretrained.")
    return f"{path} does not load as {kind}: check that the folder is complete, or use another checkpoint ({reason})."
