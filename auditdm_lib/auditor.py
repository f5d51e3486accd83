"""The auditor: a vision-language model that writes questions, trained on Equation 1 until the target fails on them.

Two phases. *Self-imitation*: ask one question of each of many pictures, keep those on which the references agree
against the target, fine-tune on them with rare kinds drawn as often as frequent ones, repeat. *GRPO*: policy gradients
on the same score (Equations 1 and 2), anchored to the imitation's result. GRPO alone, the paper's method, reaches its
success on few kinds of failure; imitation first keeps them all (`imitation_rounds=0` gives the paper's method).
"""

import copy
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm
from transformers import Trainer, TrainingArguments, set_seed
from trl import GRPOConfig, GRPOTrainer

from auditdm_lib.consensus import normalise
from auditdm_lib.models import VLM, encode, load_vlm, prompt
from auditdm_lib.pictures import Pictures
from auditdm_lib.probes import Panel, judge, malformed
from auditdm_lib.rectify import collate

HISTORY = ["phase", "step", "reward", "reward_std", "frac_reward_zero_std", "entropy", "kl", "invalid", "no_consensus",
           "distinct", "target_calls"]


@torch.no_grad()
def ask(auditor: VLM, images: list[Image.Image], instruction: str, temperature: float, seed: int, max_new_tokens: int,
        batch_size: int = 128, desc: str | None = "questions") -> pd.DataFrame:
    """One sampled question for each image: text, ended (whether it came to its end token by itself)."""
    torch.manual_seed(seed)
    tokenizer, text = auditor.processor.tokenizer, prompt(auditor, instruction)
    config = copy.deepcopy(auditor.model.generation_config)
    config.update(do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens)
    ends = set(np.atleast_1d(config.eos_token_id).tolist())
    rows = []
    for i in tqdm(range(0, len(images), batch_size), desc=desc, disable=desc is None):
        batch = images[i:i + batch_size]
        inputs = encode(auditor, batch, [text] * len(batch), "left")
        inputs.pop("labels", None)
        tokens = auditor.model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1]:]
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        rows += [dict(text=t.strip(), ended=bool(ends.intersection(ids))) for t, ids in zip(texts, tokens.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["text", "ended"])


def reward(invalid: str | None, agreed: bool, differs: bool, no_consensus_reward: float) -> float:
    """Equation 1, with a choice for probes that no consensus judges: 0 is the paper's, below 0 discourages nonsense."""
    return 1.0 if differs else 0.0 if invalid is None and agreed else no_consensus_reward


def kind_of(question: str, agreed: str) -> tuple[str, str]:
    """A stand-in for the failure type, from text alone: the question's first two words and the consensus answer."""
    return " ".join(question.lower().split()[:2]), normalise(agreed)


def self_imitation(auditor: VLM, panel: Panel, pictures: Pictures, instruction: str, rounds: int, steps: int,
                   learning_rate: float, temperature: float, max_new_tokens: int,
                   seed: int) -> tuple[VLM, pd.DataFrame, pd.DataFrame]:
    """Fine-tune the auditor on its own disagreements, `rounds` times over equal parts of `pictures`.

    Each kept question is drawn with weight (size of its kind)^-1/2. Returns the auditor, its history and all that it
    asked; with nothing found so far a round trains nothing, and the history shows it (reward 0).
    """
    found, history, completions, calls = [], [], [], 0
    for part, rows in enumerate(np.array_split(np.arange(len(pictures)), rounds) if rounds else []):
        images = [pictures.images[i] for i in rows]
        asked = ask(auditor, images, instruction, temperature, seed + part, max_new_tokens, desc=f"round {part + 1}: ask")
        invalid = [malformed(t, e) for t, e in asked.itertuples(index=False)]
        judged = judge(panel, images, asked["text"].tolist(), invalid, cascade=True, desc=f"round {part + 1}")
        calls += int(judged["target_answer"].notna().sum())
        completions.append(completion_table(pictures, rows, asked["text"], invalid, judged).assign(step=part + 1))
        found += [dict(image=images[k], question=instruction, answer=asked["text"][k],
                       kind=kind_of(asked["text"][k], judged["consensus"][k])) for k in np.flatnonzero(judged["disagrees"])]
        history.append(dict(phase="imitation", step=part + 1, reward=judged["disagrees"].mean(), target_calls=calls,
                            invalid=sum(r is not None for r in invalid) / len(rows),
                            distinct=asked["text"].nunique() / len(rows)))
        if found:
            imitate(auditor, found, steps, learning_rate, seed + part)
    return auditor, pd.DataFrame(history).reindex(columns=HISTORY), _stack(completions)


def completion_table(pictures: Pictures, rows, texts, invalid: list[str | None], judged: pd.DataFrame) -> pd.DataFrame:
    """What an auditor asked and what came of it, to be read by people: one row a question."""
    asked = pd.DataFrame(dict(picture=[pictures.names[i] for i in rows], question=list(texts),
                              invalid_reason=pd.Series(invalid, dtype=object)))
    return asked.join(judged[["target_answer", "consensus", "disagrees"]])


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def imitate(auditor: VLM, found: list[dict], steps: int, learning_rate: float, seed: int, batch: int = 64) -> None:
    """Maximum likelihood on the questions found (all weights of the model), rare kinds as often as the square root allows."""
    sizes = Counter(row["kind"] for row in found)
    weights = np.array([sizes[row["kind"]] ** -0.5 for row in found])
    set_seed(seed)
    order = np.random.default_rng(seed).choice(len(found), steps * batch, p=weights / weights.sum())
    auditor.model.train()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, max_steps=steps, per_device_train_batch_size=batch, learning_rate=learning_rate,
            lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20), weight_decay=0.05, adam_beta2=0.98, seed=seed,
            logging_steps=steps, save_strategy="no", report_to="none", remove_unused_columns=False, label_names=["labels"],
            train_sampling_strategy="sequential", dataloader_pin_memory=False, use_cpu=not torch.cuda.is_available())
        Trainer(auditor.model, arguments, data_collator=lambda rows: collate(auditor, rows),
                train_dataset=[found[i] for i in order]).train()
    auditor.model.eval()


