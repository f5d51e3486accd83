"""What a class is told to type and to open exists, and the places to run the kit elsewhere install what is pinned here."""

import os
import re

import test_readme
from test_readme import check, commands, text_of, unknown_names

from auditdm_lib import paths
from auditdm_lib.run import params

LESSON = paths.NOTEBOOKS / "LESSON.md"


def test_every_command_of_the_lesson_is_valid_and_every_name_exists(tmp_path):
    lines = [line for line in commands(text_of(LESSON)) if "venv .venv" not in line]
    assert len(lines) >= 6
    for line in lines:
        check(line.replace("python3 ", "python "), tmp_path)
    assert unknown_names(text_of(LESSON), LESSON) == []


def test_the_lesson_is_one_page():
    assert len(text_of(LESSON).splitlines()) <= 60


def test_a_class_trains_the_auditor_that_it_is_compared_with():
    values = params.read_profile(paths.PARAMS / "class.yaml")
    assert "auditor" not in values and values["grpo_steps"] and values["fresh_probes"] and values["rectify_steps"]
    defaults = params.declared_anywhere()
    larger = [name for name, value in values.items() if isinstance(value, int) and value > defaults[name].default]
    assert not larger


def test_binder_installs_what_is_pinned():
    folder = paths.ROOT / ".binder"
    lines = text_of(folder / "requirements.txt").splitlines()
    files = [line.split()[1] for line in lines if line.startswith("-r ")]
    assert files and all((folder / file).is_file() for file in files)
    assert any("download.pytorch.org/whl/cpu" in line for line in lines)
    assert os.access(folder / "postBuild", os.X_OK) and "pip install --no-deps" in text_of(folder / "postBuild")
    assert re.fullmatch(r"python-3\.1[123]", text_of(folder / "runtime.txt").strip())


def test_colab_runs_the_first_notebook():
    source = "\n".join(cell["source"] for cell in params.code_cells(paths.ROOT / ".colab" / "start_here.ipynb"))
    named = re.findall(r"%run auditdm/(\S+)", source)
    assert named and all((paths.ROOT / file).is_file() for file in named)
    assert test_readme.exists("params/class.yaml", LESSON)
