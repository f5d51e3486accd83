"""The report page: whole in itself, in plain words, and safe against what models write."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import pandas as pd
import pytest
import synthetic
from PIL import Image

from auditdm_lib.paths import PAPER_VALUES
from auditdm_lib.results import claims, figures, report

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


def test_an_audit_without_findings_gives_a_page_too(run, drawn):
    made = run.artefacts
    text = page(run, drawn, failures=made.failures.head(0), categories=made.categories.head(0))
    assert "nothing that this audit found" in text


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
