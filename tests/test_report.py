"""The report page: whole in itself, in plain words, and safe against what models write."""

import html
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pandas as pd
import pytest
import synthetic
from PIL import Image

from auditdm_lib.paths import PAPER_VALUES
from auditdm_lib.results import claims, drawn_figures, figures, findings, report

PAPER = pd.read_csv(PAPER_VALUES)
HOSTILE = "<script>alert('x')</script>\"><img src=http://example.org/x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("figures"), run.artefacts
    for name, figure in [("fig2_averages", figures.fig2_averages(made.items, PAPER)),
                         ("fig4_failure_shares", figures.fig4_failure_shares(made.items)),
                         ("fig_search_success", figures.fig_search_success(made.search, PAPER)),
                         ("fig_held_out", figures.fig_held_out(synthetic.unverified(run).items)),
                         ("fig_training", figures.fig_training(made.history))]:
        figures.save(figure, folder, name, "testbed result")
    return folder


def page(run, drawn, **tables) -> str:
    artefacts = run.altered(**tables)
    verdicts = claims.evaluate(artefacts, PAPER, "any")
    return report.write(artefacts, verdicts, drawn, run.pictures, "testbed result").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_needs_no_other_file_and_runs_nothing(run, drawn):
    tags = Elements(page(run, drawn)).found
    pictures = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(pictures) > 10 and all(src.startswith("data:image/png;base64,") for src in pictures)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}


def test_what_models_write_is_shown_and_never_obeyed(run, drawn):
    made = run.artefacts
    failures = made.failures.assign(question=HOSTILE, consensus=HOSTILE, target_answer=HOSTILE)
    categories = made.categories.assign(name=HOSTILE, description=HOSTILE)
    text = page(run, drawn, failures=failures, categories=categories)
    tags = Elements(text).found
    assert "script" not in {tag for tag, _ in tags} and not any("onerror" in attributes for _, attributes in tags)
    assert "http://example.org" not in " ".join(str(attributes.get("src")) for _, attributes in tags)
    assert text.count("&lt;script&gt;alert") >= 4 and "<script>alert" not in text


def test_the_headline_says_strong_and_weak(run, drawn):
    words = report.headline(run.artefacts)
    assert words["weak"] == run.artefacts.categories["name"].head(3).tolist()
    assert "count all" in words["strong"] and "above" not in words["strong"]
    text = page(run, drawn)
    assert "Strong at" in text and "Weak at" in text and "yes and no swapped" in text


def test_a_skill_of_few_right_answers_is_not_called_strong(run):
    items = run.artefacts.items
    few = items[(items["model"] == "target")].groupby("skill").head(5).assign(correct=True)
    assert report.headline(run.altered(items=few))["strong"] == []


def test_verdicts_are_coloured_and_the_claims_all_there(run, drawn):
    text = page(run, drawn)
    tones = re.findall(r'<td><span class="verdict ([a-z-]+)">', text)
    assert len(tones) == len(claims.CLAIMS) and set(tones) == {"holds", "does-not-hold", "undecided", "not-tested"}


def test_pairs_and_drawings_have_sections_where_there_are_any_with_reasons_escaped(run, drawn, tmp_path):
    made = run.artefacts
    for file in drawn.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    figures.save(drawn_figures.fig_drawer_fault(made.faults, made.probes), tmp_path, "fig_drawer_fault", "testbed result")
    reasons = made.probes["picture_reason"]
    text = page(run, tmp_path, probes=made.probes.assign(picture_reason=reasons.where(reasons.isna(), HOSTILE)))
    assert "Pairs: small edits" in text and "is it the model or the picture?" in text and "&lt;script&gt;alert" in text
    assert "script" not in {tag for tag, _ in Elements(text).found}
    assert "Drawn pictures with and without the check" in figures_of(text)
    bare = page(run, tmp_path, versions=None, flips=None, survival=None, faults=None, drawer="renderer")
    assert "Pairs: small edits" not in bare and "is it the model" not in bare


def test_an_audit_without_findings_gives_a_page_too(run, drawn):
    made = run.artefacts
    text = page(run, drawn, failures=made.failures.head(0), categories=made.categories.head(0))
    assert "nothing that this audit found" in text


def words_of(text: str) -> str:
    """What a reader sees of a page, up to the claims."""
    body = re.sub(r"(?s)<style>.*?</style>|<[^>]+>", " ", text.partition("Claims of the paper")[0])
    return re.sub(r"\s+", " ", html.unescape(body))


