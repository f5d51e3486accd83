"""The arms of the search experiment. They differ in who writes the probes; pictures and number of target calls are equal.

Each arm returns the pictures that its probes ask about and the probe table (`probes.make_probes`).
"""

import random
from pathlib import Path

import numpy as np
import pandas as pd

from auditdm_lib.audit.auditor import NEITHER, Search, drawing_texts, empty_proposals, propose
from auditdm_lib.audit.checking import checked
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures, save_drawn
from auditdm_lib.audit.probes import make_probes
from auditdm_lib.models.vlm import VLM, load_vlm


def random_arm(panel: Panel, pictures: Pictures, seed: int, names: list[str]) -> tuple[Pictures, pd.DataFrame]:
    """Without an auditor: one random question per picture, an answerable one where the truth supplies such questions."""
    rng, table = random.Random(f"random questions/{seed}"), empty_proposals(["question"] * len(pictures))
    table.loc[:, "pairing"] = NEITHER
    table.loc[:, "question"] = [pictures.random_question(i, rng) for i in range(len(pictures))]
    return pictures, make_probes(panel, pictures, "random", table, seed, names, names)


def auditor_arm(path: Path | str, name: str, panel: Panel, pictures: Pictures, search: Search, seed: int, names: list[str],
                folder: Path, verifier: VLM | None = None) -> tuple[Pictures, pd.DataFrame]:
    """One probe per picture by the auditor at `path`. Pictures generated from its captions and edits are saved in `folder`, and
    those of a pipeline checked (`checking.checked`)."""
    table, drawn = propose(load_vlm(path), pictures, search.kinds(len(pictures), seed), search, seed, desc=name)
    images = save_drawn(drawn, pictures, names, folder, name)
    written = drawing_texts(table, [True] * len(table))
    check = checked(search.drawing, pictures, drawn, table["kind"].tolist(), written, verifier, desc=name)
    return check.pictures, make_probes(panel, check.pictures, name, table, seed, names, images, check.reasons, check.verdicts)


def best_of_arm(path: Path | str, n: int, panel: Panel, pictures: Pictures, search: Search, seed: int,
                names: list[str]) -> tuple[Pictures, pd.DataFrame]:
    """`n` questions about each of the first len(pictures) // n pictures: at most as many calls as one question per picture."""
    rows = np.repeat(np.arange(len(pictures) // n), n)
    seen, files, name = pictures.take(rows), [names[i] for i in rows], f"best_of_{n}"
    table, _ = propose(load_vlm(path), seen, ["question"] * len(rows), search, seed, desc=name)
    return seen, make_probes(panel, seen, name, table, seed, files, files)


def union(probes: pd.DataFrame, auditors: list[str]) -> pd.DataFrame:
    """The union of several auditors at the number of probes of one: picture i takes the probe of auditor i modulo their number.

    Each of these auditors must have written one probe per picture. Empty for fewer than two auditors.
    """
    rows = [probes[probes["auditor"] == name].reset_index(drop=True) for name in auditors]
    if len(rows) < 2:
        return probes.iloc[:0]
    turn = np.arange(len(rows[0])) % len(rows)
    return pd.concat([table[turn == k] for k, table in enumerate(rows)]).sort_index().assign(auditor="union")


def training_calls(history: pd.DataFrame) -> dict[str, int]:
    """How many target calls the training of each auditor had used (stage 01), by its name in the probe table."""
    imitation, grpo, plain = (history[history["phase"] == phase] for phase in ("imitation", "grpo", "plain"))
    before = int(imitation["target_calls"].max()) if len(imitation) else 0
    calls = {"imitation": before}
    calls |= {f"step_{step:06d}": before + int(n) for step, n in grpo[["step", "target_calls"]].itertuples(index=False)}
    calls["trained"] = calls["union"] = before + int(grpo["target_calls"].max())
    calls |= {f"plain_{step:06d}": int(n) for step, n in plain[["step", "target_calls"]].itertuples(index=False)}
    return calls | ({"plain_grpo": int(plain["target_calls"].max())} if len(plain) else {})
