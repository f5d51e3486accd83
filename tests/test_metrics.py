"""Each metric against its owner's values, and against cases worked out by hand."""

import csv
import json
import math
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib import boxes
from auditdm_lib.evaluate import captions, metrics, vqa

BOX = st.tuples(*[st.floats(0, 1)] * 4).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
with (Path(__file__).parent / "cases_metrics.csv").open(encoding="utf-8", newline="") as file:
    CASES = [(row["metric"], json.loads(row["input"]), json.loads(row["expected"])) for row in csv.DictReader(file)]
# what people and models write, to be put together at random: marks, numbers, letters of options, words that scripts look for
PIECES = st.lists(st.sampled_from([
    *"ABbaI.,;:!?()[]{}'\"%$*-+/<>\n\t 07", "1,000", "3.5", "-", " ", " not ", " no", "yes", "The answer is ", "<answer>",
    "</answer>",
    "\\boxed{", "option ", "red", "two", "cant", "n't", "'s", "\u2019", "\uff22", "\u9009", "<loc0100>", "nan", "1e400",
    "inf", "%"]),
    max_size=12).map("".join)
ANY = st.one_of(st.text(), PIECES)


def test_there_are_values_of_every_metric():
    counts = {metric: sum(m == metric for m, _, _ in CASES) for metric, _, _ in CASES}
    assert len(CASES) == 354 and min(counts.pop(name) for name in ["location"]) == 1 and min(counts.values()) > 8
    assert set(counts) == {"vqa_accuracy", "anls", "relaxed_accuracy", "iou", "choice", "pope", "mme", "exact_match",
    "cider_d"}


@pytest.mark.parametrize("metric, given, expected", [
    pytest.param(*case, id=f"{case[0]}-{json.dumps(case[1])[:50]}") for case in CASES])
def test_a_metric_has_its_owner_s_value(metric, given, expected):
    if metric in ("pope", "mme", "location"):
        assert (boxes.location if metric == "location" else getattr(metrics, metric))(given) == expected
    elif metric == "choice":
        assert metrics.choice(*given) == expected
    else:  # printed with three or four decimals
        value = getattr(metrics, metric)(*given)
        assert (np.mean(value) if np.ndim(expected) == 0 else value) == pytest.approx(expected, abs=5e-4)


@given(ANY, st.lists(ANY, min_size=1, max_size=4))
def test_no_text_breaks_a_metric_and_scores_lie_between_0_and_1(prediction, answers):
    for metric in (metrics.exact_match, metrics.vqa_accuracy, metrics.anls, metrics.relaxed_accuracy, metrics.iou):
        assert 0 <= metric(prediction, answers) <= 1
    for said in ("yes", "no"):
        assert metrics.polled(prediction, [said]) in (0, 1) and metrics.polled_by_mme(prediction, [said]) in (0, 1)
    assert metrics.pope(prediction) in ("yes", "no") and metrics.mme(prediction) in ("yes", "no", "other")
    assert 0 <= metrics.cider_d([prediction, "a"], [answers, ["b"]])[0] <= 10 + 1e-9


@pytest.mark.parametrize("nothing", ["", " ", "\n\t"])
def test_an_empty_answer_is_right_only_where_the_owner_s_script_says_so(nothing):
    for metric in (metrics.exact_match, metrics.anls, metrics.iou, metrics.polled, metrics.polled_by_mme):
        for answer in ("", "the", "yes", "no", "<loc0000><loc0000><loc0000><loc0000>"):
            assert metric(nothing, [answer]) == 0
    assert metrics.choice(nothing, ["", "red"]) is None
    assert metrics.vqa_accuracy(nothing, ["the"] * 10) == metrics.relaxed_accuracy("", [""]) == 1


@pytest.mark.parametrize("prediction, answer, worth", [
    ("RED .", "red", 1), ("dark  red", "Dark red", 1), ("U.S", "u.s.", 1), ("?", "?", 1), ("the cup", "cup", 0),
    ("two", "2", 0),
    ("1,234.5", "1234.50", 1), ("2,5", "25", 0), ("2,5", "2.5", 0), ("+7", "7", 1), ("5 %", "5", 0), ("nan", "NaN", 1),
    ("3.14159", "3.14", 1), ("3.15", "3.14", 0)])
def test_exact_match_looks_through_case_blanks_final_marks_and_the_notation_of_a_number(prediction, answer, worth):
    assert metrics.exact_match(prediction, ["white", answer]) == worth


