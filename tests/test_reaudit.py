"""A re-audit says of each type, and of each skill outside them, whether it is fixed, unchanged or newly broken."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scripted import replies_by

from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.taxonomy import reaudit

N = 80
SKILLS = ["colour", "clock", "count", "place"]
CONFIRMED = pd.DataFrame(dict(category=[0, 1], skill=["colour", "clock"], name=["colour: said as grey", "clock: said as one"]))


class Asked:
    """A truth that asks of picture i by chance about the skill count or place."""

    complete = True

    def take(self, rows):
        return self

    def random_question(self, i, rng):
        return f"what {SKILLS[2 + i % 2]} is it?"

    def right_answer(self, i, question):
        return None


def pictures():
    return Pictures([f"p{i}" for i in range(N)], [Image.new("RGB", (2, 2), (i, 0, 0)) for i in range(N)], Asked())


@pytest.fixture
def audited(monkeypatch):
    """A function that audits again a target and a rectified one that fail on these skills; `blind` misses easy questions."""
    def run(before, after, blind=(), odd=(), confirmed=CONFIRMED):
        def answer(member, images, questions):
            fails = {"target": before, "rectified": after}.get(member.name, ())
            said = []
            for image, question in zip(images, questions, strict=True):
                i, skill = image.getpixel((0, 0))[0], question.split()[1]
                wrong = skill in fails or (skill == "easy" and member.name == "rectified" and i in blind)
                said.append("nothing" if wrong else f"{skill} {i}")
            return said

        def ask_fresh(panel, seen, clustered, belongs, writer, seed):
            kinds = sorted(set(clustered["category"]))
            rows = [dict(row=i, question=f"what {SKILLS[c]} is it?", agreed=f"{SKILLS[c]} {i}", category=c, made_by="auditor",
                         target_answer="nothing" if SKILLS[c] in before else f"{SKILLS[c]} {i}",
                         target_odd=SKILLS[c] in before, references_odd=[i in odd, False]) for c in kinds for i in range(N)]
            return pd.DataFrame(rows, columns=["row", "question", "agreed", "category", "made_by", "target_answer", "target_odd",
                                               "references_odd"])
        monkeypatch.setattr(panels, "replies", replies_by(answer))
        monkeypatch.setattr(panels, "check_answers", lambda *args, **kwargs: None)
        monkeypatch.setattr(reaudit, "ask_fresh", ask_fresh)
        members = [SimpleNamespace(name=name) for name in ("target", "one", "two", "rectified")]
        clustered = pd.DataFrame(dict(category=[0, 1, 2, -1], skill="?"))
        return reaudit.reaudit(Panel(members[0], members[1:3]), members[3], pictures(), clustered, confirmed,
                               lambda questions, answers: np.array([SKILLS.index(q.split()[1]) for q in questions], int),
                               lambda questions: [q.split()[1] for q in questions], None, ["what easy thing is it?"], 0)
    return run


def test_types_are_fixed_unchanged_or_newly_broken_and_so_are_skills_outside_them(audited):
    table = audited(before={"colour", "clock"}, after={"clock", "count"}).set_index("skill")
    assert list(table.reset_index().columns) == sorted(reaudit.COLUMNS, key=lambda name: (name != "skill",))
    assert table["verdict"].to_dict() == {"colour": "fixed", "clock": "unchanged", "count": "newly broken", "place": "unchanged"}
    assert table["category"].to_dict() == {"colour": 0, "clock": 1, "count": -1, "place": -1}
    assert table.loc["colour", ["n", "before", "after", "change"]].tolist()[:3] == [N, 1.0, 0.0]
    assert table.loc["colour", "change_low"] < -0.9 < table.loc["colour", "change_high"] + 0.1
    assert table.loc[["count", "place"], "n"].tolist() == [N // 2, N // 2]
    assert set(table.loc[["count", "place"], "name"]) == {reaudit.OUTSIDE}
    assert reaudit.in_words(table.reset_index()) == ("Of 2 confirmed types: 1 fixed, 1 unchanged. "
                                                     "Of 2 skills outside them: 1 newly broken, 1 unchanged.")


def test_a_probe_on_which_a_reference_differs_does_not_count(audited):
    table = audited(before={"colour"}, after=set(), odd=range(30)).set_index("skill")
    assert table.loc["colour", "n"] == N - 30


def test_a_picture_that_the_rectified_target_does_not_see_is_set_aside(audited):
    table = audited(before={"colour"}, after=set(), blind=range(20)).set_index("skill")
    assert (table.loc["colour", "n"], table.loc["colour", "not_seen"]) == (N - 20, 20)


def test_without_a_confirmed_type_only_skills_are_compared(audited):
    table = audited(before={"count"}, after=set(), confirmed=CONFIRMED.head(0))
    assert table["category"].tolist() == [-1, -1] and dict(zip(table["skill"], table["verdict"], strict=True))["count"] == "fixed"
    assert reaudit.in_words(table.head(0)) == "There is no confirmed type to audit again."
