"""The text encoders of the testbed's drawing pipelines: a tokenizer of phrases, a small T5, and a CLIP that says nothing.

A token stands for a phrase, such as "large red", "striped star" or "top left", so a caption of five things has sixteen tokens
and a command six. FLUX reads the caption from T5, and from CLIP only one vector for the whole text; a scene is the sum of its
phrases, so that vector is zero here.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from auditdm_lib.testbed.language import ALSO_PLACES, IN_WEATHER, OVER, PLACES, SHOWN, caption, noun_phrase, sample_edit
from auditdm_lib.testbed.scenes import (
    BACKGROUNDS,
    COLOURS,
    COLUMNS,
    DETAILS,
    KINDS,
    MATERIALS,
    ROWS,
    SHAPES,
    SIZES,
    WEATHERS,
    Scene,
    sample_scenes,
)
from auditdm_lib.testbed.training import IGNORE, cosine
from auditdm_lib.testbed.vision import CELL_LABELS, SCENE_LABELS, dense_labels

WIDTH, LAYERS, HEADS = 160, 2, 4
CAPTION_LENGTHS, COMMAND_LENGTHS = (16, 24, 32), (8, 16)  # tokens to which a text is padded: the least that holds it
# The offset, in tokens, that each head of T5 prefers at the start, by its bucket of relative positions: the two tokens before,
# the one after, and the token itself. Phrases of one thing stand side by side; without this start T5 needs twenty times as long
# to find that out.
PREFERRED, STRENGTH = (1, 2, 17, 0), 5.0
# Labels of a cell that its phrase states (not whether a thing is covered, and row and column are the phrase's own)
STATED = tuple(name for name in CELL_LABELS if name not in ("present", "row", "column", "covered"))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of phrases: groups of words that a caption or command uses together, else single words; articles and commas
    are left out, and other words are <unk>."""
    kinds = [kind + SHOWN[kind].format(detail) for kind, details in DETAILS.items() for detail in details]
    kinds += [*KINDS, *(f"{material} {shape}" for material in MATERIALS[1:] for shape in SHAPES)]
    groups = [f"on {background}{weather}" for background in BACKGROUNDS for weather in IN_WEATHER]
    groups += [f"over its {word} neighbour" for word in OVER] + [f"{size} {colour}" for size in SIZES for colour in COLOURS]
    groups += kinds + [name for name in (*PLACES, *ALSO_PLACES) if " " in name]
    longest_first = "|".join(sorted(groups, key=lambda words: (-len(words), words)))
    backend = Tokenizer(models.WordLevel({}, "<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"\b(?:{longest_first})\b|\b(?!(?:an?|the)\b)\w+|[^\w\s,:.]"), "removed", invert=True)
    words = {*groups, *SIZES, *COLOURS, *MATERIALS, *BACKGROUNDS, *WEATHERS, *ROWS, *COLUMNS}
    words |= {word for details in DETAILS.values() for word in details}
    rng = random.Random(0)
    for scene in sample_scenes(4000, "train", "phrases"):
        for text in (caption(scene), sample_edit(scene, rng)[0]):
            words |= {word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)}
    special = ["<pad>", "</s>", "<unk>"]
    backend.model = models.WordLevel({word: i for i, word in enumerate([*special, *sorted(words)])}, "<unk>")
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=CAPTION_LENGTHS[-1])


def build_t5(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    t5 = T5EncoderModel(T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=32, d_ff=2 * WIDTH, num_layers=LAYERS, num_heads=HEADS, dropout_rate=0.0,
        relative_attention_num_buckets=32, relative_attention_max_distance=64, feed_forward_proj="relu",
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id))
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        for head, bucket in enumerate(PREFERRED):
            bias[bucket, head] += STRENGTH
    return t5


def build_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """The smallest CLIP text encoder, whose vector for a text is always zero."""
    clip = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=CAPTION_LENGTHS[-1], bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))
    final = next(module for name, module in clip.named_modules() if name.endswith("final_layer_norm"))
    nn.init.zeros_(final.weight)
    nn.init.zeros_(final.bias)
    return clip


def tokens(tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int) -> torch.Tensor:
    """Token ids (texts, length), as FLUX's pipelines make them: padded to `length`, cut off behind it."""
    return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def length_of(tokenizer: PreTrainedTokenizerFast, texts: list[str], lengths: tuple[int, ...]) -> np.ndarray:
    """The least of `lengths` that holds each text, or the last of them."""
    needed = [len(ids) for ids in tokenizer(texts).input_ids]
    return np.array([next((length for length in lengths if length >= n), lengths[-1]) for n in needed])


def description(scene: Scene, rng: random.Random) -> str:
    """A caption as an auditor writes it: up to two things, which it might have added, come last, in any order."""
    things = list(scene.things)
    late = rng.sample(things, min(rng.randrange(3), len(things)))
    head = caption(scene).partition(":")[0]
    phrases = [noun_phrase(thing) for thing in [*(t for t in things if t not in late), *late]]
    return f"{head}: {', '.join(phrases) or 'nothing'}"


def place_tokens(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """The token of each cell's place, (9,)."""
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(PLACES)))


def train_t5(t5: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, scenes: list[Scene], steps: int = 400, seed: int = 0,
             batch: int = 64, rate: float = 3e-3) -> float:
    """Teach T5 to gather a thing's phrases at the token of its place, where linear heads must tell what stands in that cell,
    and the scene at the first token; returns the last loss. It takes half a minute and spares the transformer the grammar."""
    places, rng = place_tokens(tokenizer), random.Random(f"t5/{seed}")
    sizes = [CELL_LABELS[name] for name in STATED] + [len(PLACES)]
    heads = nn.ModuleList([nn.Linear(WIDTH, sum(sizes)), nn.Linear(WIDTH, sum(SCENE_LABELS.values()))])
    optimizer = torch.optim.AdamW([*t5.parameters(), *heads.parameters()], rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step in tqdm(range(steps), desc="T5", mininterval=5):
        optimizer.param_groups[0]["lr"] = rate * cosine(step, steps)
        seen = rng.sample(scenes, batch)
        ids = tokens(tokenizer, [description(scene, rng) for scene in seen], CAPTION_LENGTHS[-1])
        cells, whole = dense_labels(seen)
        states = t5(ids)[0]
        picture, token, cell = (ids[..., None] == places).nonzero(as_tuple=True)
        logits = heads[0](states[picture, token]).split(sizes, -1)
        labels = [*(cells[name][picture, cell] for name in STATED), cell]
        loss = sum(F.cross_entropy(one, right, ignore_index=IGNORE)
                   for one, right in zip(logits, labels, strict=True) if (right != IGNORE).any())
        of_scene = heads[1](states[:, 0]).split(list(SCENE_LABELS.values()), -1)
        loss = loss + sum(F.cross_entropy(one, whole[name]) for one, name in zip(of_scene, SCENE_LABELS, strict=True))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(t5.parameters(), 1.0)
        optimizer.step()
    return loss.item()
