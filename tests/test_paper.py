"""The paper's figures and tables from its printed numbers: what they show, how they look, and that they need no model."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from layout import faults, shown_texts
from matplotlib.text import Text
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.results import found_figures, paper, paper_diagram, paper_figures, paper_runs, paper_style, paper_tables
from auditdm_lib.run import manifest
from auditdm_lib.stats import wilson

VALUES = paper.read()
FIGURES = {"fig2_averages", "fig3_architecture", "fig4_failure_types", "fig_ablation", "fig_search_success",
           "fig_radar_paligemma2", "fig_radar_gemma3"}
TABLES = {"table_positioning", "table_search_success", "table_paligemma2", "table_gemma3", "table_ablation", "table_assumptions",
          "table_sources"}
MODELS = ("model a", "model b")
NAMES = ["Emotion (Atmosphere / Weather) Understanding", "colour: purple said as blue", "Counting", "数える", "$_% {x}"]


@pytest.fixture(scope="module")
def drawn():
    return paper.all_figures(VALUES)


def changed(item, series, category, value):
    at = (VALUES["item"] == item) & (VALUES["series"] == series) & (VALUES["category"] == category)
    assert at.sum() == 1
    return VALUES.assign(value=VALUES["value"].mask(at, value))


def made_up(n):
    """Shares of n failure types with long and odd names, and of two models."""
    rows = [(MODELS[k], f"{NAMES[i % len(NAMES)]} {i}", share if k == 0 else 100 - share)
            for i, share in enumerate(np.linspace(3, 97, n)) for k in range(2)]
    return pd.DataFrame(rows, columns=["series", "category", "value"])


def scores(n):
    rows = [(model, f"{NAMES[i % len(NAMES)]} {i}", 40 + i + k) for i in range(n)
            for k, model in enumerate(["m", "m + AuditDM", "l"])]
    return pd.DataFrame(rows, columns=["series", "category", "value"])


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_the_averages_of_the_main_tables_are_those_of_figure_2():
    table = paper_tables.averages(VALUES)
    assert len(table) == 8 and (table["recomputed"] == table["printed"]).all()
    wrong = paper_tables.averages(changed("gemma3_benchmarks", "Gemma3-4B", "POPE", 85.3))
    assert wrong.loc[wrong["recomputed"] != wrong["printed"], "series"].tolist() == ["Gemma3-4B"]


def test_the_numbers_are_those_of_the_tracked_file_and_none_is_missing(drawn):
    text = " ".join(words(figure) for figure in drawn.values())
    counted = VALUES[~VALUES["item"].isin(["paligemma2_benchmarks", "gemma3_benchmarks", "failure_types"])]
    digits = {"fig2_average": 2}
    missing = [f"{row.item} {row.series} {row.category}" for row in counted.itertuples()
               if f"{row.value:.{digits.get(row.item, 1)}f}" not in text]
    assert missing == [] and len(counted) == 52


@pytest.mark.parametrize(("name", "item", "series", "category", "value", "seen"), [
    ("fig2_averages", "fig2_average", "PaliGemma2-3B", "average of 8", 12.34, "12.34"),
    ("fig4_failure_types", "fig4_failure_share", "PaliGemma2-3B", "Counting", 99.9, "99.9"),
    ("fig_ablation", "ablation_paligemma2_3b_224px", "image editing only", "GQA", 69.3, "+3.1 (69.3)"),
    ("fig_search_success", "search_success", "AuditDM", "20K VQAv2-train pairs, target PaliGemma2-3B", 88.8, "88.8"),
    ("fig_radar_gemma3", "gemma3_benchmarks", "Gemma3-27B", "MMMU", 77.7, "77.7"),
    ("fig_radar_paligemma2", "paligemma2_benchmarks", "PaliGemma2-3B", "GQA", 11.1, "11.1")])
def test_a_changed_number_changes_the_figure(drawn, name, item, series, category, value, seen):
    assert seen not in words(drawn[name])
    assert seen in words(paper.all_figures(changed(item, series, category, value))[name])


def test_figure_2_draws_the_averages_as_bars_with_the_gain(drawn):
    left, right = drawn["fig2_averages"].axes
    assert [bar.get_height() for bar in left.patches] == [80.04, 84.56, 84.16, 83.65]
    assert [bar.get_height() for bar in right.patches] == [58.83, 64.47, 63.96, 66.69]
    assert "+4.52" in words(drawn["fig2_averages"]) and "+5.64" in words(drawn["fig2_averages"])


def test_figure_4_goes_from_one_models_weaknesses_to_the_others(drawn):
    axis = drawn["fig4_failure_types"].axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()][::-1]
    assert names[0] == "World Knowledge" and names[-1] == "Hallucination Avoidance" and len(names) == 15
    widths = np.array([bar.get_width() for bar in axis.patches]).reshape(2, -1)
    assert widths.sum(axis=0) == pytest.approx(100) and (np.diff(widths[0]) > 0).all() and (widths[1] > 50).sum() == 8


def test_figure_4_does_not_depend_on_the_order_of_rows():
    shares = made_up(9).assign(value=lambda t: t["value"].round(-1))  # with ties
    tables = shares, shares.sample(frac=1, random_state=3)
    drawn = [paper_figures.fig4_failure_types(table, MODELS, "n").axes[0] for table in tables]
    assert [t.get_text() for t in drawn[0].get_yticklabels()] == [t.get_text() for t in drawn[1].get_yticklabels()]
    assert [b.get_width() for b in drawn[0].patches] == [b.get_width() for b in drawn[1].patches]


def test_a_spoke_has_its_lowest_score_half_way_and_its_highest_at_the_rim(drawn):
    lines = drawn["fig_radar_paligemma2"].axes[0].get_lines()
    places = np.array([line.get_ydata()[:-1] for line in lines])
    assert places.shape == (4, 8) and places.min(axis=0) == pytest.approx(0.5) and places.max(axis=0) == pytest.approx(1)
    gqa = (68.3 - 68.1) / (71.1 - 68.1)
    assert places[:, 1] == pytest.approx([0.5, 1, 0.5 + gqa / 2, 0.5 + gqa / 2])
    assert [line.get_ydata()[0] for line in lines] == [line.get_ydata()[-1] for line in lines]  # closed


def test_what_is_not_known_is_left_out_and_said(drawn):
    figure = drawn["fig_ablation"]
    assert [len(axis.patches) for axis in figure.axes] == [4, 2, 3] and words(figure).count("not known") == 3
    note = " ".join(figure.texts[0].get_text().split())
    assert "left out: questions only on RefCOCO; regeneration only on RefCOCO; regeneration only on AI2D" in note
    assert "confidence: medium" in note
    table, caption = paper_tables.ablation(VALUES)
    assert set(table["confidence"]) == {"medium"}
    assert table.isna().sum().sum() == 3 and "3 scores" in caption


def test_the_architecture_names_the_models_it_is_given():
    names = {**paper_diagram.PAPER, "target": "paligemma2-s", "draws": "a renderer"}
    text = words(paper_diagram.fig3_architecture(names, "a run"))
    assert "paligemma2-s" in text and "a renderer" in text and "PaliGemma2 or Gemma3" not in text
    assert "a run" in text and "paper" not in text


def test_the_architecture_cuts_long_names_of_models_so_that_they_stay_in_their_boxes(drawn):
    long = dict.fromkeys(paper_diagram.PAPER, "an-organisation/a-model-with-a-long-name-1.0")
    figure = paper_diagram.fig3_architecture(long, "a note")
    figure.draw_without_rendering()
    frames = [patch.get_window_extent() for patch in figure.axes[0].patches]
    names = [t.get_window_extent(figure._get_renderer()) for t in figure.axes[0].texts if "an-organ" in t.get_text()]
    assert len(names) == 5 and all(any(frame.x0 < name.x0 and name.x1 < frame.x1 for frame in frames
                                       if frame.y0 < name.y0 and name.y1 < frame.y1) for name in names)
    assert faults(figure) == [] and "…" not in words(drawn["fig3_architecture"])


def test_figures_readme_names_every_file_and_only_functions_that_exist():
    text = (paths.ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert [name for name in FIGURES | TABLES if f"`{name}`" not in text] == []
    modules = dict(found_figures=found_figures, paper_figures=paper_figures, paper_tables=paper_tables, paper_runs=paper_runs,
                   paper_diagram=paper_diagram)
    named = re.findall(rf"\b({'|'.join(modules)})\.(\w+)", text.replace("paper_runs.py", ""))
    assert len(named) > 15 and [name for module, name in named if not hasattr(modules[module], name)] == []


def test_every_note_and_caption_says_as_printed_in_the_paper_and_how_sure(drawn):
    made = paper_tables.all_tables(VALUES)
    assert set(drawn) == FIGURES and set(made) == TABLES
    notes = {name: " ".join(figure.texts[0].get_text().split()) for name, figure in drawn.items()}
    for name, text in [*notes.items(), *((name, caption) for name, (_, caption) in made.items())]:
        assert "as printed in the paper (arxiv 2512.16921)" in text.lower(), name
    sure = [name for name, text in notes.items() if re.search("confidence: (high|medium)", text)]
    assert set(sure) == FIGURES - {"fig3_architecture"}  # it holds no number
    assert set(made["table_sources"][0]["confidence"]) == {"high", "medium"}
    assert made["table_sources"][0]["numbers"].sum() == len(VALUES)


def test_type_is_at_least_7_points_at_the_width_of_a_page_and_nothing_overlaps(drawn):
    assert {name: faults(figure) for name, figure in drawn.items() if faults(figure)} == {}
    assert max(figure.get_figwidth() for figure in drawn.values()) <= 7
    assert min(t.get_fontsize() for figure in drawn.values() for t, _ in shown_texts(figure)) == 7


@pytest.mark.parametrize("n", [1, 2, 15, 60])
def test_no_label_lies_over_another_for_any_number_of_categories(n):
    assert faults(paper_figures.fig4_failure_types(made_up(n), MODELS, "a note")) == []
    assert faults(paper_figures.fig_radar(scores(n), "made up", "a note")) == []


def test_an_overlap_and_small_type_are_noticed():
    figure = paper_figures.fig4_failure_types(made_up(15), MODELS, "a note")
    figure.axes[0].set_yticks([3, 3.2], ["one", "two"], fontsize=5)
    assert any("over" in fault for fault in faults(figure)) and any("small" in fault for fault in faults(figure))


def test_no_failure_type_is_said_and_not_drawn():
    figure = paper_figures.fig4_failure_types(made_up(0), MODELS, "a note")
    assert "no failure type was found" in words(figure) and faults(figure) == []


def test_models_are_told_apart_without_colour(drawn):
    bars = {(bar.get_hatch() or "", bar.get_label()) for bar in drawn["fig4_failure_types"].axes[0].patches}
    assert len({hatch for hatch, _ in bars}) == 2
    assert len({bar.get_hatch() or "" for bar in drawn["fig2_averages"].axes[0].patches}) == 4
    lines = drawn["fig_radar_gemma3"].axes[0].get_lines()
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == 4


def test_tables_are_set_with_booktabs_and_escaped_for_latex(tmp_path):
    table = pd.DataFrame({"a & b": ["50 %", "x_y"], "n": [1.5, np.nan]})
    paper_tables.write(table, "50 % of a_b & c", tmp_path, "table_t")
    text = (tmp_path / "table_t.tex").read_text()
    assert r"\toprule" in text and r"\bottomrule" in text and r"\caption{50 \% of a\_b \& c}" in text
    assert r"50 \% & 1.5 \\" in text and r"x\_y & -- \\" in text and r"a \& b" in text
    assert r"\begin{table}[t]" in text and "tabcolsep" not in text
    paper_tables.write(paper_tables.positioning()[0], "c", tmp_path, "table_wide")
    wide = (tmp_path / "table_wide.tex").read_text()
    assert wide.count("{table*}") == 2 and "{tabular}{p{0.129" in wide and r"\setlength{\tabcolsep}{3pt}" in wide
    assert pd.read_csv(tmp_path / "table_t.csv")["n"].tolist() == pytest.approx([1.5, np.nan], nan_ok=True)


def test_main_tables_hold_every_score_and_what_auditdm_gains():
    for family, (item, _) in paper_figures.FAMILIES.items():
        table, _ = paper_tables.main_table(VALUES, family)
        rows = VALUES[VALUES["item"] == item]
        whole = table.set_index("model")
        assert [whole.loc[row.series, row.category] for row in rows.itertuples()] == rows["value"].tolist() and len(rows) == 32
    assert paper_tables.main_table(VALUES, "PaliGemma2")[0].set_index("model").loc["gain by AuditDM", "AI2D"] == 9.3


def test_a_number_that_is_missing_or_stands_twice_stops_with_the_remedy(tmp_path):
    twice = pd.concat([VALUES, VALUES[VALUES["item"] == "search_success"].head(1)])
    empty = VALUES.assign(value=VALUES["value"].mask(VALUES["item"] == "search_success"))
    for values in (VALUES[VALUES["item"] != "fig2_average"], twice, empty):
        with pytest.raises(manifest.Stop, match="exactly once: restore the file"):
            paper.all_figures(values)
    (tmp_path / "v.csv").write_text("item,series\n")
    with pytest.raises(manifest.Stop, match="lacks the columns category, value"):
        paper.read(tmp_path / "v.csv")
    with pytest.raises(manifest.Stop, match="restore it"):
        paper.read(tmp_path / "none.csv")


def test_the_command_needs_no_model_and_few_seconds_and_writes_the_same_bytes_again(tmp_path):
    code = ("import sys; from auditdm_lib.results import paper; paper.main(); import time; "
            "print(time.process_time(), *[m for m in ('torch', 'transformers', 'scipy') if m in sys.modules])")
    digests = []
    for home in ("a", "b"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, check=True,
                              env=os.environ | {"AUDITDM_HOME": str(tmp_path / home), "OMP_NUM_THREADS": "1"})
        seconds, *heavy = done.stdout.splitlines()[-1].split()
        assert float(seconds) < 15 and heavy == []  # of the processor: 3 to 5 measured; the clock counts other processes too
        record = manifest.verify(tmp_path / home / "figures" / paper.NAME)
        digests.append(record["outputs"])
    assert digests[0] == digests[1]
    assert set(digests[0]) == {f"{name}.{end}" for name in FIGURES for end in ("pdf", "png")} | {
        f"{name}.{end}" for name in TABLES for end in ("csv", "tex")}
    assert paper_style.PAGE == 7.0


# A run's halves


def items(right):
    """Scored items: for each model and suite, how many of ten are right."""
    rows = [(model, suite, f"{suite}-{i}", f"{suite}-{i}", "exact_match", float(i < count), i < count, None)
            for model, counts in right.items() for suite, count in counts.items() for i in range(10)]
    return pd.DataFrame(rows, columns=["model", "suite", "item", "group", "metric", "score", "correct", "gap"])


def confirmed(n):
    """confirmation.csv of n failure types: of 20 fresh probes the target fails on ever fewer, the references on ever more."""
    rows = [(i, f"{NAMES[i % len(NAMES)]} {i}", 20, max(0, 18 - i), min(i // 3, 2), "confirmed" if i < 5 else "not confirmed")
            for i in range(n)]
    table = pd.DataFrame(rows, columns=["category", "name", "probes", "target_wrong", "reference_wrong", "verdict"])
    return table.assign(rate=table["target_wrong"] / 20, reference_rate=table["reference_wrong"] / 40)


def found(n, folder):
    """Failures of n types, three of each, with their pictures; and the types."""
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8), "teal").save(folder / "images" / "a.png")
    kinds, auditors = ["edit", "question", "question"], ["trained", "random", "trained"]
    asked, said = f"what is {'very ' * 20}long? $_x", "blue " * 9
    rows = [(f"p{k}-{i:02d}", i, kinds[k], auditors[k], "images/a.png", asked, "red", said) for i in range(n) for k in range(3)]
    columns = ["probe_id", "category", "kind", "auditor", "image", "question", "consensus", "target_answer"]
    types = pd.DataFrame(dict(category=range(n), name=[f"{NAMES[i % len(NAMES)]} {i}" for i in range(n)]))
    return pd.DataFrame(rows, columns=columns), types


def test_the_radar_of_a_run_shows_the_headline_scores_of_its_suites_without_the_gap_items():
    right = {"target": {"gqa-mini": 6, "gap-items": 0}, "rectified": {"gqa-mini": 9, "gap-items": 8}}
    table = paper_runs.suite_scores(items(right))
    assert table.values.tolist() == [["target", "gqa-mini", 60.0], ["rectified", "gqa-mini", 90.0]]
    looks = paper_figures.roles(["target", "rectified", "control", "reference_1", "reference_2"])
    assert looks["target"] is paper_style.BEFORE and looks["rectified"] is paper_style.AFTER
    assert len({marker for *_, marker, _ in looks.values()}) == len({str(line) for *_, line in looks.values()}) == 5


def test_suites_stand_beside_the_benchmarks_they_are_named_after():
    benchmarks = VALUES.loc[VALUES["item"] == "gemma3_benchmarks", "category"].unique().tolist()
    suites = ["mmbench-mini", "mmt-mini", "seed-mini", "mme-mini", "mmmu-mini", "mmstar-mini", "realworldqa-mini", "pope-mini"]
    assert [paper_runs.benchmark_of(suite, benchmarks) for suite in suites] == benchmarks
    tasks = VALUES.loc[VALUES["item"] == "paligemma2_benchmarks", "category"].unique().tolist()
    assert [paper_runs.benchmark_of(f"{task.lower().replace('-', '')}-mini", tasks) for task in tasks] == tasks
    assert paper_runs.benchmark_of("mm-mini", benchmarks) is None and paper_runs.benchmark_of("own", benchmarks) is None


def test_figure_4_of_a_run_takes_the_largest_types_and_adds_each_pair_up_to_100():
    table = confirmed(30)
    shares = found_figures.type_shares(table).pivot(index="category", columns="series", values="value")
    assert len(shares) == 15 and set(shares.index) == set(table["name"][:15])
    assert shares.sum(axis=1).to_numpy() == pytest.approx(100)
    row = table.iloc[9]
    assert shares.loc[row["name"], "target"] == pytest.approx(100 * row["rate"] / (row["rate"] + row["reference_rate"]))
    table.loc[0, ["rate", "reference_rate"]] = 0.0
    assert table["name"][0] not in set(found_figures.type_shares(table)["category"])  # nobody fails there


@pytest.mark.parametrize("n", [0, 1, 15, 60])
def test_the_figures_of_failure_types_overlap_nowhere(n):
    table = confirmed(n)
    assert faults(found_figures.fig4_rates(table, 2, "a note", most=60)) == []
    assert faults(paper_figures.fig4_failure_types(found_figures.type_shares(table, 60), found_figures.MODELS, "a note")) == []


def test_the_rates_of_figure_4_carry_intervals_counts_and_the_verdict():
    figure = found_figures.fig4_rates(confirmed(7), 2, "a note")
    axis = figure.axes[0]
    ends = [segment[:, 0] for lines in axis.collections for segment in lines.get_segments()]
    assert len(ends) == 14 and all(low < high for low, high in ends)
    top = ends[6]  # of the target; drawn from the bottom up
    assert top == pytest.approx(100 * np.array(wilson(18, 20))) and ends[-1] == pytest.approx(50 * np.array(wilson(0, 20)))
    sure, others, *_ = axis.get_lines()
    assert sorted(sure.get_xdata()) == [70, 75, 80, 85, 90] and sorted(others.get_xdata()) == [60, 65]
    assert others.get_markerfacecolor() == "white" and "18 and 0 of 20" in words(figure)


def test_the_example_of_a_type_is_a_question_of_the_trained_auditor_about_an_original_picture(tmp_path):
    failures, types = found(4, tmp_path)
    examples = found_figures.one_each(failures.sample(frac=1, random_state=1), types, 3)
    assert examples["probe_id"].tolist() == ["p2-00", "p2-01", "p2-02"]
    assert examples["name"].tolist() == types["name"].tolist()[:3]


@pytest.mark.parametrize("n", [0, 1, 7, 15])
def test_the_figures_with_pictures_show_each_type_once_and_overlap_nowhere(n, tmp_path):
    examples = found_figures.one_each(*found(n, tmp_path))
    figure = found_figures.fig5_examples(examples, tmp_path, "a note")
    assert len(figure.axes) == n and faults(figure) == []
    report = {"strong at": [], "weak at": ["colour: purple is called blue, " * 9] * 4, "to train on": ["1,200 examples"]}
    first = found_figures.fig1_report(examples, tmp_path, report, "a note")
    assert len(first.axes) == min(n, 3) and faults(first) == []
    assert "nothing" in words(first) and "1,200 examples" in words(first)
