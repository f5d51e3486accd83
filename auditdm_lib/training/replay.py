"""Replay of earlier hits: during GRPO the auditor goes on imitating what self-imitation found, lest it forget rare failures."""

from collections.abc import Callable

import numpy as np
from trl import GRPOTrainer

from auditdm_lib.models.vlm import VLM
from auditdm_lib.training.examples import collate
from auditdm_lib.training.topics import even_weights

REPLAYED = 32  # replayed examples per step of GRPO


class ReplayingTrainer(GRPOTrainer):
    """GRPO with replay: `replay_weight` times the likelihood loss on a batch of earlier hits is added to GRPO's loss.

    The KL divergence is estimated on the policy's own completions, so it does not penalise the loss of completions that the
    policy no longer samples. Replayed texts do, like the pretraining texts of PPO-ptx (Ouyang et al. 2022).
    """

    replay: Callable[[int], dict] | None = None  # step -> its batch
    replay_weight = 0.0

    def compute_loss(self, model, inputs, **how):
        loss = super().compute_loss(model, inputs, **how)
        return loss + self.replay_weight * model(**self.replay(self.state.global_step)).loss if self.replay else loss


def replayed(auditor: VLM, found: list[dict], steps: int, seed: int) -> Callable[[int], dict]:
    """The replayed batch of each of `steps` steps: hits drawn with `even_weights`, rare topics nearly as often as common ones."""
    drawn = draw_found(found, steps * REPLAYED, np.random.default_rng([seed, steps])).reshape(steps, REPLAYED)
    return lambda step: collate(auditor, [found[i] for i in drawn[step]])


def draw_found(found: list[dict], n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` row numbers of `found`, drawn with `even_weights`: rare topics nearly as often as common ones."""
    weights = even_weights([row["topics"] for row in found], [row["kind"] for row in found])
    return rng.choice(len(found), n, p=weights / weights.sum())
