"""The two calls that open and close every stage's notebook: `start` and `finish`."""

import ast
import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import commit, endpoints, functions, hub, lock, manifest, params, reach


@dataclass
class Stage:
    """A stage at work. Write into `out`, take lower stages from `read`, note prompts in `prompts`."""

    step: paths.Step
    run: str
    parameters: dict[str, Any]
    key: dict[str, Any]
    out: Path
    work: Path  # trainings keep their checkpoints here until the stage is finished, so that a killed one can go on
    began: float
    ran_before: int  # cells that had run in this notebook when the stage was opened
    prompts: dict[str, str] = field(default_factory=dict)  # name -> text, for the manifest
    requests: dict[str, int] = field(default_factory=dict)  # what was asked of servers, for the timing block of the manifest

    @property
    def setup(self) -> SimpleNamespace:
        """The parameters that say which models are asked and how (`params.SETUP`), declared once, in the first notebook."""
        return SimpleNamespace(**{name: self.parameters[name] for name in params.SETUP})

    def read(self, folder: str, *names: str) -> Path:
        """A finished lower stage's folder, the sha256 of its files checked, or only those of `names` (files or subfolders).

        Raises NotRun or Damaged with the remedy, KeyError where the stage does not declare that it reads the folder.
        """
        if folder not in self.step.reads:
            raise KeyError(f"{self.step.notebook} does not declare that it reads {folder} (see paths.CHAIN).")
        path = paths.result(self.run, folder)
        try:
            manifest.verify(path, *names)
        except manifest.Stop as problem:
            raise type(problem)(with_remedy(self.run, folder, problem)) from None
        return path


def command(run: str) -> str:
    """The command line that repeats this run; `auditdm run` hands its own down."""
    return os.environ.get("AUDITDM_COMMAND", f"auditdm run params/{run}.yaml")


def with_remedy(run: str, folder: str, problem: Exception) -> str:
    """One message: what is wrong with a stage's result, and the command that makes it (anew)."""
    verb = "Run it with" if isinstance(problem, manifest.NotRun) else "Rebuild it with"
    return f"{problem}\n{verb}: {command(run)} --from {paths.step(folder).notebook[:2]}"


def cells(notebook: str) -> list[str]:
    """The code cells of a stage's notebook except its parameters, whose values are in the key anyway."""
    return [cell["source"] for cell in params.code_cells(paths.NOTEBOOKS / f"{notebook}.ipynb")
            if "parameters" not in cell["tags"]]


def stage_key(step: paths.Step, values: dict[str, Any], known: dict[str, params.Parameter]) -> dict[str, Any]:
    """All that a stage's result depends on: code cells, parameters, inputs, and the library's sources that its imports reach.

    Raises NotRun or Damaged where a lower stage has no sound manifest.
    """
    inputs = reach.supplied(values)
    for name, parameter in known.items():
        if parameter.rule["kind"] == "server":
            values = values | {name: "a server" if values[name] else ""}  # the same one may have another address tomorrow
        elif parameter.rule["kind"] and (parameter.rule["kind"] != "pipeline" or name in params.used_pipelines(values)):
            items = values[name] if isinstance(values[name], list) else [values[name]]
            for item in items:
                if item and f"{name}: {item}" not in inputs:
                    inputs[f"{name}: {item}"] = input_hash(item, parameter.rule["kind"])
    for folder in step.reads:
        inputs[folder] = manifest.load(paths.result(values["run"], folder))["outputs_digest"]
    for path in step.files:
        inputs[path.name] = manifest.hash_file(path)
    code = cells(step.notebook)
    return {"code": manifest.digest(code), "parameters": values, "inputs": inputs, "sources": reach.sources(code)}


def input_hash(name: str, kind: str) -> str | None:
    """What identifies a model, a picture source, a task of lmms-eval, a file or a function: a hash of the folder, file or source,
    the hub's commit, or the name of a model behind a server.

    None for `datasets:NAME` and for a task of lmms-eval's own, which are known by name only, and for a function of the kit,
    whose source is in the key anyway.
    """
    if kind == "file":
        return manifest.hash_file(paths.place(name))
    if kind == "function":
        return functions.digest(name)
    if endpoints.is_endpoint(name):
        return name
    text = name.removeprefix("datasets:")
    for folder in (text, text.partition(":")[0]):  # a data set's folder may be followed by :CONFIGURATION:SPLIT
        if folder and (path := paths.place(folder)).is_dir():
            return manifest.digest(manifest.hash_folder(path))
    return None if kind in ("pictures", "tasks") else hub.revision(name)


