"""A folder below figures/ that no stage writes: made whole or not at all, with a manifest like that of a stage."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from auditdm_lib import paths
from auditdm_lib.run import commit, lock, manifest


def write_folder(name: str, inputs: dict[str, str], fill: Callable[[Path], None]) -> Path:
    """Let `fill` write the files of figures/`name`, made from `inputs` (what -> its hash); the folder. Raises manifest.Stop where
    another process is at work on it."""
    began, started, final = time.time(), datetime.now(UTC), paths.FIGURES / name
    lock.hold(final)
    try:
        out = commit.temporary(final)
        fill(out)
        record = {"stage": name, "run": name, "key": {"inputs": inputs}, "environment": manifest.environment()}
        manifest.write(out, record, {"started": started.isoformat(timespec="seconds"),
                                     "wall_seconds": round(time.time() - began, 1)})
        commit.commit(out, final)
    finally:
        lock.free(final)
    return final
