"""The explorer: what its functions choose and show, its controls without a browser, and all of it in JupyterLab where one is."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from urllib.error import URLError
from urllib.request import urlopen

import browser
import ipywidgets
import nbformat
import numpy as np
import pandas as pd
import pytest
import small_run
from nbclient import NotebookClient
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.results import explore, explore_widgets
from auditdm_lib.run import manifest
from auditdm_lib.taxonomy import edits
from auditdm_lib.taxonomy.confirm import confirmation

CHECKPOINTS = "auditdm_lib/testbed/checkpoints"
NOTEBOOK = paths.NOTEBOOKS / "explore_failures.ipynb"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with the run `small`, of made-up probes: three failure types, the first with a hostile question."""
    probes = small_run.probes()
    probes.loc[probes["disagrees"].idxmax(), "question"] = small_run.HOSTILE
    probes.loc[0, ["kind", "edit", "image"]] = ["edit", "paint it blue", "images/00007.png"]
    folder = small_run.write(tmp_path, probes, target=f"{CHECKPOINTS}/gemma3-s", references=[f"{CHECKPOINTS}/gemma3-m"])
    failed = probes[probes["disagrees"]]
    types = failed.assign(category=np.arange(len(failed)) % 3)
    counts = types[types["auditor"] == "trained"]["category"].value_counts()
    table = pd.DataFrame(dict(category=[0, 1, 2], skill="colour", name=["first", "second", "third"], description="",
                              size=[int(counts[i]) for i in range(3)], share=[counts[i] / counts.sum() for i in range(3)],
                              example_probe_ids="", example_question=small_run.HOSTILE, example_consensus="red",
                              example_target="blue", by_prompt_only=0))
    fresh = pd.DataFrame([dict(
        probe_id=f"{c}-{i}", category=c, picture=f"t{i}", target_answer="y", truth="x", agreed="x", saw=True,
        reference_answers=["x"], target_odd=True, references_odd=[False]) for c in range(3) for i in range(9)])
    stage = folder / "03_taxonomy"
    stage.mkdir()
    for name, frame in dict(failures=types[["probe_id", "category"]], categories=table, fresh=fresh,
                            confirmation=confirmation(fresh, table, {}, 1)).items():
        frame.to_parquet(stage / f"{name}.parquet", index=False)
    manifest.write(stage, {"stage": "03_cluster_failures", "key": {"parameters": {}, "inputs": {}}}, {"wall_seconds": 1})
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def test_probes_are_chosen_by_type_auditor_outcome_and_words(home):
    run = explore.load("small")
    everything = explore.choose(run)
    assert len(everything) == len(run.probes) == 240
    parts = [len(explore.choose(run, outcome=name)) for name in explore.OUTCOMES if name != "any"]
    assert all(parts) and sum(parts) == len(everything)  # each probe has one outcome
    own = explore.choose(run, 1, "trained", outcome="the target disagrees")
    assert len(own) and set(own["auditor"]) == {"trained"} and set(own["category"]) == {1} and own["disagrees"].all()
    assert explore.choose(run, words="THING 117 trained")["question"].tolist() == [
        "what colour is thing 117 of trained?"]
    assert explore.choose(run, words="blue paint")["probe_id"].tolist() == [run.probes["probe_id"][0]]  # in the command
    assert explore.choose(run, words="no such words").empty
    shuffled = explore.Run(run.name, run.folder, run.parameters, run.probes.iloc[::-1], run.found, run.edits)
    assert set(explore.choose(shuffled, 1)["probe_id"]) == set(explore.choose(run, 1)["probe_id"])


def test_a_card_shows_both_pictures_and_every_answer_and_runs_no_text(home):
    run = explore.load("small")
    drawn = explore.card(run, run.probes.iloc[0])
    assert drawn.count("<img") == 2 and "drawn for this probe (edit)" in drawn and "paint it blue" in drawn
    failed = explore.choose(run, words="alert").iloc[0]
    shown = explore.card(run, failed)
    assert "<script" not in shown and "&lt;script&gt;" in shown and "disagrees" in shown
    assert f">{failed['target_answer']}</td>" in shown and shown.count("reference ") == 2
    assert all(re.search(r"alt='[^']+'", image) for image in re.findall(r"<img[^>]*>", drawn))


