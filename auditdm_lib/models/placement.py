"""Where the models of a process lie and in which numbers they compute: one placement for all, as a notebook's parameters say.

A placement belongs to the process, like the number of threads: a notebook sets it once, before it loads a model. A model that is
trained lies whole on one device and in its own numbers, whatever is said of those that are only asked.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from auditdm_lib.run import devices
from auditdm_lib.run.manifest import Stop

EACH = "members"  # a value of device_map


@dataclass(frozen=True)
class Placement:
    """How models are loaded, by the parameters of the same names."""

    dtype: str = "auto"
    attention: str = "auto"
    device_map: str = ""
    quantisation: str = ""
    member_offload: str = "none"


_placed = Placement()


def place(dtype: str = "auto", attention: str = "auto", device_map: str = "", quantisation: str = "",
          member_offload: str = "none") -> None:
    """Set how every model is loaded from now on in this process. Raises Stop, with the remedy, if this machine cannot do it."""
    global _placed
    wanted = Placement(dtype, attention, device_map, quantisation, member_offload)
    if faults := devices.unfit(asdict(wanted), torch.cuda.is_available()):
        raise Stop("\n".join(faults))
    _placed = wanted


def place_as(parameters: dict[str, Any]) -> None:
    """`place` by the parameters of a finished run; what an earlier version of the kit did not declare is at its default."""
    place(**{name: parameters[name] for name in asdict(Placement()) if name in parameters})


def current() -> dict[str, str]:
    """The parameters of the placement, for another process to take it over (`place`)."""
    return asdict(_placed)


def device() -> str:
    """Where a model lies that fits on one device: the first GPU, or the processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def of_member(place: int) -> str | None:
    """The GPU on which the member at a place (0: the target) lies whole, so that each has one of its own as far as there are
    enough, with `device_map` "members"; None where the placement says no more than `device`, and in one of several processes that
    train together, whose members lie on its own GPU."""
    gpus = 0 if torch.distributed.is_available() and torch.distributed.is_initialized() else torch.cuda.device_count()
    return f"cuda:{place % gpus}" if _placed.device_map == EACH and gpus else None


def number() -> torch.dtype:
    """The numbers that trainings compute with: float32 on a processor, where bfloat16 is slower, bfloat16 on a GPU, or as given.
    So are those of a model that is asked, but for "auto" on a GPU: there it keeps its checkpoint's own."""
    auto = "bfloat16" if torch.cuda.is_available() else "float32"
    return getattr(torch, auto if _placed.dtype == "auto" else _placed.dtype)


def mixed() -> dict[str, bool]:
    """What `TrainingArguments` takes so that a training computes in `number()`, whatever the numbers of its weights."""
    return {"bf16": number() == torch.bfloat16, "fp16": number() == torch.float16}


def waits(trained: bool) -> bool:
    """Whether a model waits in the main memory until it is asked."""
    return not trained and _placed.member_offload == "model" and torch.cuda.is_available()


def loading(trained: bool, all_weights: bool, where: str | None = None) -> dict[str, Any]:
    """What `from_pretrained` takes of the placement; `where` is the device of a model that lies on another than `device`.

    A model whose weights are all trained has them in float32: an update that is small against a weight would be lost in the
    rounding of bfloat16.
    """
    own = _placed.dtype == "auto" and torch.cuda.is_available()
    how: dict[str, Any] = {"dtype": torch.float32 if all_weights else "auto" if own else number()}
    if _placed.attention != "auto":
        how["attn_implementation"] = _placed.attention
    if _placed.device_map not in ("", EACH) and not trained:
        how["device_map"] = _placed.device_map
    if _placed.quantisation and not trained:
        from transformers import BitsAndBytesConfig

        four = _placed.quantisation == "4bit"
        how["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                                        bnb_4bit_compute_dtype=number()) if four else BitsAndBytesConfig(
                                                            load_in_8bit=True)
        how.setdefault("device_map", {"": where or device()})  # bitsandbytes quantises where the weights go
    return how


@contextlib.contextmanager
def at_hand(model: torch.nn.Module) -> Iterator[None]:
    """The model on the GPU for as long as it is asked, if it waits in the main memory (`member_offload`)."""
    if not waits(False) or model.device.type != "cpu":
        yield
        return
    model.to(device())
    try:
        yield
    finally:
        model.to("cpu")
        torch.cuda.empty_cache()  # or the freed memory would be kept in pieces that suit this model alone
