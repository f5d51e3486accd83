"""Finished results: the hashes of their files, and the manifest that seals them."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from auditdm_lib import paths

NAME = "manifest.json"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "tokenizers",
            "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "sentence-transformers", "matplotlib",
            "pillow", "papermill", "lmms-eval", "ray")


class Stop(RuntimeError):
    """Work cannot begin or go on; the message is for the user and says what to do about it."""


class NotRun(Stop):
    """A stage has no result yet."""


class Damaged(Stop):
    """A finished result is not what its manifest says."""


def digest(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form, or of bytes."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")  # any file name
    return hashlib.sha256(value).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by POSIX path relative to it; hidden files and caches left out."""
    return {name: hash_file(folder / name) for name in _files(folder, folder)}


def _files(folder: Path, part: Path) -> list[str]:
    """The files of a folder that are `part` or lie below it, by POSIX path relative to the folder, sorted."""
    paths_found = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in paths_found)
    return [name for name in names if not any(p.startswith(".") or p == "__pycache__" for p in name.split("/"))]


def environment() -> dict[str, Any]:
    """Git commit and dirty flag (null outside a repository), processor, Python and package versions."""
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(paths.ROOT), *words],
                                  check=False, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status),
            "python": platform.python_version(), "machine": platform.machine(), "processor": processor(), "packages": versions()}


def versions() -> dict[str, str | None]:
    """The versions of the PACKAGES; null for one that is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """The processor's name: the same seed and code give other bytes on another one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(folder: Path, record: dict[str, Any], timing: dict[str, Any]) -> dict[str, Any]:
    """Seal a folder: hash all that it holds and write manifest.json, last and durably; returns the manifest.

    Everything but `timing` is byte-stable, so the hash of a file named timing.csv stands there.
    """
    outputs = hash_folder(folder)
    timed = {name: outputs.pop(name) for name in list(outputs) if name.split("/")[-1] == "timing.csv"}
    data = record | {"outputs": outputs, "outputs_digest": digest(outputs)}
    timing = timing | {"outputs": timed}
    data = data | {"seal": digest(data), "timing": timing | {"seal": digest(timing)}}
    for path in (*folder.rglob("*"), folder):
        fsync(path)
    partial = folder / f".{NAME}.partial"  # a folder with a manifest counts as complete, so it is never there in half
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    fsync(partial)
    os.replace(partial, folder / NAME)
    fsync(folder)
    return data


def load(folder: Path) -> dict[str, Any]:
    """A folder's manifest, its own seal checked. Raises NotRun where there is none, Damaged where it was altered."""
    path = folder / NAME
    if not folder.is_dir():
        raise NotRun(f"{shown(folder)} has not been run yet.")
    if not path.is_file():
        raise Damaged(f"{shown(folder)} is damaged: it has no {NAME}.")
    try:
        data = json.loads(path.read_bytes())
        body = {name: value for name, value in data.items() if name not in ("seal", "timing")}
        timing = {name: value for name, value in data["timing"].items() if name != "seal"}
        sealed = data["seal"] == digest(body) and data["timing"]["seal"] == digest(timing)
        sealed = sealed and data.get("outputs_digest") == digest(data["outputs"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        sealed = False
    if not sealed:
        raise Damaged(f"{shown(path)} is damaged: its content does not match its own seal.")
    return data


def verify(folder: Path, *names: str) -> dict[str, Any]:
    """A folder's manifest, every file's sha256 checked, or only those of the files and subfolders `names`.

    Raises NotRun or Damaged, naming the first file that differs, is missing, or was added.
    """
    data = load(folder)
    sealed = data["outputs"] | data["timing"]["outputs"]
    parts = [folder / name for name in names]
    present = {name for part in parts or [folder] for name in _files(folder, part)} - {NAME}
    wanted = {name for name in sealed if not names or any(f"{name}/".startswith(f"{part}/") for part in names)}
    for name in names:
        if not any(f"{known}/".startswith(f"{name}/") for known in wanted):
            raise Damaged(f"{shown(folder / name)} is not part of the finished stage.")
    for name in sorted(wanted | present):
        if name not in present:
            raise Damaged(f"{shown(folder / name)} is missing.")
        if name not in sealed:
            raise Damaged(f"{shown(folder / name)} was added after the stage was finished: move it elsewhere.")
        if hash_file(folder / name) != sealed[name]:
            raise Damaged(f"{shown(folder / name)} is damaged: its sha256 is not the one in {NAME}.")
    return data


def folder_of(run: str, stage: str) -> Path:
    """The folder of a run that holds the folder of this stage: the run is named as below runs/, or by its path.

    Raises NotRun, naming the runs that have one, where there is no folder of the run at all.
    """
    known = [folder for folder in (paths.RUNS / run, Path(run)) if folder.is_dir()]
    if not known:
        made = sorted(folder.parent.name for folder in paths.RUNS.glob(f"*/{stage}"))
        raise NotRun(f"There is no run {run!r}; " + (f"there are {', '.join(made)}." if made else "none has been made yet."))
    return next((folder for folder in known if (folder / stage).is_dir()), known[0])


def fsync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot sync a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def shown(path: Path) -> str:
    return path.relative_to(paths.HOME).as_posix() if path.is_relative_to(paths.HOME) else str(path)
