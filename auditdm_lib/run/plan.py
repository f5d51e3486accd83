"""`auditdm plan`: what a profile takes and what is missing here, before anything runs and without network.

Models' sizes, memory, arithmetic and hours are computed (`sizes`, `work`, `demand`, `devices`), never measured on the models.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from auditdm_lib import paths
from auditdm_lib.run import charges, demand, devices, inventory, params, work
from auditdm_lib.run.devices import Device
from auditdm_lib.run.inventory import Model
from auditdm_lib.run.manifest import Stop
from auditdm_lib.run.work import Stage

GB = 1e9
LESS = {"answers": "lower answer_batch", "texts": "lower text_batch", "rollouts": "lower group_size or groups_per_step",
        "step of rectification": "raise rectify_accumulation, or set gradient_checkpointing to true",
        "step": "raise auditor_accumulation, or set gradient_checkpointing to true",
        "drawing": "lower drawing_batch, or set drawing_offload to model"}
NOTES = (
    "Counts take every question as well-formed, asked of every member and not kept from before, and half of what is only asked "
    "after certain answers. What a server is asked costs by an estimate of its tokens (auditdm_lib/run/charges.py).",
    f"Hours: {devices.GPU_SHARE:.0%} of a GPU's peak is reached (our choice). One device does everything; eight H100 share the "
    "work evenly, each with all models. Processes of `workers`, and of `launch` in stage 04, each hold their models, and divide "
    "the time where each has a GPU, or cores, of its own; stage 01 is counted as in one process.",
    "Memory: tensors of weights, gradients, AdamW's moments, activations, caches; not the framework's own (about 0.5 GB on a "
    "GPU).",
)


def make_plan(values: dict[str, Any], declared: dict[str, params.Parameter], device: Device) -> dict[str, Any]:
    """The plan of these effective parameters as plain data: device, models, stages, total, servers, limits, missing, notes.

    Bytes, seconds and floating-point operations; None where nothing here says a number. Raises BadParameters for faults of the
    parameters that are not about something missing.
    """
    found = inventory.models(values)
    lacks = inventory.missing(values, declared, found)
    panel, many = work.panel(values, found, device), devices.h100s()
    here, there = demand.stages(panel), demand.stages(work.panel(values, found, many))
    rows = []
    for step in paths.CHAIN:
        pair = [stages.get(step.notebook[:2], Stage(step.notebook[:2])) for stages in (here, there)]
        own = 0.0 if pair[0].calls else step.seconds(values)  # stages without models: as measured
        rows.append(_row(step.notebook, *pair, device, many, own, step.megabytes)
                    | {"servers": charges.by_stage(pair[0].requests, values["price_per_million"])})
    models = [_about(model, panel.weights(model)) for model in found]
    total = _total(rows, found, values)
    return {"run": values["run"], "device": _of_device(device), "models": models, "stages": rows, "total": total,
            "servers": charges.by_server([one for stage in here.values() for one in stage.requests], values["price_per_million"]),
            "limits": charges.limits({row["stage"]: row["servers"] for row in rows}, values), "notes": list(NOTES),
            "missing": [*lacks, *charges.unfit(values), *devices.unfit(values, device.number is None), *_too_large(rows, device),
                        *_too_full(total)]}


def _row(name: str, stage: Stage, elsewhere: Stage, device: Device, many: Device, own: float, megabytes: int) -> dict[str, Any]:
    here, there = stage.seconds(device), elsewhere.seconds(many)
    return {"stage": name, "target_calls": stage.target_calls, "calls": stage.calls, "texts": stage.texts, "drawn": stage.drawn,
            "operations": stage.operations, "seconds": None if here is None else here + own, "seconds_8_h100": there + own,
            "memory": stage.memory, "moments": stage.moments, "peak_memory": stage.peak(),
            "peak_memory_h100": elsewhere.peak(), "disk": max(stage.disk, megabytes * 10 ** 6), "unknown": stage.unknown}


def _about(model: Model, weights: int) -> dict[str, Any]:
    return {"role": model.role, "name": model.name, "where": model.where, "parameters": model.parameters,
            "weights": weights if model.parameters else None, "download": model.download, "licence": model.licence,
            "gated": model.gated}


def _of_device(device: Device) -> dict[str, Any]:
    return {"name": device.name, "memory": device.memory, "operations_per_second": device.operations,
            "bytes_per_second": device.bandwidth}


def _total(rows: list[dict], found: list[Model], values: dict[str, Any]) -> dict[str, Any]:
    unlike = {model.name: model for model in found}.values()
    data = inventory.data_set(str(values["pictures"]))
    pictures = round(data[1].get("gigabytes", 0) * GB) if data else 0
    seconds = [row["seconds"] for row in rows]
    download = sum(model.download or 0 for model in unlike) + pictures
    return {"target_calls": sum(row["target_calls"] for row in rows), "calls": sum(row["calls"] for row in rows),
            "operations": sum(row["operations"] for row in rows), "seconds": None if None in seconds else sum(seconds),
            "seconds_8_h100": sum(row["seconds_8_h100"] for row in rows), "download": download,
            "peak_memory": max(row["peak_memory"] for row in rows),
            "peak_memory_h100": max(row["peak_memory_h100"] for row in rows),
            "disk": download + sum(row["disk"] for row in rows),
            "unknown": sorted({name for row in rows for name in row["unknown"]})}


def _too_large(rows: list[dict], device: Device) -> list[str]:
    """The stages that do not fit into the device's memory, with what to lower."""
    found = []
    for row in (row for row in rows if row["peak_memory"] > device.memory):
        kept = sum(row["memory"].values())
        moment, needed = max(row["moments"].items(), key=lambda item: item[1])
        what = next((remedy for word, remedy in LESS.items() if word in moment), None)
        remedy = what if what and needed > device.memory - kept > 0 else (
            "set member_offload to model (on a GPU), use smaller models, or a device with more memory")
        found.append(f"{row['stage']}: it takes {_bytes(row['peak_memory'])} ({_bytes(kept)} of models, {_bytes(needed)} for "
                     f"{moment}), but {device.name} has {_bytes(device.memory)}: {remedy}.")
    if device.number is None and inventory.cpu_torch():
        found.append("torch: the installed build is for processors only and leaves the GPU idle; install a CUDA build "
                     "(https://pytorch.org/get-started/locally).")
    return found


