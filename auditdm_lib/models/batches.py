"""A model's work in batches: on the GPU while it is asked, and in halves of a batch where the GPU's memory does not suffice."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakSet

import torch
from tqdm.auto import tqdm

from auditdm_lib.models.placement import at_hand

_halved: WeakSet = WeakSet()  # models that ran out of memory: their batches are half as large for the rest of the process


def in_batches(model: torch.nn.Module, items: Sequence, batch_size: int, work: Callable[[Sequence], Iterable],
               desc: str | None = None) -> list:
    """What `work` gives for successive batches of at most `batch_size` items, in order, with a progress bar if it has a name.

    The first batch for which the GPU's memory does not suffice halves the batches of this model, for good and with a warning
    that names the size. Raises torch.OutOfMemoryError if half is still too much.
    """
    done, begin = [], 0
    with at_hand(model), tqdm(total=len(items), desc=desc, disable=desc is None) as bar:
        while begin < len(items):
            batch = items[begin:begin + (max(1, batch_size // 2) if model in _halved else batch_size)]
            if (given := _tried(model, batch, work)) is not None:
                done, begin = done + given, begin + len(batch)
                bar.update(len(batch))
    return done


def _tried(model: torch.nn.Module, batch: Sequence, work: Callable) -> list | None:
    """The results for a batch; None if it ran out of memory and a half of it is to be tried, from the same random numbers."""
    drawn = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        return list(work(batch))
    except torch.OutOfMemoryError:
        if model in _halved or len(batch) == 1:
            raise
    # outside the block above, in which the exception would keep the batch's tensors alive
    _halved.add(model)
    torch.set_rng_state(drawn[0])  # or what is sampled would depend on how far the batch came before the memory ran out
    torch.cuda.set_rng_state_all(drawn[1])
    torch.cuda.empty_cache()
    warnings.warn(f"The GPU's memory did not suffice for a batch of {len(batch)} questions or texts: this model is asked half as "
                  "many at a time from now on; lower answer_batch or text_batch to begin so.", stacklevel=2)
    return None
