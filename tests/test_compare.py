"""Two audits side by side, and the gate: on made-up runs whose targets answer by a rule."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from scripted import replies_by

from auditdm_lib import paths
from auditdm_lib.audit import panel as panels
from auditdm_lib.results import rectification_cells
from auditdm_lib.run import chain, manifest, stage
from auditdm_lib.taxonomy import cluster, compare, gate

CONTROL, SEEN = "what is shown?", "a thing"
CATALOGUE = ["colour", "count", "clock", "place", "shape"]  # the skills, one type each


def question(skill):
    return f"what {skill} is it?"


def name(skill):
    return f"{skill}: said as [bold]nothing"


def answer(fails, asked, i):
    """The answer of a target that fails on `fails` {skill: the pictures, or True for all; None: it says nothing at all}."""
    skill = asked.split()[1]
    found = fails.get("control" if asked == CONTROL else skill, ())
    if found is None:
        raise RuntimeError("out of memory")
    wrong = found is True or i in found
    return "nothing" if wrong else SEEN if asked == CONTROL else f"{skill} {i}"


def fresh_rows(fails, skills, pictures, **cells):
    """fresh.parquet of a run: every type is asked about every picture."""
    rows = []
    for category, skill in enumerate(skills):
        for i in pictures:
            said, right = answer(fails, question(skill), i), f"{skill} {i}"
            rows.append(dict(
                probe_id=f"{skill}-{i:03d}", category=category, made_by="template", picture=f"p{i}", image=f"fresh/{i:03d}.png",
                question=question(skill), target_answer=said, reference_answers=[right, right], agreed=right,
                target_odd=said != right, references_odd=[False, False], control_question=CONTROL, control_agreed=SEEN,
                control_target_answer=SEEN, saw=True, truth=None) | cells)
    return pd.DataFrame(rows)


def confirmation(skills, verdicts):
    return pd.DataFrame(dict(category=range(len(skills)), name=[name(skill) for skill in skills], skill=skills,
                             verdict=[verdicts.get(skill, "confirmed") for skill in skills]))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that writes a finished stage 03 of a run whose target fails on `fails`; nothing but its own tables is real."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "HOME", tmp_path)
    rules, asked = {}, []

    def says(member, images, questions):
        asked.append((member.name, len(questions)))
        return [answer(rules[member.name], text, picture.getpixel((0, 0))[0])
                for text, picture in zip(questions, images, strict=True)]

    monkeypatch.setattr(panels, "replies", replies_by(says))
    monkeypatch.setattr(compare, "load_members", lambda target, *_: [SimpleNamespace(name=target)])

    def make(run, fails, skills=("colour", "count"), pictures=range(30), verdicts=None, change=lambda fresh: fresh, old=0,
             **parameters):
        target, folder = tmp_path / f"{run}-model", tmp_path / "runs" / run / "03_taxonomy"
        for place in (target, folder / "fresh", folder / "regression" / "images"):
            place.mkdir(parents=True)
        (target / "weights").write_text(run)
        rules[str(target)] = fails
        for i in pictures:
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / "fresh" / f"{i:03d}.png")
        fresh, table = change(fresh_rows(fails, skills, pictures)), confirmation(skills, verdicts or {})
        fresh.to_parquet(folder / "fresh.parquet")
        table.to_parquet(folder / "confirmation.parquet")
        items = fresh[fresh["target_odd"] & fresh["category"].isin(table.loc[table["verdict"] == "confirmed", "category"])]
        items = pd.DataFrame(dict(item=items["probe_id"], category=items["category"], question=items["question"],
                                  name=items["category"].map(table["name"]), answer=items["agreed"],
                                  image=[f"images/{name.split('/')[1]}" for name in items["image"]]))
        for image in items["image"]:
            shutil.copy(folder / "fresh" / image.split("/")[1], folder / "regression" / image)
        items.to_parquet(folder / "regression" / "items.parquet")
        values = dict(run=run, target=str(target), references=["one", "two"], answer_prompts=[], answer_tokens=[],
                      answer_batch=8, judge_model="", pictures="testbed", threads=1) | parameters
        record = {"key": {"parameters": values, "inputs": {f"target: {target}": stage.input_hash(str(target), "model")}}}
        manifest.write(folder, record, {"wall_seconds": 1})
        return folder
    make.asked, make.rules = asked, rules
    return make


def table_of(a="a", b="b", **how):
    first, second = compare.read(a), compare.read(b)
    *targets, llm = compare.load_targets(first, second)
    return compare.compare(first, second, tuple(targets), llm, **how).set_index("skill")


def test_types_are_fixed_unchanged_or_newly_broken_with_rates_and_intervals(made):
    made("a", {"colour": True, "count": True}, pictures=range(30))
    made("b", {"count": True, "clock": True}, ("count", "clock"), pictures=range(30, 60))
    table = table_of()
    assert table["verdict"].to_dict() == {"colour": "fixed", "count": "unchanged", "clock": "newly broken"}
    assert table["probes"].to_dict() == {"colour": 30, "count": 60, "clock": 30}  # a type of both runs is asked by both's probes
    assert table[["in_a", "in_b"]].notna().all(axis=1).to_dict() == {"colour": False, "count": True, "clock": False}
    row = table.loc["colour"]
    assert (row["rate_a"], row["rate_b"], row["change"]) == (1, 0, -1) and row["low_a"] > 0.85 and row["high_b"] < 0.15
    assert row["change_low"] <= -1 < row["change_high"] < -0.8 and row["q_value"] >= row["p_value"] and row["p_value"] < 1e-6
    assert table["needed"].isna().all() and list(table.reset_index().columns) == compare.COLUMNS


def test_a_targets_own_answers_are_not_asked_again(made):
    made("a", {"colour": True}, ("colour",), range(20))
    made("b", {}, ("clock",), range(20, 30))
    table_of()
    (first, n), (second, m) = made.asked
    assert first.endswith("a-model") and n == 2 * 10 and second.endswith("b-model") and m == 2 * 20  # with the easy questions


def test_a_run_against_itself_is_unchanged_and_passes_the_gate(made, capsys):
    made("a", {"colour": True, "count": range(0, 30, 3)})
    assert set(table_of("a", "a")["verdict"]) == {"unchanged"} and made.asked == []
    assert gate.gate("a", "a") == gate.PASSED
    assert "PASSED" in capsys.readouterr().out


def test_a_picture_counts_once_in_a_type_whatever_it_is_called(made):
    made("a", {"colour": True}, ("colour",), range(20))
    made("b", {"colour": True}, ("colour",), range(10, 25), change=lambda fresh: fresh.assign(
        picture="x", probe_id=[f"other {i}" for i in range(15)]))
    assert table_of().loc["colour", "probes"] == 25


def test_types_of_two_runs_are_the_same_where_their_failures_are_whatever_they_are_called(made):
    def audit(texts, names):
        rows = pd.DataFrame(texts, columns=["question", "consensus", "target_answer"])
        members = cluster.cluster(rows)
        types = members.drop_duplicates("category")[["category", "skill"]].sort_values("category")
        types = types.assign(name=names, verdict="confirmed")
        return compare.Audit("run", None, {"skills": "", "encoder": ""}, types, None, members)
    nouns = ("cup", "star", "sun", "flag")
    a = audit([(f"what colour is the {noun}?", "purple", "blue") for noun in nouns], ["theirs"])
    b = audit([(f"which colour has the {noun}?", "purple", "blue") for noun in nouns] * 2
              + [("how many things are there?", "four", "two")] * 3, ["ours", "theirs"])
    b = compare.aligned(a, replace(b, types=b.types.assign(skill=["elsewhere", "colour"])))
    assert b.types["name"].tolist() == ["theirs", "theirs (another type of the second run)"]
    assert b.types["skill"].tolist() == ["colour", "colour"]
    assert compare.shared_types(a, b)["in_b"].tolist() == ["confirmed"] * 2


def test_rows_in_another_order_give_the_same_table(made):
    made("a", {"colour": range(9), "count": True})
    made("b", {"count": range(20)}, pictures=range(10, 40))
    made("c", {"count": range(20)}, pictures=range(10, 40), change=lambda fresh: fresh.iloc[::-1])
    assert table_of("a", "b").equals(table_of("a", "c"))


def test_what_the_references_do_not_agree_on_does_not_count(made):
    def split(fresh):
        odd = [[i % 3 == 0, False] for i in range(len(fresh))]
        return fresh.assign(references_odd=odd, agreed=fresh["agreed"].where(fresh.index != 1))
    made("a", {"colour": True}, ("colour",), change=split)
    made("b", {}, ("colour",), range(30, 31))
    assert table_of().loc["colour", "probes"] == 30 - 10 - 1 + 1


def test_a_target_that_does_not_see_or_does_not_answer_has_not_failed(made):
    made("a", {"colour": True}, ("colour",), change=lambda fresh: fresh.assign(
        saw=[False, None] + [True] * 28, target_answer=fresh["target_answer"].where(fresh.index != 2)))
    made("b", {"control": range(5, 10)}, ("clock",), range(30, 40))
    row = table_of().loc["colour"]
    assert (row["probes"], row["not_seen"], row["unanswered"]) == (30 - 1 - 5 - 1, 6, 1)
    assert row["verdict"] == "fixed" and row["wrong_a"] == row["probes"]


def test_a_blind_target_is_undecided_and_a_broken_one_gives_no_verdict(made, monkeypatch):
    made("a", {"colour": True}, ("colour",))
    made("blind", {"control": True, "colour": True}, ("clock",), range(30, 40), {"clock": "not confirmed"})
    made("broken", {"colour": None, "control": None}, ("clock",), range(30, 40))
    row = table_of("a", "blind").loc["colour"]
    assert (row["probes"], row["not_seen"], row["verdict"]) == (0, 30, "underpowered") and pd.isna(row["needed"])
    assert gate.gate("blind", "a") == gate.UNDECIDED
    monkeypatch.setattr(sys, "argv", ["gate", "broken", "a"])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == gate.UNUSABLE


def test_few_probes_are_underpowered_and_half_a_change_is_not_called_fixed(made):
    made("a", {"colour": range(4), "count": True, "clock": range(10), "place": True}, ("colour", "count", "clock", "place"),
         change=lambda fresh: fresh[(fresh["category"] > 0) | (fresh.index < 5)])
    made("b", {"count": range(18), "clock": True}, ("shape",), range(30, 31), {"shape": "not confirmed"})
    table = table_of()
    assert table["verdict"].to_dict() == dict(colour="underpowered", count="better", clock="newly broken", place="fixed")
    assert table.loc["colour", "probes"] == 5 < table.loc["colour", "needed"] < 20
    half = np.arange(30) < 16, np.ones(30, bool)
    assert compare.verdict(*half, 0.001) == "worse" and compare.verdict(*half[::-1], 0.001) == "better"


def test_changes_are_corrected_for_the_number_of_types():
    same, lost = np.zeros(40, bool), np.arange(40) < 6  # p = 0.03
    types = pd.DataFrame(dict(skill=[f"s{i}" for i in range(20)], name="n", in_a="confirmed", in_b=None))
    rows = [pd.DataFrame(dict(skill=skill, name="n", answer_a="x", answer_b="x", saw_a=True, saw_b=True, wrong_a=same,
                              wrong_b=lost if i == 0 else same)) for i, skill in enumerate(types["skill"])]
    table = compare.compared(types, pd.concat(rows, ignore_index=True))
    assert table["p_value"].iloc[0] < 0.05 < table["q_value"].iloc[0] and "newly broken" not in set(table["verdict"])
    alone = compare.compared(types[:1], rows[0])
    assert alone["verdict"].tolist() == ["newly broken"]


@pytest.mark.parametrize(("rate", "to", "said"), [(0.9, 0.5, "better"), (0.4, 0.05, "fixed"), (0.6, 0.6, "unchanged")])
def test_the_number_of_probes_that_is_named_decides_four_times_in_five(rate, to, said):
    """Of targets that err independently; 600 simulations have a standard error of 0.016."""
    rng = np.random.default_rng(7)
    n = compare.deciding(rate * (1 - to), to * (1 - rate), max(rate, to) / 2)
    verdicts = [compare.verdict(a, b, compare.stats.mcnemar_p(a, b)) for _ in range(600)
                for a, b in [(rng.random(n) < rate, rng.random(n) < to)]]
    assert 0.74 <= 1 - verdicts.count("underpowered") / 600 <= 0.95
    assert max(set(verdicts), key=verdicts.count) == said
    few = rng.random((2, 8)) < [[rate], [to]]
    assert compare.needed(*few) > 8


def test_no_type_of_an_unchanged_target_is_called_changed():
    """100 pairs of runs of six types, both targets with the same error rates and errors by chance: at most five with a change."""
    rng, any_change = np.random.default_rng(0), 0
    types = pd.DataFrame(dict(skill=[f"s{i}" for i in range(6)], name="n", in_a="confirmed", in_b="confirmed"))
    for _ in range(100):
        rows = []
        for skill in types["skill"]:
            rate, n = rng.uniform(0.1, 0.95), int(rng.integers(5, 60))
            rows.append(pd.DataFrame(dict(skill=skill, name="n", answer_a="x", answer_b="x", saw_a=True, saw_b=True,
                                          wrong_a=rng.random(n) < rate, wrong_b=rng.random(n) < rate)))
        table = compare.compared(types, pd.concat(rows, ignore_index=True))
        any_change += bool(set(table["verdict"]) - {"unchanged", "underpowered"})
    assert any_change <= 5


@pytest.fixture
def gated(made, capsys):
    """A function that runs the gate and gives its exit code and what it printed."""
    def run(*words):
        code = gate.gate(*words)
        return code, capsys.readouterr().out
    return run


def test_the_gate_fails_on_a_newly_broken_type_and_names_it_with_numbers(made, gated):
    made("old", {"colour": True}, ("colour",))
    made("new", {"clock": True, "colour": True}, ("colour", "clock"))
    code, said = gated("new", "old")
    assert code == gate.FAILED and "FAILED: the target of new fails where that of old does not." in said
    assert f"Newly broken: {name('clock')}. Of 30 fresh probes 30 are wrong (100 %), before 0 (0 %); change +100 points," in said
    code, said = gated("old", "new")
    assert code == gate.PASSED and "1 of 2 types are fixed." in said and "has 30 of 60 items right" in said


def test_a_weakness_that_both_targets_have_is_not_new_though_only_one_audit_found_it(made, gated):
    made("old", {"colour": True, "clock": True}, ("colour",))
    made("new", {"colour": True, "clock": True}, ("colour", "clock"))
    code, said = gated("new", "old")
    assert code == gate.PASSED and f"Found now, but not new: {name('clock')}" in said


def test_the_gate_is_undecided_where_there_are_too_few_probes(made, gated):
    made("old", {"colour": True}, ("colour",))
    made("new", {"clock": True, "colour": True}, ("colour", "clock"), range(4), {"clock": "underpowered"})
    code, said = gated("new", "old")
    assert code == gate.UNDECIDED and f"Undecided: {name('clock')}; wrong are 0 before and 4 now of 4, and it would take" in said
    assert "underpowered" not in set(table_of("old", "new")["verdict"])  # `diff` shows confirmed types alone
    made("older", {"colour": True}, ("colour", "clock"), verdicts={"clock": "underpowered"})
    assert gated("new", "older")[0] == gate.PASSED  # the older audit suspected the same


def test_an_item_of_a_regression_set_that_was_mended_and_fails_again_fails_the_gate(made, gated):
    made("first", {"colour": range(12)}, ("colour",))
    made("mended", {"count": True}, ("count",))
    made("relapsed", {"count": True, "colour": range(1)}, ("count",))
    code, said = gated("relapsed", "mended")
    assert code == gate.PASSED and "has 0 of 30 items right" in said  # the older run's own set says nothing about colours
    code, said = gated("relapsed", "mended", ("first",))
    assert code == gate.FAILED and f"Newly wrong, {name('colour')}: asked “what colour is it?”, it now says “nothing”" in said
    assert "has 11 of 42 items right (26 %, 95 % interval" in said
    assert gated("mended", "relapsed", ("first",))[0] == gate.PASSED


def test_an_item_without_an_answer_leaves_the_gate_undecided(made, gated):
    made("old", {"colour": range(8)}, ("colour",))
    made("new", {"colour": range(8)}, ("colour",))
    made.rules[str(paths.HOME / "new-model")] = Silent()
    with pytest.warns(match="1 answers of the new target are missing because it raised an error: RuntimeError: out of memory"):
        code, said = gated("new", "old")
    assert code == gate.UNDECIDED and "Undecided: to 1 items of the regression set a target gave no answer." in said


class Silent(dict):
    """A target's rule: it fails on eight colours and runs out of memory on picture 3."""

    def get(self, skill, *_):
        return {"colour": Pictures()}.get(skill, ())


