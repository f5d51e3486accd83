"""The judge D by rule and abstention: the values that a person gives, and the laws that they must keep."""

import csv
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib.answers import abstains, certainly_different, normalise, same_answer
from auditdm_lib.testbed.skills import SKILLS
from auditdm_lib.wording import NUMBER_WORDS

CASES = [(r["a"], r["b"], r["same"] == "1", r["clear"] == "1") for r in csv.DictReader(
    (Path(__file__).parent / "cases" / "judge.csv").open(encoding="utf-8", newline=""))]
LEFT = {  # a person says the same, the rules do not: left to a language model
    ("2 people", "two"), ("10.30", "10:30"),  # without the question, "2 people" would also be "2 dogs"; 10.30 is 10.3
    ("II", "2"), ("50%", "half"), ("$5", "5"), ("nothing", "none"), ("两个", "2"), ("🐶", "dog"), ("①", "1"), ("10%", "0.1"),
    ("9:30", "930")}


@pytest.mark.parametrize(("a", "b", "same", "clear"), [case for case in CASES if case[:2] not in LEFT])
def test_answers_are_judged_as_a_person_judges_them(a, b, same, clear):
    assert same_answer(a, b) == same_answer(b, a) == same


def test_what_is_left_is_never_wrongly_the_same():
    wrong = {(a, b) for a, b, same, _ in CASES if same_answer(a, b) != same}
    assert wrong == LEFT and not any(same_answer(a, b) for a, b in LEFT)
    clear = [(a, b) for a, b, _, clear in CASES if clear]
    assert len(LEFT & set(clear)) <= 0.02 * len(clear)  # the aim was a quarter


@pytest.mark.parametrize(("a", "b"), [
    ("two hundred and five", "205"), ("1.5 million", "1500000"), ("twenty-first", "21st"), ("third", "3rd"), ("½", "0.5"),
    ("half a dozen", "6"), ("quarter to nine", "8:45"), ("3:00 PM", "15:00"), ("nine o'clock", "9:00"), ("noon", "12 pm"),
    ("25 December", "December 25th"), ("July 4, 2020", "4 July 2020"), ("20 degrees Celsius", "20°C"), ("minus 3", "−3"),
    ("30 miles per hour", "30 mph"), ("6 feet", "6'"), ("5'10\"", "5 ft 10 inches"), ("5 USD", "$5"), ("No. 5", "#5"),
    ("cherries", "cherry"), ("racquet", "racket"), ("It's a cat.", "cat"), ("I see a cat", "cat"), ("The answer is 4", "4"),
    ("It appears to be red", "red"), ("a dog in the image", "dog"), ("No, it is not.", "no"),
    ("Yes, the dog is brown.", "yes"),
    ("white, red and blue", "red, white, and blue"), ("resume", "résumé"), ("१२", "12"), ("\u200bcat", "cat"), ("ＣＡＴ", "cat"),
    ("\\boxed{5}", "5"), ("on the right-hand side", "right"), ("lower left corner", "bottom left"), ("the US", "USA"),
    ("minus five", "-5"), ("two point five", "2.5"), ("1½", "1.5"), ("two thirds", "2/3"), ("a dozen", "1 dozen"), ("5k", "5000"),
    ("between 5 and 10", "5-10"), ("9 out of 10", "9/10"), ("US$5", "$5"), ("03:15", "3:15"), ("red or blue", "blue or red"),
    ("red/white", "white and red"), ("alarms", "alarm"), ("cookies", "cookie"), ("Łódź", "Lodz"),
    ("red &amp; blue", "blue and red"), ("definitely not", "no"), ("made of wood", "wood"), ("5 feet tall", "5 ft tall")])
def test_more_wordings_of_one_answer(a, b):
    assert same_answer(a, b)


@pytest.mark.parametrize(("a", "b"), [
    ("1.05", "1.5"), ("5 kg", "5 g"), ("5", "5 kg"), ("10", "10°"), ("9:30", "9:15"), ("first", "one"), ("A+", "A"),
    ("B-", "B"),
    ("no", "no one"), ("no", "no cat"), ("No. 5", "no"), ("news", "new"), ("shorts", "short"), ("glasses", "glass"),
    ("we'll", "well"), ("I'll", "ill"), ("3x4", "34"), ("2^3", "23"), (">5", "<5"), ("が", "か"), ("й", "и"),
    ("2 dogs", "2 cats"),
    ("hepatitis A", "hepatitis"), ("gate one", "gate two"), ("gate one", "gate"), ("1-0", "10"), ("2:1", "21"),
    ("9 to 5", "5 to 9"),
    ("17:00", "5:00"), ("12 am", "12 pm"), ("quarter to nine", "quarter past nine"), ("50¢", "$50"), ("½", "2"),
    ("4, 3", "3, 4"),
    ("do", "do not"), ("right", "wrong"), ("iPhone 6", "iPhone 6s"), ("US", "we"), ("AB+", "AB-"),
    ("grade A-", "grade A+"), ("18+", "18"), ("a=b", "a≠b"), ("x > 5", "x < 5"), ("x+1", "x-1"), ("2020-01-15", "2020-11-5"),
    ("3-2-1", "3-21"), ("-$5", "$5"), ("20℃", "20℉"), ("A♠", "A♥"), ("2% milk", "2 milks"), ("12\" pizza", "12 pizzas"),
    ("mummy", "mother"), ("seconds", "2nd"), ("tights", "tight"), ("3M", "3 meters"), ("not able", "notable"),
    ("B♭", "B"), ("5'", "5\""), ("a b", "b")])
