"""Tiny checkpoints of real architectures with random weights, made without network or torchvision.

Each builder writes what `save_pretrained` writes for a real model, so the code under test loads it through
`AutoProcessor` and `AutoModelForImageTextToText` and cannot tell the difference. Sizes are the smallest that
the architecture allows; those of `paligemma2` and `gemma3` can be raised for timing.

The processors of LLaVA-OneVision, SmolVLM, Qwen2.5-VL, Qwen3-VL and InternVL need torchvision, for videos (SmolVLM's num2words,
too). Without it these carry the processor of another family that formats a still image in the same way.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AyaVisionProcessor,
    CLIPVisionConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaProcessor,
    PaddleOCRVLProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.utils import is_num2words_available, is_torchvision_available

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
    tokenizer = word_tokenizer(["<image>", "<video>"])
    grid = [[image, image], [image, 2 * image], [2 * image, image]]
    pictures = LlavaOnevisionImageProcessorPil(size={"height": image, "width": image}, image_grid_pinpoints=grid)
    how = dict(vision_feature_select_strategy="full", chat_template=CHAT.replace("IMAGE", "<image>"))
    if is_torchvision_available():
        from transformers import LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

        processor = LlavaOnevisionProcessor(pictures, tokenizer, LlavaOnevisionVideoProcessor(),
                                            num_image_tokens=(image // patch) ** 2, **how)
    else:
        processor = LlavaNextProcessor(pictures, tokenizer, patch_size=patch, **how)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_vision(image, patch, hidden), vision_use_head=False),
        text_config=Qwen2Config(**_text(tokenizer, hidden, layers, initializer_range=scale)), image_grid_pinpoints=grid,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"))
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


def smolvlm(folder, seed=0, image=32, patch=8, hidden=16, layers=1, scale=0.3):
    """SmolVLM, an Idefics3 whose processor also reads videos. Returns the folder."""
    set_seed(seed)
    tokenizer = word_tokenizer(["<end_of_utterance>"], named={
        "fake_image_token": "<fake_token_around_image>", "image_token": "<image>", "global_image_token": "<global-img>"})
    size, tokens = {"longest_edge": image}, (image // patch) ** 2 // 4
    pictures = dict(size=size, max_image_size=size, do_image_splitting=False)
    how = dict(image_seq_len=tokens, chat_template=CHAT.replace("IMAGE", "<image>"))
    if is_torchvision_available() and is_num2words_available():
        from transformers import SmolVLMProcessor, SmolVLMVideoProcessor

        processor = SmolVLMProcessor(SmolVLMImageProcessorPil(**pictures), tokenizer,
                                     SmolVLMVideoProcessor(max_image_size=size, size=size), **how)
    else:
        processor = Idefics3Processor(Idefics3ImageProcessorPil(**pictures), tokenizer, **how)
    config = SmolVLMConfig(
        text_config=LlamaConfig(**_text(tokenizer, hidden, layers, initializer_range=scale)), scale_factor=2,
        initializer_range=scale, vision_config=_vision(image, patch, hidden), image_token_id=tokenizer.image_token_id,
        pad_token_id=tokenizer.pad_token_id)
    return _save(SmolVLMForConditionalGeneration(config), processor, folder)


def _qwen(folder, seed, image, patch, hidden, layers, scale, own, classes, vision, text):
    """A Qwen-VL: `own` names its processor, `classes` its configuration and model, `vision` and `text` what is special."""
    set_seed(seed)
    tokenizer = word_tokenizer(named={"vision_start_token": "<|vision_start|>", "image_token": "<|image_pad|>",
                                      "vision_end_token": "<|vision_end|>", "video_token": "<|video_pad|>"})
    size = {"shortest_edge": image ** 2, "longest_edge": image ** 2}
    pictures = Qwen2VLImageProcessorPil(size=size, patch_size=patch)
    how = dict(chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"))
    if is_torchvision_available():
        import transformers

        processor, video = (getattr(transformers, name) for name in own)
        processor = processor(pictures, tokenizer, video(size=size, patch_size=patch), **how)
    else:
        processor = PaddleOCRVLProcessor(pictures, tokenizer, **how)
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id")
           for name in ("vision_start_token", "vision_end_token", "image_token", "video_token")}
    config = classes[0](
        **ids, initializer_range=scale, tie_word_embeddings=False,
        vision_config=dict(depth=2, hidden_size=hidden, intermediate_size=2 * hidden, num_heads=2, patch_size=patch,
                           out_hidden_size=hidden, initializer_range=scale, **vision),
        text_config=_text(tokenizer, hidden, layers, initializer_range=scale, **text))
    return _save(classes[1](config), processor, folder)


def qwen2_5_vl(folder, seed=0, image=32, patch=4, hidden=16, layers=1, scale=0.3):
    """Qwen2.5-VL, whose pictures have as many tokens as their size asks for. Returns the folder."""
    return _qwen(folder, seed, image, patch, hidden, layers, scale, ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
                 (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), dict(window_size=4 * patch, fullatt_block_indexes=[1]),
                 dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2])))


def qwen3_vl(folder, seed=0, image=32, patch=4, hidden=16, layers=1, scale=0.3):
    """Qwen3-VL, which adds features of several layers of its vision tower. Returns the folder."""
    return _qwen(folder, seed, image, patch, hidden, layers, scale, ("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
                 (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
                 dict(num_position_embeddings=(image // patch) ** 2, deepstack_visual_indexes=[0]),
                 dict(head_dim=hidden // 2, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 1, 1])))


def internvl(folder, seed=0, image=24, patch=6, hidden=16, layers=1, scale=0.3):
    """InternVL, which cuts a picture into tiles by its shape. Returns the folder."""
    set_seed(seed)
    tokenizer = word_tokenizer(named={"start_image_token": "<img>", "end_image_token": "</img>",
                                      "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"})
    tokens = (image // patch) ** 2 // 4
    pictures = GotOcr2ImageProcessorPil(size={"height": image, "width": image}, crop_to_patches=True, max_patches=2)
    template = CHAT.replace("IMAGE", "<IMG_CONTEXT>")
    if is_torchvision_available():
        from transformers import InternVLProcessor, InternVLVideoProcessor

        processor = InternVLProcessor(pictures, tokenizer, InternVLVideoProcessor(size={"height": image, "width": image}),
                                      image_seq_length=tokens, chat_template=template)
    else:
        processor = AyaVisionProcessor(
            pictures, tokenizer, patch_size=patch, img_size=image, downsample_factor=2, image_token="<IMG_CONTEXT>",
            img_patch_token="<IMG_CONTEXT>", start_of_img_token="<img>", end_of_img_token="</img>", tile_token="<img>",
            tile_global_token="<img>", chat_template=template)
    config = InternVLConfig(
        vision_config=_vision(image, patch, hidden) | dict(initializer_range=scale),
        text_config=Qwen2Config(**_text(tokenizer, hidden, layers, initializer_range=scale)), image_seq_length=tokens,
        image_token_id=tokenizer.context_image_token_id, tie_word_embeddings=False)
    return _save(InternVLForConditionalGeneration(config), processor, folder)


BUILDERS = {"paligemma2": paligemma2, "gemma3": gemma3, "idefics3": idefics3, "llava_onevision": llava_onevision,
            "llava": llava, "smolvlm": smolvlm, "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "internvl": internvl}


def in_few_words(folder, images, questions, words=("yes", "red", "two"), seed=0, first=0.0, bare=False):
    """Let a random model say one of a few words, by question and picture, and end with it; a whole reply would seldom end.

    The words' weights are random but for the mean of what the model makes of these pictures and questions, by which it would
    always say the same. Two such models agree now and then, so that an audit of them goes through all its stages; more often
    where both say the first word in a share `first` of these questions. `bare` questions are an auditor's prompts. Returns the
    folder.
    """
    vlm, states = load_vlm(folder), []
    hook = vlm.model.lm_head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][:, -1]))
    replies(vlm, images, questions, 1, bare=bare)
    hook.remove()
    seen = torch.cat(states)  # (questions, hidden)
    mean = seen.mean(0)
    said = [vlm.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    rows = torch.randn(len(said), len(mean), generator=torch.Generator().manual_seed(seed))
    toward = mean / mean.square().sum()
    rows += (10 - rows @ mean)[:, None] * toward  # each word's logit is 10 at the mean
    if first:
        logits = seen @ rows.T
        rows[0] += (logits[:, 1:].amax(1) - logits[:, 0]).quantile(first) * toward
    head = torch.zeros_like(vlm.model.lm_head.weight)
    head[said] = rows
    vlm.model.config.tie_word_embeddings = vlm.model.config.text_config.tie_word_embeddings = False
    vlm.model.lm_head.weight = torch.nn.Parameter(head)
    vlm.model.generation_config.eos_token_id = [vlm.processor.tokenizer.eos_token_id, *said]
    vlm.model.save_pretrained(folder)
    return folder
