"""Rectification: fine-tune the target on examples (`rectify_sets`), by LoRA or all weights of its language model.

A tenth of the pictures is kept from the training where it is to stop early: the model that is saved is then the one with the
lowest loss on these. A fine-tuning that was killed is resumed from its last checkpoint and ends in the same bytes.
"""

import contextlib
import functools
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, Features, Image, Value, load_from_disk
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from auditdm_lib.models.asking import save_asking
from auditdm_lib.models.vlm import VLM, load_vlm, put
from auditdm_lib.run import commit, manifest
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import launched
from auditdm_lib.training.alarms import Alarm, Finite
from auditdm_lib.training.cards import model_card
from auditdm_lib.training.examples import collate, lora
from auditdm_lib.training.trainings import Seal, claim, fitting, last_checkpoint, memory, on_one_gpu

EXAMPLE = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
HISTORY = ["step", "loss", "validation_loss"]
EXAMPLES = "examples"  # for a fine-tuning in several processes
LOGS, PER_CHECKPOINT = 20, 2  # rows of the history; rows after which a checkpoint is written and validated
VALIDATED, MOST_VALIDATED = 0.1, 500  # share of the pictures that is kept from the training to stop early, and the most of them


def to_dataset(examples: pd.DataFrame, images: Path) -> Dataset:
    """Examples as a `datasets.Dataset` (image, question, answer) that embeds the bytes of the picture files.

    Raises Stop if an answer is not a text that a model could learn to give.
    """
    wrong = [answer for answer in examples["answer"] if not isinstance(answer, str) or not answer.strip()]
    if wrong:
        raise Stop(f"{len(wrong)} of {len(examples)} examples have an answer that is no text, the first {wrong[0]!r}: give each "
                   "example its answer as a text, or leave it out.")
    pictures = [{"bytes": (images / name).read_bytes(), "path": None} for name in examples["image"]]
    return Dataset.from_dict({"image": pictures, "question": examples["question"].tolist(),
                              "answer": examples["answer"].tolist()}, features=EXAMPLE)


def finetune(path: str | Path, examples: Dataset, out: Path, steps: int, batch_size: int, learning_rate: float, rank: int,
             seed: int, asked: dict | None = None, *, patience: int = 0, accumulation: int = 1, checkpointing: bool = False,
             launch: str = "", work: Path | None = None, data: str = "") -> pd.DataFrame:
    """Fine-tune the model at `path` on `examples` (`to_dataset`), and save model, processor and a model card to `out`.

    `rank` is that of LoRA on the language model, whose adapters are merged; 0 trains all weights of the language model. The
    model is trained on questions as it is asked them; `asked` replaces fields of its `Asking`, which is saved with it. With a
    `patience` above 0 a tenth of the pictures is kept to validate, training stops once so many validations have not lowered the
    loss, and the model with the lowest loss is saved. A batch is taken in `accumulation` equal parts, and with `checkpointing`
    activations are computed again in the backward pass. `launch` are arguments of `accelerate launch`, with which it runs in
    several processes, as if in one but for rounding and for an epoch's last batch, which these fill up. `work` is a folder for
    checkpoints, from which a killed fine-tuning goes on (the caller deletes it). `data` says in the model card what the examples
    are.

    Returns the history: step, loss (mean over the steps since the previous row) and validation_loss (null where there was no
    validation). The same seed gives the same bytes. `out` appears only once it is complete; without examples nothing is saved.
    Raises Stop where the loss is no longer finite, and trainings.Changed if `work` holds another fine-tuning.
    """
    if not len(examples):
        return pd.DataFrame(columns=HISTORY, dtype=float)
    with contextlib.nullcontext(work) if work else tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if work:
            claim(folder, __name__, [path], dict(examples=_contents(examples), steps=steps, batch_size=batch_size, seed=seed,
                                                 learning_rate=learning_rate, rank=rank, asked=asked, patience=patience,
                                                 launch=launch))
        if not _finished(_logged(last_checkpoint(folder)), steps, patience):
            how = dict(path=str(path), steps=steps, batch_size=batch_size, learning_rate=learning_rate, rank=rank, seed=seed,
                       asked=asked, patience=patience, checkpointing=checkpointing)
            try:
                fitting(folder, batch_size, accumulation, functools.partial(_launched, launch, examples, folder, how) if launch
                        else functools.partial(train, examples, folder, **how))
            except Alarm as problem:
                commit.discard(folder)  # its checkpoints are of no use: with another learning rate it begins anew
                folder.mkdir()
                raise Stop(f"The fine-tuning of {out.name} was stopped, and no model was saved: {problem}") from None
        logs = _logged(last_checkpoint(folder))
        best = _best_step(logs) if patience else max(log["step"] for log in logs)
        vlm = _trained(path, folder / f"checkpoint-{best}", rank, asked)
        card = model_card(path, len(examples), data, steps=steps, batch_size=batch_size, learning_rate=learning_rate, rank=rank,
                          seed=seed, patience=patience, saved=best)
        _save(vlm, out, card)
    return _history(logs)


def _contents(examples: Dataset) -> str:
    """A hash of all examples."""
    plain = examples.cast_column("image", Image(decode=False))
    return manifest.digest([[manifest.digest(row["image"]["bytes"]), row["question"], row["answer"]] for row in plain])


