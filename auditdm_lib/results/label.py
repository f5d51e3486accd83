"""People as verifiers: a sample of probes as a page to judge by eye, and the rates that rest on what people say.

`auditdm label RUN --out FOLDER` (or `python -m auditdm_lib.results.label`) draws the sample, and `auditdm label RUN --read
labels.csv` reads the labels of one or two people (see `label_rates`). Which answer is whose stands in the run's folder alone.
"""

import json
import sys
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from auditdm_lib.results import label_rates
from auditdm_lib.results.found import new_folder, picture_bytes, run_folder
from auditdm_lib.results.label_rates import LABELS, Sample
from auditdm_lib.run import manifest
from auditdm_lib.shown import one_line, write_csv

TEMPLATE = Path(__file__).with_name("label.html")
LARGEST = 960  # pixels of a picture on the page; larger ones are made smaller, so that the page can be sent
DRAWN_SMALL = 200  # pixels; pictures below this are shown enlarged with their pixels as squares


def draw(run: str, n: int = 200, seed: int = 0) -> Sample:
    """A random sample of `n` probes of a run, about equally many of each auditor's disagreements and agreements.

    Only valid attempts with a consensus are drawn, without replacement; equal probes (picture, question, answers) are one item.
    Raises manifest.Stop where there is no such probe, or where `n` is too small for two of each kind.
    """
    folder = run_folder(run)
    record = manifest.verify(folder / "02_probes", "probes.parquet")
    population = label_rates.population(folder / "02_probes")
    strata = list(population.groupby(["auditor", "disagrees"], sort=True))
    if not strata:
        raise manifest.Stop(f"Run {folder.name} has no valid probe with a consensus, so there is nothing to label.")
    if n < 2 * len(strata):
        raise manifest.Stop(f"{n} probes are too few for {len(strata)} kinds (each auditor's disagreements and agreements): "
                            f"give --n {2 * len(strata)} or more.")
    sizes = allot([len(rows) for _, rows in strata], n)
    rng = np.random.default_rng(seed)
    drawn = pd.concat([rows.iloc[np.sort(rng.choice(len(rows), size, replace=False))]
                       for (_, rows), size in zip(strata, sizes, strict=True)], ignore_index=True)
    name = f"s{manifest.digest([record['outputs_digest'], n, seed])[:8]}"
    content = ["image", "question", "target_answer", "consensus"]
    group = drawn.groupby(content, sort=True, dropna=False).ngroup().to_numpy()
    place, side = rng.permutation(group.max() + 1), rng.integers(2, size=group.max() + 1)
    rows = drawn.assign(item=[f"{name}-{place[g] + 1:03d}" for g in group], target_side=["AB"[side[g]] for g in group])
    return Sample(name, folder, record["outputs_digest"], rows.sort_values(["item", "probe_id"], ignore_index=True))


def allot(sizes: list[int], n: int) -> list[int]:
    """`n` draws shared out evenly, none getting more than its size; all of them where `n` is at least their sum."""
    given = [0] * len(sizes)
    for _ in range(min(n, sum(sizes))):
        given[min((i for i, size in enumerate(sizes) if given[i] < size), key=lambda i: given[i])] += 1
    return given


def write(sample: Sample, out: Path) -> Path:
    """Write index.html and labels.csv into a new folder, and what they hide into the run's labels/; the folder.

    Raises manifest.Stop where the folder is not empty, and manifest.Damaged on a picture that is not the one of stage 02.
    """
    record, items = manifest.load(sample.folder / "02_probes"), []
    with new_folder(out) as (partial, final):
        for row in sample.rows.drop_duplicates("item").itertuples():
            data, small = picture(picture_bytes(sample.folder / "02_probes", record, row.image))
            texts = [one_line(text) if isinstance(text, str) else "" for text in (row.target_answer, row.consensus)]
            a, b = texts if row.target_side == "A" else texts[::-1]
            items.append(dict(item=row.item, question=one_line(row.question), A=a, B=b, picture=data, small=small))
        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
        page = template.render(sample=sample.name, items=items, labels=LABELS)
        (partial / "index.html").write_text(page, encoding="utf-8", newline="\n")
        write_csv(pd.DataFrame(items)[["item", "question", "A", "B"]].assign(label=""), partial / "labels.csv")
        keep(sample)
    return final


def keep(sample: Sample) -> None:
    """Write which probes and whose answers a sample's items are into the run's labels/, where the page is not."""
    columns = ["item", "probe_id", "target_side"]
    key = {"sample": sample.name, "probes": sample.probes_digest, "rows": sample.rows[columns].to_dict("records")}
    file = sample.folder / "labels" / f"{sample.name}.json"
    label_rates.replace(file, json.dumps(key, indent=1) + "\n")


def picture(data: bytes) -> tuple[str, bool]:
    """A picture as a data URI for a page, at most LARGEST pixels wide and high, and whether it has less than DRAWN_SMALL."""
    kind = "png"
    with Image.open(BytesIO(data)) as image:
        small = max(image.size) < DRAWN_SMALL
        if max(image.size) > LARGEST or image.format != "PNG":
            image.thumbnail((LARGEST, LARGEST))
            file, kind = BytesIO(), "jpeg"
            image.convert("RGB").save(file, "JPEG", quality=90)
            data = file.getvalue()
    return f"data:image/{kind};base64,{b64encode(data).decode()}", small


@click.command("label")
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), help="The new folder for the page and the table.")
@click.option("--n", type=click.IntRange(1), default=200, show_default=True, help="How many probes to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draw.")
@click.option("--read", is_flag=True, help="Read the labels of one or two people: the FILES.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def main(run: str, out: Path | None, n: int, seed: int, read: bool, files: tuple[Path, ...]) -> None:
    """Let people judge a sample of the probes of RUN, and compute its rates from what they say.

    With --out a folder is written: open its index.html in a browser and save labels.csv from there, or fill in the column
    `label` of its labels.csv by hand. With --read the labels of one person, or of two, are read back.

    Example: auditdm label testbed --out to-label
             auditdm label testbed --read labels_1.csv labels_2.csv
    """
    if read == (out is not None) or len(files) not in ((1, 2) if read else (0,)):
        raise click.UsageError("give --out FOLDER, or --read with the files of one or two people")
    try:
        if read:
            rates = label_rates.read(run, files)
            click.echo(label_rates.shown(rates))
            labels = run_folder(run) / "labels"
            click.echo(f"Written: {labels / 'verified.csv'} and {labels / 'rates.csv'}. The card of `auditdm export` gives "
                       "these rates; report.html does not, and still calls a disagreement without a known truth a suspicion.")
        else:
            sample = draw(run, n, seed)
            folder = write(sample, out)
            click.echo(f"{sample.rows['item'].nunique()} items, standing for {len(sample.rows)} probes. Open "
                       f"{folder / 'index.html'}")
    except (manifest.Stop, OSError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(prog_name="auditdm label")
