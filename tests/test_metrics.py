"""Each metric against cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib import answers
from auditdm_lib.evaluate import metrics

BOX = st.tuples(*[st.floats(0, 1)] * 4).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))


def test_exact_match_takes_any_accepted_answer_whatever_case_article_and_number_word():
    assert metrics.exact_match("The Two.", ["2"]) == metrics.exact_match("grey", ["white", "gray"]) == 1
    assert metrics.exact_match("", ["red"]) == metrics.exact_match("dark red", ["red"]) == 0


@pytest.mark.parametrize("agree, worth", [
    (0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_leaves_each_of_ten_annotators_out(agree, worth):
    # two agree: leaving one of them out leaves 1/3 (twice), leaving another out 2/3 (eight times): (2/3 + 16/3) / 10 = 0.6
    answers = ["Two"] * agree + [f"other {i}" for i in range(10 - agree)]
    assert metrics.vqa_accuracy("2.", answers) == pytest.approx(worth)


@pytest.mark.parametrize("prediction, answers, worth", [
    ("EXIT", ["exit"], 1), ("exot", ["exit"], 1 - 1 / 4), ("taxis", ["taxi"], 1 - 1 / 5), ("exxx", ["exit"], 0.5),
    ("axxx", ["exit"], 0),  # similarity 1/4 lies below the threshold of 1/2
    ("7", ["seven", "7"], 1), ("", ["tea"], 0), ("tex", ["tea", "text"], 1 - 1 / 4)])
def test_anls_is_one_less_edits_by_length_to_the_nearest_answer(prediction, answers, worth):
    assert metrics.anls(prediction, answers) == pytest.approx(worth)


@pytest.mark.parametrize("prediction, answer, worth", [
    ("4", "four", 1), ("four", "4", 1), ("4.2", "four", 1), ("4.21", "four", 0), ("3.8", "4", 1), ("3.79", "4", 0),
    ("40 %", "41", 1), ("zero", "0", 1), ("0.01", "0", 0), ("left", "left", 1), ("Left.", "left", 1), ("left", "right", 0),
    ("", "four", 0), ("eighteen", "17.5", 1), ("nan", "4", 0), ("-4", "4", 0)])
def test_relaxed_accuracy_forgives_five_percent_of_the_right_number_and_no_letter(prediction, answer, worth):
    # 5 % of 4 is 0.2; of 41, 2.05; of 0, nothing; of 17.5, 0.875
    assert metrics.relaxed_accuracy(prediction, [answer]) == worth


@pytest.mark.parametrize("prediction", [
    "B", "b", " b. ", "(B)", "(b).", "B. blue", "b) the Blue", "B: blue", "blue", "Blue.", "B\nblue"])
def test_a_choice_is_named_by_letter_by_text_or_by_both(prediction):
    assert metrics.choice(prediction, ["red", "blue", "a star", "two"]) == "B"


@pytest.mark.parametrize("prediction", [
    "", "E", "B. red", "A. blue", "(A) blue", "a: blue", "red or blue", "bb", "b, red", "cannot tell", "the answer", "()"])
def test_anything_else_names_no_choice(prediction):
    assert metrics.choice(prediction, ["red", "blue", "a star", "two"]) is None


def test_an_article_is_no_letter_and_numbers_match_as_words():
    options = ["red", "blue", "a star", "two"]
    assert [metrics.choice(text, options) for text in ("a", "a star", "star", "2", "d")] == ["A", "C", "C", "D", "D"]


@given(st.text(), st.lists(st.text(), min_size=2, max_size=4))
def test_any_text_names_one_choice_or_none(prediction, options):
    assert metrics.choice(prediction, options) in {None, *answers.LETTERS[:len(options)]}


@pytest.mark.parametrize(("text", "said"), [
    ("yes", "yes"), ("Yes, there is a red cup.", "yes"), ("No.", "no"), ("there is not. yes", "no"), ("it is", "yes"),
    ("nothing", "yes"), ("", ""), ("cannot tell", "")])
def test_a_poll_is_read_as_pope_s_script_does_but_for_one_who_declines(text, said):
    assert metrics.yes_no(text) == said
    assert metrics.polled(text, ["yes"]) == (said == "yes") and metrics.polled(text, ["no"]) == (said == "no")


def test_a_location_is_y_before_x_in_bins_of_the_picture():
    # 0.25 x 1023 = 255.75, 0.5 x 1023 = 511.5 (to even), 0.75 x 1023 = 767.25
    assert answers.location((0.25, 0, 0.5, 0.75)) == "<loc0000><loc0256><loc0767><loc0512>"
    assert answers.located("<loc0000><loc0256><loc0767><loc0512> cup") == pytest.approx((0.25, 0, 0.5, 0.75), abs=1e-3)


@given(BOX)
def test_a_location_reads_back_within_half_a_bin(box):
    assert np.allclose(answers.located(answers.location(box)), box, atol=0.5 / 1023 + 1e-9)


@pytest.mark.parametrize("text", ["", "top left", "<loc0000><loc0256><loc0767>", "<loc0000><loc0256><loc0767><loc1024>",
                                  "<loc0><loc1><loc2><loc3>"])
def test_a_text_without_four_tokens_has_no_box_and_scores_nothing(text):
    assert answers.located(text) is None and metrics.iou(text, ["<loc0000><loc0000><loc0511><loc0511>"]) == 0


def test_iou_is_the_common_area_over_the_joint_one():
    # 2 x 2 squares one step apart: 1 in common of 4 + 4 - 1 = 7; a step is 100 bins
    a, b = "<loc0000><loc0000><loc0200><loc0200>", "<loc0100><loc0100><loc0300><loc0300>"
    assert metrics.iou(a, [b]) == pytest.approx(1 / 7) and metrics.iou(a, [a]) == 1
    assert metrics.iou("<loc0400><loc0400><loc0500><loc0500>", [a]) == 0  # apart
    assert metrics.iou("<loc0200><loc0200><loc0000><loc0000>", [a]) == 0  # corners the wrong way round hold no area


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