def split_by_picture(examples: Dataset, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to validate with; no picture is on both sides. Raises Stop for a single picture."""
    plain = examples.select_columns("image").cast_column("image", Image(decode=False))
    pictures = [manifest.digest(row["image"]["bytes"]) for row in plain]
    different = sorted(set(pictures))
    if len(different) < 2:
        raise Stop("Examples of a single picture leave none to validate with: set rectify_patience to 0, or gather more probes.")
    n = min(MOST_VALIDATED, max(1, round(VALIDATED * len(different))))
    kept = set(np.random.default_rng([seed, len(different)]).choice(different, n, replace=False).tolist())
    rows = range(len(pictures))
    return [i for i in rows if pictures[i] not in kept], [i for i in rows if pictures[i] in kept]


def _launched(launch: str, examples: Dataset, folder: Path, how: dict, parts: int) -> None:
    """`train` in several processes."""
    shutil.rmtree(folder / EXAMPLES, ignore_errors=True)
    examples.save_to_disk(folder / EXAMPLES)
    launched.launch(launch, __name__, folder, how["batch_size"], parts, how | {"parts": parts})


def train(examples: Dataset, folder: Path, parts: int, *, path: str | Path, steps: int, batch_size: int, learning_rate: float,
          rank: int, seed: int, asked: dict | None, patience: int, checkpointing: bool) -> None:
    """Train from the last checkpoint in `folder`, or from the start, leaving sealed checkpoints there."""
    checkpoint, log = last_checkpoint(folder), max(1, steps // LOGS)
    set_seed(seed)  # before LoRA's matrices are initialised
    vlm = (load_vlm(path, asked, trained=True, all_weights=not rank) if rank or checkpoint is None
           else _trained(path, checkpoint, rank, asked))
    model = get_peft_model(vlm.model, lora(vlm, rank)) if rank else _language_only(vlm)
    rows, kept = split_by_picture(examples, seed) if patience else (range(len(examples)), [])
    arguments = on_one_gpu(TrainingArguments(
        output_dir=folder, max_steps=steps, **(fits := memory(batch_size, parts)),
        per_device_eval_batch_size=fits["per_device_train_batch_size"],
        gradient_checkpointing=checkpointing or None,  # False would warn of the parameter's coming name
        seed=seed, learning_rate=learning_rate, lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20), weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=log, logging_nan_inf_filter=False, save_strategy="steps",
        save_steps=PER_CHECKPOINT * log, save_total_limit=2, eval_strategy="steps" if patience else "no",
        eval_steps=PER_CHECKPOINT * log, metric_for_best_model="eval_loss" if patience else None,
        greater_is_better=False if patience else None, prediction_loss_only=True, report_to="none", label_names=["labels"],
        remove_unused_columns=False, dataloader_num_workers=0, dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available()))
    trainer = Trainer(model, arguments, functools.partial(collate, vlm, asked=put), examples.select(rows),
                      examples.select(kept) if patience else None, processing_class=vlm.processor,
                      callbacks=[_Watch(steps, patience), Finite(), Seal()])
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _language_only(vlm: VLM) -> torch.nn.Module:
    """The model, of whose weights only those of the language model are trained: its layers, its embeddings and its head."""
    parts = [vlm.model.get_decoder(), vlm.model.get_input_embeddings(), vlm.model.get_output_embeddings()]
    trained = {id(weight) for part in parts if part is not None for weight in part.parameters()}
    for weight in vlm.model.parameters():
        weight.requires_grad_(id(weight) in trained)
    return vlm.model


class _Watch(TrainerCallback):
    """Logs the last step, whatever its number, so that no loss goes unseen, and stops early (`patience` above 0)."""

    def __init__(self, steps: int, patience: int):
        self.steps, self.patience = steps, patience

    def on_step_end(self, args, state, control, **_):
        control.should_log |= state.global_step >= state.max_steps

    def on_evaluate(self, args, state, control, **_):
        control.should_training_stop |= _finished(state.log_history, self.steps, self.patience)


def _finished(logs: list[dict], steps: int, patience: int) -> bool:
    """Whether a training with these logs is at its end: by its steps, or because its validation has not improved."""
    losses = [log["eval_loss"] for log in logs if "eval_loss" in log]
    stale = patience > 0 and len(losses) > patience and len(losses) - 1 - int(np.argmin(losses)) >= patience
    return stale or any(log["step"] >= steps for log in logs)


def _best_step(logs: list[dict]) -> int:
    return min((log for log in logs if "eval_loss" in log), key=lambda log: log["eval_loss"])["step"]


def _logged(checkpoint: Path | None) -> list[dict]:
    """What the Trainer had logged up to a checkpoint."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"] if checkpoint else []


def _history(logs: list[dict]) -> pd.DataFrame:
    validated = {log["step"]: log["eval_loss"] for log in logs if "eval_loss" in log}
    return pd.DataFrame([(log["step"], log["loss"], validated.get(log["step"])) for log in logs if "loss" in log],
                        columns=HISTORY).astype({"validation_loss": float})


def _trained(path: str | Path, checkpoint: Path, rank: int, asked: dict | None) -> VLM:
    """The model at `path` with the weights of a checkpoint, adapters merged; Trainer's own resuming restores no full weights."""
    vlm = load_vlm(path, asked, trained=True, all_weights=not rank)
    if rank:
        return replace(vlm, model=PeftModel.from_pretrained(vlm.model, checkpoint).merge_and_unload())
    return replace(vlm, model=load_vlm(checkpoint, trained=True, all_weights=True).model)


def _save(vlm: VLM, out: Path, card: str) -> None:
    """Write a model folder that `load_vlm` loads. It is renamed to `out` only once it is complete."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    vlm.model.save_pretrained(partial)
    vlm.processor.save_pretrained(partial)
    save_asking(vlm.asking, partial)
    (partial / "README.md").write_text(card, encoding="utf-8", newline="\n")
    commit.discard(out)
    partial.rename(out)


def main(folder: Path) -> None:
    """One of several processes of a fine-tuning (`launched`): `-m auditdm_lib.training.rectify FOLDER`."""
    launched.work(folder, lambda **how: train(load_from_disk(folder / EXAMPLES), folder, **how), "rectify_accumulation")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
