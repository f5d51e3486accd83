"""The command line: `auditdm run`, `auditdm status`, `auditdm testbed` and `auditdm lab`."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from auditdm_lib import paths
from auditdm_lib.run import manifest, params, stage
from auditdm_lib.testbed.commands import testbed


@click.group()
def main() -> None:
    """Audit a vision-language model: the seven notebooks as one resumable chain."""


@main.command()
@click.argument("profile")
@click.option("--from", "first", metavar="NN", help="Begin at stage NN (03) and rebuild what is damaged.")
@click.option("--only", metavar="NN", help="Run this one stage.")
@click.option("--force", is_flag=True, help="Run the chosen stages even where nothing changed.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set one parameter; repeatable.")
def run(profile: str, first: str | None, only: str | None, force: bool, settings: tuple[str, ...]) -> None:
    """Run the stages of PROFILE (params/NAME.yaml) that are not finished or whose sources changed."""
    values = profile_values(profile, settings)
    steps = chosen(first, only)
    os.environ["AUDITDM_COMMAND"] = command(profile, settings)
    try:
        run_chain(steps, values, rebuild_damaged=bool(first or only or force), force=force)
    except (Failed, manifest.Damaged) as error:
        sys.exit(f"\n{error}")
    if steps[-1] == paths.CHAIN[-1]:
        show_results(values["run"])


@main.command()
@click.argument("profile")
def status(profile: str) -> None:
    """Say for each stage of PROFILE whether its result stands, and if not, why."""
    values = profile_values(profile, ())
    for step in paths.CHAIN:
        try:
            state = standing(step, values) or "finished"
        except manifest.Damaged as problem:
            state = f"damaged or missing input: {problem}"
        click.echo(f"{step.notebook:24}{state}")


main.add_command(testbed)


@main.command()
def lab() -> None:
    """Open the notebooks in JupyterLab."""
    os.environ.update(settings_for_kernels())
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one registered by another
    first = paths.NOTEBOOKS / f"{paths.CHAIN[0].notebook}.ipynb"
    words = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(paths.ROOT), str(first)]
    sys.exit(subprocess.run(words, check=False).returncode)


class Failed(RuntimeError):
    """A notebook did not reach its end; the message is for the user."""


def profile_values(profile: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """A profile's checked parameters, all defaults filled in. Exits with code 2, naming every fault."""
    known = params.declared_anywhere()
    path = Path(profile) if Path(profile).is_file() else paths.ROOT / profile
    try:
        given = params.read_profile(path) | dict(params.from_text(text, known) for text in settings)
        params.check(params.effective(given, known) | given, known, profile)
    except params.BadParameters as error:
        click.echo(error, err=True)
        sys.exit(2)
    return params.effective(given, known)


def chosen(first: str | None, only: str | None) -> tuple[paths.Step, ...]:
    """The stages to run. Exits with code 2 where --from or --only names none."""
    if first and only:
        raise click.UsageError("give --from or --only, not both")
    wanted = first or only or ""
    found = [i for i, step in enumerate(paths.CHAIN) if step.notebook.startswith(wanted)]
    if not found or (only and len(found) > 1):
        names = ", ".join(step.notebook[:2] for step in paths.CHAIN)
        raise click.UsageError(f"{wanted} is no stage; give one of {names}")
    return paths.CHAIN[found[0]:found[0] + 1] if only else paths.CHAIN[found[0]:]


def command(profile: str, settings: tuple[str, ...]) -> str:
    """The command line that repeats this run, as the user can type it."""
    program = Path(sys.argv[0])
    if program.suffix == ".py":
        name = ["python", "-m", "auditdm_lib.run"]
    elif shutil.which(program.name) == str(program):
        name = [program.name]
    else:
        name = [os.path.relpath(program)]
    return shlex.join([*name, "run", profile, *(word for text in settings for word in ("--set", text))])


