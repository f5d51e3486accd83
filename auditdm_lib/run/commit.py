"""The atomic commit: a result is written beside its place and put there whole, so that a kill never leaves half of one."""

import os
import shutil
from pathlib import Path

from auditdm_lib.run.manifest import NAME, fsync


def temporary(final: Path) -> Path:
    """A new, empty folder beside `final` to write into. The caller holds the lock of `final` (`lock.hold`)."""
    settle(final)
    folder = _beside(final, "tmp")
    folder.mkdir(parents=True)
    return folder


def commit(folder: Path, final: Path) -> None:
    """Put a sealed folder in the place of `final`. At every moment one complete result is on the disk."""
    old = _beside(final, "old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)  # a folder cannot be renamed over a full one
    os.rename(folder, final)
    fsync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def settle(final: Path) -> None:
    """Clear up what a killed process left: finish a commit cut in two, remove a folder half written.

    The caller holds the lock of `final`, so no living process is at work on what is found here.
    """
    folder, old = _beside(final, "tmp"), _beside(final, "old")
    if (folder / NAME).is_file():  # the manifest is written last, so the folder is complete, or `verify` will say so
        commit(folder, final)
    shutil.rmtree(folder, ignore_errors=True)
    if old.exists() and not final.exists():
        os.rename(old, final)
    shutil.rmtree(old, ignore_errors=True)


def unsettled(final: Path) -> bool:
    """Whether `settle` would find something."""
    return _beside(final, "tmp").exists() or _beside(final, "old").exists()


def discard(folder: Path) -> None:
    """Delete a folder that must not be taken up half deleted: it leaves its name first."""
    gone = _beside(folder, "deleted")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.rename(folder, gone)
        shutil.rmtree(gone)


def _beside(final: Path, kind: str) -> Path:
    return final.parent / f".{final.name}.{kind}"
