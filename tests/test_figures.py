"""The figures: what they draw, that nothing lies over anything else, and that the files are the same bytes each time."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic
from layout import faults
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from auditdm_lib.evaluate import scores
from auditdm_lib.paths import PAPER_VALUES
from auditdm_lib.results import drawn_figures, figures, measures, paper_style

PAPER = pd.read_csv(PAPER_VALUES)
BENCHMARKS = pd.DataFrame([dict(model=model, task=task, metric=metric, n=500, score=scale * (50 + 4 * k), stderr=stderr)
                           for k, model in enumerate(("target", "rectified", "control", "reference_1", "reference_2"))
                           for task, metric, scale, stderr in (("vqav2_val_lite", "exact_match", 0.01, 0.02), (
                               "mme", "mme_perception_score", 20.0, np.nan), ("auditdm_testbed", "consensus_match", 0.01, 0.01))])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


def drawing(run):
    """A function that draws each figure, by name."""
    made = run.artefacts
    return {
        "fig2_averages": lambda: figures.fig2_averages(made.items, PAPER),
        "fig4_failure_shares": lambda: figures.fig4_failure_shares(made.items),
        "fig_held_out": lambda: figures.fig_held_out(synthetic.unverified(run).items),
        "fig_search_success": lambda: figures.fig_search_success(made.search, PAPER),
        "fig_benchmarks": lambda: figures.fig_benchmarks(BENCHMARKS),
        "fig_kinds": lambda: figures.fig_kinds(made.search),
        "fig_categories": lambda: figures.fig_categories(made.categories),
        "fig_training": lambda: figures.fig_training(made.history),
        "fig_cost": lambda: figures.fig_cost(made.search),
        "fig_probes": lambda: figures.fig_probes(made.failures, run.pictures),
        "fig_flips": lambda: drawn_figures.fig_flips(made.versions, made.flips, made.probes, run.pictures),
        "fig_drawers": lambda: drawn_figures.fig_drawers(made.versions, made.probes, run.pictures),
        "fig_drawer_fault": lambda: drawn_figures.fig_drawer_fault(made.faults, made.probes),
        "fig_ablation": lambda: drawn_figures.fig_ablation(synthetic.ablation())}


def draw(run, folder):
    drawn = {name: made() for name, made in drawing(run).items()}
    for name, figure in drawn.items():
        figures.save(figure, folder, name, "testbed result, run 'x'")
    return drawn


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return draw(run, folder), folder


def test_the_same_tables_give_the_same_bytes(run, saved, tmp_path):
    draw(run, tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 28
    assert [name for name in files if (tmp_path / name).read_bytes() != (saved[1] / name).read_bytes()] == []


def test_at_the_width_of_a_page_no_type_is_small_and_no_text_lies_over_another_or_leaves_the_page(saved):
    assert {name: faults(figure) for name, figure in saved[0].items() if faults(figure)} == {}
    assert max(figure.get_figwidth() for figure in saved[0].values()) <= paper_style.PAGE


def test_models_and_auditors_are_told_apart_in_grey(saved):
    for name, series in {"fig2_averages": 5, "fig_search_success": 3, "fig_held_out": 3, "fig_kinds": 2}.items():
        bars = [bar for bar in saved[0][name].axes[0].patches if bar.get_height()]
        looks = {(bar.get_hatch() or "") + ("" if bar.get_hatch() else str(bar.get_facecolor())) for bar in bars}
        assert len(looks) >= series, name
        assert len({str(bar.get_hatch()) for bar in bars}) >= series - 1, name  # at most two have no hatch
    assert len({line.get_linestyle() for line in saved[0]["fig_cost"].axes[0].lines}) == 3
    assert len({line.get_linestyle() for line in saved[0]["fig_training"].axes[0].lines}) >= 2


def contents(figure) -> list:
    """All that a figure shows of its tables: texts, sizes of bars, places of points, pixels of pictures."""
    texts = [text.get_text() for text in figure.findobj(Text)]
    bars = [round(x, 6) for patch in figure.findobj(Rectangle) for x in (patch.get_width(), patch.get_height())]
    points = [np.round(np.asarray(line.get_xydata(), float), 6).tolist() for axis in figure.axes for line in axis.lines]
    pictures = [hash(image.get_array().tobytes()) for axis in figure.axes for image in axis.images]
    return [texts, bars, points, pictures]


@pytest.mark.parametrize(("name", "table", "column", "change"), [
    ("fig2_averages", "items", "score", lambda c: c * 0.5),
    ("fig4_failure_shares", "items", "correct", lambda c: c & (c.index % 3 > 0)),
    ("fig_search_success", "search", "ci_low", lambda c: c * 0.9), ("fig_kinds", "search", "ci_low", lambda c: c * 0.9),
    ("fig_cost", "search", "training_calls", lambda c: c * 2), ("fig_categories", "categories", "size", lambda c: c + 1),
    ("fig_training", "history", "invalid", lambda c: c + 0.1), ("fig_probes", "failures", "target_answer", lambda c: "other"),
    ("fig_flips", "flips", "n_right_wrong", lambda c: c + 1),
    ("fig_drawers", "versions", "image", lambda c: c.iloc[::-1].to_numpy()),
    ("fig_drawer_fault", "faults", "ci_low", lambda c: c * 0.9)])
def test_a_changed_artefact_changes_what_the_figure_shows(run, saved, name, table, column, change):
    made = getattr(run.artefacts, table)
    other = replace(run, artefacts=run.altered(**{table: made.assign(**{column: change(made[column])})}))
    assert contents(drawing(other)[name]()) != contents(drawing(run)[name]())


def test_benchmarks_stand_each_in_its_own_unit_with_the_harness_s_interval(saved):
    lite, mme, own, empty = saved[0]["fig_benchmarks"].axes
    assert [axis.get_xlabel() for axis in (lite, mme, own)] == ["exact_match", "mme_perception_score", "consensus_match"]
    assert not empty.axison and "vqav2_val_lite, 500 items" == lite.get_title()
    places = [[float(made.lines[0].get_xdata()[0]) for made in axis.containers] for axis in (lite, mme)]
    assert places == [pytest.approx([0.5, 0.54, 0.58, 0.62, 0.66]), pytest.approx([1000, 1080, 1160, 1240, 1320])]
    reach = [np.ptp(axis.containers[0].lines[2][0].get_segments()[0][:, 0]) for axis in (lite, mme)]
    assert reach == pytest.approx([2 * 1.96 * 0.02, 0.0], rel=1e-3)


def test_every_axis_is_named_and_every_figure_has_its_footer(saved):
    for name, figure in saved[0].items():
        assert [text.get_text() for text in figure.texts].count("testbed result, run 'x'") == 1, name
        for axis in figure.axes:
            if axis.axison:
                assert axis.get_title() and (axis.get_xlabel() or axis.get_ylabel()), name


def bar_heights(axis):
    return [patch.get_height() for patch in axis.patches]


def test_figure_2_shows_this_run_and_the_papers_values_on_separate_axes(run):
    figure = figures.fig2_averages(run.artefacts.items, PAPER)
    ours, gaps, paper, gemma = figure.axes
    items = run.artefacts.items
    assert bar_heights(ours)[0] == pytest.approx(measures.suite_average(items, "target").value)
    assert bar_heights(gaps)[1] == pytest.approx(measures.gap_score(items, "rectified").value)
    assert bar_heights(paper) == [80.04, 84.56, 84.16, 83.65] and bar_heights(gemma)[-1] == 66.69
    assert all("paper" in axis.get_title() for axis in (paper, gemma))


def test_figure_2_without_items_inside_planted_gaps_says_so(run):
    items = run.artefacts.items
    figure = figures.fig2_averages(items[items["suite"] != scores.GAP_ITEMS], PAPER)
    assert "no held-out items inside planted gaps" in figure.axes[1].texts[0].get_text()


def test_figure_4_rows_add_to_100_ordered_with_the_targets_weakest_on_top(run):
    axis = figures.fig4_failure_shares(run.artefacts.items).axes[0]
    widths = np.array([patch.get_width() for patch in axis.patches]).reshape(2, -1)
    assert widths.sum(axis=0) == pytest.approx(100) and (np.diff(widths[0]) >= 0).all()
    counts = measures.failures_by_skill(run.artefacts.items).set_index("skill")
    top = axis.get_yticklabels()[-1].get_text().removesuffix(" *").replace(" ", "_")
    assert widths[0, -1] == pytest.approx(100 * counts.loc[top, "target"] / counts.loc[top, ["target", "reference_1"]].sum())


def test_figure_4_names_skills_that_nobody_fails(run):
    items = run.artefacts.items.assign(correct=lambda t: t["correct"] | (t["skill"] == "digit"))
    axis = figures.fig4_failure_shares(items).axes[0]
    assert any("no failure of either: digit" in text.get_text() for text in axis.texts)


def test_figure_4_wraps_a_long_list_of_skills_that_nobody_fails(run):
    items = run.artefacts.items.assign(correct=True, skill=lambda t: "a skill " + t["item"].str[-2:])
    note = figures.fig4_failure_shares(items).axes[0].texts[-1].get_text()
    assert "a skill 99" in note and max(map(len, note.splitlines())) <= 110


def test_search_success_carries_interval_ceiling_and_the_papers_values(run):
    axis = figures.fig_search_success(run.artefacts.search, PAPER).axes[0]
    assert bar_heights(axis) == pytest.approx([19.0, 21.4, 85.0, 62.0])
    words = " ".join(text.get_text() for text in [*axis.texts, *axis.get_legend().get_texts()])
    assert "91.1" in words and "ceiling" in words and "paper" in words


def test_search_success_without_truth_shows_disagreements_and_says_so(run):
    search = run.artefacts.search.assign(verified_failures=np.nan, ceiling=np.nan)
    axis = figures.fig_search_success(search, PAPER).axes[0]
    assert bar_heights(axis)[2] == pytest.approx(86.0) and "not verified" in axis.get_ylabel()
    assert axis.get_legend() is None


def test_held_out_questions_show_each_model_by_suite_and_say_where_there_are_none(run):
    items = synthetic.unverified(run).items
    axis = figures.fig_held_out(items).axes[0]
    assert len(bar_heights(axis)) == 6 and [t.get_text() for t in axis.get_legend().get_texts()] == [
        "target", "target, rectified", "target, control"]
    whole = scores.headlines(items, "target")["held-out"]
    assert bar_heights(axis)[0] == pytest.approx(100 * whole.value)
    empty = figures.fig_held_out(items.head(0)).axes[0]
    assert "no held-out question had a consensus" in empty.texts[0].get_text()


def test_without_the_papers_values_no_diamond_is_drawn(run):
    axis = figures.fig_search_success(run.artefacts.search, PAPER.head(0)).axes[0]
    assert "paper" not in " ".join(text.get_text() for text in axis.get_legend().get_texts())


@pytest.mark.filterwarnings("error")
def test_suspicions_are_not_called_failures(run):
    made = synthetic.unverified(run)
    drawn = [figures.fig_categories(made.categories, verified=False),
             figures.fig_probes(made.failures, run.pictures, verified=False),
             figures.fig_cost(made.search), figures.fig_cost(made.search.assign(disagrees=0)), figures.fig_kinds(made.search),
             figures.fig_search_success(made.search, PAPER), figures.fig_categories(made.categories.head(0), verified=False)]
    said = [text.get_text() for figure in drawn for text in figure.findobj(Text)]
    assert [text for text in said if re.search(r"(?i)failure|exposes|right:", text)] == []


def test_milestones_of_the_training_are_left_to_the_figure_of_coverage(run):
    more = pd.concat([run.artefacts.search, run.artefacts.search.assign(auditor="step_000050")])
    assert len(bar_heights(figures.fig_search_success(more, PAPER).axes[0])) == 4


def test_kinds_of_probes_stand_side_by_side_untrained_and_trained(run):
    axis = figures.fig_kinds(run.artefacts.search).axes[0]
    assert bar_heights(axis) == pytest.approx([22.0, 15.0, 18.0, 87.0, 50.0, 70.0]) and len(axis.get_xticks()) == 3
    questions = run.artefacts.search[run.artefacts.search["kind"] == "question"]
    assert bar_heights(figures.fig_kinds(questions).axes[0]) == pytest.approx([22.0, 87.0])
    unknown = figures.fig_kinds(questions.assign(verified_failures=np.nan)).axes[0]
    assert "disagreements" in unknown.get_ylabel()


def test_success_and_coverage_are_drawn_over_the_calls_of_the_training(run):
    search, hits = run.artefacts.search, run.artefacts.hits
    arms = {"step_000050": (10000, 0.7), "plain_000050": (5000, 0.6), "plain_grpo": (9000, 0.8), "union": (20000, 0.75)}
    trained = search[search["auditor"] == "trained"]
    more = [trained.assign(auditor=name, training_calls=calls) for name, (calls, _) in arms.items()]
    few = [hits[hits["auditor"] == "trained"].assign(auditor=name, hits=lambda t: np.where(t.index % 2, 5, 4)) for name in arms]
    figure = figures.fig_coverage(pd.concat([search, *more]), pd.concat([hits, *few], ignore_index=True))
    success, coverage = figure.axes
    ours, plain, union = coverage.lines
    assert ours.get_xdata().tolist() == [0, 10, 20] and plain.get_xdata().tolist() == [0, 5, 9]
    assert 0 < plain.get_ydata()[1] < 100 and ours.get_ydata()[-1] == pytest.approx(100 * 7 / 9)  # hits of `synthetic`
    assert union.get_xdata().tolist() == [20] and len(success.lines) == 3


def test_no_failures_are_drawn_as_none(run):
    made = run.artefacts
    empty = figures.fig_categories(made.categories.head(0))
    assert any("no failure type" in text.get_text() for text in empty.axes[0].texts)
    assert any("no failure type" in text.get_text() for text in figures.fig_probes(made.failures.head(0), run.pictures).texts)


def test_long_texts_and_mathematical_signs_are_drawn_as_they_are(run):
    made = run.artefacts
    odd = made.failures.assign(question="why $x^2$ \\frac{ " + "a very long word " * 20, target_answer="$" * 60)
    assert paper_style.png(figures.fig_probes(odd, run.pictures)).startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["\ufeff", "what is $x^2^3$?", "a\0b\rc", "שלום 漢字 \U0001f469\u200d\U0001f467", "x" * 3000,
                                  "z" + "\u0301" * 300, "\ue000"])
def test_example_failures_are_drawn_to_both_formats_whatever_they_say(run, tmp_path, text):
    odd = run.artefacts.failures.assign(question=text, consensus=text, target_answer=text)
    figures.save(figures.fig_probes(odd, run.pictures), tmp_path, "odd", f"run {text!r}")
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}


def test_training_counts_the_calls_of_both_phases_together_and_has_a_line_a_kind(run):
    alone = figures.fig_training(run.artefacts.history).axes[0]
    imitation, questions, edits = alone.lines
    assert imitation.get_ydata().tolist() == [20, 60]  # of the probes, in %, and not the reward, which may be negative
    assert imitation.get_xdata().tolist() == [4.4, 8.7] and len(questions.get_xdata()) == 40 and len(edits.get_xdata()) == 10
    assert min(questions.get_xdata()) == pytest.approx((8700 + 128) / 1000)
    assert max(edits.get_xdata()) == pytest.approx((8700 + 50 * 128) / 1000)


@pytest.mark.parametrize("phase", ["imitation", "grpo"])
@pytest.mark.filterwarnings("error")
def test_training_of_one_phase_alone_is_drawn(run, phase):
    history = run.artefacts.history
    figure = figures.fig_training(history[history["phase"] == phase])
    assert len(figure.legends[0].get_texts()) == (1 if phase == "imitation" else 2)


def test_cost_counts_the_calls_of_the_training_and_leaves_out_who_found_nothing(run):
    search = run.artefacts.search.copy()
    search.loc[search["auditor"] == "random", "verified_failures"] = 0
    prompt_only, trained = figures.fig_cost(search).axes[0].lines
    assert np.allclose(trained.get_ydata(), 20000 + trained.get_xdata() / 0.85)
    assert np.allclose(prompt_only.get_ydata(), prompt_only.get_xdata() / 0.214)
    assert "1.2 per failure after 20,000" in trained.get_label()


def test_probes_show_one_failure_of_each_type_first(run):
    made = run.artefacts
    figure = figures.fig_probes(made.failures, run.pictures, columns=3, rows=1)
    shown = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert shown == [made.failures[made.failures["category"] == i]["question"].iloc[0] for i in range(3)]


def test_a_layout_is_settled_before_it_is_written_so_that_its_last_digit_cannot_differ(run, tmp_path):
    figure = figures.fig_categories(run.artefacts.categories)
    figures.save(figure, tmp_path, "settled", "note")
    steps = np.array([axes.get_position(original=True).bounds for axes in figure.axes]) * 1e6
    assert np.abs(steps - steps.round()).max() < 1e-6
