"""An LLM as the judge D: a text model, here or behind a server, decides whether two answers to a question mean the same.

The verdict depends on JUDGE_PROMPT, so a run with such a judge must record its hash among the prompts of its manifest. The
verdict is symmetric but not transitive, hence not an equivalence relation; the panel's cascade needs the normalised match.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from auditdm_lib.answers import certainly_different, same_answer
from auditdm_lib.models import endpoint
from auditdm_lib.models.asking import choose_padding
from auditdm_lib.models.batches import in_batches
from auditdm_lib.models.endpoint import Endpoint
from auditdm_lib.models.loading import Unusable, load_reader, load_weights
from auditdm_lib.models.vlm import as_data
from auditdm_lib.replies import without_thought
from auditdm_lib.run import endpoints

JUDGE_PROMPT = """Question: {question}
First answer: {first}
Second answer: {second}
Do both answers mean the same? Answer yes or no.
Answer:"""
JUDGE_TOKENS = 256  # of a judge behind a server, which may think or explain (our choice)


@dataclass(frozen=True)
class LLM:
    """A loaded text model in eval mode, its tokenizer, and the folder or hub id it was loaded from."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_llm(path: str | Path) -> LLM | Endpoint:
    """Load a causal language model from a folder (relative to the repository's root) or a hub id, or find one behind a server.

    Raises FileNotFoundError if there is no such folder, ValueError if it holds no such model or an incomplete one, or if a server
    does not answer for it.
    """
    if endpoints.is_endpoint(path):
        return endpoint.load_endpoint(str(path))

    def check(tokenizer: PreTrainedTokenizerBase) -> None:
        choose_padding(tokenizer)
        _word_ids(tokenizer)
    kind = "a language model that can judge"
    tokenizer = load_reader(path, AutoTokenizer, check, kind)
    return LLM(str(path), load_weights(path, AutoModelForCausalLM, kind), tokenizer)


def same_meaning(llm: LLM | Endpoint, triples: list[tuple[str, str, str]], batch_size: int = 64) -> list[bool | str]:
    """Whether the two answers of each (question, answer, answer) mean the same to `llm`.

    They do if the log-odds of "yes" against "no" as the next token, averaged over both orders of the answers, are above 0; so
    the verdict does not depend on the order. A judge behind a server says yes or no: answers mean the same if it says yes more
    often than no. What a rule decides (`answers`: equal when normalised, or two numbers) is not asked. Where a server leaves a
    question unanswered there is, in the place of the verdict, why (`endpoint.ask`). Raises Gone if the server is gone.
    """
    asked = [(q, *pair) for q, a, b in triples if not same_answer(a, b) and not certainly_different(a, b)
             for pair in ((a, b), (b, a))]
    texts = {key: judge_prompt(llm, *key) for key in asked}
    if isinstance(llm, Endpoint):  # in order, so that a limit leaves out the last ones
        odds = _said(llm, list(dict.fromkeys(texts.values())))
    else:
        odds = _log_odds(llm, sorted(set(texts.values()), key=lambda t: (len(t), t)), batch_size)  # by length, for less padding

    def verdict(q: str, a: str, b: str) -> bool | str:
        if (q, a, b) not in texts:
            return same_answer(a, b)
        both = [odds[texts[q, *pair]] for pair in ((a, b), (b, a))]
        return next((one for one in both if isinstance(one, str)), None) or sum(both) > 0
    return [verdict(*triple) for triple in triples]


def judge_prompt(llm: LLM | Endpoint, question: str, first: str, second: str) -> str:
    """JUDGE_PROMPT with the two answers filled in, wrapped in the tokenizer's chat template if it has one.

    The texts are model outputs and treated as data: each is put on one line, and special tokens in it are broken up.
    """
    question, first, second = (" ".join(text.split()) for text in (question, first, second))
    if isinstance(llm, Endpoint):
        return JUDGE_PROMPT.format(question=question, first=first, second=second)  # `endpoint.ask` treats it as data
    question, first, second = (as_data(llm.tokenizer, text) for text in (question, first, second))
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


def _said(judge: Endpoint, texts: list[str]) -> dict[str, int | str]:
    """1 for each text whose reply begins with yes, -1 for no, 0 for any other, and why there is none where there is none."""
    given = endpoint.ask(judge, None, texts, JUDGE_TOKENS)
    words = [re.match(r"\W*(yes|no)\b", without_thought(reply or ""), re.IGNORECASE) for reply in given["reply"]]
    return {text: error or ({"yes": 1, "no": -1}[word[1].lower()] if word else 0)
            for text, word, error in zip(texts, words, given["error"], strict=True)}


@torch.inference_mode()
def _log_odds(llm: LLM, texts: list[str], batch_size: int) -> dict[str, float]:
    """log p(yes) - log p(no) of the token after each text, over all spellings of the two words."""
    yes, no = _word_ids(llm.tokenizer)
    bos = llm.tokenizer.bos_token

    def judge(batch: list[str]) -> list[float]:
        inputs = llm.tokenizer(batch, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False,
                               add_special_tokens=not (bos and batch[0].startswith(bos))).to(llm.model.device)
        # `generate`, not `forward`: it counts positions from the first real token and keeps one row of logits per text
        logits = llm.model.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True,
                                    pad_token_id=llm.tokenizer.pad_token_id).logits[0].float()
        return (logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1)).tolist()
    return dict(zip(texts, in_batches(llm.model, texts, batch_size, judge), strict=True))