class Pictures:
    def __contains__(self, i):
        if i == 3:
            raise RuntimeError("out of memory")
        return i < 8


@pytest.mark.parametrize(("words", "code"), [
    (["gate"], 3), (["gate", "a", "--against"], 3), (["gate", "a", "--against", "b", "--bad"], 3), (["diff", "a"], 2),
    (["gate", "a", "--against", "b"], 3), (["diff", "a", "b"], 1)])
def test_wrong_use_and_a_missing_run_are_no_verdict_of_the_gate(words, code):
    assert CliRunner().invoke(chain.main, words).exit_code == code


@pytest.mark.parametrize("reads", [compare.read, gate.regression_set, rectification_cells.read])
def test_of_a_run_that_is_not_there_the_runs_that_are_there_are_told(reads, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(manifest.NotRun, match="There is no run 'nosuch'; none has been made yet.$"):
        reads("nosuch")
    for name in ("one", "two"):
        (tmp_path / name / compare.FOLDER).mkdir(parents=True)
    (tmp_path / "begun").mkdir()
    with pytest.raises(manifest.NotRun, match="There is no run 'nosuch'; there are one, two.$"):
        reads("nosuch")
    with pytest.raises(manifest.NotRun, match="has not been run yet"):
        reads("begun")


@pytest.mark.parametrize(("code", "shown"), [(0, 0), (1, 1), (2, 2), (3, 3), (-9, 3), (137, 3)])
def test_the_command_line_hands_on_verdicts_alone(code, shown, monkeypatch):
    monkeypatch.setattr(chain, "above", lambda *words: code if words[1:] == ("new", "old", "older") else 99)
    words = ["gate", "new", "--against", "old", "--regression", "older"]
    assert CliRunner().invoke(chain.main, words).exit_code == shown


def test_runs_that_cannot_be_compared_say_why_and_what_to_do(made):
    folder = made("a", {"colour": True})
    made("judged", {"colour": True}, judge_model="org/judge")
    made("sampled", {"colour": True}, answer_temperature=1.0)
    with pytest.raises(manifest.Stop, match="There is no run 'none'; there are a, judged, sampled"):
        compare.read("none")
    (paths.RUNS / "begun").mkdir()
    with pytest.raises(manifest.Stop, match="begun/03_taxonomy has not been run yet.*\nRun it with: .*--from 03"):
        compare.read("begun")
    with pytest.raises(manifest.Stop, match="The members of run sampled sampled their answers.*answer_temperature 0"):
        compare.read("sampled")
    with pytest.raises(manifest.Stop, match="Run a compares answers by the normalised match and run judged by org/judge"):
        compare.load_targets(compare.read("a"), compare.read("judged"))
    (paths.HOME / "a-model" / "weights").write_text("trained on")
    with pytest.raises(manifest.Stop, match="target of run a .*no longer the model that was audited"):
        compare.read("a")
    shutil.rmtree(paths.HOME / "a-model")
    with pytest.raises(manifest.Stop, match="target of run a .*is gone"):
        compare.read("a")
    (folder / "fresh.parquet").write_bytes(b"")
    with pytest.raises(manifest.Damaged, match="fresh.parquet is damaged"):
        compare.read("a")


def test_a_run_without_confirmation_says_so_with_the_remedy(made):
    folder = made("a", {"colour": True})
    for file in ("fresh.parquet", "confirmation.parquet", "manifest.json"):
        (folder / file).unlink()
    manifest.write(folder, {"key": {"parameters": {"run": "a"}, "inputs": {}}}, {"wall_seconds": 1})
    with pytest.raises(manifest.Stop, match="Run a confirmed no failure type on.*with fresh_probes above 0, by .*--only 03"):
        compare.read("a")


def test_runs_of_which_neither_has_a_confirmed_type_are_compared_to_nothing(made, monkeypatch, capsys, tmp_path):
    empty = fresh_rows({"colour": True}, ("colour",), range(2))[:0]
    made("a", {}, ("colour",), (), {"colour": "not confirmed"}, change=lambda _: empty)
    made("b", {}, (), (), change=lambda _: empty)
    monkeypatch.setattr(sys, "argv", ["diff", "a", "b", str(tmp_path / "diff.csv")])
    compare.main()
    assert "Neither a nor b has a confirmed failure type, so there is nothing to compare." in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "diff.csv").columns.tolist() == compare.COLUMNS
    assert gate.gate("a", "b") == gate.UNUSABLE == 3  # what `auditdm gate --help` promises
    said = capsys.readouterr().out
    assert "NO VERDICT: neither run has a confirmed failure type and the regression set is empty, so nothing was comp" in said
    assert "PASSED" not in said


