"""What the documents tell people to type and to open: each command is valid, and each file, function and parameter exists."""

import contextlib
import io
import re
import shlex
import subprocess

import click
import pytest
from click.testing import CliRunner

from auditdm_lib import paths
from auditdm_lib.results import ablation, claims, drawn_figures, figures, reference, report, tables
from auditdm_lib.run import chain, params
from auditdm_lib.testbed import commands as testbed

README = paths.ROOT / "README.md"
DOCUMENTS = [README, paths.ROOT / "CONTRIBUTING.md", paths.ROOT / "figures" / "README.md", reference.LONG_README]
MINE = paths.PARAMS / "mine.yaml"  # the profile that README.md lets the user write
GENERATED = re.compile(r"(runs|models|figures/(testbed|<run>))/|<run>/|\.venv|params/mine\.yaml$")  # not in a fresh checkout
WRITTEN = {"report.html", "manifest.json", "timing.csv"}  # by every stage, or by the last
SUFFIXES = r"\.(?:md|py|ipynb|yaml|csv|png|json|html|lock|toml|cff|parquet|pdf|tex)"


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks(text, language=""):
    """The code blocks of a language ("" for commands)."""
    every = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in every if name == language]


def inline(text):
    """The inline code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def commands(text):
    """Every command line of a document: the lines of its code blocks, and the inline code that begins with a program."""
    lines = "\n".join(blocks(text)).replace("\\\n", " ").splitlines()
    return [line for line in [*lines, *inline(text)] if re.match(r"(auditdm|make|python|\.venv\S+) ", line)]


def mine():
    return blocks(text_of(README), "yaml")[0]


def check(line, folder):
    """Raise where a command line is wrong; `folder` is for the profile of README.md's recipe."""
    program, *words = shlex.split(line.replace("\\", "/"), comments=True)
    program = re.sub(r"^\.venv/\w+/", "", program)
    if program == "auditdm":
        check_auditdm(words, folder)
    elif program == "make":
        done = subprocess.run(["make", "-n", *words], cwd=paths.ROOT, capture_output=True, text=True)
        assert words and done.returncode == 0, done.stderr
    elif program == "python" and words[:3] == ["-m", "pip", "install"]:
        files = [words[i + 1] for i, word in enumerate(words) if word in ("-r", "-e")]
        assert files and all((paths.ROOT / file).exists() for file in files), line
    elif program == "python" and words[:2] == ["-m", "pytest"]:
        assert len(words) > 2 and (paths.ROOT / words[2]).is_file(), line
    elif program == "python" and words[:2] == ["-m", reference.__name__]:
        assert words[2:] in ([], ["readmes"], ["testbed"]), line
    else:
        assert [program, *words] in (["python", "-m", "venv", ".venv"], ["ruff", "check", "."]), f"nobody checks: {line}"


def check_auditdm(words, folder):
    command = chain.main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        command = command.get_command(click.Context(command), name)
        assert command, f"there is no command {name}"
    assert not isinstance(command, click.Group), "a command is missing"
    given = command.make_context("auditdm", words).params  # raises click.UsageError for words that it does not take
    if "profile" in given:
        check_profile(given["profile"], given["settings"], folder)
    if "last" in given:
        chain.chosen(given["first"], given["last"], given["only"])
    if "specs" in given:
        assert all(testbed.read(spec) for spec in given["specs"]) and not params.model_fault(given["model"]), words


def check_profile(profile, settings, folder):
    """A profile's and the settings' names and values, but for models and pictures that only the user has."""
    known, path = params.declared_anywhere(), chain.profile_path(profile)
    if profile == MINE.stem or path == MINE:
        path = folder / MINE.name
        path.write_text(mine(), encoding="utf-8")
    values = params.read_profile(path) | dict(params.from_text(text, known) for text in settings)
    own = {name for name in values.keys() & known.keys() if known[name].rule["kind"]}
    params.check({name: value for name, value in values.items() if name not in own}, known, profile)


def unknown_names(text, path):
    """Files, links, functions and parameters that a document names and that do not exist."""
    found = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not (path.parent / link).exists()]
    for code in inline(text):
        if re.fullmatch(rf"[\w<>./-]+/[\w<>./-]*|[\w.-]+{SUFFIXES}", code):
            found += [] if exists(code, path) else [code]
        elif call := re.fullmatch(r"(figures|drawn_figures|ablation|tables|claims|report)\.(\w+)\(.*\)", code):
            found += [] if hasattr(MODULES[call[1]], call[2]) else [code]
        elif setting := re.fullmatch(r"(\w+): (-?[\d.]+)", code):
            found += [] if setting[1] in params.declared_anywhere() else [code]
    return found


