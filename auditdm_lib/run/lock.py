"""One lock: a folder that a stage or a model is written into has one writer at a time.

The system holds the lock for the process (flock; on Windows its counterpart) and frees it when the process ends, however it
ends and wherever it runs: in another kernel, in a container, or on another host that shares the file system. The note beside the
lock says who took it, for people to read; no decision depends on it.
"""

import json
import os
import socket
import time
from pathlib import Path

import filelock

from auditdm_lib.run.manifest import Stop, shown

_held: dict[Path, filelock.FileLock] = {}  # of this process: a notebook may open its stage twice


class Busy(Stop):
    """Another process is at work on the folder."""


def hold(final: Path) -> None:
    """Take the lock of a folder that is about to be written, or keep it if this process has it.

    Raises Busy, naming the holder, where another process has it, and Stop where the file system gives no locks.
    """
    if final in _held:
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(final.parent / f".{final.name}.lock", timeout=1, fallback_to_soft=False)  # a soft one may outlive us
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Busy(f"{shown(final)} is being written by another process ({_holder(final)}). Let it finish, or end it: a notebook "
                   "frees its stage when it is finished or its kernel is shut down.") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise Stop(f"The file system of {final.parent} gives no locks: set AUDITDM_HOME to a folder on one that does.") from error
    _held[final] = lock
    note = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    _note(final).write_text(json.dumps(note), encoding="utf-8")


def held(final: Path) -> bool:
    """Whether this process has the lock of a folder."""
    return final in _held


def free(final: Path) -> None:
    """Give back the lock of a folder, if this process has it."""
    if lock := _held.pop(final, None):
        _note(final).unlink(missing_ok=True)
        lock.release()


def holder(final: Path) -> str | None:
    """Who holds the lock of a folder, in words; None where nobody else does."""
    if final in _held or not (final.parent / f".{final.name}.lock").exists():
        return None
    try:
        hold(final)
    except Busy:
        return _holder(final)
    except PermissionError:  # a run that may only be read is written by nobody here
        return None
    free(final)
    return None


def _note(final: Path) -> Path:
    return final.parent / f".{final.name}.holder.json"


def _holder(final: Path) -> str:
    try:
        note = json.loads(_note(final).read_text(encoding="utf-8"))
        return f"process {note['process']} on {note['host']}, since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which left no name"
