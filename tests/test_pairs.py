"""A pair is one unit: flips, what survives another drawing, and what is the drawer's fault."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest
from scripted import replies_by

from auditdm_lib.audit import counterfactuals
from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.auditor import BOTH, Search
from auditdm_lib.audit.checking import NOT_FOLLOWED, checked
from auditdm_lib.audit.counterfactuals import UNDRAWN, draw, exact
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.pairs import (
    COLUMNS,
    DRAWN,
    EXACT,
    ORIGINAL,
    OTHER_SEED,
    RE_ENCODED,
    drawer_fault,
    flips,
    survival,
    versions,
)
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import Pictures, load_pictures, save_drawn, save_pictures
from auditdm_lib.audit.probes import make_probes, pairing_table
from auditdm_lib.testbed.language import sample_edit
from auditdm_lib.testbed.render import render

MEMBERS = ["target", "reference_1", "reference_2"]
QUESTION = "how many things are there?"
N = 12


def row(probe, version, target, references, kind="edit", reason=None, disagrees=False, picture=None):
    return dict(probe_id=probe, auditor="trained", kind=kind, source_image=picture or probe, question="?", version=version,
                image="x", target_answer="a", reference_answers=["a", "a"], consensus="a", disagrees=disagrees, truth="a",
                picture_reason=reason, target_right=target, references_right=references, consensus_right=True)


def pair(probe, before, after, **more):
    """The two versions of a probe; `before` and `after` say who is right: target, reference 1, reference 2."""
    original = row(probe, ORIGINAL, before[0], before[1:], kind=more.get("kind", "edit"), picture=more.get("picture"))
    return [original, row(probe, DRAWN, after[0], after[1:], **more)]


T, F = True, False


def test_a_flip_is_right_before_and_wrong_after_while_all_others_are_right_on_both():
    table = pd.DataFrame([
        *pair("a", [T, T, T], [F, T, T]), *pair("b", [T, T, T], [F, T, T]), *pair("c", [T, T, T], [T, T, T]),
        *pair("d", [F, T, T], [T, T, T]), *pair("e", [F, T, T], [F, T, T]),
        *pair("f", [T, T, F], [F, T, T]),  # a reference was wrong: no pair of the target's
        *pair("g", [T, T, T], [F, T, T], reason="missing thing"),  # the picture does not show its text
        *pair("h", [T, T, T], [None, T, T]),  # no answer
        *pair("i", [T, T, T], [T, F, T], kind="regeneration")])
    found = flips(table, MEMBERS).set_index(["kind", "member"])
    target = found.loc[("all", "target")]
    assert target[["pairs", "n_right_right", "n_right_wrong", "n_wrong_right", "n_wrong_wrong"]].tolist() == [5, 1, 2, 1, 1]
    assert target["flips"] == pytest.approx(2 / 3) and 0 < target["ci_low"] < 2 / 3 < target["ci_high"] < 1
    assert target["p"] == pytest.approx(binomtest(2, 3).pvalue)
    first = found.loc[("regeneration", "reference_1")]
    assert (first["pairs"], first["n_right_wrong"], first["flips"], first["p"]) == (1, 1, 1, 1.0)
    assert found.loc[("regeneration", "target"), "pairs"] == 0 and found.loc[("regeneration", "target"), "p"] == 1.0
    assert set(found.index.get_level_values("kind")) == {"all", "edit", "regeneration"}


def test_an_interval_of_flips_knows_which_pairs_share_a_picture():
    def table(pictures):
        return pd.DataFrame([one for i in range(40) for one in pair(f"p{i}", [T, T, T], [i % 4 > 1, T, T], picture=pictures(i))])
    apart, together = (flips(table(pictures), MEMBERS).iloc[0] for pictures in (lambda i: f"{i}", lambda i: f"{i % 4}"))
    assert apart["flips"] == together["flips"] == 0.5
    assert together["ci_high"] - together["ci_low"] > 1.5 * (apart["ci_high"] - apart["ci_low"])


def test_flips_come_back_from_a_file_as_they_were(tmp_path):
    table = pd.DataFrame([*pair("a", [T, T, T], [F, T, T]), *pair("b", [T, None, T], [F, T, T])])
    table.to_parquet(tmp_path / "versions.parquet", index=False)
    assert flips(pd.read_parquet(tmp_path / "versions.parquet"), MEMBERS).equals(flips(table, MEMBERS))


def test_survival_counts_what_disagrees_again_among_pictures_that_pass():
    table = pd.DataFrame([row("a", OTHER_SEED, F, [T, T], disagrees=True), row("b", OTHER_SEED, T, [T, T]),
                          row("c", OTHER_SEED, None, None, reason="missing thing", disagrees=True),
                          row("d", OTHER_SEED, None, None) | dict(target_answer=None),  # was not asked, or has not ended
                          row("a", RE_ENCODED, F, [T, T], disagrees=True)])
    found = survival(table).set_index(["version", "kind"])
    other = found.loc[(OTHER_SEED, "all")]
    assert other[["disagreements", "rejected", "asked", "survived", "survival"]].tolist() == [4, 1, 2, 1, 0.5]
    assert found.loc[(RE_ENCODED, "edit"), "survival"] == 1 and found.loc[(RE_ENCODED, "edit"), "ci_low"] < 1


def test_the_drawers_fault_is_the_success_that_the_check_takes_away():
    table = pd.DataFrame([
        row("a", DRAWN, F, [T, T], disagrees=True), row("a", EXACT, F, [T, T], disagrees=True),
        row("b", DRAWN, F, [T, T], disagrees=True, reason="missing thing"), row("b", EXACT, T, [T, T]),
        row("c", DRAWN, F, [F, F]), row("c", EXACT, F, [T, T], disagrees=True),
        row("d", DRAWN, F, [T, T], disagrees=True, reason=NOT_FOLLOWED), row("d", EXACT, None, None, reason=NOT_FOLLOWED)])
    probes = pd.DataFrame(dict(probe_id=list("abcd"), valid=[True, False, True, False]))
    found = drawer_fault(probes, table).set_index(["kind", "measure"])[["n", "successes"]]
    counts = {"disagrees": (4, 3), "unchecked": (4, 3), "checked": (4, 1), "exact": (4, 2), "fault": (3, 2)}
    assert {name: tuple(found.loc[("all", name)]) for name in counts} == counts


def test_nothing_to_count_is_no_fault_of_these_tables():
    none = pd.DataFrame(columns=COLUMNS)
    assert flips(none, MEMBERS).empty and survival(none).empty
    assert drawer_fault(pd.DataFrame(columns=["probe_id", "valid"]), none).empty


@pytest.fixture
def pipeline(monkeypatch):
    """A stand-in for pipelines: even pictures come out exactly, odd ones blank; and none by another seed for picture 0.

    And for the scene reader, which takes nothing but the renderer's own picture for right."""
    pictures, seeds = load_pictures("testbed", N, 3, split="probe"), []

    def draw_pictures(drawing, images, names, kinds, texts, seed, store, desc=None):
        seeds.append(seed)
        new, place = [], {name: i for i, name in enumerate(pictures.names)}
        for name, kind, text in zip(names, kinds, texts, strict=True):
            i = place[name]
            scene = pictures.truth.take([i]).told([kind], [text])[0].scenes[0] if text is not None else None
            blank = Image.new("RGB", (48, 48), "white")
            new.append(None if text is None or (seed != 0 and i == 0) else render(scene) if scene and i % 2 == 0 else blank)
        return new, [None] * len(new)

    def differences(images, scenes):
        return [None if image.tobytes() == render(scene).tobytes() else "missing thing"
                for image, scene in zip(images, scenes, strict=True)]
    monkeypatch.setattr(counterfactuals, "draw_pictures", draw_pictures)
    monkeypatch.setitem(sys.modules, "auditdm_lib.testbed.reader", SimpleNamespace(differences=differences))
    return pictures


