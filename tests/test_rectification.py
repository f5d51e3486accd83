"""Sets by arm at one budget, the sealed cells of a comparison, and what is concluded from them."""

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from auditdm_lib import paths, stats
from auditdm_lib.results import rectification, rectification_cells
from auditdm_lib.results.rectification_cells import CALLS, EXAMPLES, NOTHING, Cell, Run
from auditdm_lib.run import manifest
from auditdm_lib.stats import Estimate
from auditdm_lib.training import arms

SHIPPED = "auditdm_lib/testbed/checkpoints"


def probes(n: int = 60, wrong: float = 0.5) -> pd.DataFrame:
    """`n` probes of each auditor, of which a share `wrong` are failures; one in ten has no consensus, and in one in five the
    consensus is not the truth. Failure i of the trained auditor is of type i mod 3."""
    rng, rows = np.random.default_rng(0), []
    for auditor in ("random", "prompt_only", "trained"):
        for i in range(n):
            agreed, fails = i % 10 != 9, rng.random() < wrong
            rows.append(dict(probe_id=f"{auditor}-{i}", auditor=auditor, image=f"images/{i % 20:02d}.png",
                             question=f"what is {i} of {auditor}?", target_answer="red" if fails else "blue",
                             consensus="blue" if agreed else None, disagrees=agreed and fails, picture_reason=None,
                             invalid_reason=None, truth="green" if i % 5 == 0 else "blue"))
    return pd.DataFrame(rows)


def types_of(table: pd.DataFrame) -> pd.DataFrame:
    """A type for each failure of the trained auditor: type 0 holds most, types 1 and 2 two each."""
    failed = table.loc[table["disagrees"] & table["auditor"].eq("trained"), "probe_id"]
    return pd.DataFrame({"probe_id": failed, "category": [*[1, 1, 2, 2], *[0] * (len(failed) - 4)]})


