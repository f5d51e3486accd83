"""Resumable training with transformers' `Trainer` (and TRL's): a killed process is resumed exactly where it stopped.

`Trainer(resume_from_checkpoint=...)` restores optimiser, schedule, data order and random states. For a full fine-tuning of a
vision-language model, however, it restores no weights and only logs a warning, so the weights are loaded from the checkpoint
first. A checkpoint is used only if it is sealed, since a killed process may leave an incomplete one.
"""

import gc
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from auditdm_lib import paths
from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.counterfactuals import pipelines
from auditdm_lib.audit.panel import Panel
from auditdm_lib.models.asking import save_asking
from auditdm_lib.models.loading import local
from auditdm_lib.models.placement import current, mixed
from auditdm_lib.models.vlm import VLM, load_vlm
from auditdm_lib.run import commit, manifest, reach
from auditdm_lib.run.manifest import Stop

SEAL = "sealed.json"  # sha256 of a folder's files, written last
PARTS = "parts.json"  # into how many parts a batch was divided after the memory did not suffice
ARGUMENTS = "arguments.json"  # hashes of the models, parameters and code that a training was started with
NUMBERS = ("dtype", "attention", "quantisation")  # parameters of the placement; the others say where a model lies
SAVING = ("accumulation", "checkpointing")  # settings that save memory: a training that ran out of it goes on with others


class Changed(Stop):
    """An unfinished training was started with other parameters, models or code."""


def claim(work: Path, module: str, models: list[str | Path], arguments: dict) -> None:
    """Reserve the folder `work` for a training by `module` (dotted name) with these models and arguments and this process's
    numbers (NUMBERS).

    Raises Changed, listing the differences, if `work` holds an unfinished training with others: hours of work are deleted only
    on request (`auditdm run --fresh`, which sets AUDITDM_FRESH).
    """
    file = work / ARGUMENTS
    arguments = arguments | {name: current()[name] for name in NUMBERS}
    made_by = {f"model {i + 1}": _identity(model) for i, model in enumerate(models)} | {
        name: manifest.digest(value) for name, value in arguments.items()} | reach.module_sources(module)
    before = (_read(file) or {}) if file.is_file() else made_by
    if changed := sorted(name for name in before.keys() | made_by.keys() if before.get(name) != made_by.get(name)):
        if not os.environ.get("AUDITDM_FRESH"):
            raise Changed(f"The training {work.name} was stopped and has changed since ({', '.join(changed[:6])}): restore "
                          "these to resume it, or restart it by adding --fresh to the `auditdm run` command.")
        commit.discard(work)
    work.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(made_by), encoding="utf-8")
    partial.replace(file)


def memory(batch: int, parts: int) -> dict:
    """What `TrainingArguments` takes to compute in the numbers of the placement, and to take a batch of `batch` examples in
    `parts` equal parts, one after the other, of which each process has its share. Raises Stop if it does not divide so."""
    if batch % (parts * processes()):
        raise Stop(f"A batch of {batch} examples in {parts} parts does not divide among {processes()} processes: choose another "
                   "batch or accumulation.")
    return {"per_device_train_batch_size": batch // parts // processes(), "gradient_accumulation_steps": parts, **mixed()}


def together() -> bool:
    """Whether this process is one of several that train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def processes() -> int:
    """How many processes train together; a cluster may set WORLD_SIZE for one that trains alone."""
    return torch.distributed.get_world_size() if together() else 1


def rank() -> int:
    """The number of this process among those that train together, 0 for the first or only one."""
    return torch.distributed.get_rank() if together() else 0


def on_one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """The arguments for one GPU in each process: where one process sees several, `Trainer` would give each of them a whole batch
    (nn.DataParallel), and TRL would refuse."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def fitting(work: Path, batch: int, parts: int, train: Callable[[int], None]) -> None:
    """Call `train(parts)`, which takes a batch of `batch` examples in so many parts, one after the other.

    The first time that the GPU's memory does not suffice, it is called again with twice as many parts, from its last checkpoint,
    and a warning says so; `work` remembers it for a resumed training, which may begin with more parts. What is learned is the
    same but for rounding. Raises torch.OutOfMemoryError if half a part is still too much, and Stop if a part cannot be halved.
    """
    file = work / PARTS
    remembered = (_read(file) or {}).get("parts", 0) if file.is_file() else 0
    try:
        return train(max(remembered, parts))
    except torch.OutOfMemoryError:
        if remembered >= parts:
            raise
    # outside the block above, in which the exception would keep the training's tensors alive
    gc.collect()
    torch.cuda.empty_cache()
    if batch % (2 * parts):
        raise Stop(f"The GPU's memory does not suffice for {batch // parts} examples at a time, which cannot be halved: set "
                   "gradient_checkpointing to true, or train adapters (LoRA) or a smaller model.")
    warnings.warn(f"The GPU's memory did not suffice for {batch // parts} examples at a time: {work.name} goes on with half as "
                  f"many; set the accumulation to {2 * parts} to begin so.", stacklevel=2)
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"parts": 2 * parts}), encoding="utf-8")
    train(2 * parts)


