"""Replies: the short answer in what chat models write, and texts made safe."""

import random
import time
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import replies_by

from auditdm_lib.answers import normalise, same_answer
from auditdm_lib.audit import panel as panels
from auditdm_lib.audit.panel import Panel, judge
from auditdm_lib.replies import clean, short_answer
from auditdm_lib.taxonomy.cluster import cluster, select_failures
from auditdm_lib.taxonomy.names import categories
from auditdm_lib.testbed.questions import sample_answerable
from auditdm_lib.testbed.scenes import sample_scenes
from auditdm_lib.testbed.skills import SKILLS, answer, parse_question

REPLIES = [
    ("What colour is the umbrella?", "The umbrella is red.", "red"),
    ("What color is the umbrella?", "The color of the umbrella is **red**.", "red"),
    ("What colour is the umbrella?", "<think>The user asks. It may be blue.</think>\n\nRed.", "red"),
    ("What colour is the umbrella?", "It may be blue, or not.</think> red", "red"),
    ("What colour is the umbrella?", "<think>It may be blue, or", ""),
    ("What colour is the umbrella?", "**Answer:** red", "red"),
    ("What colour is the umbrella?", "## Answer\n\n- Red", "red"),
    ("What colour is the umbrella?", "Sure! The umbrella in the picture is red.", "red"),
    ("What colour is the umbrella?", "Based on the image, the umbrella is red. It is held by a man.", "red"),
    ("What colour is the umbrella?", "I'm not sure, but it looks like it is red.", "red"),
    ("How many dogs are there?", "There are three dogs in the picture.", "3"),
    ("How many dogs are there?", "There is only one dog.", "1"),
    ("How many dogs are there?", "There are no dogs.", "0"),
    ("How many dogs are in the picture?", "I see 3 dogs.", "3"),
    ("How many people are there?", "2 people", "two"),
    ("how many things are there? is the answer two?", "no", "no"), ("How many dogs are there?", "no", "no"),
    ("how many things are there? is the answer two?", "No, there are three things.", "no"),
    ("Is there a dog?", "Yes, there is a dog on the left.", "yes"),
    ("Is there a dog?", "There is a dog on the left.", "yes"),
    ("Is there a dog?", "There is no dog in the picture.", "no"),
    ("Is there a dog?", "No, there isn't.", "no"),
    ("Is there a dog?", "I don't see a dog.", "no"),
    ("Is the car red or blue?", "The car is red.", "red"),
    ("Which is bigger, the cat or the dog?", "The dog is bigger.", "dog"),
    ("What is the man holding?", "The man is holding a red umbrella.", "red umbrella"),
    ("What does the sign say?", 'The sign says "STOP".', "stop"),
    ("What is to the left of the star?", "To the left of the star is a cup.", "cup"),
    ("What is to the left of the star?", "A cup is to the left of the star.", "cup"),
    ("Where is the cat?", "The cat is on the table.", "on the table"),
    ("What time is it?", "The clock shows 10:10.", "10:10"),
    ("What is 2 + 3?", "Let me think.\n2 + 3 = 5.\n\n\\boxed{5}", "5"),
    ("What is behind the cat?", "Nothing is behind the cat.", "nothing"),
    ("Who is that?", "Mr. Smith.", "mr smith"),
    ("What colour is it?", "I cannot tell.", "I cannot tell"),
    ("What colour is it?", "red", "red"), ("What colour is it?", "", ""), ("Which letter?", "A.", "A"),
    ("What grade is it?", "A+", "A+"), ("What language is it?", "C++", "C++"), ("What country?", "U.S.A.", "USA")]


@pytest.mark.parametrize(("question", "reply", "short"), REPLIES)
def test_the_answer_in_a_reply(question, reply, short):
    assert same_answer(short_answer(reply, question), short)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=80), st.text(max_size=40))
def test_any_reply_has_one_line_and_itself_as_answer(reply, question):
    short = short_answer(clean(reply), question)
    assert "\n" not in short and len(short) <= max(len(reply) + 4, len("cannot tell"))


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_a_clean_text_can_be_stored_and_shown(text):
    safe = clean(text)
    assert clean(safe) == safe
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c != "\n" for c in safe) and "\ufeff" not in safe
    assert safe.encode("utf-8").decode("utf-8") == safe


def test_a_carriage_return_is_a_line_break_and_not_two():
    assert clean("a\r\nb\rc\x00d\ufeffe\ud800") == "a\nb\nc de\ufffd"


REFUSALS = """I cannot tell.|I can't tell from this picture.|It's impossible to say.|I'm not sure.|I do not know.|It is unclear.|
Unknown.|It cannot be determined.|There is not enough information.|I'm sorry, but I can't tell.|I am unable to determine that.|
The image does not show that.|It's hard to say.|No idea.|I have no idea.|N/A|Not visible.|Unanswerable.|I can't see it.|
It's too dark to see.|There is no way to know.|I really don't know.|Cannot determine.|I don't have enough information.|
It is not clear from the image.|I am uncertain.|As an AI model, I cannot see that.|Unable to tell.|Not specified.|
I can't make it out.""".replace("\n", "").split("|")