def pools(table: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    table = probes() if table is None else table
    chance = pd.DataFrame(dict(image=[f"arms/by_chance/images/{i}.png" for i in range(30)], question="what is by chance?",
                               answer="blue", truth="blue", failure=True, category=-1, call=range(10, 310, 10)))
    return arms.pools(table, types_of(table), chance, "02_probes")


def test_the_sets_of_all_arms_are_equally_large_and_differ_only_in_where_their_examples_come_from():
    found = pools()
    sets = {arm: arms.of_size(found, arm, 20, seed=0) for arm in arms.ARMS}
    assert {arm: len(rows) for arm, rows in sets.items()} == dict.fromkeys(arms.ARMS, 20)
    assert {arm: int(sets[arm]["failure"].sum()) for arm in (arms.AUDITED, arms.CEILING, arms.BY_CHANCE)} == dict.fromkeys(
        (arms.AUDITED, arms.CEILING, arms.BY_CHANCE), 6)
    for arm, rows in sets.items():
        assert rows["answer"].notna().all() and not rows[["image", "question"]].duplicated().any()
        failed, rest = (rows[rows["failure"] == failure]["question"] for failure in (True, False))
        if arm in (arms.AUDITED, arms.CEILING):
            assert failed.str.endswith("of trained?").all()
            assert rest.str.endswith("of random?").any() and rest.str.endswith("of trained?").any()
        if arm == arms.DATASET:
            assert rows["question"].str.endswith("of random?").all()
    assert set(sets[arms.AUDITED]["answer"]) == {"blue"}  # the consensus, also where the truth is green
    taught = sets[arms.CEILING][sets[arms.CEILING]["failure"]]
    assert (taught["answer"] == taught["truth"]).all()


def test_failures_outside_the_confirmed_types_are_never_taught():
    table = probes()
    held = types_of(table).query("category == 1")
    found = arms.pools(table, held, pools()[arms.BY_CHANCE], "02_probes")
    assert set(found[arms.AUDITED]["question"]) == set(table.set_index("probe_id").loc[held["probe_id"], "question"])


def test_failures_are_spread_evenly_over_their_types_whatever_the_order_of_the_rows():
    found = pools()[arms.AUDITED]
    chosen = arms.spread(found, 6, seed=3)
    assert chosen["category"].value_counts().to_dict() == {0: 2, 1: 2, 2: 2}
    assert arms.spread(found, 8, 3)["category"].value_counts().to_dict() == {0: 4, 1: 2, 2: 2}  # those have no more
    pd.testing.assert_frame_equal(chosen, arms.spread(found.sample(frac=1, random_state=5), 6, 3))


def test_a_budget_of_calls_buys_the_failures_up_to_it_and_their_rehearsal():
    rows = arms.within_calls(pools(), arms.BY_CHANCE, calls=50, most=1000, seed=0)
    assert sorted(rows.loc[rows["failure"], "call"]) == [10, 20, 30, 40, 50]
    assert len(rows) == pytest.approx(5 / arms.FAILURES, abs=1)
    assert arms.within_calls(pools(), arms.BY_CHANCE, 300, most=20, seed=0)["failure"].sum() == 20 * arms.FAILURES
    few = arms.within_calls(pools(), arms.BY_CHANCE, calls=20, most=1000, seed=0)
    assert few["call"].max() <= 20 and few["question"][~few["failure"]].str.endswith("of random?").all()
    audited = arms.within_calls(pools(), arms.AUDITED, calls=40, most=20, seed=0)
    assert audited["call"][audited["question"].str.endswith("of trained?")].max() <= 40


@pytest.mark.parametrize(("altered", "arm"), [
    (dict(disagrees=False), arms.AUDITED), (dict(consensus=None, disagrees=False), arms.DATASET),
    (dict(disagrees=True), arms.AUDITED), (dict(truth=None), arms.CEILING)])
def test_a_pool_that_is_too_small_is_one_sentence(altered, arm):
    """A target that is right everywhere, a consensus that is always missing, a target that is wrong everywhere (no rehearsal), a
    truth that nobody knows."""
    table = probes().assign(**altered)
    found = arms.pools(table, types_of(probes()), pools()[arms.BY_CHANCE], "02_probes")
    with pytest.raises(ValueError, match=r"^There are \d+ examples with a consensus for .*, fewer than the \d+ needed: ask more"):
        arms.of_size(found, arm, 20, seed=0)


def test_an_interval_over_seeds_covers_seeds_and_items():
    items = [Estimate(0.5, 0.4, 0.6)] * 3
    assert rectification.over_seeds(items) == pytest.approx(stats.average(items))  # no spread: the items' own
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):  # true mean 0.6; seeds differ by 0.05, and each is measured on 200 items of its own
        rates = np.clip(rng.normal(0.6, 0.05, 3), 0, 1)
        value, low, high = rectification.over_seeds([stats.proportion(int(rng.binomial(200, rate)), 200) for rate in rates])
        held += low <= 0.6 <= high
    assert held / 300 >= 0.94


def cells(right: dict[str, float], budget: str = EXAMPLES, amounts: tuple[int, ...] = (100,), seeds: int = 3, profile="rare"):
    """Finished cells as `rectification_cells.scored` gives them, each arm right in such a share of 200 items inside the gaps."""
    for seed in range(seeds):
        run = Run(f"{profile}-{seed}" if seed else profile, {"seed": seed}, 500, {})
        for arm, share in right.items():
            for amount in (0,) if arm == NOTHING else amounts:
                cell = Cell(arm) if arm == NOTHING else Cell(arm, budget, amount)
                examples = pd.DataFrame(dict(failure=[True, False], call=[40 + seed, 3]))
                items = pd.DataFrame(dict(suite=["gap-items"] * 200 + ["gqa-mini"] * 100, item=[str(i) for i in range(300)],
                                          gap=None, correct=[i < 200 * share for i in range(200)] + [True] * 100))
                yield run, cell, examples, items


