"""What figures, tables and the report say about drawn pictures: the rule of the pairs, the drawers side by side, and the rest."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.text import Text

from auditdm_lib import paths
from auditdm_lib.audit.pairs import DRAWN, EXACT, ORIGINAL
from auditdm_lib.results import artefacts, drawn, drawn_figures, figures, findings, tables
from auditdm_lib.run import manifest

PAPER = pd.read_csv(paths.PAPER_VALUES)

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


def said(figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text)]


def pair(probe, question="how many?", truths=("red", "red"), auditor="trained", kind="edit", reason=None,
         before=(True, [True, True]), after=(False, [True, True])):
    """The rows of versions.parquet of one probe; right answers are "red", wrong ones "blue"."""
    rows = []
    for version, truth, (target, references) in zip((ORIGINAL, DRAWN), truths, (before, after), strict=True):
        words = ["red" if right else "blue" for right in [target, *(references or [])]]
        rows.append(dict(probe_id=probe, auditor=auditor, kind=kind, source_image="images/00.png", question=question,
                         version=version, image="images/01.png", target_answer=words[0],
                         reference_answers=words[1:] if references else None, consensus="red", disagrees=not target, truth=truth,
                         picture_reason=reason if version == DRAWN else None, target_right=target, references_right=references,
                         consensus_right=True))
    return rows


def of_target(made, *columns):
    """Counts of the target's edited pairs, those of the trained auditor."""
    return made.flips.query("auditor == 'trained' and kind == 'edit' and member == 'target'").iloc[0][list(columns)].tolist()


def commands(versions):
    names = versions["probe_id"].unique()
    return pd.DataFrame(dict(probe_id=names, edit=[f"edit {name}" for name in names], caption=None, kind="edit"))


def test_pairs_are_shown_where_the_edit_is_of_nothing_that_the_question_is_about_and_then_for_different_questions():
    wrong = (False, [True, True])
    versions = pd.DataFrame([
        *pair("changed", truths=("red", "green")), *pair("other", "where?", auditor="prompt_only"), *pair("first"),
        *pair("again"), *pair("unknown", truths=(None, None)), *pair("rejected", reason="a thing is missing"),
        *pair("drawn", kind="regeneration"),
        *pair("mended", before=wrong, after=(True, [True, True])), *pair("both", before=wrong),
        *pair("shared", after=(False, [False, True])), *pair("unasked", after=(False, None)),
        *pair("unanswered", after=(None, [True, True]))])
    found = drawn_figures.flipped_pairs(versions, commands(versions), 0)
    assert found["probe_id"].tolist() == ["first", "other", "again", "changed"] and found["text"][0] == "edit first"
    assert found["target_answer"][0] == "red" and found["target_answer_new"][0] == "blue"
    assert len(drawn_figures.flipped_pairs(versions, commands(versions), 0, most=9)) == 5


def test_a_flip_of_the_sibling_is_its_alone():
    versions = pd.DataFrame([*pair("mine", after=(True, [False, True])), *pair("target"),
                             *pair("two", after=(True, [False, False]))])
    assert drawn_figures.flipped_pairs(versions, commands(versions), 1)["probe_id"].tolist() == ["mine"]
    assert drawn_figures.flipped_pairs(versions, commands(versions), 2).empty


def test_pairs_of_one_reference_and_of_none_answered_are_drawn(run):
    alone = pd.DataFrame([*pair("a", before=(True, [True]), after=(False, [True]))])
    assert drawn_figures.flipped_pairs(alone, commands(alone), 1).empty
    words = said(drawn_figures.fig_flips(alone, None, commands(alone), run.pictures))
    assert "“edit a”" in words and words.count("reference 1") == 1 and "reference 2" not in words and "✗ blue" in words
    none = pd.DataFrame([*pair("a", before=(True, None), after=(False, None))])
    assert said(drawn_figures.fig_flips(none, None, commands(none), run.pictures)).count("no such edit was found") == 2


