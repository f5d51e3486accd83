"""What a run found, for others: a data set with a card, a task that lmms-eval's harness runs, or a data set on the hub.

`auditdm export RUN --to datasets|lmms-eval|hub` (or `python -m auditdm_lib.results.export`) takes the probes of stage 02 on
which the target failed, each picture and question once, with their failure types where stage 03 is finished. The consensus of
the references is the answer, so it is a pseudo-label.
"""

import sys
import tempfile
from pathlib import Path

import click

from auditdm_lib.results import data_card, harness
from auditdm_lib.results.found import Found, new_folder, read, run_folder, write_parquet
from auditdm_lib.run import hub, manifest

FORMS = ("datasets", "lmms-eval", "hub")


def write_datasets(found: Found, out: Path) -> None:
    """Write the data set into a folder: data/*.parquet with the pictures within, and README.md, its card."""
    write_parquet(found, out)
    (out / "README.md").write_text(data_card.card(found), encoding="utf-8", newline="\n")


def write(run: str, form: str, out: Path | None = None) -> Path:
    """Export a run as "datasets" or "lmms-eval" into a new folder, by default runs/<run>/export/<form>; the folder.

    It is written beside its place and put there whole. Raises manifest.Stop as `read` does, and where the folder is not empty.
    """
    found = read(run)
    with new_folder(out or found.folder.parent / "export" / form) as (partial, final):
        {"datasets": write_datasets, "lmms-eval": harness.write_task}[form](found, partial)
    return final


def upload(run: str, repo: str | None, client=None) -> str:
    """Put the data set of a run on the hub as a new private repository `repo` (org/name); its address.

    `client` is a huggingface_hub.HfApi. Raises manifest.Stop without a repository's name, without a login, where the repository
    is there already, and where the hub refuses.
    """
    if not repo or not hub.ID.fullmatch(repo):
        raise manifest.Stop("Nothing is uploaded without the name of a new data set on the hub: give --repo org/name.")
    if client is None:
        from huggingface_hub import HfApi

        client = HfApi()
    try:
        client.whoami()
    except Exception as error:  # no login, one that has expired, no network: the client has a dozen types
        raise manifest.Stop(f"There is no login on the hub ({type(error).__name__}): log in with `hf auth login`.") from error
    with tempfile.TemporaryDirectory() as folder:
        made = write(run, "datasets", Path(folder) / "datasets")
        try:
            if client.repo_exists(repo, repo_type="dataset"):
                raise manifest.Stop(f"The hub has a data set {repo} already, which is left as it is: give another --repo.")
            address = str(client.create_repo(repo, repo_type="dataset", private=True))
            client.upload_folder(repo_id=repo, repo_type="dataset", folder_path=str(made),
                                 commit_message=f"Failures found by AuditDM, run {run_folder(run).name}")
        except manifest.Stop:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise manifest.Stop(f"The upload to {repo} failed ({reason}): look what has arrived, and try again.") from error
    return address


@click.command("export")
@click.argument("run")
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="A data set, a task of lmms-eval, or the hub.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write; runs/RUN/export/ if not given.")
@click.option("--repo", metavar="ORG/NAME", help="The new data set on the hub, with --to hub only.")
def main(run: str, form: str, out: Path | None, repo: str | None) -> None:
    """Export the failures that RUN found, with their pictures, failure types and a data card.

    RUN is the name of a finished run, or its folder. With --to hub they are uploaded as a private data set.

    Example: auditdm export testbed --to lmms-eval --out found
    """
    if (repo is not None) != (form == "hub") or (out is not None and form == "hub"):
        raise click.UsageError("--to hub needs --repo and no --out; the other forms take no --repo")
    try:
        click.echo(f"Uploaded: {upload(run, repo)}" if form == "hub" else f"Written: {write(run, form, out)}")
    except (manifest.Stop, OSError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(prog_name="auditdm export")
