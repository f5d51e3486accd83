"""The chain of stages: which of them must run, and running them through papermill, resumable and interruptible."""

import contextlib
import errno
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from auditdm_lib import SPIN, SPIN_BUSY, paths
from auditdm_lib.run import commit, devices, lock, manifest, params, stage

FULL = "No space left on device"


class Failed(manifest.Stop):
    """A notebook did not reach its end."""


def standing(step: paths.Step, values: dict[str, Any]) -> str:
    """Why a stage must run, or "" where its verified result is what its sources would give again.

    Raises Damaged where its files are not what its manifest says or a lower stage's manifest is not sound, NotRun where a lower
    stage has no result, Busy where another process is at work on it.
    """
    final = paths.result(values["run"], step.folder)
    if commit.unsettled(final):
        lock.hold(final)
        commit.settle(final)
        lock.free(final)
    elif holder := lock.holder(final):
        raise lock.Busy(f"{step.notebook} of run {values['run']!r} is being run by another process ({holder}): let it finish.")
    if not final.exists():
        return "not run yet"
    old = manifest.verify(final)["key"]
    known = params.declared(paths.NOTEBOOKS / f"{step.notebook}.ipynb")
    new = stage.stage_key(step, params.effective(values, known), known)
    changed = [] if old.get("code") == new["code"] else ["the notebook's code"]
    for part in ("parameters", "inputs", "sources"):
        before = old.get(part, {})
        changed += sorted(name for name in before.keys() | new[part].keys() if before.get(name) != new[part].get(name))
    more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
    return f"changed: {', '.join(changed[:6])}{more}" if changed else ""


