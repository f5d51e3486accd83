"""One run of the smoke chain for the whole session."""

import os
import subprocess
import sys

import pytest

from auditdm_lib import paths


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The home (with runs/ and figures/) of `auditdm run params/smoke.yaml`, run once through papermill."""
    home = tmp_path_factory.mktemp("smoke")
    done = subprocess.run([sys.executable, "-m", "auditdm_lib.run", "run", "params/smoke.yaml"], cwd=paths.ROOT,
                          env=os.environ | {"AUDITDM_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return home
