"""Training the testbed's drawing pipelines: a small FLUX that draws captions, and a small FLUX Kontext that follows commands.

Both are what diffusers loads: `FluxPipeline` and `FluxKontextPipeline` with a `FluxTransformer2DModel`. The transformer predicts
the clean latents ("sample" in diffusers' schedulers): a token's 256 numbers are more than the transformer is wide, so it could
not carry the noise that a velocity contains (Li and He 2025, "Back to basics: let denoising generative models denoise").
"""

import copy
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from auditdm_lib.testbed.autoencoder import CHANNELS, hash_of, packed
from auditdm_lib.testbed.encoders import (
    CAPTION_LENGTHS,
    COMMAND_LENGTHS,
    WIDTH,
    description,
    length_of,
    place_tokens,
    tokens,
)
from auditdm_lib.testbed.learning import load_state, save_state
from auditdm_lib.testbed.scenes import Scene
from auditdm_lib.testbed.training import cosine

HEAD = 32  # dimensions of an attention head
AXES = (8, 12, 12)  # of which the rotary positions rotate these many by kind of token, row and column
ROW, COLUMN = AXES[0], AXES[0] + AXES[1]  # the first, fastest turning pair of each: one radian a cell
SIDE = 3  # tokens along a picture's side
POOLED = 8  # size of CLIP's vector


@dataclass(frozen=True)
class Flow:
    """How a transformer is trained: AdamW at `lr` and, for the blocks' matrices, Muon at `muon_lr`, by a cosine schedule.

    The noise level t of an example is 1 (`pure` of them) or sigmoid(N(`level`, `spread`)): high, since a token is so large that
    below t = 0.8 its noise can be averaged out without reading the text. Weights are averaged over steps (`average`).
    """

    steps: int
    batch: int = 32
    lr: float = 2e-3
    muon_lr: float = 1e-2
    level: float = 2.0
    spread: float = 1.0
    pure: float = 0.1
    average: float = 0.999
    save_every: int = 500


def build_transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1, in_channels=4 * CHANNELS, num_layers=2, num_single_layers=4, attention_head_dim=HEAD,
        num_attention_heads=WIDTH // HEAD, joint_attention_dim=WIDTH, pooled_projection_dim=POOLED, guidance_embeds=False,
        axes_dims_rope=AXES)


