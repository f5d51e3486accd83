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
TOLD = {"regeneration": "caption", "edit": "edit"}  # kind of probe -> the column of the text that its picture is drawn from


@dataclass(frozen=True)
class Search:
    """What the auditor is told, by kind of probe (`prompts`), how long its texts may be (`tokens`), and how it samples.

    `shares` says how the pictures divide among the kinds; it adds up to 1.
    """

    prompts: dict[str, str]
    tokens: dict[str, int]
    shares: dict[str, float]
    temperature: float

    def kinds(self, n: int, seed: int) -> list[str]:
        """The kind of each of `n` probes: shares kept to the nearest one, in random order."""
        edges = np.cumsum([self.shares.get(kind, 0) for kind in KINDS])
        kinds = np.array(KINDS)[np.searchsorted(edges - 1e-9, (np.arange(n) + 0.5) / max(n, 1))]
        return np.random.default_rng([seed, n]).permutation(kinds).tolist()


def stream(*names) -> int:
    """A seed for one use of randomness, so that no two uses (steps, rounds, seeds of runs) share their draws."""
    return int(manifest.digest("/".join(map(str, names)).encode())[:8], 16)


def propose(auditor: VLM, pictures: Pictures, kinds: list[str], search: Search, seed: int,
            desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """One probe of kind `kinds[i]` for picture i: what the auditor says, and the pictures that it is about.

    The table has a row a picture: kind, caption, edit, question, invalid_reason (None where the probe can be put to the
    panel). Where no picture could be drawn, its place holds the original.
    """
    table = blank(kinds)
    for kind in TOLD:
        rows = np.flatnonzero(np.array(kinds) == kind)
        _say(auditor, pictures, table, rows, kind, search, stream(seed, kind), desc)
    return complete(auditor, pictures, table, search, seed, desc)


def blank(kinds: list[str]) -> pd.DataFrame:
    """A table of probes of which nothing has been said yet."""
    return pd.DataFrame(dict(kind=kinds, caption=None, edit=None, question=None, invalid_reason=None), dtype=object)


def complete(auditor: VLM, pictures: Pictures, table: pd.DataFrame, search: Search, seed: int,
             desc: str | None = None) -> tuple[pd.DataFrame, Pictures]:
    """Draw what the captions and commands in `table` say, then ask about each picture whose probe has no question yet."""
    invalid = texts(table["invalid_reason"])
    drawn, undrawn = draw(pictures, table["kind"].tolist(), told(table, [r is None for r in invalid]))
    table["invalid_reason"] = pd.Series([r or u for r, u in zip(invalid, undrawn, strict=True)], dtype=object)
    rows = np.flatnonzero(table["invalid_reason"].isna() & table["question"].isna())
    _say(auditor, drawn, table, rows, "question", search, seed, desc)
    return table, drawn


def told(table: pd.DataFrame, wanted: list[bool]) -> list[str | None]:
    """The caption or edit command of each probe that is `wanted` and has one."""
    rows = zip(wanted, table["kind"], texts(table["caption"]), texts(table["edit"]), strict=True)
    return [dict(regeneration=caption, edit=edit).get(kind) if w else None for w, kind, caption, edit in rows]


def _say(auditor: VLM, pictures: Pictures, table: pd.DataFrame, rows: np.ndarray, kind: str, search: Search, seed: int,
         desc: str | None) -> None:
    """Fill the rows' column of what the prompt of `kind` asks for, and why a text is none."""
    if not len(rows):
        return
    column = TOLD.get(kind, "question")
    said = sample(auditor, [pictures.images[i] for i in rows], search.prompts[kind], search.temperature, seed, search.tokens[kind],
               desc=desc and f"{desc}: {column}s")
    table.loc[rows, column] = said["text"].to_numpy(object)
    table.loc[rows, "invalid_reason"] = [malformed(text, ended) for text, ended in said.itertuples(index=False)]


def put(panel: Panel, drawn: Pictures, proposed: pd.DataFrame, **how) -> pd.DataFrame:
    """Proposed probes with what the panel makes of them (`panel.judge`, which takes `how`) in further columns."""
    judged = judge(panel, drawn.images, proposed["question"].fillna("").tolist(), texts(proposed["invalid_reason"]), **how)
    return proposed.join(judged)


def search_of(parameters: dict, temperature: float) -> Search:
    """The search that a notebook's parameters (its `globals()`) describe."""
    p = parameters
    return Search(
        prompts=dict(question=p["question_prompt"], regeneration=p["caption_prompt"], edit=p["edit_prompt"]),
        tokens=dict(question=p["question_tokens"], regeneration=p["caption_tokens"], edit=p["edit_tokens"]),
        shares=dict(question=1 - p["regeneration_share"] - p["edit_share"], regeneration=p["regeneration_share"],
                    edit=p["edit_share"]),
        temperature=temperature)


def load_auditor(path: Path | str) -> VLM:
    """A model that can be trained as an auditor. Raises ValueError for one without a chat template."""
    auditor = load_vlm(path)
    if auditor.processor.chat_template is None:
        raise ValueError(f"The auditor {path} has no chat template (TRL trains PaliGemma wrongly by GRPO): give a chat model "
                         "that sees pictures, such as a Gemma3.")
    return auditor