def panel_of(monkeypatch, pictures):
    """References that say "two", and a target that says "two" to the originals and "nine" to anything else."""
    old = {image.tobytes() for image in pictures.images}
    calls = []

    def answer(member, images, questions):
        calls.append(len(questions))
        return ["nine" if member.name == "target" and image.tobytes() not in old else "two" for image in images]
    monkeypatch.setattr(panels, "replies", replies_by(answer))
    member = {name: SimpleNamespace(name=name) for name in MEMBERS}
    return Panel(member["target"], [member["reference_1"], member["reference_2"]]), calls


def arm(panel, pictures, drawing, folder, texts, names):
    """Probes about pictures that were drawn from `texts`, as `arms.auditor_arm` makes them."""
    kinds = ["question" if text is None else "edit" for text in texts]
    drawn, undrawn = draw(drawing, pictures, kinds, texts, 0)
    table = pd.DataFrame(dict(kind=kinds, pairing=BOTH, caption=None, edit=texts, question=QUESTION, invalid_reason=undrawn),
                         dtype=object)
    check = checked(drawing, pictures, drawn, kinds, texts)
    files = save_drawn(drawn, pictures, names, folder, "trained")
    return check.pictures, make_probes(panel, check.pictures, "trained", table, 0, names, files, check.reasons, check.verdicts)


