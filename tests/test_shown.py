"""Texts by models and users: every one can be drawn, none acts in Markdown, HTML or a spreadsheet, all survive their file."""

import ast
import io
from html.parser import HTMLParser

import mistune
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from auditdm_lib import paths, shown
from auditdm_lib.results import figures, paper_style, tables
from auditdm_lib.run import params
from auditdm_lib.taxonomy import names, report

ANY = st.text(st.characters(codec=None))  # lone surrogates, control characters and private use among them
HOSTILE = ["\ufeff", "\ud800", "a\0b\x1b[31m", "\ue000\U000f0000", "\u202eabc\u202c", "שלום عليكم", "👩‍👩‍👧 😀", "漢字かな한글",
           "z" + "\u0301" * 500, "what is $x^2^3$?", "$", r"\frac{1}{2} $\frac{$", "x" * 5000, "a\rb\tc\nd\u2028e",
           "\ufffe\uffff", "\u0600\u06dd", "क्षत्रिय", "ﷺ", "\u115f\u3164", "", " "]


def hostile(test):
    for text in HOSTILE:
        test = example(text)(test)
    return test


def draw(text: str) -> Figure:
    with figures.matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(16, 3))
        axis = figure.add_subplot()
        axis.set_title(shown.drawable(text, 40), parse_math=False)
        axis.set_yticks([0], [shown.drawable(text, 40)])
    return figure


@pytest.mark.filterwarnings("error")
@hostile
@given(ANY)
@settings(deadline=None, max_examples=60)
def test_any_text_is_drawn_to_both_formats_without_a_warning(text):
    figure = draw(text)
    for form in ("pdf", "png"):
        figure.savefig(io.BytesIO(), format=form)


@given(ANY | st.sampled_from(HOSTILE), st.integers(4, 60))
@settings(deadline=None)
def test_a_drawable_text_is_one_line_of_bounded_length_and_stays_as_it_is(text, most):
    once = shown.drawable(text, most)
    assert len(once) <= most and once == once.strip() and once.isprintable()
    assert shown.drawable(once, most) == once


@pytest.mark.filterwarnings("error")
def test_every_character_that_is_kept_has_a_glyph_in_both_formats():
    kept = [chr(i) for i in range(0x110000) if shown.drawable(chr(i)) == chr(i)]
    assert len(kept) > 5000
    figure = Figure(figsize=(40, 40))
    for i in range(0, len(kept), 100):
        figure.text(0, i / len(kept), "".join(kept[i:i + 100]), parse_math=False, family=shown.FONT)
    for form in ("pdf", "png"):
        figure.savefig(io.BytesIO(), format=form)


def test_plain_texts_are_drawn_as_they_are():
    for text in ("what colour is the umbrella?", "is it 5 % or $5?", "naïve café, Ωμέγα, Жук", "a – b … “c”"):
        assert shown.drawable(text) == text
    assert shown.drawable("one two three four", 12) == "one two …"
    assert shown.drawable("x" * 50, 10) == "x" * 8 + " …"
    assert shown.drawable("漢a") == "\ufffda" and shown.drawable(None) == "None"


@pytest.mark.filterwarnings("error")
@given(st.lists(ANY.filter(bool), min_size=3, max_size=3))
@settings(deadline=None, max_examples=15)
def test_every_figure_with_texts_of_models_can_be_drawn(texts):
    question, right, wrong = texts
    table = pd.DataFrame([dict(name=question, size=3, share=1.0, example_question=question, example_consensus=right,
                               example_target=wrong)])
    items = pd.DataFrame([dict(model=model, suite="own", item=str(i), group=str(i), metric="exact_match", skill=question,
                               gap=None, correct=model == "target", score=float(model == "target"))
                          for model in ("target", "reference_1") for i in range(3)])
    for figure in (figures.fig_categories(table), figures.fig4_failure_shares(items),
                   figures.fig4_failure_shares(items.assign(correct=True))):
        with figures.matplotlib.rc_context(figures.STYLE):
            figure.savefig(io.BytesIO(), format="pdf")
        paper_style.png(figure)


# Markdown

MARKUP = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "![x](http://example.org/x.png)",
          "[x](javascript:alert(1))", "http://example.org", "www.example.org", "<http://example.org>", "a@example.org",
          "# head", "- item", "1. item",
          "a\n\n# head\n\n<b>", "| a | b |\n|---|---|\n| c | d |", "`code`", "**bold** _it_ ~~no~~", "```\nx\n```", "\\<script>",
          "&lt;script&gt;", "&#60;script&#62;", "[a]: http://example.org", "a\n===", "$$x$$", "\\[x\\]", "- [ ] task", "[^1]",
          "***", "+ item", "> quote", "    code", "https\\://example.org", "ftp://example.org", "mailto:a@example.org"]


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def rendered(markdown: str) -> list[Page]:
    github = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    jupyter = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url", "footnotes", "math", "task_lists"])
    return [Page(github.render(markdown)), Page(jupyter(markdown))]


