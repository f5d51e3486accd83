"""A fine-tuning that kills itself while it writes a checkpoint: `python tunings.py MODEL PICTURES FOLDER RANK SAVES`."""

import os
import signal
import sys
from pathlib import Path

import pandas as pd

from auditdm_lib.training import rectify
from auditdm_lib.training.trainings import Seal

model, pictures, folder, rank, saves = sys.argv[1:]
real, calls = Seal.on_save, []


def killed(*args, **kwargs):
    calls.append(0)
    if len(calls) == int(saves):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)


Seal.on_save = killed
rows = pd.read_parquet(Path(folder) / "rows.parquet")
rectify.finetune(model, rectify.to_dataset(rows, Path(pictures)), Path(folder) / "killed", 8, 12, 1e-3, int(rank), 0, patience=3,
                 work=Path(folder) / "work")
