"""Self-imitation: the auditor is fine-tuned on its own hits, rare kinds of failure nearly as often as frequent ones.

In each round the auditor writes one probe for each of many pictures, the panel judges them, and the auditor learns to write the
probes on which the target disagreed with the consensus. Maximum likelihood on its own hits preserves nearly every kind of
failure found once, whereas policy gradients concentrate on a few. The paper uses an untrained auditor and its checkpoints
together; here this idea is part of the auditor's training.
"""

import functools
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from auditdm_lib.audit.auditor import (
    EXISTING_QUESTION,
    TEXT_COLUMN,
    Search,
    drawing_texts,
    judge_proposed,
    propose,
    stream,
)
from auditdm_lib.audit.counterfactuals import draw
from auditdm_lib.audit.panel import Panel, members
from auditdm_lib.audit.pictures import Pictures, identity
from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.training import launched
from auditdm_lib.training.alarms import Finite, Watch
from auditdm_lib.training.examples import collate, lora
from auditdm_lib.training.history import summary
from auditdm_lib.training.replay import draw_found, load_found, save_found
from auditdm_lib.training.topics import topics_of
from auditdm_lib.training.trainings import (
    Seal,
    askings,
    claim,
    claimed,
    described,
    fitting,
    last_checkpoint,
    load_for_training,
    load_table,
    memory,
    on_one_gpu,
    pipelines_of,
    rank,
    save_auditor,
    save_table,
    whole,
)

WINDOW = 16  # batches within which examples are sorted by length


@dataclass(frozen=True)
class ImitationSettings:
    """How self-imitation trains: `rounds` rounds over equal parts of the pictures, each with `steps` optimiser steps of `batch`
    examples, which are taken in `accumulation` equal parts.

    `lora_rank` 0 trains all weights but the vision tower. A checkpoint to resume from is written every `save_every` steps. With
    `checkpointing` activations are computed again in the backward pass, which saves memory. `launch` are arguments of
    `accelerate launch`, with which the steps (not the search between them) run in several processes, as if in one but for
    rounding (1e-4 of what is learned at most).
    """

    rounds: int
    steps: int
    learning_rate: float
    lora_rank: int
    cascade: bool
    save_every: int
    batch: int = 64
    accumulation: int = 1
    checkpointing: bool = False
    launch: str = ""


def self_imitation(start: Path, panel: Panel, pictures: Pictures, search: Search, settings: ImitationSettings, seed: int,
                   work: Path) -> tuple[Path, list[dict], pd.DataFrame, pd.DataFrame]:
    """Train the auditor at `start` on its own hits, in rounds over equal parts of `pictures`.

    Everything is stored below `work`; a call that finds an unfinished training there resumes it. Returns the folder of the
    trained auditor, its training examples (see `hits`), its history (`history.HISTORY`) and every probe that it wrote. As long
    as there is no hit, a round trains nothing, and its reward in the history is 0. Raises ValueError if there are fewer
    pictures than rounds, Changed if `work` holds another training, Alarm if the training degenerates (see `alarms`).
    """
    rounds = settings.rounds
    if len(pictures) < rounds:
        raise ValueError(f"{len(pictures)} pictures do not make {rounds} rounds: raise imitation_pictures.")
    claim(work, __name__, [start, *members(panel), *pipelines_of(search)], dict(
        rule=panel.rule, asked=askings(panel), pictures=identity(pictures), search=described(search), seed=seed,
        **claimed(settings)))
    found, tables, history, topics, calls = [], [], [], set(), [0, 0]
    for part, rows in enumerate(np.array_split(np.arange(len(pictures)), rounds) if rounds else []):
        seen, folder, part_seed = pictures.take(rows), work / f"round_{part + 1}", stream(seed, "imitation", part)
        judged = _judged(start, panel, seen, search, settings.cascade, part_seed, folder / "asked.parquet", f"round {part + 1}")
        judged = judged.assign(picture=seen.names, step=part + 1, reward=judged["disagrees"].astype(float))
        Watch(patience=1).answers(judged, group_size=1)
        history.append(dict(phase="imitation", step=part + 1) | summary(judged, topics, calls))
        tables.append(judged)
        found += hits(judged, seen, search)
        if found and not whole(folder / "auditor"):
            _imitate(start, found, folder / "auditor", settings, part_seed, folder / "training")
        start = folder / "auditor" if found else start
    return Path(start), found, pd.DataFrame(history), pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _judged(auditor: Path, panel: Panel, pictures: Pictures, search: Search, cascade: bool, seed: int, file: Path,
            desc: str) -> pd.DataFrame:
    """One judged probe per picture, read from `file` if they were judged before."""
    if (judged := load_table(file)) is not None:
        return judged
    proposed, drawn = propose(load_vlm(auditor), pictures, search.kinds(len(pictures), seed), search, seed, desc)
    judged = judge_proposed(panel, drawn, proposed, cascade=cascade, seed=seed, desc=desc)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_table(judged, file)
    return pd.read_parquet(file)  # read back, so that an uninterrupted training sees the same types as a resumed one


