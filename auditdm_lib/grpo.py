"""GRPO: policy gradients on Equation 1 (TRL's `GRPOTrainer`; Equation 2 is its advantage), for all kinds of probe.

Alone, with no pull towards its start, it is the paper's method: it reaches its success on few kinds of failure. After
self-imitation, with such a pull, it sharpens what imitation leaves blurred.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from auditdm_lib.alarms import Watch
from auditdm_lib.auditor import KINDS, TOLD, Search, ask, put, reward, save_auditor, summary
from auditdm_lib.counterfactuals import draw
from auditdm_lib.models import VLM
from auditdm_lib.panel import Panel
from auditdm_lib.pictures import Pictures
from auditdm_lib.probes import malformed
from auditdm_lib.resume import Seal, last_checkpoint, load_for_training, lora


@dataclass(frozen=True)
class Schedule:
    """How GRPO trains: `steps` of `groups` pictures with `group_size` texts each (G of Equation 2).

    The learning rate warms up over a tenth of the steps and falls by a cosine to a third, as in the paper (3e-6 to 1e-6).
    `beta` weighs the KL divergence from the start. Probes that no consensus judges score `no_consensus_reward`; 0 is the
    paper's. `lora_rank` 0 trains all weights. Every `save_every` steps it can go on from there, and an auditor is kept.
    """

    steps: int
    group_size: int
    groups: int
    learning_rate: float
    beta: float
    no_consensus_reward: float
    lora_rank: int
    cascade: bool
    save_every: int


def grpo(start: Path, panel: Panel, pictures: Pictures, search: Search, schedule: Schedule, seed: int,
         work: Path) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Train the auditor at `start`; the folder of the trained one, its history (`auditor.HISTORY`) and all that it asked.

    All is kept below `work`: a call that finds some of it there goes on from it, and ends in the same weights. Auditors of
    every `save_every` steps are work/step_000100 and so on. Raises Alarm where training goes astray (see `alarms`).
    """
    out = work / f"step_{schedule.steps:06d}"
    training = work / "training"
    if not out.exists():
        checkpoint = last_checkpoint(training)
        set_seed(seed)
        auditor = load_for_training(start, checkpoint, schedule.lora_rank)
        rewarder = Rewarder(auditor, panel, pictures, search, schedule, seed, work / "asked")
        rewarder.forget(after=int(checkpoint.name.split("-")[1]) if checkpoint else 0)
        trainer = GRPOTrainer(
            auditor.model, rewarder.score, _arguments(training, schedule, search, seed), processing_class=auditor.processor,
            train_dataset=_prompts(pictures, search, schedule, seed), peft_config=lora(auditor, schedule.lora_rank),
            callbacks=[Seal(), _Keep(auditor, work, rewarder)])
        rewarder.trainer = trainer
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return out, _history(work, schedule), _tables(work)
