"""Diffusion pipelines: loaded, asked for a batch of pictures from captions, or for a batch of edited ones.

What a pipeline takes is read from the signature of its `__call__`, not from its name.
"""

import gc
import inspect
import json
import math
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.models.vlm import as_data
from auditdm_lib.run import hub
from auditdm_lib.run.pipeline_files import DRAWS, INDEX, fault, folder_fault, pipeline_class, variant

LANES = 4  # rows; on a CPU, calls of 4, 8, 16, ... give the same bytes for each picture, calls of 1 to 3 do not
UNET_LANES = 8  # pictures; convolutions differ between calls of 4, 8 and 32, so that all calls of a UNet are of one size
TEXTS_KEPT = 256  # encoded texts; of the largest encoders each takes 4 MB
LONGEST_TO_SHORTEST = 8  # sides of a source picture: what FLUX.2 takes at most
BATCHED_EDITS = {"FluxKontextPipeline", "StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"}
# others take a list of pictures as several pictures for one edit, so they are called for one edit at a time
NOTHING = " "  # the negative prompt of pipelines that guide away from one, as Qwen-Image's authors write it
BLOCKED, NOT_A_NUMBER = LASTING = ("blocked by the safety checker", "not a number")  # the same for each try
SHORT, LONG = "a picture", "a picture " * 40  # texts of which the encodings show whether they are padded
VARIES: WeakKeyDictionary = WeakKeyDictionary()  # loaded pipeline -> `varies`
TOO_NARROW, FAILED = "the source picture is too narrow", "the pipeline failed on it"


@dataclass(frozen=True)
class Pipeline:
    """A loaded pipeline with the settings that it is called with; None where its own default holds."""

    name: str
    pipe: Any
    steps: int | None
    guidance: float | None
    size: int | None
    text_lengths: tuple[int, ...]
    encoded: OrderedDict = field(default_factory=OrderedDict)  # (text, length) -> its encoding, the last ones used

    @property
    def takes(self) -> dict[str, inspect.Parameter]:
        """The parameters of the pipeline's call."""
        return dict(inspect.signature(self.pipe.__call__).parameters)


def folder_of(model: str) -> Path:
    """The folder of a pipeline; that of a hub id is downloaded, safetensors only. Raises ValueError with one sentence."""
    source = paths.place(model)
    return source if source.is_dir() else _fetched(model)


@lru_cache
def _fetched(model: str) -> Path:
    """The folder of a hub id in the hub's cache."""
    if found := fault(model):
        raise ValueError(f"The pipeline cannot be used: {found}")
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(model, revision=hub.revision(model), use_safetensors=True))
    except Exception as error:  # the hub's client and diffusers have a dozen types
        raise ValueError(f"The pipeline {model} cannot be fetched: check the name and the network, or give a folder "
                         f"({reason(error)}).") from error


def load(model: str, folder: Path, kind: str, dtype: torch.dtype, offload: str) -> Any:
    """A pipeline of diffusers on the GPU if there is one. Raises ValueError with one sentence about what is wrong with it."""
    quiet()
    if found := folder_fault(folder, kind):
        raise ValueError(f"The pipeline {model} {found}")
    index = json.loads((folder / INDEX).read_bytes())
    cls = pipeline_class(index["_class_name"], kind)
    left_out = {name: None for name, part in index.items() if part == [None, None]}  # such as Stable Diffusion 3's T5
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about old names in the files
            pipe = cls.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, variant=variant(folder),
                                       local_files_only=True, **left_out)
    except Exception as error:  # safetensors, torch and tokenizers have exceptions of their own
        if "torchvision" in str(error).lower() or "VIDEO_PROCESSOR" in str(error) or isinstance(error, NameError):
            raise ValueError(f"The pipeline {model} has a processor that needs the package torchvision: install it.") from error
        raise ValueError(f"The pipeline {model} does not load as {cls.__name__}: check that the folder is complete, or use "
                         f"another one ({reason(error)}).") from error
    pipe.set_progress_bar_config(disable=True)
    _tell_infinite(pipe)
    if not torch.cuda.is_available():
        return pipe
    if offload == "none":
        return pipe.to("cuda")
    (pipe.enable_model_cpu_offload if offload == "model" else pipe.enable_sequential_cpu_offload)()
    return pipe


