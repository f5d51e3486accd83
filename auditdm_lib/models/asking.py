"""How a model is asked for a short answer: the words around a question, how long its reply may be, and where its turn ends.

A checkpoint may bring its own protocol in `answer_protocol.json`, as the models that this kit saves do. Otherwise the family
decides, read from the processor and never from the model's name: a chat template or PaliGemma's task prefixes.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
from PIL import Image
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import PaliGemmaProcessor, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import cached_file

from auditdm_lib.models.loading import Unusable

PROTOCOL = "answer_protocol.json"
QUESTION = "{question}"
LANGUAGE = "(?:ar|bn|cs|da|de|el|en|es|fa|fi|fr|hi|hr|hu|id|it|iw|ja|ko|nl|no|pl|pt|ro|ru|sv|sw|te|th|tr|uk|vi|zh)"
TASKS = re.compile(  # PaliGemma's own, in the languages of its training or without one
    rf"(?:cap|caption|describe) {LANGUAGE}|(?:answer|question) {LANGUAGE} .+|ocr|(?:detect|segment) .+", re.DOTALL)
DESCRIBE = re.compile(r"(?:please )?describe (?:this|the) (?:picture|image|photo|photograph)[.!]?", re.IGNORECASE)
MARK = "ANSWER"


@dataclass(frozen=True)
class Asking:
    """How a model is asked for a short answer.

    `prompt` is what it is told, with {question} for the question. A reply that has not ended after `max_new_tokens` tokens is
    no answer. `batch_size` questions are answered at a time. With `tasks`, questions that are PaliGemma's own task prompts
    ("detect cat", "caption en", "answer de ...") are put as they are, and "Describe this picture." becomes "caption en".
    Raises ValueError if `prompt` lacks {question} or a number is below 1.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # for the file
    prompt: str
    max_new_tokens: int
    batch_size: int = 128
    tasks: bool = False

    def __post_init__(self):
        if QUESTION not in self.prompt:
            raise ValueError(f"the prompt {self.prompt!r} has no {QUESTION} in it, which stands for the question")
        if min(self.max_new_tokens, self.batch_size) < 1:
            raise ValueError("max_new_tokens and batch_size are at least 1")


# The short-answer instruction of LLaVA-1.5 (Liu et al. 2024, "Improved Baselines with Visual Instruction Tuning"), which other
# chat models follow as well; 64 tokens leave room for those that answer in a sentence all the same.
CHAT = Asking(f"{QUESTION}\nAnswer the question using a single word or phrase.", 64)
PALIGEMMA = Asking(f"answer en {QUESTION}", 32, tasks=True)


@dataclass(frozen=True)
class Sampling:
    """How a model's answers are sampled: the temperature, and what seeds the random numbers of this member of a panel."""

    temperature: float
    seed: str


def worded(asking: Asking, question: str) -> str:
    """What a model is told when it is asked `question`."""
    if asking.tasks and TASKS.fullmatch(question.strip()):
        return question.strip()
    if asking.tasks and DESCRIBE.fullmatch(question.strip()):
        return "caption en"
    return asking.prompt.replace(QUESTION, question)


def asking_of(source: str | Path, processor: ProcessorMixin, revision: dict[str, str]) -> Asking:
    """The protocol in a checkpoint's own file, or else its family's.

    `source` is its folder, or its hub id with `revision`. Raises Unusable if the file is not valid.
    """
    file = cached_file(str(source), PROTOCOL, **revision, _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)
    if file is None:
        return CHAT if processor.chat_template is not None else PALIGEMMA
    try:
        return TypeAdapter(Asking).validate_json(Path(file).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
        raise Unusable(f"has a {PROTOCOL} that is not valid ({reason}); it holds prompt, max_new_tokens, batch_size and tasks, "
                       "as a checkpoint that the kit saves does.") from error


def save_asking(asking: Asking, folder: Path) -> None:
    """Write a model's protocol into its folder."""
    text = json.dumps(asdict(asking), indent=1, ensure_ascii=False) + "\n"
    (folder / PROTOCOL).write_text(text, encoding="utf-8", newline="\n")


def is_paligemma(processor: ProcessorMixin) -> bool:
    """Whether a model is asked in PaliGemma's format: a prefix without turns."""
    return isinstance(processor, PaliGemmaProcessor)


def check_processor(processor: ProcessorMixin) -> None:
    """Raise Unusable if the kit does not know how to ask a model with this processor.

    A chat template that only the tokenizer has becomes the processor's, and a tokenizer without a padding token gets one.
    """
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise Unusable("has no image processor or no tokenizer: it does not load as an image-text-to-text model, so use one that "
                       "sees pictures.")
    choose_padding(processor.tokenizer)
    only_in_tokenizer = processor.chat_template is None and processor.tokenizer.chat_template is not None
    if only_in_tokenizer:
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None and not is_paligemma(processor):
        raise Unusable("has no chat template, so the kit does not know how to ask it: use the instruction-tuned checkpoint of "
                       "this model, or save a chat template with its processor.")
    if processor.chat_template is not None and not places_image(processor):
        if not (only_in_tokenizer and is_paligemma(processor)):
            raise Unusable("has a chat template that places no picture before the question: save one for pictures with its "
                           "processor, or use a checkpoint of a vision-language chat model.")
        processor.chat_template = None  # the template of a language model that PaliGemma was made from


def choose_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a padding token one. Padding is masked, so the end token will do. Raises Unusable without any."""
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise Unusable("has a tokenizer with neither a padding nor an end token: set its pad_token and save it again.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def render(processor: ProcessorMixin, text: str, answer: str | None = None) -> str:
    """A user's turn of one picture and `text` in the chat template, followed by the model's turn: its beginning, or `answer`."""
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    # where a template can leave thinking out, the answer comes first
    how = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    return processor.apply_chat_template(turns, add_generation_prompt=answer is None, **how)


def places_image(processor: ProcessorMixin) -> bool:
    """Whether the chat template renders a picture and the text of a user's turn."""
    try:
        rendered = render(processor, MARK)
    except (jinja2.TemplateError, TypeError, ValueError):
        return False
    return MARK in rendered and (getattr(processor, "image_token", None) or "") in rendered


def turn(processor: ProcessorMixin) -> tuple[str, str]:
    """What stands before and after the answer in the model's turn: often nothing, and an end token.

    Both are found by rendering a turn in the chat template: Gemma3 ends with <end_of_turn>, not with <eos>; LLaVA-1.5 puts a
    space before its answer. A template that writes no end token leaves the tokenizer's.
    """
    tokenizer = processor.tokenizer
    try:
        asked, told = render(processor, "?"), render(processor, "?", MARK)
    except (jinja2.TemplateError, TypeError, ValueError):  # a template without turns of the model
        return "", tokenizer.eos_token or ""
    before, _, after = told.rpartition(MARK)
    lead = before.removeprefix(asked) if before.startswith(asked) else ""
    ends = [after.index(token) + len(token) for token in tokenizer.all_special_tokens if token and token in after]
    return lead if not lead.strip() else "", after[:min(ends)] if ends else tokenizer.eos_token or ""


def fingerprints(images: list[Image.Image]) -> list[bytes]:
    """The sha256 of each picture's pixels; an object that occurs several times in the list is hashed once."""
    seen = {id(image): image for image in images}
    digest = {key: hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
              for key, image in seen.items()}
    return [digest[id(image)] for image in images]
