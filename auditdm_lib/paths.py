"""Where everything lives, anchored on this file: nothing depends on the working directory."""

import os
from collections.abc import Callable
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
DRAWN = RUNS / ".drawn"  # pictures that diffusion pipelines drew, kept for all runs; it may be deleted while none is at work
ANSWERS = RUNS / ".answers.sqlite"  # what models said, likewise; to be deleted where a server's model has changed


@dataclass(frozen=True)
class Step:
    """One row of the stage table: a notebook, the folder it writes, what it reads, and what it takes."""

    notebook: str  # name without .ipynb
    folder: str  # below runs/<run>/; "figures" stands for figures/<run>/
    reads: tuple[str, ...] = ()  # folders of lower stages
    files: tuple[Path, ...] = ()  # other files that the result depends on
    seconds: Callable[[dict], float] = lambda p: 30  # from a run's parameters; measured with the testbed's models on two cores
    megabytes: int = 10  # room on the disk, with the testbed's sizes


def _drawing_seconds(p: dict, probes: float) -> float:
    """Seconds in which a diffusion pipeline draws the pictures of so many probes."""
    return 0.03 * probes * (p["regeneration_share"] + p["edit_share"]) if p["drawer"] == "diffusion" else 0.0


CHAIN = (
    Step("00_start_here", "00_start", seconds=lambda p: 10),
    Step("01_train_auditor", "01_auditor", megabytes=60, seconds=lambda p: (
        20 + 0.008 * p["imitation_pictures"] + 0.12 * p["imitation_rounds"] * p["imitation_steps"]
        + 0.0125 * (p["grpo_steps"] + p["plain_steps"]) * p["group_size"] * p["groups_per_step"]
        + _drawing_seconds(p, p["imitation_pictures"] * (p["imitation_rounds"] > 0)
                           + (p["grpo_steps"] + p["plain_steps"]) * p["group_size"] * p["groups_per_step"]))),
    Step("02_generate_probes", "02_probes", ("01_auditor",), megabytes=60, seconds=lambda p: (
        15 + 0.0045 * p["probes_per_auditor"] * (4 + 4 * p["probe_checkpoints"]) + 0.5 * p["ceiling_pictures"]
        + 0.0045 * p["probes_per_auditor"] * 4 * (p["regeneration_share"] + p["edit_share"])  # the pairs of two auditors
        + _drawing_seconds(p, p["probes_per_auditor"] * (3 + 4 * p["probe_checkpoints"])))),
    Step("03_cluster_failures", "03_taxonomy", ("01_auditor", "02_probes"), seconds=lambda p: 20 + 0.03 * p["fresh_probes"]),
    Step("04_rectify_target", "04_rectified", ("01_auditor", "02_probes", "03_taxonomy"), megabytes=60, seconds=lambda p: (
        25 + 0.0016 * (1 + p["rounds"]) * p["rectify_steps"] * p["rectify_batch"]
        + (p["rounds"] - 1) * (0.008 * p["imitation_pictures"] + 0.12 * p["imitation_rounds"] * p["imitation_steps"]
                               + 0.0045 * p["probes_per_auditor"] * (1 + p["imitation_rounds"])))),
    Step("05_evaluate", "05_scores", ("01_auditor", "02_probes", "03_taxonomy", "04_rectified"), seconds=lambda p: (
        10 + 0.001 * (3 + len(p["references"])) * p["items_per_suite"] * len(p["suites"]) + 0.03 * p["fresh_probes"])),
    Step("06_figures_and_tables", "figures",
         ("01_auditor", "02_probes", "03_taxonomy", "04_rectified", "05_scores"), (PAPER_VALUES,), lambda p: 12, 20),
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


def place(name: str | Path) -> Path:
    """Where a file or folder that a parameter names lies, or would lie: a relative path is from the repository's root."""
    return ROOT / Path(name).expanduser()


def resolve(name: str) -> str:
    """The path of a model or picture folder, made absolute from the repository's root; hub ids unchanged."""
    return str(place(name)) if name and place(name).exists() else name


def looked(name: str) -> str:
    """For a message about a relative path that is not there: where it was sought, and its full path where it is there from the
    user's folder; "" of an absolute one."""
    if Path(name).expanduser().is_absolute():
        return ""
    beside = f", not from the folder you are in; give {Path(name).resolve()}" if Path(name).exists() else ""
    return f" (looked at {place(name)}: a relative path is from the repository{beside})"
