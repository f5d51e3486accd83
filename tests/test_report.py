"""The report page: whole in itself, in plain words, for every screen, and safe against what models write."""

import html
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import browser
import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image

from auditdm_lib.paths import PAPER_VALUES
from auditdm_lib.results import claims, drawn_figures, figures, findings, report, report_text

PAPER = pd.read_csv(PAPER_VALUES)
HOSTILE = "<script>alert('x')</script>\"><img src=http://example.org/x onerror=alert(1)>"
WIDTHS = (360, 800, 1400)
needs_browser = pytest.mark.skipif(browser.FOUND is None, reason="no Chromium on this machine to render the page with")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.make_run(tmp_path_factory.mktemp("run") / "02_probes", n=300)


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("figures"), run.artefacts
    for name, figure in [("fig4_failure_shares", figures.fig4_failure_shares(made.items)),
                         ("fig_search_success", figures.fig_search_success(made.search, PAPER)),
                         ("fig_held_out", figures.fig_held_out(synthetic.unverified(run).items)),
                         ("fig_training", figures.fig_training(made.history))]:
        figures.save(figure, folder, name, "testbed result")
    return folder


@pytest.fixture(scope="module")
def verdicts(run):
    return claims.evaluate(run.artefacts, PAPER, "any")


def written(run, drawn, verdicts, pictures=None) -> str:
    return report.write(run, verdicts, drawn, pictures, "testbed result").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(run, drawn, verdicts):
    """A function that writes the page of a run with other tables."""
    return lambda **tables: written(run.altered(**tables), drawn, verdicts, run.pictures)


@pytest.fixture(scope="module")
def text(page):
    return page()


