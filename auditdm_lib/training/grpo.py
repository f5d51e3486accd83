"""GRPO: policy gradients with Equation 1 as reward (`rewards`) and Equation 2 as advantage (TRL's `GRPOTrainer`).

The loss is TRL's default ("dapo"), the mean over all tokens of a step. The paper does not state which loss it uses.

Used alone, this is the paper's method, whose success concentrates on few kinds of failure. After self-imitation, GRPO raises
the success of the policy further, while the replay of earlier hits in each step keeps it from forgetting rare failures.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback, set_seed
from trl import GRPOConfig

from auditdm_lib.audit.auditor import (
    TEXT_COLUMN,
    Search,
    ask_existing,
    complete,
    empty_proposals,
    existing_questions,
    judge_proposed,
    stream,
)
from auditdm_lib.audit.bulk import packed_panel, unpacked_panel
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.panel import Panel, members
from auditdm_lib.audit.pictures import Pictures, identity, load_again
from auditdm_lib.audit.probes import malformed
from auditdm_lib.models.vlm import VLM
from auditdm_lib.run import functions
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import launched
from auditdm_lib.training.alarms import Finite, Watch
from auditdm_lib.training.examples import lora
from auditdm_lib.training.history import summary
from auditdm_lib.training.replay import ReplayingTrainer, load_found, replayed, save_found
from auditdm_lib.training.rewards import EQUATION_1, load_reward, without_errors
from auditdm_lib.training.rollouts import answering, by_server, connected
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
    save_table,
    save_whole,
    steps_of,
    together,
)


@dataclass(frozen=True)
class GRPOSettings:
    """How GRPO trains: `steps` steps of `groups` pictures with `group_size` completions each (G of Equation 2).

    The learning rate warms up over a tenth of the steps and then decays by a cosine to a third, as in the paper (3e-6 to 1e-6).
    `beta` is the weight of the KL divergence from the initial policy, `replay_weight` that of the loss on replayed hits, of which
    a step has `replayed`, and `no_consensus_reward` the reward of invalid probes and of those without a consensus. The paper
    states none of the three; plain GRPO sets them to 0. `reward` names what is rewarded (`rewards.load_reward`). `lora_rank` 0
    trains all weights but the vision tower. Every `save_every` steps a checkpoint is written, from which training can be resumed,
    and the auditor is kept. To save memory a step is taken in `accumulation` equal parts, and with `checkpointing` activations
    are computed again in the backward pass. `vllm_server` is the address of a server that writes the rollouts (see `rollouts`);
    with "" transformers does. `launch` are arguments of `accelerate launch`, with which it runs in several processes. From the
    same completions they learn what one process does but for rounding (1e-4 of what is learned at most), but each samples its
    completions with random numbers of its own.
    """

    steps: int
    group_size: int
    groups: int
    learning_rate: float
    beta: float
    no_consensus_reward: float
    replay_weight: float
    lora_rank: int
    cascade: bool
    save_every: int
    replayed: int = 32
    accumulation: int = 1
    checkpointing: bool = False
    reward: str = EQUATION_1
    vllm_server: str = ""
    launch: str = ""

    def __post_init__(self):
        if self.cascade and (self.no_consensus_reward or self.reward != EQUATION_1):
            raise ValueError("The cascade does not show which probes lack a consensus: set no_consensus_reward to 0 and reward "
                             "to equation_1, or cascade to False.")


def grpo(start: Path, panel: Panel, pictures: Pictures, search: Search, settings: GRPOSettings, found: list[dict], seed: int,
         work: Path, phase: str = "grpo") -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Train the auditor at `start`. Returns the folder of the trained auditor, its history (`history.HISTORY`) and all probes.

    `found` are the training examples of self-imitation (see `imitation.hits`), of which a batch is replayed in each step if
    `replay_weight` is above 0. Everything is stored below `work`; a call that finds an unfinished training there resumes it and
    ends in the same weights. The auditor of every `save_every` steps is kept as work/step_000100 and so on. Raises Changed if
    `work` holds another training, and Alarm if the training degenerates (see `alarms`); in the phase "plain" only if numbers
    are not finite, since a collapse of the policy is a result of that baseline. With a `vllm_server` no two trainings are alike.
    """
    claim(work, __name__, [start, *members(panel), *pipelines_of(search)], dict(
        rule=panel.rule, asked=askings(panel), pictures=identity(pictures), search=described(search),
        settings=claimed(settings) | {"vllm_server": bool(settings.vllm_server)},  # another address is no other training
        reward=functions.digest(settings.reward), seed=seed, found=[row["answer"] for row in found]))
    watch = phase != "plain"
    if steps_of(last_checkpoint(work / "training")) < settings.steps:
        def train(parts: int) -> None:
            _train(start, panel, pictures, search, replace(settings, accumulation=parts), found, seed, work, watch)

        def launch(parts: int) -> None:
            save_found(found, work / "found")
            launched.launch(settings.launch, __name__, work, settings.group_size * settings.groups, parts, dict(
                start=str(start), panel=packed_panel(panel), pictures=pictures.again, known=identity(pictures),
                search=asdict(search), settings=asdict(replace(settings, accumulation=parts)), seed=seed, watch=watch))
        fitting(work, settings.group_size * settings.groups, settings.accumulation, launch if settings.launch else train)
    tables = [_step_table(work / "asked", step) for step in range(1, settings.steps + 1)]
    history = _history(tables, work / "training").assign(phase=phase)
    return work / f"step_{settings.steps:06d}", history, pd.concat(tables, ignore_index=True)