def test_gaps_are_told_apart_by_how_many_random_questions_meet_them(audit):
    items = pd.DataFrame(dict(suite=["gap-items"] * 3 + ["gqa-mini"], item=list("abcd"), gap=["x", "x", "y", None],
                              correct=[True, False, True, True]))
    found = rectification.marks(items, {"x": 0.001, "y": 0.004})
    assert {name: part.tolist() for name, part in found.items()} == {
        "gap-items": [True, False, True], rectification.OUTSIDE: [True], "gaps met by 0 to 0.25 %": [True, False],
        "gaps met by 0.25 to 0.5 %": [True]}
    folder = paths.result("rare", "02_probes")
    pd.DataFrame(dict(auditor=["random", "trained"], attempts=[200, 200])).to_csv(folder / "search.csv", index=False)
    pd.DataFrame(dict(auditor=["random", "trained"], gap="x", hits=[1, 90])).to_csv(folder / "gap_hits.csv", index=False)
    assert rectification.shares_of([Run("rare", {}, 0, {})]) == {"rare": {"x": 0.005}}


def test_the_table_has_every_measure_by_seed_and_over_seeds_and_pairs_the_differences():
    rows = rectification.table(cells({NOTHING: 0.1, arms.DATASET: 0.4, arms.AUDITED: 0.9, arms.CEILING: 0.9}))
    assert list(rows.columns) == rectification.COLUMNS
    at = rows.set_index(["arm", "seed", "measure"])
    assert at.loc[(arms.AUDITED, "1", "gap-items"), ["score", "examples", "target_calls"]].tolist() == [90, 2, 541]
    assert at.loc[(arms.DATASET, "1", "gap-items"), "target_calls"] == 0
    assert at.loc[("audited - dataset", "mean", "gap-items"), "score"] == pytest.approx(50)
    assert at.loc[("audited - nothing", "mean", rectification.OUTSIDE), "score"] == 0
    assert at.loc[(rectification.WAY, "mean", "gap-items"), "score"] == pytest.approx(100)
    assert "audited - prompt_only" not in at.index.get_level_values("arm")  # no such cell yet
    shuffled = rows.sample(frac=1, random_state=0)
    assert sorted(rectification.in_words(shuffled)) == sorted(rectification.in_words(rows))


@pytest.mark.parametrize(("audited", "chance", "ahead"), [
    ({600: 0.5, 900: 0.9}, {600: 0.6, 900: 0.6}, 900), ({600: 0.9, 900: 0.9}, {600: 0.2, 900: 0.6}, 600),
    ({600: 0.9, 900: 0.5}, {600: 0.2, 900: 0.6}, None)])
def test_the_audit_is_ahead_from_the_budget_on_after_which_it_stays_ahead(audited, chance, ahead):
    made = [cell for amount in audited for cell in cells(
        {arms.AUDITED: audited[amount], arms.BY_CHANCE: chance[amount]}, CALLS, (amount,))]
    rows = rectification.table(made)
    assert rectification.crossing(rows) == {"rare": ahead}
    said = " ".join(rectification.in_words(rows))
    assert ("at none of the budgets" if ahead is None else f"from {ahead} calls on") in said


def test_the_audit_has_found_more_failures_once_its_rate_has_paid_for_its_training(audit):
    def made(trained, random):
        folder = paths.result("rare", "02_probes")
        pd.DataFrame(dict(auditor=["random", "trained"], kind="question", attempts=100, disagrees=[random, trained])).to_csv(
            folder / "search.csv", index=False)
        rows = rectification.break_even([Run("rare", {"seed": 0}, 3000, {})])
        assert set(rows["seed"]) == {"0", "mean"}
        return rows["score"].iloc[-1]
    assert made(40, 10) == 4000  # 1,000 probes find 400 failures, as 4,000 random questions do
    assert made(10, 10) == np.inf