def test_the_counts_of_flips_are_those_of_the_table_with_p(run):
    made = run.artefacts
    axis = next(a for a in drawn_figures.fig_flips(made.versions, made.flips, made.probes, run.pictures).axes if a.get_xlabel())
    flips, mended, n = of_target(made, "n_right_wrong", "n_wrong_right", "pairs")
    assert f"{flips} and {mended} of {n}, p < 0.001" in [t.get_text() for t in axis.texts]
    assert len(axis.patches) == 12  # two auditors, three members, two bars


def test_the_drawers_are_shown_on_accepted_and_rejected_pictures_of_each_kind(run):
    made = run.artefacts
    rows = drawn_figures.drawn_rows(made.versions, made.probes)
    assert len(rows) == 6 and set(rows["auditor"]) == {"trained"}
    assert set(zip(rows["kind"], rows["fails"], strict=True)) == {(k, f) for k in ("edit", "regeneration") for f in (True, False)}
    words = said(drawn_figures.fig_drawers(made.versions, made.probes, run.pictures))
    assert "renderer: exact" in words and "✓ accepted" in words and any(w.startswith("✗ rejected: a ") for w in words)
    undrawn = made.versions.assign(image=made.versions["image"].where(made.versions["version"] != EXACT, None))
    assert "not drawn" in said(drawn_figures.fig_drawers(undrawn, made.probes, run.pictures))
    without = made.versions[made.versions["version"] != EXACT]
    assert "renderer: exact" not in said(drawn_figures.fig_drawers(without, made.probes, run.pictures))


def test_nothing_drawn_is_said_and_no_figure_fails(run):
    made = run.artefacts
    assert "no picture was drawn" in said(drawn_figures.fig_drawers(made.versions.head(0), made.probes, run.pictures))
    empty = said(drawn_figures.fig_flips(made.versions.head(0), None, made.probes, run.pictures))
    assert "no edited picture was asked about" in empty
    bare = said(drawn_figures.fig_drawer_fault(None, made.probes.head(0).drop(columns="picture_reason")))
    assert {"no probe asks about a drawn picture", "no drawing was rejected"} <= set(bare)
    assert said(drawn_figures.fig_ablation(synthetic.ablation().head(0))).count("no gain was measured") == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["what is $x^2^3$?", "a\0b\rc", "שלום 漢字 \U0001f469\u200d\U0001f467", "x" * 3000,
                                  "word " * 500, "", "z" + "\u0301" * 300])
def test_figures_of_drawn_pictures_hold_whatever_models_write(run, tmp_path, text):
    made = run.artefacts
    odd, probes = made.versions.assign(question=text), made.probes.assign(caption=text, edit=text)
    odd["target_answer"], odd["reference_answers"] = text, [[text, None]] * len(odd)
    odd["picture_reason"] = odd["picture_reason"].where(odd["picture_reason"].isna(), text)
    for name, figure in [("a", drawn_figures.fig_flips(odd, made.flips, probes, run.pictures)),
                         ("b", drawn_figures.fig_drawers(odd, probes, run.pictures)),
                         ("c", drawn_figures.fig_drawer_fault(made.faults, probes.assign(
                             picture_reason=probes["picture_reason"].where(probes["picture_reason"].isna(), text))))]:
        figures.save(figure, tmp_path, name, "run 'x'")
    assert len(list(tmp_path.iterdir())) == 6


