"""`auditdm run`: skip, resume, notice damage, explain failure. (Toy tree, real papermill and kernels.)"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from toy_tree import auditdm, environment, make_tree, write_notebook

from auditdm_lib import paths
from auditdm_lib.run import executor

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
        source="import os\nprint('hash seed', os.environ['PYTHONHASHSEED'])\nprint('spins', os.environ['GOMP_SPINCOUNT'])\n"
               + nb["cells"][-2]["source"]))
    assert auditdm(tree, *RUN, "--only", "00", "--set", "seed=7", "--set", "threads=2").returncode == 0
    executed = (tree / "runs/toy/executed/00_first.ipynb").read_text()
    assert "seed set to 7" in executed and "threads set to 2" in executed and "hash seed 0" in executed
    assert re.search(r"spins \d+", executed)  # by how busy the machine is


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


def test_a_changed_module_that_every_notebook_reaches_repeats_every_stage(tree):
    (tree / "auditdm_lib/run/manifest.py").open("a").write("\n# changed\n")
    done = auditdm(tree, *RUN)
    assert "changed: run/manifest.py" in done.stdout
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
    lines = auditdm(tree, "status", "toy", "--set", "run=other").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["not run yet"] * 3


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
    before = os.times()
    done = auditdm(tree, "run", "params/bad.yaml")
    spent = os.times()
    assert spent.children_user + spent.children_system - before.children_user - before.children_system < 4  # of the processor
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


def test_a_limit_that_was_reached_is_said_in_the_terminal_with_the_command_that_asks_on(tree):
    edit(tree, "01_second", lambda nb: nb["cells"][-2].update(
        source=nb["cells"][-2]["source"] + "\nstage.requests = {'calls': 1000, 'not_asked': 1200}"))
    for how in ("done in", "unchanged, skipped"):
        told = auditdm(tree, *RUN, "--to", "01").stdout
        assert re.search(rf"01_second: {how}.*\n  1,200 questions were not asked, because a limit \(max_target_calls or "
                         r"max_cost\) was reached; to ask on, raise it and run: .* run params/toy.yaml --from 01 "
                         r"--force\n", told), told
        assert told.count("not asked") == 1  # nothing of the stage that met no limit


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
    deadline = time.monotonic() + 300
    while not any(path.is_file() for path in folder.glob(f".{name}.tmp/*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    kernel = json.loads((folder / f".{name}.holder.json").read_text())["process"]
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


HOLD = """
import sys, time
from pathlib import Path
from auditdm_lib.run import lock
lock.hold(Path(sys.argv[1]).resolve())
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tree):
    """Another process that holds the lock of stage 01, as a notebook in JupyterLab does."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, "runs/toy/01_second"], cwd=tree, env=environment(tree),
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_two_processes_cannot_work_on_one_stage_and_the_message_names_the_holder(tree, held):
    (tree / "params/toy.yaml").write_text("run: toy\nmode: fancy\n")
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and ran(done) == [] and "01_second of run 'toy' is being run by another process" in done.stderr
    assert f"process {held.pid} on " in done.stderr and "Traceback" not in done.stderr
    lines = auditdm(tree, "status", "params/toy.yaml").stdout.splitlines()
    assert f"running (process {held.pid} on " in lines[1] and lines[0].endswith("finished")
    words = ["notebooks/01_second.ipynb", "out.ipynb", "-f", "params/toy.yaml", "-k", "python3"]
    alone = subprocess.run([sys.executable, "-m", "papermill", *words], cwd=tree, env=environment(tree), capture_output=True,
                           text=True)
    assert alone.returncode != 0 and f"process {held.pid} on " in alone.stderr
    held.kill()
    held.wait()
    assert ran(auditdm(tree, *RUN)) == ["01_second", "02_third"]


def test_no_decision_is_taken_by_a_process_number(tree, held):
    note = tree / "runs/toy/.01_second.holder.json"
    note.write_text(json.dumps({"process": 2**22 + 1, "host": "another host", "since": "today"}))  # looks dead from here
    done = auditdm(tree, *RUN, "--force")
    assert done.returncode == 1 and "process 4194305 on another host" in done.stderr
    held.kill()
    held.wait()
    note.write_text(json.dumps({"process": os.getpid(), "host": "another host", "since": "today"}))  # looks alive
    assert ran(auditdm(tree, *RUN, "--force", "--only", "01")) == ["01_second"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_kernel_clears_up_and_says_that_finished_stages_are_kept(tree, number):
    edit(tree, "01_second", lambda nb: nb["cells"][-1].update(source="import time\ntime.sleep(900)\nfinish(stage)"))
    process = subprocess.Popen([sys.executable, "-m", "auditdm_lib.run", *RUN], cwd=tree, env=environment(tree),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # a job in the background ignores some
    note, deadline = tree / "runs/toy/.01_second.holder.json", time.monotonic() + 300
    while not any((tree / "runs/toy").glob(".01_second.tmp/*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    kernel = json.loads(note.read_text())["process"]
    process.send_signal(number)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert "Finished stages are kept" in printed and "Traceback" not in printed
    assert not psutil.pid_exists(kernel) and not (tree / "runs/toy/.01_second.tmp").exists()
    assert auditdm(tree, "status", "toy").stdout.splitlines()[0].endswith("finished")


def test_a_file_added_to_a_finished_stage_is_noticed(tree):
    (tree / "runs/toy/00_first/adapter_config.json").write_text("{}")
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and "runs/toy/00_first/adapter_config.json was added" in done.stderr


def test_a_stage_below_that_was_not_run_is_called_that(tree):
    shutil.rmtree(tree / "runs/toy/00_first")
    done = auditdm(tree, *RUN, "--only", "01", "--force")
    assert done.returncode == 1 and "00_first has not been run yet" in done.stderr and "damaged" not in done.stderr.lower()
    assert "Run it with: " in done.stderr and done.stderr.strip().endswith("--from 00")


def test_a_full_disk_is_one_sentence_with_the_room_that_is_needed(tree):
    edit(tree, "02_third", lambda nb: nb["cells"][-2].update(source="raise OSError(28, 'No space left on device')"))
    done = auditdm(tree, *RUN)
    assert done.returncode == 1 and "The disk was full in 02_third" in done.stderr and "the stage needs about" in done.stderr
    assert "Finished stages are kept" in done.stderr and "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_to_is_one_sentence_before_work_starts(tree):
    (tree / "file").write_text("")
    words = [sys.executable, "-m", "auditdm_lib.run", *RUN]
    done = subprocess.run(words, cwd=tree, env=environment(tree) | {"AUDITDM_HOME": str(tree / "file")}, capture_output=True,
                          text=True)
    assert done.returncode == 1 and "cannot be written to" in done.stderr and "set AUDITDM_HOME" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_a_profile_by_its_name_a_stage_by_its_digit_and_to(tree):
    assert ran(auditdm(tree, "run", "toy", "--force", "--from", "0", "--to", "1")) == ["00_first", "01_second"]
    assert ran(auditdm(tree, "run", "toy", "--force", "--only", "1")) == ["01_second"]
    done = auditdm(tree, "run", "toy", "--from", "2", "--to", "1")
    assert done.returncode == 2 and "--from 2 comes after --to 1" in done.stderr
    assert "Did you mean params/toy.yaml?" in auditdm(tree, "run", "tory").stderr


def test_version_and_help_with_an_example_each(tree):
    assert auditdm(tree, "--version").stdout.startswith("auditdm, version ")
    for words in ((), ("run",), ("status",), ("lab",)):
        assert "Example: auditdm" in auditdm(tree, *words, "--help").stdout


@pytest.mark.parametrize("change", ["order", "more", "again", "edited"])
def test_cells_out_of_order_added_repeated_or_edited_do_not_count_as_the_saved_notebook(tree, change):
    path = tree / "notebooks/00_first.ipynb"
    edit(tree, "00_first", lambda nb: nb["cells"].insert(-1, {"cell_type": "code", "id": "x", "execution_count": None,
                                                               "metadata": {}, "outputs": [], "source": "a = 1"}))
    imports, parameters, begin, write, extra, end = (cell["source"] for cell in json.loads(path.read_text())["cells"])
    ran_cells = {"order": (begin, extra, write, end), "more": (begin, write, "b = 2", extra, end),
                 "again": (begin, write, write, extra, end), "edited": (begin, write + " ", "a = 2", end)}[change]
    write_notebook(tree / "ran.ipynb", *ran_cells, parameters=parameters)
    subprocess.run([sys.executable, "-m", "papermill", "ran.ipynb", "out.ipynb", "-k", "python3"], cwd=tree,
                   env=environment(tree), check=True, capture_output=True)
    assert "changed: the notebook's code" in auditdm(tree, "status", "params/toy.yaml").stdout


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


@pytest.mark.parametrize(("cores", "own", "spins"), [(0.1, "3000", "3000"), (1.2, "3000", "300"), (1.2, "7", "7")])
def test_threads_spin_less_beside_busy_processes_unless_the_user_says_how_long(monkeypatch, tmp_path, cores, own, spins):
    seen = []
    monkeypatch.setenv("GOMP_SPINCOUNT", own)
    monkeypatch.setattr(executor, "cores_in_use", lambda: cores)
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr("papermill.execute_notebook", lambda *args, **kwargs: seen.append(os.environ["GOMP_SPINCOUNT"]))
    with pytest.raises(executor.Failed, match="without a call of finish"):
        executor.execute(paths.CHAIN[0], {"run": "none"})
    assert seen == [spins]
