"""What the notebooks in `notebooks/solutions/` read: the folders of finished stages."""

from pathlib import Path

from auditdm_lib import paths
from auditdm_lib.run import manifest
from auditdm_lib.run.stage import with_remedy


def finished(run: str, folder: str) -> Path:
    """The folder of a run's finished stage, such as "02_probes" or "figures". Raises NotRun or Damaged with the remedy."""
    path = paths.result(run, folder)
    try:
        manifest.load(path)
    except manifest.Stop as problem:
        raise type(problem)(with_remedy(run, folder, problem)) from None
    return path