def test_reasons_are_counted_for_the_two_auditors_and_the_bars_are_those_of_the_table(run):
    made = run.artefacts
    more = pd.concat([made.probes, made.probes.assign(auditor="step_000020")])
    counts = drawn.reasons(drawn.drawings(more))
    assert counts.sum() == made.probes.loc[made.probes["auditor"] != "random", "picture_reason"].notna().sum() > 0
    left, right = drawn_figures.fig_drawer_fault(made.faults, more).axes
    heights = [patch.get_height() for patch in left.patches]
    wanted = made.faults[made.faults["measure"] == "checked"]["share"]
    assert heights[6:12] == pytest.approx(100 * wanted) and len(heights) == 18
    assert sorted(p.get_width() for p in right.patches) == sorted(counts)
    lost = drawn_figures.fig_drawer_fault(made.faults.assign(share=np.nan, ci_low=np.nan, ci_high=np.nan), more).axes[0]
    assert not lost.patches and [t.get_text() for t in lost.texts] == ["n/a"] * 18


def test_the_ablation_stands_beside_the_papers_gains_and_says_which_it_lacks():
    ours, paper = drawn_figures.fig_ablation(synthetic.ablation()).axes
    assert len(ours.patches) == 20 and len(paper.patches) == 10
    assert [t.get_text() for t in paper.texts].count("n/a") == 2
    assert [t.get_text() for t in paper.get_xticklabels()] == ["GQA", "RefCOCO", "AI2D"]


def test_the_tables_of_drawn_pictures_are_there_where_their_files_are(run):
    made = run.artefacts
    shown = tables.all_tables(made, PAPER)
    row = shown["table_flips"].query("auditor == 'trained' and kind == 'edit' and member == 'target'").iloc[0]
    both, flips = of_target(made, "n_right_right", "n_right_wrong")
    share = f"{100 * flips / (both + flips):.1f} ["
    assert row["right, then wrong"] == flips and row["flips % [95 % interval]"].startswith(share)
    assert {"table_survival", "table_drawer", "table_pairings"} < set(shown)
    none = run.altered(flips=None, survival=made.survival.head(0), faults=None, pairings=None)
    assert not {"table_flips", "table_survival", "table_drawer", "table_pairings"} & set(tables.all_tables(none, PAPER))


def test_the_findings_say_what_flipped_survived_and_was_rejected(run):
    made = run.artefacts
    words = " ".join(findings.pairs(made))
    flips, mended = of_target(made, "n_right_wrong", "n_wrong_right")
    assert f"wrong after it in {flips}, and the reverse in {mended}" in words
    assert "by another seed" in words and "as JPEG" in words
    lost = drawn.reasons(drawn.drawings(made.probes)).sum()
    words = " ".join(findings.drawings(made))
    assert f"{lost:,} (" in words and "a thing is missing: " in words and "share of the first that the check takes away" in words
    assert findings.drawings(run.altered(drawer="renderer")) == []
    assert findings.pairs(run.altered(flips=None, survival=None)) == []
    assert "Right is here what the references agree on." in findings.pairs(synthetic.unverified(run))


def test_tables_about_pairs_are_read_back_and_one_without_rows_counts_as_none(run, tmp_path):
    made, folder = run.artefacts, tmp_path
    made.failures.drop(columns=["category", "form"]).to_parquet(folder / "probes.parquet", index=False)
    made.failures[["probe_id", "category"]].to_parquet(folder / "failures.parquet", index=False)
    for name in ("history", "search", "flips", "survival", "faults"):
        getattr(made, name).to_csv(folder / f"{dict(faults='drawer').get(name, name)}.csv", index=False)
    for name in ("categories", "items", "versions"):
        getattr(made, name).to_parquet(folder / f"{name}.parquet", index=False)
    pd.DataFrame().to_csv(folder / "survival.csv", index=False)
    manifest.write(folder, {"key": {"parameters": {"drawer": "diffusion"}}}, {"wall_seconds": 1})
    read = artefacts.load(folder, folder, folder, folder)
    assert read.survival is None and read.pairings is None and read.drawer == "diffusion"
    assert read.flips.equals(made.flips) and len(read.versions) == len(made.versions)
    assert len(drawn_figures.flipped_pairs(read.versions, made.probes, 0)) == 4  # lists come back from parquet as arrays