def grpo(start: Path, panel: Panel, pictures: Pictures, instruction: str, steps: int, group_size: int, groups: int,
         learning_rate: float, beta: float, temperature: float, max_new_tokens: int, no_consensus_reward: float,
         seed: int) -> tuple[VLM, pd.DataFrame, pd.DataFrame]:
    """GRPO with TRL from the checkpoint at `start`: `groups` pictures a step, `group_size` questions each.

    The learning rate warms up over a tenth of the steps and falls by a cosine to a third, as in the paper (3e-6 to 1e-6).
    `beta` is the weight of the KL divergence from `start`. Returns the auditor, its history and all that it asked.
    """
    set_seed(seed)
    auditor = load_vlm(start)
    calls, tables = 0, []

    def disagreement(completions, completion_ids, picture, log_metric, log_extra, **_) -> list[float]:
        nonlocal calls
        texts = [c[0]["content"].strip() for c in completions]
        ends = np.atleast_1d(auditor.model.generation_config.eos_token_id)
        invalid = [malformed(t, bool(np.isin(ids, ends).any())) for t, ids in zip(texts, completion_ids, strict=True)]
        judged = judge(panel, [pictures.images[i] for i in picture], texts, invalid)
        calls += int(judged["target_answer"].notna().sum())
        tables.append(completion_table(pictures, picture, texts, invalid, judged).assign(step=len(tables) + 1))
        agreed = judged["consensus"].notna()
        log_metric("invalid", sum(r is not None for r in invalid) / len(texts))
        log_metric("no_consensus", float((~agreed).mean()))
        log_metric("distinct", len(set(texts)) / len(texts))
        log_metric("target_calls", calls)
        return [reward(r, a, d, no_consensus_reward)
                for r, a, d in zip(invalid, agreed, judged["disagrees"], strict=True)]

    data = Dataset.from_dict(dict(
        prompt=[[{"role": "user", "content": instruction}]] * len(pictures), image=pictures.images,
        picture=list(range(len(pictures)))))
    with tempfile.TemporaryDirectory() as scratch:
        gpu = torch.cuda.is_available()
        trainer = GRPOTrainer(auditor.model, disagreement, GRPOConfig(
            output_dir=scratch, max_steps=steps, per_device_train_batch_size=group_size * groups, num_generations=group_size,
            max_completion_length=max_new_tokens, learning_rate=learning_rate, beta=beta, temperature=temperature,
            lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 1 / 3}, warmup_steps=max(1, steps // 10),
            seed=seed, bf16=gpu, use_cpu=not gpu, gradient_checkpointing=False, report_to="none", logging_steps=1,
            save_strategy="no", dataloader_pin_memory=False), train_dataset=data, processing_class=auditor.processor)
        trainer.train()
    history = pd.DataFrame([row for row in trainer.state.log_history if "reward" in row]).assign(phase="grpo")
    auditor.model.eval()
    return auditor, history.reindex(columns=HISTORY), _stack(tables)


def save_auditor(auditor: VLM, folder: Path) -> Path:
    """Write the auditor as a checkpoint folder that `load_vlm` loads."""
    auditor.model.save_pretrained(folder)
    auditor.processor.save_pretrained(folder)
    return folder