def test_a_run_in_which_no_failure_made_a_type_is_compared_with_one_that_has_a_type():
    members = cluster.cluster(pd.DataFrame([(f"what colour is the {noun}?", "purple", "blue") for noun in ("cup", "star", "sun")],
                                           columns=["question", "consensus", "target_answer"]))
    types = confirmation(["colour"], {}).astype({key: str for key in compare.KEY})
    fresh = fresh_rows({}, ("colour",), range(2))
    a = compare.Audit("a", None, {"skills": "", "encoder": ""}, types, fresh, members)
    b = replace(a, run="b", types=types[:0], fresh=fresh[:0], members=members[:0])
    table = compare.shared_types(a, compare.aligned(a, b))
    assert table["in_a"].tolist() == ["confirmed"] and table["in_b"].isna().all()
    assert compare.shared_types(b, compare.aligned(b, a))["in_b"].tolist() == ["confirmed"]
    assert compare.shared_probes(a, compare.aligned(a, b), table[:0]).empty  # where the type of `a` is not confirmed


def test_the_table_is_printed_as_it_is_and_written_for_a_spreadsheet(made, monkeypatch, capsys, tmp_path):
    made("a", {"colour": True})
    made("b", {}, pictures=range(30, 33), references=["three"], pictures_of="x")
    monkeypatch.setattr(sys, "argv", ["diff", str(tmp_path / "runs" / "a"), "b", str(tmp_path / "diff.csv")])
    compare.main()
    said = capsys.readouterr().out
    assert "[bold]nothing" in said and "100 [90, 100]" in said and "-100 [-1" in said
    assert "The runs have different references" in said
    assert len(pd.read_csv(tmp_path / "diff.csv")) == 2
