"""Rounds of bootstrapping go on while the validation score rises, unite what was found, and take the best model."""

import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from datasets import load_from_disk
from PIL import Image

from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.models.asking import Asking
from auditdm_lib.training import rounds
from auditdm_lib.training.rectify import to_dataset
from auditdm_lib.training.rectify_sets import kept_aside, training_sets

MEMBER = SimpleNamespace(name="none", asking=Asking("{question}", 8), sampling=None)
SIZE = 60


def supply(n, seed, split):
    rng = np.random.default_rng([seed, len(split)])
    images = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(n)]
    return Pictures([f"{split}-{i}" for i in range(n)], images)


def probes_of(auditor, names, wrong):
    """A probe about each picture, a share `wrong` of which the target fails."""
    table = pd.DataFrame(dict(image=names, source_image=names, auditor=auditor, question=f"what does {auditor} ask?",
                              consensus="blue", picture_reason=None, kind="question", target_answer="red"))
    fails = np.arange(len(names)) % 100 < 100 * wrong
    return table.assign(probe_id=[f"{auditor}-{i:03d}" for i in range(len(names))], disagrees=fails, verified_failure=fails)


class Scripted:
    """Stands for the models: what the target still fails, and how right each round's model is, by round."""

    def __init__(self, monkeypatch, tmp_path, wrong=(0.5, 0.2, 0.1), right=(0.7, 0.85, 1.0)):
        self.calls, self.wrong, self.right, self.tmp = [], wrong, right, tmp_path
        monkeypatch.setattr(rounds, "load_vlm", lambda path: SimpleNamespace(name=str(path), asking=MEMBER.asking, sampling=None))
        monkeypatch.setattr(rounds, "self_imitation", self.refresh)
        monkeypatch.setattr(rounds, "auditor_arm", self.arm)
        monkeypatch.setattr(rounds, "agreement", self.agreement)

    def refresh(self, start, panel, pictures, search, imitation, seed, work):
        for name in ("round_1", "round_2"):
            (work / name / "auditor").mkdir(parents=True, exist_ok=True)
        self.calls.append(("refresh", str(start), panel.target.name))
        return work / "round_2" / "auditor", [], None, None

    def arm(self, path, name, panel, pictures, search, seed, names, folder):
        number = int(folder.parts[-3])
        self.calls.append(("ask", name, number))
        return None, probes_of(name, names, self.wrong[number - 1])

    def agreement(self, member, name, images, questions, agreed, llm):
        number = int(name.split()[-1])
        return pd.DataFrame(dict(answer="blue", agrees=np.arange(len(questions)) < len(questions) * self.right[number - 1]))

    def tune(self, model, examples, out, work, data):
        self.calls.append(("tune", str(model), len(examples)))
        out.mkdir(parents=True)
        (out / "weights").write_text(f"from {model}")
        return pd.DataFrame(dict(step=[1], loss=[0.5], validation_loss=[0.4]))

    def first(self):
        folder = self.tmp / "02"
        (folder / "images").mkdir(parents=True)
        seen = supply(SIZE, 0, "probe")
        names = [f"images/{i}.png" for i in range(SIZE)]
        for name, image in zip(names, seen.images, strict=True):
            image.save(folder / name)
        probes = pd.concat([probes_of(name, names, self.wrong[0]) for name in ("random", "prompt_only", "trained")])
        kept = kept_aside(probes, folder, 0)
        examples, _ = training_sets(probes[~kept], 0.5, ["random"], 0, ["trained"])
        data, model = to_dataset(examples, folder), self.tmp / "work/1/model"
        history = self.tune("target", data, model, None, "")
        return rounds.first_round(model, self.tmp / "trained", data, examples, history, probes,
                                  rounds.questions_to_score(probes, folder, 0), Panel(MEMBER, [MEMBER, MEMBER]))

    def run(self, most):
        search = Search({"question": "?"}, {"question": 8}, {"question": 1.0}, 1.0)
        plan = rounds.Bootstrap(Panel(MEMBER, [MEMBER, MEMBER]), "untrained", search, None, supply, 10, SIZE, 0.7,
                                lambda failures: failures.assign(category=0, skill="colour"), self.tune, 0.5, "evenly", 0)
        return rounds.bootstrap(plan, self.first(), most, self.tmp / "work")


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    return partial(Scripted, monkeypatch, tmp_path)