@torch.no_grad()
def wire_places(transformer: FluxTransformer2DModel, t5: T5EncoderModel, tokenizer: PreTrainedTokenizerFast,
                captions: list[str], heads: int = 2) -> None:
    """Let some heads of the first block start by looking from each cell at the phrase that names its place.

    In FLUX all words have the same position, so a cell can only find its phrase by the phrase's key. A key turned by the rotary
    angles of its place answers best to the query of that cell. The key projection is fitted to such keys at the tokens of
    places by least squares, and the query starts as a constant. Without this start the model needs many times as long.
    """
    ids = tokens(tokenizer, captions, CAPTION_LENGTHS[-1])
    states = F.layer_norm(transformer.context_embedder(t5(ids)[0]), (WIDTH,))
    query, elsewhere = torch.zeros(HEAD), torch.zeros(HEAD)
    query[[ROW, COLUMN]] = 1.0
    elsewhere[[ROW + 6, COLUMN + 6]] = 1.0  # hardly turned by any place, and not in the query
    keys = elsewhere.repeat(*ids.shape, 1)
    for cell, token in enumerate(place_tokens(tokenizer)):
        keys[ids == token] = _turned(query, cell // SIDE, cell % SIDE)
    inputs = torch.cat([states.flatten(0, 1), torch.ones(ids.numel(), 1)], 1)
    fitted = torch.linalg.lstsq(inputs, keys.flatten(0, 1)).solution
    attention = transformer.transformer_blocks[0].attn
    for head in range(heads):
        part = slice(HEAD * head, HEAD * (head + 1))
        attention.add_k_proj.weight[part], attention.add_k_proj.bias[part] = fitted[:-1].T, fitted[-1]
        attention.to_q.weight[part] *= 0.05
        attention.to_q.bias[part] = query
    for norm in (attention.norm_q, attention.norm_added_k):
        norm.weight[[ROW, ROW + 1, COLUMN, COLUMN + 1]] = 1.5


@torch.no_grad()
def wire_sources(transformer: FluxTransformer2DModel, sources: torch.Tensor, heads: tuple[int, ...] = (2, 3, 4),
                 strength: float = 3.0) -> None:
    """Let some heads of the first block start by adding to each cell what stands there in the source picture (`sources`: packed
    tokens of some pictures), so that the transformer begins as if it had to clean a slightly noisy copy.

    Query and key start as constants that the rotary positions align at the source's same cell, and value and output as the
    principal directions of the embedded sources, undoing the block's gate.
    """
    block, part = transformer.transformer_blocks[0], slice(HEAD * heads[0], HEAD * (heads[-1] + 1))
    query, key = torch.zeros(HEAD), torch.zeros(HEAD)
    query[[0, ROW, COLUMN]] = 1.0
    back = torch.tensor(-1.0)  # the source's tokens are turned by one radian more, as another kind
    key[[ROW, COLUMN]], key[0], key[1] = 1.0, back.cos(), back.sin()
    for projection, constant in ((block.attn.to_q, query), (block.attn.to_k, key)):
        projection.weight[part] *= 0.05
        projection.bias[part] = constant.repeat(len(heads))
    for norm in (block.attn.norm_q, block.attn.norm_k):
        norm.weight[[0, 1, ROW, ROW + 1, COLUMN, COLUMN + 1]] = 2.0
    time = transformer.time_text_embed(torch.full((len(sources),), 900.0), torch.zeros(len(sources), POOLED))
    seen, gate, *_ = block.norm1(transformer.x_embedder(sources), emb=time)
    flat = seen.flatten(0, 1)
    _, vectors = torch.linalg.eigh((flat - flat.mean(0)).T @ (flat - flat.mean(0)))
    directions = vectors.flip(1)[:, :HEAD * len(heads)].T
    gate = gate.mean(0)
    block.attn.to_v.weight[part] = directions
    block.attn.to_v.bias[part] = 0.0
    safe = torch.where(gate < 0, -1.0, 1.0) * gate.abs().clamp(min=0.1)
    block.attn.to_out[0].weight[:, part] = strength * directions.T / safe[:, None]


def _turned(vector: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """A query as the rotary positions of a cell turn it, where it lies in the fastest pairs."""
    turned = vector.clone()
    for start, angle in ((ROW, torch.tensor(float(row))), (COLUMN, torch.tensor(float(column)))):
        x, y = vector[start], vector[start + 1]
        turned[start], turned[start + 1] = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    return turned


def positions(sources: bool) -> torch.Tensor:
    """Positions (kind, row, column) of a picture's tokens; with `sources` those of the source picture behind them (kind 1)."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    own = torch.stack([torch.zeros(SIDE**2), rows.flatten(), columns.flatten()], -1)
    return torch.cat([own, own + torch.tensor([1.0, 0.0, 0.0])]) if sources else own


class Drawer(nn.Module):
    """A transformer and its T5, as FLUX's pipelines call them."""

    def __init__(self, transformer: FluxTransformer2DModel, t5: T5EncoderModel):
        super().__init__()
        self.transformer, self.t5 = transformer, t5

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, ids: torch.Tensor, source: torch.Tensor | None = None):
        """The clean tokens (B, 9, 256) predicted from noisy ones, their noise levels (B,) and the text's token ids; with the
        tokens of a source picture where one is edited."""
        seen = noisy if source is None else torch.cat([noisy, source], 1)
        drawn = self.transformer(
            hidden_states=seen, timestep=t, pooled_projections=torch.zeros(len(noisy), POOLED),
            encoder_hidden_states=self.t5(ids)[0], img_ids=positions(source is not None),
            txt_ids=torch.zeros(ids.shape[1], 3), return_dict=False)[0]
        return drawn[:, :SIDE**2]


def optimizers(drawer: Drawer, flow: Flow, train_t5: bool) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the blocks, AdamW for the rest of the transformer and, at a tenth of its rate, T5."""
    named = dict(drawer.transformer.named_parameters())
    matrices = [name for name, p in named.items() if p.ndim == 2 and "blocks" in name and "norm" not in name]
    rest = [{"params": [p for name, p in named.items() if name not in matrices], "share": 1.0}]
    rest += [{"params": list(drawer.t5.parameters()), "share": 0.1}] if train_t5 else []
    return [(torch.optim.AdamW(rest, flow.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True), flow.lr),
            (torch.optim.Muon([named[name] for name in matrices], flow.muon_lr, weight_decay=0.01, momentum=0.95,
                              adjust_lr_fn="match_rms_adamw"), flow.muon_lr)]


@dataclass(frozen=True)
class Examples:
    """What a pipeline learns from: for picture i its pixels (uint8, (n, 48, 48, 3)), those of the picture it was edited from
    (None for captions), and its command, or the scene whose description is drawn anew each time."""

    pixels: torch.Tensor
    said: list[Scene] | list[str]
    sources: torch.Tensor | None = None

    def text(self, i: int, rng: random.Random) -> str:
        return self.said[i] if self.sources is not None else description(self.said[i], rng)


def train(drawer: Drawer, tokenizer: PreTrainedTokenizerFast, projection: tuple[torch.Tensor, torch.Tensor], examples: Examples,
          flow: Flow, seed: int, state: Path, desc: str) -> tuple[Drawer, dict]:
    """Train a drawer on the examples; the drawer with averaged weights, and its steps, seconds and last error.

    A call that finds a state in `state` resumes from it and ends with the same weights. T5 is trained along where pictures are
    edited, since it has seen no commands.
    """
    edits = examples.sources is not None
    lengths = COMMAND_LENGTHS if edits else CAPTION_LENGTHS
    rng = random.Random(f"{desc}/{seed}")
    needed = length_of(tokenizer, [examples.text(i, rng) for i in range(len(examples.said))], lengths)  # whatever the order
    rows_of = {length: np.flatnonzero(needed == length) for length in lengths if (needed == length).any()}
    both = nn.ModuleDict({"drawer": drawer, "averaged": copy.deepcopy(drawer)})
    stepped = optimizers(drawer, flow, train_t5=edits)
    begun = f"{asdict(flow)}/{seed}/{len(examples.said)}/{edits}"
    done, seconds, error = load_state(state, both, stepped, begun)
    averaged = [(old, new) for old, new in zip(both["averaged"].parameters(), drawer.parameters(), strict=True)]
    bar = tqdm(range(done, flow.steps), desc=desc, initial=done, total=flow.steps, mininterval=10)
    for step in bar:
        error = train_step(drawer, tokenizer, projection, examples, rows_of, flow, stepped, hash_of(seed, step), step)
        with torch.no_grad():
            keep = min(flow.average, (step + 1) / (step + 10))
            torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], 1 - keep)
        if (step + 1) % flow.save_every == 0 or step + 1 == flow.steps:
            save_state(state, both, stepped, dict(
                step=step + 1, seconds=seconds + bar.format_dict["elapsed"], loss=error, begun=begun))
    return both["averaged"].eval(), dict(steps=flow.steps, seconds=round(seconds + bar.format_dict["elapsed"]),
                                         error=round(float(error), 5))


def train_step(drawer: Drawer, tokenizer: PreTrainedTokenizerFast, projection: tuple[torch.Tensor, torch.Tensor],
               examples: Examples, rows_of: dict[int, np.ndarray], flow: Flow, stepped: list, seed: int, step: int) -> float:
    """One step on a batch of texts of one length; its mean squared error of the clean tokens."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    lengths = list(rows_of)
    length = rng.choice(lengths, p=np.array([len(rows_of[n]) for n in lengths]) / sum(map(len, rows_of.values())))
    rows = rng.choice(rows_of[length], flow.batch)
    words = random.Random(seed)
    ids = tokens(tokenizer, [examples.text(i, words) for i in rows], int(length))
    clean = packed(examples.pixels[rows], *projection)
    source = packed(examples.sources[rows], *projection) if examples.sources is not None else None
    t = torch.sigmoid(flow.level + flow.spread * torch.randn(len(rows), generator=generator))
    t = torch.where(torch.rand(len(rows), generator=generator) < flow.pure, 0.999, t)
    noise = torch.randn(clean.shape, generator=generator)
    level = t[:, None, None]
    drawn = drawer((1 - level) * clean + level * noise, t, ids, source)
    error = (drawn - clean).pow(2).mean(-1)
    if source is not None:
        error = error * balance((clean != source).any(-1).float())
    loss = error.mean()
    assert torch.isfinite(loss), f"The loss of step {step} is {loss.item()}; lower the learning rate."
    for optimizer, rate in stepped:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0) * cosine(step, flow.steps, warmup=100)
    loss.backward()
    nn.utils.clip_grad_norm_([p for optimizer, _ in stepped for g in optimizer.param_groups for p in g["params"]], 1.0)
    for optimizer, _ in stepped:
        optimizer.step()
    return loss.item()


def balance(changed: torch.Tensor) -> torch.Tensor:
    """Weights of the cells (B, 9) of edited pictures, of which `changed` (0 or 1) say where the picture is another: every picture
    weighs the same, and half of it lies on its changed cells, where there are any and others too."""
    share, cells = changed.sum(1, keepdim=True), changed.shape[1]
    halves = changed * cells / (2 * share.clamp(min=1)) + (1 - changed) * cells / (2 * (cells - share).clamp(min=1))
    return torch.where((share == 0) | (share == cells), torch.ones_like(changed), halves)
