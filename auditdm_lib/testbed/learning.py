"""Training a language model of the testbed on questions about pictures, with saved states from which it resumes exactly."""

import json
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from auditdm_lib.run import manifest
from auditdm_lib.testbed.packing import answer_logits, pack
from auditdm_lib.testbed.scenes import Scene
from auditdm_lib.testbed.training import IGNORE, cosine, token_ids

EVERY = 100  # as `alone`: more pairs than any picture has, so each pair gets its own row
Draw = Callable[[Scene, random.Random], list[tuple[str, str]]]  # question-answer pairs about a scene


@dataclass(frozen=True)
class Schedule:
    """Length and learning rates of a training: `pictures` per step, each with the pairs that `draw` returns; `lr` for the
    matrices, `lr_rest` for all other parameters.

    `alone` of each picture's pairs get a row of their own, which is PaliGemma's own format (see `packing.pack`).
    """

    steps: int
    pictures: int = 32
    lr: float = 4e-3
    lr_rest: float = 3e-3
    alone: int = 0
    save_every: int = 250


def optimizers(model: nn.Module, schedule: Schedule) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the language model's matrices, AdamW for its embeddings and norms and for the projector; with learning rates.

    On these models Muon (orthogonalised momentum) needed about a quarter fewer steps than AdamW alone.
    """
    language = model.model.language_model
    matrices = [p for name, p in language.named_parameters() if p.ndim == 2 and "embed" not in name]
    known = {id(p) for p in matrices}
    rest = [p for part in (language, model.model.multi_modal_projector) for p in part.parameters() if id(p) not in known]
    return [
        (torch.optim.Muon(matrices, schedule.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"), schedule.lr),
        (torch.optim.AdamW(rest, schedule.lr_rest, betas=(0.9, 0.98), weight_decay=0.05), schedule.lr_rest)]


def train_language(model: nn.Module, family: str, tokenizer, scenes: list[Scene], features: torch.Tensor, draw: Draw,
                   schedule: Schedule, seed: int, folder: Path | None, desc: str = "language") -> dict:
    """Train on the pairs that `draw` returns for each scene, with a frozen vision tower; returns steps, seconds and last loss.

    `features` are the tower's, (scenes, 9, hidden). Every `save_every` steps the state is saved to `folder`; a call that finds
    a state there resumes from it and ends with the same weights as an uninterrupted one. If `folder` is None, nothing is
    saved. Seconds include those before a resumption.
    """
    stepped = optimizers(model, schedule)
    begun = fingerprint(model, schedule, seed, len(scenes))
    done, seconds, loss = load_state(folder, model, stepped, begun) if folder else (0, 0.0, math.nan)
    started = time.perf_counter()
    model.train()
    for step in tqdm(range(done, schedule.steps), desc=desc, initial=done, total=schedule.steps, mininterval=10):
        rng = random.Random(f"{seed}/{step}")  # one stream per step, so that a resumed training draws the same
        rows = [rng.randrange(len(scenes)) for _ in range(schedule.pictures)]
        pairs = [draw(scenes[i], rng) for i in rows]
        for optimizer, rate in stepped:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine(step, schedule.steps, warmup=min(100, 1 + schedule.steps // 10))
        loss = accumulate(model, family, tokenizer, _batches(tokenizer, rows, pairs, schedule.alone), features)
        assert math.isfinite(loss), f"The loss of step {step} is {loss}; lower the learning rate."
        nn.utils.clip_grad_norm_([p for o, _ in stepped for g in o.param_groups for p in g["params"]], 1.0)
        for optimizer, _ in stepped:
            optimizer.step()
        if folder and ((step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps):
            about = dict(step=step + 1, seconds=seconds + time.perf_counter() - started, loss=loss, begun=begun)
            save_state(folder, model, stepped, about)
    model.eval()
    return dict(steps=schedule.steps, seconds=round(seconds + time.perf_counter() - started), loss=round(float(loss), 4))


def accumulate(model: nn.Module, family: str, tokenizer, batches: list[tuple[list[int], list]], features: torch.Tensor) -> float:
    """Accumulate the gradients of the mean loss over all answer tokens of batches of (pictures, rows of pairs); that loss."""
    packed = [(pack(family, tokenizer, rows), pictures) for pictures, rows in batches]
    tokens = sum(int((inputs["labels"] != IGNORE).sum()) for inputs, _ in packed)
    total = 0.0
    for inputs, pictures in packed:
        logits, labels = answer_logits(model, inputs, features[pictures])
        loss = F.cross_entropy(logits, labels, reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total


def _batches(tokenizer, pictures: list[int], pairs: list[list], alone: int) -> list[tuple[list[int], list]]:
    """The first `alone` pairs of each picture in rows of their own, batched by length; the other pairs in one row per picture."""
    single = [(i, [pair]) for i, of_picture in zip(pictures, pairs, strict=True) for pair in of_picture[:alone]]
    single.sort(key=lambda row: sum(len(token_ids(tokenizer, text)) for text in row[1][0]))
    rest = [(i, of_picture[alone:]) for i, of_picture in zip(pictures, pairs, strict=True) if of_picture[alone:]]
    rows = [single[k:k + len(pictures)] for k in range(0, len(single), len(pictures))] + ([rest] if rest else [])
    return [tuple(map(list, zip(*batch, strict=True))) for batch in rows]


def fingerprint(model: nn.Module, schedule: Schedule, seed: int, scenes: int) -> str:
    """sha256 of what a training starts from: its schedule, seed, number of scenes, and the weights."""
    weights = {name: manifest.digest(p.detach().contiguous().numpy().tobytes()) for name, p in model.state_dict().items()}
    return manifest.digest([asdict(schedule), seed, scenes, weights])


def save_state(folder: Path, model: nn.Module, stepped: list, about: dict) -> None:
    """Write weights, optimizer states and the metadata `about` to `folder`/state.safetensors, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": p.detach().clone(memory_format=torch.contiguous_format) for name, p in model.state_dict().items()}
    for k, (optimizer, _) in enumerate(stepped):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{k}/{i}/{name}": torch.as_tensor(value).clone(
                memory_format=torch.contiguous_format) for name, value in state.items()}
    save_file(tensors, folder / "state.partial", metadata={"state": json.dumps(about)})
    os.replace(folder / "state.partial", folder / "state.safetensors")


def load_state(folder: Path, model: nn.Module, stepped: list, begun: str) -> tuple[int, float, float]:
    """Restore a saved state into model and optimizers; (steps done, seconds, last loss), (0, 0, nan) where there is none.

    Raises ValueError where the state belongs to a training that started from something else (`begun`, see `fingerprint`).
    """
    file = folder / "state.safetensors"
    if not file.exists():
        return 0, 0.0, float("nan")
    with safe_open(file, "pt") as saved:
        about = json.loads(saved.metadata()["state"])
        if about["begun"] != begun:
            raise ValueError(f"{file} is of a training with another recipe or from other weights; delete {folder} to start over.")
        tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
    model.load_state_dict({name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")})
    for k, (optimizer, _) in enumerate(stepped):
        state = optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith(f"optimizer/{k}/"):
                _, _, i, field = name.split("/")
                state["state"].setdefault(int(i), {})[field] = value
        optimizer.load_state_dict(state)
    return about["step"], about["seconds"], about["loss"]
