"""start and finish: parameters checked, everything seeded, results whole or absent. (Toy tree, no torch.)"""

import json
import subprocess
import sys

import pytest
from toy_tree import environment, make_tree

FIRST = """
from auditdm_lib.run.stage import finish, start
run, seed, threads, rate, model = "toy", 3, 1, 0.5, "models/one"
stage = start("00_first", globals())
(stage.out / "numbers.txt").write_text(str(rate))
stage.prompts["ask"] = "Ask a question."
finish(stage)
"""
SECOND = """
from auditdm_lib.run.stage import finish, start
run, seed, threads, steps, mode = "toy", 3, 1, 2, "plain"
stage = start("01_second", globals())
print((stage.read("00_first") / "numbers.txt").read_text())
"""


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def python(tree, source):
    """Run a script against the toy tree's library."""
    return subprocess.run([sys.executable, "-c", source], cwd=tree, env=environment(tree), check=False,
                          capture_output=True, text=True, timeout=300)


def test_a_stage_prints_its_parameters_with_their_meaning_and_seeds_everything(tree):
    done = python(tree, FIRST)
    assert done.returncode == 0, done.stderr
    assert "rate = 0.5  (a rate)" in done.stdout
    assert "seed set to 3" in done.stdout and "threads set to 1" in done.stdout
    assert "runs/toy/00_first is finished: 1 files" in done.stdout


def test_the_manifest_records_what_the_result_depends_on(tree):
    python(tree, FIRST)
    data = json.loads((tree / "runs/toy/00_first/manifest.json").read_text())
    assert data["key"]["parameters"] == {"run": "toy", "seed": 3, "threads": 1, "rate": 0.5,
                                         "model": "models/one"}
    assert data["key"]["inputs"].keys() == {"model: models/one"}
    assert data["prompts"]["ask"]["text"] == "Ask a question."
    assert data["outputs"].keys() == {"numbers.txt"} and data["device"] == "cpu" and data["seed"] == 3


def test_a_stage_without_its_input_says_which_command_makes_it(tree):
    done = python(tree, SECOND)
    assert "runs/toy/00_first has not been run yet" in done.stderr
    assert "auditdm run params/toy.yaml --from 00" in done.stderr


def test_a_flipped_byte_stops_the_stage_that_reads_it(tree):
    python(tree, FIRST)
    assert python(tree, SECOND).stdout.endswith("0.5\n")
    (tree / "runs/toy/00_first/numbers.txt").write_text("0.4")
    done = python(tree, SECOND)
    assert "runs/toy/00_first/numbers.txt is damaged" in done.stderr and "--from 00" in done.stderr
    assert "0.4" not in done.stdout


def test_a_stage_cannot_read_what_the_table_does_not_declare(tree):
    python(tree, FIRST)
    done = python(tree, SECOND + 'stage.read("figures")')
    assert "does not declare that it reads figures" in done.stderr


def test_bad_parameters_stop_a_stage_before_anything_is_seeded(tree):
    done = python(tree, FIRST.replace("3, 1, 0.5", "-1, 0, 2.5"))
    assert "00_first: 3 faults" in done.stderr and "seed set" not in done.stdout
    assert not (tree / "runs").exists()


def test_a_stage_that_breaks_leaves_no_result(tree):
    done = python(tree, FIRST.replace("finish(stage)", "1 / 0"))
    assert done.returncode == 1
    assert not (tree / "runs/toy/00_first").exists()


def test_a_name_that_papermill_injected_and_nobody_declares_is_a_fault(tree):
    done = python(tree, 'In = ["# Parameters\\nrat = 0.1\\nsteps = 3\\n"]\nrat, steps = 0.1, 3\n' + FIRST)
    assert "rat: unknown parameter; the nearest valid name is `rate`" in done.stderr
    assert "steps" not in done.stderr.split("1 fault")[1]
