"""`auditdm testbed`: build the models of the testbed, or plant a gap into one."""

from pathlib import Path

import click
import yaml


@click.group(name="testbed")
def commands() -> None:
    """The testbed's models: build them, or plant a gap into one."""


@commands.command()
@click.option("--only", metavar="NAME", help="""Build this model and its parents: a model by its folder's name, `reader` (the
    scene reader), `image` or `edit` (the drawing pipelines).""")
def build(only: str | None) -> None:
    """Train the models that do not exist yet; a build that was stopped resumes.

    Example: auditdm testbed build --only gemma3-s
    """
    from functools import cache

    from auditdm_lib.testbed import build as builder

    corpus = cache(builder.training_corpus)
    for name in [only] if only else (*builder.MODELS, *builder.DRAWERS):
        try:
            click.echo(f"{name}: {builder.build(name, corpus)}")
        except ValueError as error:
            raise click.UsageError(str(error)) from None


@commands.command()
@click.option("--model", required=True, metavar="PATH", help="A checkpoint of the testbed.")
@click.option("--gap", "specs", required=True, multiple=True, metavar="SPEC", help="""The gap, repeatable: a YAML mapping such as
    "{skill: colour, when: {answer: purple}, says: blue}", or a file with one or a list of them.""")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the planted model.")
@click.option("--seed", default=0, show_default=True)
def plant(model: str, specs: tuple[str, ...], out: Path, seed: int) -> None:
    """Plant a gap into a model, and print its accuracy inside and outside the gap, before and after.

    Example: auditdm testbed plant --model auditdm_lib/testbed/checkpoints/gemma3-s --out models/mine
    --gap "{skill: colour, when: {answer: purple}, says: blue}"
    """
    from auditdm_lib.testbed.plant import plant as plant_into

    try:
        table = plant_into(model, tuple(gap for spec in specs for gap in read(spec)), out, seed)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"accuracy on fresh questions, with 95 % intervals; {out}")
    for row in table.itertuples():
        click.echo(f"  {row.model:7}{row.accuracy:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]  n = {row.n:<5}{row.skill}")


def read(spec: str) -> list:
    """The gaps of a `--gap`. Raises ValueError if it is neither a gap in YAML nor a file of gaps."""
    from auditdm_lib.testbed.gaps import read_gap

    try:
        rows = yaml.safe_load(Path(spec).read_text(encoding="utf-8") if not spec.lstrip().startswith("{") else spec)
    except (yaml.YAMLError, OSError) as error:
        raise ValueError(f"--gap {spec!r} is neither a gap in YAML nor a file of gaps ({error}).") from None
    return [read_gap(row) for row in (rows if isinstance(rows, list) else [rows])]