def test_a_picture_is_shown_as_the_model_saw_it_and_a_large_one_is_made_small():
    assert "pixelated" in explore.figure(Image.new("RGB", (48, 48)), "small")
    large = explore.figure(Image.effect_noise((3000, 2000), 90).convert("RGB"), "large")
    assert "pixelated" not in large and len(large) < 1_000_000


def test_changes_are_written_to_the_run_and_read_again(home):
    run = explore.load("small")
    changed = run.changed(edits.rename(edits.merge(run.edits, [0, 2]), 1, "mine"))
    assert explore.load("small").types.equals(changed.types) and len(changed.types) == 2
    assert set(explore.choose(changed, 0)["probe_id"]) == {
        *explore.choose(run, 0)["probe_id"], *explore.choose(run, 2)["probe_id"]}
    assert not changed.changed(edits.none(run.found.categories)).file.exists()
    edits.save(edits.Edits("of others", (1,)), run.file)
    with pytest.raises(manifest.Stop, match="made for other failure types"):
        explore.load("small")


def test_a_run_that_is_missing_or_damaged_is_one_sentence(home):
    with pytest.raises(manifest.NotRun, match="There is no run 'smal' with probes; there are small"):
        explore.load("smal")
    (home / "runs/small/03_taxonomy/failures.parquet").write_bytes(b"x")
    with pytest.raises(manifest.Damaged):
        explore.load("small")


def test_the_members_are_asked_and_their_vote_is_told(home):
    run = explore.load("small")
    said = explore.ask(run, explore.models(run), Image.new("RGB", (48, 48), "white"), "how many things are there?")
    assert said["model"].tolist() == ["target", "reference 1"] and said["answer"].notna().all()
    assert explore.vote(said).startswith("The references agree on")
    for question, words in (("", "at most 300"), ("x" * 301, "at most 300")):
        with pytest.raises(ValueError, match=words):
            explore.ask(run, explore.models(run), Image.new("RGB", (48, 48)), question)
    with pytest.raises(ValueError, match="at least one model"):
        explore.ask(run, {}, Image.new("RGB", (48, 48)), "what?")


@pytest.mark.parametrize(("answers", "words"), [
    ([("target", "two"), ("reference 1", "2"), ("reference 2", "two")], "the target agrees"),
    ([("target", "three"), ("reference 1", "two"), ("reference 2", "two")], "the target differs: a failure, or an error that"),
    ([("target", "three"), ("reference 1", "one"), ("reference 2", "two")], "do not agree"),
    ([("target", "three"), ("org/other", "one")], "Ask the target and its references")])
def test_a_vote_is_that_of_the_audit(answers, words):
    assert words in explore.vote(pd.DataFrame(answers, columns=["model", "answer"]))


def test_the_browser_steps_through_what_was_chosen(home):
    seen = explore_widgets.Browser(explore.load("small"))
    total = len(seen.rows)
    assert (seen.type.label, seen.outcome.value) == ("all probes", "the target disagrees") and seen.count.value == f"of {total}"
    first = seen.card.value
    seen.back.click()
    assert seen.place.value == total and seen.card.value != first
    seen.on.click()
    assert seen.place.value == 1 and seen.card.value == first
    seen.type.value = 1
    assert seen.place.max == len(seen.rows) < total and set(seen.rows["category"]) == {1}
    seen.words.value = "no such words"
    assert seen.count.value == "no probe fits" and seen.card.value == "" and seen.probe is None
    seen.on.click()
    assert seen.status.value == ""


def test_the_editor_changes_what_the_browser_offers(home):
    seen = explore_widgets.Browser(explore.load("small"))
    editor = explore_widgets.Editor(seen)
    editor.veto.click()
    assert "Choose a type above first" in editor.status.value and not seen.run.file.exists()
    seen.type.value = 1
    editor.name.value = "<i>mine</i>"
    editor.rename.click()
    assert any("<i>mine</i>" in text for text, _ in seen.type.options)  # a list shows texts as they are
    assert "&lt;i&gt;mine&lt;/i&gt;" in editor.changes.value and "type_edits=" in editor.changes.value
    editor.others.value = (2,)
    editor.merge.click()
    assert {number for _, number in seen.type.options} == {"", -1, 0, 1}
    editor.veto.click()
    assert seen.type.label == "all probes" and "left out" in editor.changes.value
    editor.undo.click()
    assert len(seen.type.options) == 5 and not seen.run.file.exists()


