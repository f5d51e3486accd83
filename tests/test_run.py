"""`auditdm run`: skip, resume, notice damage, explain failure. (Toy tree, real papermill and kernels.)"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from toy_tree import auditdm, environment, make_tree, write_notebook

RUN = ("run", "params/toy.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A toy tree whose chain has run once, and what that printed."""
    tree = make_tree(tmp_path_factory.mktemp("toy") / "tree")
    done = auditdm(tree, *RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree, done.stdout


@pytest.fixture
def tree(finished, tmp_path):
    """A private copy of the finished toy tree."""
    shutil.copytree(finished[0], tmp_path / "tree")
    return tmp_path / "tree"


def ran(done):
    """The notebooks that a command executed, from what it printed."""
    return [line.split()[1].rstrip(":") for line in done.stdout.splitlines() if ": done in" in line]


def results(tree):
    """Every byte that must be stable, by path: artefacts, and manifests without their timing."""
    files = {}
    for path in sorted((*tree.glob("runs/toy/0*/**/*"), *tree.glob("figures/toy/**/*"))):
        if path.name == "manifest.json":
            data = json.loads(path.read_text())
            data.pop("timing")
            files[path.relative_to(tree).as_posix()] = data
        elif path.is_file():
            files[path.relative_to(tree).as_posix()] = path.read_bytes()
    return files


def edit(tree, notebook, change):
    """Apply `change` to a notebook's parsed JSON and save it."""
    path = tree / f"notebooks/{notebook}.ipynb"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_the_chain_ends_with_the_claims_and_the_report(finished):
    tree, printed = finished
    assert "it works" in printed and "holds 17" in printed
    assert f"Report: {tree / 'figures/toy/report.html'}" in printed
    assert "[2/3] 01_second: done in" in printed and "left" in printed


def test_the_command_line_reaches_the_kernel_with_seed_threads_and_hash_seed(tree):
    edit(tree, "00_first", lambda nb: nb["cells"][-2].update(
        source="import os\nprint('hash seed', os.environ['PYTHONHASHSEED'])\n" + nb["cells"][-2]["source"]))
    assert auditdm(tree, *RUN, "--only", "00", "--set", "seed=7", "--set", "threads=2").returncode == 0
    executed = (tree / "runs/toy/executed/00_first.ipynb").read_text()
    assert "seed set to 7" in executed and "threads set to 2" in executed and "hash seed 0" in executed


def test_a_second_run_executes_nothing_and_says_so(tree):
    before = results(tree)
    done = auditdm(tree, *RUN)
    assert done.returncode == 0 and ran(done) == []
    assert done.stdout.count("unchanged, skipped") == 3 and "it works" in done.stdout
    assert results(tree) == before


def test_saving_outputs_and_metadata_changes_nothing(tree):
    def save_as_jupyterlab_does(nb):
        nb["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        for i, cell in enumerate(nb["cells"]):
            cell["execution_count"] = i
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
            cell["metadata"].setdefault("tags", []).append("seen")
    edit(tree, "01_second", save_as_jupyterlab_does)
    assert ran(auditdm(tree, *RUN)) == []


def test_a_changed_parameter_repeats_only_the_stages_that_it_reaches(tree):
    (tree / "params/toy.yaml").write_text("run: toy\nsteps: 3\n")
    done = auditdm(tree, *RUN)
    assert "01_second: changed: steps" in done.stdout
    assert ran(done) == ["01_second", "02_third"]
    assert ran(auditdm(tree, *RUN)) == []


def test_a_changed_code_cell_whose_result_is_the_same_repeats_one_stage(tree):
    edit(tree, "01_second", lambda nb: nb["cells"][-2].update(source=nb["cells"][-2]["source"] + "\n1 + 1"))
    done = auditdm(tree, *RUN)
    assert "changed: the notebook's code" in done.stdout
    assert ran(done) == ["01_second"]


def test_a_changed_library_repeats_every_stage(tree):
    (tree / "auditdm_lib/manifest.py").open("a").write("\n# changed\n")
    done = auditdm(tree, *RUN)
    assert "changed: the library's sources" in done.stdout
    assert ran(done) == ["00_first", "01_second", "02_third"]


def test_a_changed_model_folder_repeats_the_stage_that_loads_it(tree):
    (tree / "models/one/config.json").write_text('{"changed": true}')
    done = auditdm(tree, *RUN)
    assert "changed: model: models/one" in done.stdout and ran(done) == ["00_first"]


def test_from_only_and_force_choose_the_stages(tree):
    assert ran(auditdm(tree, *RUN, "--force", "--from", "02")) == ["02_third"]
    assert ran(auditdm(tree, *RUN, "--force", "--only", "01")) == ["01_second"]
    assert auditdm(tree, *RUN, "--only", "09").returncode == 2


def test_status_tells_finished_changed_and_missing(tree):
    shutil.rmtree(tree / "figures/toy")
    (tree / "params/toy.yaml").write_text("run: toy\nmode: fancy\n")
    lines = auditdm(tree, "status", "params/toy.yaml").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["finished", "changed: mode", "not run yet"]


@pytest.mark.parametrize(("file", "number"), [
    ("runs/toy/00_first/numbers.txt", "00"), ("runs/toy/01_second/manifest.json", "01"),
    ("figures/toy/claims.csv", "02")])
def test_a_flipped_byte_is_noticed_named_and_mended_by_the_printed_command(tree, file, number):
    before = results(tree)
    content = (tree / file).read_bytes()
    (tree / file).write_bytes(content[:3] + bytes([content[3] ^ 1]) + content[4:])
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and ran(done) == []
    assert f"{file} is damaged" in done.stderr
    command = next(line for line in done.stderr.splitlines() if line.startswith("Rebuild it with: "))
    words = command.removeprefix("Rebuild it with: ").split()
    assert words[-2:] == ["--from", number]
    assert auditdm(tree, *words[words.index("run"):]).returncode == 0
    assert results(tree) == before


def test_four_faults_give_one_message_and_exit_code_2_before_anything_runs(tree):
    (tree / "params/bad.yaml").write_text("run: bad\nstep: 3\nrate: 1e-5\nseed: -4\nmodel: models/two\n")
    began = time.monotonic()
    done = auditdm(tree, "run", "params/bad.yaml")
    assert time.monotonic() - began < 4
    assert done.returncode == 2 and "params/bad.yaml: 4 faults" in done.stderr
    for words in ("step: unknown parameter; the nearest valid name is `steps`", "write 1.0e-5",
                  "seed: -4 is out of range [0, 1000]", "model: there is no model folder models/two"):
        assert words in done.stderr
    assert not (tree / "runs/bad").exists()


def test_a_failing_cell_is_shown_and_the_old_result_kept(tree):
    before = results(tree)
    edit(tree, "01_second", lambda nb: nb["cells"][-2].update(
        source="answer = 6 * 7\nraise ValueError('no luck')"))
    done = auditdm(tree, *RUN)
    assert done.returncode == 1
    assert "01_second failed in code cell 5" in done.stderr and "ValueError: no luck" in done.stderr
    assert "answer = 6 * 7" in done.stderr and "Traceback" not in done.stderr
    assert results(tree) == before
    assert (tree / "runs/toy/executed/01_second.ipynb").exists()  # but proves nothing
    assert "changed" in auditdm(tree, "status", "params/toy.yaml").stdout


def test_a_dead_kernel_is_explained(tree):
    edit(tree, "01_second", lambda nb: nb["cells"][-2].update(source="import os\nos.kill(os.getpid(), 9)"))
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and "The kernel of 01_second died" in done.stderr
    assert "memory" in done.stderr and "Traceback" not in done.stderr


def test_a_notebook_that_never_calls_finish_is_no_success(tree):
    edit(tree, "01_second", lambda nb: nb["cells"].pop())
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and "without a call of finish(stage)" in done.stderr


@pytest.mark.parametrize("stage", ["01_second", "02_third"])
def test_after_a_kill_in_any_stage_the_same_bytes_come_out_and_no_finished_stage_is_repeated(tree, stage):
    expected, order = results(tree), ["00_first", "01_second", "02_third"]
    for folder in (tree / "runs", tree / "figures"):
        shutil.rmtree(folder)
    for name in order:  # the wait is in the notebooks of both runs, so that their keys agree
        edit(tree, name, lambda nb: nb["cells"][-1].update(
            source="import pathlib, time\nhold = pathlib.Path(f'hold_{stage.step.notebook}')\n"
                   "while hold.exists():\n    time.sleep(0.05)\nfinish(stage)"))
    (tree / f"notebooks/hold_{stage}").touch()
    process = subprocess.Popen([sys.executable, "-m", "auditdm_lib.run", *RUN], cwd=tree,
                               env=environment(tree), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tree / ("figures" if stage == "02_third" else "runs/toy")
    name = "toy" if stage == "02_third" else stage
    deadline = time.monotonic() + 60
    while not any(path.is_file() for path in folder.glob(f".{name}.*.tmp/*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    kernel = int(next(folder.glob(f".{name}.*.tmp")).name.split(".")[-2])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while psutil.pid_exists(kernel):  # a kernel ends by itself when its parent is gone
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (folder / name).exists()
    (tree / f"notebooks/hold_{stage}").unlink()
    done = auditdm(tree, *RUN)
    assert done.returncode == 0, done.stderr
    assert ran(done) == order[order.index(stage):]
    found = results(tree)
    assert found.keys() == expected.keys()
    assert all(found[path] == expected[path] for path in found if not path.endswith("manifest.json"))


def test_two_runs_of_one_name_do_not_mix(tree):
    held = subprocess.Popen(
        [sys.executable, "-c", "import filelock, time\nlock = filelock.FileLock('runs/toy/.lock')\n"
                               "lock.acquire()\nprint('held', flush=True)\ntime.sleep(30)"],
        cwd=tree, stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "held\n"
    done = auditdm(tree, *RUN)
    held.kill()
    held.wait()
    assert done.returncode == 1 and "Another `auditdm run` is at work" in done.stderr


def test_papermill_alone_gives_the_same_result(tree):
    expected = results(tree)
    shutil.rmtree(tree / "runs/toy/00_first")
    words = ["notebooks/00_first.ipynb", "out.ipynb", "-f", "params/toy.yaml", "-k", "python3"]
    subprocess.run([sys.executable, "-m", "papermill", *words], cwd=tree, env=environment(tree),
                   check=True, capture_output=True)
    assert results(tree) == expected
    assert ran(auditdm(tree, *RUN)) == []


def test_cells_that_ran_otherwise_than_they_are_saved_do_not_count_as_finished(tree):
    path = tree / "notebooks/00_first.ipynb"
    as_it_ran = json.loads(path.read_text())
    write_notebook(tree / "ran.ipynb", *[cell["source"] for cell in as_it_ran["cells"][2:]],
                   parameters=as_it_ran["cells"][1]["source"])
    edit(tree, "00_first", lambda nb: nb["cells"][-2].update(source="changed = 'and saved, but never run'"))
    subprocess.run([sys.executable, "-m", "papermill", "ran.ipynb", "out.ipynb", "-k", "python3"], cwd=tree,
                   env=environment(tree), check=True, capture_output=True)
    assert "changed: the notebook's code" in auditdm(tree, "status", "params/toy.yaml").stdout
