"""The export of what a run found: a data set with a card, a task of lmms-eval that needs no kit, the hub only when asked."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import small_run
import yaml
from click.testing import CliRunner
from PIL import Image

from auditdm_lib import answers, paths, replies
from auditdm_lib.models import asking
from auditdm_lib.results import data_card, export, found, harness
from auditdm_lib.run import manifest

TYPE = f"“what colour …?” {small_run.HOSTILE} said as | [x](http://y)"


@pytest.fixture
def run(tmp_path):
    """The folder of a run with verified failures, half of which have a type."""
    table = small_run.probes()
    failed = table.loc[table["verified_failure"], "probe_id"].tolist()
    return small_run.write(tmp_path, table, dict.fromkeys(failed[::2], TYPE))


def test_the_data_set_loads_with_its_pictures(run, tmp_path):
    folder = export.write(str(run), "datasets", tmp_path / "out")
    rows = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["test"]
    table = pd.read_parquet(run / "02_probes" / "probes.parquet").set_index("probe_id")
    assert set(rows["probe_id"]) == set(table.index[table["verified_failure"]]) and set(rows["verified"]) == {True}
    assert rows.features["image"] == datasets.Image()
    for row in rows.select(range(0, len(rows), 7)):
        probe = table.loc[row["probe_id"]]
        with Image.open(run / "02_probes" / probe["image"]) as picture:
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), np.asarray(picture))
        texts = [row[name] for name in ("question", "answer", "target_answer")]
        assert texts == probe[["question", "consensus", "target_answer"]].tolist()
        assert row["reference_answers"] == list(probe["reference_answers"]) and row["caption"] is None
    assert sum(name == TYPE for name in rows["failure_type"]) == -(-len(rows) // 2)


def test_a_large_data_set_lies_in_several_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(found, "A_FILE", 20)
    folder = export.write(str(run), "datasets", tmp_path / "out")
    rows = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["test"]
    assert len(list((folder / "data").iterdir())) == -(-len(rows) // 20) > 1
    assert rows["probe_id"] == sorted(rows["probe_id"])


def test_what_is_invalid_refuted_or_of_a_failed_picture_is_not_found():
    table = small_run.probes(3).iloc[:3].assign(disagrees=True, valid=True, verified_failure=True, consensus="red")
    for column, value in dict(disagrees=False, valid=False, verified_failure=False, picture_reason="the colour").items():
        one = table.astype(object).copy()
        one.loc[1, column] = value
        assert found.failures(one, None)["probe_id"].tolist() == ["prompt_only-0-00000", "prompt_only-0-00002"], column
    suspicions = found.failures(small_run.unverified(table), None)
    assert len(suspicions) == 3 and suspicions["verified"].isna().all()


def test_the_same_question_about_a_picture_is_there_once_with_all_who_found_it_and_in_any_order_of_rows():
    table = small_run.probes(8, wrong=1.0).assign(valid=True, disagrees=True, verified_failure=True)
    table["question"] = [f"what colour is thing {i % 8}?" for i in range(len(table))]
    names = pd.DataFrame({"probe_id": ["trained-0-00002"], "name": ["a type"]})  # stage 03 kept the later of two equal probes
    rows = found.failures(table, names)
    assert len(rows) == 8 and set(rows["auditors"]) == {"prompt_only, trained"}
    assert rows.set_index("probe_id")["failure_type"].dropna().to_dict() == {"prompt_only-0-00002": "a type"}
    pd.testing.assert_frame_equal(rows, found.failures(table.sample(frac=1, random_state=1), names))


def test_what_is_damaged_stale_empty_or_in_the_way_stops_with_a_sentence_and_leaves_nothing(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(manifest.Stop, match="is there already: delete it, or give another --out"):
        export.write(str(run), "datasets", tmp_path / "full")
    with pytest.raises(manifest.NotRun, match="no run 'nothing'"):
        export.write("nothing", "datasets", tmp_path / "out")
    picture = run / "02_probes" / found.read(str(run)).rows["image"].iloc[-1]
    picture.write_bytes(b"other")
    with pytest.raises(manifest.Damaged, match=f"{picture.name} is missing or not the picture"):
        export.write(str(run), "datasets", tmp_path / "out")
    record = json.loads((run / "03_taxonomy" / "manifest.json").read_text())
    record["key"]["inputs"]["02_probes"] = "other"
    manifest.write(run / "03_taxonomy", {"stage": record["stage"], "key": record["key"]}, {})
    with pytest.raises(manifest.Stop, match="made from other probes than those it has now: run its stage 03 again"):
        export.write(str(run), "datasets", tmp_path / "out")
    nothing = small_run.write(tmp_path / "nothing", small_run.probes(10, wrong=0.0))
    with pytest.raises(manifest.Stop, match="found no failure of its target"):
        export.write(str(nothing), "lmms-eval", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "nothing", "runs"]


def test_the_card_says_what_it_is_and_names_no_folder_of_the_machine(run):
    what = found.read(str(run))
    card = data_card.card(what)
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "unknown"
    assert head["configs"][0]["data_files"] == [{"split": "test", "path": "data/test-*.parquet"}]
    assert "does not know the licence of the pictures" in card and "- target: mine\n" in card
    assert "- references: org/model-a, b\n" in card and "- pictures: photographs\n" in card
    assert not any(part in card for part in ("/home", "/data", "~", small_run.HOSTILE, "](http:"))
    n = len(what.rows)
    assert f"{n} verified failures." in card and f"| in no type | {n // 2} |" in card
    assert f"said as \\| \\[x\\](http\\://y) | {n - n // 2} |" in card


def test_the_card_gives_the_error_of_the_consensus_where_it_is_known(run, tmp_path):
    what = found.read(str(run))
    wrong = 100 * (what.rows["answer"] != what.rows["truth"]).mean()
    assert f"consensus is wrong in {wrong:.1f} % (95 % interval" in data_card.label_error(what) and 0 < wrong < 30
    suspected = small_run.write(tmp_path / "b", small_run.unverified(small_run.probes()), judge_model="org/judge")
    unknown = found.read(str(suspected))
    assert "was not measured: `auditdm label` draws a sample" in data_card.label_error(unknown)
    card = data_card.card(unknown)
    assert "suspicions, which nothing has verified." in card and "verified failures" not in card
    assert "were not grouped into types" in card and "- judge of answers: org/judge" in card and "drawer" not in card
    labels = unknown.folder.parent / "labels"
    labels.mkdir()
    pd.DataFrame([dict(measure="consensus right where the target disagrees", auditor="all", value=0.9, ci_low=0.8, ci_high=0.95,
                       labelled=80)]).to_csv(labels / "rates.csv", index=False)
    said = data_card.label_error(unknown)
    assert "right in 90.0 % (95 % interval 80.0 to 95.0)" in said and "sample of 80" in said and "not measured" not in said


def test_the_card_names_what_drew_pictures_and_which_version_of_a_model_it_was(tmp_path):
    table = small_run.probes(20).assign(kind="edit")
    run = small_run.write(tmp_path, table, drawer="diffusion", image_model=str(tmp_path / "flux"), edit_model="org/kontext")
    record = manifest.load(run / "02_probes")
    digests = {"target: /home/me/models/mine": "0123456789abcdef", "edit_model: org/kontext": "fedcba9876543210"}
    record["key"]["inputs"] |= digests
    manifest.write(run / "02_probes", {"stage": record["stage"], "key": record["key"]}, {})
    card = data_card.card(found.read(str(run)))
    assert "- target: mine (0123456789ab)\n" in card and "- auditor before its training: org/asks\n" in card
    assert "- drawer of pictures: diffusion, flux, org/kontext (fedcba987654)\n" in card


@pytest.mark.parametrize(("given", "shown"), [
    ("org/model-a", "org/model-a"), ("models/mine", "models/mine"), ("/home/me/models/mine", "mine"), ("~/mine", "mine"),
    ("../elsewhere/mine", "mine"), ("openai:google/gemma-3-4b-it@http://10.0.0.7:8000/v1", "google/gemma-3-4b-it"),
    ("openai:http://host", "a model behind an endpoint"), ("testbed", "testbed"),
    ("datasets:/home/me/set:default:train", "datasets:set:default:train"),
    ("datasets:org/name:a:train", "datasets:org/name:a:train")])
def test_a_model_is_named_without_folders_and_addresses(given, shown):
    assert data_card.model_name(given) == shown


CHECK = """
import importlib.util, json, sys
import pandas as pd
spec = importlib.util.spec_from_file_location("utils", "utils.py")  # as lmms-eval loads it
utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(utils)
cases = json.load(sys.stdin)
docs = [dict(question=q, answer=a, source_image="s", probe_id="p", failure_type=None) for q, a, _ in cases]
scores = [utils.process_results(doc, [case[2]])["consensus_match"] for doc, case in zip(docs, cases)]
assert not [name for name in sys.modules if name.startswith("auditdm_lib")]
print(json.dumps([[s["score"] for s in scores], utils.mean(scores), utils.doc_to_text(docs[0]),
                  utils.doc_to_text(docs[0], {"pre_prompt": "answer en ", "post_prompt": "!"})]))
