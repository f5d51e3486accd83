"""How large a vision-language model is and what it takes, computed from its config.json: parameters, memory, arithmetic.

Nothing is loaded and torch is not imported. Parameters are counted in the headers of the weights, where they are there, or by
the shapes of the layers of Gemma2, Gemma3 and SigLIP in transformers; tests hold them against the built classes. Memory counts
the tensors that torch keeps: weights, gradients, AdamW's two moments, what autograd saves for the backward pass in each layer
(read from the code of the same classes; the method of Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models", section 4), the logits, and the cache of keys and values. Arithmetic is 2 operations per weight and token
forward, twice that backward, plus attention (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1).
"""

import json
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

FLOAT32 = 4  # bytes
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "F64": 8, "F32": 4, "BF16": 2, "F16": 2}
VISION = re.compile(r"(^|\.)vis(ion|ual)")  # in the name of a weight, as in `trainings.load_for_training`
PHOTOGRAPH = (640, 480)  # pixels of a picture, for towers that take any size (our choice: what most of COCO's have)
CHUNK = 32768  # columns of the vocabulary, `trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE`
GEMMA = {"gemma": 2, "gemma2": 4, "gemma3_text": 4}  # text tower -> norms in a layer
EAGER = {"gemma2"}  # towers that transformers runs without a fused attention, since that cannot cap the scores
DEFAULTS = {  # what a config.json may leave out, from the configuration classes of transformers
    "gemma": {"head_dim": 256, "num_key_value_heads": 16, "vocab_size": 256000},
    "gemma2": {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256000,
               "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096},
    "gemma3_text": {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208,
                    "sliding_window": 4096}}


@dataclass(frozen=True)
class Shape:
    """The sizes of a vision-language model: of its text tower, its vision tower, and how many tokens a picture becomes."""

    family: str  # model_type
    hidden: int
    layers: int
    inner: int  # width of the feed-forward layers
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norms: int  # per layer
    head_norms: bool  # queries and keys are normalised
    eager: bool  # attention scores are kept in memory
    score_cap: bool  # attention scores pass through a tanh
    logit_cap: bool
    v_hidden: int
    v_layers: int
    v_inner: int
    patches: int
    image_size: int  # pixels
    image_tokens: int
    parameters: int | None
    vision_parameters: int | None
    stored: int  # bytes of a parameter in the checkpoint

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim


# What a model is

def read_shape(config: dict, folder: Path | None = None) -> Shape | None:
    """The shape that a config.json describes; its parameters are counted in the weights of `folder`, if they are there.

    None for a config without the sizes of a text tower. `parameters` is None where neither weights nor a formula give it.
    """
    text = config.get("text_config") or config
    kind = text.get("model_type", "")
    text = DEFAULTS.get(kind, {}) | {name: value for name, value in text.items() if value is not None or "softcapping" in name}
    if not {"hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size"} <= text.keys():
        return None
    vision = config.get("vision_config") or {}
    image, patch = vision.get("image_size"), vision.get("patch_size") or 1
    width, height = (image, image) if isinstance(image, int) else PHOTOGRAPH if vision else (0, 0)
    patches = (width // patch) * (height // patch)
    heads = text["num_attention_heads"]
    shape = Shape(
        family=config.get("model_type", ""), hidden=text["hidden_size"], layers=text["num_hidden_layers"],
        inner=text["intermediate_size"], heads=heads, kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads, vocabulary=text["vocab_size"], norms=GEMMA.get(kind, 2),
        head_norms=kind == "gemma3_text", eager=kind in EAGER, score_cap=bool(text.get("attn_logit_softcapping")),
        logit_cap=bool(text.get("final_logit_softcapping")), v_hidden=vision.get("embed_dim") or vision.get("hidden_size") or 0,
        v_layers=vision.get("num_hidden_layers") or vision.get("depth") or 0, v_inner=vision.get("intermediate_size") or 0,
        patches=patches, image_size=width, image_tokens=_image_tokens(config, vision, patches), parameters=None,
        vision_parameters=None, stored=BYTES.get(config.get("dtype") or config.get("torch_dtype") or "bfloat16", 2))
    counted = in_weights(folder) if folder else None
    if counted is None and kind in GEMMA and vision.get("model_type") == "siglip_vision_model":
        counted = (*by_formula(shape, patch), shape.stored)
    return with_parameters(shape, *counted) if counted else shape


def _image_tokens(config: dict, vision: dict, patches: int) -> int:
    """How many tokens a picture becomes; of those that are cut into tiles, one tile."""
    merged = (config.get("scale_factor") or vision.get("spatial_merge_size") or 1) ** 2  # Idefics3, Qwen-VL
    return config.get("mm_tokens_per_image") or round(patches * config.get("downsample_ratio", 1) ** 2 / merged)  # InternVL


def with_parameters(shape: Shape, parameters: int, vision: int, stored: int) -> Shape:
    """The shape with its counts of parameters and the bytes of one."""
    return replace(shape, parameters=parameters, vision_parameters=vision, stored=stored)


def by_formula(shape: Shape, patch: int) -> tuple[int, int]:
    """Parameters of a Gemma text tower (its head tied to its embedding) with a SigLIP vision tower: all, and the latter's."""
    h, d, i = shape.hidden, shape.v_hidden, shape.v_inner
    layer = h * (2 * shape.queries + 2 * shape.keys + 3 * shape.inner + shape.norms) + 2 * shape.head_dim * shape.head_norms
    text = shape.vocabulary * h + shape.layers * layer + h
    vision = (3 * patch ** 2 + 1 + shape.patches + 2) * d + shape.v_layers * (4 * d * (d + 1) + 2 * d * i + i + 5 * d)
    projector = d * h + (d if shape.head_norms else h)  # Gemma3's has a norm, PaliGemma's a bias
    return text + vision + projector, vision


def in_weights(folder: Path) -> tuple[int, int, int] | None:
    """Parameters in the safetensors files of a folder: all, those of the vision tower, and bytes of one; None without files."""
    total = vision = size = 0
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as opened:
            header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for side in tensor["shape"]:
                    count *= side
                total, vision = total + count, vision + count * bool(VISION.search(name))
                size += count * BYTES.get(tensor["dtype"], 1)
    return (total, vision, max(1, round(size / total))) if total else None


def built(folder: Path) -> tuple[int, int, int] | None:
    """As `in_weights`, for a folder that has a config.json only: of its class, built without memory for its weights.

    It takes seconds, and is for architectures whose parameters no formula here gives. None where transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such class, or not one that sees pictures
        return None
    counts = {name: weight.numel() for name, weight in model.named_parameters()}
    vision = sum(count for name, count in counts.items() if VISION.search(name))
    return sum(counts.values()), vision, BYTES.get(str(config.dtype or "bfloat16").removeprefix("torch."), 2)


# Memory, in bytes

def forward_memory(shape: Shape, size: int, batch: int, text: int, new: int = 0, sampled: bool = False) -> int:
    """Memory above the weights of a pass without gradients: `batch` pictures with `text` tokens each, numbers of `size` bytes.

    With `new` above 0, of generating so many tokens: only the last token has logits, of which a `sampled` one needs more
    copies, and keys and values are kept for all. The peak is that of the vision tower, or of the feed-forward part, the
    attention or the logits of the text tower.
    """
    length, tokens = shape.image_tokens + text, batch * (shape.image_tokens + text)
    cache = 2 * size * shape.layers * shape.keys * tokens
    seen = batch * size * (shape.image_tokens * shape.hidden + shape.patches * shape.v_hidden)  # the picture's features
    held = 4 * tokens * size * shape.hidden  # the embeddings, the layer's input, the residual and its norm
    square = tokens * length * shape.eager
    scores = square * size * (shape.heads + 2)  # a layer holds its scores to its end; two masks
    feed_forward = held + 3 * tokens * size * shape.inner + scores
    attention = held + 4 * tokens * size * shape.queries + scores + square * shape.heads * FLOAT32
    copies = FLOAT32 * (4 if sampled else 2) if new else size * shape.logit_cap
    logits = (batch if new else tokens) * shape.vocabulary * (size + copies)
    grown = 2 * size * shape.layers * shape.keys * batch * new
    return max(vision_memory(shape, size, batch), cache + seen + max(feed_forward, attention, logits), cache + grown + logits)


def vision_memory(shape: Shape, size: int, batch: int) -> int:
    """Memory of the vision tower on `batch` pictures, without gradients, above the weights."""
    return batch * shape.patches * size * (4 * shape.v_hidden + max(2 * shape.v_inner, 4 * shape.v_hidden))


def saved_per_token(shape: Shape, size: int, length: int, rank: int) -> float:
    """Bytes that autograd saves in one layer of the text tower for each token of a text of `length` tokens.

    `rank` 0 trains all weights, else LoRA on every linear layer. `size` are the bytes of a number that is computed with. If they
    are not float32's, each linear layer keeps an input of its own: what torch.autocast made of it, or what its adapter reads.
    """
    h, i, a, k, full = shape.hidden, shape.inner, shape.queries, shape.keys, rank == 0
    norm = FLOAT32 * (2 if full else 1)  # the input, and what is multiplied by a trained weight
    saved = norm * (shape.norms * h + (a + k) * shape.head_norms)
    saved += size * ((2 if size == FLOAT32 else 5) * h + a + i)  # inputs of the linear layers: shared by those that have the same
    saved += size * 3 * i  # gate, activated gate, up
    saved += size * a + 2 * size * (k if shape.heads == shape.kv_heads else a)  # queries, keys and values
    if shape.eager:
        saved += shape.heads * length * (FLOAT32 + (size if size < FLOAT32 else 0) + size * shape.score_cap)
    elif not (full or size == FLOAT32):
        saved += size * a  # the result of the fused attention
    return saved


def training_memory(shape: Shape, size: int, batch: int, text: int, rank: int, completion: int = 0, gpu: bool = False,
                    parts: int = 1, checkpointing: bool = False) -> dict[str, int]:
    """Memory of one training step above the weights, by its parts, for `batch` examples of a picture and `text` tokens.

    `size` are the bytes of a number that is computed with. What is trained is in float32, and so are its gradient and its two
    moments; if all weights are, torch.autocast keeps a copy of each to compute with. The vision tower is frozen, as in stages 01
    and 04. With `completion` above 0 it is a step of GRPO on so many of the tokens. The examples are taken in `parts` equal
    parts, between which the gradients stay; with `checkpointing` only the input of each layer is kept, and one layer's other
    activations are there at a time. The step's peak is the larger of two moments: the loss, with all activations, and the end of
    the backward pass, with all gradients: the embedding, which is also the head, then has two and their sum, beside that of
    earlier parts. The update needs nothing more (AdamW is fused, as `Trainer` has it by default).
    """
    length, mixed, batch = shape.image_tokens + text, size < FLOAT32, -(-batch // parts)
    trained = FLOAT32 * (adapter_parameters(shape, rank) if rank else shape.parameters - shape.vision_parameters)
    copies = size * (shape.parameters - shape.vision_parameters) * (mixed and not rank)
    layer = batch * length * saved_per_token(shape, size, length, rank)
    kept = batch * length * shape.hidden * (size if rank else FLOAT32)  # the input of a layer
    layers = round(shape.layers * (kept if checkpointing else layer))
    head = 0 if rank else shape.vocabulary * shape.hidden * FLOAT32
    if completion:
        at_loss = policy_memory(shape, batch * (completion if gpu else length - 1), gpu) + head
    else:
        rows, cap = batch * length * shape.vocabulary, size * shape.logit_cap
        at_loss = max(rows * (size + FLOAT32 * (2 if mixed else 1) + cap), rows * (3 * FLOAT32 + cap),
                      rows * (size + cap) + head)
    if checkpointing:
        gradients = batch * length * size * (shape.hidden + 2 * shape.inner)  # of the layer that is computed again
        at_loss = max(at_loss, round(layer) + gradients + head)
    stays = trained * (parts > 1)
    at_end = trained + (3 if stays else 2) * head
    return {"optimiser": 2 * trained, "activations": layers + at_loss, "gradients": trained,
            "peak": 2 * trained + max(stays + copies + layers + at_loss, at_end, vision_memory(shape, size, batch))}


def policy_memory(shape: Shape, rows: int, gpu: bool) -> int:
    """Memory of the log-probabilities of `rows` tokens in TRL 1.16, which takes the vocabulary in CHUNK columns at a time.

    On a GPU a kernel works within the chunk; elsewhere seven more tensors of it are made (`trl`'s `add_fused_lm_head`).
    """
    return rows * FLOAT32 * (CHUNK + (0 if gpu else 7 * min(shape.vocabulary, CHUNK)))


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Parameters of LoRA of a rank on every linear layer of the text tower (`examples.language_layers`)."""
    h, i, a, k = shape.hidden, shape.inner, shape.queries, shape.keys
    return shape.layers * rank * ((h + a) * 2 + (h + k) * 2 + (h + i) * 3)


# Arithmetic, in floating-point operations

def forward_flops(shape: Shape, text: int, logits: int | None = None) -> float:
    """Operations of one pass over a picture and `text` tokens; `logits` tokens have logits (all by default)."""
    length = shape.image_tokens + text
    head = shape.vocabulary * shape.hidden
    layers = max(shape.parameters - shape.vision_parameters - head, 0)
    scores = 4 * shape.layers * shape.queries * length ** 2
    return vision_flops(shape) + 2 * layers * length + scores + 2 * head * (length if logits is None else logits)


def vision_flops(shape: Shape) -> float:
    """Operations of the vision tower on one picture."""
    return 2 * shape.vision_parameters * shape.patches + 4 * shape.v_layers * shape.v_hidden * shape.patches ** 2


def token_flops(shape: Shape, length: int) -> float:
    """Operations of one more token after `length` others, which are in the cache."""
    return 2 * (shape.parameters - shape.vision_parameters) + 4 * shape.layers * shape.queries * length


def training_flops(shape: Shape, text: int, rank: int, logits: int | None = None) -> float:
    """Operations of one example of a training step; the vision tower is frozen, and LoRA needs no gradients of the weights."""
    alone = vision_flops(shape)
    return alone + (forward_flops(shape, text, logits) - alone) * (2 if rank else 3)
