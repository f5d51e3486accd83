"""Trainings by transformers' `Trainer` (and TRL's) that go on exactly where a killed process stopped.

`Trainer(resume_from_checkpoint=...)` brings back optimiser, schedule, data order and random states, but for a full fine-tune
of a vision-language model it restores no weight and says so in a warning only. So the weights are loaded from the checkpoint
first; and a checkpoint counts only once it is sealed, since a killed process may leave half of one.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback

from auditdm_lib import paths
from auditdm_lib.models.vlm import VLM, load_vlm
from auditdm_lib.run import manifest

SEAL = "sealed.json"  # sha256 of the checkpoint's files, written last


def claim(work: Path, models: list[str | Path], arguments: dict) -> None:
    """Make `work` the place of a training with these models and arguments; what one with others left there is removed, and it
    is said so."""
    file = work / "arguments.sha256"
    made_by = manifest.digest([manifest.library_hash(), list(map(_named, models)), arguments])
    if file.exists() and file.read_text() != made_by:
        print(f"{work.name} was begun with other parameters or code and begins anew.")
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(made_by)


def _named(path: str | Path) -> str:
    """What tells a model: the hash of its folder, else its name."""
    folder = Path(paths.resolve(str(path)))
    return manifest.digest(manifest.hash_folder(folder)) if folder.is_dir() else str(path)


class Seal(TrainerCallback):
    """Seals each checkpoint when all of it is written."""

    def on_save(self, args, state, control, **_):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / SEAL).write_text(json.dumps(manifest.hash_folder(folder)), encoding="utf-8")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest sealed checkpoint below `folder`, or None; what is not whole is removed."""
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_of):
        seal = checkpoint / SEAL
        hashes = {k: v for k, v in manifest.hash_folder(checkpoint).items() if k != SEAL}
        if seal.is_file() and _read(seal) == hashes:
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
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _read(seal: Path) -> dict | None:
    try:
        return json.loads(seal.read_text(encoding="utf-8"))
    except ValueError:
        return None


def store(work: Path, out: Path, prefix: str, last: str) -> None:
    """Copy the auditors that a training by GRPO kept in `work` to `out`: the final one as `last`, step_000050 as
    PREFIX_000050. A training that did not run has none."""
    kept = sorted(work.glob("step_*"))
    for folder in kept:
        shutil.copytree(folder, out / (last if folder == kept[-1] else folder.name.replace("step", prefix)))


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