def askings(panel: Panel) -> list[dict]:
    """How each member of a panel is asked, for `claim`: other prompts, token limits or temperatures give other answers, how many
    are given at a time makes no difference."""
    return [asdict(replace(member.asking, batch_size=1)) | {"sampling": member.sampling and asdict(member.sampling)}
            for member in (panel.target, *panel.references)]


def claimed(settings) -> dict:
    """The settings of a training for `claim`: all but those that save memory (SAVING)."""
    return {name: value for name, value in asdict(settings).items() if name not in SAVING}


def described(search: Search) -> dict:
    """A search for `claim`: all but the names of its pipelines, of which the contents count (`pipelines_of`)."""
    return asdict(search) | {"drawing": asdict(replace(search.drawing, image_model="", edit_model=""))}


def pipelines_of(search: Search) -> list[str]:
    """The pipelines that a search uses, for `claim`."""
    return pipelines(search.drawing, search.shares)


def _identity(path: str | Path) -> str:
    """What identifies a model: the hash of its folder, or its name if it is a hub id."""
    folder = paths.place(path)
    return manifest.digest(manifest.hash_folder(folder)) if folder.is_dir() else str(path)


def save_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table as parquet with its sha256 in a second file. It is renamed to `file` only once it is complete."""
    partial = file.with_name(file.name + ".partial")
    table.to_parquet(partial, index=False)
    _seal_of(file).write_text(manifest.hash_file(partial), encoding="utf-8")
    partial.replace(file)


def load_table(file: Path) -> pd.DataFrame | None:
    """A table written by `save_table`; None if it does not exist or does not match its sha256."""
    if not file.is_file() or not _seal_of(file).is_file():
        return None
    return pd.read_parquet(file) if _seal_of(file).read_text(encoding="utf-8") == manifest.hash_file(file) else None


def _seal_of(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")


class Seal(TrainerCallback):
    """Seals each checkpoint once it is complete: in one process, after all of several have written their part."""

    def on_save(self, args, state, control, **_):
        if together():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def seal(folder: Path) -> None:
    """Write the sha256 of all files of a folder into its seal."""
    (folder / SEAL).write_text(json.dumps(manifest.hash_folder(folder)), encoding="utf-8")


def whole(folder: Path) -> bool:
    """Whether a folder is sealed and its files match the seal."""
    file = folder / SEAL
    hashes = {name: value for name, value in manifest.hash_folder(folder).items() if name != SEAL}
    return file.is_file() and _read(file) == hashes


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None. Incomplete or damaged checkpoints are deleted."""
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_of):
        if whole(checkpoint):
            found = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return found


def steps_of(checkpoint: Path | None) -> int:
    """The number of training steps of a checkpoint; 0 for None."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def save_whole(start: Path, checkpoint: Path, lora_rank: int, out: Path) -> None:
    """Save the model of a checkpoint to `out`, as `load_vlm` loads it: adapters merged, without the state of the training."""
    with torch.random.fork_rng():  # initialising adapters draws random numbers and must not affect the running training
        vlm = load_vlm(start if lora_rank else checkpoint, trained=True, all_weights=not lora_rank,
                       device="cpu")  # a training fills the GPU
        model = PeftModel.from_pretrained(vlm.model, checkpoint).merge_and_unload() if lora_rank else vlm.model
    save_auditor(model, vlm, out)


def save_auditor(model: PreTrainedModel, auditor: VLM, out: Path) -> None:
    """Write a sealed model folder that `load_vlm` loads: `model`, which was trained from `auditor`, with the latter's processor.

    It is renamed to `out` only once it is complete.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    auditor.processor.save_pretrained(partial)
    save_asking(auditor.asking, partial)
    seal(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _read(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def store(work: Path, out: Path, prefix: str, last: str) -> None:
    """Copy the auditors that a GRPO training kept in `work` to `out`: the final one as `last`, step_000050 as PREFIX_000050.

    Copies nothing if the training did not run.
    """
    kept = sorted(work.glob("step_*"))
    for folder in kept:
        copy_model(folder, out / (last if folder == kept[-1] else folder.name.replace("step", prefix)))


def copy_model(folder: Path, out: Path) -> None:
    """Copy a model written by `save_auditor`, without its seal. Raises Stop if it does not match the seal."""
    if not whole(folder):
        raise Stop(f"{folder.name} of the training {folder.parent.name} is damaged: delete {folder.parent} to restart it.")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SEAL))


def load_for_training(start: Path, checkpoint: Path | None, lora_rank: int) -> VLM:
    """The model to train, loaded from `checkpoint`, or from `start` if that is None. Its vision tower is frozen.

    A vision tower trained on a few thousand pictures degrades, and the auditor asks about things that are not there. With LoRA
    the base model is always `start`, and the Trainer restores the adapters. Without LoRA the weights are the checkpoint's, but
    the name is that of `start`, from which TRL loads the initial policy for the KL divergence; and they are in float32, in which
    small updates add up.
    """
    vlm = load_vlm(start if lora_rank or checkpoint is None else checkpoint, trained=True, all_weights=not lora_rank)
    vlm.model.config._name_or_path = local(start)
    for name, weight in vlm.model.named_parameters():
        if re.search(r"(^|\.)vis(ion|ual)", name):  # vision_tower, vision_model or visual, by architecture
            weight.requires_grad_(False)
    return vlm


