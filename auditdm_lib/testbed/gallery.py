"""Figures of the testbed: every skill on three pictures, every suite with one item."""

import random
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from auditdm_lib.testbed.questions import sample_answerable
from auditdm_lib.testbed.render import SIZE, render
from auditdm_lib.testbed.scenes import Scene, sample_scenes
from auditdm_lib.testbed.skills import SKILLS, answer

ENLARGED = 4  # magnification of both the rendering for people and the model's own pixels


def _both(scene: Scene) -> np.ndarray:
    """A scene rendered for people and, to its right, magnified, as the model sees it: (4 * 48, 8 * 48 + 8, 3)."""
    large = np.asarray(render(scene, ENLARGED * SIZE))
    small = np.asarray(render(scene)).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    return np.hstack([large, np.full((len(large), 8, 3), 255, np.uint8), small])


def skill_gallery(seed: int, skills: tuple[str, ...] = tuple(SKILLS), examples: int = 3) -> Figure:
    """`examples` pictures per skill, each with a question and its answer, on scenes of the train split; two skills a row."""
    rng = random.Random(f"gallery/{seed}")
    scenes = iter(sample_scenes(100 * len(skills), "train", f"gallery/{seed}"))
    rows = -(-len(skills) // 2)
    figure, axes = plt.subplots(rows, 2 * examples, figsize=(6.2 * examples, 2.05 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, skill in enumerate(skills):
        for k in range(examples):
            scene, text = next((s, t) for s in scenes if (t := sample_answerable(s, rng, skill)))
            axis = axes[number % rows, number // rows * examples + k]
            axis.imshow(_both(scene))
            name = f"{skill}\n" if k == 0 else "\n"
            axis.set_title(f"{name}{textwrap.fill(text, 54)}\n{answer(scene, text)}", fontsize=7, loc="left")
    figure.suptitle("Testbed skills: each picture as people see it, and as the model does (48 pixels, magnified)", y=1)
    figure.tight_layout()
    return figure


def suite_gallery(items: pd.DataFrame) -> Figure:
    """One item per suite, four in a row; columns of `items`: suite, image, question, answer."""
    rows = -(-len(items) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(14, 4.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, item in zip(axes.flat, items.itertuples(), strict=False):
        axis.imshow(item.image)
        words = [item.suite, textwrap.fill(item.question, 44), textwrap.fill(item.answer, 44)]
        axis.set_title("\n".join(words), fontsize=8, loc="left")
    figure.suptitle("Testbed suites: one item of each, with the expected answer", y=1)
    figure.tight_layout()
    return figure