def states(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `auditdm status` says of each stage: (notebook, state)."""
    rerun = set()  # folders of stages that will run again, and may then change
    for step in paths.CHAIN:
        final = paths.result(values["run"], step.folder)
        try:
            holder = lock.holder(final)
            state = f"running ({holder})" if holder else standing(step, values) or "finished"
        except manifest.NotRun as problem:
            state = "not run yet" if not final.exists() else f"must run again: {problem}"
        except manifest.Stop as problem:
            state = str(problem)
        if state == "finished" and (below := sorted(rerun & set(step.reads))):
            state = f"finished; runs again if the result of {', '.join(below)} changes"
        if state != "finished":
            rerun.add(step.folder)
        yield step.notebook, state


def run_chain(steps: tuple[paths.Step, ...], values: dict[str, Any], rebuild_damaged: bool, force: bool) -> None:
    """Run the stages in order, skipping those whose result stands. Raises Stop with a sentence for the user."""
    expected = [usual_seconds(step, values) for step in steps]
    layout = "{desc} {bar} {percentage:.0f} %, {elapsed} gone, {remaining} left"
    spent = foreseen = 0.0
    check_writable(values)
    devices.check_fit(values)
    with ready(values), tqdm(total=sum(expected), smoothing=0, disable=None, bar_format=layout) as bar:
        for i, (step, seconds) in enumerate(zip(steps, expected, strict=True)):
            label = f"[{i + 1}/{len(steps)}] {step.notebook}"
            reason = reason_to_run(step, values, rebuild_damaged, force)
            if not reason:
                bar.total -= seconds
                tqdm.write(f"{label}: unchanged, skipped{left_unasked(step, values['run'])}")
                continue
            if not foreseen:
                check_room(steps[i:], values)
            tqdm.write(f"{label}: {reason}")
            bar.set_description_str(label)
            began, base = time.time(), bar.n

            def tick(base: float = base, seconds: float = seconds) -> None:
                bar.n = min(bar.n + 1, base + 0.95 * seconds)
                bar.refresh()
            execute(step, values, tick)
            bar.n = base + seconds
            bar.refresh()
            spent, foreseen = spent + time.time() - began, foreseen + seconds
            pace = spent / foreseen if foreseen > 60 else 1  # this machine and these models against the estimate
            left = f", about {span(pace * sum(expected[i + 1:]))} left" if i + 1 < len(steps) else ""
            tqdm.write(f"{label}: done in {span(time.time() - began)}{left}{left_unasked(step, values['run'])}")


def left_unasked(step: paths.Step, run: str) -> str:
    """Lines for the user where a limit kept a finished stage from asking all of its questions, else ""."""
    count = manifest.load(paths.result(run, step.folder))["timing"].get("requests", {}).get("not_asked", 0)
    if not count:
        return ""
    return (f"\n  {count:,} question{'s were' if count > 1 else ' was'} not asked, because a limit (max_target_calls or "
            f"max_cost) was reached; to ask on, raise it and run: {stage.command(run)} --from {step.notebook[:2]} --force")


def reason_to_run(step: paths.Step, values: dict[str, Any], rebuild_damaged: bool, force: bool) -> str:
    """Why a stage will run now, "" to skip it. Raises Stop with the remedy, unless told to rebuild what is damaged."""
    try:
        return standing(step, values) or ("forced" if force else "")
    except manifest.NotRun as problem:
        lower = next(folder for folder in step.reads if not paths.result(values["run"], folder).exists())
        raise manifest.NotRun(stage.with_remedy(values["run"], lower, problem)) from None
    except manifest.Damaged as problem:
        if rebuild_damaged:
            return f"rebuilding ({problem})"
        raise manifest.Damaged(stage.with_remedy(values["run"], step.folder, problem)) from None


def execute(step: paths.Step, values: dict[str, Any], tick: Callable[[], None] = lambda: None) -> None:
    """Run one notebook through papermill, calling `tick` each second. Raises Failed, naming the cell, where it does not finish.

    papermill runs in a thread, so that a signal reaches this one: within the main thread nbclient would take Ctrl-C and SIGTERM
    for itself and report a dead kernel.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of each of params.SETUP, which the first notebook declares
    source = paths.NOTEBOOKS / f"{step.notebook}.ipynb"
    target = paths.RUNS / values["run"] / "executed" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    sealed, began = paths.result(values["run"], step.folder) / manifest.NAME, time.time()
    raised = []
    if os.environ["GOMP_SPINCOUNT"] in (SPIN, SPIN_BUSY):  # a user's own value stands
        os.environ["GOMP_SPINCOUNT"] = SPIN_BUSY if cores_in_use() > 0.5 else SPIN

    def work() -> None:
        try:
            papermill.execute_notebook(
                str(source), str(target), params.effective(values, params.declared(source)), progress_bar=False,
                kernel_name="auditdm", language="python", start_timeout=120, cwd=str(paths.NOTEBOOKS))
        except BaseException as error:  # handed to the main thread
            raised.append(error)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1)
            tick()
    except KeyboardInterrupt:
        end_kernels()
        thread.join(30)
        clear_up(paths.result(values["run"], step.folder))
        raise
    if raised:
        raise explained(raised[0], step, values, target) from None
    if not sealed.is_file() or sealed.stat().st_mtime < began - 2:  # some file systems count in two seconds
        raise Failed(f"{step.notebook} ended without a call of finish(stage), so it left no result.")


def cores_in_use() -> float:
    """How many cores other processes keep busy, measured for half a second while this one waits."""
    return psutil.cpu_percent(interval=0.5) / 100 * (psutil.cpu_count() or 1)


