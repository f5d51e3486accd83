"""Small trainings of the auditor, and a process that kills itself in the midst of one: `python trainings.py NAME WORK MOMENT`.

The panel is a stand-in: the target fails on questions about colour, and all agree on everything else.
"""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from auditdm_lib.audit import auditor
from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models.asking import Asking
from auditdm_lib.testbed.checkpoint import CHECKPOINTS, PROMPTS
from auditdm_lib.training import grpo, imitation
from auditdm_lib.training.trainings import Seal

START = CHECKPOINTS / "auditor"
TARGET, *REFERENCES = (SimpleNamespace(name=name, asking=Asking("{question}", 8), sampling=None)
                       for name in ("target", "one", "two"))
PANEL = Panel(TARGET, REFERENCES)
KINDS = ("question", "regeneration", "edit")


def search_of(regeneration=0.0, edit=0.0, temperature=1.0):
    shares = dict(question=1 - regeneration - edit, regeneration=regeneration, edit=edit)
    return Search(dict(zip(KINDS, PROMPTS, strict=True)), dict(question=24, regeneration=128, edit=32), shares, temperature)


def judge(panel, images, questions, invalid, **_):
    hit = [r is None and "colour" in q for q, r in zip(questions, invalid, strict=True)]
    return pd.DataFrame(dict(
        target_answer=pd.Series(["white" if r is None else None for r in invalid], dtype=object),
        reference_answers=[["grey", "grey"] if h else ["white", "white"] for h in hit],
        consensus=pd.Series(["grey" if h else "white" if r is None else None for h, r in zip(hit, invalid, strict=True)],
                            dtype=object), disagrees=hit,
        in_full=[r is None for r in invalid], errors=0, target_missing=None))


def imitate(work, start=START, lora_rank=0, pictures=64, steps=6, **how):
    return imitation.self_imitation(start, PANEL, load_pictures("testbed", pictures, 0), search_of(edit=0.2),
                                    imitation.ImitationSettings(2, steps, 1e-3, lora_rank, False, 2, **how), 0, work)


def reinforce(work, beta=0.0, lora_rank=0, steps=5, search=None, learning_rate=1e-3, groups=2, start=START, replay_weight=0.0,
              **how):
    schedule = grpo.GRPOSettings(steps, 4, groups, learning_rate, beta, -0.2, replay_weight, lora_rank, False, 2, **how)
    return grpo.grpo(start, PANEL, load_pictures("testbed", 8, 0), search or search_of(edit=0.4), schedule, found(), 0, work)


def found(text="what colour is it?", pictures=8):
    """What a self-imitation would have found: one question about each picture."""
    return [dict(image=image, question=PROMPTS[0], answer=text, kind="question", topics=(("what colour", "grey"),) * 2)
            for image in load_pictures("testbed", pictures, 0).images]


TRAININGS = {
    "imitation": imitate,
    "imitation of adapters": lambda work: imitate(work, lora_rank=4),
    "grpo": reinforce,
    "grpo with a pull": lambda work: reinforce(work, beta=0.3, replay_weight=0.3),
    "grpo of adapters": lambda work: reinforce(work, beta=0.3, lora_rank=4, replay_weight=0.3),
}



def moments(name):
    """Where a process kills itself: whose method, at which call of it, and whether that call is done and leaves half a file."""
    return {
        "step": (imitation, "collate", 4, False) if name.startswith("imitation") else (auditor, "judge", 4, False),
        "before the seal": (Seal, "on_save", 2, False),
        "half a table": (pd.DataFrame, "to_parquet", 2 if name.startswith("imitation") else 4, True),
    }


if __name__ == "__main__":
    name, work, moment = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    auditor.judge, calls = judge, []
    owner, part, at, half = moments(name)[moment]
    real = getattr(owner, part)

    def killed(*args, **kwargs):
        calls.append(0)
        if len(calls) == at:
            if half:
                real(*args, **kwargs)
                os.truncate(args[1], os.path.getsize(args[1]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, part, killed)
    TRAININGS[name](work)
