"""Vision-language models: loaded from a folder or hub id, they answer questions about pictures or sample texts.

Any checkpoint that `AutoProcessor` and `AutoModelForImageTextToText` load can be used. What differs between model families
(a chat template, or PaliGemma's "answer en ..." prefix) is read from the processor, never from the model's name.
"""

import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from auditdm_lib import paths

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class VLM:
    """A loaded model in eval mode, its processor, and the folder or hub id it was loaded from."""

    name: str
    model: PreTrainedModel
    processor: ProcessorMixin


def load_vlm(path: str | Path) -> VLM:
    """Load an image-text-to-text model from a folder (relative to the repository's root) or a hub id.

    Raises FileNotFoundError if there is no such folder, ValueError if it holds no such model or an incomplete one.
    """
    def check(processor: ProcessorMixin) -> None:
        if getattr(processor, "image_processor", None) is None:
            raise ValueError("it has no image processor")
    return VLM(str(path), *load(path, AutoModelForImageTextToText, AutoProcessor, check, "an image-text-to-text model"))


def load(path: str | Path, model_class: type, reader_class: type, check: Callable[[Any], None], kind: str,
         ) -> tuple[PreTrainedModel, Any]:
    """Load a model and its processor or tokenizer (`reader_class`), which `check` tests before the model is loaded.

    The model is in eval mode, set to greedy decoding, on the GPU if there is one; fp32 on a CPU, where bf16 is slower, and the
    checkpoint's own precision on a GPU. Only safetensors are read, and no code of the checkpoint is run. `kind` describes the
    expected model in error messages. Raises FileNotFoundError and ValueError as `load_vlm` does.
    """
    logging.disable_progress_bar()  # otherwise each model shows a bar for a few milliseconds
    source, gpu = paths.resolve(str(path)), torch.cuda.is_available()
    if not Path(source).is_dir() and not HUB_ID.fullmatch(source):
        raise FileNotFoundError(f"No model at {path}: give a folder that holds a checkpoint, or a hub id 'org/name'.")
    try:
        reader = reader_class.from_pretrained(source, trust_remote_code=False)
        check(reader)
        model, info = model_class.from_pretrained(
            source, dtype="auto" if gpu else torch.float32, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} does not load as {kind}; use a checkpoint that {reader_class.__name__} and "
                         f"{model_class.__name__} can load ({reason})") from error
    if info["missing_keys"] or info["mismatched_keys"]:  # transformers would initialise these at random
        faulty = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise ValueError(f"{path} lacks {len(faulty)} of its tensors ({faulty[0]} ...): the checkpoint is incomplete or of "
                         "another architecture; save it again with save_pretrained.")
    generation = model.generation_config
    generation.do_sample, generation.temperature, generation.top_p, generation.top_k = False, None, None, None
    return model.eval().to("cuda" if gpu else "cpu"), reader


def as_data(tokenizer, text: str) -> str:
    """`text` with the strings of special tokens broken up by spaces, and lone surrogates replaced."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, " ".join(token))
    return text.encode("utf-8", "replace").decode("utf-8")


def prompt(vlm: VLM, question: str) -> str:
    """The model's input text for `question`: its chat template, or PaliGemma's format if it has none.

    The question may be any text; it is treated as data (`as_data`).
    """
    question = as_data(vlm.processor.tokenizer, question)
    if vlm.processor.chat_template is None:
        return f"{vlm.processor.image_token}answer en {question}"
    content = [{"type": "image"}, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    return vlm.processor.apply_chat_template(turns, add_generation_prompt=True)


def encode(vlm: VLM, images: list[Image.Image], texts: list[str], padding_side: str, **kwargs):
    """Model inputs with one image and one text per row, padded: input_ids (B, T), pixel_values, ..."""
    bos = vlm.processor.tokenizer.bos_token
    batch = vlm.processor(
        images=[[image.convert("RGB")] for image in images], text=texts, padding=True,
        padding_side=padding_side, return_tensors="pt",
        add_special_tokens=not (bos and texts[0].startswith(bos)),  # not twice, if the template adds <bos>
        **kwargs)
    return batch.to(vlm.model.device, vlm.model.dtype)


@torch.inference_mode()
def answer(vlm: VLM, images: list[Image.Image], questions: list[str], max_new_tokens: int = 8,
           batch_size: int = 128, desc: str | None = None) -> list[str]:
    """The model's greedy answers to question i about image i, in order, with a progress bar named `desc` if given.

    Identical pairs are answered once. Rows are left-padded, so an answer does not depend on its batch.
    Raises ValueError if the two lists differ in length.
    """
    if len(images) != len(questions):
        raise ValueError(f"{len(images)} images but {len(questions)} questions: give one for each.")
    pairs = list(zip(_fingerprints(images), questions, strict=True))
    distinct = dict(zip(pairs, images, strict=True))  # (fingerprint, question) -> image
    todo = sorted(distinct, key=lambda pair: len(pair[1]))  # sorted by length, for less padding
    answers = {}
    for i in tqdm(range(0, len(todo), batch_size), desc=desc, disable=desc is None):
        batch = todo[i:i + batch_size]
        inputs = encode(vlm, [distinct[pair] for pair in batch], [prompt(vlm, q) for _, q in batch], "left")
        inputs.pop("labels", None)  # PaliGemma's processor always adds them
        tokens = vlm.model.generate(**inputs, max_new_tokens=max_new_tokens)[:, inputs["input_ids"].shape[1]:]
        texts = vlm.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        answers.update(zip(batch, (text.strip() for text in texts), strict=True))
    return [answers[pair] for pair in pairs]


def _fingerprints(images: list[Image.Image]) -> list[bytes]:
    """The sha256 of each picture's pixels; an object that occurs several times in the list is hashed once."""
    seen = {id(image): image for image in images}
    digest = {key: hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
              for key, image in seen.items()}
    return [digest[id(image)] for image in images]


@torch.no_grad()
def sample(auditor: VLM, images: list[Image.Image], instruction: str, temperature: float, seed: int, max_new_tokens: int,
        batch_size: int = 128, desc: str | None = "questions") -> pd.DataFrame:
    """One sampled text per image: text, ended (whether it reached its end token within `max_new_tokens`)."""
    torch.manual_seed(seed)
    tokenizer, text = auditor.processor.tokenizer, prompt(auditor, instruction)
    config = copy.deepcopy(auditor.model.generation_config)
    config.update(do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens)
    ends = set(np.atleast_1d(config.eos_token_id).tolist())
    rows = []
    for i in tqdm(range(0, len(images), batch_size), desc=desc, disable=desc is None):
        batch = images[i:i + batch_size]
        inputs = encode(auditor, batch, [text] * len(batch), "left")
        inputs.pop("labels", None)
        tokens = auditor.model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1]:]
        sampled = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        rows += [dict(text=t.strip(), ended=bool(ends.intersection(ids)))
                 for t, ids in zip(sampled, tokens.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["text", "ended"])
