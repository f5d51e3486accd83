"""A reward of one's own whose module replaces what the auditor samples in GRPO by texts that the step and the row alone decide.

So one process and several of them learn from the same texts. Whoever loads it gets both: the test, and the processes it starts.
The first process kills itself at the step that KILLED_AT says, if it is set.
"""

import os
import signal

from trl import GRPOTrainer

from auditdm_lib.training.trainings import rank

TEXTS = ("what colour is it?", "how many cats are there?", "is there a sun?", "add a red dog.")


def _written(trainer, prompt_ids, *_):
    """Row i of all processes gets text i of TEXTS, by turns, and its end token."""
    if not rank() and os.environ.get("KILLED_AT") == str(trainer.state.global_step):
        os.kill(os.getpid(), signal.SIGKILL)
    tokenizer, n = trainer.processing_class.tokenizer, len(prompt_ids)
    texts = [TEXTS[(rank() * n + i + trainer.state.global_step) % len(TEXTS)] for i in range(n)]
    return [[*tokenizer(text, add_special_tokens=False)["input_ids"], trainer.eos_token_ids[0]] for text in texts], None


def by_length(probes):
    """The length of the text that the auditor wrote, which no other random number changes."""
    own = probes["edit"].where(probes["kind"] == "edit", probes["question"])
    return (own.fillna("").str.len() % 7 / 7).to_numpy()


GRPOTrainer._generate_single_turn = _written
