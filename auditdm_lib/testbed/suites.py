"""Held-out suites of the testbed, named after the benchmarks they stand in for, and held-out items of every gap."""

import random

import pandas as pd

from auditdm_lib.testbed.gaps import gap_of, load_gaps, questions_in_gap
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import SKILLS, answer, parse_question, sample_answerable

SUITES = {  # name -> the skills it asks about
    "vqav2-mini": tuple(SKILLS),
    "gqa-mini": ("row", "column", "size", "colour"),
    "okvqa-mini": ("knowledge",),
    "pope-mini": ("exists",),
}


def suite_items(name: str, n: int, seed: int) -> pd.DataFrame:
    """`n` answerable items of a suite on scenes and digit scans of the test split, one question a picture.

    Columns: item, image (48 x 48 RGB), question, answer, skill, gap (None outside the planted gaps). Half of the items
    of `pope-mini` have the answer "yes".
    """
    if name not in SUITES:
        raise ValueError(f"Unknown suite {name!r}; choose one of {', '.join(SUITES)}.")
    rng = random.Random(f"suite/{name}/{seed}")
    rows = []
    for i, scene in enumerate(sample_scenes(4 * n, "test", f"{name}/{seed}")):
        skill = SUITES[name][i % len(SUITES[name])]
        text = sample_answerable(scene, rng, skill)
        if text is None or (name == "pope-mini" and answer(scene, text) != ("yes", "no")[len(rows) % 2]):
            continue
        rows.append(_row(f"{name}-{len(rows):05d}", scene, text))
        if len(rows) == n:
            return pd.DataFrame(rows)
    raise AssertionError(f"{name} gave {len(rows)} of {n} items: its skills are too rarely answerable.")


def gap_items(n_per_gap: int, seed: int) -> pd.DataFrame:
    """`n_per_gap` items inside each planted gap, on scenes of the test split; columns as in `suite_items`."""
    scenes = sample_scenes(4000, "test", f"gaps/{seed}")
    rng = random.Random(f"gap items/{seed}")
    return pd.DataFrame([
        _row(f"gap-{g:02d}-{k:04d}", scenes[i], text)
        for g, gap in enumerate(load_gaps())
        for k, (i, text) in enumerate(questions_in_gap(gap, scenes, n_per_gap, rng))])


def _row(item: str, scene, text: str) -> dict:
    held = gap_of(scene, text, load_gaps())
    return dict(item=item, image=render(scene), question=text, answer=answer(scene, text), skill=parse_question(text).skill,
                gap=held[0].name if held else None)
