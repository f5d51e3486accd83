"""A small finished run of made-up probes on disk, its stages 02 and 03 sealed, for tests of what is done with a run."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from auditdm_lib.run import manifest

HOSTILE = "<script>alert('x')</script>"
PARAMETERS = dict(run="small", seed=0, target="/home/me/models/mine", references=["org/model-a", "~/b"], auditor="org/asks",
                  pictures="/data/photographs", consensus_rule="unanimity", judge_model="")


def probes(n: int = 120, seed: int = 0, wrong: float = 0.4) -> pd.DataFrame:
    """`n` probes of each of two auditors, two about each picture. The target is wrong in a share `wrong` of them; in a sixth of
    those the consensus is wrong, with another or the same answer, or alone. One in twelve has no consensus, one in twelve is
    invalid."""
    rng, rows = np.random.default_rng(seed), []
    for auditor in ("prompt_only", "trained"):
        for i in range(n):
            truth, other, third = rng.permutation(["red", "blue", "green"])
            fails, noise, agreed = rng.random() < wrong, rng.random() < 1 / 6, rng.random() > 1 / 12
            answer = [third, other, truth][i % 3] if fails and noise else other if fails else truth
            consensus = (other if fails and noise else truth) if agreed else None
            reason, picture = ("empty" if rng.random() < 1 / 12 else None), f"images/{i // 2:05d}.png"
            differs = agreed and answer != consensus
            rows.append(dict(
                probe_id=f"{auditor}-0-{i:05d}", kind="question", pairing="Q,I", auditor=auditor, source_image=picture,
                image=picture, caption=None, edit=None, question=f"what colour is thing {i} of {auditor}?",
                target_answer=answer, reference_answers=[consensus, consensus] if agreed else [truth, other],
                consensus=consensus, disagrees=differs, in_full=True, errors=0, unfinished=0, truth=truth, picture_reason=None,
                verifier=None, invalid_reason=reason, valid=reason is None, seed=0,
                verified_failure=bool(differs and reason is None and answer != truth)))
    return pd.DataFrame(rows)


def unverified(table: pd.DataFrame) -> pd.DataFrame:
    """The same probes where nobody knows the truth."""
    return table.assign(truth=None, verified_failure=None)


def write(home: Path, table: pd.DataFrame, names: dict[str, str] | None = None, **parameters) -> Path:
    """Write the probes as the run `small` below `home`/runs, with pictures of their own colour each; the run's folder.

    `names` maps probe ids to names of failure types, which stage 03 then gives.
    """
    folder = home / "runs" / "small"
    stage = folder / "02_probes"
    (stage / "images").mkdir(parents=True)
    for name in sorted({*table["image"], *table["source_image"]}):
        i = int(Path(name).stem)
        Image.new("RGB", (48, 32), (i % 256, 7 * i % 256, 90)).save(stage / name)
    table.to_parquet(stage / "probes.parquet", index=False)
    key = {"parameters": PARAMETERS | parameters, "inputs": {}}
    digest = manifest.write(stage, {"stage": "02_generate_probes", "key": key}, {"wall_seconds": 1})["outputs_digest"]
    if names is not None:
        taxonomy = folder / "03_taxonomy"
        taxonomy.mkdir()
        kinds = sorted(set(names.values()))
        pd.DataFrame({"category": range(len(kinds)), "name": kinds}).to_parquet(taxonomy / "categories.parquet", index=False)
        grouped = [(probe, kinds.index(name)) for probe, name in names.items()]
        pd.DataFrame(grouped, columns=["probe_id", "category"]).to_parquet(taxonomy / "failures.parquet", index=False)
        record = {"stage": "03_cluster_failures", "key": {"parameters": {}, "inputs": {"02_probes": digest}}}
        manifest.write(taxonomy, record, {"wall_seconds": 1})
    return folder