def _tell_infinite(pipe: Any) -> None:
    """Let infinite values of a decoder come out as no number, since diffusers' processor of pictures makes them white."""
    if processor := getattr(pipe, "image_processor", None):
        process = processor.postprocess
        processor.postprocess = lambda image, *a, **k: process(torch.where(image.isfinite(), image, torch.nan), *a, **k)


def quiet() -> None:
    """Silence what diffusers and transformers print about single texts, such as that one was cut."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def release() -> None:
    """Give back the memory of pipelines that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def at_most(pipeline: Pipeline, kind: str, batch: int) -> int:
    """How many pictures one call draws: a power of two up to `batch`, or 1 where a pipeline edits one picture at a time."""
    if kind != DRAWS and not takes_batches(pipeline):
        return 1
    most = 2 ** int(math.log2(batch))
    return min(most, UNET_LANES) if _fixed(pipeline) else most


def _fixed(pipeline: Pipeline) -> bool:
    """Whether all calls of a pipeline are of one size."""
    return hasattr(pipeline.pipe, "unet") and not torch.cuda.is_available()


def takes_batches(pipeline: Pipeline) -> bool:
    """Whether a list of sources is one for each command."""
    return type(pipeline.pipe).__name__ in BATCHED_EDITS


def too_narrow(size: tuple[int, int]) -> bool:
    """Whether a source of this size is not edited."""
    return max(size) > LONGEST_TO_SHORTEST * min(size)


