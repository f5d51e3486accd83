"""The catalogue of skills: what it holds, how a user extends it, and that a question goes to its skill whatever its wording."""

from pathlib import Path

import numpy as np
import pytest

from auditdm_lib.taxonomy import catalogue, skills, vectors, words

# Wordings of our own that are no examples of the catalogue.
QUESTIONS = {
    "colour": ["What color is the lighthouse?", "Which colour does the kangaroo have?", "What are the colors of the parrots?"],
    "counting": ["How many kangaroos are resting?", "How many purple vases can you count?", "What is the number of teapots?"],
    "presence of a thing": ["Is there a kangaroo in the garden?", "Are there any teapots on the shelf?"],
    "material": ["What is the teapot made of?", "What material are these gloves?"],
    "clock reading": ["What time is shown on the tower clock?"],
    "weather": ["Does it look like it is raining heavily?"],
    "written text": ["What does the orange poster say?", "What is written above the gate?"],
    "size comparison": ["Which kangaroo is bigger?", "Is the lighthouse taller than the palm tree?"],
    "left or right": ["In which hand does the waiter hold the tray?", "Is the lighthouse to the left or right of the pier?"],
    "reason": ["Why is the kangaroo jumping?"],
    "emotion": ["Does the waiter look happy?"],
    "chart extreme": ["Which bar in the chart is the lowest?"]}


def test_the_catalogue_is_broad_and_each_skill_is_described():
    listed = catalogue.catalogue()
    assert len(listed) >= 150 and all(name == skill.name and skill.about.endswith(".") for name, skill in listed.items())
    assert all(3 <= len(skill.examples) == len(set(skill.examples)) for skill in listed.values())
    assert "" not in listed and not any(name.startswith("“") for name in listed)


@pytest.mark.parametrize("skill", QUESTIONS)
def test_a_question_goes_to_its_skill_by_its_words_alone(skill):
    assert skills.assign(QUESTIONS[skill]) == [skill] * len(QUESTIONS[skill])


def test_nine_examples_in_ten_go_to_their_own_skill():
    listed = catalogue.catalogue()
    own = [skill.name for skill in listed.values() for _ in skill.examples]
    found = skills.assign([text for skill in listed.values() for text in skill.examples])
    assert np.mean([a == b for a, b in zip(own, found, strict=True)]) >= 0.9


def test_what_asks_about_nothing_fits_no_skill():
    assert skills.assign(["", "???", "zxqv blorp", "\ud800"]) == [skills.NONE] * 4


def test_a_weak_likeness_is_no_skill():
    asked = ["does the zeppelin leak?", "should the sauna be hotter?", "has the glacier retreated?"]
    assert skills.assign(asked) == [skills.NONE] * 3 and not skills.foreign(asked).any()


def test_case_spelling_and_endings_do_not_matter():
    assert words.stems("What COLOR are the cities' racing cars?") == words.stems("what colour are the city race car")
    assert words.split_words("What's “this”, a T-shirt?") == ("what's", "this", "a", "t-shirt")


def test_a_user_extends_overrides_and_takes_away(tmp_path: Path):
    own = tmp_path / "mine.yaml"
    own.write_text("lung findings:\n  about: What an X-ray of the chest shows.\n  examples:\n  - Is the pleura thickened?\n"
                   "  - Is there a nodule in the left lung?\n  - Are the lungs hyperinflated?\n"
                   "colour:\n  about: Mine.\n  examples: [Which hue has it?]\nreason:\n", "utf-8")
    listed = catalogue.catalogue(own)
    assert listed["colour"].about == "Mine." and "reason" not in listed and len(listed) == len(catalogue.catalogue())
    assert skills.assign(["Is the pleura of the left lung thickened?"], own) == ["lung findings"]
    assert skills.assign(["Is the pleura of the left lung thickened?"]) != ["lung findings"]


