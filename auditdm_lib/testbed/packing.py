"""Packing: many questions about one picture in one row, each attending only to the picture and itself, as if asked alone."""

import torch

from auditdm_lib.testbed.training import IGNORE, PREFIX, QUESTION, token_ids


def pack(family: str, tokenizer, rows: list[list[tuple[str, str]]]) -> dict[str, torch.Tensor]:
    """Rows of (question, answer) pairs, each row about one picture, as inputs of the language model.

    input_ids, labels, position_ids: (B, T); attention_mask: (B, 1, T, T), 0 where a token attends to another, else the lowest
    float32. The positions of every pair continue from the picture's last one. In Gemma3 the image tokens attend to one another
    and the rest is causal. PaliGemma is a prefix LM: attention within picture and question is bidirectional, the answer is
    causal. Only in a row of one pair does the picture attend to the question too, as in PaliGemma's own format; the training
    of a model therefore ends on rows of one pair.
    """
    prefix = token_ids(tokenizer, PREFIX[family])
    image = tokenizer.convert_tokens_to_ids("<image>")
    encoded = []
    for pairs in rows:
        # Two tokens attend to each other in both directions if they have the same positive block.
        row = dict(ids=list(prefix), labels=[IGNORE] * len(prefix), segment=[0] * len(prefix), position=list(range(len(prefix))),
                   block=[int(i == image or family == "paligemma2") for i in prefix])
        for k, (question, answer) in enumerate(pairs, 1):
            prompt, completion = token_ids(tokenizer, QUESTION[family].format(question)), token_ids(tokenizer, answer + "<eos>")
            row["ids"] += prompt + completion
            row["labels"] += [IGNORE] * len(prompt) + list(completion)
            row["segment"] += [k] * len(prompt + completion)
            row["position"] += range(len(prefix), len(prefix) + len(prompt + completion))
            block = 1 if len(pairs) == 1 else k + 1  # the question of a single pair shares the picture's block
            row["block"] += [block * (family == "paligemma2")] * len(prompt) + [0] * len(completion)
        encoded.append(row)
    length = max(len(row["ids"]) for row in encoded)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([row[name] + [fill] * (length - len(row[name])) for row in encoded])

    segment, block, order = padded("segment", -1), padded("block", 0), torch.arange(length)
    same = segment[:, :, None] == segment[:, None, :]
    causal = order[:, None] >= order[None, :]
    both_ways = (block[:, :, None] == block[:, None, :]) & (block[:, :, None] > 0)
    seen = (causal & (same | (segment == 0)[:, None, :])) | both_ways
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return dict(input_ids=padded("ids", tokenizer.pad_token_id), labels=padded("labels", IGNORE),
                position_ids=padded("position", 0), attention_mask=mask)


def answer_logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor], features: torch.Tensor
                  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (labelled tokens, vocabulary) and labels (labelled tokens,) from precomputed features of the vision tower
    (B, 9, hidden): the model's own forward pass without the tower and without the logits of unlabelled tokens."""
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    pictures = model.model.multi_modal_projector(features)
    where = (inputs["input_ids"] == model.config.image_token_id)[..., None].expand_as(embedded)
    masks = dict.fromkeys(("full_attention", "sliding_attention"), inputs["attention_mask"])
    hidden = model.model.language_model(
        inputs_embeds=embedded.masked_scatter(where, pictures), attention_mask=masks, position_ids=inputs["position_ids"] + 1,
        use_cache=False).last_hidden_state
    labels = inputs["labels"][:, 1:]
    wanted = labels != IGNORE
    return model.lm_head(hidden[:, :-1][wanted]), labels[wanted]
