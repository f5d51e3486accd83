"""Training in several processes by `accelerate launch`.

The notebook's process leaves a job in the training's folder (JOB). Each process that it starts runs the job on its part of every
batch; the first one alone writes checkpoints, models and tables. What stops them is written to STOPPED there, as one sentence.
Where members are asked in a training each process loads them, beside the notebook's own on a single GPU: with `member_offload`
"model" these wait in the main memory.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from accelerate import PartialState

from auditdm_lib import paths
from auditdm_lib.models import placement
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training.alarms import Alarm

JOB, STOPPED = "job.json", "stopped.txt"
STARTER = "AUDITDM_STARTER"  # the variable with the number of the notebook's process
# For which processes wait for one that asks its members or writes a checkpoint, where NCCL would end all after ten minutes (our
# choice). It keeps no one waiting for a process that has ended: accelerate then ends the others at once.
PATIENCE = timedelta(hours=3)
STOPS = {kind.__name__: kind for kind in (Stop, Alarm, torch.OutOfMemoryError)}  # what stops them, by the name in STOPPED
# Of accelerate, which shards on GPUs only: on a processor 1.15 raises for version 1 of FSDP, and for version 2 it trains as
# without it and says nothing. Refused, as no test here could show that what is sharded there is also saved and resumed.
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def launch(arguments: str, module: str, folder: Path, batch: int, parts: int, job: dict) -> None:
    """Run `module` (its dotted name) on a job in the processes of `accelerate launch` with these arguments.

    A batch of `batch` examples is taken in `parts` parts, of which each process has its share. Raises what stopped one of them,
    of STOPS, and Stop if they could not be started or broke off.
    """
    (folder / STOPPED).unlink(missing_ok=True)
    (folder / JOB).write_text(json.dumps(dict(job=job, batch=batch, parts=parts, placement=placement.current(),
                                               threads=torch.get_num_threads())), encoding="utf-8")
    # a free port, unless the arguments name one: another training on this machine may have accelerate's usual one
    started = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", *shlex.split(arguments)]
    found = os.pathsep.join([str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([*started, "-m", module, folder], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": found, STARTER: str(os.getpid())})
    if (folder / STOPPED).is_file():
        kind, _, problem = (folder / STOPPED).read_text(encoding="utf-8").partition(": ")
        raise STOPS[kind](problem)
    if done.returncode:
        raise Stop(f"The processes of the training broke off (accelerate launch {arguments}): correct the parameter launch, or "
                   f"look at what they said at their end:\n{done.stderr[-2000:]}")


def work(folder: Path, run: Callable[..., None], accumulation: str) -> None:
    """What each process does: `run(**job)` with the job in the folder. `accumulation` is the parameter that saves memory."""
    made = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if STARTER in os.environ:
        threading.Thread(target=_end_with, args=([int(os.environ[STARTER]), os.getppid()],), daemon=True).start()
    try:
        if sharding := [name for name in SHARDING if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]:
            raise Stop(f"launch: {sharding[0]} divides the model's weights among the processes, whose checkpoints are no models: "
                       "leave it out of launch and of accelerate's configuration file; LoRA and accumulation save memory.")
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)  # before a model is loaded: gives each process its GPU
        torch.set_num_threads(made["threads"])
        placement.place(**made["placement"])
        run(**made["job"])
    except torch.OutOfMemoryError:
        batch, parts = made["batch"], made["parts"]
        halved = batch % (2 * parts * PartialState().num_processes) == 0  # then what started these tries it with half as many
        _stop(folder, (torch.OutOfMemoryError if halved else Stop)(
            f"The GPU's memory does not suffice for a process's part of {batch} examples in {parts} parts: raise "
            f"{accumulation}, or set gradient_checkpointing to true."))
    except (Alarm, Stop) as problem:
        _stop(folder, problem)


def _end_with(starters: list[int]) -> None:
    """End this process once one of those that started it has ended, however: the next run goes on in the same folder."""
    try:
        started = [psutil.Process(number) for number in starters]
        while all(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started):
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)


def _stop(folder: Path, problem: Exception) -> None:
    kind = next(kind for kind in STOPS.values() if isinstance(problem, kind))
    partial = folder / f"{STOPPED}.{os.getpid()}"  # several may stop at once, and the first to end has the others killed
    partial.write_text(f"{kind.__name__}: {problem}", encoding="utf-8")
    partial.replace(folder / STOPPED)
    sys.exit(1)
