"""`auditdm easy-vqa`: build the models of the easy-VQA audit."""

import click


@click.group(name="easy-vqa")
def commands() -> None:
    """The models of the easy-VQA audit: build them."""


@commands.command()
@click.option("--only", metavar="NAME", help="Build this model alone.")
def build(only: str | None) -> None:
    """Train the models that do not exist yet; a build that was stopped resumes.

    Example: auditdm easy-vqa build --only target
    """
    from auditdm_lib.easyvqa import build as builder

    for name in [only] if only else builder.MODELS:
        try:
            click.echo(f"{name}: {builder.build(name)}")
        except (ValueError, ModuleNotFoundError) as error:
            raise click.UsageError(str(error)) from None