def hits(judged: pd.DataFrame, pictures: Pictures, search: Search) -> list[dict]:
    """Training examples from the disagreements: image, question (the prompt), answer (the auditor's text), kind of text, topics.

    A hit on a generated picture gives two examples: the caption or edit command with the original picture, and the question
    with the generated one, unless it is not the auditor's own.
    """
    captions = drawing_texts(judged, judged["disagrees"].tolist())
    drawn, _ = draw(search.drawing, pictures, judged["kind"].tolist(), captions, search.drawing_seed)
    rows = []
    for i, row in enumerate(judged.itertuples()):
        if row.disagrees:
            if row.pairing != EXISTING_QUESTION:
                rows.append(dict(image=drawn.images[i], question=search.prompts["question"], answer=row.question,
                                 kind="question", topics=topics_of(row)))
            if row.kind in TEXT_COLUMN:
                rows.append(dict(image=pictures.images[i], question=search.prompts[row.kind], answer=captions[i],
                                 kind=row.kind, topics=topics_of(row)))
    return rows


def _imitate(start: Path, found: list[dict], out: Path, settings: ImitationSettings, seed: int, work: Path) -> None:
    """`imitate` here or in several processes, from its last checkpoint in `work`, which is deleted once it is done."""
    def launch(parts: int) -> None:
        last_checkpoint(work)  # deletes incomplete ones before there are several processes
        save_found(found, work / "found")
        launched.launch(settings.launch, __name__, work, settings.batch, parts, dict(
            start=str(start), out=str(out), settings=asdict(settings), seed=seed, parts=parts))
    fitting(work, settings.batch, settings.accumulation, launch if settings.launch else functools.partial(
        imitate, start, found, out, settings, seed, work))
    shutil.rmtree(work)


def imitate(start: str | Path, found: list[dict], out: Path, settings: ImitationSettings, seed: int, work: Path,
            parts: int) -> None:
    """Train on the hits `found` by maximum likelihood, rare topics nearly as often as common ones. Saves the auditor to `out`.

    A batch is taken in `parts` equal parts. Of several processes the first one saves.
    """
    steps, lora_rank, batch = settings.steps, settings.lora_rank, settings.batch
    checkpoint = last_checkpoint(work)
    set_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = draw_found(found, steps * batch, rng)
    order = by_length(drawn, [len(row["answer"]) for row in found], batch, rng)
    auditor = load_for_training(start, checkpoint, lora_rank)
    model = get_peft_model(auditor.model, lora(auditor, lora_rank)) if lora_rank else auditor.model
    arguments = on_one_gpu(TrainingArguments(
        output_dir=work, max_steps=steps, **memory(batch, parts), gradient_checkpointing=settings.checkpointing or None,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20), weight_decay=0.05, adam_beta2=0.98, seed=seed,
        logging_steps=max(1, steps // 20), save_strategy="steps", save_steps=settings.save_every, save_total_limit=2,
        report_to="none", remove_unused_columns=False, label_names=["labels"], train_sampling_strategy="sequential",
        dataloader_pin_memory=False, use_cpu=not torch.cuda.is_available()))
    trainer = Trainer(model, arguments, data_collator=functools.partial(collate, auditor), callbacks=[Finite(), Seal()],
                      processing_class=auditor.processor,  # stored in the checkpoints, so that they load as models
                      train_dataset=[found[i] for i in order])
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not rank():
        save_auditor(model.merge_and_unload() if lora_rank else model, auditor, out)


def by_length(order: np.ndarray, lengths: list[int], batch: int, rng: np.random.Generator) -> np.ndarray:
    """Reorder `order` (whole batches of `batch` examples) so that a batch holds examples of similar length.

    This saves padding, since one long caption pads its whole batch. Examples are sorted by `lengths` within each window of
    WINDOW batches, and the batches of a window are shuffled.
    """
    batches = []
    for start in range(0, len(order), WINDOW * batch):
        part = order[start:start + WINDOW * batch]
        part = part[np.argsort(np.take(lengths, part), kind="stable")].reshape(-1, batch)
        batches.append(rng.permutation(part))
    return np.concatenate(batches).reshape(-1)


def main(folder: Path) -> None:
    """One of several processes of a round's training (`launched`): `-m auditdm_lib.training.imitation FOLDER`."""
    launched.work(folder, functools.partial(_launched, folder), "auditor_accumulation")


def _launched(work: Path, start: str, out: str, settings: dict, seed: int, parts: int) -> None:
    imitate(start, load_found(work / "found"), Path(out), ImitationSettings(**settings), seed, work, parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
