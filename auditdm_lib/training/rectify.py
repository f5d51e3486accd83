"""Rectification: fine-tune the target on what the audit found, with the consensus as the teacher.

No label is made by hand (the paper's "unlabelled data" case): the answer to learn is the consensus of the references. In
addition to the audited set there is a control set of the same size that was not selected by an audit, a comparison that the
paper does not make.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, Features, Image, Value
from peft import get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from auditdm_lib.boxes import located, overlap
from auditdm_lib.models.asking import save_asking
from auditdm_lib.models.vlm import load_vlm, put
from auditdm_lib.training.examples import collate, lora

EXAMPLE = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
ORIGINAL = "original"  # the version of a probe that asks about the picture before it was drawn anew (`pairs.VERSIONS`)
UNMOVED = 0.5  # least intersection over union of the box before an edit and after it where nothing moved (our choice)


def moved(probes: pd.DataFrame, versions: pd.DataFrame | None) -> pd.Series:
    """Which probes ask where something is in a drawn picture that may have moved there (bool, indexed as `probes`).

    These are the probes on drawn pictures whose consensus is a box, but for edits after which it is nearly the box of the
    consensus about the original picture (UNMOVED), taken from `versions`, the table of `pairs.versions`. The paper filters the
    edits for grounding to the same end; how, it does not say.
    """
    drawn = probes["image"] != probes["source_image"]
    before = {} if versions is None else versions[versions["version"] == ORIGINAL].set_index("probe_id")["consensus"].to_dict()

    def may_have(kind: str, probe: str, consensus: str | None) -> bool:
        box, old = (located(text) if isinstance(text, str) else None for text in (consensus, before.get(probe)))
        return box is not None and (kind != "edit" or old is None or overlap(box, old) < UNMOVED)
    return pd.Series([d and may_have(*row) for d, row in zip(drawn, probes[["kind", "probe_id", "consensus"]].itertuples(
        index=False), strict=True)], probes.index, dtype=bool)


def training_sets(probes: pd.DataFrame, failure_share: float, control_auditors: list[str], seed: int,
                  failure_auditors: tuple[str, ...] | list[str] = (), most: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The audited and the control examples, equally many: image (path), question, answer, failure (bool).

    The answer is the consensus. The audited set holds disagreements (`failure_share` of the rows) of `failure_auditors`, or of
    all auditors if none is named, and, as rehearsal, agreements of all, so that the target does not forget what it had right. The
    control set holds questions of `control_auditors`, whatever the target answered. Each pair of image and question enters a set
    at most once, and a probe without consensus, or with a picture that failed its check, never. The smallest of the three pools
    limits the size, and so does `most`, if it is not 0. If a pool is empty, which is printed, so are both sets.
    """
    labelled = probes[probes["consensus"].notna() & probes["picture_reason"].isna()]
    distinct, control = (rows.drop_duplicates(["image", "question"]) for rows in (
        labelled, labelled[labelled["auditor"].isin(control_auditors)]))
    failed = distinct["disagrees"].astype(bool)
    chosen = distinct["auditor"].isin(failure_auditors) | (len(failure_auditors) == 0)
    pools = {"failures": distinct[failed & chosen], "agreements": distinct[~failed], "un-audited questions": control}
    for name, pool in pools.items():
        if pool.empty:
            print(f"The probes hold no {name} with a consensus, so nothing is rectified; more probes in stage 02 may find some.")
    size = int(min(len(pools["failures"]) / failure_share, len(pools["agreements"]) / (1 - failure_share),
                   len(control), most or np.inf))
    found = round(size * failure_share)
    audited = pd.concat([pools["failures"].sample(found, random_state=seed),
                         pools["agreements"].sample(size - found, random_state=seed)])
    return tuple(rows.sample(size, random_state=seed).reset_index(drop=True).assign(
        answer=lambda x: x["consensus"], failure=lambda x: x["disagrees"].astype(bool))[
        ["image", "question", "answer", "failure"]] for rows in (audited, control))


def to_dataset(examples: pd.DataFrame, images: Path) -> Dataset:
    """Examples as a `datasets.Dataset` (image, question, answer) that embeds the bytes of the picture files."""
    pictures = [{"bytes": (images / name).read_bytes(), "path": None} for name in examples["image"]]
    return Dataset.from_dict({"image": pictures, "question": examples["question"].tolist(),
                              "answer": examples["answer"].tolist()}, features=EXAMPLE)


def finetune(path: str | Path, examples: Dataset, out: Path, steps: int, batch_size: int,
             learning_rate: float, rank: int, seed: int, asked: dict | None = None) -> pd.DataFrame:
    """Fine-tune the model at `path` on `examples` by LoRA, merge the adapters, and save model and processor to `out`.

    The model is trained on questions as it is asked them; `asked` replaces fields of its `Asking`, which is saved with it.
    Returns the history: step, loss (mean over the steps since the previous row). The same seed gives the same bytes. Without
    examples nothing is saved.
    """
    if not len(examples):
        return pd.DataFrame(columns=["step", "loss"], dtype=float)
    set_seed(seed)  # before LoRA's matrices are initialised
    vlm = load_vlm(path, asked)
    model = get_peft_model(vlm.model, lora(vlm, rank))
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer requires a folder; nothing in it is kept
        arguments = TrainingArguments(
            output_dir=scratch, max_steps=steps, per_device_train_batch_size=batch_size, seed=seed,
            learning_rate=learning_rate, lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20),
            weight_decay=0.0, max_grad_norm=1.0, logging_steps=max(1, steps // 20), save_strategy="no",
            report_to="none", label_names=["labels"], remove_unused_columns=False, dataloader_num_workers=0,
            dataloader_pin_memory=False, use_cpu=not torch.cuda.is_available())
        trainer = Trainer(model, arguments, functools.partial(collate, vlm, asked=put), examples)
        trainer.train()
    model.merge_and_unload().save_pretrained(out)
    vlm.processor.save_pretrained(out)
    save_asking(vlm.asking, out)
    return pd.DataFrame([{"step": log["step"], "loss": log["loss"]} for log in trainer.state.log_history
                         if "loss" in log])