def talks(question, short, rng):
    """What a chat model would reply where another says `short`."""
    if short == "cannot tell":
        return rng.choice(REFUSALS)
    skill = parse_question(question)
    if short in ("yes", "no"):
        said = [f"{short.title()}.", f"{short.title()}, {'it is' if short == 'yes' else 'it is not'}.",
                f"**{short.title()}**", f"{short.title()}, that is what the picture shows."]
    else:
        thing = "an" if short[0] in "aeiou" else "a"
        number = skill is not None and short in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        said = [f"It is {short}.", f"**{short.title()}**", f"The answer is {short}.", f"Answer: {short}", f"`{short}`",
                f"There are {short}." if number else f"It looks like {thing} {short}.", f"I see {short}.", f"“{short}”",
                f"Sure! The answer is **{short}**.", f"{short.title()}.\n\nI can see it clearly in the picture.",
                f"In the picture, it is {short}.", f"<answer>{short}</answer>"]
    reply = rng.choice(said)
    return f"<think>Let me look. Perhaps it is blue. No.</think>\n{reply}" if rng.random() < 0.3 else reply


def test_a_panel_that_talks_is_judged_like_one_that_answers_in_words(monkeypatch):
    """The same answers, in single words and as chat models give them: the same consensus, disagreements and failure types."""
    rng, scenes = random.Random("talking"), sample_scenes(900, "probe", 0)
    questions = [sample_answerable(scene, rng) for scene in scenes]
    right = [answer(scene, question) for scene, question in zip(scenes, questions, strict=True)]

    def erring(share, declining):
        def other(question, truth):
            options = SKILLS[parse_question(question).skill].answers
            roll = rng.random()
            return "cannot tell" if roll < declining else rng.choice(options) if roll < declining + share else truth
        return [other(q, t) for q, t in zip(questions, right, strict=True)]
    words = {"target": erring(0.5, 0.05), "first": erring(0.1, 0.1), "second": erring(0.1, 0.1)}
    talk = {name: [talks(q, short, rng) for q, short in zip(questions, said, strict=True)] for name, said in words.items()}
    place = {name: i for i, name in enumerate(words)}
    judged = []
    for said in (words, talk):
        monkeypatch.setattr(panels, "replies", replies_by(lambda member, images, asked, said=said: [
            said[member.name][i] for i in images]))
        models = [type("Member", (), dict(name=name))() for name in place]
        judged.append(judge(Panel(models[0], models[1:]), list(range(900)), questions, [None] * 900))
    plain, chat = judged
    assert plain["disagrees"].sum() > 200
    pairs = zip(plain["target_answer"], chat["target_answer"], talk["target"], strict=True)
    assert [(a, reply) for a, b, reply in pairs if not same_answer(a, b)] == []
    assert plain["disagrees"].tolist() == chat["disagrees"].tolist()
    assert plain["consensus"].map(normalise, na_action="ignore").equals(chat["consensus"].map(normalise, na_action="ignore"))
    types = []
    for table in judged:
        n = [str(i) for i in range(900)]
        probes = table.assign(probe_id=n, image=n, source_image=n, auditor="random", question=questions,
                              picture_reason=None)
        types.append(categories(cluster(select_failures(probes)))[["category", "size", "example_probe_ids"]])
    pd.testing.assert_frame_equal(*types)


@pytest.mark.parametrize(("question", "reply", "short"), [
    ("Are the lights on?", "The lights are off.", "no"), ("Is the door open?", "The door is closed.", "no"),
    ("Is the door open?", "It is closed.", "no"), ("Is the car red?", "The car is blue.", "The car is blue"),
    ("Is the cat sleeping?", "The cat is awake.", "no"), ("Is the door closed?", "The door is not open.", "yes"),
    ("Is the cat sleeping?", "The cat is sleeping on a bed with no blanket.", "yes"), ("Is it a dog?", "I believe so.", "yes"),
    ("Is there a dog?", "The image does not contain a dog.", "no"),
    ("Can you see the moon?", "I cannot see the moon in this image.", "no"),
    ("Is there a dog?", "I see a cat.", "I see a cat"),
    ("Are there more than 3 people?", "There are 2 people.", "There are 2 people"),
    ("What does the sign say?", 'The shirt says "Just Do It".', "Just Do It"),
    ("What does the sign say?", '"Do Not Enter"', "Do Not Enter"),
    ("What colour is it?", '{"answer": "red"}', "red"), ("What colour is it?", '```json\n{"answer": "red"}\n```', "red"),
    ("What colour is the car?", "Car colour: red", "red"), ("What colour is the car?", "<|channel|>red<|end|>", "red"),
    ("How many dogs are there?", "1. A brown dog on the left\n2. A black dog\nSo there are 2 dogs.", "2"),
    ("How many dogs are there?", "There is a total of 4 dogs.", "4"), ("How many dogs are there?", "No dogs.", "0"),
    ("What fruits are there?", "- Apple\n- Banana", "banana and apple"),
    ("Which city is this?", "This is New York City.", "New York City"),
    ("What room is this?", "It's a living room.", "living room"), ("What animal is it?", "The animal is a cat.", "cat"),
    ("What colour is the car?", "It is blue. Actually, looking closer, it is green.", "green"),
    ("What colour is the car?", "It is red, not green.", "red"),
    ("What colour is the car?", "There is no car in the image.", "cannot tell"),
    ("What is half of one?", r"\boxed{\frac{1}{2}}", "0.5"),
    ("What colour is it?", "Answer: blue\nReasoning: the answer is obvious.", "blue"),
    ("Where is the cat?", "The cat is lying under the table.", "under the table"),
    ("What year was it taken?", "It was taken in 1985.", "1985")])
def test_more_replies_of_chat_models(question, reply, short):
    assert same_answer(short_answer(reply, question), short)


@pytest.mark.parametrize("text", ["1/²", "1/①", "a. " * 6000, "$5 " * 5000, "as an ai " * 2000, "not " * 4000, "(" * 5000,
                                  "1/" + "9" * 5000])
def test_no_text_is_too_much(text):
    began = time.process_time()
    short_answer(clean(text), "what is it?")
    normalise(text)
    assert time.process_time() - began < 3