def explained(error: BaseException, step: paths.Step, values: dict[str, Any], target: Path) -> Failed:
    """What went wrong in a notebook, for the user."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    kept = f"Finished stages are kept. Run again with: {stage.command(values['run'])}"
    if isinstance(error, DeadKernelError):
        return Failed(f"The kernel of {step.notebook} died: most often the memory ran out, or it was killed.\n"
                      f"Close other programs or lower the batch sizes. {kept}")
    if FULL in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
        free = shutil.disk_usage(paths.HOME).free / 1e6
        return Failed(f"The disk was full in {step.notebook}: {free:,.0f} MB are free below {paths.HOME}, and the stage needs "
                      f"about {room(step, values):,.0f} MB. Free some, or set AUDITDM_HOME to a larger disk. {kept}")
    if isinstance(error, OSError | RuntimeError) and not isinstance(error, papermill.PapermillExecutionError):
        return Failed(f"{step.notebook} could not be run: {error}. {kept}")
    if not isinstance(error, papermill.PapermillExecutionError):
        raise error
    if error.ename in {"Stop", "NotRun", "Damaged", "BadParameters", "Busy", "Changed", "Gone", "Broken"}:
        return Failed(error.evalue)
    lines = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:8])
    return Failed(f"{step.notebook} failed in code cell {error.exec_count}:\n{lines}\n"
                  f"{error.ename}: {error.evalue}\nEverything it printed: {target}\n{kept}")


def end_kernels() -> None:
    """End the kernels that this process started, and what they started."""
    children = psutil.Process().children(recursive=True)
    for send in ("terminate", "kill"):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(child, send)()
        _, children = psutil.wait_procs(children, timeout=5)


def clear_up(final: Path) -> None:
    """Remove what an interrupted stage had written, except a training to go on with."""
    with contextlib.suppress(lock.Busy):
        lock.hold(final)
        commit.settle(final)
        lock.free(final)


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does, unless they are ignored (nohup); the list tells which came."""
    came = []

    def interrupt(number, frame) -> None:
        came.append(number)
        raise KeyboardInterrupt
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ready(values: dict[str, Any]) -> Iterator[None]:
    """The environment that the kernels of a run inherit."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as kernels:
        # This interpreter as the kernel `auditdm`: a registered `python3` may be another environment's.
        quiet = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]  # no history kept, no warnings
        write_kernel_spec(f"{kernels}/kernels/auditdm", extra_arguments=quiet)
        jupyter_path = os.pathsep.join(filter(None, [kernels, os.environ.get("JUPYTER_PATH")]))
        own = {"JUPYTER_RUNTIME_DIR": f"{kernels}/runtime", "IPYTHONDIR": f"{kernels}/ipython"}  # the home may be read-only
        os.environ.update(settings_for_kernels() | own | {
            "OMP_NUM_THREADS": str(values["threads"]), "JUPYTER_PATH": jupyter_path})
        yield


def settings_for_kernels() -> dict[str, str]:
    """Environment variables that every kernel inherits; they must stand before Python starts."""
    python_path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    return {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": python_path,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # pictures in notebooks, whatever the shell's value


def check_writable(values: dict[str, Any]) -> None:
    """Raise Failed where the run's folders cannot be written to."""
    for folder in (paths.RUNS / values["run"], paths.FIGURES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failed(f"{folder} cannot be written to ({reason}): set AUDITDM_HOME to a folder that can.") from None


def check_room(steps: tuple[paths.Step, ...], values: dict[str, Any]) -> None:
    """Raise Failed where the disk has less room than the stages need."""
    needed, free = sum(room(step, values) for step in steps), shutil.disk_usage(paths.HOME).free / 1e6
    if free < needed:
        raise Failed(f"The stages to run need about {needed:,.0f} MB below {paths.HOME}, and {free:,.0f} MB are free: free some, "
                     "or set AUDITDM_HOME to a larger disk.")


def room(step: paths.Step, values: dict[str, Any]) -> float:
    """Megabytes that a stage writes: as many as last time, else the stage table's estimate."""
    files = [path for path in paths.result(values["run"], step.folder).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6 if files else step.megabytes


def usual_seconds(step: paths.Step, values: dict[str, Any]) -> float:
    """How long a stage took last time with these parameters, else the stage table's estimate for them."""
    try:
        last = manifest.load(paths.result(values["run"], step.folder))
    except manifest.Stop:
        return step.seconds(values)
    same = all(values.get(name) == value for name, value in last["key"]["parameters"].items())
    return last["timing"]["wall_seconds"] + 8 if same else step.seconds(values)  # 8 s: the kernel's start and the imports


def span(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