class Elements(HTMLParser):
    """The tags of a page, with their attributes and the text below them."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.above = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        entry = [tag, dict(attributes), ""]
        self.found.append(entry)
        if tag not in ("img", "meta", "rect", "link"):
            self.above.append(entry)

    def handle_endtag(self, tag):
        while tag in [entry[0] for entry in self.above] and self.above.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for entry in self.above:
            entry[2] += data

    def all(self, *tags):
        return [entry for entry in self.found if entry[0] in tags]


def words_of(text: str) -> str:
    """What a reader sees of a page, up to the claims."""
    body = re.sub(r"(?s)<style>.*?</style>|<[^>]+>", " ", text.partition('<h2 id="claims"')[0])
    return re.sub(r"\s+", " ", html.unescape(body))


# what it says


def test_the_answer_comes_first(text):
    seen = words_of(text)
    asked = ["What was audited", "What is wrong with it", "What it is good at", "How sure this is",
             "What it would cost to know more", "What to train on", "On fresh pictures wrong in"]
    places = [seen.index(words) for words in asked]
    assert places == sorted(places)


def test_failure_types_that_fresh_pictures_confirmed_come_first_with_rate_and_interval(run, text):
    made = run.artefacts
    cards = [entry[2] for entry in Elements(text).all("li")
             if entry[1].get("class") == "card" and "On fresh pictures" in entry[2]]
    assert len(cards) == len(made.categories) - 1 and all("confirmed" in card for card in cards)
    assert all("18 of 20 (90\u00a0%, 95\u00a0% interval 70 to 97\u00a0%)" in card for card in cards)
    last = made.categories.iloc[-1]["name"]
    table = next(entry[2] for entry in Elements(text).all("table") if "underpowered" in entry[2])
    assert last in table and last not in " ".join(cards)


def synthetic_hits(gaps) -> pd.DataFrame:
    return pd.DataFrame([dict(gap=gap, auditor=auditor, hits=0) for gap in gaps for auditor in ("random", "trained")])


def test_no_planted_gap_that_was_missed_is_hidden(page):
    gaps = list(synthetic.GAPS)
    recovered = pd.DataFrame(dict(gap=gaps, types=1, recovered=[gap != gaps[3] for gap in gaps], own_category=True))
    text = page(recovered=recovered)
    rows = [entry[2] for entry in Elements(text).all("tr") if any(gap in entry[2] for gap in gaps)]
    assert gaps[3] in rows[0] and "seen, not confirmed" in rows[0] and len(rows) == len(gaps)
    assert all("yes" in row for row in rows[1:])
    assert "8 of them are recovered by a confirmed failure type; 1 is not" in words_of(text)
    assert "never met" in page(recovered=recovered, hits=synthetic_hits(gaps))
    assert "Planted errors" not in page(hits=None, gaps=None)


def test_before_and_after_by_type_is_shown_where_the_target_was_asked_again(page, text):
    again = pd.DataFrame([dict(
        category=0, skill="colour", name=HOSTILE, n=20, verdict="fixed", before=0.95, before_low=0.8, before_high=0.99,
        after=0.05, after_low=0.01, after_high=0.2, change=-0.9, change_low=-0.97, change_high=-0.7)])
    seen = words_of(page(reaudit=again))
    assert "20 95 % (80 to 99) 5 % (1 to 20) -90 (-97 to -70) fixed" in seen and HOSTILE[:8] in seen
    assert "The same fresh questions" not in words_of(text)


def test_pairs_and_drawings_have_sections_where_there_are_any_with_reasons_escaped(run, drawn, verdicts, tmp_path):
    made = run.artefacts
    for file in drawn.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    figures.save(drawn_figures.fig_drawer_fault(made.faults, made.probes), tmp_path, "fig_drawer_fault", "testbed result")
    reasons = made.probes["picture_reason"]
    probes = made.probes.assign(picture_reason=reasons.where(reasons.isna(), HOSTILE))
    text = written(run.altered(probes=probes), tmp_path, verdicts, run.pictures)
    assert "Small edits that flip an answer" in text and "the model or the picture?" in text and "&lt;script&gt;alert" in text
    assert not Elements(text).all("script") and any("drawings were rejected" in alt for alt in alts(text))
    before, after = [alt for alt in alts(text) if "the edit “" in alt][:2]
    assert before.startswith("Before the edit") and after.startswith("After the edit")
    bare = written(run.altered(versions=None, flips=None, survival=None, faults=None, drawer="renderer"), tmp_path, verdicts,
                   run.pictures)
    assert "Small edits" not in bare and "the model or the picture" not in bare


def test_an_audit_without_findings_gives_a_page_too(run, page):
    made = run.artefacts
    seen = words_of(page(failures=made.failures.head(0), categories=made.categories.head(0),
                         confirmation=made.confirmation.head(0)))
    assert f"No failure type was found in {len(made.probes):,} probes" in seen and "look for rarer ones" in seen
    reached = made.probes.assign(invalid_reason=[None] * 90 + ["target not asked"] * (len(made.probes) - 90))
    limited = run.altered(probes=reached, failures=made.failures.head(0), categories=made.categories.head(0), confirmation=None)
    assert "found in 90 probes" in findings.advice(limited)
    assert report_text.wrong(limited) == ["No failure type was found in 90 probes."]
    pictures = reached["source_image"].head(90).nunique()
    assert f"on 90 probes, that is questions about {pictures} pictures" in report_text.audited(limited)[0]
    assert findings.references_agree(reached) == findings.references_agree(reached.head(90))


def test_what_nothing_verified_is_a_suspicion_on_the_whole_page(run, drawn):
    made = synthetic.unverified(run)
    text = written(made, drawn, claims.evaluate(made, PAPER), run.pictures)
    seen = words_of(text)
    assert not re.search(r"(?i)fail|cannot do|weak|what is wrong|good at|average|planted gaps", seen)
    assert seen.index("The references agree on 80 %") < seen.index("What to train on")
    assert "probably unfit" not in seen and "by your own eye" in seen and "The truth is not known" in seen
    assert "agreement with the references on random questions about" in seen and ", rectified" in seen
    assert "held-out questions left out of 1,000 180 without a consensus, 20 unanswered" in seen
    assert "Agreement with the references on held-out questions" in alts(text)
    assert "This run cannot test the paper's claims" in text


def test_references_that_agree_on_less_than_half_are_warned_of_first(run, drawn, verdicts):
    made = synthetic.unverified(run, agree=0.4)
    seen = words_of(written(made, drawn, verdicts, run.pictures))
    assert re.search(r"The references agree on \d+\.\d % of the probes, less than half: they are probably unfit", seen)
    assert seen.index("are probably unfit") < seen.index("What was audited")
    assert "whose best question of 8 counts, for 8 times the calls" in seen
    few = replace(made, search=made.search[~made.search["auditor"].str.startswith("best_of_")])
    assert "Best of" not in words_of(written(few, drawn, verdicts, run.pictures))


def test_verdicts_are_coloured_and_the_claims_all_there(text):
    tones = re.findall(r'<li><span class="badge ([a-z-]+)">', text)
    assert len(tones) == len(claims.CLAIMS) and set(tones) == {"holds", "does-not-hold", "undecided", "not-tested"}


def test_provenance_names_models_without_folders_of_a_machine(page):
    key = dict(parameters=dict(run="mine", seed=3, target="/home/me/secret/mine", references=["org/a", "~/b"], auditor="org/asks",
                               pictures="/data/photographs", consensus_rule="unanimity"),
               inputs={"target: /home/me/secret/mine": "0123456789abcdef"})
    record = dict(key=key, outputs_digest="f" * 64, environment=dict(
        git_commit="abc" * 10, git_dirty=True, python="3.11", processor="", packages=dict(torch="2.13.0")))
    seen = words_of(page(records={"02_probes": record}).replace('id="claims"', ""))
    assert "secret" not in seen and "mine (0123456789ab)" in seen and "photographs" in seen and "with changes" in seen
    assert "The target “mine” was compared with 2 references (“a” and “b”)" in seen


# what models write


def test_the_page_needs_no_other_file_and_runs_nothing(text):
    page = Elements(text)
    pictures = [attributes["src"] for _, attributes, _ in page.all("img")]
    assert len(pictures) > 10 and all(re.match(r"data:image/(png|jpeg);base64,", src) for src in pictures)
    assert not page.all("script", "link", "iframe", "object") and "@import" not in text and "url(" not in text


@pytest.mark.parametrize("said", [HOSTILE, "a\u202eb\u2066c", "x" * 5000, "z" + "\u0301" * 300, "\ud800", "&amp; </p></li>"])
def test_what_models_write_is_shown_and_never_obeyed(run, page, text, said):
    made = run.artefacts
    failures = made.failures.astype(object).assign(**{name: pd.Series([said] * len(made.failures), dtype=object) for name in (
        "question", "consensus", "target_answer")})
    kinds = made.categories.astype(object).assign(**{name: pd.Series([said] * len(made.categories), dtype=object) for name in (
        "name", "example_question", "example_consensus")}) if said != "\ud800" else made.categories  # no parquet file holds it
    probes = made.probes.astype(object).assign(edit=made.probes["edit"].where(made.probes["edit"].isna(), said))
    shown = page(failures=failures, categories=kinds, probes=probes)
    one, other = Elements(shown), Elements(text)
    parts = [len(page.all("li", "figure", "section", "img")) for page in (one, other)]
    assert parts[0] == pytest.approx(parts[1], abs=12)  # equal questions count as one example
    assert not one.all("script") and not any("onerror" in attributes for _, attributes, _ in one.found)
    assert "\u202e" not in shown and "\u2066" not in shown and "<script>alert" not in shown
    assert max(len(entry[2].strip()) for entry in one.all("bdi")) <= 450 and (said != HOSTILE or "&lt;script&gt;" in shown)


# every screen, eye and ear


def alts(text: str) -> list[str]:
    return [attributes["alt"] for _, attributes, _ in Elements(text).all("img")]


def test_every_picture_has_an_alternative_text_that_says_what_is_seen_and_a_caption(run, text):
    found = alts(text)
    probes = [alt for alt in found if alt.startswith("Picture for the question")]
    assert len(found) == len([alt for alt in found if alt.strip()]) and len(set(probes)) > 0.8 * len(probes) > 10
    first = run.artefacts.categories.iloc[0]
    assert any(first["example_question"] in alt and first["example_target"] in alt for alt in probes)
    assert len(Elements(text).all("figcaption")) == len(Elements(text).all("figure"))


def test_headings_are_in_order_and_every_section_is_a_landmark_in_the_list_of_contents(text):
    page = Elements(text)
    levels = [int(tag[1]) for tag, *_ in page.all("h1", "h2", "h3", "h4")]
    assert levels[:2] == [1, 2] and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False)) and levels.count(1) == 1
    ids = [attributes["id"] for _, attributes, _ in page.all("h2")]
    links = [attributes["href"] for _, attributes, _ in page.all("a")]
    assert links == ["#main", *(f"#{name}" for name in ids)] and len(ids) == len(set(ids)) > 8
    assert [attributes["aria-labelledby"] for _, attributes, _ in page.all("section")] == ids
    assert [len(page.all(tag)) for tag in ("main", "header", "nav")] == [1, 1, 1] and page.all("html")[0][1]["lang"] == "en"


def test_tables_have_captions_and_what_scrolls_can_be_reached_by_keyboard(text):
    page = Elements(text)
    assert len(page.all("caption")) == len(page.all("table")) > 3
    assert all("scope" in attributes for _, attributes, _ in page.all("th"))
    scroll = [attributes for _, attributes, _ in page.found if "scroll" in attributes.get("class", "").split()]
    assert len(scroll) > 4 and all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scroll)


def luminance(colour: str) -> float:
    """Relative luminance of a colour (WCAG 2.2)."""
    parts = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(parts @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    high, low = sorted([luminance(a), luminance(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_a_contrast_of_at_least_4_5_in_light_and_in_dark():
    style = report.STYLE.read_text(encoding="utf-8")
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    light, dark = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
                   for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert light.keys() == dark.keys() and light != dark
    pairs = [(ink, ground) for ink in ("ink", "soft", "link", "right", "wrong") for ground in ("page", "card")]
    pairs += [(name, name.removesuffix("-ink")) for name in light if name.endswith("-ink")]
    poor = [(ink, ground) for colours in (light, dark) for ink, ground in pairs if contrast(colours[ink], colours[ground]) < 4.5]
    assert poor == [] and len(pairs) == 14
    seen = [(mark, ground) for colours in (light, dark) for mark in ("bar", "other", "line") for ground in ("card",)
            if contrast(colours[mark], colours[ground]) < 3]
    assert seen == []  # WCAG's limit for what is no text
    rules = re.sub(r":root \{.*?\}", "", style, flags=re.S)
    assert not re.search(r"#[0-9a-f]{3}", rules)  # no colour but those that were looked at
    assert {name for name in re.findall(r"[^-]color: var\(--([\w-]+)\)", rules)} <= {ink for ink, _ in pairs}


@pytest.fixture(scope="module")
def rendered(run, drawn, text, tmp_path_factory):
    """A browser tab, and the page as a file."""
    file = drawn / "rendered.html"
    file.write_text(text, encoding="utf-8")
    with browser.opened(tmp_path_factory.mktemp("browser")) as tab:
        yield tab, file


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_sideways_at_any_width_and_dark_differs_from_light(rendered, width):
    tab, file = rendered
    shots = {}
    for dark in (False, True):
        tab.open(file, width, dark)
        assert tab.run("document.documentElement.scrollWidth") == width
        outside = ("[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && "
                   "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))")
        assert tab.run(outside) == []
        shots[dark] = np.asarray(Image.open(BytesIO(tab.picture(1500))).convert("L"), float)
        assert shots[dark].shape == (1500, width)
    assert shots[False].mean() > 200 and shots[True].mean() < 80
    tab.open(file, width)
    again = np.asarray(Image.open(BytesIO(tab.picture(1500))).convert("L"), float)
    assert np.array_equal(again, shots[False])


@needs_browser
def test_in_print_no_card_is_torn_from_its_pictures_and_the_colours_are_light(rendered):
    tab, file = rendered
    tab.open(file, 700, dark=True, media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    kept = tab.run("[...document.querySelectorAll('.card, figure')].map(e => getComputedStyle(e).breakInside)")
    assert len(kept) > 10 and set(kept) == {"avoid"}
    assert len(re.findall(rb"/Type\s*/Page\b", tab.pdf())) > 2


@needs_browser
def test_the_keyboard_reaches_the_skip_link_first_and_it_is_then_seen(rendered):
    tab, file = rendered
    tab.open(file, 800)
    place = "document.querySelector('.skip').getBoundingClientRect().left"
    assert tab.run(place) < 0
    for kind in ("rawKeyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert tab.run("document.activeElement.className") == "skip" and tab.run(place) >= 0


# bytes


def coloured_noise(width: int, height: int) -> Image.Image:
    """What no format makes much smaller."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_page_is_the_same_bytes_each_time(page, text):
    assert page() == text