"""


def test_the_task_judges_as_the_kit_does_without_the_kit(run, tmp_path):
    folder = export.write(str(run), "lmms-eval", tmp_path / "task")
    judged = pd.read_csv(Path(__file__).with_name("cases") / "judge.csv", dtype=str, keep_default_na=False)
    cases = [["what is it?", row[0], row[1]] for row in judged[["a", "b"]].itertuples(index=False)]
    cases += [["what colour is it?", "red", text] for text in ("Sure! **Answer: Red.**", "The car is red.", "blue", "", "N/A")]
    done = subprocess.run([sys.executable, "-I", "-c", CHECK], cwd=folder, input=json.dumps(cases), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores, mean, plain, worded = json.loads(done.stdout)
    assert scores == [float(answers.same_answer(replies.short_answer(text, q), a)) for q, a, text in cases]
    assert scores[-5:] == [1, 1, 0, 0, 0] and mean == pytest.approx(np.mean(scores)) and 0 < mean < 1
    assert (plain, worded) == ("what is it?", "answer en what is it?!")


def test_the_task_has_the_fields_that_lmms_eval_documents(run, tmp_path):
    folder = export.write(str(run), "lmms-eval", tmp_path / "task")
    text = (folder / "auditdm_small.yaml").read_text(encoding="utf-8")
    task = yaml.safe_load(text.replace("!function ", "function:"))  # a tag of lmms-eval's own, which would import what it names
    assert task["task"] == harness.task_name("small") == "auditdm_small" and task["dataset_path"] == "parquet"
    assert all((folder / file).is_file() for file in task["dataset_kwargs"]["data_files"][task["test_split"]])
    named = {value.removeprefix("function:utils.") for value in [*task.values(), task["metric_list"][0]["aggregation"]]
             if str(value).startswith("function:")}
    assert named == {"doc_to_visual", "doc_to_text", "process_results", "mean"} and task["doc_to_target"] in found.TEXTS
    words = task["lmms_eval_specific_kwargs"]["default"]
    assert words["pre_prompt"] + asking.QUESTION + words["post_prompt"] == asking.CHAT.prompt
    assert task["generation_kwargs"]["max_new_tokens"] == asking.CHAT.max_new_tokens
    assert "--tasks auditdm_small" in (folder / "README.md").read_text(encoding="utf-8")
    assert harness.task_name("My run-2 é") == "auditdm_my_run_2"


class Hub:
    """A client of the hub that keeps what it was asked."""

    def __init__(self, there: bool = False, login: Exception | None = None, upload: Exception | None = None):
        self.there, self.login, self.upload, self.calls, self.files = there, login, upload, [], []

    def whoami(self):
        if self.login:
            raise self.login
        return {"name": "me"}

    def repo_exists(self, repo, repo_type):
        return self.there

    def create_repo(self, repo, repo_type, private):
        self.calls.append(("create", repo, repo_type, private))
        return f"https://hub/datasets/{repo}"

    def upload_folder(self, repo_id, repo_type, folder_path, commit_message):
        if self.upload:
            raise self.upload
        self.calls.append(("upload", repo_id, repo_type))
        self.files = sorted(path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file())


def test_an_upload_makes_a_private_data_set_with_its_card(run):
    client = Hub()
    assert export.upload(str(run), "org/found", client) == "https://hub/datasets/org/found"
    assert client.calls == [("create", "org/found", "dataset", True), ("upload", "org/found", "dataset")]
    assert client.files == ["README.md", "data/test-00000-of-00001.parquet"]


@pytest.mark.parametrize(("repo", "client", "words"), [
    (None, Hub(), "give --repo org/name"), ("found", Hub(), "give --repo org/name"),
    ("org/found", Hub(login=OSError("no token")), "no login on the hub .OSError.: log in with `hf auth login`"),
    ("org/found", Hub(there=True), "has a data set org/found already"),
    ("org/found", Hub(upload=OSError("403")), "upload to org/found failed .OSError: 403.")])
def test_nothing_is_uploaded_without_a_name_a_login_and_a_free_place(run, repo, client, words):
    with pytest.raises(manifest.Stop, match=words):
        export.upload(str(run), repo, client)
    assert client.files == []


def test_the_command_uploads_only_when_asked(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: pytest.fail("the hub was asked"))
    monkeypatch.setattr(paths, "RUNS", run.parent)
    call = CliRunner().invoke
    done = call(export.main, ["small", "--to", "datasets"])
    assert done.exit_code == 0 and (run / "export" / "datasets" / "README.md").is_file(), done.output
    assert "is there already" in str(call(export.main, ["small", "--to", "datasets"]).exception)
    for words in (["--to", "hub"], ["--to", "datasets", "--repo", "org/x"], ["--to", "hub", "--repo", "org/x", "--out", "y"]):
        assert call(export.main, ["small", *words]).exit_code == 2
    client = SimpleNamespace(whoami=lambda: (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: client)
    assert "no login on the hub" in str(call(export.main, ["small", "--to", "hub", "--repo", "org/x"]).exception)
