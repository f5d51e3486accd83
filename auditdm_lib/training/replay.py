"""Replay of earlier hits: during GRPO the auditor goes on imitating what self-imitation found, lest it forget rare failures."""

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from trl import GRPOTrainer

from auditdm_lib.audit.pictures import Pictures, save_pictures, stored
from auditdm_lib.models.vlm import VLM
from auditdm_lib.training.examples import collate
from auditdm_lib.training.topics import even_weights
from auditdm_lib.training.trainings import processes, rank

FOUND = "found.json"


class ReplayingTrainer(GRPOTrainer):
    """GRPO with replay: `replay_weight` times the likelihood loss on a batch of earlier hits is added to GRPO's loss.

    The KL divergence is estimated on the policy's own completions, so it does not penalise the loss of completions that the
    policy no longer samples. Replayed texts do, like the pretraining texts of PPO-ptx (Ouyang et al. 2022).
    """

    replay: Callable[[int, int], tuple[dict, float]] | None = None  # step, part of its batch -> the part, its share of the tokens
    replay_weight = 0.0

    def compute_loss(self, model, inputs, **how):
        loss = super().compute_loss(model, inputs, **how)
        if self.replay is None:
            return loss
        batch, share = self.replay(self.state.global_step, self._step % self.args.gradient_accumulation_steps)
        return loss + self.replay_weight * share * model(**batch).loss if batch else loss


def replayed(auditor: VLM, found: list[dict], steps: int, seed: int, size: int,
             parts: int) -> Callable[[int, int], tuple[dict, float]]:
    """Part k of the `size` examples that each of `steps` steps replays, and its share (0-1) of their learned tokens.

    The hits are drawn with `even_weights`, rare topics nearly as often as common ones. The shares make the mean loss over parts
    that of the whole batch; a part is empty, and its share 0, where there are more parts than examples. Of several processes each
    has a piece of every part, and as many times its share, since the mean of their gradients is what is learned.
    """
    drawn, n = draw_found(found, steps * size, np.random.default_rng([seed, steps])).reshape(steps, size), processes()

    @lru_cache(1)
    def batches(step: int) -> list[tuple[dict, int]]:
        pieces = np.array_split(drawn[step], parts * n)
        made = [collate(auditor, [found[i] for i in rows]) if len(rows) else {} for rows in pieces]
        return [(batch, int((batch["labels"] != -100).sum()) if batch else 0) for batch in made]

    def part(step: int, k: int) -> tuple[dict, float]:
        batch, learned = batches(step)[k * n + rank()]
        return batch, n * learned / sum(tokens for _, tokens in batches(step))
    return part


def save_found(found: list[dict], folder: Path) -> None:
    """Write hits (`imitation.hits`) for other processes: the pictures as PNG, the rest as JSON."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = [row["image"] for row in found]
    files = save_pictures(Pictures([""] * len(found), images), folder / "images")
    (folder / FOUND).write_text(json.dumps([row | {"image": file} for row, file in zip(found, files, strict=True)]),
                                encoding="utf-8")


def load_found(folder: Path) -> list[dict]:
    """The hits that `save_found` wrote."""
    rows = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    images = stored(folder, [row["image"] for row in rows])
    return [row | {"image": image, "topics": tuple(map(tuple, row["topics"]))} for row, image in zip(rows, images, strict=True)]


def draw_found(found: list[dict], n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` row numbers of `found`, drawn with `even_weights`: rare topics nearly as often as common ones."""
    weights = even_weights([row["topics"] for row in found], [row["kind"] for row in found])
    return rng.choice(len(found), n, p=weights / weights.sum())