def _too_full(total: dict[str, Any]) -> list[str]:
    place = next(folder for folder in (paths.RUNS, *paths.RUNS.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if total["disk"] <= free:
        return []
    return [f"disk: {_bytes(total['disk'])} are needed, {_bytes(free)} are free: make room, or set AUDITDM_HOME and HF_HOME to "
            "a larger disk."]


# What people read

def show(profile: Path, settings: tuple[str, ...], out: Path | None) -> None:
    """Print the plan of a profile with some parameters set, and write it to `out` as JSON.

    Raises BadParameters, Stop where `out` cannot be written.
    """
    declared = params.declared_anywhere()
    given = params.read_profile(profile) | dict(params.from_text(text, declared) for text in settings)
    if unknown := {name: value for name, value in given.items() if name not in declared}:
        params.check(unknown, declared, str(profile))
    values = params.effective(given, declared)
    plan = make_plan(values, declared, devices.this_device(values["threads"]))
    if out:
        try:
            out.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise Stop(f"{out} cannot be written ({error.strerror}): give another file to --out.") from None
    for table in tables(plan):
        _console().print(table)
    _console().print("\n".join(said(plan)), markup=False, highlight=False, soft_wrap=True)


def _console():
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def tables(plan: dict[str, Any]) -> list:
    """The models, the stages, the memory of the stages, and what is asked of servers if anything is, as rich tables."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    device = plan["device"]
    models = Table(title=f"Models of run {plan['run']}", box=box.SIMPLE)
    for column in ("role", "model", "parameters", "weights", "where", "download", "licence"):
        models.add_column(column, justify="right" if column in ("parameters", "weights", "download") else "left")
    for model in plan["models"]:
        licence = model["licence"] or ("its own" if model["where"] == "folder" else "unknown")
        licence += ", gated" * bool(model["gated"])
        models.add_row(model["role"], escape(model["name"]), _count(model["parameters"]), _bytes(model["weights"]),
                       model["where"], _bytes(model["download"]), escape(licence))
    stages = Table(title=f"Stages on {device['name']} ({_bytes(device['memory'])} of memory)", box=box.SIMPLE)
    for column in ("stage", "target calls", "all calls", "drawn", "operations", "time here", "memory here", "8 H100",
                   "memory of one", "disk"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    for row in [*plan["stages"], plan["total"] | {"stage": "all", "drawn": sum(row["drawn"] for row in plan["stages"])}]:
        more = "> " * bool(row["unknown"])  # without the models whose sizes are unknown
        stages.add_row(row["stage"], f"{row['target_calls']:,}", f"{row['calls']:,}", f"{row['drawn']:,}",
                       more + _count(row["operations"]), more + _time(row["seconds"]), more + _bytes(row["peak_memory"]),
                       more + _time(row["seconds_8_h100"]), more + _bytes(row["peak_memory_h100"]), _bytes(row["disk"]))
    memory = Table(title="Memory by stage", box=box.SIMPLE)
    for column in ("stage", "models that stay", "on top, one at a time"):
        memory.add_column(column)
    for row in (row for row in plan["stages"] if row["memory"]):
        parts = [", ".join(f"{name} {_bytes(size)}" for name, size in row[part].items()) for part in ("memory", "moments")]
        memory.add_row(row["stage"], *parts)
    servers = Table(title="Models behind servers, all stages", box=box.SIMPLE)
    for column in ("model", "role", "requests", "tokens sent", "tokens written", "cost"):
        servers.add_column(column, justify="left" if column in ("model", "role") else "right")
    for row in plan["servers"]:
        servers.add_row(escape(row["model"]), row["role"], f"{row['requests']:,}", _count(row["tokens_sent"]),
                        _count(row["tokens_written"]), charges.money(row["cost"]))
    return [models, stages, memory, *[servers] * bool(plan["servers"])]


def said(plan: dict[str, Any]) -> list[str]:
    """What is missing and what the figures rest on, a line each."""
    lacks = plan["missing"]
    lines = [f"Missing here ({len(lacks)}):" if lacks else "Nothing is missing here.", *(f"  - {text}" for text in lacks)]
    if plan["total"]["unknown"]:
        lines.append(f"Unknown sizes, which the figures leave out (>): {', '.join(plan['total']['unknown'])}.")
    return [*lines, *plan["limits"], *plan["notes"]]


def _bytes(size: float | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / GB:,.1f} GB" if size >= GB / 10 else f"{size / 1e6:,.1f} MB"


def _count(number: float | None) -> str:
    if number is None:
        return "unknown"
    for unit, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