def test_the_asker_takes_a_picture_of_one_s_own_and_says_what_is_wrong(home):
    asker = explore_widgets.Asker(explore_widgets.Browser(explore.load("small")))
    asker.question.value = "what colour is the background?"
    asker.ask.click()
    assert asker.status.value == "" and "target" in asker.answer.value and "base64" in asker.answer.value
    png = io.BytesIO()
    Image.new("RGB", (60, 60), "green").save(png, "PNG")
    for content, words in ((b"no picture", "no picture of a format"), (png.getvalue(), "")):
        asker.upload.value = ({"name": "x.png", "type": "image/png", "size": 1, "content": memoryview(content),
                               "last_modified": datetime.now(UTC)},)
        assert asker.own.value
        asker.ask.click()
        assert words in asker.status.value and bool(asker.status.value) == bool(words)
    asker.other.value = "no/such/folder"
    asker.ask.click()
    assert "there is no model folder" in asker.status.value


def test_the_planter_shows_what_runs_and_what_was_found(home, monkeypatch):
    planter = explore_widgets.Planter("params/class.yaml", "planted", f"{CHECKPOINTS}/gemma3-s", "{skill: colour, says: blue}")
    plant, audit = planter.commands()
    assert plant[-1] == str(home / "models/planted-1") and f"target={home / 'models/planted-1'}" in audit and "03" in audit
    say = [sys.executable, "-c", "print('<b>one</b>'); print('two\\rthree')"]
    monkeypatch.setattr(planter, "commands", lambda: [say, say])
    planter.run = "small"
    planter.go.click()
    planter.thread.join(60)
    assert "&lt;b&gt;one&lt;/b&gt;" in planter.log.value and "two" not in planter.log.value and "three" in planter.log.value
    assert planter.found.value.count("<tr>") == 3 and "<script" not in planter.found.value and not planter.go.disabled
    monkeypatch.setattr(planter, "commands", lambda: [[sys.executable, "-c", "import sys; sys.exit(3)"], say])
    planter.go.click()
    planter.thread.join(60)
    assert "did not finish" in planter.status.value and "one" not in planter.log.value


def test_the_planter_is_stopped(home, monkeypatch):
    planter = explore_widgets.Planter("params/class.yaml", "planted", "m", "g")
    slow = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
    monkeypatch.setattr(planter, "commands", lambda: [slow])
    planter.go.click()
    for _ in range(600):
        if planter.lines:
            break
        time.sleep(0.1)
    planter.stop.click()
    planter.thread.join(20)
    assert not planter.thread.is_alive() and "Stopped." in planter.status.value and planter.stop.disabled


ACT = """
browser.type.value = 1
editor.name.value = "a name by hand"
editor.rename.click()
browser.on.click()
asker.question.value = "how many things are there?"
asker.ask.click()
print(browser.place.value, browser.status.value, editor.status.value, asker.status.value, "The references" in asker.answer.value)
"""


def test_the_notebook_runs_and_its_controls_work(home):
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells.insert(cells[0] + 1, nbformat.v4.new_code_cell("# Parameters\nrun = 'small'"))
    notebook.cells.append(nbformat.v4.new_code_cell(ACT))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(paths.ROOT)}})
    client.execute(env=environment(home))
    assert notebook.cells[-1].outputs[-1].text.split() == ["2", "True"]
    assert edits.load(home / "runs/small/edits.yaml", explore.load("small").found.categories).rename == {1: "a name by hand"}
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("application/vnd.jupyter.widget-view+json" in data for data in shown) == 4


def environment(home):
    return os.environ | {"AUDITDM_HOME": str(home), "PYTHONPATH": str(paths.ROOT), "JUPYTER_PREFER_ENV_PATH": "1",
                         "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_CONFIG_DIR": str(home / "config"),
                         "IPYTHONDIR": str(home / "ipython")}