def test_each_round_learns_from_the_last_model_and_asks_against_it(scripted, tmp_path):
    script = scripted()
    done = script.run(3)
    assert [one.number for one in done] == [1, 2, 3]
    tuned = [call[1] for call in script.calls if call[0] == "tune"]
    assert tuned == ["target", str(tmp_path / "work/1/model"), str(tmp_path / "work/2/model")]
    refreshed = [call[1:] for call in script.calls if call[0] == "refresh"]
    assert refreshed == [(str(tmp_path / "trained"), tuned[1]), (str(tmp_path / "work/2/auditor/round_2/auditor"), tuned[2])]
    assert [call[1] for call in script.calls if call == ("ask", call[1], 2)] == ["prompt_only", "imitation_1", "trained"]


def test_examples_are_united_and_none_is_about_a_picture_that_scores(scripted):
    done = scripted().run(3)
    sizes = [len(one.data) for one in done]
    assert sizes[0] < sizes[1] < sizes[2] == sum(done[2].kinds.values())
    keys = [(row["question"], row["image"].tobytes()) for row in done[2].data]
    assert len(set(keys)) == len(keys) and set(keys) >= {(row["question"], row["image"].tobytes()) for row in done[0].data}
    scoring = {Image.open(file).convert("RGB").tobytes() for file in done[2].kept["file"]}
    assert len(scoring) > 5 and not scoring & {picture for _, picture in keys}
    assert len(rounds.united(done[2].data, done[2].data)) == len(done[2].data)


def test_it_ends_once_the_score_no_longer_rises_and_takes_the_last_model_that_raised_it(scripted, tmp_path):
    script = scripted(wrong=(0.5, 0.5, 0.1), right=(0.9, 0.3, 1.0))  # what round 2 learns makes it worse
    done = script.run(5)
    assert [one.number for one in done] == [1, 2] and done[0].better and not done[1].better and rounds.best(done).number == 1
    rounds.store(done, tmp_path / "out")
    assert (tmp_path / "out/model/weights").read_text() == "from target"
    assert sorted(path.name for path in (tmp_path / "out/rounds/2").iterdir()) == [
        "data", "failures.parquet", "history.csv", "model", "probes.parquet"]
    assert [path.name for path in (tmp_path / "out/rounds/1").iterdir()] == ["history.csv"]
    assert len(load_from_disk(tmp_path / "out/data")) == len(done[0].data)
    assert "| failure |" in (tmp_path / "out/data/README.md").read_text(encoding="utf-8")


def test_the_table_says_what_each_audit_found_and_the_score_before_and_after(scripted):
    done = scripted().run(3)
    table = rounds.table(done)
    assert list(table.columns) == rounds.COLUMNS and table["taken"].tolist() == [False, False, True]
    assert table["probes"].tolist() == [SIZE] * 3 and table["success"].round(2).tolist() == [0.83, 0.33, 0.17]
    assert (table["before"] < table["after"]).all() and table["questions"].is_monotonic_increasing
    assert (table["after_low"] < table["after"]).all() and (table["after"] <= table["after_high"]).all()
    unknown = [SimpleNamespace(**vars(one) | dict(probes=one.probes.assign(verified_failure=None), after=one.after,
                                                  better=one.better)) for one in done]
    assert rounds.table(unknown)["success"].equals(table["success"])  # disagreements, where nothing is verified


def test_an_audit_that_finds_nothing_more_ends_the_rounds_with_the_model_there_is(scripted, tmp_path, capsys):
    done = scripted(wrong=(0.5, 0.0, 0.0)).run(4)
    assert [one.number for one in done] == [1, 2] and done[1].model == done[0].model and done[1].failures == 0
    assert "no failures with a consensus" in capsys.readouterr().out and rounds.best(done).number == 1


def test_a_round_that_was_stopped_asks_nothing_twice(scripted, monkeypatch):
    script = scripted()
    before = script.run(2)
    asked = len([call for call in script.calls if call[0] == "ask"])
    folder = script.tmp / "work/2"
    os.rename(folder / "model", script.tmp / "lost")
    monkeypatch.setattr(script, "first", lambda: before[0])
    after = script.run(2)
    assert len([call for call in script.calls if call[0] == "ask"]) == asked and (folder / "model").exists()
    assert after[1].probes.equals(before[1].probes) and after[1].kept.equals(before[1].kept)


def test_nothing_to_learn_is_a_round_without_a_model(scripted, tmp_path):
    script = scripted()
    first = script.first()
    examples = first.probes.head(0).assign(answer="", failure=False, kind="")
    none = rounds.first_round(tmp_path / "no model", first.auditor, to_dataset(examples, tmp_path), examples, first.history,
                              first.probes, first.kept.assign(right=True), Panel(MEMBER, [MEMBER]))
    assert not none.better and none.after == none.before == 1.0
    rounds.store([none], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "rounds"]
    assert rounds.table([none])[["examples", "failures", "taken"]].values.tolist() == [[0, 0, True]]