def settings_for_kernels() -> dict[str, str]:
    """Environment variables that every kernel inherits; they must stand before Python starts."""
    python_path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    return {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": python_path}


def standing(step: paths.Step, values: dict[str, Any]) -> str:
    """Why a stage must run, or "" where its verified result is what its sources would give again.

    Raises Damaged where its files are not what its manifest says, or a lower stage is missing.
    """
    final = paths.result(values["run"], step.folder)
    manifest.settle(final)
    if not final.exists():
        return "not run yet"
    old = manifest.verify(final)["key"]
    known = params.declared(paths.NOTEBOOKS / f"{step.notebook}.ipynb")
    new = stage.stage_key(step, params.effective(values, known), known)
    changed = []
    for part in new:
        if part in ("parameters", "inputs"):
            names = old[part].keys() | new[part].keys()
            changed += sorted(name for name in names if old[part].get(name) != new[part].get(name))
        elif old[part] != new[part]:
            changed.append({"code": "the notebook's code", "library": "the library's sources"}[part])
    return f"changed: {', '.join(changed)}" if changed else ""


def run_chain(steps: tuple[paths.Step, ...], values: dict[str, Any], rebuild_damaged: bool, force: bool,
              ) -> None:
    """Run the stages in order, skipping those whose result stands. Raises Failed or Damaged for the user."""
    expected = [usual_seconds(step, values["run"]) for step in steps]
    layout = "{desc} {bar} {percentage:.0f} %, {elapsed} gone, {remaining} left"
    with ready(values), tqdm(total=sum(expected), smoothing=0, disable=None, bar_format=layout) as bar:
        for i, (step, seconds) in enumerate(zip(steps, expected, strict=True)):
            label = f"[{i + 1}/{len(steps)}] {step.notebook}"
            reason = reason_to_run(step, values, rebuild_damaged, force)
            if not reason:
                bar.total -= seconds
                tqdm.write(f"{label}: unchanged, skipped")
                continue
            tqdm.write(f"{label}: {reason}")
            bar.set_description_str(label)
            began = time.time()
            with ticking(bar, seconds):
                execute(step, values)
            left = f", about {span(sum(expected[i + 1:]))} left" if i + 1 < len(steps) else ""
            tqdm.write(f"{label}: done in {span(time.time() - began)}{left}")


def span(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextlib.contextmanager
def ready(values: dict[str, Any]) -> Iterator[None]:
    """The run's folder locked, the kernels' environment set. Raises Failed where another run holds it."""
    import filelock
    from ipykernel.kernelspec import write_kernel_spec

    folder = paths.RUNS / values["run"]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")  # the system frees it when this process dies
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Failed(f"Another `auditdm run` is at work on {folder}; let it finish first.") from None
    with lock, tempfile.TemporaryDirectory() as kernels:
        # This interpreter as the kernel `auditdm`: a registered `python3` may be another environment's.
        quiet = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]  # no history kept, no warnings
        write_kernel_spec(f"{kernels}/kernels/auditdm", extra_arguments=quiet)
        jupyter_path = os.pathsep.join(filter(None, [kernels, os.environ.get("JUPYTER_PATH")]))
        os.environ.update(settings_for_kernels() | {
            "OMP_NUM_THREADS": str(values["threads"]), "JUPYTER_PATH": jupyter_path})
        yield


def reason_to_run(step: paths.Step, values: dict[str, Any], rebuild_damaged: bool, force: bool) -> str:
    """Why a stage will run now, "" to skip it. Raises Damaged with the remedy, unless told to rebuild."""
    try:
        return standing(step, values) or ("forced" if force else "")
    except manifest.Damaged as problem:
        if rebuild_damaged:
            return f"rebuilding ({problem})"
        raise manifest.Damaged(stage.rebuild(values["run"], step.folder, problem)) from None


def execute(step: paths.Step, values: dict[str, Any]) -> None:
    """Run one notebook through papermill. Raises Failed, naming the cell, where the stage is not finished."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    source = paths.NOTEBOOKS / f"{step.notebook}.ipynb"
    target = paths.RUNS / values["run"] / "executed" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    sealed, began = paths.result(values["run"], step.folder) / manifest.NAME, time.time()
    again = f"Finished stages are kept. Run again with: {stage.command(values['run'])}"
    try:
        papermill.execute_notebook(
            str(source), str(target), params.effective(values, params.declared(source)), progress_bar=False,
            kernel_name="auditdm", language="python", start_timeout=120, cwd=str(paths.NOTEBOOKS))
    except papermill.PapermillExecutionError as error:
        if error.ename in ("Damaged", "BadParameters"):
            raise Failed(error.evalue) from None
        lines = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:8])
        raise Failed(f"{step.notebook} failed in code cell {error.exec_count}:\n{lines}\n"
                     f"{error.ename}: {error.evalue}\nEverything it printed: {target}\n{again}") from None
    except DeadKernelError:
        raise Failed(f"The kernel of {step.notebook} died: most often the memory ran out, or it was killed.\n"
                     f"Close other programs or lower the batch sizes. {again}") from None
    if not sealed.is_file() or sealed.stat().st_mtime < began - 2:  # some file systems count in two seconds
        raise Failed(f"{step.notebook} ended without a call of finish(stage), so it left no result.")


def usual_seconds(step: paths.Step, name: str) -> float:
    """How long a stage took last time, or the stage table's estimate."""
    try:
        timing = manifest.load(paths.result(name, step.folder))["timing"]
        return timing["wall_seconds"] + 8  # 8 s: the kernel's start and the imports
    except manifest.Damaged:
        return step.seconds


@contextlib.contextmanager
def ticking(bar: tqdm, seconds: float) -> Iterator[None]:
    """Move the bar every second while a stage runs, to 95 % of its share; the rest when it is done."""
    base, done = bar.n, threading.Event()

    def tick() -> None:
        while not done.wait(1):
            bar.n = min(bar.n + 1, base + 0.95 * seconds)
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    bar.n = base + seconds
    bar.refresh()


def show_results(name: str) -> None:
    """Print the claims table of a run and where its report is."""
    folder = paths.FIGURES / name
    if (folder / "claims.csv").is_file():
        import pandas as pd
        from rich.console import Console
        from rich.table import Table

        claims = pd.read_csv(folder / "claims.csv", dtype=str, keep_default_na=False)
        claims = claims.drop(columns="reads", errors="ignore")  # which artefacts: in the file, too wide here
        table = Table(*claims.columns, title=f"Claims of run {name}")
        for row in claims.itertuples(index=False):
            table.add_row(*row)
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    if (folder / "report.html").is_file():
        click.echo(f"Report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
