"""People as verifiers: the sample, the blinded page, labels read back, and the rates that rest on them."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import small_run
from click.testing import CliRunner
from sklearn.metrics import cohen_kappa_score

from auditdm_lib import paths, stats
from auditdm_lib.results import label, label_rates
from auditdm_lib.run import manifest

STRATA = ["auditor", "disagrees"]


@pytest.fixture
def run(tmp_path):
    return small_run.write(tmp_path, small_run.probes())


def labels_by_truth(sample: label_rates.Sample) -> dict[str, str]:
    """What a person who knows the truth says of each item."""
    said = {}
    for row in sample.rows.itertuples():
        right = {row.target_side: row.target_answer == row.truth, "AB".replace(row.target_side, ""): row.consensus == row.truth}
        said[row.item] = "both" if all(right.values()) else next((side for side, true in right.items() if true), "neither")
    return said


def write_labels(file, said: dict[str, str]):
    pd.DataFrame(said.items(), columns=["item", "label"]).to_csv(file, index=False)
    return file


def rate(found: pd.DataFrame, measure: str, auditor: str) -> pd.Series:
    return found[(found["measure"] == measure) & (found["auditor"] == auditor)].iloc[0]


def test_the_sample_is_shared_out_evenly_over_auditors_and_sides_and_can_be_drawn_again(run, tmp_path):
    sample = label.draw(str(run), 40, seed=3)
    assert sample.rows.groupby(STRATA).size().tolist() == [10] * 4
    assert sample.rows["valid"].all() and sample.rows["consensus"].notna().all() and sample.rows["probe_id"].is_unique
    pd.testing.assert_frame_equal(sample.rows, label.draw(str(run), 40, seed=3).rows)
    assert set(sample.rows["probe_id"]) != set(label.draw(str(run), 40, seed=4).rows["probe_id"])
    shuffled = small_run.write(tmp_path / "b", small_run.probes().sample(frac=1, random_state=1))
    other = label.draw(str(shuffled), 40, seed=3)
    assert other.rows[["probe_id", "target_side"]].equals(sample.rows[["probe_id", "target_side"]])
    assert label.allot([3, 50, 50], 23) == [3, 10, 10] and label.allot([3, 5], 100) == [3, 5]


def test_equal_probes_are_one_item(tmp_path):
    table = small_run.probes(40)
    trained = table["auditor"] == "trained"
    content = [name for name in table if name not in ("probe_id", "auditor")]
    table.loc[trained, content] = table.loc[~trained, content].to_numpy()
    sample = label.draw(str(small_run.write(tmp_path, table)), 1000)
    assert (sample.rows.groupby("item")["auditor"].nunique() == 2).all() and (sample.rows["item"].value_counts() == 2).all()


class Texts(HTMLParser):
    """What a page shows, its tags, and every address in it."""

    def __init__(self, page: str):
        super().__init__()
        self.shown, self.tags, self.addresses, self.inside = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.shown.append(data)


def test_the_page_hides_whose_answer_is_whose_and_loads_nothing(run, tmp_path):
    sample = label.draw(str(run), 40)
    folder = label.write(sample, tmp_path / "page")
    page = (folder / "index.html").read_text(encoding="utf-8")
    seen, table = Texts(page), pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    items = sample.rows.drop_duplicates("item").set_index("item")
    assert table["item"].tolist() == sorted(items.index) and set(table["label"]) == {""}
    for row in table.itertuples():
        mine = items.loc[row.item]
        answers = dict(A=row.A, B=row.B)
        assert answers.pop(mine["target_side"]) == mine["target_answer"] and list(answers.values()) == [mine["consensus"]]
    assert 0.25 < (items["target_side"] == "A").mean() < 0.75
    hidden = ["target", "consensus", "reference", "trained-0", "prompt_only-0", "disagree", "probe"]
    assert not [word for word in hidden if word in page.lower()]
    assert sum("disagrees" in name for name in table) == 0 and [path.name for path in (run / "labels").iterdir()] == [
        f"{sample.name}.json"]
    assert seen.tags.count("img") == len(items) and seen.tags.count("input") == 5 * len(items)
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    assert not re.search(r"https?:", page) and "default-src 'none'" in page


def test_texts_of_models_do_nothing_on_the_page_and_in_a_spreadsheet(tmp_path):
    table = small_run.probes(30)
    hostile = f'{small_run.HOSTILE}"><img src=http://example.org/x onerror=alert(1)>中文 ما هذا'
    table["question"] = [f"{hostile} {i}" for i in range(len(table))]
    table["target_answer"] = table["target_answer"].where(~table["disagrees"], '=HYPERLINK("http://example.org")')
    folder = label.write(label.draw(str(small_run.write(tmp_path, table)), 20), tmp_path / "page")
    seen = Texts((folder / "index.html").read_text(encoding="utf-8"))
    assert seen.tags.count("script") == 1 and seen.tags.count("img") == pd.read_csv(folder / "labels.csv").shape[0]
    assert all(address.startswith("data:") for address in seen.addresses) and "ما هذا" in "".join(seen.shown)
    cells = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)[["A", "B"]].to_numpy().ravel()
    assert any(cell.startswith("'=HYPER") for cell in cells) and not any(cell.startswith("=") for cell in cells)


def test_labels_of_all_probes_give_the_rates_of_the_truth(run, tmp_path):
    table = pd.read_parquet(run / "02_probes" / "probes.parquet")
    sample = label.draw(str(run), 10_000)
    label.keep(sample)
    found = label_rates.read(str(run), [write_labels(tmp_path / "labels.csv", labels_by_truth(sample))])
    judged = table[table["valid"] & table["consensus"].notna()]
    for auditor, mine in table.groupby("auditor"):
        expected = stats.clustered_proportion(stats.tally(mine["verified_failure"].astype(bool), mine["source_image"]))
        row = rate(found, label_rates.SUCCESS, auditor)
        assert row["value"] == pytest.approx(expected.value) and row["of"] == len(mine)
        # a product of two shares, both known in full, has the variance of the share of all
        assert row["ci_high"] - row["ci_low"] == pytest.approx(expected.high - expected.low, rel=0.25)
    right = judged["consensus"] == judged["truth"]
    assert rate(found, label_rates.RIGHT, "all")["value"] == pytest.approx(right.mean())
    apart = rate(found, label_rates.RIGHT_APART, "all")
    assert apart["value"] == pytest.approx(right[judged["disagrees"]].mean()) and apart["of"] == judged["disagrees"].sum()
    written = pd.read_csv(run / "labels" / "verified.csv").set_index("probe_id")
    assert (written["weight"] == 1).all() and set(written["said_1"]) == {"target", "consensus", "both", "neither"}
    failed = table.set_index("probe_id")["verified_failure"].astype(bool)
    assert (written["target_wrong"].eq(1) & written["disagrees"]).equals(failed[written.index])
    pd.testing.assert_frame_equal(pd.read_csv(run / "labels" / "rates.csv"), found, check_dtype=False)


def rows_of(scores: dict[tuple[str, bool], list[float]], weights: dict, pictures: list[str] | None = None) -> pd.DataFrame:
    rows = pd.DataFrame([(*key, score, weights[key]) for key, given in scores.items() for score in given],
                        columns=[*STRATA, "score", "weight"])
    return rows.assign(source_image=pictures or [f"{i}.png" for i in range(len(rows))])


def test_a_stratum_counts_by_its_size_in_the_run():
    few, many = ("a", True), ("a", False)
    mean = label_rates.weighted(rows_of({few: [0] * 10, many: [1] * 10}, {few: 1, many: 9}), "score")
    assert mean.value == pytest.approx(0.9) and mean.low < 0.9 < mean.high and mean.high - mean.low < 0.35
    alone = label_rates.weighted(rows_of({few: [1, 0, 1, 1]}, {few: 5}), "score")
    assert alone == pytest.approx(stats.Estimate(0.75, *stats.wilson(3, 4)))
    unknown = label_rates.weighted(rows_of({few: [np.nan, np.nan], many: [1, 1]}, {few: 1, many: 1}), "score")
    assert np.isnan(unknown.value)


def test_probes_about_the_same_pictures_say_less():
    few, many = ("a", True), ("b", True)
    scores = {few: [1, 0] * 10, many: [1, 0] * 10}
    apart = label_rates.weighted(rows_of(scores, {few: 1, many: 1}), "score")
    within = label_rates.weighted(rows_of({key: sorted(given) for key, given in scores.items()}, {few: 1, many: 1},
                                          [f"{key}{i // 5}" for key in "ab" for i in range(20)]), "score")
    across = label_rates.weighted(rows_of(scores, {few: 1, many: 1}, [f"{i}.png" for i in range(20)] * 2), "score")
    assert apart.value == within.value == across.value == 0.5
    assert within.high - within.low > 1.5 * (apart.high - apart.low)
    assert across.high - across.low == pytest.approx(np.sqrt(2) * (apart.high - apart.low), rel=0.01)


def test_nineteen_of_twenty_intervals_hold_the_rates_of_the_run(tmp_path):
    run = small_run.write(tmp_path, small_run.probes(600))
    tried = label_rates.attempts(run / "02_probes")
    population = label_rates.population(run / "02_probes")
    size = population.groupby(STRATA).size()
    population["consensus_right"] = (population["consensus"] == population["truth"]).astype(float)
    population["target_wrong"] = (population["target_answer"] != population["truth"]).astype(float)
    population["weight"] = [size[key] / 20 for key in population[STRATA].itertuples(index=False, name=None)]
    mine = tried[tried["auditor"] == "trained"]
    right, success = population["consensus_right"].mean(), mine["verified_failure"].astype(bool).mean()
    hits = np.zeros(2)
    for seed in range(200):
        drawn = population.groupby(STRATA).sample(20, random_state=seed)
        a = label_rates.weighted(drawn, "consensus_right")
        b = label_rates.success(mine, drawn[(drawn["auditor"] == "trained") & drawn["disagrees"]])
        hits += a.low <= right <= a.high, b.low <= success <= b.high
    assert (hits >= 186).all()  # 190 are expected of exact intervals; fewer than 186 of 200 come by chance in one test of ten


def test_two_people_count_half_each_and_their_agreement_is_measured(run, tmp_path):
    sample = label.draw(str(run), 60)
    label.keep(sample)
    first = labels_by_truth(sample)
    rng = np.random.default_rng(0)
    second = {item: str(rng.choice(label_rates.LABELS)) if rng.random() < 0.3 else said for item, said in first.items()}
    files = [write_labels(tmp_path / f"labels_{k}.csv", said) for k, said in enumerate((first, second), 1)]
    found = label_rates.read(str(run), files)
    rows = pd.read_csv(run / "labels" / "verified.csv")
    items = rows.drop_duplicates("item")
    assert rate(found, label_rates.ALIKE, "all")["value"] == pytest.approx((items["said_1"] == items["said_2"]).mean()) != 1
    kappa = rate(found, label_rates.KAPPA, "all")["value"]
    assert kappa == pytest.approx(cohen_kappa_score(items["said_1"], items["said_2"])) and 0.4 < kappa < 1
    halves = rows[["said_1", "said_2"]].isin(["consensus", "neither"]).mean(axis=1)
    assert rows["target_wrong"].equals(halves) and 0.5 in set(halves) and (found["people"] == 2).all()
    unsure = rows["said_2"] == "cannot tell"
    assert rate(found, label_rates.RIGHT, "all")["cannot_tell"] == unsure.sum() > 0
    one = rows.loc[unsure & (rows["said_1"] != "cannot tell")]
    assert one["consensus_right"].tolist() == one["said_1"].isin(["consensus", "both"]).astype(float).tolist()
    assert "Cohen's kappa of two people" in label_rates.shown(found)


def test_where_nobody_can_tell_the_consensus_is_not_known_and_no_failure_is_verified(run, tmp_path):
    sample = label.draw(str(run), 20)
    label.keep(sample)
    file = write_labels(tmp_path / "a.csv", dict.fromkeys(sample.rows["item"], "cannot tell"))
    other = write_labels(tmp_path / "b.csv", dict.fromkeys(sample.rows["item"], "cannot tell"))
    found = label_rates.read(str(run), [file, other])
    success = rate(found, label_rates.SUCCESS, "trained")
    assert success["value"] == 0 and success["ci_high"] > 0.02 and np.isnan(rate(found, label_rates.RIGHT, "all")["value"])
    assert np.isnan(rate(found, label_rates.KAPPA, "all")["value"]) and "not known" in label_rates.shown(found)


@pytest.mark.parametrize("spoil", [
    lambda text: text.replace(",", ";"), lambda text: text.replace(",", "\t"), lambda text: text.encode("utf-16"),
    lambda text: text.replace("\n", "\r\n") + ",\r\n", lambda text: "\ufeff" + text.replace("both", " Both "),
    lambda text: text.replace("label", "label,note").replace("both", "both,é").encode("cp1252"),
    lambda text: text.replace("item,", '"Item",').replace("\n", "\r")])
def test_what_spreadsheets_make_of_the_table_is_read(spoil, run, tmp_path):
    sample = label.draw(str(run), 20)
    said = labels_by_truth(sample)
    file = write_labels(tmp_path / "labels.csv", said)
    spoilt = spoil(file.read_text(encoding="utf-8"))
    file.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode("utf-8"))
    assert label_rates.checked(label_rates.table(file), sample, file.name) == said


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda text: b"PK\x03\x04" + text, "is a workbook and no CSV file: save it as CSV"),
    (lambda text: b"", "is no table with the columns item and label"),
    (lambda text: text.decode().encode("utf-16-le"), "labels.csv .*: (?:save it|use the labels.csv .* saved) as CSV .UTF-8."),
    (lambda text: text.replace(b"label", b"says"), "is no table with the columns item and label"),
    (lambda text: b"\n".join(text.split(b"\n")[:-4]), "lacks 3 of 20 items .the first is s"),
    (lambda text: text + text.split(b"\n")[1], "has the item s.* twice"),
    (lambda text: text + b"s00000000-001,A\n", "has 1 items that are not of sample"),
    (lambda text: text.replace(b"both", b""), "has no label for"),
    (lambda text: text.replace(b"both", b"C"), "has the label 'C' for s.*: write one of A, B, both, neither, cannot tell"),
    (lambda text: text.replace(b"\ns", b"\nx"), "is of no sample that was drawn from run small"),
    (lambda text: text.replace(b",", b',"', 1), "is no table with the columns item and label")])
def test_a_table_that_cannot_be_read_gets_one_sentence(spoil, words, run, tmp_path):
    sample = label.draw(str(run), 20)
    label.keep(sample)
    file = write_labels(tmp_path / "labels.csv", labels_by_truth(sample))
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(manifest.Stop, match=words) as problem:
        label_rates.read(str(run), [file])
    assert "\n" not in str(problem.value) and not (run / "labels" / "rates.csv").exists()


def test_labels_of_other_probes_and_the_same_file_twice_are_refused(run, tmp_path):
    sample = label.draw(str(run), 20)
    label.keep(sample)
    file = write_labels(tmp_path / "labels.csv", labels_by_truth(sample))
    with pytest.raises(manifest.Stop, match="given twice: give the files of two people"):
        label_rates.read(str(run), [file, file])
    with pytest.raises(manifest.Stop, match="4 kinds .*: give --n 8 or more"):
        label.draw(str(run), 7)
    (run / "02_probes" / "more.csv").write_text("new")
    record = manifest.load(run / "02_probes")
    manifest.write(run / "02_probes", {"stage": record["stage"], "key": record["key"]}, {})
    with pytest.raises(manifest.Stop, match="other probes now than when .* was drawn: draw a new sample"):
        label_rates.read(str(run), [file])
    none = small_run.write(tmp_path / "none", small_run.probes(6).assign(consensus=None, disagrees=False))
    with pytest.raises(manifest.Stop, match="no valid probe with a consensus"):
        label.draw(str(none), 20)


def test_the_command_draws_and_reads(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", run.parent)
    call, out = CliRunner().invoke, tmp_path / "page"
    done = call(label.main, ["small", "--out", str(out), "--n", "20"])
    assert done.exit_code == 0 and "20 items, standing for 20 probes" in done.output, done.output
    assert "is there already" in str(call(label.main, ["small", "--out", str(out)]).exception)
    file = write_labels(tmp_path / "mine.csv", labels_by_truth(label.draw("small", 20)))
    done = call(label.main, ["small", "--read", str(file)])
    assert done.exit_code == 0 and "search success" in done.output and "verified.csv" in done.output, done.output
    assert "The card of `auditdm export` gives these rates; report.html does not" in done.output
    for words in ([], ["--read"], ["--read", "--out", "x", str(file)], ["--out", "x", str(file)], ["--read", *"abc"]):
        assert call(label.main, ["small", *words]).exit_code == 2
