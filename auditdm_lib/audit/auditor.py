"""The auditor: a vision-language model that writes questions, captions and edit commands on which the target fails.

One auditor has three prompts: p_q for a question about a picture, p_c for a caption with something added, from which a new
picture is generated, and p_e for a command that edits the picture. A probe of kind `question` asks about the original picture,
one of kind `regeneration` or `edit` about the generated or edited one. The modules `imitation` and `grpo` train the auditor.

With Q* the auditor's question, I* its picture, and Q and I what was there before, the paper's three pairings are (Q*, I), a probe
of kind `question`; (Q*, I*); and (Q, I*), a probe that asks an existing question about the auditor's picture.
"""

import inspect
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from transformers import ProcessorMixin

from auditdm_lib.audit.counterfactuals import draw
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.audit.probes import malformed, texts
from auditdm_lib.models.asking import check_processor, render
from auditdm_lib.models.loading import Unusable
from auditdm_lib.models.vlm import VLM, load_vlm, sample
from auditdm_lib.run import manifest

KINDS = ("question", "regeneration", "edit")
TEXT_COLUMN = {"regeneration": "caption", "edit": "edit"}  # kind of probe -> column of the text that generates its picture
OWN_QUESTION, BOTH, EXISTING_QUESTION, NEITHER = "Q*,I", "Q*,I*", "Q,I*", "Q,I"  # pairings of question and picture


@dataclass(frozen=True)
class Search:
    """How an auditor searches.

    By kind of probe: its prompt, the maximum number of tokens of its text, and its share of the pictures (shares sum to 1).
    For all kinds: the sampling temperature, what draws captions and edits, the seed of what it draws, the share of the probes
    with a drawn picture that ask an existing question, and how many texts are written at a time.
    """

    prompts: dict[str, str]
    tokens: dict[str, int]
    shares: dict[str, float]
    temperature: float
    drawing: Drawing = Drawing()
    drawing_seed: int = 0
    existing_question_share: float = 0.0
    batch: int = 128

    def kinds(self, n: int, seed: int) -> list[str]:
        """The kind of each of `n` probes: shares rounded to whole probes, in random order."""
        edges = np.cumsum([self.shares.get(kind, 0) for kind in KINDS])
        kinds = np.array(KINDS)[np.searchsorted(edges - 1e-9, (np.arange(n) + 0.5) / max(n, 1))]
        return np.random.default_rng([seed, n]).permutation(kinds).tolist()


def stream(*names) -> int:
    """A seed derived from `names`, so that no two uses of randomness (steps, rounds, run seeds) share a random stream."""
    return int(manifest.digest("/".join(map(str, names)).encode())[:8], 16)


