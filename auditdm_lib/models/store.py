"""The texts of models behind servers and of large models here, in one SQLite file for all runs: nothing is asked twice.

Only texts that ended are kept, each as soon as it has come, so that a run that is killed at any moment loses none. A text is
found by all that it depends on: the model, the picture's pixels, the prompt, and how it is decoded. Of a model here that is its
weights, its numbers and the code that asks it (`vlm.identity`), of one behind a server its name with the server's address: a
server that serves another model under the same name cannot be noticed; delete the file then.
"""

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from auditdm_lib import paths
from auditdm_lib.run.manifest import Stop

TABLE = "CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL) WITHOUT ROWID"
AT_ONCE = 500  # keys in one query
WAIT = 60  # seconds for which a process waits for others that write


def key(model: str, picture: bytes, prompt: str, **decoding: float) -> bytes:
    """What finds a text: a hash of the model's name, its picture's fingerprint (b"" for none), its prompt and its decoding."""
    what = json.dumps([model, picture.hex(), prompt, sorted(decoding.items())])
    return hashlib.sha256(what.encode()).digest()


@lru_cache(maxsize=1)
def _opened(file: Path) -> sqlite3.Connection:
    return opened(file)


def shared() -> sqlite3.Connection:
    """The store of all runs, opened once."""
    return _opened(paths.ANSWERS)


def opened(file: Path) -> sqlite3.Connection:
    """The store in a file, made if there is none; several threads and processes may use it. Raises Stop."""
    with _said(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        # each text is committed by itself; the threads of a process wait for each other within sqlite
        store = sqlite3.connect(file, timeout=WAIT, isolation_level=None, check_same_thread=False)
        _write_ahead(store)
        store.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing
        store.execute(TABLE)
    return store


def _write_ahead(store: sqlite3.Connection) -> None:
    """Set SQLite's write-ahead log. For this alone SQLite does not wait for another process that opens the file just then."""
    end = time.monotonic() + WAIT
    while True:
        try:
            store.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def kept(store: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, str]:
    """The texts that are kept for these keys."""
    found = {}
    with _said(_file(store)):
        for i in range(0, len(keys), AT_ONCE):
            some = keys[i:i + AT_ONCE]
            found.update(store.execute(f"SELECT key, text FROM texts WHERE key IN ({','.join('?' * len(some))})", some))
    return found


def keep(store: sqlite3.Connection, key: bytes, model: str, text: str) -> None:
    """Keep a text; the first of a key stays. Raises Stop."""
    with _said(_file(store)):
        store.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", (key, model, text))


def _file(store: sqlite3.Connection) -> Path:
    return Path(store.execute("PRAGMA database_list").fetchone()[2])


@contextlib.contextmanager
def _said(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:  # no room, read-only, locked for a minute
        raise Stop(f"Answers cannot be kept in {file} ({error}): make room or allow writing there, and run the same command "
                   "again, which goes on from here.") from error
    except sqlite3.DatabaseError as error:
        raise Stop(f"The answers kept in {file} are damaged ({error}): delete this file, and the same command asks "
                   "anew.") from error
