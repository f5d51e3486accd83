"""Trainings by transformers' `Trainer` (and TRL's) that go on exactly where a killed process stopped.

`Trainer(resume_from_checkpoint=...)` brings back optimiser, schedule, data order and random states, but for a full fine-tune
of a vision-language model it restores no weight and says so in a warning only. So the weights are loaded from the checkpoint
first; and a checkpoint counts only once it is sealed, since a killed process may leave half of one.
"""

import json
import shutil
from pathlib import Path

from peft import LoraConfig
from transformers import TrainerCallback

from auditdm_lib import manifest
from auditdm_lib.models import VLM, load_vlm
from auditdm_lib.rectify import language_layers

SEAL = "sealed.json"  # sha256 of the checkpoint's files, written last


class Seal(TrainerCallback):
    """Seals each checkpoint when all of it is written."""

    def on_save(self, args, state, control, **_):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / SEAL).write_text(json.dumps(manifest.hash_folder(folder)), encoding="utf-8")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest sealed checkpoint below `folder`, or None; what is not whole is removed."""
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        seal = checkpoint / SEAL
        hashes = {k: v for k, v in manifest.hash_folder(checkpoint).items() if k != SEAL}
        if seal.is_file() and _read(seal) == hashes:
            found = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return found


def _read(seal: Path) -> dict | None:
    try:
        return json.loads(seal.read_text(encoding="utf-8"))
    except ValueError:
        return None


def load_for_training(start: Path, checkpoint: Path | None, lora_rank: int) -> VLM:
    """The model to train on from `checkpoint`, or from `start` where there is none yet.

    With LoRA the base stays `start`, and the Trainer restores the adapters. Without, the weights are the checkpoint's, while
    the name stays that of `start`, from which TRL loads the model that the KL divergence is measured from.
    """
    vlm = load_vlm(start if lora_rank or checkpoint is None else checkpoint)
    vlm.model.config._name_or_path = str(start)
    return vlm


def lora(vlm: VLM, rank: int) -> LoraConfig | None:
    """Adapters of a rank for all linear layers of the language model; None (all weights are trained) for rank 0."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=language_layers(vlm.model)) if rank else None
