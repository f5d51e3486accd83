"""Runs of the chain that several tests look at."""

import os
import subprocess
import sys

import pytest

from auditdm_lib import paths


@pytest.fixture(scope="session")
def run_chains(tmp_path_factory):
    """A function that runs a group of `chains.py` in a process of its own and gives its home."""
    def run(group):
        home = tmp_path_factory.mktemp(group)
        done = subprocess.run([sys.executable, "chains.py", group], cwd=paths.ROOT / "tests", capture_output=True, text=True,
                              env=os.environ | {"AUDITDM_HOME": str(home), "MPLBACKEND": "Agg", "PYTHONPATH": str(paths.ROOT)})
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-4000:]
        return home
    return run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The home (with runs/ and figures/) of `auditdm run params/smoke.yaml`, run once through papermill."""
    home = tmp_path_factory.mktemp("smoke")
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", "params/smoke.yaml"], cwd=paths.ROOT,
                          env=os.environ | {"AUDITDM_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return home
