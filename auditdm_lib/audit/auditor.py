"""The auditor: a vision-language model that writes questions, captions and edit commands on which the target fails.

One auditor has three prompts: p_q asks a question about a picture, p_c describes it with something added (the caption is
drawn), p_e commands an edit of it (the edit is drawn). A probe of kind `question` asks about the picture itself; one of kind
`regeneration` or `edit` asks about what was drawn. How it is trained: `imitation` and `grpo`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib.audit.counterfactuals import draw
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.audit.probes import malformed, texts
from auditdm_lib.models.vlm import VLM, load_vlm, sample
from auditdm_lib.run import manifest

KINDS = ("question", "regeneration", "edit")
TEXT_COLUMN = {"regeneration": "caption", "edit": "edit"}  # kind of probe -> column of the text that its picture is drawn from


@dataclass(frozen=True)
class Search:
    """How an auditor searches: by kind of probe its prompts, the most tokens of its texts, and each kind's share of the pictures
    (the shares add up to 1); the sampling temperature, and the drawer of its captions and edits (a value of that parameter).
    """

    prompts: dict[str, str]
    tokens: dict[str, int]
    shares: dict[str, float]
    temperature: float
    drawer: str = "renderer"

    def kinds(self, n: int, seed: int) -> list[str]:
        """The kind of each of `n` probes: shares kept to the nearest one, in random order."""
        edges = np.cumsum([self.shares.get(kind, 0) for kind in KINDS])
        kinds = np.array(KINDS)[np.searchsorted(edges - 1e-9, (np.arange(n) + 0.5) / max(n, 1))]
        return np.random.default_rng([seed, n]).permutation(kinds).tolist()


def stream(*names) -> int:
    """A seed for one use of randomness, named by `names`, so that no two uses (steps, rounds, seeds of runs) share draws."""
    return int(manifest.digest("/".join(map(str, names)).encode())[:8], 16)


def propose(auditor: VLM, pictures: Pictures, kinds: list[str], search: Search, seed: int,
            desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """One probe of kind `kinds[i]` for picture i: what the auditor says, and the pictures that it is about.

    The table has a row for each picture: kind, caption, edit, question, invalid_reason (None where the panel can be asked).
    Where no picture could be drawn, the original stands in its place.
    """
    table = empty_proposals(kinds)
    for kind in TEXT_COLUMN:
        rows = np.flatnonzero(np.array(kinds) == kind)
        _write_texts(auditor, pictures, table, rows, kind, search, stream(seed, kind), desc)
    return complete(auditor, pictures, table, search, seed, desc)


def empty_proposals(kinds: list[str]) -> pd.DataFrame:
    """A table of probes without texts yet."""
    return pd.DataFrame(dict(kind=kinds, caption=None, edit=None, question=None, invalid_reason=None), dtype=object)


def complete(auditor: VLM, pictures: Pictures, table: pd.DataFrame, search: Search, seed: int,
             desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """Draw what the captions and commands in `table` say, then write a question for each valid probe that has none yet."""
    invalid = texts(table["invalid_reason"])
    drawn, undrawn = draw(search.drawer, pictures, table["kind"].tolist(), drawing_texts(table, [r is None for r in invalid]))
    table["invalid_reason"] = pd.Series([r or u for r, u in zip(invalid, undrawn, strict=True)], dtype=object)
    rows = np.flatnonzero(table["invalid_reason"].isna() & table["question"].isna())
    _write_texts(auditor, drawn, table, rows, "question", search, seed, desc)
    return table, drawn


def drawing_texts(table: pd.DataFrame, wanted: list[bool]) -> list[str | None]:
    """The caption or edit command of each probe that is `wanted` and has one, else None."""
    rows = zip(wanted, table["kind"], texts(table["caption"]), texts(table["edit"]), strict=True)
    return [dict(regeneration=caption, edit=edit).get(kind) if w else None for w, kind, caption, edit in rows]


def _write_texts(auditor: VLM, pictures: Pictures, table: pd.DataFrame, rows: np.ndarray, kind: str, search: Search, seed: int,
         desc: str | None) -> None:
    """For these rows, sample the text that the prompt of `kind` asks for into its column, and note where it is malformed."""
    if not len(rows):
        return
    column = TEXT_COLUMN.get(kind, "question")
    images, bar = [pictures.images[i] for i in rows], desc and f"{desc}: {column}s"
    sampled = sample(auditor, images, search.prompts[kind], search.temperature, seed, search.tokens[kind], desc=bar)
    table.loc[rows, column] = sampled["text"].to_numpy(object)
    table.loc[rows, "invalid_reason"] = [malformed(text, ended) for text, ended in sampled.itertuples(index=False)]


def judge_proposed(panel: Panel, drawn: Pictures, proposed: pd.DataFrame, **how) -> pd.DataFrame:
    """Proposed probes with the columns of `panel.judge`, which takes `how`, beside them."""
    judged = judge(panel, drawn.images, proposed["question"].fillna("").tolist(), texts(proposed["invalid_reason"]), **how)
    return proposed.join(judged)


def load_auditor(path: Path | str) -> VLM:
    """Load a model that can be trained as an auditor. Raises ValueError for one without a chat template."""
    auditor = load_vlm(path)
    if auditor.processor.chat_template is None:
        raise ValueError(f"The auditor {path} has no chat template (TRL trains PaliGemma wrongly by GRPO): give a chat model "
                         "that sees pictures, such as a Gemma3.")
    return auditor