MODULES = {"figures": figures, "drawn_figures": drawn_figures, "ablation": ablation, "tables": tables, "claims": claims,
           "report": report}


def exists(name, document):
    """Whether a file or folder of this name is in the checkout, or is one that a run or the user makes."""
    if GENERATED.match(name) or name.split("/")[0] in {step.folder for step in paths.CHAIN} or name in WRITTEN:
        return True
    beside = (paths.ROOT, paths.LIBRARY, paths.LIBRARY / "testbed", document.parent, paths.ROOT / "figures", reference.REFERENCE,
              reference.SEARCHES / "full")
    return any((folder / name.replace("<run>", "full")).exists() for folder in beside)


def test_the_readme_has_at_most_150_lines():
    assert len(text_of(README).splitlines()) <= 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(paths.ROOT).as_posix())
def test_every_command_is_valid_and_every_name_exists(path, tmp_path):
    for line in commands(text_of(path)):
        check(line, tmp_path)
    assert unknown_names(text_of(path), path) == []


def test_the_commands_are_found():
    lines = commands(text_of(README))
    assert len(lines) >= 14 and len(commands(text_of(DOCUMENTS[1]))) >= 5
    for start in ("make reproduce", "make test", "auditdm status testbed", "auditdm run mine", "auditdm lab",
                  "auditdm testbed plant --model", "auditdm run testbed --set run=mine", "python -m venv"):
        assert any(line.startswith(start) for line in lines), start
    assert set(lines) >= {line for line in inline(text_of(README)) if line.startswith("auditdm ")}
    for target in ("reproduce", "test", "lab", "clean"):
        check(f"make {target}", None)


@pytest.mark.parametrize("line", [
    "auditdm rum testbed", "auditdm run", "auditdm run testbed more", "auditdm run testbd", "auditdm run testbed --form 03",
    "auditdm run testbed --from 09", "auditdm run testbed --only 02 --to 03", "auditdm run testbed --set sed=1",
    "auditdm run testbed --set seed=one", "auditdm status testbed --force", "auditdm status", "auditdm testbed",
    "auditdm testbed plant --model auditdm_lib/testbed/checkpoints/gemma3-s --out models/mine",
    "auditdm testbed plant --model nowhere --out models/mine --gap '{skill: colour, when: {answer: purple}, says: blue}'",
    "auditdm testbed plant --model auditdm_lib/testbed/checkpoints/gemma3-s --out models/mine --gap '{skill: color, says: blue}'",
    "make reprodcue", "python -m pip install -r requirements.txt", "python -m pytest tests/test_nothing.py",
    "python -m auditdm_lib.results.reference all", "python setup.py"])
def test_a_wrong_command_is_noticed(line, tmp_path):
    with pytest.raises((AssertionError, click.UsageError, params.BadParameters, ValueError)), \
            contextlib.redirect_stderr(io.StringIO()):
        check(line, tmp_path)


@pytest.mark.parametrize("text", ["`auditdm_lib/figures.py`", "`nothing.csv`", "[here](docs/README.md)", "`figures.fig_9(items)`",
                                  "`imitation_round: 0`", "`tests/test_nothing.py`"])
def test_a_wrong_name_is_noticed(text):
    assert len(unknown_names(f"See {text}.", README)) == 1


def test_a_wrong_line_of_the_recipe_is_noticed(tmp_path, monkeypatch):
    recipe = mine()
    for right, wrong in [("question_tokens: 40", "question_token: 40"), ("edit_share: 0.0", "edit_share: 2.0")]:
        changed = recipe.replace(right, wrong)
        assert changed != recipe
        monkeypatch.setattr(f"{__name__}.mine", lambda changed=changed: changed)
        with pytest.raises(params.BadParameters):
            check("auditdm run mine", tmp_path)


def test_status_runs_as_the_readme_types_it(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    done = CliRunner().invoke(chain.main, ["status", "testbed"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == [step.notebook for step in paths.CHAIN]


def test_the_readmes_name_every_notebook_and_every_figure():
    assert {step.notebook for step in (*paths.CHAIN, paths.BUILD)} <= set(inline(text_of(README)))
    drawn = {name for module in (figures, drawn_figures) for name in vars(module) if re.match(r"fig\d?_", name)}
    named = set(re.findall(r"`(?:drawn_)?figures\.(fig\w+)\(", text_of(paths.ROOT / "figures" / "README.md")))
    assert named == drawn and len(named) >= 9