def propose(auditor: VLM, pictures: Pictures, kinds: list[str], search: Search, seed: int,
            desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """One probe of kind `kinds[i]` for picture i: the auditor's texts, and the pictures that the questions are about.

    The table has one row per picture: kind, pairing, caption, edit, question, invalid_reason (None where the probe can be put to
    the panel). Where no picture could be generated, the original is returned in its place.
    """
    table = ask_existing(empty_proposals(kinds), existing_questions(pictures, kinds, search, seed))
    for kind in TEXT_COLUMN:
        rows = np.flatnonzero(np.array(kinds) == kind)
        _write_texts(auditor, pictures, table, rows, kind, search, stream(seed, kind), desc)
    return complete(auditor, pictures, table, search, seed, desc)


def empty_proposals(kinds: list[str]) -> pd.DataFrame:
    """A table of probes of the given kinds, whose texts are still to be written."""
    pairings = [BOTH if kind in TEXT_COLUMN else OWN_QUESTION for kind in kinds]
    return pd.DataFrame(dict(kind=kinds, pairing=pairings, caption=None, edit=None, question=None, invalid_reason=None),
                        dtype=object)


def existing_questions(pictures: Pictures, kinds: list[str], search: Search, seed: int) -> list[str | None]:
    """A random question about the original picture i (`Pictures.random_question`) for `existing_question_share` of the probes
    that draw, the number rounded by chance; None for the others."""
    rng, drawing = random.Random(f"existing questions/{seed}"), [i for i, kind in enumerate(kinds) if kind in TEXT_COLUMN]
    chosen = set(rng.sample(drawing, int(search.existing_question_share * len(drawing) + rng.random())))
    return [pictures.random_question(i, rng) if i in chosen else None for i in range(len(kinds))]


def ask_existing(table: pd.DataFrame, questions: list[str | None]) -> pd.DataFrame:
    """The table of probes with these existing questions in it, in place of the auditor's own."""
    given = np.array([question is not None for question in questions], bool)
    table.loc[given, "question"] = [question for question in questions if question is not None]
    table.loc[given, "pairing"] = EXISTING_QUESTION
    return table


def written(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """What the auditor itself wrote for each probe: caption, edit command and question, "" where there is none."""
    own = table["pairing"] != EXISTING_QUESTION
    columns = [texts(table["caption"]), texts(table["edit"]), texts(table["question"].where(own))]
    return [tuple(text or "" for text in row) for row in zip(*columns, strict=True)]


def complete(auditor: VLM, pictures: Pictures, table: pd.DataFrame, search: Search, seed: int,
             desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """Generate the pictures of the captions and edit commands in `table`, then add the missing questions of valid probes."""
    invalid = texts(table["invalid_reason"])
    wanted = drawing_texts(table, [r is None for r in invalid])
    drawn, undrawn = draw(search.drawing, pictures, table["kind"].tolist(), wanted, search.drawing_seed, desc)
    table["invalid_reason"] = pd.Series([r or u for r, u in zip(invalid, undrawn, strict=True)], dtype=object)
    rows = np.flatnonzero(table["invalid_reason"].isna() & table["question"].isna())
    _write_texts(auditor, drawn, table, rows, "question", search, seed, desc)
    return table, drawn


def drawing_texts(table: pd.DataFrame, wanted: list[bool]) -> list[str | None]:
    """The caption or edit command of each probe selected by `wanted`; None for the others and for plain questions."""
    rows = zip(wanted, table["kind"], texts(table["caption"]), texts(table["edit"]), strict=True)
    return [dict(regeneration=caption, edit=edit).get(kind) if w else None for w, kind, caption, edit in rows]


def _write_texts(auditor: VLM, pictures: Pictures, table: pd.DataFrame, rows: np.ndarray, kind: str, search: Search, seed: int,
         desc: str | None) -> None:
    """Sample the texts of these rows with the prompt of `kind` into their column, and set invalid_reason for malformed ones."""
    if not len(rows):
        return
    column = TEXT_COLUMN.get(kind, "question")
    images, bar = [pictures.images[i] for i in rows], desc and f"{desc}: {column}s"
    sampled = sample(auditor, images, search.prompts[kind], search.temperature, seed, search.tokens[kind], search.batch, desc=bar)
    table.loc[rows, column] = sampled["text"].to_numpy(object)
    table.loc[rows, "invalid_reason"] = [
        malformed(*row) for row in sampled[["text", "ended", "error"]].itertuples(index=False)]


def judge_proposed(panel: Panel, drawn: Pictures, proposed: pd.DataFrame, **how) -> pd.DataFrame:
    """The proposed probes joined with the columns of `panel.judge`, to which the keyword arguments `how` are passed."""
    judged = judge(panel, drawn.images, proposed["question"].fillna("").tolist(), texts(proposed["invalid_reason"]), **how)
    return proposed.join(judged)


def load_auditor(path: Path | str) -> VLM:
    """Load a model to train as an auditor. Raises ValueError, before its weights are loaded, if TRL's GRPO cannot train it."""
    return load_vlm(path, check=check_trainable)


def check_trainable(processor: ProcessorMixin) -> None:
    """Raise Unusable if TRL's GRPO cannot train a model with this processor: it hands on only the inputs that it knows of."""
    from trl import GRPOTrainer  # seconds

    check_processor(processor)
    if processor.chat_template is None:
        raise Unusable("has no chat template (TRL's GRPO does not train PaliGemma correctly): use a vision-language chat model, "
                       "such as Gemma3, as the auditor.")
    inputs = processor(images=[[Image.new("RGB", (64, 48))]], text=[render(processor, "?")], return_tensors="pt")
    if more := sorted(set(inputs) - set(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)):
        raise Unusable(f"takes the inputs {', '.join(more)}, which TRL's GRPO does not hand on, so it cannot be trained as an "
                       "auditor: use another chat model that sees pictures, such as Gemma3.")
