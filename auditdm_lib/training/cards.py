"""The cards of what rectification writes, in Markdown: of a fine-tuned model, and of the examples that it learned from."""

import json
import re
from pathlib import Path

from auditdm_lib import __version__
from auditdm_lib.shown import inert

MODEL = """---
base_model: {quoted}
tags: [auditdm, visual-question-answering]
---

# {base}, fine-tuned

{base}, fine-tuned on {n:,} examples{data} with the AuditDM kit {version} (the method is that of arXiv 2512.16921). What it is
worth is measured by stage 05 of the run, on pictures that no stage before saw, and not by this training.

| training | |
|---|---|
{rows}

The answers that it learned are a consensus of other models unless the data card says otherwise, and it learned their errors, too.
Its licence is that of the base model, as far as that allows to pass it on.
"""
DATA = """# {title}

{n:,} examples to fine-tune a vision-language model on: `image`, `question`, `answer`. Made with the AuditDM kit {version}.

{how}

| kind | examples |
|---|---|
{rows}

An answer that is a consensus of references is a pseudo-label: the references may err alike. The kit does not know the licence of
the pictures; find it out before you pass this data set on. It is no sample of questions that people ask, so a score on it says
nothing about other questions.
"""


def model_name(name: str) -> str:
    """A model or data set as a card may name it: a hub id or a path within the repository as it is, without folders of this
    machine and without the address of a server."""
    if name.startswith("openai:"):
        return name.removeprefix("openai:").rpartition("@")[0] or "a model behind an endpoint"
    if name.startswith("datasets:"):
        source, *rest = name.removeprefix("datasets:").split(":")
        return ":".join(["datasets", model_name(source), *rest])
    path = Path(name)
    return path.name if path.is_absolute() or name.startswith(("~", "..")) or re.match(r"[A-Za-z]:[\\/]|\\\\", name) else name


def model_card(base: str | Path, examples: int, data: str, *, steps: int, batch_size: int, learning_rate: float, rank: int,
               seed: int, patience: int, saved: int) -> str:
    """The card of a model that was fine-tuned from `base`; `data` says what its examples are, `saved` which step was saved."""
    weights = f"LoRA of rank {rank} on the language model, merged" if rank else "all weights of the language model"
    stopped = f"step {saved:,}" + (f" of {steps:,}, the lowest loss on a tenth of the pictures" if patience else "")
    rows = {"trained": weights, "saved": stopped, "examples a step": f"{batch_size:,}",
            "peak learning rate": f"{learning_rate:g}", "seed": seed}
    name = model_name(str(base))
    return MODEL.format(base=inert(name), quoted=json.dumps(name), n=examples, data=f", {inert(data)}," if data else "",
                        version=__version__, rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()))


def data_card(title: str, how: str, kinds: dict[str, int]) -> str:
    """The card of a set of examples: `how` says where they come from, `kinds` how many there are of each kind."""
    return DATA.format(title=inert(title), n=sum(kinds.values()), version=__version__, how=how,
                       rows="\n".join(f"| {inert(kind)} | {n:,} |" for kind, n in kinds.items()))
