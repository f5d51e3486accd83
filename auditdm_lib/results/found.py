"""What a run found, as a data set: each picture and question on which its target failed, with the pictures, in parquet."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from auditdm_lib import paths
from auditdm_lib.run import manifest

TEXTS = ("probe_id", "question", "answer", "target_answer", "truth", "failure_type", "kind", "caption", "edit", "auditors",
         "source_image")  # columns of the data set that are texts, null where there is none
A_FILE, A_GROUP = 2000, 50  # probes in a parquet file, and in a part of it that is written, and can be read, at once


@dataclass(frozen=True)
class Found:
    """What a run found: the rows of the data set (TEXTS, reference_answers, verified, image), the run's name, the folder and
    the manifest of its stage 02, and whether stage 03 has given failure types."""

    rows: pd.DataFrame
    run: str
    folder: Path
    record: dict
    typed: bool


def run_folder(run: str) -> Path:
    """The folder of a run, given by its name below runs/ or by its path. Raises manifest.NotRun where there is none."""
    found = next((folder for folder in (paths.RUNS / run, Path(run)) if (folder / "02_probes").is_dir()), None)
    if found is None:
        made = sorted(folder.parent.name for folder in paths.RUNS.glob("*/02_probes"))
        raise manifest.NotRun(f"There is no run {run!r} with probes" + (f"; there are {', '.join(made)}." if made else
                              ": make one with `auditdm run`, whose stage 02 writes them."))
    return found.resolve()


def read(run: str) -> Found:
    """What a run found (`failures`), the hashes of what is read checked.

    Raises manifest.Stop where a stage is missing or damaged, where stage 03 was made from other probes, and where nothing was
    found.
    """
    folder = run_folder(run)
    probes_folder, taxonomy = folder / "02_probes", folder / "03_taxonomy"
    record = manifest.verify(probes_folder, "probes.parquet")
    failure_types = None
    if taxonomy.is_dir():
        typed = manifest.verify(taxonomy, "failures.parquet", "categories.parquet")
        if typed["key"]["inputs"].get("02_probes") != record["outputs_digest"]:
            raise manifest.Stop(f"The failure types of run {folder.name} were made from other probes than those it has now: "
                                "run its stage 03 again.")
        named = pd.read_parquet(taxonomy / "categories.parquet")[["category", "name"]]
        failure_types = pd.read_parquet(taxonomy / "failures.parquet")[["probe_id", "category"]].merge(named, on="category")
    rows = failures(pd.read_parquet(probes_folder / "probes.parquet"), failure_types)
    if rows.empty:
        raise manifest.Stop(f"Run {folder.name} found no failure of its target, so there is nothing to export.")
    return Found(rows, folder.name, probes_folder, record, failure_types is not None)


def failures(probes: pd.DataFrame, failure_types: pd.DataFrame | None) -> pd.DataFrame:
    """The verified failures of probes.parquet and, where no truth is known, the suspicions: valid disagreements that no truth
    refutes. One row for each picture and question, in the order of probe_id.

    `failure_types` has probe_id and name. Returns TEXTS, reference_answers (list), verified (True, or null for a suspicion) and
    image (the file's path in stage 02); `auditors` names all that found it.
    """
    wrong = probes["disagrees"].astype(bool) & probes["valid"].astype(bool) & ~probes["verified_failure"].eq(False)
    rows = probes[wrong & probes["picture_reason"].isna()].sort_values("probe_id")
    same = ["image", "question"]
    named = pd.Series(dtype=object)
    if failure_types is not None:  # by picture and question: stage 03 may have kept another one of equal probes
        about = failure_types[["probe_id", "name"]].merge(probes[["probe_id", *same]], on="probe_id")
        named = about.drop_duplicates(same).set_index(same)["name"]
    auditors = rows.groupby(same)["auditor"].agg(lambda names: ", ".join(sorted(set(names))))
    rows = rows.drop_duplicates(same).reset_index(drop=True)
    keys = list(rows[same].itertuples(index=False, name=None))
    rows = rows.rename(columns={"consensus": "answer"}).assign(
        failure_type=[named.get(key) for key in keys] if len(named) else None, auditors=[auditors[key] for key in keys],
        verified=[True if value is True or value == 1 else None for value in rows["verified_failure"]])
    return rows[[*TEXTS, "reference_answers", "verified", "image"]]


def write_parquet(found: Found, out: Path) -> list[str]:
    """Write data/test-*.parquet, the pictures within and their hashes checked; the files' paths relative to the folder.

    At most A_GROUP pictures are in memory at a time. Raises manifest.Damaged on a picture that is not the one of stage 02.
    """
    from datasets import Features, Image, List, Value  # slow

    texts = {name: Value("string") for name in TEXTS}
    columns = {"image": Image(), **texts, "reference_answers": List(Value("string")), "verified": Value("bool")}
    schema = Features(columns).arrow_schema
    count = -(-len(found.rows) // A_FILE)
    files = [f"data/test-{k:05d}-of-{count:05d}.parquet" for k in range(count)]
    (out / "data").mkdir()
    for k, file in enumerate(files):
        with pq.ParquetWriter(out / file, schema) as writer:
            for group in _groups(found.rows.iloc[k * A_FILE:(k + 1) * A_FILE]):
                writer.write_table(pa.Table.from_pylist([_record(found, row) for row in group.to_dict("records")], schema))
    return files


def _groups(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (rows.iloc[i:i + A_GROUP] for i in range(0, len(rows), A_GROUP))


def _record(found: Found, row: dict) -> dict:
    """A row of the data set as parquet holds it."""
    data = picture_bytes(found.folder, found.record, row["image"])
    texts = {name: row[name] if isinstance(row[name], str) else None for name in TEXTS}
    votes = [vote if isinstance(vote, str) else None for vote in row["reference_answers"]]
    return {"image": {"bytes": data, "path": Path(row["image"]).name}, **texts, "reference_answers": votes,
            "verified": row["verified"]}


def picture_bytes(folder: Path, record: dict, name: str) -> bytes:
    """The bytes of a picture of stage 02, its hash checked. Raises manifest.Damaged."""
    file = folder / name
    data = file.read_bytes() if file.is_file() else None
    if data is None or manifest.digest(data) != record["outputs"].get(name):
        raise manifest.Damaged(f"{manifest.shown(file)} is missing or not the picture that stage 02 wrote: run stage 02 again.")
    return data


@contextmanager
def new_folder(out: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to write into, beside `out`, which takes the place of `out` once all is written; both of them.

    Raises manifest.Stop where `out` holds anything.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise manifest.Stop(f"{manifest.shown(out)} is there already: delete it, or give another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)
        yield partial, out
        if out.exists():
            out.rmdir()  # a folder cannot be renamed over another one everywhere
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
