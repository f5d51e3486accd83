"""The command line: `auditdm run`, `plan`, `status`, `diff`, `gate`, `export`, `label`, `figures`, `ablation`, `arms` and `lab`,
and `auditdm testbed` by its own commands."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from auditdm_lib import __version__, paths, protocols
from auditdm_lib.run import endpoints, executor, manifest, params

PASSED_ON = dict(context_settings=dict(ignore_unknown_options=True, allow_extra_args=True), add_help_option=False)
SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set one parameter; may be repeated.")


class Commands(click.Group):
    """The kit's own commands, and those of `protocols.SUPPLIERS["commands"]`, which are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *protocols.SUPPLIERS["commands"]]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in protocols.SUPPLIERS["commands"]:
            return protocols.supplier("commands", name).commands
        return super().get_command(context, name)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="auditdm")
def main() -> None:
    """Audit a vision-language model: train an auditor, find failures, name them, mend them, score again.

    Example: auditdm run testbed
    """


@main.command()
@click.argument("profile")
@click.option("--from", "first", metavar="NN", help="Begin at this stage (03, 3 or its name) and rebuild what is damaged.")
@click.option("--to", "last", metavar="NN", help="End with this stage.")
@click.option("--only", metavar="NN", help="Run this stage alone.")
@click.option("--force", is_flag=True, help="Run the chosen stages even where nothing has changed.")
@click.option("--fresh", is_flag=True, help="Begin anew a stopped training whose parameters or code have changed since.")
@SET
def run(profile: str, first: str | None, last: str | None, only: str | None, force: bool, fresh: bool,
        settings: tuple[str, ...]) -> None:
    """Run the stages of PROFILE that are not finished or whose sources have changed.

    PROFILE is a file, or the name of one in params/. Finished stages are kept and skipped.

    Example: auditdm run testbed --from 03 --set seed=1
    """
    values = profile_values(profile, settings)
    steps = chosen(first, last, only)
    checks = (params.training_fault, endpoints.launch_fault)
    if faults := [fault for step in steps for check in checks if (fault := check(step.notebook, values))]:
        click.echo("\n".join(dict.fromkeys(faults)), err=True)  # one sentence may hold for several stages
        sys.exit(2)
    os.environ["AUDITDM_COMMAND"] = command(profile, settings)
    os.environ["AUDITDM_FRESH"] = "1" if fresh else ""
    with executor.signals_as_interrupts() as came:
        try:
            executor.run_chain(steps, values, rebuild_damaged=bool(first or only or force), force=force)
        except manifest.Stop as error:
            sys.exit(f"\n{error}")
        except KeyboardInterrupt:
            click.echo(f"\nStopped. Finished stages are kept, and trainings go on from their last checkpoint with: "
                       f"{os.environ['AUDITDM_COMMAND']}", err=True)
            sys.exit(128 + came[0] if came else 130)
    if steps[-1] == paths.CHAIN[-1]:
        show_results(values["run"])


@main.command()
@click.argument("profile")
@SET
def status(profile: str, settings: tuple[str, ...]) -> None:
    """Say of each stage of PROFILE whether it is finished, running, not run yet, or must run again, and why.

    Example: auditdm status testbed --set run=mine
    """
    for notebook, state in executor.states(profile_values(profile, settings)):
        click.echo(f"{notebook:24}{state}")


@main.command()
@click.argument("profile")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan as JSON to this file too.")
@SET
def plan(profile: str, out: Path | None, settings: tuple[str, ...]) -> None:
    """Say what PROFILE takes before anything runs: models, memory, hours, calls, disk, and what is missing here.

    Example: auditdm plan paligemma2-3b --out plan.json
    """
    from auditdm_lib.run.plan import show

    try:
        show(profile_path(profile), settings, out)
    except params.BadParameters as error:
        click.echo(error, err=True)
        sys.exit(2)
    except manifest.Stop as error:
        sys.exit(str(error))


@main.command()
def ablation() -> None:
    """Compare the runs of params/ablation-*.yaml, which differ in their kinds of probes, in figures/ablation/.

    Make them first: auditdm run ablation-question --to 05, and so on for regeneration, edit and all.

    Example: auditdm ablation
    """
    sys.exit(above("auditdm_lib.results.ablation"))


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--only", type=click.Choice(["examples", "target_calls", "both"]), default="both", show_default=True,
              help="Compare at equal numbers of examples, of target calls, or both.")
def arms(runs: tuple[str, ...], only: str) -> None:
    """Compare what the target learns from the failures of audits and from as much other data, in figures/rectification/.

    RUNS are the seeds of one or more profiles, named NAME, NAME-1 and so on, each run to stage 03. Each fine-tuning is kept once
    it is scored, so that a stopped comparison goes on where it was. Fifteen fine-tunings a run, of half a minute each with the
    testbed's models.

    Example: auditdm arms rare rare-1 rare-2
    """
    sys.exit(above("auditdm_lib.results.rectification", only, *runs))


@main.command()
@click.option("--paper", is_flag=True, required=True, help="The paper's own, from the numbers that it prints, in figures/paper/.")
def figures(paper: bool) -> None:
    """Draw the paper's figures and tables, without a run; those of a run are drawn by its last stage.

    Example: auditdm figures --paper
    """
    sys.exit(above("auditdm_lib.results.paper"))


