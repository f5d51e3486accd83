"""Tiny checkpoints of real architectures with random weights, made without network or torchvision.

Each builder writes what `save_pretrained` writes for a real model, so the code under test loads it through
`AutoProcessor` and `AutoModelForImageTextToText` and cannot tell the difference. Sizes are the smallest that
the architecture allows; those of `paligemma2` and `gemma3` can be raised for timing.

`llava_onevision` carries the processor of LLaVA-NeXT: its own needs torchvision for videos, and the two
format a still image in the same way.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from auditdm_lib.models.vlm import load_vlm, replies

WORDS = """what which how many is are there the a an of in on to left right above below colour color size row
column things thing many red green blue yellow purple orange pink grey black white sky circle square triangle
star heart cat dog sun cloud umbrella anchor cup yes no cannot tell zero one two three four five six seven
eight nine small large top middle bottom background answer en user model assistant : ? question using
single word or phrase .""".split()

CHAT = ("{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %} {% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}")


# As in llava-hf/llava-1.5-7b-hf: the beginning of the model's turn has no space at its end, its answers begin with one.
LLAVA_CHAT = ("{% for m in messages %}{{ m['role'].upper() }}: "
              "{% for c in m['content'] if c['type'] == 'image' %}<image>\n{% endfor %}"
              "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }} {% endfor %}{% endfor %}"
              "{% if add_generation_prompt %}ASSISTANT:{% endif %}")


def word_tokenizer(specials=(), named=None):
    """A word-level tokenizer of WORDS; `named` are special tokens that also become attributes (boi_token
    ...)."""
    special = list(dict.fromkeys(["<pad>", "<bos>", "<eos>", "<unk>", *specials, *(named or {}).values()]))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(special + WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>", extra_special_tokens=list(specials), **(named or {}))


def metaspace_tokenizer():
    """A tokenizer as LLaMA's: a word's space belongs to the word, and a text begins with a space."""
    special = ["<unk>", "<s>", "</s>", "<image>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(
        [*WORDS, "USER: ASSISTANT:", *"abcdefghijklmnopqrstuvwxyz"],
        trainers.BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
                                   extra_special_tokens=["<image>"])


def _vision(image, patch, hidden):
    return dict(hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
                num_attention_heads=2, image_size=image, patch_size=patch)


def _text(tokenizer, hidden, layers, **extra):
    return dict(vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden,
                num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1,
                max_position_embeddings=512,
                pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, **extra)


def _save(model, processor, folder):
    # `generate` takes its end and pad tokens from here, as in a released checkpoint
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.generation_config, key, getattr(processor.tokenizer, key))
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def paligemma2(folder, seed=0, image=24, patch=8, hidden=16, layers=1, scale=0.1):
    """PaliGemma with a Gemma2 text tower; no chat template. Returns the folder."""
    set_seed(seed)
    tokens = (image // patch) ** 2
    tokenizer = word_tokenizer(named={"image_token": "<image>"})
    processor = PaliGemmaProcessor(
        SiglipImageProcessorPil(size={"height": image, "width": image}, image_seq_length=tokens), tokenizer)
    text = Gemma2Config(**_text(tokenizer, hidden, layers, head_dim=hidden // 2, initializer_range=scale,
                                query_pre_attn_scalar=hidden // 2, sliding_window=512))
    vision = SiglipVisionConfig(**_vision(image, patch, hidden), vision_use_head=False)
    config = PaliGemmaConfig(vision_config=vision, text_config=text, projection_dim=hidden,
                             image_token_index=tokenizer.image_token_id)
    return _save(PaliGemmaForConditionalGeneration(config), processor, folder)


def gemma3(folder, seed=0, image=24, patch=8, hidden=16, layers=1, scale=0.1):
    """Gemma3 with a chat template; its projector, zero when fresh, is initialised. Returns the folder."""
    set_seed(seed)
    named = {"boi_token": "IMAGE", "eoi_token": "<eoi>", "image_token": "<image>"}
    tokenizer, tokens = word_tokenizer(named=named), (image // patch) ** 2
    processor = Gemma3Processor(Gemma3ImageProcessorPil(size={"height": image, "width": image}), tokenizer,
                                chat_template=CHAT, image_seq_length=tokens)
    text = Gemma3TextConfig(**_text(tokenizer, hidden, layers, head_dim=hidden // 2, initializer_range=scale,
                                    query_pre_attn_scalar=hidden // 2, sliding_window=512))
    vision = SiglipVisionConfig(**_vision(image, patch, hidden), vision_use_head=False)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=tokens,
                          boi_token_index=tokenizer.boi_token_id, eoi_token_index=tokenizer.eoi_token_id,
                          image_token_index=tokenizer.image_token_id)
    model = Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, hidden ** -0.5)
    return _save(model, processor, folder)


def idefics3(folder, seed=0, image=32, patch=8, hidden=16, layers=1, scale=0.3):
    """Idefics3, the architecture behind SmolVLM, whose own processor needs torchvision. Returns the folder."""
    set_seed(seed)
    tokenizer = word_tokenizer(["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"])
    size = {"longest_edge": image}
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size=size, max_image_size=size, do_image_splitting=False), tokenizer,
        image_seq_len=(image // patch) ** 2 // 4, chat_template=CHAT.replace("IMAGE", "<image>"))
    config = Idefics3Config(
        text_config=LlamaConfig(**_text(tokenizer, hidden, layers, initializer_range=scale)),
        initializer_range=scale, vision_config=Idefics3VisionConfig(**_vision(image, patch, hidden)), scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=tokenizer.pad_token_id)
    return _save(Idefics3ForConditionalGeneration(config), processor, folder)


def llava_onevision(folder, seed=0, image=24, patch=8, hidden=16, layers=1, scale=0.3):
    """LLaVA-OneVision, which cuts a picture into tiles by its shape. Returns the folder."""
    set_seed(seed)
    tokenizer = word_tokenizer(["<image>"])
    grid = [[image, image], [image, 2 * image], [2 * image, image]]
    processor = LlavaNextProcessor(
        LlavaOnevisionImageProcessorPil(size={"height": image, "width": image}, image_grid_pinpoints=grid),
        tokenizer, patch_size=patch, vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "<image>"))
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_vision(image, patch, hidden), vision_use_head=False),
        text_config=Qwen2Config(**_text(tokenizer, hidden, layers, initializer_range=scale)), image_grid_pinpoints=grid,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=len(tokenizer) + 1)  # no word of this vocabulary is a video
    return _save(LlavaOnevisionForConditionalGeneration(config), processor, folder)


def llava(folder, seed=0, image=24, patch=8, hidden=16, layers=1, scale=0.3):
    """LLaVA-1.5: no padding token, and a tokenizer that joins an answer with the prompt. Returns the folder."""
    set_seed(seed)
    tokenizer = metaspace_tokenizer()
    size = {"height": image, "width": image}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size), tokenizer, patch_size=patch, chat_template=LLAVA_CHAT,
        vision_feature_select_strategy="default", num_additional_image_tokens=1)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision(image, patch, hidden), projection_dim=hidden),
        text_config=LlamaConfig(**_text(tokenizer, hidden, layers, initializer_range=scale)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=(image // patch) ** 2)
    return _save(LlavaForConditionalGeneration(config), processor, folder)


BUILDERS = {"paligemma2": paligemma2, "gemma3": gemma3, "idefics3": idefics3,
            "llava_onevision": llava_onevision, "llava": llava}


def in_few_words(folder, images, questions, words=("yes", "red", "two"), seed=0):
    """Let a random model say one of a few words, by question and picture, and end with it; a whole reply would seldom end.

    The words' weights are random but for the mean of what the model makes of these pictures and questions, by which it would
    always say the same. Two such models agree now and then, so that an audit of them goes through all its stages. Returns the
    folder.
    """
    vlm, states = load_vlm(folder), []
    hook = vlm.model.lm_head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][:, -1]))
    replies(vlm, images, questions, 1)
    hook.remove()
    mean = torch.cat(states).mean(0)
    said = [vlm.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    rows = torch.randn(len(said), len(mean), generator=torch.Generator().manual_seed(seed))
    head = torch.zeros_like(vlm.model.lm_head.weight)
    head[said] = rows + (10 - rows @ mean)[:, None] * mean / mean.square().sum()  # each word's logit is 10 at the mean
    vlm.model.config.tie_word_embeddings = vlm.model.config.text_config.tie_word_embeddings = False
    vlm.model.lm_head.weight = torch.nn.Parameter(head)
    vlm.model.generation_config.eos_token_id = [vlm.processor.tokenizer.eos_token_id, *said]
    vlm.model.save_pretrained(folder)
    return folder