def search_of(drawing):
    return Search({}, {}, dict(question=0.0, regeneration=0.0, edit=1.0), 1.0, drawing)


def test_each_drawn_probe_is_asked_about_the_original_and_the_exact_picture_and_failures_again(pipeline, monkeypatch, tmp_path):
    panel, calls = panel_of(monkeypatch, pipeline)
    names = save_pictures(pipeline, tmp_path / "images")
    texts = [sample_edit(scene, random.Random(i))[0] for i, scene in enumerate(pipeline.truth.scenes)]
    texts[2], texts[4] = "make it nicer", None
    drawing = Drawing("diffusion")
    drawn, made = arm(panel, pipeline, drawing, tmp_path / "images", texts, names)
    calls.clear()
    table = versions(panel, pipeline, [(drawn, made)], search_of(drawing), exact("testbed"), tmp_path / "images")
    assert len(calls) == len(MEMBERS) and list(table) == COLUMNS  # one call of each member
    counts = table["version"].value_counts().to_dict()
    accepted = made["valid"] & made["disagrees"] & (made["image"] != made["source_image"])
    assert counts[ORIGINAL] == counts[DRAWN] == counts[EXACT] == N - 1
    assert counts[OTHER_SEED] == counts[RE_ENCODED] == accepted.sum() > 2
    by = table.set_index(["probe_id", "version"])
    first, refused, lost = (f"trained-0-{i:05d}" for i in (0, 2, 1))
    assert by.loc[(first, OTHER_SEED), "picture_reason"] == UNDRAWN and pd.isna(by.loc[(first, OTHER_SEED), "image"])
    assert by.loc[(refused, DRAWN), "picture_reason"] == by.loc[(refused, EXACT), "picture_reason"] == NOT_FOLLOWED
    assert by.loc[(lost, DRAWN), "picture_reason"] == "missing thing" and by.loc[(lost, EXACT), "picture_reason"] is None
    assert by.loc[(lost, EXACT), "target_answer"] == "nine" and by.loc[(lost, ORIGINAL), "target_answer"] == "two"
    assert by.loc[(refused, DRAWN), "target_right"] is False  # nothing is known, so the consensus counts
    for name in table["image"].dropna():
        assert (tmp_path / name).is_file(), name
    known = table["truth"].notna() & table["target_answer"].notna()
    assert (table.loc[known, "target_right"] == (table.loc[known, "target_answer"] == table.loc[known, "truth"])).all()
    drawn_rows = table[table["version"] == DRAWN].merge(made, on="probe_id", suffixes=("", "_made"))
    assert (drawn_rows["target_answer"] == drawn_rows["target_answer_made"]).all()
    table.to_parquet(tmp_path / "versions.parquet", index=False)
    again = pd.read_parquet(tmp_path / "versions.parquet")
    assert flips(again, MEMBERS).equals(flips(table, MEMBERS)) and survival(again).equals(survival(table))
    assert drawer_fault(made, again).equals(drawer_fault(made, table)) and set(drawer_fault(made, table)["measure"]) == {
        "disagrees", "unchecked", "checked", "exact", "fault"}