def test_what_nothing_verified_is_a_suspicion_on_the_whole_page(run, drawn):
    made = synthetic.unverified(run)
    verdicts = claims.evaluate(made, PAPER)
    text = report.write(made, verdicts, drawn, run.pictures, "result").read_text(encoding="utf-8")
    seen = words_of(text)
    assert not re.search(r"(?i)fail|cannot do|weak at|weakness|strong at|average|planted gaps", seen)
    assert seen.index("The references agree on 80 %") < seen.index("Suspicions, the most frequent first")
    assert "probably unfit" not in seen and "What to do First look at " in seen and "judge its pictures by eye" in seen
    first = made.failures[made.failures["category"] == 0]
    n, shown = len(first), first["source_image"].nunique()
    assert f"{n} suspicions on {shown} pictures; in {n} of {n} every reference gave the same answer" in seen
    assert "agreement with the references on random questions about" in seen and ", rectified" in seen
    assert "held-out questions left out of 1,000 180 without a consensus, 20 unanswered" in seen
    assert figures_of(text) >= {"Agreement with the references on held-out questions"}
    assert not figures_of(text) & {"Average scores of this run and of the paper", "Failure shares by skill"}
    assert "This run cannot test the paper's claims" in text


def figures_of(text: str) -> set[str]:
    return {attributes["alt"] for tag, attributes in Elements(text).found if tag == "img"}


def test_references_that_agree_on_less_than_half_are_warned_of_first(run, drawn):
    made = synthetic.unverified(run, agree=0.4)
    seen = words_of(report.write(made, claims.evaluate(made, PAPER), drawn, run.pictures, "x").read_text(encoding="utf-8"))
    places = [seen.index(said) for said in ("are probably unfit", "Suspicions", "What to do First look at the references")]
    assert places == sorted(places)


def test_a_type_says_how_sure_it_is(run):
    made = run.artefacts
    rows = made.failures.head(4).assign(source_image=list("aabc"), verified_failure=[True, True, False, True])
    rows["reference_answers"] = [[c, c] for c in rows["consensus"]][:2] + [["I cannot tell", c] for c in rows["consensus"][2:]]
    assert findings.certainty(rows, made) == ("4 failures, 3 verified, on 3 pictures; in 2 of 4 every reference gave the same "
                                              "answer, in the others not all did or some could not tell")
    assert findings.certainty(rows.head(1).assign(verified_failure=None), synthetic.unverified(run)) == (
        "1 suspicion on 1 picture; in 1 of 1 every reference gave the same answer")
    half = rows.assign(verified_failure=pd.Series([True, None, None, None], rows.index, dtype=object))
    assert findings.certainty(half, synthetic.unverified(run)).startswith("4 suspicions, 1 verified of 1 checked, on 3 pictures;")


def test_failures_of_which_some_were_not_checked_are_suspicions(run):
    probes = run.artefacts.probes
    assert run.artefacts.verified and not run.altered(probes=probes.assign(verified_failure=None)).verified
    some = probes["verified_failure"].where(probes["auditor"] == "random", None)
    assert not run.altered(probes=probes.assign(verified_failure=some)).verified


def test_one_reference_is_said_and_the_cost_counts_the_training(run):
    made = synthetic.unverified(run)
    alone = replace(made, probes=made.probes.assign(reference_answers=[["red"]] * len(made.probes)))
    assert "second reference" in findings.agreement(alone)[1]
    assert "one reference alone" in findings.certainty(made.failures, alone)
    assert findings.cost(made) == ("The search took 24,000 calls of the target, 20,000 of them to train the auditor and 4,000 to "
                                   f"probe with all methods: {24000 / len(made.failures):.0f} for each suspicion found.")


def test_without_a_type_the_advice_is_to_look_longer_or_at_the_few(run):
    made = synthetic.unverified(run)
    none = replace(made, categories=made.categories.head(0))
    assert "too few alike" in findings.advice(none)
    assert "No type of suspicion was found in" in findings.advice(replace(none, failures=made.failures.head(0)))


def test_the_page_is_the_same_bytes_each_time(run, drawn):
    assert page(run, drawn) == page(run, drawn)


def test_photographs_are_made_small_for_the_page_and_drawings_stay_as_they_are(run, tmp_path):
    Image.effect_noise((2000, 1000), 60).convert("RGB").save(tmp_path / "large.png")
    shown = report.small_data_uri(tmp_path / "large.png")
    with Image.open(BytesIO(b64decode(shown.partition(",")[2]))) as picture:
        assert picture.size == (480, 240) and shown.startswith("data:image/jpeg;base64,")
    small = next((run.pictures / "images").iterdir())
    assert report.small_data_uri(small) == report.data_uri(small)


def test_a_text_that_no_encoding_holds_does_not_stop_the_page(run, drawn):
    made = run.artefacts
    failures = made.failures.astype(object).assign(target_answer=pd.Series(["\ud800"] * len(made.failures), dtype=object))
    assert "<html" in page(run, drawn, failures=failures)
