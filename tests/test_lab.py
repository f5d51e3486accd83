"""`auditdm lab` works on copies of the notebooks, and passes on what JupyterLab takes."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

from click.testing import CliRunner
from toy_tree import auditdm, environment, make_tree

from auditdm_lib import paths
from auditdm_lib.run import lab
from auditdm_lib.run.chain import main


def change(notebook, source):
    """Save a notebook as JupyterLab does, with outputs, and with another last code cell if one is given."""
    data = json.loads(notebook.read_text())
    data["metadata"]["kernelspec"] = {"name": "other", "display_name": "Other"}
    code = [cell for cell in data["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        cell["outputs"], cell["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "x"}], 7
    if source:
        code[-1]["source"] = source
    notebook.write_text(json.dumps(data))


def test_running_and_saving_the_copies_leaves_the_checkout_clean(tmp_path):
    tree, git = make_tree(tmp_path / "tree"), ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tree / ".gitignore").write_text((paths.ROOT / ".gitignore").read_text())
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "toy"]):
        subprocess.run([*git, *words], cwd=tree, check=True, capture_output=True)
    copies = "from auditdm_lib import paths; from auditdm_lib.run import lab; print(lab.refresh(paths.NOTEBOOKS, lab.COPIES))"
    subprocess.run([sys.executable, "-c", copies], cwd=tree, env=environment(tree), check=True, capture_output=True)
    change(tree / "runs/lab/00_first.ipynb", None)
    assert auditdm(tree, "run", "toy").returncode == 0
    done = subprocess.run([*git, "status", "--porcelain"], cwd=tree, capture_output=True, text=True)
    assert done.stdout == ""


def test_a_copy_follows_its_original_until_it_is_changed(tmp_path):
    tree = make_tree(tmp_path / "tree")
    originals, copies = tree / "notebooks", tree / "copies"
    assert lab.refresh(originals, copies) == [] and len(list(copies.glob("*.ipynb"))) == 3
    change(copies / "00_first.ipynb", None)  # outputs only: no change
    change(originals / "00_first.ipynb", "finish(stage)  # better")
    change(copies / "01_second.ipynb", "finish(stage)  # mine")
    kept = lab.refresh(originals, copies)
    assert "better" in (copies / "00_first.ipynb").read_text()
    assert len(kept) == 1 and "01_second.ipynb has changes of yours and is kept" in kept[0]
    assert lab.refresh(originals, copies) == kept and "mine" in (copies / "01_second.ipynb").read_text()
    (copies / "01_second.ipynb").unlink()
    assert lab.refresh(originals, copies) == []


def test_a_damaged_record_or_copy_is_no_traceback(tmp_path):
    originals, copies = tmp_path / "notebooks", tmp_path / "copies"
    shutil.copytree(paths.NOTEBOOKS, originals, ignore=shutil.ignore_patterns(".*"))
    lab.refresh(originals, copies)
    (copies / lab.RECORD).write_text("{", encoding="utf-8")
    (copies / "00_start_here.ipynb").write_text("not a notebook", encoding="utf-8")
    assert ["00_start_here" in line for line in lab.refresh(originals, copies)] == [True]


def test_options_are_passed_on(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(lab, "COPIES", tmp_path)
    monkeypatch.setattr(lab.subprocess, "run", lambda words, **how: ran.append((words, how)) or SimpleNamespace(returncode=3))
    options = ["--no-browser", "--port", "8890", "--allow-root"]
    assert CliRunner().invoke(main, ["lab", *options]).exit_code == 3
    (words, how), = ran
    assert words[-len(options):] == options and str(tmp_path / "00_start_here.ipynb") in words
    assert how["env"]["PYTHONHASHSEED"] == "0" and how["env"]["GOMP_SPINCOUNT"]


def test_a_place_for_the_copies_that_cannot_be_written_to_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(lab, "COPIES", tmp_path / "file" / "lab")
    done = CliRunner().invoke(main, ["lab"])
    assert done.exit_code == 1 and done.output.startswith("JupyterLab was not opened: ")


def test_a_profile_stands_in_the_copies_and_what_they_make_is_what_a_batch_run_makes(tmp_path):
    tree = make_tree(tmp_path / "tree")
    (tree / "params/other.yaml").write_text("run: other\nrate: 0.25\n")
    script = ("from auditdm_lib import paths; from auditdm_lib.run import chain, lab; "
              "print(lab.refresh(paths.NOTEBOOKS, lab.COPIES / 'other', chain.profile_values('other', ())))")
    run = [sys.executable, "-c"]
    subprocess.run([*run, script], cwd=tree, env=environment(tree), check=True, capture_output=True)
    copy = tree / "runs/lab/other/00_first.ipynb"
    assert "rate = 0.25" in copy.read_text() and "steps" not in copy.read_text()
    execute = ("import nbformat, sys; from nbclient import NotebookClient; "
               "NotebookClient(nbformat.read(sys.argv[1], 4), kernel_name='python3').execute()")
    subprocess.run([*run, execute, str(copy)], cwd=tree, check=True, capture_output=True,
                   env=environment(tree) | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(tree)})
    assert (tree / "runs/other/00_first/numbers.txt").read_text() == "0.25 0\n"
    status = auditdm(tree, "status", "other").stdout.splitlines()[0]
    assert "finished" in status, status


def test_an_unknown_profile_is_refused_before_anything_is_copied(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "COPIES", tmp_path / "lab")
    done = CliRunner().invoke(main, ["lab", "--profile", "clas"])
    assert done.exit_code == 2 and "Did you mean params/class.yaml?" in done.output and not (tmp_path / "lab").exists()


def test_the_solutions_are_copied_too(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "COPIES", tmp_path)
    monkeypatch.setattr(lab.subprocess, "run", lambda words, **how: SimpleNamespace(returncode=0))
    assert lab.open_lab([]) == 0
    assert sorted(path.name for path in (tmp_path / "solutions").glob("*.ipynb")) == sorted(
        path.name for path in (paths.NOTEBOOKS / "solutions").glob("*.ipynb"))
