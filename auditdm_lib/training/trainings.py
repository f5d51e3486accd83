"""Trainings by transformers' `Trainer` (and TRL's) that go on exactly where a killed process stopped.

`Trainer(resume_from_checkpoint=...)` brings back optimiser, schedule, data order and random states, but for a full fine-tune
of a vision-language model it restores no weight and says so in a warning only. So the weights are loaded from the checkpoint
first; and a checkpoint counts only once it is sealed, since a killed process may leave half of one.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback

from auditdm_lib import paths
from auditdm_lib.models.vlm import VLM, load_vlm
from auditdm_lib.run import manifest, reach
from auditdm_lib.run.manifest import Stop

SEAL = "sealed.json"  # sha256 of a folder's files, written last
ARGUMENTS = "arguments.json"  # what a training was begun with


class Changed(Stop):
    """A training was begun with other parameters, models or code."""


def claim(work: Path, module: str, models: list[str | Path], arguments: dict) -> None:
    """Make `work` the place of a training by `module` (dotted name) with these models and arguments.

    Raises Changed, naming what differs, where another training was stopped there: hours of work are deleted only on demand
    (`auditdm run --fresh`, which sets AUDITDM_FRESH).
    """
    file = work / ARGUMENTS
    made_by = {f"model {i + 1}": _identity(model) for i, model in enumerate(models)} | {
        name: manifest.digest(value) for name, value in arguments.items()} | reach.module_sources(module)
    before = (_read(file) or {}) if file.is_file() else made_by
    if changed := sorted(name for name in before.keys() | made_by.keys() if before.get(name) != made_by.get(name)):
        if not os.environ.get("AUDITDM_FRESH"):
            raise Changed(f"The training {work.name} was stopped and has changed since ({', '.join(changed[:6])}): go on with "
                          "what it was begun with, or begin it anew by adding --fresh to the `auditdm run` command.")
        manifest.discard(work)
    work.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(made_by), encoding="utf-8")
    partial.rename(file)


def _identity(path: str | Path) -> str:
    """What identifies a model: the hash of its folder, else its name."""
    folder = Path(paths.resolve(str(path)))
    return manifest.digest(manifest.hash_folder(folder)) if folder.is_dir() else str(path)


def save_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table as parquet with its sha256 beside it; it stands under its name only when all is written."""
    partial = file.with_name(file.name + ".partial")
    table.to_parquet(partial, index=False)
    _seal_of(file).write_text(manifest.hash_file(partial), encoding="utf-8")
    partial.rename(file)


def load_table(file: Path) -> pd.DataFrame | None:
    """A table that `save_table` wrote, or None where there is none or its sha256 is not the one beside it."""
    if not file.is_file() or not _seal_of(file).is_file():
        return None
    return pd.read_parquet(file) if _seal_of(file).read_text(encoding="utf-8") == manifest.hash_file(file) else None


def _seal_of(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")


class Seal(TrainerCallback):
    """Seals each checkpoint when all of it is written."""

    def on_save(self, args, state, control, **_):
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def seal(folder: Path) -> None:
    """Note the sha256 of a folder's files in it."""
    (folder / SEAL).write_text(json.dumps(manifest.hash_folder(folder)), encoding="utf-8")


def whole(folder: Path) -> bool:
    """Whether a folder is sealed and holds what its seal says."""
    file = folder / SEAL
    hashes = {name: value for name, value in manifest.hash_folder(folder).items() if name != SEAL}
    return file.is_file() and _read(file) == hashes


def last_checkpoint(folder: Path) -> Path | None:
    """The newest sealed checkpoint below `folder`, or None; what is not whole is removed."""
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_of):
        if whole(checkpoint):
            found = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return found


def steps_of(checkpoint: Path | None) -> int:
    """How many steps were done when a checkpoint was written; 0 for none."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def save_whole(start: Path, checkpoint: Path, lora_rank: int, out: Path) -> None:
    """The model of a checkpoint as a folder that `load_vlm` loads: adapters merged, nothing of the training left."""
    with torch.random.fork_rng():  # adapters are drawn at random before they are read, in the midst of a training
        vlm = load_vlm(start if lora_rank else checkpoint)
        model = PeftModel.from_pretrained(vlm.model, checkpoint).merge_and_unload() if lora_rank else vlm.model
    save_auditor(model, vlm.processor, out)


def save_auditor(model: PreTrainedModel, processor: ProcessorMixin, out: Path) -> None:
    """Write a checkpoint folder that `load_vlm` loads; it stands under its name only when all is written."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    seal(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _read(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def store(work: Path, out: Path, prefix: str, last: str) -> None:
    """Copy the auditors that a training by GRPO kept in `work` to `out`: the final one as `last`, step_000050 as
    PREFIX_000050. A training that did not run has none."""
    kept = sorted(work.glob("step_*"))
    for folder in kept:
        copy_model(folder, out / (last if folder == kept[-1] else folder.name.replace("step", prefix)))


def copy_model(folder: Path, out: Path) -> None:
    """Copy a model that `save_auditor` wrote, without its seal. Raises Stop where it is not what its seal says."""
    if not whole(folder):
        raise Stop(f"{folder.name} of the training {folder.parent.name} is damaged: begin it anew by deleting {folder.parent}.")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SEAL))


def load_for_training(start: Path, checkpoint: Path | None, lora_rank: int) -> VLM:
    """The model to train on from `checkpoint`, or from `start` where there is none yet; its vision tower stays as it is.

    A tower that learns along from a few thousand pictures unlearns to see, and the auditor asks about what is not there. With
    LoRA the base stays `start`, and the Trainer restores the adapters. Without, the weights are the checkpoint's, while the
    name stays that of `start`, from which TRL loads the model that the KL divergence is measured from.
    """
    vlm = load_vlm(start if lora_rank or checkpoint is None else checkpoint)
    vlm.model.config._name_or_path = paths.resolve(str(start))
    for name, weight in vlm.model.named_parameters():
        if re.search(r"(^|\.)vis(ion|ual)", name):  # vision_tower, vision_model or visual, by architecture
            weight.requires_grad_(False)
    return vlm


