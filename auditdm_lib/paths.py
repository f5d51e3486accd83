"""Where everything lives, anchored on this file: nothing depends on the working directory."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "auditdm_lib"
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
PAPER_VALUES = ROOT / "figures" / "paper_values.csv"  # the numbers the paper prints

# Generated folders. AUDITDM_HOME moves them, so that tests leave the user's results alone.
HOME = Path(os.environ.get("AUDITDM_HOME", ROOT)).resolve()
RUNS = HOME / "runs"
FIGURES = HOME / "figures"


@dataclass(frozen=True)
class Step:
    """One row of the stage table: a notebook, the folder it writes and what it reads."""

    notebook: str  # name without .ipynb
    folder: str  # below runs/<run>/; "figures" stands for figures/<run>/
    reads: tuple[str, ...] = ()  # folders of lower stages
    files: tuple[Path, ...] = ()  # other files that the result depends on
    seconds: int = 30  # rough time on two cores, only for the first estimate of the time left


CHAIN = (
    Step("00_start_here", "00_start", seconds=15),
    Step("01_train_auditor", "01_auditor", seconds=300),
    Step("02_generate_probes", "02_probes", ("01_auditor",), seconds=90),
    Step("03_cluster_failures", "03_taxonomy", ("02_probes",), seconds=40),
    Step("04_rectify_target", "04_rectified", ("02_probes",), seconds=180),
    Step("05_evaluate", "05_scores", ("04_rectified",), seconds=90),
    Step("06_figures_and_tables", "figures",
         ("01_auditor", "02_probes", "03_taxonomy", "04_rectified", "05_scores"), (PAPER_VALUES,), 25),
)
BUILD = Step("build_testbed", "testbed")  # not in the chain: it made the checkpoints that are shipped


def step(name: str) -> Step:
    """The row of the stage table for a notebook's or a folder's name. Raises KeyError for any other name."""
    for row in (*CHAIN, BUILD):
        if name in (row.notebook, row.folder):
            return row
    raise KeyError(f"{name!r} is no stage; the stages are {', '.join(row.notebook for row in CHAIN)}")


def result(run: str, folder: str) -> Path:
    """The folder a stage writes: runs/<run>/<folder>, or figures/<run> for "figures"."""
    return FIGURES / run if folder == "figures" else RUNS / run / folder


def resolve(name: str) -> str:
    """The path of a model or picture folder, made absolute from the repository's root; hub ids unchanged."""
    path = ROOT / Path(name).expanduser()
    return str(path) if name and path.exists() else name
