"""Replay of earlier hits: during GRPO the auditor goes on imitating what self-imitation found, lest it forget rare failures."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from trl import GRPOTrainer

from auditdm_lib.models.vlm import VLM
from auditdm_lib.training.examples import collate
from auditdm_lib.training.topics import even_weights


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
    that of the whole batch; a part is empty, and its share 0, where there are more parts than examples.
    """
    drawn = draw_found(found, steps * size, np.random.default_rng([seed, steps])).reshape(steps, size)

    @lru_cache(1)
    def batches(step: int) -> list[tuple[dict, int]]:
        made = [collate(auditor, [found[i] for i in rows]) if len(rows) else {} for rows in np.array_split(drawn[step], parts)]
        return [(batch, int((batch["labels"] != -100).sum()) if batch else 0) for batch in made]

    def part(step: int, k: int) -> tuple[dict, float]:
        batch, learned = batches(step)[k]
        return batch, learned / sum(tokens for _, tokens in batches(step))
    return part


def draw_found(found: list[dict], n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` row numbers of `found`, drawn with `even_weights`: rare topics nearly as often as common ones."""
    weights = even_weights([row["topics"] for row in found], [row["kind"] for row in found])
    return rng.choice(len(found), n, p=weights / weights.sum())