@pytest.fixture
def jupyterlab(home):
    """The address of a JupyterLab that serves the explorer's notebook, for the run `small`."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    cell["source"] = [line.replace('"testbed"', '"small"') for line in cell["source"]]
    (home / NOTEBOOK.name).write_text(json.dumps(notebook))
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=x",
             f"--notebook-dir={home}", "--LabApp.news_url=None",
             "--LabApp.expose_app_in_browser=True"]
    log = home / "jupyter.log"
    with open(log, "w") as file, subprocess.Popen(words, env=environment(home), stdout=file, stderr=file) as server:
        try:
            for _ in range(600):
                found = re.search(r"(http://(?:localhost|127\.0\.0\.1):\d+)/", log.read_text())
                with contextlib.suppress(URLError):
                    if found and urlopen(f"{found[1]}/api/status?token=x", timeout=5).status == 200:
                        break
                time.sleep(0.2)
            yield found[1]
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def wait(tab, script, seconds=300):
    """Wait until a JavaScript expression is true in the page."""
    for _ in range(seconds * 4):
        if tab.run(f"!!({script})"):
            return
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} s: {script}; the page says {tab.run('document.body.innerText')}")


def press(tab, words):
    """Click, with the mouse, on the button that says these words."""
    box = tab.run("(() => { const b = [...document.querySelectorAll('button')].find(b => b.textContent.trim() == "
                  f"{json.dumps(words)}); b.scrollIntoView({{block: 'center'}}); const r = b.getBoundingClientRect(); "
                  "return [r.x + r.width / 2, r.y + r.height / 2]; })()")
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)


def write(tab, label, text):
    """Type a text into the field with this label, and leave the field."""
    tab.run("(() => { const l = [...document.querySelectorAll('label')].find(l => l.textContent.trim() == "
            f"{json.dumps(label)}); "
            "const f = l.parentElement.querySelector('input'); f.scrollIntoView({block: 'center'}); f.focus(); f.select(); })()")
    tab.call("Input.insertText", text=text)
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)


@pytest.mark.skipif(browser.FOUND is None, reason="needs a Chromium or Chrome")
def test_the_explorer_is_driven_in_jupyterlab(home, jupyterlab, tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        tab.call("Page.navigate", url=f"{jupyterlab}/lab/tree/{NOTEBOOK.name}?token=x&reset")
        open_notebook(tab)
        run_all(tab)
        shown = "document.querySelector('.jp-OutputArea-output figure img')"
        wait(tab, shown)
        before = tab.run("[...document.querySelectorAll('.widget-html')].map(h => h.innerText).join(' ')")
        press(tab, "next")
        wait(tab, "[...document.querySelectorAll('.widget-html')].map(h => h.innerText).join(' ') != " + json.dumps(before))
        write(tab, "words", "no such words")
        wait(tab, "document.body.innerText.includes('no probe fits')")
        write(tab, "words", "alert")
        wait(tab, f"{shown} && document.body.innerText.includes('<script>')")  # as a text
        picture = Image.open(io.BytesIO(tab.picture(900)))
        assert picture.width == 1200 and len(picture.convert("RGB").getcolors(1 << 20)) > 50
        if folder := os.environ.get("AUDITDM_SCREENSHOTS"):
            picture.save(f"{folder}/explorer.png")


def open_notebook(tab):
    """Wait for the notebook's cells and its kernel; JupyterLab may ask which kernel to start."""
    loaded = ("document.querySelectorAll('.jp-Notebook .jp-Cell').length > 3 && "
              "(document.querySelector('.jp-Notebook-ExecutionIndicator') || {dataset: {}}).dataset.status == 'idle'")
    asks = "[...document.querySelectorAll('.jp-Dialog button')].some(b => b.textContent.trim() == 'Select')"
    wait(tab, f"{asks} || {loaded}")
    if tab.run(asks):
        press(tab, "Select")
    wait(tab, loaded)


def run_all(tab):
    """Run all cells, as the menu Run does, and wait for the four boxes of controls.

    Widgets sent before JupyterLab's side of them is ready are never drawn there, which a busy machine makes likely: so
    wait for it, and run the cells again where they are not drawn."""
    wait(tab, "jupyterapp.isPluginActivated('@jupyter-widgets/jupyterlab-manager:plugin')")
    for last in (False, False, True):
        tab.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
        try:
            return wait(tab, "document.querySelectorAll('.jp-OutputArea-output .widget-vbox').length >= 4", 120)
        except AssertionError:
            if last:
                raise


def test_every_control_has_a_name_for_those_who_do_not_see_it(home):
    seen = explore_widgets.Browser(explore.load("small"))
    boxes = [seen, explore_widgets.Editor(seen), explore_widgets.Asker(seen), explore_widgets.Planter("p", "r", "m", "g")]
    todo, controls = [one.box for one in boxes], []
    while todo:
        one = todo.pop()
        todo += getattr(one, "children", ())
        controls += [one] if isinstance(one, ipywidgets.DOMWidget) and not hasattr(one, "children") else []
    named = [one for one in controls if not isinstance(one, ipywidgets.HTML)]
    assert len(named) > 15 and all(one.description for one in named)