def _train(start: Path, panel: Panel, pictures: Pictures, search: Search, settings: GRPOSettings, found: list[dict], seed: int,
           work: Path, watch: bool) -> None:
    """Train from the last checkpoint in `work`, or from the start; `watch`: raise Alarm if the training degenerates."""
    training, asked = work / "training", work / "asked"
    checkpoint = last_checkpoint(training)
    done = steps_of(checkpoint)
    asked.mkdir(parents=True, exist_ok=True)
    for file in asked.glob("*.parquet"):
        if int(file.stem) > done:
            file.unlink(missing_ok=True)  # a step after the checkpoint: it is repeated, with the same result
    set_seed(seed)
    auditor = load_for_training(start, checkpoint, settings.lora_rank)
    reward = load_reward(settings.reward, settings.no_consensus_reward)
    rewarder = Rewarder(reward, auditor, panel, pictures, search, settings, seed, asked, Watch() if watch else None)
    for step in range(1, done + 1):  # restores the counts of the alarms, as in an uninterrupted training
        rewarder.check(_step_table(asked, step))
    with answering(settings.vllm_server):
        trainer = ReplayingTrainer(
            auditor.model, rewarder.rewards,
            arguments(training, search, settings, seed, **by_server(settings.vllm_server, auditor)),
            processing_class=auditor.processor,
            train_dataset=prompts(len(pictures), search, settings, seed), peft_config=lora(auditor, settings.lora_rank),
            callbacks=[Finite(), _Keep(start, work, settings.lora_rank), Seal()])
        trainer.data_collator = partial(_with_pictures, pictures)
        if settings.replay_weight and found:
            trainer.replay_weight = settings.replay_weight
            trainer.replay = replayed(auditor, found, settings.steps, seed, settings.replayed, settings.accumulation)
        with connected(settings.vllm_server, trainer):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _step_table(asked: Path, step: int) -> pd.DataFrame:
    """The judged probes of a step. Raises Stop if they are damaged: only repeating the training would bring them back."""
    table = load_table(asked / f"{step:06d}.parquet")
    if table is None:
        raise Stop(f"{asked.parent.name}: the probes of step {step} are missing or damaged; delete {asked.parent} to restart the "
                   "training.")
    return table


@dataclass
class Rewarder:
    """Rewards GRPO's completions and stores the judged probes of each step in `folder`, one file per step.

    Each of several processes completes and judges the probes of its own completions, with a random stream of its own; then every
    one has them all, and the first one stores them.
    """

    reward: Callable[[pd.DataFrame], np.ndarray]
    auditor: VLM
    panel: Panel
    pictures: Pictures
    search: Search
    settings: GRPOSettings
    seed: int
    folder: Path
    watch: Watch | None

    def rewards(self, completions: list, completion_ids: list, kind: list[str], picture: list[int], trainer_state,
                **_) -> list[float]:
        """The rewards of completions. For captions and edit commands, the policy first adds a question about the new picture,
        or the group takes one existing question."""
        step = trainer_state.global_step + 1
        table = self._proposed(kind, picture, step)
        for i, (completion, ids) in enumerate(zip(completions, completion_ids, strict=True)):
            text = completion[0]["content"].strip()
            table.loc[i, TEXT_COLUMN.get(kind[i], "question")] = text
            table.loc[i, "invalid_reason"] = malformed(text, self._ended(ids, self.search.tokens[kind[i]]))
        seen, own = self.pictures.take(picture), [rank()] if rank() else []
        # `complete` reseeds torch; GRPO's own random stream must not be affected
        with torch.random.fork_rng(), _cached(self.auditor.model):
            table, drawn = complete(self.auditor, seen, table, self.search, stream(self.seed, "grpo", step, *own))
        judged = judge_proposed(self.panel, drawn, table, cascade=self.settings.cascade,
                                seed="/".join(map(str, [self.seed, step, *own]))).assign(picture=seen.names)
        judged = pd.concat(_of_all([judged]), ignore_index=True)
        paid = without_errors(judged, self.reward(judged), self.settings.group_size)
        judged = judged.assign(step=step, reward=paid.tolist())
        if not rank():
            save_table(judged, self.folder / f"{step:06d}.parquet")
        self.check(judged)
        return judged["reward"].tolist()[rank() * len(kind):(rank() + 1) * len(kind)]

    def _proposed(self, kind: list[str], picture: list[int], step: int) -> pd.DataFrame:
        """This process's probes, without the auditor's texts. A group, all of one existing question, may lie in two."""
        kinds, pictures, size = _of_all(kind), _of_all(picture), self.settings.group_size
        given = existing_questions(self.pictures.take(pictures[::size]), kinds[::size], self.search,
                                   stream(self.seed, "grpo", step))
        given = [question for question in given for _ in range(size)][rank() * len(kind):(rank() + 1) * len(kind)]
        return ask_existing(empty_proposals(kind), given)

    def check(self, judged: pd.DataFrame) -> None:
        """Raise Alarm if the judged probes of a step show that the training has degenerated."""
        if self.watch:
            self.watch.answers(judged, self.settings.group_size)

    def _ended(self, ids: list[int], tokens: int) -> bool:
        ends = np.atleast_1d(self.auditor.model.generation_config.eos_token_id)
        return bool(np.isin(ids[:tokens], ends).any())


