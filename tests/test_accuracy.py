"""What is measured of the testbed's models is what they said."""

import math

import pytest

from auditdm_lib.audit.consensus import consensus
from auditdm_lib.testbed import accuracy
from auditdm_lib.testbed.gaps import Gap
from auditdm_lib.testbed.language import caption, noun_phrase
from auditdm_lib.testbed.scenes import Scene, Thing
from auditdm_lib.testbed.skills import CANNOT_TELL, answer

PURPLE = Gap("purple is blue", "colour", "blue", {"answer": "purple"})
OVERLOOKED = Gap("pink is overlooked", "exists", "no", {"colour": "pink", "answer": "yes"})


@pytest.fixture
def says(monkeypatch):
    """Models that answer by a rule on (scene, question); pictures are the scenes themselves."""
    rules = {}
    monkeypatch.setattr(accuracy, "render", lambda scene: scene)
    monkeypatch.setattr(accuracy, "load_vlm", lambda path: rules[str(path)])
    monkeypatch.setattr(accuracy, "answer", lambda rule, scenes, texts, desc=None: list(map(rule, scenes, texts)))
    return rules


def planted(*gaps):
    """The answers of a model that is right but for its gaps."""
    def rule(scene, text):
        return next((said for gap in gaps if (said := gap.wrong_answer(scene, text))), answer(scene, text))
    return rule


def test_a_right_model_is_right_in_every_skill_and_one_that_never_declines_has_no_recall(says, tmp_path):
    says[str(tmp_path / "right")] = answer
    says[str(tmp_path / "bold")] = lambda scene, text: "yes" if answer(scene, text) == CANNOT_TELL else answer(scene, text)
    right = accuracy.accuracy_by_skill(tmp_path / "right", n=400)
    assert (right["accuracy"].dropna() == 1).all() and right.set_index("skill").loc["all", "n"] == 400
    bold = accuracy.accuracy_by_skill(tmp_path / "bold", n=400).set_index("skill")
    assert bold.loc["cannot tell: recall", "accuracy"] == 0 and bold.loc["cannot tell: precision", "n"] == 0
    assert bold.loc["all", "accuracy"] == pytest.approx(1 - bold.loc["cannot tell: recall", "n"] / 400)


def test_a_planted_model_is_wrong_inside_its_gaps_and_right_outside(says):
    table = accuracy.accuracy_by_gap(planted(PURPLE, OVERLOOKED), (PURPLE, OVERLOOKED), n=20, n_outside=50)
    assert table["skill"].tolist() == [PURPLE.name, OVERLOOKED.name, "outside"]
    assert table["n"].tolist() == [20, 20, 50] and table["accuracy"].tolist() == [0, 0, 1]


def test_failures_are_counted_where_they_are(says, tmp_path):
    says[str(tmp_path / "target")] = planted(PURPLE, OVERLOOKED)
    table = accuracy.failures_by_gap(tmp_path / "target", (PURPLE,), n=1500).set_index("gap")
    assert table.loc[PURPLE.name, "failures"] == table.loc[PURPLE.name, "asked"] > 0
    assert table.loc["all", "failures"] == table.loc[PURPLE.name, "failures"] + table.loc["outside", "failures"]
    assert table.loc["outside", "failures"] > 0 and table.loc["all", "share_of_failures"] == 1
    assert table.loc["all", "share_of_questions"] == table.loc["all", "failures"] / 1500


def test_a_consensus_that_is_wrong_or_confident_without_reason_is_seen(says, tmp_path):
    says |= {str(tmp_path / "a"): planted(PURPLE), str(tmp_path / "b"): planted(PURPLE, OVERLOOKED), str(tmp_path / "c"): answer,
             str(tmp_path / "yes"): lambda scene, text: "yes"}
    def quality(*names):
        return accuracy.consensus_quality([tmp_path / name for name in names], consensus, n=600).set_index("skill")["accuracy"]
    shared, one_right = quality("a", "b"), quality("a", "c")
    assert 0 < shared["wrong, where it exists"] < 0.05 and one_right["wrong, where it exists"] == 0
    assert one_right["exists, of the answerable"] < 1 and one_right["confident, of the unanswerable"] == 0
    assert quality("yes", "yes")["confident, of the unanswerable"] == 1


def test_an_auditor_s_descriptions_must_add_and_keep():
    scene = Scene("mint", (Thing("cup", "purple", "small", 0), Thing("star", "red", "large", 8)))
    new = noun_phrase(Thing("cow", "black", "large", 4))
    assert accuracy.adds(scene, f"{caption(scene)}, {new}")
    assert not accuracy.adds(scene, caption(scene)) and not accuracy.adds(scene, f"on mint: {new}")
    assert not accuracy.adds(scene, "once upon a time")


def test_a_share_has_wilson_s_interval_and_none_of_nothing():
    row = accuracy.share("x", [True] * 9 + [False])
    assert row["accuracy"] == 0.9 and row["ci_low"] == pytest.approx(0.596, abs=0.001)
    assert math.isnan(accuracy.share("x", [])["accuracy"])