def test_a_page_of_photographs_stays_below_10_megabytes(text):
    worst = len(report.thumbnail(coloured_noise(640, 480)))  # noise is what takes most room
    figures = sum(len(src) for _, attributes, _ in Elements(text).all("img") if len(src := attributes["src"]) > 30_000)
    assert worst * (report.CARDS * report.EXAMPLES + 2 * report.PAIRS) + 2 * figures < 10e6 and figures > 60_000


def test_photographs_are_made_small_as_jpeg_and_drawings_stay_sharp():
    photograph = coloured_noise(640, 320)
    shown = report.thumbnail(photograph)
    assert shown.startswith("data:image/jpeg;base64,") and opened(shown).size == (320, 160) and photograph.size == (640, 320)
    drawing = Image.new("RGB", (480, 480), "teal")
    drawing.paste("red", (100, 100, 300, 300))
    few = report.thumbnail(drawing)
    assert few.startswith("data:image/png;base64,") and opened(few).convert("RGB").getpixel((120, 120)) == (255, 0, 0)
    tiny = coloured_noise(48, 48)
    assert np.array_equal(opened(report.thumbnail(tiny)), tiny)  # what the models saw, to the pixel


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.partition(",")[2])))


# sentences of `findings`


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
    assert "whether the only reference is fit" in findings.agreement(alone)[1]
    assert "one reference alone" in findings.certainty(made.failures, alone)
    rows = made.search.query("kind == 'all' or auditor == 'random'").set_index("auditor")
    assert findings.cost(made) == (
        "The search took 24,000 calls of the target, 20,000 of them to train the auditor and 4,000 to probe with all methods: "
        f"{24000 / len(made.failures):.0f} for each suspicion found. With its training the trained auditor took "
        f"{21000 / rows.loc['trained', 'disagrees']:.1f} for each of its own, random questions "
        f"{1000 / rows.loc['random', 'disagrees']:.1f}.")


def test_without_a_type_the_advice_is_to_look_longer_or_at_the_few(run):
    made = synthetic.unverified(run)
    none = replace(made, categories=made.categories.head(0))
    assert "too few alike" in findings.advice(none)
    assert "No type of suspicion was found in" in findings.advice(replace(none, failures=made.failures.head(0)))


def test_the_report_orders_types_the_same_whatever_the_order_of_rows(run):
    made = run.artefacts
    shuffled = run.altered(failures=made.failures.sample(frac=1, random_state=4),
                           confirmation=made.confirmation.sample(frac=1, random_state=5))
    assert report_text.types(shuffled)["category"].tolist() == report_text.types(made)["category"].tolist()
