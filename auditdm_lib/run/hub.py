"""Models on the Hugging Face hub: what an id looks like, and the commit that it stands for."""

import functools
import re
from pathlib import Path

from auditdm_lib import paths

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_id(name: str) -> bool:
    """Whether a name is a hub id: no folder or slip of one, and none beside the user, who may take that for it."""
    path = paths.place(name)
    return bool(ID.fullmatch(name)) and not (path.exists() or path.parent.is_dir() or Path(name).is_dir())


@functools.lru_cache
def revision(name: str) -> str:
    """The commit of a hub model as it would be loaded now: the hub's, or without network the local cache's.

    Raises LookupError where neither has it.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache  # slow, and most runs are local

    try:
        return HfApi().model_info(name, timeout=3).sha
    except Exception as error:  # no network, offline mode, gated, no such model: the client has a dozen types
        for file in ("config.json", "model_index.json"):  # a model's, a pipeline's
            if isinstance(cached := try_to_load_from_cache(name, file), str):
                return Path(cached).parent.name
        reason = type(error).__name__
        raise LookupError(f"not in the Hugging Face cache, and the hub gave {reason}") from error