def side_lengths(pipeline: Pipeline, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a source of a given size is edited.

    The area is that of the pipeline's own size, the proportions are the source's, and the sides such as the pipeline can work on.
    """
    side, multiple, root = _side(pipeline), _multiple(pipeline), (size[0] / size[1]) ** 0.5
    return tuple(max(multiple, round(length / multiple) * multiple) for length in (side * root, side / root))


def _side(pipeline: Pipeline) -> int:
    """The side of a square picture in the pipeline's own size, in pixels."""
    pipe = pipeline.pipe
    cells = getattr(pipe, "default_sample_size", None) or getattr(getattr(getattr(pipe, "unet", None), "config", None),
                                                                  "sample_size", None)
    return pipeline.size or (cells * pipe.vae_scale_factor if isinstance(cells, int) else 1024)


def _multiple(pipeline: Pipeline) -> int:
    """What the sides of a picture must be multiples of, in pixels."""
    processor = getattr(pipeline.pipe, "image_processor", None)
    return getattr(getattr(processor, "config", None), "vae_scale_factor", None) or 16


def text_length(pipeline: Pipeline, text: str) -> int | None:
    """The smallest of the pipeline's text lengths that holds a text, in tokens; None for the pipeline's own."""
    if not pipeline.text_lengths or "max_sequence_length" not in pipeline.takes:
        return None
    tokens = token_count(pipeline, text)
    return next((length for length in pipeline.text_lengths if length >= tokens), pipeline.text_lengths[-1])


def token_count(pipeline: Pipeline, text: str) -> int:
    """The tokens of a text for the pipeline's longest encoder; its characters where the pipeline has no tokenizer."""
    tokenizer = _tokenizer(pipeline)
    return len(tokenizer(_clean(pipeline, text))["input_ids"]) if tokenizer else len(text)


def _tokenizer(pipeline: Pipeline) -> Any:
    pipe = pipeline.pipe
    own = getattr(pipe, "tokenizer_2", None) or getattr(pipe, "tokenizer", None)
    return getattr(own, "tokenizer", own)  # FLUX.2 has a processor in its place


def _clean(pipeline: Pipeline, text: str) -> str:
    """A text as data: no special tokens, no lone surrogates, no NUL."""
    tokenizer = _tokenizer(pipeline)
    text = text.replace("\0", " ")
    return as_data(tokenizer, text) if tokenizer else text.encode("utf-8", "replace").decode("utf-8")


@torch.inference_mode()
def drawn_from_captions(pipeline: Pipeline, captions: list[str], seeds: list[int], length: int | None) -> list:
    """A batch of pictures, each from its caption and seed; in place of a picture the reason why there is none."""
    side = pipeline.size
    size = {"height": side, "width": side, "max_area": side ** 2,
            "use_resolution_binning": False} if side else {}  # else some draw at a size of their own and shrink the picture
    return _called(pipeline, captions, seeds, length, size, _lanes(pipeline, len(captions)))


@torch.inference_mode()
def edited(pipeline: Pipeline, sources: list[Image.Image], commands: list[str], seeds: list[int], length: int | None,
           size: tuple[int, int]) -> list:
    """A batch of pictures, source i edited by command i with seed i, all at `size` (see `side_lengths`). Else as above."""
    sources = [source.convert("RGB").resize(size, Image.Resampling.LANCZOS) for source in sources]
    how = {"height": size[1], "width": size[0], "max_area": size[0] * size[1],
           "_auto_resize": False}  # of Kontext: the source has its size already
    if not takes_batches(pipeline):
        return _called(pipeline, commands, seeds, length, how | {"image": sources[0]}, 1)
    lanes = _lanes(pipeline, len(sources))
    return _called(pipeline, commands, seeds, length, how | {"image": sources + sources[-1:] * (lanes - len(sources))}, lanes)


def _called(pipeline: Pipeline, texts: list[str], seeds: list[int], length: int | None, how: dict[str, Any], lanes: int) -> list:
    """One call of a pipeline for `lanes` pictures; those beyond the texts repeat the last one and are dropped."""
    rows = [*range(len(texts))] + [len(texts) - 1] * (lanes - len(texts))
    generators = [torch.Generator("cpu").manual_seed(seeds[row]) for row in rows]
    given = _texts(pipeline, [_clean(pipeline, texts[row]) for row in rows], length) | how | _settings(pipeline, length)
    given = {name: value for name, value in given.items() if name in pipeline.takes}
    output = pipeline.pipe(**given, generator=generators, output_type="np")
    flags = getattr(output, "nsfw_content_detected", None) or [False] * lanes
    if len(output.images) != lanes:
        raise ValueError(f"it gave {len(output.images)} pictures for {lanes} texts")
    return [BLOCKED if flag else _picture(pixels) for pixels, flag in zip(output.images, flags, strict=True)][:len(texts)]


def _lanes(pipeline: Pipeline, n: int) -> int:
    """The size of a call for `n` pictures."""
    return UNET_LANES if _fixed(pipeline) else padded(n)


def padded(n: int) -> int:
    """The size of a call for `n` rows that a transformer works on.

    Matrix products of other shapes may differ in their last bit, which flips the rounding of a pixel in some pictures. On a GPU
    calls are not padded: there each size has kernels of its own.
    """
    return n if torch.cuda.is_available() else max(LANES, 2 ** math.ceil(math.log2(n)))


def _picture(pixels: np.ndarray) -> Image.Image | str:
    """A picture from values of 0 to 1 (H, W, 3), or why there is none."""
    if not np.isfinite(pixels).all():
        return NOT_A_NUMBER
    return Image.fromarray((pixels * 255).round().astype(np.uint8)).convert("RGB")


def _settings(pipeline: Pipeline, length: int | None) -> dict[str, Any]:
    """Steps, guidance and text length as the pipeline's call takes them."""
    given = {"num_inference_steps": pipeline.steps, _guide(pipeline): pipeline.guidance, "max_sequence_length": length}
    return {name: value for name, value in given.items() if value is not None}


def _guide(pipeline: Pipeline) -> str:
    """The parameter that guides: `guidance_scale`, or `true_cfg_scale` where the former is for other models of the class."""
    own = pipeline.takes.get("guidance_scale")
    return "guidance_scale" if own is not None and own.default is not None else "true_cfg_scale"


def _guided(pipeline: Pipeline) -> bool:
    """Whether the pipeline is guided away from a negative text."""
    own = pipeline.takes.get(_guide(pipeline))
    return (pipeline.guidance if pipeline.guidance is not None else own.default if own else 1) > 1


def _texts(pipeline: Pipeline, texts: list[str], length: int | None) -> dict[str, Any]:
    """What a call takes in place of the texts: their encodings, each made once; or the texts, if the class gives none."""
    takes, guided = pipeline.takes, _guided(pipeline)
    names = _encodings(pipeline)
    negative = {"negative_prompt": [NOTHING] * len(texts)} if guided and _guide(pipeline) == "true_cfg_scale" else {}
    if not names:
        return {"prompt": texts, **negative}
    given = _joined(_encoded(pipeline, texts, length, names))
    wanted = "negative_prompt_embeds"
    if guided and wanted in takes and wanted not in names and (negative or "negative_prompt" not in takes):
        away = _encoded(pipeline, [NOTHING if negative else ""] * len(texts), length, names)
        given |= {f"negative_{name}": value for name, value in _joined(away).items()}
    return given


def _encodings(pipeline: Pipeline) -> list[str]:
    """The names under which a call takes what `encode_prompt` gives, in its order; [] where texts have to be given instead."""
    encode = getattr(pipeline.pipe, "encode_prompt", None)
    accepts = inspect.signature(encode).parameters if encode else {}
    if "image" in accepts or any(name.endswith("attention_mask") for name in accepts):  # these give them in another order
        return []
    names = [name for name in accepts if "prompt_embeds" in name]
    in_order = not any("llama" in name for name in names)  # HiDream gives its encodings in another order than it takes them
    return names if in_order and set(names) <= set(pipeline.takes) else []


def varies(pipeline: Pipeline) -> bool:
    """Whether an encoding may depend on the length of its text, since it is padded to the longest of a call or not at all.

    Where a pipeline takes texts alone, this cannot be seen, and they are not put into calls with others of another length.
    """
    if pipeline.pipe not in VARIES:
        VARIES[pipeline.pipe] = _lengths_differ(pipeline)
    return VARIES[pipeline.pipe]


@torch.inference_mode()
def _lengths_differ(pipeline: Pipeline) -> bool:
    names, length = _encodings(pipeline), next(iter(pipeline.text_lengths), None)
    try:
        short, long = (_encode(pipeline, [text], length, names) for text in (SHORT, LONG)) if names else ({}, {})
    except Exception:  # the first call for a picture will raise it again
        return True
    return not names or any(short[name][0].shape != long[name][0].shape for name in short)


def _encoded(pipeline: Pipeline, texts: list[str], length: int | None, names: list[str]) -> list[dict[str, Any]]:
    """The encoding of each text, by the names under which a call takes it: tensors (or lists) with one row."""
    cache = pipeline.encoded
    new = [text for text in dict.fromkeys(texts) if (text, length) not in cache]
    for part in ([[text] for text in new] if varies(pipeline) else [new]):
        rows = part + part[-1:] * (0 if varies(pipeline) or not part else padded(len(part)) - len(part))
        found = _encode(pipeline, rows, length, names) if part else {}
        for i, text in enumerate(part):
            cache[text, length] = {name: value[i:i + 1] for name, value in found.items()}
    result = [cache[text, length] for text in texts]
    for text in texts:
        cache.move_to_end((text, length))
    while len(cache) > TEXTS_KEPT:
        cache.popitem(last=False)
    return result


def _encode(pipeline: Pipeline, texts: list[str], length: int | None, names: list[str]) -> dict[str, Any]:
    """One call of `encode_prompt`."""
    encode = pipeline.pipe.encode_prompt
    given = {"prompt": texts, "do_classifier_free_guidance": _guided(pipeline), "num_images_per_prompt": 1,
             "device": pipeline.pipe._execution_device, "max_sequence_length": length}
    accepts = inspect.signature(encode).parameters
    given = {name: value for name, value in given.items() if name in accepts and value is not None}
    found = encode(**given, **{name: None for name in ("prompt_2", "prompt_3") if name in accepts})
    found = zip(names, found if isinstance(found, tuple) else (found,), strict=False)  # FLUX gives the places of tokens as well
    return {name: value for name, value in found if value is not None}


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([row[name] for row in rows]) if isinstance(rows[0][name], torch.Tensor)
            else [item for row in rows for item in row[name]] for name in rows[0]}


def reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200].rstrip(". ")
