"""An LLM as the judge D: a local text model decides whether two answers to a question mean the same.

The verdict depends on JUDGE_PROMPT, so a run with such a judge must record its hash among the prompts of its manifest. The
verdict is symmetric but not transitive, hence not an equivalence relation; the panel's cascade needs the normalised match.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from auditdm_lib.answers import certainly_different, same_answer
from auditdm_lib.models.asking import choose_padding
from auditdm_lib.models.loading import Unusable, load_reader, load_weights
from auditdm_lib.models.vlm import as_data

JUDGE_PROMPT = """Question: {question}
First answer: {first}
Second answer: {second}
Do both answers mean the same? Answer yes or no.
Answer:"""


@dataclass(frozen=True)
class LLM:
    """A loaded text model in eval mode, its tokenizer, and the folder or hub id it was loaded from."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_llm(path: str | Path) -> LLM:
    """Load a causal language model from a folder (relative to the repository's root) or a hub id.

    Raises FileNotFoundError if there is no such folder, ValueError if it holds no such model or an incomplete one.
    """
    def check(tokenizer: PreTrainedTokenizerBase) -> None:
        choose_padding(tokenizer)
        _word_ids(tokenizer)
    kind = "a language model that can judge"
    tokenizer = load_reader(path, AutoTokenizer, check, kind)
    return LLM(str(path), load_weights(path, AutoModelForCausalLM, kind), tokenizer)


def same_meaning(llm: LLM, triples: list[tuple[str, str, str]], batch_size: int = 64) -> list[bool]:
    """Whether the two answers of each (question, answer, answer) mean the same to `llm`.

    They do if the log-odds of "yes" against "no" as the next token, averaged over both orders of the answers, are above 0; so
    the verdict does not depend on the order. What a rule decides (`answers`: equal when normalised, or two numbers) is not asked.
    """
    asked = {(q, *pair) for q, a, b in triples if not same_answer(a, b) and not certainly_different(a, b)
             for pair in ((a, b), (b, a))}
    texts = {key: judge_prompt(llm, *key) for key in asked}
    odds = _log_odds(llm, sorted(set(texts.values()), key=lambda t: (len(t), t)), batch_size)  # by length, for less padding
    return [same_answer(a, b) or (q, a, b) in asked and odds[texts[q, a, b]] + odds[texts[q, b, a]] > 0 for q, a, b in triples]


def judge_prompt(llm: LLM, question: str, first: str, second: str) -> str:
    """JUDGE_PROMPT with the two answers filled in, wrapped in the tokenizer's chat template if it has one.

    The texts are model outputs and treated as data: each is put on one line, and special tokens in it are broken up.
    """
    question, first, second = (as_data(llm.tokenizer, " ".join(text.split())) for text in (question, first, second))
    text = JUDGE_PROMPT.format(question=question, first=first, second=second)
    if llm.tokenizer.chat_template is None:
        return text
    return llm.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True,
                                             enable_thinking=False)  # where the template supports it: the verdict must come first


def _word_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The single tokens for "yes" and those for "no". Raises Unusable if there is none for one of them."""
    sides = []
    for word in ("yes", "no"):
        spelled = [tokenizer.encode(w, add_special_tokens=False) for w in (f" {word}", word, f" {word.title()}", word.title())]
        sides.append(sorted({ids[0] for ids in spelled if len(ids) == 1 and ids[0] != tokenizer.unk_token_id}))
    if not all(sides):
        raise Unusable("has a tokenizer with no single token for 'yes' or for 'no', so it cannot judge: use another model.")
    return sides


@torch.inference_mode()
def _log_odds(llm: LLM, texts: list[str], batch_size: int) -> dict[str, float]:
    """log p(yes) - log p(no) of the token after each text, over all spellings of the two words."""
    yes, no = _word_ids(llm.tokenizer)
    bos, odds = llm.tokenizer.bos_token, {}
    for i in range(0, len(texts), batch_size):
        batch = texts[i:i + batch_size]
        inputs = llm.tokenizer(batch, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False,
                               add_special_tokens=not (bos and batch[0].startswith(bos))).to(llm.model.device)
        # `generate`, not `forward`: it counts positions from the first real token and keeps one row of logits per text
        logits = llm.model.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True,
                                    pad_token_id=llm.tokenizer.pad_token_id).logits[0].float()
        difference = logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1)
        odds.update(zip(batch, difference.tolist(), strict=True))
    return odds