def test_the_figure_shows_every_arm_of_both_budgets():
    right = {NOTHING: 0.1, arms.DATASET: 0.4, arms.AUDITED: 0.9, arms.BY_CHANCE: 0.5}
    rows = rectification.table([*cells(right, amounts=(100, 200)), *cells(
        {arms.AUDITED: 0.9, arms.BY_CHANCE: 0.5}, CALLS, (600, 900)), *cells(right, profile="other")])
    figure = rectification.fig_rectification(rows)
    assert [axis.get_title() for axis in figure.axes] == ["profile rare", "profile other", "", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [rectification.LABEL[arm] for arm in right]
    assert len(figure.axes[0].containers) == 3 and len(figure.axes[2].containers) == 2 and not figure.axes[3].containers


@pytest.fixture
def audit(tmp_path, monkeypatch):
    """A finished audit of the rare target below a home of its own, with budgets of a few examples; the folder of its arms."""
    for name, value in dict(SIZES=(10, 20), BEFORE=(), AFTER=(40,), MOST=20, STEPS=2, BATCH=4, PER_SUITE=4, IN_GAPS=14).items():
        monkeypatch.setattr(rectification_cells, name, value)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    table, folders = probes(), {stage: paths.result("rare", stage) for stage in rectification_cells.STAGES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    pd.DataFrame([dict(phase="grpo", step=1, target_calls=30)]).to_csv(folders["01_auditor"] / "history.csv", index=False)
    (folders["02_probes"] / "images").mkdir()
    for i in range(20):
        Image.new("RGB", (64, 64), (10 * i, 90, 200)).save(folders["02_probes"] / f"images/{i:02d}.png")
    table.to_parquet(folders["02_probes"] / "probes.parquet", index=False)
    pd.DataFrame(dict(auditor=["random", "trained"], kind="question", attempts=60, disagrees=[20, 30])).to_csv(
        folders["02_probes"] / "search.csv", index=False)
    types_of(table).to_parquet(folders["03_taxonomy"] / "failures.parquet", index=False)
    verdicts = pd.DataFrame({"category": range(3), "verdict": "confirmed"})
    verdicts.to_parquet(folders["03_taxonomy"] / "confirmation.parquet", index=False)
    members = dict(target=f"{SHIPPED}/rare", references=[f"{SHIPPED}/paligemma2-m-flawed", f"{SHIPPED}/gemma3-l-flawed"])
    inputs = {}
    for stage, folder in folders.items():
        key = {"parameters": dict(run="rare", seed=0, suites=["pope-mini", "gap-items"], **members), "inputs": dict(inputs)}
        inputs[stage] = manifest.write(folder, {"stage": stage, "key": key}, {"wall_seconds": 1})["outputs_digest"]
    return paths.RUNS / "rare" / "arms"


def by_chance_of(run: Run, table: pd.DataFrame, calls: int) -> pd.DataFrame:
    """Failures by chance without a model: those of the pictures of stage 02."""
    return pools()[arms.BY_CHANCE].assign(image="02_probes/images/00.png")


@pytest.fixture
def quick(monkeypatch):
    """Cells without a model: the answers of a tuned target are told by the number of its failures."""
    def finetune(path, data, out, *rest):
        out.mkdir()
        (out / "weights").write_text(str(len(data)))
        return pd.DataFrame({"step": [1], "loss": [0.5]})

    def score(models, items, batch, asked):
        return next(cells({NOTHING: 0.3}, seeds=1))[3].assign(question="", expected="")
    for name, stub in dict(finetune=finetune, score=score, by_chance=by_chance_of, load_items=lambda *given: None).items():
        monkeypatch.setattr(rectification_cells, name, stub)


def test_a_comparison_of_real_models_ends_in_rows_a_figure_and_a_table(audit, capsys):
    some = [Cell(NOTHING), Cell(arms.AUDITED, EXAMPLES, 20), Cell(arms.BY_CHANCE, CALLS, 1040)]
    run = rectification_cells.read("rare")
    ready = rectification_cells.prepare(run, 200)
    assert ready[0][arms.BY_CHANCE]["call"].max() <= 200 and (ready[0][arms.BY_CHANCE]["answer"].notna()).all()
    for cell in some:
        rectification_cells.make_cell(run, cell, *ready)
    folder = rectification.write([run])
    rows = pd.read_csv(folder / "rectification.csv", dtype={"seed": str})
    assert {NOTHING, arms.AUDITED, arms.BY_CHANCE, "audited - nothing"} <= set(rows["arm"])
    assert not list(audit.glob("*/model")) and (folder / "fig_rectification.png").exists()
    assert (folder / "table_rectification.tex").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_comparison_killed_at_any_point_goes_on_where_it_was_and_ends_in_the_same_bytes(audit, quick, tmp_path, capsys):
    run = rectification_cells.read("rare")

    def kill(module, name, calls):
        """In a child process, that ends at the n-th call of a function as by SIGKILL."""
        child = os.fork()
        if child == 0:
            real, left = getattr(module, name), [calls]

            def killer(*given, **named):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)
            setattr(module, name, killer)
            rectification_cells.make([run], say=lambda text: None)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    states = []
    here = rectification_cells
    for module, name, calls in [(here, "finetune", 1), (here, "score", 3), (manifest, "write", 2), (here.commit, "commit", 2),
                                (manifest, "fsync", 5), (here.lock, "free", 1)]:
        assert kill(module, name, calls) == signal.SIGKILL
        states.append(sum(rectification_cells.finished(run, cell) for cell in rectification_cells.planned([run])))
    assert states == sorted(states) and states[-1] >= 4, "finished cells are kept"
    said = []
    rectification_cells.make([run], say=said.append)
    assert len(said) == len(rectification_cells.planned([run])) - states[-1] and "minutes left" in said[-1]
    went_on = {file.parent.name: manifest.load(file.parent)["outputs_digest"] for file in audit.glob("*/manifest.json")}
    shutil.rmtree(audit)
    rectification_cells.make([run], say=said.append)
    assert went_on == {file.parent.name: manifest.load(file.parent)["outputs_digest"] for file in audit.glob("*/manifest.json")}
    rectification_cells.make([run], say=lambda text: pytest.fail("a finished cell is made again"))


def test_a_cell_is_made_again_where_the_audit_was(audit, quick):
    run = rectification_cells.read("rare")
    rectification_cells.make_cell(run, Cell(NOTHING), {arms.REHEARSAL: pools()[arms.REHEARSAL]}, None)
    assert rectification_cells.finished(run, Cell(NOTHING))
    other = Run(run.name, run.values, run.training, run.digests | {"03_taxonomy": "another"})
    assert not rectification_cells.finished(other, Cell(NOTHING))


@pytest.mark.parametrize(("values", "words"), [
    (dict(seed=1, threads=64), None), (dict(seed=0), "the same seed"), (dict(seed=1, kl_weight=0.3), "differ in kl_weight")])
def test_runs_of_one_profile_differ_in_their_seed_alone(audit, values, words):
    run = rectification_cells.read("rare")
    runs = [run, Run("rare-1", run.values | values, 30, {}), Run("other", values, 30, {})]
    if not words:
        return rectification_cells.check(runs)
    with pytest.raises(manifest.Stop, match=words):
        rectification_cells.check(runs)


@pytest.mark.parametrize(("verdict", "words"), [("not confirmed", "confirmed no failure type"), (None, "need a finished audit")])
def test_an_audit_that_cannot_be_compared_is_one_sentence_and_no_model_is_loaded(audit, quick, verdict, words):
    folder = paths.result("rare", "03_taxonomy")
    table = pd.read_parquet(folder / "confirmation.parquet")
    record = manifest.load(folder)
    table.assign(verdict=verdict or "altered").to_parquet(folder / "confirmation.parquet", index=False)
    if verdict:
        manifest.write(folder, {"stage": "03_taxonomy", "key": record["key"]}, {})
    with pytest.raises(manifest.Stop, match=words):
        rectification_cells.make([rectification_cells.read("rare")], say=lambda text: None)
    assert not list(audit.glob("[!b]*"))


def test_the_claims_are_judged_for_each_profile_on_intervals_over_seeds():
    made = [*cells({NOTHING: 0.1, arms.DATASET: 0.4, arms.AUDITED: 0.9, arms.CEILING: 0.9}),
            *cells({NOTHING: 0.1, arms.DATASET: 0.9, arms.AUDITED: 0.4, arms.CEILING: 0.9}, profile="other")]
    table = rectification.verdicts(rectification.table(made))
    held = {(row.profile, row.claim.split(" (")[0].split(": ")[-1]): row.verdict for row in table.itertuples()}
    assert held["rare", "dataset questions"] == "holds" and held["other", "dataset questions"] == "does not hold"
    way = "Audited data go at least 80 % of the way from the target to a model taught the true labels"
    assert held["rare", way] == "holds" and held["other", way] == "does not hold"
    assert len(table) == 6, "what no cell tests has no row"
