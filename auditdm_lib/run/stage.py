"""The two calls that open and close every stage's notebook: `start` and `finish`."""

import ast
import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import manifest, params


@dataclass
class Stage:
    """A stage at work. Write into `out`, take lower stages from `read`, note prompts in `prompts`."""

    step: paths.Step
    run: str
    parameters: dict[str, Any]
    key: dict[str, Any]
    out: Path
    work: Path  # kept until the stage is finished: a killed one's trainings lie here, for the next to go on from
    began: float
    prompts: dict[str, str] = field(default_factory=dict)  # name -> text, for the manifest

    def read(self, folder: str) -> Path:
        """A finished lower stage's folder, every file's sha256 checked. Raises Damaged with the remedy."""
        if folder not in self.step.reads:
            raise KeyError(f"{self.step.notebook} does not declare that it reads {folder} (see paths.CHAIN).")
        return read(self.run, folder)


def command(run: str) -> str:
    """The command line that repeats this run; `auditdm run` hands its own down."""
    return os.environ.get("AUDITDM_COMMAND", f"auditdm run params/{run}.yaml")


def rebuild(run: str, folder: str, problem: Exception) -> str:
    """One message: what is wrong with a stage's result, and the command that makes it anew."""
    return f"{problem}\nRebuild it with: {command(run)} --from {paths.step(folder).notebook[:2]}"


def read(run: str, folder: str) -> Path:
    """A finished stage's folder in any run, every file's sha256 checked. Raises Damaged with the remedy."""
    path = paths.result(run, folder)
    try:
        manifest.verify(path)
    except manifest.Damaged as problem:
        raise manifest.Damaged(rebuild(run, folder, problem)) from None
    return path


def sources(notebook: str) -> list[str]:
    """The code cells of a stage's notebook but for its parameters, whose values are in the key anyway."""
    return [cell["source"] for cell in params.code_cells(paths.NOTEBOOKS / f"{notebook}.ipynb")
            if "parameters" not in cell["tags"]]


def stage_key(step: paths.Step, values: dict[str, Any], known: dict[str, params.Parameter]) -> dict[str, Any]:
    """All that a stage's result depends on: code cells, parameters, inputs, library sources.

    Raises Damaged where a lower stage is not finished.
    """
    inputs = {}
    for name, parameter in known.items():
        if parameter.rule["kind"]:
            items = values[name] if isinstance(values[name], list) else [values[name]]
            inputs |= {f"{name}: {item}": input_hash(item, parameter.rule["kind"]) for item in items if item}
    for folder in step.reads:
        inputs[folder] = manifest.load(paths.result(values["run"], folder))["outputs_digest"]
    for path in step.files:
        inputs[path.name] = manifest.hash_file(path)
    return {"code": manifest.digest(sources(step.notebook)), "parameters": values,
            "inputs": inputs, "library": manifest.library_hash()}


def input_hash(name: str, kind: str) -> str | None:
    """What identifies a model or a picture source: a hash of the folder, or the hub's commit.

    None for testbed pictures (the library's hash covers them) and for `datasets:NAME` (known by name only).
    """
    path = Path(paths.resolve(name.removeprefix("datasets:")))
    if path.is_dir():
        return manifest.digest(manifest.hash_folder(path))
    return None if kind == "pictures" else params.hub_revision(name)


def start(notebook: str, names: dict[str, Any]) -> Stage:
    """Open a stage: check its parameters, seed everything, make the folder to write into.

    `names` is the notebook's `globals()`, after its parameters cell. Raises BadParameters with all faults, or
    Damaged where a lower stage is missing.
    """
    step, known = paths.step(notebook), params.declared(paths.NOTEBOOKS / f"{notebook}.ipynb")
    values = {name: names[name] for name in known}
    params.check(values | _strangers(names), known, notebook)
    try:
        key = stage_key(step, values, known)
    except manifest.Damaged as problem:
        lower = next(folder for folder in step.reads if not _finished(values["run"], folder))
        raise manifest.Damaged(rebuild(values["run"], lower, problem)) from None
    print(f"{notebook}, run {values['run']!r}")
    for name, value in values.items():
        print(f"  {name} = {value!r}  ({known[name].rule['help']})")
    _seed(values["seed"], values["threads"])
    final = paths.result(values["run"], step.folder)
    out = manifest.temporary(final)
    work = final.parent / f".{final.name}.work"
    work.mkdir(parents=True, exist_ok=True)
    return Stage(step, values["run"], values, key, out, work, time.time())


def finish(stage: Stage) -> None:
    """Close a stage: seal what it wrote with a manifest and put it in the place of the old result."""
    final = paths.result(stage.run, stage.step.folder)
    if not _ran_as_saved(stage.step.notebook):
        stage.key["code"] = None  # equal to no saved notebook
        print("The notebook on disk is not what ran here (unsaved or skipped cells), so the next "
              "`auditdm run` will repeat this stage.")
    record = {
        "stage": stage.step.notebook, "run": stage.run, "key": stage.key, "seed": stage.parameters["seed"],
        "prompts": {name: {"text": text, "sha256": manifest.digest(text.encode())}
                    for name, text in stage.prompts.items()},
        "device": _device(), "environment": manifest.environment(),
    }
    timing = {"started": datetime.fromtimestamp(stage.began, UTC).isoformat(timespec="seconds"),
              "wall_seconds": round(time.time() - stage.began, 1)}
    manifest.write(stage.out, record, timing)
    manifest.commit(stage.out, final)
    shutil.rmtree(stage.work, ignore_errors=True)
    shown = final.relative_to(paths.HOME).as_posix()
    print(f"{shown} is finished: {len(manifest.hash_folder(final)) - 1} files, {timing['wall_seconds']} s.")


def _finished(run: str, folder: str) -> bool:
    try:
        return bool(manifest.load(paths.result(run, folder)))
    except manifest.Damaged:
        return False


def _strangers(names: dict[str, Any]) -> dict[str, Any]:
    # papermill only warns of a parameter that no notebook declares, and then the default would win.
    injected = [cell for cell in names.get("In", []) if cell.startswith("# Parameters\n")]
    found = {node.targets[0].id for cell in injected for node in ast.parse(cell).body
             if isinstance(node, ast.Assign)}
    return {name: names[name] for name in found - params.declared_anywhere().keys()}


def _seed(seed: int, threads: int) -> None:
    import torch  # seconds, which a command with bad input should not wait for
    import transformers

    torch.set_num_threads(threads)
    transformers.set_seed(seed)


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _ran_as_saved(notebook: str) -> bool:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return True
    ran = {cell.strip() for cell in shell.history_manager.input_hist_raw}
    cells = [cell.strip() for cell in sources(notebook)]
    last = next((i for i, cell in enumerate(cells) if "finish(" in cell), len(cells) - 1)
    return all(cell in ran for cell in cells[:last + 1])