@contextlib.contextmanager
def _cached(model: PreTrainedModel) -> Iterator[None]:
    """Where activations are computed twice, transformers generates without a cache in training mode, and sees no picture after
    the first token; so the model is in eval mode while it writes, as in TRL's own rollouts."""
    training = model.training and model.is_gradient_checkpointing
    if training:
        model.eval()
    yield
    if training:
        model.train()


def _of_all(rows: list) -> list:
    """The rows of all processes that train together, in order."""
    return gather_object(rows) if together() else rows


class _Keep(TrainerCallback):
    """Saves the auditor of each checkpoint as a separate model folder, in the first process."""

    def __init__(self, start: Path, work: Path, lora_rank: int):
        self.start, self.work, self.lora_rank = start, work, lora_rank

    def on_save(self, args, state, control, **_):
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            save_whole(self.start, checkpoint, self.lora_rank, self.work / f"step_{state.global_step:06d}")


def arguments(folder: Path, search: Search, settings: GRPOSettings, seed: int, **more) -> GRPOConfig:
    """What TRL's trainer is told, with `more`; its checkpoints lie in `folder`."""
    used = [search.tokens[kind] for kind, share in search.shares.items() if share]
    return on_one_gpu(GRPOConfig(
        output_dir=folder, max_steps=settings.steps, num_generations=settings.group_size, max_completion_length=max(used),
        **memory(settings.group_size * settings.groups, settings.accumulation), gradient_checkpointing=settings.checkpointing,
        learning_rate=settings.learning_rate, beta=settings.beta, loss_type="dapo", temperature=search.temperature,
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 1 / 3},
        warmup_steps=max(1, settings.steps // 10), seed=seed, use_cpu=not torch.cuda.is_available(), report_to="none",
        logging_steps=1, save_strategy="steps", save_steps=settings.save_every, save_total_limit=2, shuffle_dataset=False,
        dataloader_pin_memory=False, ddp_broadcast_buffers=False, **more))  # one without a piece to replay has a pass less


def prompts(n: int, search: Search, settings: GRPOSettings, seed: int) -> Dataset:
    """The prompts of all steps in order; each step has `groups` of the `n` pictures, by number, and one kind of probe."""
    kinds = np.repeat(search.kinds(settings.steps, seed), settings.groups).tolist()
    return Dataset.from_dict(dict(
        prompt=[[{"role": "user", "content": search.prompts[kind]}] for kind in kinds], kind=kinds,
        picture=[i % n for i in range(len(kinds))]))


def _with_pictures(pictures: Pictures, rows: list[dict]) -> list[dict]:
    """A batch of `prompts` with its pictures, which are opened only now: a data set would hold all of them as PNG."""
    return [row | {"image": pictures.images[row["picture"]]} for row in rows]


def _history(tables: list[pd.DataFrame], training: Path) -> pd.DataFrame:
    """One row per step: a summary of its judged probes, and the policy statistics that the Trainer logged."""
    state = json.loads((last_checkpoint(training) / "trainer_state.json").read_text(encoding="utf-8"))
    logged = {log["step"]: log for log in state["log_history"] if "reward_std" in log}
    topics, calls, rows = set(), [0, 0], []
    for step, table in enumerate(tables, 1):
        policy = {name: logged[step].get(name) for name in ("reward_std", "frac_reward_zero_std", "entropy", "kl")}
        rows.append(dict(step=step) | policy | summary(table, topics, calls))
    return pd.DataFrame(rows)


def main(folder: Path) -> None:
    """One of several processes of a training (`launched`): `-m auditdm_lib.training.grpo FOLDER`."""
    launched.work(folder, partial(_launched, folder), "auditor_accumulation")


def _launched(work: Path, start: str, panel: dict, pictures: dict, known: list[str], search: dict, settings: dict, seed: int,
              watch: bool) -> None:
    settings = GRPOSettings(**settings)
    memory(settings.group_size * settings.groups, settings.accumulation)  # before anything is loaded
    loaded = load_again(**pictures)
    if identity(loaded) != known:
        raise Stop("pictures: they are not what they were when the stage began; run it again.")
    search = Search(**search | {"drawing": Drawing(**search["drawing"])})
    _train(start, unpacked_panel(**panel), loaded, search, settings, load_found(work / "found"), seed, work, watch)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
