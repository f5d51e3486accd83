"""Files that accompany a checkpoint of the testbed: its card, its measured accuracy, and the manifest that seals them."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from auditdm_lib.run import commit, lock, manifest
from auditdm_lib.testbed.checkpoint import save_checkpoint

CARD, MEASURED = "card.json", "measured.csv"
ABOUT = ("A model of the AuditDM testbed: a real architecture, made tiny, trained on procedurally drawn scenes only. What it "
         "can do says nothing about real models.")


def write_model(path: Path, model, processor, card: dict, measure: Callable[[Path], pd.DataFrame],
                also: Callable[[Path], None] = lambda folder: None, about: str = ABOUT) -> None:
    """Save a model in float16 and its processor; see `write_folder`.

    float16 halves the size of the package; `model` keeps the rounded weights, and `load_vlm` computes in float32 on a CPU.
    `also` may add files.
    """
    def save(folder: Path) -> None:
        save_checkpoint(model.to(torch.float16), processor, folder)
        model.float()
        also(folder)
    write_folder(path, save, card, measure, about)


def write_folder(path: Path, save: Callable[[Path], None], card: dict, measure: Callable[[Path], pd.DataFrame],
                 about: str = ABOUT) -> None:
    """What `save` writes, with its card and its manifest; the folder gets its name only when it is complete.

    `measure` computes the card's table from the saved folder; `about` opens its README.
    """
    lock.hold(path)
    folder = commit.temporary(path)
    save(folder)
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
    table = measure(folder)
    table.to_csv(folder / MEASURED, index=False)
    (folder / "README.md").write_text(readme(card, table, about), encoding="utf-8")
    manifest.write(folder, {"model": card["name"]}, {"seconds": card["seconds"]})
    commit.commit(folder, path)
    lock.free(path)


def readme(card: dict, table: pd.DataFrame, about: str = ABOUT) -> str:
    """A model card in Markdown: what the model is, how it was trained, how accurate it is."""
    lines = [
        f"# {card['name']}", "", about, "", "| training | |", "|---|---|",
        *(f"| {name} | {_shown(value)} |" for name, value in card.items() if value not in ("", (), [])), "",
        f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row) + " |")
    return "\n".join(lines) + "\n"


def _shown(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
