"""Training examples as model inputs with labels, and the layers that LoRA adapts."""

from collections.abc import Callable

import torch
from peft import LoraConfig

from auditdm_lib.models.asking import is_paligemma, turn
from auditdm_lib.models.vlm import VLM, encode, prompt


def collate(vlm: VLM, rows: list[dict], asked: Callable[[VLM, str], str] = prompt) -> dict[str, torch.Tensor]:
    """One training batch of image, question and answer; labels (B, T) are -100 except on the answer and its end token.

    `asked` turns a question into the model's input: `prompt` for an instruction, `put` for a question to be answered shortly.
    The answer is where its characters are, since a tokenizer may join its beginning with what precedes it.
    """
    images, answers = [row["image"] for row in rows], [row["answer"] for row in rows]
    prompts = [asked(vlm, row["question"]) for row in rows]
    if is_paligemma(vlm.processor):  # its `suffix` is causal, and adds <eos> and labels
        return encode(vlm, images, prompts, "right", suffix=answers)
    lead, end = turn(vlm.processor)
    answers = [lead + answer + end for answer in answers]
    texts = [text + answer for text, answer in zip(prompts, answers, strict=True)]
    batch = encode(vlm, images, texts, "right", return_offsets_mapping=True)
    ends = batch.pop("offset_mapping")[..., 1]  # (B, T): the place after each token's last character, in a text with its image
    lengths = torch.tensor([len(answer) for answer in answers], device=ends.device)
    begins = ends.amax(1, keepdim=True) - lengths[:, None]
    in_answer = (ends > begins).cumsum(1).bool() & batch["attention_mask"].bool()  # from its first token to the last one
    batch["labels"] = batch["input_ids"].masked_fill(~in_answer, -100)
    return batch


def language_layers(model: torch.nn.Module) -> list[str]:
    """Names of all linear layers of the language model, which LoRA adapts; the vision tower is left out."""
    inside = {id(module) for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear)}
    return [name for name, module in model.named_modules() if id(module) in inside]


def lora(vlm: VLM, rank: int) -> LoraConfig | None:
    """LoRA adapters of rank `rank` for all linear layers of the language model; None for rank 0 (no adapters)."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=language_layers(vlm.model)) if rank else None
