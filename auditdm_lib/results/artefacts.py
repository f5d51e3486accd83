"""The tables that the stages of a run wrote, loaded once for figures, tables, claims and the report."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from auditdm_lib.audit.probes import all_verified
from auditdm_lib.evaluate.scores import held_out
from auditdm_lib.run import manifest


@dataclass(frozen=True)
class Artefacts:
    """The tables of a run that figures, tables, claims and the report use; None if the run has no such file."""

    history: pd.DataFrame  # 01_auditor/history.csv
    probes: pd.DataFrame  # 02_probes/probes.parquet
    search: pd.DataFrame  # 02_probes/search.csv
    hits: pd.DataFrame | None  # 02_probes/gap_hits.csv, if gaps were planted
    failures: pd.DataFrame  # 03_taxonomy/failures.parquet (probe_id, category) with the probes' columns
    categories: pd.DataFrame  # 03_taxonomy/categories.parquet
    gaps: pd.DataFrame | None  # 03_taxonomy/grading.csv, testbed only
    agreement: pd.DataFrame | None  # 03_taxonomy/agreement.csv, testbed only
    items: pd.DataFrame  # 05_scores/items.parquet
    held_out: pd.DataFrame | None = None  # 05_scores/held_out.csv, if no suite is about the pictures
    versions: pd.DataFrame | None = None  # 02_probes/versions.parquet, if pictures were drawn; the same for the next four
    flips: pd.DataFrame | None = None  # 02_probes/flips.csv
    survival: pd.DataFrame | None = None  # 02_probes/survival.csv
    faults: pd.DataFrame | None = None  # 02_probes/drawer.csv
    pairings: pd.DataFrame | None = None  # 02_probes/pairings.csv
    confirmation: pd.DataFrame | None = None  # 03_taxonomy/confirmation.parquet, if the failure types were asked again
    drawer: str = "renderer"  # what drew the pictures, a parameter of stage 02
    unseen: pd.DataFrame | None = None  # 03_taxonomy/unseen.csv
    recovered: pd.DataFrame | None = None  # 03_taxonomy/recovered.csv, if gaps were planted and types asked again
    reaudit: pd.DataFrame | None = None  # 05_scores/reaudit.csv, if the rectified target was asked about each type again
    benchmarks: pd.DataFrame | None = None  # 05_scores/benchmarks.csv, if tasks of lmms-eval were run
    records: dict[str, dict] = field(default_factory=dict)  # the manifest of each stage, by its folder

    @property
    def verified(self) -> bool:
        """Whether a truth verified the failures; else a disagreement is a suspicion."""
        return all_verified(self.probes)

    @property
    def suites_scored(self) -> bool:
        """Whether the models were scored on suites, and not on held-out questions."""
        return not held_out(self.items)


def load(auditor: Path, probes: Path, taxonomy: Path, scores: Path) -> Artefacts:
    """Load the artefacts from the folders of stages 01, 02, 03 and 05."""
    asked = pd.read_parquet(probes / "probes.parquet")
    clustered = pd.read_parquet(taxonomy / "failures.parquet")
    versions, confirmation = probes / "versions.parquet", taxonomy / "confirmation.parquet"
    return Artefacts(
        history=pd.read_csv(auditor / "history.csv"), probes=asked,
        search=pd.read_csv(probes / "search.csv"), hits=_optional(probes / "gap_hits.csv"),
        failures=clustered.merge(asked, on="probe_id", validate="one_to_one"),
        categories=pd.read_parquet(taxonomy / "categories.parquet"),  # categories.csv is for people, its texts made safe
        gaps=_optional(taxonomy / "grading.csv"), agreement=_optional(taxonomy / "agreement.csv"),
        items=pd.read_parquet(scores / "items.parquet"), held_out=_optional(scores / "held_out.csv"),
        versions=pd.read_parquet(versions) if versions.exists() else None, flips=_optional(probes / "flips.csv"),
        survival=_optional(probes / "survival.csv"), faults=_optional(probes / "drawer.csv"),
        pairings=_optional(probes / "pairings.csv"), drawer=_drawer(probes),
        confirmation=pd.read_parquet(confirmation) if confirmation.exists() else None,
        unseen=_optional(taxonomy / "unseen.csv"), recovered=_optional(taxonomy / "recovered.csv"),
        reaudit=_optional(scores / "reaudit.csv"), benchmarks=_optional(scores / "benchmarks.csv"),
        records={folder.name: manifest.load(folder) for folder in (auditor, probes, taxonomy, scores)
                 if (folder / manifest.NAME).exists()})


def _optional(file: Path) -> pd.DataFrame | None:
    """A table, or None where the file is missing or its table has neither rows nor columns."""
    return pd.read_csv(file) if file.exists() and file.read_bytes().strip() else None


def _drawer(probes: Path) -> str:
    """The drawer of stage 02; the renderer, which was the only one, where the stage does not say."""
    if not (probes / manifest.NAME).exists():
        return "renderer"
    record = json.loads((probes / manifest.NAME).read_text(encoding="utf-8"))
    return record["key"]["parameters"].get("drawer", "renderer")