def test_answers_that_differ(a, b):
    assert not same_answer(a, b)


def test_the_answers_of_the_world_keep_their_classes():
    """The shipped figures rest on the classes of the earlier match: case, punctuation, articles and number words."""
    digits = {word: str(i) for i, word in enumerate(NUMBER_WORDS)}

    def earlier(text):
        words = re.sub(f"[{re.escape(string.punctuation)}]", " ", text.lower().replace("'", "")).split()
        return " ".join(digits.get(w, w).replace("grey", "gray") for w in words if w not in ("a", "an", "the"))
    answers = sorted({answer for skill in SKILLS.values() for answer in skill.answers})
    assert len(answers) == 128
    assert all(same_answer(a, b) == (earlier(a) == earlier(b)) for a in answers for b in answers)
    assert not any(map(abstains, answers))


PIECES = ("a an the A is it not no one none yes red grey 5 -5 1,000 3.5 1/2 10% $5 € 5¢ p.m. pm kg km o'clock past ten quarter "
          "to and & , ; . ! + - # C++ A+ dogs glasses Jan January 5th of ' \" ( ) * ** ` < > / : 10:30 twenty hundred dozen half "
          "left side top upper U.S. can not don't cannot tell 🐶 是 ½ ² café").split()
ANSWERS = st.one_of(
    st.text(max_size=40), st.text("aA1.,-+/%$'\" :*and", max_size=14),
    st.lists(st.sampled_from(PIECES), max_size=8).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words)])))


@settings(max_examples=1500, deadline=None)
@given(ANSWERS)
def test_normalising_twice_changes_nothing_and_loses_no_answer(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once or abstains(text) or abstains(re.sub(r"[^a-z]", "", text.lower()))  # "n'a" becomes "na"


@settings(max_examples=300, deadline=None)
@given(ANSWERS, ANSWERS, ANSWERS)
def test_the_judge_is_an_equivalence_relation(a, b, c):
    assert same_answer(a, a) and same_answer(a, b) == same_answer(b, a)
    assert not (same_answer(a, b) and same_answer(b, c)) or same_answer(a, c)
    assert not (certainly_different(a, b) and same_answer(a, b))


@pytest.mark.parametrize(("a", "b", "certain"), [
    ("5", "6", True), ("-5", "5", True), ("yes", "No.", True), ("left", "right", True), ("two", "2", False),
    ("puppy", "dog", False),
    ("10%", "0.1", False), ("$5", "5", False), ("yes", "red", False)])
def test_what_a_rule_knows_is_not_asked_of_a_model(a, b, certain):
    assert certainly_different(a, b) == certain


DECLINING = """I cannot tell|Can't tell.|It's impossible to say from this image|I'm not sure.|I am unsure|It's unclear|unknown
I don't know|don’t know|dont know|idk|No idea|I have no idea.|N/A|not applicable|It is not visible in the image|not shown
There is not enough information to answer|Insufficient information|It can't be determined from the picture|unable to determine
I am unable to determine that|Sorry, I can't help with that.|I'm sorry, but I cannot see the image.|Unanswerable|not possible
I apologize, but I can't determine that|As an AI language model, I cannot see images.|The image doesn't show that.|can't see it
The image does not provide enough information.|It's hard to say|too dark to see|It's too blurry to tell.|illegible|can't see
The text is too small to read|I can't make it out|The question cannot be answered|none of the above|No way to tell|uncertain
There's no way to know|not specified|I honestly can't tell|I'm afraid I can't say.|Could not determine|cannot tell tell tell
I’m not certain|I need more information|Without more context, I cannot tell|I'd rather not say|I don't have enough information
i don't know|can't tell|not sure|cannot tell|don't know|unclear|It cannot be determined|cannot tell from this picture
I do not know|not visible|n/a|no idea"""
ANSWERING = """none|no one|nobody|nothing|no|No.|unclear glass|unknown soldier|do not enter|don't walk|can opener|not red|no dog
no parking|sorry|+|-|A+|B-|?|0|knowledge|not many|not very big|can|tell|invisible man|clear sky|cannot park here|they don't
it can't fly|No, it can't|none of the dogs|neither|blurry|too big|too dark|the dog is too small|hard hat|question mark|hidden
I'm not sure, but it looks red|I cannot tell for certain, but it is probably a cat|maybe|probably red|Mission Impossible
I don't see a dog|no information desk|the man can't see the ball|not at all|never"""


@pytest.mark.parametrize("text", [*re.split(r"[|\n]", DECLINING), "", " ", "\n", None])
def test_answers_that_decline(text):
    assert abstains(text)


@pytest.mark.parametrize("text", re.split(r"[|\n]", ANSWERING))
def test_answers_that_only_look_like_declining(text):
    assert not abstains(text)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60))
def test_any_text_declines_or_answers(text):
    assert abstains(text) in (True, False)