@main.command(**PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def export(words: tuple[str, ...]) -> None:
    """Export what a run found: a data set with a card, a task for lmms-eval or, when asked, a data set on the hub.

    Example: auditdm export testbed --to lmms-eval --out found
    """
    sys.exit(above("auditdm_lib.results.export", *words))


@main.command(**PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def label(words: tuple[str, ...]) -> None:
    """Let people judge a sample of a run's probes by eye, and compute its rates from what they say.

    Example: auditdm label testbed --out to-label, then auditdm label testbed --read labels_1.csv labels_2.csv
    """
    sys.exit(above("auditdm_lib.results.label", *words))


@main.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--out", metavar="FILE.csv", help="Write the table into a file as well.")
def diff(run_a: str, run_b: str, out: str | None) -> None:
    """Compare two audits by failure type: what is fixed, unchanged or newly broken from RUN_A to RUN_B.

    Both targets answer the fresh probes of all types that stage 03 of either run confirmed. A run is named as below runs/, or by
    its folder.

    Example: auditdm diff testbed after --out diff.csv
    """
    sys.exit(above("auditdm_lib.taxonomy.compare", run_a, run_b, *([out] if out else [])))


class WithVerdict(click.Command):
    """A command whose exit codes 0 to 2 are verdicts, so that wrong use exits with 3."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            error.exit_code = 3
            raise


@main.command(cls=WithVerdict)
@click.argument("run")
@click.option("--against", metavar="RUN", required=True, help="The older run that RUN is compared with.")
@click.option("--regression", metavar="RUN", multiple=True,
              help="Ask the regression set of this run, too, beside that of the older run; may be repeated.")
def gate(run: str, against: str, regression: tuple[str, ...]) -> None:
    """Say whether the target of RUN fails nothing that the target of an older run does not fail, for continuous integration.

    Beside what `auditdm diff` compares, the confirmed failures of the older run (its regression set) are asked again.

    Exit code 0: nothing is newly broken and nothing undecided. 1: a type or an item of a regression set is newly broken. 2: there
    are too few probes to say so. 3: there is no verdict, because of wrong use, of a run without confirmed types, or of an error.

    Example: auditdm gate after --against testbed
    """
    code = above("auditdm_lib.taxonomy.gate", run, against, *regression)
    sys.exit(code if code in (0, 1, 2) else 3)  # also a process that was killed has given no verdict


@main.command(context_settings=dict(ignore_unknown_options=True, allow_extra_args=True))
@click.option("--profile", "shown", metavar="PROFILE", help="Put the parameters of this profile into the copies, such as class.")
@click.pass_context
def lab(context: click.Context, shown: str | None) -> None:
    """Open the notebooks in JupyterLab, as copies below runs/lab/, so that the checkout stays as it is.

    Further options are passed on to JupyterLab; as root, it asks for --allow-root.

    Example: auditdm lab --profile class --no-browser --port 8890
    """
    from auditdm_lib.run.lab import open_lab

    values = profile_values(shown, ()) if shown else None
    try:
        sys.exit(open_lab(context.args, values))
    except (OSError, manifest.Stop) as error:
        sys.exit(f"JupyterLab was not opened: {error}")


def above(*words: str) -> int:
    """Run a module that lies above the command line, in a process of its own, as each stage has; its exit code."""
    return subprocess.run([sys.executable, "-m", *words], check=False).returncode


def profile_values(profile: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """A profile's checked parameters, all defaults filled in. Exits with code 2, naming every fault."""
    known = params.declared_anywhere()
    try:
        given = params.read_profile(profile_path(profile)) | dict(params.from_text(text, known) for text in settings)
        params.check(params.effective(given, known) | given, known, profile)
    except params.BadParameters as error:
        click.echo(error, err=True)
        sys.exit(2)
    return params.effective(given, known)


def profile_path(profile: str) -> Path:
    """A profile's file: as given, or from the repository's root, or by its bare name in params/."""
    tries = (Path(profile), paths.ROOT / profile, paths.PARAMS / f"{profile}.yaml")
    return next((path for path in tries if path.is_file()), Path(profile))


def chosen(first: str | None, last: str | None, only: str | None) -> tuple[paths.Step, ...]:
    """The stages to run. Exits with code 2 where --from, --to or --only names none."""
    if only and (first or last):
        raise click.UsageError("give --only, or --from and --to, not both")
    begin, end = place(only or first, 0), place(only or last, len(paths.CHAIN) - 1)
    if begin > end:
        raise click.UsageError(f"--from {first} comes after --to {last}")
    return paths.CHAIN[begin:end + 1]


def place(name: str | None, otherwise: int) -> int:
    """Where a stage stands in the chain: "3", "03", "03_cluster_failures" or "03_taxonomy"."""
    if name is None:
        return otherwise
    wanted = name.zfill(2) if name.isdigit() else name
    for i, step in enumerate(paths.CHAIN):
        if wanted in (step.notebook, step.notebook[:2], step.folder):
            return i
    raise click.UsageError(f"{name} is no stage; give one of {', '.join(step.notebook[:2] for step in paths.CHAIN)}")


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
