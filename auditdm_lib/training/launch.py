"""One of several processes of a fine-tuning, which `accelerate launch` starts: `-m auditdm_lib.training.launch FOLDER`.

`rectify.finetune` leaves the job in FOLDER and starts the processes. Each runs `rectify.train` on its part of every batch; the
first one alone writes checkpoints.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import load_from_disk

from auditdm_lib.models import placement
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import rectify
from auditdm_lib.training.alarms import Alarm


def main(folder: Path) -> None:
    """Run the job that lies in a folder; what stops it is written to `rectify.STOPPED` there, as one sentence."""
    job = json.loads((folder / rectify.JOB).read_text(encoding="utf-8"))
    PartialState(cpu=not torch.cuda.is_available())  # before a model is loaded: it gives each process its GPU
    torch.set_num_threads(job["threads"])
    placement.place(**job["placement"])
    try:
        rectify.train(examples=load_from_disk(folder / rectify.EXAMPLES), folder=folder, **job["how"])
    except (Alarm, Stop) as problem:
        (folder / rectify.STOPPED).write_text(f"{type(problem).__name__}: {problem}", encoding="utf-8")
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