def test_a_users_skill_with_few_examples_counts_beside_the_shipped_ones(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("sewing: {about: How it is sewn., examples: [Is the hem stitched by hand?, Which seam is frayed?, "
                   "How wide is the hem?, Is the thread wound on the bobbin?]}", "utf-8")
    asked = ["Which stitch holds the hem?", "Is the lining stitched to the seam?", "How many stitches has the hem?",
             "Has the hem been let down?", "Is the seam straight?", "Is the needle threaded?", "Where does the seam begin?",
             "Is the cuff frayed at the seam?"]
    assert skills.assign(asked, own) == ["sewing"] * 8
    assert skills.assign(["What colour is the thread?", "How many people are there?"], own) == ["colour", "counting"]


FOREIGN = ["Wie viele Fenster hat das Haus?", "Der Hund hat einen Ball.", "Combien de chats sont sur la table ?",
           "¿De qué color es el sombrero?", "杯子是什么颜色的?", "ما لون الكوب؟"]


def test_other_languages_fit_no_english_skill_unless_a_catalogue_has_them(tmp_path):
    assert skills.assign(FOREIGN) == [skills.NONE] * 6 and skills.foreign(FOREIGN).all()
    assert not skills.foreign(["what colour is it?", "???", "", *QUESTIONS["counting"]]).any()
    own = tmp_path / "mine.yaml"
    own.write_text("Anzahl: {about: Zahl., examples: [Wie viele Fenster hat das Haus?, Wie viele Hunde sind da?]}", "utf-8")
    assert skills.assign(["Wie viele Hunde hat das Haus?"], own) == ["Anzahl"]


@pytest.mark.parametrize("text", [
    "- a list", "colour: red", "colour: {about: x}", "colour: {about: x, examples: []}", "colour: {about: x, examples: [1]}",
    "5: {about: x, examples: [y]}", "colour: {about: x, examples: [y], more: z}", "a: [", "\x00"])
def test_a_file_that_is_no_catalogue_is_refused_with_its_name(tmp_path, text):
    own = tmp_path / "mine.yaml"
    own.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="mine.yaml"):
        catalogue.catalogue(own)


@pytest.mark.parametrize(("text", "remedy"), [
    ("sewing: {about: x, examples: [a]}\nsewing: {about: y, examples: [b]}", "'sewing' stands in it twice, again in line 2"),
    ("sewing: {about: x, about: y, examples: [a]}", "'about' stands in it twice"),
    ('" sewing": {about: x, examples: [a]}\n"sewing ": {about: y, examples: [b]}', "capitals and spaces alone: leave one"),
    ("Sewing: {about: x, examples: [a]}\nsewing: {about: y, examples: [b]}", "capitals and spaces alone: leave one"),
    ("Colour: {about: x, examples: [a]}", "write it as the shipped one"),
    ("“pie”: {about: x, examples: [a]}", "leave out its quotation mark"),
    ("no such skill:", "correct its name"),
    ("sewing: {about: '', examples: [a]}", "texts with words"),
    ("sewing: {about: x, examples: ['']}", "texts with words")])
def test_what_a_catalogue_would_lose_or_mix_up_is_refused_with_the_remedy(tmp_path, text, remedy):
    own = tmp_path / "mine.yaml"
    own.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"mine.yaml.*{remedy}") as refused:
        catalogue.catalogue(own)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_a_missing_file_is_refused():
    with pytest.raises(ValueError, match="nowhere.yaml"):
        catalogue.catalogue(Path("nowhere.yaml"))


def test_another_encoder_takes_the_place_of_the_word_vectors(monkeypatch):
    seen = []

    class Encoder:
        def encode(self, texts, **_):
            seen.extend(texts)
            return np.array([[1.0, 0.0] if "颜色" in text or "colo" in text.lower() else [0.0, 1.0] for text in texts])
    monkeypatch.setattr(vectors, "_sentence_encoder", lambda name: Encoder())
    skills._scorer.cache_clear()
    names, best, _ = skills.score(["杯子是什么颜色的?"], encoder="some/encoder")
    assert "杯子是什么颜色的?" in seen and "colour" in names[best[0]]
    skills._scorer.cache_clear()


def test_sentence_vectors_are_the_same_in_half_precision(monkeypatch):
    texts, found = ("is the cup red?", "How many dogs are there?", "who is it?", "word " * 200, ""), []
    for has in (False, True):
        monkeypatch.setattr(vectors, "_has_bf16", lambda has=has: has)
        vectors.sentences.cache_clear()
        found.append(vectors.sentences(texts))
    assert found[1].dtype == np.float32 and (found[0] * found[1]).sum(1).min() > 0.999
    assert np.abs(found[0] - found[1]).max() > 0  # it was another precision
    vectors.sentences.cache_clear()


def test_a_catalogue_without_any_skill_is_refused(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("".join(f'"{name}":\n' for name in catalogue.catalogue()), "utf-8")
    with pytest.raises(ValueError, match="leave at least one"):
        catalogue.catalogue(own)