@pytest.mark.parametrize("agree, worth", [
    (0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_leaves_each_of_ten_annotators_out(agree, worth):
    # two agree: leaving one of them out leaves 1/3 (twice), leaving another out 2/3 (eight times): (2/3 + 16/3) / 10 = 0.6
    answers = ["Two"] * agree + [f"other {i}" for i in range(10 - agree)]
    assert metrics.vqa_accuracy("2.", answers) == pytest.approx(worth)


@pytest.mark.parametrize("answer, written", [
    ("The Two.", "2"), ("none", "0"), ("t-shirt", "t shirt"), ("hot- dog", "hot dog"), ("1,000 t-shirts", "1000 tshirts"),
    ("2 p.m.", "2 pm"), ("3.5", "3.5"), ("dont", "don't"), ("shouldnt've", "should" + "n't've"),
    ("shouldn'tve", "shouldn't've"),
    ("shouldntve", "shouldntve"), ("somebody'd", "somebodyd"), ("yall'd've", "y'all'd've"), ("ow's'at", "'ow's'at"),
    ("lets", "lets"),
    ("im", "im"), (" an\tapple\n", "apple"), ("." * 40, "." * 8)])  # the script takes 32 points away
def test_an_answer_is_written_as_vqa_s_script_writes_it(answer, written):
    assert vqa.written(answer) == written


@pytest.mark.parametrize("prediction, answers, worth", [
    ("EXIT", ["exit"], 1), ("exot", ["exit"], 1 - 1 / 4), ("taxis", ["taxi"], 1 - 1 / 5), ("exxx", ["exit"], 0.5),
    ("axxx", ["exit"], 0),  # similarity 1/4 lies below the threshold of 1/2
    ("7", ["seven", "7"], 1), ("", ["tea"], 0), ("tex", ["tea", "text"], 1 - 1 / 4)])
def test_anls_is_one_less_edits_by_length_to_the_nearest_answer(prediction, answers, worth):
    assert metrics.anls(prediction, answers) == pytest.approx(worth)


@pytest.mark.parametrize("prediction, answer, worth", [
    ("4", "four", 0), ("4.2", "4", 1), ("4.2000001", "4", 0), ("3.8", "4", 1), ("3.79", "4", 0), ("40 %", "0.41", 1),
    ("40 %", "41", 0), ("0.01", "0", 0), ("-0.0", "0", 1), ("0.0%", "0%", 1), ("0%", "0.0", 0), ("Left", "left", 1),
    ("left ", "left", 0), ("nan", "4", 0), ("nan", "nan", 0), ("4", "inf", 0), ("-4", "4", 0), ("1_0", "10", 1),
    ("%", "%", 1)])
def test_relaxed_accuracy_forgives_five_percent_of_the_right_number_and_no_letter(prediction, answer, worth):
    # 5 % of 4 is 0.2; of 0.41, 0.0205; of 0, nothing
    assert metrics.relaxed_accuracy(prediction, ["none of these", answer]) == worth


@given(st.integers(1, 10**6), st.integers(-6, 6))
def test_exactly_five_percent_counts_whatever_the_digits(n, scale):
    right, low, high = (f"{20 * n + part}e{scale}" for part in (0, -n, n))  # n is 5 % of 20 n
    assert metrics.relaxed_accuracy(low, [right]) == metrics.relaxed_accuracy(high, [right]) == 1
    assert metrics.relaxed_accuracy(f"{21 * n}.001e{scale}", [right]) == 0


OPTIONS = ["red", "blue", "a star", "two"]


@pytest.mark.parametrize("prediction, letter", [
    # by letter, in every notation
    (" b. ", "B"), ("(b).", "B"), ("b) the Blue", "B"), ("B.blue", "B"), ("b, red", "B"), ("**B.** The cup", "B"),
    ("B\n\nIt is", "B"),
    ("(A) blue", "A"), ("a: blue", "A"), ("\\boxed{\\text{B}}", "B"), ("<answer>b</answer> C", "B"), ("answer B", "B"),
    ("Final answer: B", "B"), ("I would go with B", "B"), ("The answer is probably B.", "B"), ("option b is correct", "B"),
    ("After checking, C.", "C"), ("It is above the table.\nB", "B"), ("\u7b54\u6848\u662fB\u3002", "B"),
    # the last declaration decides, also where it names nothing
    ("I choose A. Actually, the answer is B.", "B"), ("A. Red\nB. Blue\nAnswer: C", "C"), ("The answer is B.\n(D)", "B"),
    ("I pick B. Final answer: E", None), ("Answer: C\nFinal answer: unknown", None),
    ("<answer>B</answer><answer></answer>", None),
    # a letter that is refused
    ("C is incorrect, B", "B"), ("not A but B", "B"),
    # an article is no letter
    ("A blue car", "B"), ("a star", "C"), ("The answer is a star.", "C"), ("A triangle has three sides.", None),
    ("I saw it", None),
    ("A is correct", "A"), ("a because of it", "A"), ("The answer is a", "A"), ("A red", "A"),
    # no part of a word, a name, an address
    ("bb", None), ("ID_B. See", None), ("https://example.org/B.", None), ("Contact b@example.org.", None),
    ("The answer is DNA.", None),
    # several
    ("A/B", None), ("The answer is A or B.", None), ("B or maybe C", None), ("(A) or (D)", None), ("A. A dog\nB. A cat", None),
    ("B\nD", None), ("red, blue", None),
    # by text
    ("There are 2.", "D"), ("The Blue!", "B"), ("blues", "B"), ("blue-ish", None), ("cannot tell", None), ("()", None),
    ("the answer", None),
    ("I'm sorry, but without the image provided, blue", None)])
def test_a_choice_is_named_by_letter_or_by_text(prediction, letter):
    assert metrics.choice(prediction, OPTIONS) == letter


def test_options_are_told_apart_where_one_is_a_part_of_another():
    assert metrics.choice("It is dark red.", ["red", "dark red"]) == "B"
    assert metrics.choice("It is -5.", ["5", "-5"]) == metrics.choice("It is 10%.", ["10", "10%"]) == "B"
    assert metrics.choice("It costs $5.", ["5", "$5"]) == metrics.choice("c++", ["C", "C++"]) == "B"
    assert metrics.choice("The answer is both A and B", ["red", "both A and B"]) == "B"
    assert metrics.choice("E", ["e", "f"]) == "A" and metrics.choice("red", ["red", "red"]) is None


def test_more_than_eight_options_have_letters_too_and_i_is_a_pronoun():
    assert metrics.choice("option 27", [f"option {i}" for i in range(30)]) is None
    assert metrics.choice("I", list("uvwxyzrst")) == "I" and metrics.choice("I cannot tell", list("uvwxyzrst")) is None


@given(ANY, st.lists(ANY, min_size=2, max_size=30))
def test_any_text_names_one_choice_or_none(prediction, options):
    assert metrics.choice(prediction, options) in {None, *string.ascii_uppercase[:len(options)]}


@given(st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "The answer is {}.", "Answer: {}", "**{}**",
    "\\boxed{{{}}}", "{}) it"]),
       st.booleans())
def test_every_letter_is_read_in_every_notation(place, form, lower):
    letter = "ABCD"[place]
    assert metrics.choice(form.format(letter.lower() if lower else letter), OPTIONS) == letter


def test_a_poll_is_right_where_its_script_reads_the_item_s_answer():
    assert metrics.polled("There is none.", ["yes"]) == metrics.polled("I cannot tell.", ["yes"]) == 1  # as the script has it
    assert metrics.polled_by_mme("There is none.", ["no"]) == metrics.polled_by_mme("I think yes", ["yes"]) == 0
    assert metrics.polled_by_mme("Nothing", ["no"]) == metrics.polled_by_mme("Y.", ["yes"]) == 1


def test_a_location_is_y_before_x_in_bins_of_the_picture():
    # 0.25 x 1023 = 255.75, 0.5 x 1023 = 511.5 (to even), 0.75 x 1023 = 767.25
    assert boxes.location((0.25, 0, 0.5, 0.75)) == "<loc0000><loc0256><loc0767><loc0512>"
    box = boxes.located("<loc0000><loc0256><loc0767><loc0512> cup")
    assert np.array(box, float) == pytest.approx((0.25, 0, 0.5, 0.75), abs=1e-3)


def test_a_box_in_brackets_is_x_before_y_in_fractions_of_the_picture():
    assert boxes.located("It is at [0.25, 0, 0.5,0.75].") == (0.25, 0, 0.5, 0.75)
    assert boxes.located("[0, 0, 1, 1] <loc0000><loc0000><loc0000><loc0000>") == (0, 0, 0, 0)  # tokens first
    for other in ("[25, 0, 50, 75]", "[-0.1, 0, 0.5, 0.5]", "[0.1, 0.2, 0.3]", "(0, 0, 1, 1)"):
        assert boxes.located(other) is None


@given(BOX)
def test_a_location_reads_back_within_half_a_bin(box):
    assert np.allclose(np.array(boxes.located(boxes.location(box)), float), box, atol=0.5 / 1023 + 1e-9)


@pytest.mark.parametrize("text", ["", "top left", "<loc0000><loc0256><loc0767>", "<loc0000><loc0256><loc0767><loc1024>",
                                  "<loc0><loc1><loc2><loc3>"])
def test_a_text_without_four_tokens_has_no_box_and_scores_nothing(text):
    assert boxes.located(text) is None and metrics.iou(text, ["<loc0000><loc0000><loc0511><loc0511>"]) == 0


def test_iou_is_the_common_area_over_the_joint_one():
    # 2 x 2 squares one step apart: 1 in common of 4 + 4 - 1 = 7; a step is 100 bins
    a, b = "<loc0000><loc0000><loc0200><loc0200>", "<loc0100><loc0100><loc0300><loc0300>"
    assert metrics.iou(a, [b]) == pytest.approx(1 / 7) and metrics.iou(a, [a]) == 1
    assert metrics.iou("<loc0400><loc0400><loc0500><loc0500>", [a]) == 0  # apart
    assert metrics.iou("<loc0200><loc0200><loc0000><loc0000>", [a]) == 0  # corners the wrong way round hold no area


@given(st.integers(0, 23), st.integers(1, 500), st.integers(0, 23), st.integers(1, 1000))
def test_an_iou_of_one_half_is_one_half(y, height, x, width):
    whole = f"<loc{y:04d}><loc{x:04d}><loc{y + 2 * height:04d}><loc{x + width:04d}>"
    assert metrics.iou(f"<loc{y:04d}><loc{x:04d}><loc{y + height:04d}><loc{x + width:04d}>", [whole]) == 0.5


@pytest.mark.parametrize("caption, words", [
    ("It's a (very) old U.S. t-shirt, 100% red.", "it 's a ( very ) old u.s. t-shirt 100 % red"),
    ("I can't, won\u2019t and don't; cannot", "i ca n't wo n't and do n't can not"),
    ("The dogs' bowl, a dog's bowl", "the dogs bowl a dog 's bowl"), ("Mr. Smith at 9:30 a.m.", "mr. smith at 9:30 a.m."),
    ("1/2 of 1,000 and -5, .5 or 5.", "1/2 of 1,000 and -5 .5 or 5"),
    ("$5.50 or \u20ac6 and \u00a37", "$ 5.50 or $ 6 and # 7"),
    ("black/white and/or 3d 5th 10x10", "black/white and/or 3d 5th 10x10"),
    ("R&B, AT&T and rock & roll", "r&b at&t and rock & roll"),
    ("a sign says \u201cSTOP\u201d", "a sign says stop"), ("yes--no - wait... what?! no!!", "yes no wait what ?! no !!"),
    ("an 80's car, '80s, o'clock", "an 80 's car '80s o'clock"), ("she'd've been they're", "she 'd 've been they 're"),
    ("a dog. a cat,bird", "a dog a cat bird"), ("grey colour", "grey colour"), ("", "")])
def test_a_caption_is_split_as_coco_caption_splits_it(caption, words):  # by Stanford's PTBTokenizer 3.4.1, ( is -lrb- there
    assert captions.words(caption) == words.split()


def test_cider_d_of_the_reference_itself_is_ten_where_all_n_grams_can_be_had():
    # every n-gram stands in one of two pictures, so each has weight log 2 and each cosine is 1: 10 x (1+1+1+1) / 4;
    # a reference of two words has no 3- and 4-grams: 10 x (1+1+0+0) / 4
    assert metrics.cider_d(["A b c d.", "x y"], [["a b c d"], ["x y"]]) == pytest.approx([10, 5])


def test_cider_d_clips_repeats_and_punishes_length():
    # "a a" against "a b": unigram vectors (2w, 0) and (w, w), clipped product w x w, norms 2w and w sqrt 2: 1 / (2 sqrt 2);
    # no common bigram. The lengths in bigrams are equal, so there is no penalty.
    assert metrics.cider_d(["a a", "z"], [["a b"], ["z"]])[0] == pytest.approx(10 / 4 / (2 * math.sqrt(2)))
    # "a b c" against "a b": unigrams 2 w^2 / (w sqrt 3 x w sqrt 2), bigrams w^2 / (w sqrt 2 x w), trigrams 0; one bigram more
    cosines = 2 / math.sqrt(6) + 1 / math.sqrt(2)
    assert metrics.cider_d(["a b c", "z"], [["a b"], ["z"]])[0] == pytest.approx(10 / 4 * cosines * math.exp(-1 / 72))


def test_cider_d_gives_nothing_for_what_every_picture_has():
    # "a" is in both pictures: log(2 / 2) = 0; "b" is in one: the unigram cosine of "a b" and "b" is 1; penalty for one bigram
    scores = metrics.cider_d(["b", "a"], [["a b"], ["a c"]])
    assert scores == pytest.approx([10 / 4 * math.exp(-1 / 72), 0])
    assert metrics.cider_d(["a b"], [["a b"]]).tolist() == [0]  # one picture alone: log 1 = 0
    assert metrics.cider_d([""], [[""]]).tolist() == [0]


def test_cider_d_is_the_mean_over_the_references():
    one, other = metrics.cider_d(["a b c d", "x"], [["a b c d"], ["x"]])[0], 0
    assert metrics.cider_d(["a b c d", "x"], [["a b c d", "e f g h"], ["x"]])[0] == pytest.approx((one + other) / 2)


def test_cider_d_wants_references_for_each_caption():
    with pytest.raises(ValueError, match="2 captions but 1"):
        metrics.cider_d(["a", "b"], [["a"]])
