"""Shared by all training of testbed models: rendered scenes, the families' prompt formats, the learning-rate schedule."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from auditdm_lib.testbed.checkpoint import GEMMA_IMAGE_TOKENS, PALIGEMMA_IMAGE_TOKENS
from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import Scene

IGNORE = -100
# The text before a question, and the template around it, in each family's own format.
PREFIX = {
    "gemma3": "<bos>\n\n<start_of_image>" + "<image>" * GEMMA_IMAGE_TOKENS + "<end_of_image>\n\n",
    "paligemma2": "<image>" * PALIGEMMA_IMAGE_TOKENS + "<bos>"}
QUESTION = {"gemma3": "<start_of_turn>{}<end_of_turn>", "paligemma2": "answer en {}\n"}


@dataclass(frozen=True)
class Corpus:
    """Scenes and their pictures: `pixels` is uint8, (scenes, 48, 48, 3)."""

    scenes: list[Scene]
    pixels: torch.Tensor


def render_corpus(scenes: list[Scene]) -> Corpus:
    return Corpus(scenes, torch.from_numpy(np.stack([np.asarray(render(s)) for s in scenes])))


def pixel_values(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 48, 48, 3) to the processors' output: float (B, 3, 48, 48) in -1..1."""
    return (pixels.float() / 255 - 0.5).div(0.5).permute(0, 3, 1, 2)


def cosine(step: int, steps: int, warmup: int = 50, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then cosine decay to `floor`."""
    return min(1, (step + 1) / warmup) * (floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))


@lru_cache(maxsize=200_000)
def token_ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
