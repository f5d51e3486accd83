"""What a stage's result is made of: hashes, the manifest that seals them, and the atomic commit."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from auditdm_lib import paths

NAME = "manifest.json"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "tokenizers",
            "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "sentence-transformers", "matplotlib",
            "pillow", "papermill")


class Damaged(RuntimeError):
    """A finished result is missing or not what its manifest says."""


def digest(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form, or of bytes."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(value).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by POSIX path relative to it; hidden files and caches left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: hash_file(path) for name, path in sorted(names.items())
            if not any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))}


def library_hash() -> str:
    """sha256 over the library's sources (checkpoints enter by the parameter that names them)."""
    sources = [path for path in paths.LIBRARY.rglob("*") if "checkpoints" not in path.parts
               and path.suffix in {".py", ".yaml", ".html", ".css", ".txt", ".csv"}]
    return digest({path.relative_to(paths.LIBRARY).as_posix(): hash_file(path) for path in sources})


def environment() -> dict[str, Any]:
    """Git commit and dirty flag (null outside a repository), Python and package versions."""
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(paths.ROOT), *words],
                                  check=False, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status),
            "python": platform.python_version(), "machine": platform.machine(), "packages": versions}


def write(folder: Path, record: dict[str, Any], timing: dict[str, Any]) -> None:
    """Seal a folder: hash all that it holds and write manifest.json, last and durably.

    Everything but `timing` is byte-stable, so a file named timing.csv is hashed there.
    """
    outputs = hash_folder(folder)
    timed = {name: outputs.pop(name) for name in list(outputs) if name.split("/")[-1] == "timing.csv"}
    data = record | {"outputs": outputs, "outputs_digest": digest(outputs)}
    timing = timing | {"outputs": timed}
    data = data | {"seal": digest(data), "timing": timing | {"seal": digest(timing)}}
    for path in (*folder.rglob("*"), folder):
        _fsync(path)
    with open(folder / NAME, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    _fsync(folder / NAME)
    _fsync(folder)


def load(folder: Path) -> dict[str, Any]:
    """A folder's manifest, its own seal checked. Raises Damaged where it is missing or altered."""
    path = folder / NAME
    if not path.is_file():
        raise Damaged(f"{_shown(folder)} is not finished: it has no {NAME}.")
    try:
        data = json.loads(path.read_bytes())
        body = {name: value for name, value in data.items() if name not in ("seal", "timing")}
        timing = {name: value for name, value in data["timing"].items() if name != "seal"}
        sealed = data["seal"] == digest(body) and data["timing"]["seal"] == digest(timing)
    except (ValueError, KeyError, AttributeError, TypeError):
        sealed = False
    if not sealed:
        raise Damaged(f"{_shown(path)} is damaged: its content does not match its own seal.")
    return data


def verify(folder: Path) -> dict[str, Any]:
    """A folder's manifest, every file's sha256 checked. Raises Damaged, naming the first that differs."""
    data = load(folder)
    for name, expected in (data["outputs"] | data["timing"]["outputs"]).items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{_shown(path)} is missing.")
        if hash_file(path) != expected:
            raise Damaged(f"{_shown(path)} is damaged: its sha256 is not the one in {NAME}.")
    return data


def temporary(final: Path) -> Path:
    """A new, empty folder beside `final` to write into; leftovers of dead processes are cleared first."""
    settle(final)
    folder = final.parent / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def commit(folder: Path, final: Path) -> None:
    """Put a sealed folder in the place of `final`. At every moment one complete result is on the disk."""
    old = final.parent / f".{final.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)  # a folder cannot be renamed over a full one
    os.rename(folder, final)
    _fsync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def settle(final: Path) -> None:
    """Mend what a killed process left: finish a commit cut in two, remove folders half written."""
    sealed = []
    for folder in final.parent.glob(f".{final.name}.*.tmp"):
        if psutil.pid_exists(int(folder.name.split(".")[-2])):
            continue
        if (folder / NAME).is_file():
            sealed.append(folder)
        else:
            shutil.rmtree(folder)
    for folder in sealed:  # its manifest is written last, so it is complete, or `verify` will say so
        commit(folder, final)
    old = final.parent / f".{final.name}.old"
    if old.exists() and not final.exists():
        os.rename(old, final)


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot sync a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def _shown(path: Path) -> str:
    return path.relative_to(paths.HOME).as_posix() if path.is_relative_to(paths.HOME) else str(path)