@pytest.mark.parametrize("text", MARKUP)
def test_texts_are_inert_in_markdown(text):
    for before in ("", "## 1. ", "He said "):
        for page in rendered(before + shown.inert(text)):
            assert page.tags <= {"p", "h2"}
            assert shown.one_line(text) in page.text


@given(st.text("<>&[]()!`*_#|~\\$:/.@-+=1a \n", max_size=30))
@settings(max_examples=500, deadline=None)
def test_no_mixture_of_signs_is_markup(text):
    for page in rendered("## 1. x " + shown.inert(text)):
        assert page.tags == {"h2"}


NOBODY_ASKED = pd.DataFrame(columns=["skill", "probes", "disagrees"])


def failures(text: str) -> pd.DataFrame:
    texts = pd.DataFrame(dict(question=[text] * 9, consensus=text, target_answer=f"no {text}"), dtype=object)
    return texts.assign(probe_id=[f"p{i}" for i in range(9)], category=0, skill="name of a thing")


@pytest.mark.parametrize("text", [*MARKUP, *(text for text in HOSTILE if text.strip() and "\ud800" not in text)])
def test_the_report_of_failure_types_shows_texts_and_obeys_none(text):
    clustered = failures(text)
    markdown = report.written(clustered, names.categories(clustered), None, NOBODY_ASKED)
    assert markdown.encode()
    for page in rendered(markdown):
        assert page.tags <= {"h1", "h2", "p", "ul", "ol", "li"}


@pytest.mark.parametrize("turn", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_no_text_turns_a_line_round(turn):
    assert shown.inert(f"red{turn}eulb שלום") == shown.one_line(f"red{turn}eulb שלום") == "redeulb שלום"
    clustered = failures(f"is it {turn}der?")
    table = names.categories(clustered)
    assert turn not in report.written(clustered, table, None, NOBODY_ASKED)
    assert turn not in table["name"][0] + table["description"][0]


# Spreadsheets

@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "@SUM(A1)", '=HYPERLINK("http://example.org","x")', "+1+1", "-2+3",
                                  "\t=1", "\r=1", "\n=1", "＝1+1"])
def test_formulas_are_texts_and_numbers_stay_numbers(tmp_path, text):
    table = pd.DataFrame(dict(name=[text, "a = b"], kind=pd.Categorical([text, "x"]), change=[-1.5, 2.0], n=[-1, 1],
                              right=[True, False], none=[None, np.nan]))
    tables.write(table, tmp_path, "table")
    read = pd.read_csv(tmp_path / "table.csv")
    assert read["name"].tolist() == [f"'{text}", "a = b"] == read["kind"].replace("x", "a = b").tolist()
    assert read[["change", "n", "right"]].equals(table[["change", "n", "right"]])
    assert table["name"][0] == text  # the table itself is as it was


@hostile
@given(ANY)
@settings(deadline=None)
def test_what_people_open_has_one_row_for_each_and_the_whole_text(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    shown.write_csv(pd.DataFrame(dict(text=pd.Series([text, "b"], dtype=object), n=[1, 2])), path)
    read = pd.read_csv(path, keep_default_na=False)
    right = text.encode("utf-8", "replace").decode().replace("\0", shown.UNKNOWN)
    assert read["n"].tolist() == [1, 2] and read["text"].tolist() in ([right, "b"], [f"'{right}", "b"])


def test_a_table_without_odd_texts_has_the_bytes_it_always_had(tmp_path):
    table = pd.DataFrame(dict(a=["x", 'say "y"', None], b=[-1.0, np.nan, 2.5]))
    shown.write_csv(table, tmp_path / "a.csv")
    table.to_csv(tmp_path / "b.csv", index=False)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_failure_types_are_read_back_as_they_were_whatever_their_texts(tmp_path):
    made = pd.concat([names.categories(failures(text)) for text in ("a\rb", "=1+1", "\ufeff", "None", "", "a,\"b\"\n")])
    made.to_parquet(tmp_path / "categories.parquet", index=False)
    assert pd.read_parquet(tmp_path / "categories.parquet").equals(made.reset_index(drop=True))


# Notebooks

@pytest.mark.parametrize("notebook", sorted(paths.NOTEBOOKS.glob("0*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_draw_texts_of_models_as_text_only(notebook):
    for cell in params.code_cells(notebook):
        for call in (node for node in ast.walk(ast.parse(cell["source"])) if isinstance(node, ast.Call)):
            drawn = getattr(call.func, "attr", "") in ("set_title", "suptitle", "text", "annotate", "set_xlabel", "set_ylabel")
            if drawn and not all(isinstance(text, ast.Constant) for text in call.args):
                words = ast.unparse(call)
                assert "drawable(" in words and "parse_math=False" in words, words


def test_the_notebooks_texts_for_people_are_written_safely():
    for name, line in (("00_start_here", 'write_csv(answers, stage.out / "answers.csv")'),
                       ("03_cluster_failures", 'write_csv(table, stage.out / "categories.csv")')):
        assert line in "".join(cell["source"] for cell in params.code_cells(paths.NOTEBOOKS / f"{name}.ipynb"))
