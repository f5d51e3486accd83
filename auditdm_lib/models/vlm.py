"""Vision-language models: loaded from a folder or hub id, they answer questions about pictures or sample texts.

Any checkpoint that `AutoProcessor` and `AutoModelForImageTextToText` load can be used. What differs between model families is
read from the processor (see `asking`), never from the model's name. Where a model is only asked, a model behind a server may take
its place (`endpoint`).
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
)

from auditdm_lib.models import endpoint, placement, store
from auditdm_lib.models.asking import (
    Asking,
    Sampling,
    asking_of,
    check_processor,
    fingerprints,
    render,
    turn,
    worded,
)
from auditdm_lib.models.batches import in_batches
from auditdm_lib.models.endpoint import Endpoint
from auditdm_lib.models.features import once_each
from auditdm_lib.models.loading import load_reader, load_weights, where
from auditdm_lib.models.placement import waits
from auditdm_lib.replies import clean, short_answer
from auditdm_lib.run import endpoints, manifest, reach

KIND = "an image-text-to-text model"
LARGE = 100_000_000  # parameters from which answers are kept: they take 10 ms and more each, keeping one less than 0.1 ms


@dataclass(frozen=True)
class VLM:
    """A loaded model in eval mode, its processor, the folder or hub id it was loaded from, how it is asked, how its answers are
    sampled (None: they are greedy), and what they are kept by (`identity`; None: they are not kept)."""

    name: str
    model: PreTrainedModel
    processor: ProcessorMixin
    asking: Asking
    sampling: Sampling | None = None
    identity: str | None = None


class OneNumberAToken(LogitsProcessor):
    """Makes greedy decoding sample: row b takes its t-th token by `numbers[b, t]`, uniform in [0, 1), so that what is drawn for a
    row depends on no other row of its batch."""

    def __init__(self, temperature: float, numbers: np.ndarray):
        self.temperature, self.numbers, self.token = temperature, numbers, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        reached = (scores.double() / self.temperature).softmax(-1).cumsum(-1)  # (B, V)
        drawn = torch.as_tensor(self.numbers[:, self.token], dtype=reached.dtype, device=reached.device)[:, None]
        chosen = torch.searchsorted(reached, drawn * reached[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        self.token += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def load_vlm(path: str | Path, asked: dict | None = None, check: Callable[[ProcessorMixin], None] = check_processor,
             **how) -> VLM | Endpoint:
    """Load an image-text-to-text model from a folder (relative to the repository's root) or a hub id, or find the one behind a
    server.

    `asked` replaces fields of its `Asking`; `check` is passed the processor before the weights are loaded; `how` are
    `load_weights`' trained, all_weights and device. Raises FileNotFoundError if there is no such folder, ValueError if it holds
    no such model, an incomplete or damaged one, or one that the kit does not know how to ask, or a server that does not answer
    for it.
    """
    if endpoints.is_endpoint(path):
        return endpoint.load_endpoint(str(path), asked)
    return _loaded(path, *_processor(path, asked, check), **how)


def load_members(target: str | Path, references: Sequence[str | Path], answer_prompts: Sequence[str] = (),
                 answer_tokens: Sequence[int] = (), answer_batch: int | None = None, answer_temperature: float = 0.0,
                 seed: int = 0) -> list[VLM | Endpoint]:
    """Load the target and the references, each to be asked in its own way but for what is given.

    `answer_prompts` and `answer_tokens` hold one value for all members or one for each (the target first); none takes each
    member's own. The processors of all are read first, so that what is wrong with one is said before any weights are loaded.
    With `answer_temperature` above 0 every member samples its answers, independently of the others also where they have the same
    weights: one answer for each picture and question, by `seed`. The answers of large members are kept (`store`).
    """
    given = settings(1 + len(references), answer_prompts, answer_tokens, answer_batch)
    members = [endpoint.load_endpoint(str(path), asked) if endpoints.is_endpoint(path) else (path, *_processor(path, asked))
               for path, asked in zip((target, *references), given, strict=True)]
    members = [_loaded(*member, device=placement.of_member(k)) if isinstance(member, tuple) else member
               for k, member in enumerate(members)]
    members = [replace(member, identity=identity(member.name, member.model)) if isinstance(member, VLM) else member
               for member in members]
    if isinstance(members[0], Endpoint):
        members[0] = replace(members[0], is_target=True)
    if not answer_temperature:
        return members
    return [replace(member, sampling=Sampling(answer_temperature, f"{seed}/{k}")) for k, member in enumerate(members)]


def identity(path: str | Path, model: PreTrainedModel) -> str | None:
    """What the answers of a model are kept by, which must be as it was loaded: a hash of its weights or its revision, of how it
    is loaded, and of the code that asks it. None for a small model, which answers nearly as fast as an answer is found."""
    if not is_large(model):
        return None
    source, revision = where(path)
    weights = revision.get("revision") or manifest.digest(manifest.hash_folder(Path(source)))
    gpu = model.device.type == "cuda" or waits(trained=False)  # one that waits in the main memory is asked on the GPU
    device = torch.cuda.get_device_name() if gpu else manifest.processor()
    how = [model.config.to_json_string(use_diff=False), model.config._attn_implementation, str(model.dtype), device,
           *map(importlib.metadata.version, ("torch", "transformers")), reach.module_sources(__name__)]
    return f"{path} {weights} {manifest.digest(how)}"


def settings(members: int, answer_prompts: Sequence[str] = (), answer_tokens: Sequence[int] = (),
             answer_batch: int | None = None) -> list[dict]:
    """For each of so many members, what replaces fields of its `Asking` (see `load_members`).

    Raises ValueError if there is neither one value for all nor one for each.
    """
    rows = [{} if answer_batch is None else {"batch_size": answer_batch} for _ in range(members)]
    for field, values in (("prompt", answer_prompts), ("max_new_tokens", answer_tokens)):
        if len(values) not in (0, 1, members):
            raise ValueError(f"{len(values)} values for {members} models: give one for all, or one for each.")
        for row, value in zip(rows, [*values] * (members if len(values) == 1 else 1), strict=False):
            row[field] = value
    return rows


def _processor(path: str | Path, asked: dict | None = None,
               check: Callable[[ProcessorMixin], None] = check_processor) -> tuple[ProcessorMixin, Asking]:
    """A checkpoint's processor, and how the model is asked."""
    found = []

    def checked(processor: ProcessorMixin) -> None:
        check(processor)
        source, revision = where(path)
        found.append(replace(asking_of(source, processor, revision), **asked or {}))
    return load_reader(path, AutoProcessor, checked, KIND), found[0]


def _loaded(path: str | Path, processor: ProcessorMixin, asking: Asking, **how) -> VLM:
    """The model to a processor; the token that ends a turn of the chat template joins the model's end tokens."""
    model = load_weights(path, AutoModelForImageTextToText, KIND, **how)
    own, tokenizer = model.generation_config.eos_token_id, processor.tokenizer
    end = tokenizer.eos_token or "" if processor.chat_template is None else turn(processor)[1].strip()
    ends = {*([] if own is None else np.atleast_1d(own).tolist()), *tokenizer(end, add_special_tokens=False)["input_ids"][-1:]}
    if not ends:
        raise ValueError(f"{path} has no end token, neither in its generation_config.json nor in its tokenizer, so that no reply "
                         "would end: set one and save it again.")
    model.generation_config.eos_token_id = sorted(ends) if len(ends) > 1 else min(ends)
    return VLM(str(path), model, processor, asking)


def as_data(tokenizer, text: str) -> str:
    """`text` with the strings of special tokens broken up by spaces, and lone surrogates replaced."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, " ".join(token))
    return text.encode("utf-8", "replace").decode("utf-8")


def prompt(vlm: VLM, text: str) -> str:
    """The model's input for a turn that says `text`: in its chat template, or in PaliGemma's format if it has none.

    The text may be any; it is treated as data (`as_data`).
    """
    text = as_data(vlm.processor.tokenizer, text)
    return f"{vlm.processor.image_token}{text}" if vlm.processor.chat_template is None else render(vlm.processor, text)


def put(vlm: VLM, question: str, bare: bool = False) -> str:
    """The model's input for `question`, as it is asked for a short answer; `bare`: with no words but the question's own."""
    return prompt(vlm, question if bare else worded(vlm.asking, question))


def encode(vlm: VLM, images: list[Image.Image], texts: list[str], padding_side: str, **kwargs):
    """Model inputs with one image and one text per row, padded: input_ids (B, T), pixel_values, ..."""
    bos = vlm.processor.tokenizer.bos_token
    batch = vlm.processor(
        images=[[image.convert("RGB")] for image in images], text=texts, padding=True,
        padding_side=padding_side, return_tensors="pt",
        add_special_tokens=not (bos and texts[0].startswith(bos)),  # not twice, if the template adds <bos>
        **kwargs)
    return batch.to(vlm.model.device, vlm.model.dtype)


def is_chat(vlm: VLM | Endpoint) -> bool:
    """Whether a model is asked in turns, as one behind a server is, or in PaliGemma's format."""
    return isinstance(vlm, Endpoint) or vlm.processor.chat_template is not None


def answer(vlm: VLM | Endpoint, images: list[Image.Image], questions: list[str], max_new_tokens: int | None = None,
           batch_size: int | None = None, desc: str | None = None, bare: bool = False) -> list[str | None]:
    """The short answer in each of the model's `replies`; None where a reply has not ended, or where a server gives none."""
    given = replies(vlm, images, questions, max_new_tokens, batch_size, desc, bare, partly=True)
    return [short_answer(reply, question) if ended else None
            for question, reply, ended in zip(questions, given["reply"], given["ended"], strict=True)]


def replies(vlm: VLM | Endpoint, images: list[Image.Image], questions: list[str], max_new_tokens: int | None = None,
            batch_size: int | None = None, desc: str | None = None, bare: bool = False, partly: bool = False) -> pd.DataFrame:
    """The model's replies to question i about image i, in order, with a progress bar named `desc` if given; greedy ones, or
    sampled ones if it has a `sampling`.

    One row for each: reply (as it is, but for `replies.clean`), ended (whether it reached an end token). The numbers default to
    those of `vlm.asking`; `bare` is `put`'s. Identical pairs are answered once, kept ones not at all. Rows are left-padded, so a
    reply does not depend on its batch. Raises ValueError if the two lists differ in length, Gone if a server leaves a question
    unanswered, unless `partly` takes None for its reply; `error` then says why (`endpoint.ask`). Of a large model the questions
    about one picture are asked together, since it sees a picture of a batch once (`features`).
    """
    if len(images) != len(questions):
        raise ValueError(f"{len(images)} images but {len(questions)} questions: give one for each.")
    if isinstance(vlm, Endpoint):
        given = endpoint.replies(vlm, images, questions, max_new_tokens, desc, bare)
        return given if partly else endpoint.whole(given, vlm.name)
    tokens, batch_size = max_new_tokens or vlm.asking.max_new_tokens, batch_size or vlm.asking.batch_size
    pairs = list(zip(fingerprints(images), questions, strict=True))
    distinct = dict(zip(pairs, images, strict=True))  # (fingerprint, question) -> image
    keys = _keys(vlm, distinct, tokens, bare) if vlm.identity else {}
    known = store.kept(store.shared(), list(keys.values())) if keys else {}
    given = {pair: (known[key], True) for pair, key in keys.items() if key in known}
    todo = sorted((pair for pair in distinct if pair not in given), key=asking_order([vlm]))

    def ask(batch: list[tuple[bytes, str]]) -> list[tuple[str, bool]]:
        said = _generate(vlm, [distinct[pair] for pair in batch], [put(vlm, q, bare) for _, q in batch], tokens,
                         vlm.sampling and _drawing(vlm.sampling, batch, tokens))
        for pair, (reply, ended) in zip(batch, said, strict=True):
            if keys and ended:
                store.keep(store.shared(), keys[pair], vlm.name, reply)
        return said
    given.update(zip(todo, in_batches(vlm.model, todo, batch_size, ask, desc), strict=True))
    return pd.DataFrame([given[pair] for pair in pairs], columns=["reply", "ended"])


def asking_order(members: Sequence[VLM]) -> Callable[[tuple[bytes, str]], tuple]:
    """The key by which pairs of a picture's fingerprint and a question are put in order before they are divided into batches.

    By the question's length, for less padding; where a member is large by the picture first, beside whose tokens and vision tower
    padding costs little.
    """
    if any(is_large(member.model) for member in members):
        return lambda pair: (pair[0], len(pair[1]), pair[1])
    return lambda pair: (len(pair[1]),)


def is_large(model: PreTrainedModel) -> bool:
    """Whether a model's answers are kept, and a picture's features shared: small ones, the testbed's among them, answer nearly as
    fast without."""
    return model.num_parameters() >= LARGE


def _keys(vlm: VLM, pairs: Iterable[tuple[bytes, str]], tokens: int, bare: bool) -> dict[tuple[bytes, str], bytes]:
    """What the answers to pairs of a picture's fingerprint and a question are kept by."""
    how = {"max_new_tokens": tokens} | (asdict(vlm.sampling) if vlm.sampling else {})
    return {(picture, question): store.key(vlm.identity, picture, put(vlm, question, bare), **how) for picture, question in pairs}


def sample(auditor: VLM | Endpoint, images: list[Image.Image], instruction: str, temperature: float, seed: int,
           max_new_tokens: int, batch_size: int = 128, desc: str | None = "questions",
           begun: Sequence[str] | None = None) -> pd.DataFrame:
    """One sampled text per image: text, ended (whether it reached an end token within `max_new_tokens`), error (None, or why a
    server gave no text).

    Where `begun` gives the first words of text i, the model goes on from them, and they are part of the text. Raises ValueError
    for that of a model behind a server, which begins its own turn.
    """
    if isinstance(auditor, Endpoint):
        if begun is not None and any(begun):
            raise ValueError(f"{auditor.name} cannot go on from given words, as a model behind a server: use a model's folder.")
        return endpoint.written(auditor, images, instruction, temperature, seed, max_new_tokens, desc)
    torch.manual_seed(seed)
    text = prompt(auditor, instruction)
    begun = [as_data(auditor.processor.tokenizer, words) for words in begun] if begun is not None else [""] * len(images)

    def write(batch: list[tuple[Image.Image, str]]) -> list[tuple[str, bool]]:
        said = _generate(auditor, [image for image, _ in batch], [text + start for _, start in batch], max_new_tokens, None,
                         do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
        return [(f"{start}{' ' * bool(start and more[:1].isalnum())}{more}", ended)
                for (_, start), (more, ended) in zip(batch, said, strict=True)]
    rows = in_batches(auditor.model, list(zip(images, begun, strict=True)), batch_size, write, desc)
    return pd.DataFrame(rows, columns=["text", "ended"]).assign(error=None)


def _drawing(sampling: Sampling, batch: list[tuple[bytes, str]], max_new_tokens: int) -> OneNumberAToken:
    """What samples the answers to a batch of questions, each given with its picture's fingerprint."""
    seeds = [hashlib.sha256(f"{sampling.seed}/{question}".encode("utf-8", "surrogatepass") + picture).digest()
             for picture, question in batch]
    numbers = [np.random.default_rng(int.from_bytes(seed)).random(max_new_tokens) for seed in seeds]
    return OneNumberAToken(sampling.temperature, np.array(numbers))


@torch.no_grad()
def _generate(vlm: VLM, images: list[Image.Image], inputs: list[str], max_new_tokens: int, drawing: OneNumberAToken | None,
              **how) -> list[tuple[str, bool]]:
    """One batch of texts, each with whether it reached an end token. They are greedy unless `drawing` or `how` samples them."""
    tokenizer, ends = vlm.processor.tokenizer, np.atleast_1d(vlm.model.generation_config.eos_token_id).tolist()
    config = GenerationConfig(  # all of it, so that nothing is left to the checkpoint
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, num_beams=1,
        num_return_sequences=1, return_dict_in_generate=False, repetition_penalty=1.0, **{"do_sample": False, **how})
    encoded = encode(vlm, images, inputs, "left")
    encoded.pop("labels", None)  # PaliGemma's processor always adds them
    width = encoded["input_ids"].shape[1]
    encoded = once_each(vlm.model, encoded, fingerprints(images)) if is_large(vlm.model) else encoded
    chosen = {} if drawing is None else {"logits_processor": LogitsProcessorList([drawing])}
    tokens = vlm.model.generate(**encoded, generation_config=config, **chosen)[:, width:]
    decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [(clean(text).strip(), bool(set(ends).intersection(ids)))
            for text, ids in zip(decoded, tokens.tolist(), strict=True)]
