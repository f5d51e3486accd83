"""The testbed's models before training: tokenizer, processors and configurations of the real architectures."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from auditdm_lib.answers import LETTERS
from auditdm_lib.boxes import BINS
from auditdm_lib.models.asking import Asking, is_paligemma, save_asking
from auditdm_lib.testbed.language import caption, sample_edit
from auditdm_lib.testbed.render import OVERSAMPLE, SIZE
from auditdm_lib.testbed.scenes import BACKGROUNDS, COLOURS, COLUMNS, NUMBERS, ROWS, SIZES, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, KNOWLEDGE, SKILLS, SLOTS

# PaliGemma has a token for each of 1,024 positions across a picture; these are the ones where things can begin or end.
LOCATIONS = sorted({round(step / (OVERSAMPLE * SIZE) * (BINS - 1)) for step in range(OVERSAMPLE * SIZE + 1)})
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
PATCH = 16  # one patch for each cell of the scene grid; 8 would cost four times the tokens
GEMMA_IMAGE_TOKENS = 9
PALIGEMMA_IMAGE_TOKENS = (SIZE // PATCH) ** 2
SPECIAL = ("<pad>", "<bos>", "<eos>", "<image>", "<start_of_image>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>")
# Gemma's template without the words "user" and "model": in a model this small, every token adds noticeably to the run time.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% if m['content'] is string %}<start_of_turn>{{ m['content'] }}<end_of_turn>{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>{% endif %}{% endfor %}<start_of_turn>"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_turn>{% endif %}"
    "{% else %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{{ m['content'][0]['text'] }}{% endif %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
# The auditor's prompts: for a question (the paper's p_q), for a caption from which another picture is drawn (p_c), and for a
# command that edits this picture (p_e).
PROMPTS = ("Ask a question about this picture.", "Describe this picture with something added.", "Say how to change this picture.")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the world is one token and any other Unicode text can still be encoded."""
    words = [word for words in SLOTS.values() for word in words]
    words += [*COLOURS, *BACKGROUNDS, *SIZES, *ROWS, *COLUMNS, *NUMBERS, *KNOWLEDGE, CANNOT_TELL]
    scenes, rng = sample_scenes(500, "train", "tokenizer"), random.Random(0)
    words += [caption(scene) for scene in scenes] + [sample_edit(scene, rng)[0] for scene in scenes]
    forms = [form.replace("{", " ").replace("}", " ") for skill in SKILLS.values() for form in skill.forms]
    text = forms + [a for skill in SKILLS.values() for a in skill.answers] + words + list(PROMPTS)
    text += ["answer en", "yes no", "on a an small , : . ?", "detect the", "is the answer?", *(f"{mark}." for mark in LETTERS)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=4000, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="left", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        extra_special_tokens={"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>"})
    tokenizer.add_tokens([f"<loc{place:04d}>" for place in LOCATIONS])
    return tokenizer


def build_processor(family: str) -> Gemma3Processor | PaliGemmaProcessor:
    """The processor of a family, 'gemma3' or 'paligemma2', on Pillow (torchvision is not needed)."""
    tokenizer = build_tokenizer()
    if family == "gemma3":
        images = Gemma3ImageProcessorPil(size={"height": SIZE, "width": SIZE}, do_pan_and_scan=False)
        return Gemma3Processor(images, tokenizer, chat_template=CHAT_TEMPLATE, image_seq_length=GEMMA_IMAGE_TOKENS)
    half = [0.5, 0.5, 0.5]
    images = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half)
    images.image_seq_length = PALIGEMMA_IMAGE_TOKENS
    return PaliGemmaProcessor(images, tokenizer)


def vision_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=128, intermediate_size=344, num_hidden_layers=3, num_attention_heads=4, image_size=SIZE, patch_size=PATCH,
        vision_use_head=False)


def build_model(family: str, tokenizer: PreTrainedTokenizerFast, hidden: int = 96, layers: int = 4) -> torch.nn.Module:
    """An untrained model. Models this narrow need a larger initialisation and their own attention scale to learn at all."""
    tokens = {name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("pad", "bos", "eos", "image")}
    text = dict(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=hidden // 4, query_pre_attn_scalar=hidden // 4,
        max_position_embeddings=512, sliding_window=512, initializer_range=0.1,
        pad_token_id=tokens["pad"], bos_token_id=tokens["bos"], eos_token_id=tokens["eos"])
    if family == "gemma3":
        model = Gemma3ForConditionalGeneration(Gemma3Config(
            text_config=Gemma3TextConfig(**text), vision_config=vision_config(), mm_tokens_per_image=GEMMA_IMAGE_TOKENS,
            boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
            eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"), image_token_index=tokens["image"]))
        with torch.no_grad():  # the library initialises it to zero, so nothing would be learnt from images
            model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, vision_config().hidden_size ** -0.5)
    else:
        model = PaliGemmaForConditionalGeneration._from_config(PaliGemmaConfig(
            text_config=Gemma2Config(**text, attn_logit_softcapping=None, final_logit_softcapping=None),
            vision_config=vision_config(), projection_dim=hidden, image_token_index=tokens["image"],
            **{f"{k}_token_id": tokens[k] for k in ("pad", "bos", "eos")}),
            attn_implementation="eager")
    for key in ("pad", "bos", "eos"):
        setattr(model.generation_config, f"{key}_token_id", tokens[key])
    return model


def asking(processor: Gemma3Processor | PaliGemmaProcessor) -> Asking:
    """How a model of the testbed is asked: Gemma3 by the question alone, as in its training; answers have 8 tokens at most."""
    return Asking("answer en {question}" if is_paligemma(processor) else "{question}", max_new_tokens=8)


def save_checkpoint(model: torch.nn.Module, processor, folder: Path) -> None:
    """Write a folder that `load_vlm` loads."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_asking(asking(processor), folder)