def test_the_renderer_has_no_other_seed_and_no_exact_twin(pipeline, monkeypatch, tmp_path):
    panel, _ = panel_of(monkeypatch, pipeline)
    names = save_pictures(pipeline, tmp_path / "images")
    texts = [sample_edit(scene, random.Random(i))[0] for i, scene in enumerate(pipeline.truth.scenes)]
    drawn, made = arm(panel, pipeline, Drawing("renderer"), tmp_path / "images", texts, names)
    table = versions(panel, pipeline, [(drawn, made)], search_of(Drawing("renderer")), exact("testbed"), tmp_path / "images")
    assert set(table["version"]) == {ORIGINAL, DRAWN, RE_ENCODED} and made["picture_reason"].isna().all()
    fault = drawer_fault(made, table).set_index(["kind", "measure"])["successes"]
    assert fault[("all", "unchecked")] == fault[("all", "checked")] and fault[("all", "fault")] == 0


def test_without_a_truth_right_is_what_the_references_agree_on(pipeline, monkeypatch, tmp_path):
    panel, _ = panel_of(monkeypatch, pipeline)
    photographs = Pictures(pipeline.names, pipeline.images)
    names = save_pictures(photographs, tmp_path / "images")
    drawing = Drawing("diffusion")
    drawn, made = arm(panel, photographs, drawing, tmp_path / "images", ["make it nicer"] * N, names)
    assert made["valid"].all() and made["verified_failure"].isna().all() and made["disagrees"].all()
    table = versions(panel, photographs, [(drawn, made)], search_of(drawing), exact("photographs"), tmp_path / "images")
    assert set(table["version"]) == {ORIGINAL, DRAWN, OTHER_SEED, RE_ENCODED} and table["consensus_right"].isna().all()
    found = flips(table, MEMBERS).set_index(["kind", "member"])
    assert found.loc[("all", "target"), "flips"] == 1 and found.loc[("all", "reference_1"), "pairs"] == 0
    assert found.loc[("all", "target"), "p"] < 0.01
    seeds = survival(table).set_index(["version", "kind"])
    assert seeds.loc[(OTHER_SEED, "all"), "rejected"] == 1 and seeds.loc[(OTHER_SEED, "all"), "survival"] == 1
    assert pairing_table(made)["success"].isna().all() and pairing_table(made)["attempts"].tolist() == [N]


@pytest.mark.parametrize("texts", [[None] * N, ["make it nicer"] * N])
def test_where_nothing_is_drawn_nothing_is_asked(pipeline, monkeypatch, tmp_path, texts):
    panel, calls = panel_of(monkeypatch, pipeline)
    names = save_pictures(pipeline, tmp_path / "images")
    drawn, made = arm(panel, pipeline, Drawing("renderer"), tmp_path / "images", texts, names)
    calls.clear()
    stored = sorted((tmp_path / "images").iterdir())
    for arms in ([(drawn, made)], []):
        table = versions(panel, pipeline, arms, search_of(Drawing("renderer")), exact("testbed"), tmp_path / "images")
        assert table.empty and list(table) == COLUMNS and not calls
    assert sorted((tmp_path / "images").iterdir()) == stored


def test_one_drawn_picture_is_enough(pipeline, monkeypatch, tmp_path):
    panel, _ = panel_of(monkeypatch, pipeline)
    one = pipeline.take([2])
    names = save_pictures(one, tmp_path / "images")
    text = sample_edit(one.truth.scenes[0], random.Random(0))[0]
    drawn, made = arm(panel, one, Drawing("diffusion"), tmp_path / "images", [text], names)
    table = versions(panel, one, [(drawn, made)], search_of(Drawing("diffusion")), exact("testbed"), tmp_path / "images")
    assert len(flips(table, MEMBERS)) == 6 and np.isfinite(flips(table, MEMBERS)["p"]).all()
    assert {ORIGINAL, DRAWN, EXACT} <= set(table["version"])
