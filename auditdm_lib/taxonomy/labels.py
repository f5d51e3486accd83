"""Names of failure types by a language model: it proposes and merges, and every name that it gives is checked against members.

Without a language model the types keep their counted names (`names`). The texts of models and auditors in the prompts are data:
each is put on one line, and special tokens in it are broken up.
"""

import numpy as np
import pandas as pd
import torch

from auditdm_lib.answers import normalise
from auditdm_lib.models.llm import LLM
from auditdm_lib.models.placement import at_hand
from auditdm_lib.models.vlm import as_data
from auditdm_lib.shown import one_line, shorten

LABEL_PROMPT = """A vision-language model was asked about pictures and answered wrongly. These failures are alike:
{examples}
What does the model get wrong? Answer with a short phrase that is true of all of them and names no single thing.
Answer:"""
CHECK_PROMPT = """A vision-language model was asked about a picture: {example}
Is this an error of the kind "{label}"? Answer yes or no.
Answer:"""
MERGE_PROMPT = """First kind of error: {first}
Second kind of error: {second}
Are both the same kind of error? Answer yes or no.
Answer:"""
PROMPTS = {"label": LABEL_PROMPT, "label_check": CHECK_PROMPT, "label_merge": MERGE_PROMPT}  # recorded in a run's manifest
SHOWN, TRUE_OF = 5, 4  # members that are shown and checked, and those of which a name has to be true
LONGEST = 80  # characters of a name, and of a text in a prompt
TOKENS = 24  # of a reply


def labelled(llm: LLM, clustered: pd.DataFrame, table: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clustered failures and their table (`names.categories`) with the names that `llm` proposes, and types that it merges.

    Two types of one skill become one where the model calls their names the same kind of error and the larger one's name is true
    of the smaller one's members. A name has to be true of at least TRUE_OF of SHOWN members, drawn by `seed` whatever the order
    of the rows; else the counted one stays, as where another type has the name already. Types are numbered anew by size.
    """
    drawn = {category: _drawn(clustered[clustered["category"] == category], seed) for category in table["category"]}
    examples = ["\n".join(_example(llm, row) for row in drawn[category].itertuples()) for category in table["category"]]
    names, goes_to = dict(zip(table["category"], table["name"], strict=True)), {-1: -1}
    for category, reply in zip(names, written(llm, [LABEL_PROMPT.format(examples=text) for text in examples]), strict=True):
        label = shorten(one_line(reply).strip(" .\"'“”"), LONGEST)
        if label and label not in names.values() and _true(llm, label, drawn[category]):
            names[category] = label
    for _, group in table.groupby("skill", sort=False):
        for category in group["category"]:
            larger = [other for other in group["category"] if goes_to.get(other) == other]
            same = [other for other in larger if _same(llm, names[other], names[category])
                    and _true(llm, names[other], drawn[category])]
            goes_to[category] = same[0] if same else category
    counts = [name for name in table if name in ("size", "share") or name.startswith("by_")]
    sums = table.groupby(table["category"].map(goes_to))[counts].sum()
    table = table[table["category"].isin(sums.index)].set_index("category")
    table[counts], table["name"] = sums, pd.Series(names)
    table = table.sort_values("size", ascending=False, kind="stable").reset_index()
    number = {-1: -1} | {category: i for i, category in enumerate(table["category"])}
    clustered = clustered.assign(category=clustered["category"].map(goes_to).map(number).astype(int))
    return clustered, table.assign(category=range(len(table)))


def _drawn(members: pd.DataFrame, seed: int) -> pd.DataFrame:
    members = members.sort_values(["question", "consensus", "target_answer", "probe_id"])
    return members.iloc[np.sort(np.random.default_rng(seed).permutation(len(members))[:SHOWN])]


def _example(llm: LLM, row) -> str:
    question, right, said = (as_data(llm.tokenizer, shorten(one_line(text), LONGEST))
                             for text in (row.question, row.consensus, row.target_answer))
    return f"\"{question}\" Right answer: \"{right}\". It said: \"{said}\"."


def _true(llm: LLM, label: str, members: pd.DataFrame) -> bool:
    label = as_data(llm.tokenizer, label)
    asked = [CHECK_PROMPT.format(example=_example(llm, row), label=label) for row in members.itertuples()]
    return sum(normalise(reply) == "yes" for reply in written(llm, asked)) * SHOWN >= TRUE_OF * len(members)


def _same(llm: LLM, first: str, second: str) -> bool:
    first, second = (as_data(llm.tokenizer, text) for text in (first, second))
    return normalise(written(llm, [MERGE_PROMPT.format(first=first, second=second)])[0]) == "yes"


@torch.inference_mode()
def written(llm: LLM, prompts: list[str]) -> list[str]:
    """The first line that the model writes after each prompt, in at most TOKENS tokens, without sampling."""
    replies = []
    with at_hand(llm.model):
        for prompt in prompts:
            if llm.tokenizer.chat_template is not None:
                prompt = llm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                                           add_generation_prompt=True, enable_thinking=False)
            bos = llm.tokenizer.bos_token
            inputs = llm.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False,
                                   add_special_tokens=not (bos and prompt.startswith(bos))).to(llm.model.device)
            made = llm.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=llm.tokenizer.pad_token_id)
            text = llm.tokenizer.decode(made[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
            replies.append((text.strip().splitlines() or [""])[0].strip())
    return replies
