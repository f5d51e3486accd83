"""Training examples as model inputs with labels, and the layers that LoRA adapts."""

import torch
from peft import LoraConfig

from auditdm_lib.models.vlm import VLM, encode, prompt


def collate(vlm: VLM, rows: list[dict]) -> dict[str, torch.Tensor]:
    """One training batch of image, question and answer; labels (B, T) are -100 except on the answer and its end token.

    Raises ValueError if the tokenizer merges the answer with the prompt before it.
    """
    images, answers = [row["image"] for row in rows], [row["answer"] for row in rows]
    prompts = [prompt(vlm, row["question"]) for row in rows]
    if vlm.processor.chat_template is None:  # PaliGemma's `suffix` is causal, and adds <eos> and labels
        return encode(vlm, images, prompts, "right", suffix=answers)
    tokenizer = vlm.processor.tokenizer
    answers = [answer + tokenizer.eos_token for answer in answers]
    texts = [text + answer for text, answer in zip(prompts, answers, strict=True)]
    batch = encode(vlm, images, texts, "right")
    batch["labels"] = torch.full_like(batch["input_ids"], -100)
    ends = batch["attention_mask"].sum(1)
    for i, answer in enumerate(answers):
        ids = tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"][0].to(ends.device)
        span = slice(ends[i] - len(ids), ends[i])
        if not torch.equal(batch["input_ids"][i, span], ids):
            raise ValueError(f"The tokenizer merges the answer {answer!r} with the end of the chat template.")
        batch["labels"][i, span] = ids
    return batch


def language_layers(model: torch.nn.Module) -> list[str]:
    """Names of all linear layers of the language model, which LoRA adapts; the vision tower is left out."""
    inside = {id(module) for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear)}
    return [name for name, module in model.named_modules() if id(module) in inside]


def lora(vlm: VLM, rank: int) -> LoraConfig | None:
    """LoRA adapters of rank `rank` for all linear layers of the language model; None for rank 0 (no adapters)."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=language_layers(vlm.model)) if rank else None