def taken(step: paths.Step, names: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a stage: those in `names`, and what is missing there of `params.SETUP` as the finished stages of the run
    have it, the nearest first, or at its default."""
    known = params.declared(paths.NOTEBOOKS / f"{step.notebook}.ipynb")
    setup = {name: known[name].default for name in params.SETUP if name in known}
    if setup and isinstance(names["run"], str) and not params.run_fault(names["run"]):
        for had in _told(step, names["run"]).values():
            setup |= {name: had[name] for name in setup if name in had}
    return {name: setup[name] if name in setup and name not in names else names[name] for name in known}


def unlike(step: paths.Step, values: dict[str, Any]) -> list[str]:
    """What the finished stages of the run from which this one goes on were told otherwise: a sentence for each of them."""
    said = []
    for folder, had in _told(step, values["run"]).items():
        other = [f"{name} = {had[name]!r}" for name, value in values.items()
                 if name != "threads" and had.get(name, value) != value]
        said += [f"{paths.step(folder).notebook} of this run had {', '.join(other)}: run it again, or set the same here."
                 ] if other else []
    return said


def _told(step: paths.Step, run: str) -> dict[str, dict[str, Any]]:
    """The parameters of the finished stages from which this one goes on, by folder: the first stage's, and those it reads."""
    folders = (folder for folder in (paths.CHAIN[0].folder, *step.reads) if folder != step.folder and _finished(run, folder))
    return {folder: manifest.load(paths.result(run, folder))["key"]["parameters"] for folder in folders}


def start(notebook: str, names: dict[str, Any]) -> Stage:
    """Open a stage: check its parameters, take its lock, seed everything, make the folder to write into.

    `names` is the notebook's `globals()`, after its parameters cell (see `taken`). Raises BadParameters with all faults, NotRun
    or Damaged where a lower stage is missing or altered, and Busy where another process is at work on the stage.
    """
    step, known = paths.step(notebook), params.declared(paths.NOTEBOOKS / f"{notebook}.ipynb")
    values = taken(step, names)
    params.check(values | _undeclared(names), known, notebook)
    params.check_servers(values, known, notebook)
    try:
        key = stage_key(step, values, known)
    except manifest.Stop as problem:
        lower = next(folder for folder in step.reads if not _finished(values["run"], folder))
        raise type(problem)(with_remedy(values["run"], lower, problem)) from None
    final = paths.result(values["run"], step.folder)
    lock.hold(final)
    print(f"{notebook}, run {values['run']!r}")
    for name, value in values.items():
        print(f"  {name} = {value!r}  ({known[name].rule['help']})")
    print(*unlike(step, values), sep="\n")
    _seed(values["seed"], values["threads"])
    out = commit.temporary(final)
    work = final.parent / f".{final.name}.work"
    work.mkdir(parents=True, exist_ok=True)
    return Stage(step, values["run"], values, key, out, work, time.time(), max(len(_history()) - 1, 0))


def finish(stage: Stage) -> None:
    """Close a stage: seal what it wrote with a manifest, put it in the place of the old result, give back the lock."""
    final = paths.result(stage.run, stage.step.folder)
    if not lock.held(final):
        raise manifest.Stop(f"{stage.step.notebook} is finished already: to repeat it, run its cells again from start(...) on.")
    if not _ran_as_saved(stage):
        stage.key["code"] = None  # equal to no saved notebook
        print("The cells that ran since start(...) are not those of the saved notebook, in its order, so the next `auditdm run` "
              "will repeat this stage.")
    record = {
        "stage": stage.step.notebook, "run": stage.run, "key": stage.key, "seed": stage.parameters["seed"],
        "prompts": {name: {"text": text, "sha256": manifest.digest(text.encode())}
                    for name, text in stage.prompts.items()},
        "device": _device(), "environment": manifest.environment(),
    }
    timing = {"started": datetime.fromtimestamp(stage.began, UTC).isoformat(timespec="seconds"),
              "wall_seconds": round(time.time() - stage.began, 1)}
    if stage.requests:
        timing["requests"] = dict(sorted(stage.requests.items()))
        print("Of servers:", ", ".join(f"{name} {count:,}" for name, count in timing["requests"].items()),
              f"(kept: found in {manifest.shown(paths.ANSWERS)}, to be deleted where a server's model has changed)")
    sealed = manifest.write(stage.out, record, timing)
    commit.commit(stage.out, final)
    shutil.rmtree(stage.work, ignore_errors=True)
    lock.free(final)
    files = len(sealed["outputs"]) + len(sealed["timing"]["outputs"])
    print(f"{manifest.shown(final)} is finished: {files} files, {timing['wall_seconds']} s.")


def _finished(run: str, folder: str) -> bool:
    try:
        return bool(manifest.load(paths.result(run, folder)))
    except manifest.Stop:
        return False


def _undeclared(names: dict[str, Any]) -> dict[str, Any]:
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


def _history() -> list[str]:
    """The cells that have run in this kernel, in their order, the present one last; none outside IPython."""
    from IPython import get_ipython

    shell = get_ipython()
    return [] if shell is None else [cell.strip() for cell in shell.history_manager.input_hist_raw]


def _ran_as_saved(stage: Stage) -> bool:
    """Whether the saved notebook's cells ran: those before start(...) at some time, and from it on these alone, in order."""
    ran = _history()
    if not ran:
        return True
    saved = [cell.strip() for cell in cells(stage.step.notebook)]
    opening = next((i for i, cell in enumerate(saved) if "start(" in cell), 0)
    closing = next((i for i, cell in enumerate(saved) if "finish(" in cell), len(saved) - 1)
    before, since = ran[:stage.ran_before], ran[stage.ran_before:]
    return set(saved[:opening]) <= set(before) and since == saved[opening:closing + 1]
