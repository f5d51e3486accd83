"""Names by a language model: proposed, checked against members, merged; a model that errs leaves the counted names."""

import pandas as pd
import pytest
import test_panel

from auditdm_lib.models.llm import load_llm
from auditdm_lib.taxonomy import labels, names
from auditdm_lib.taxonomy.cluster import cluster

NOUNS = ("cup", "star", "sun", "flag", "heart", "moon")


class Scripted:
    """Stands for a language model; what it writes is decided by the test's `written`."""

    class tokenizer:
        all_special_tokens = ("<eos>",)


@pytest.fixture
def typed():
    texts = [(f"what colour is the {noun}?", "purple", "blue") for noun in NOUNS]
    texts += [(f"which colour has the {noun}?", "violet", "navy") for noun in NOUNS[:4]]
    texts += [(f"is there a {noun} <eos>?", "no", "yes") for noun in NOUNS[:5]]
    rows = pd.DataFrame(texts, columns=["question", "consensus", "target_answer"])
    clustered = cluster(rows.assign(probe_id=[f"p{i}" for i in range(len(rows))]))
    return clustered, names.categories(clustered)


def script(monkeypatch, label="names a wrong shade", true=lambda prompt: True, same=False):
    """A model that proposes one label, checks by `true` and merges all or nothing. Returns the prompts that it has seen."""
    seen = []

    def written(llm, prompts):
        seen.extend(prompts)
        said = {"These failures are alike": lambda prompt: label,
                "Is this an error of the kind": lambda prompt: "Yes." if true(prompt) else "no",
                "Are both the same kind": lambda prompt: "yes" if same else "No, they differ"}
        return [next(reply(prompt) for words, reply in said.items() if words in prompt) for prompt in prompts]
    monkeypatch.setattr(labels, "written", written)
    return seen


def test_a_label_that_is_true_of_the_members_is_taken_once_and_counted_names_stay_elsewhere(monkeypatch, typed):
    script(monkeypatch, true=lambda prompt: "colo" in prompt.split("Right answer")[0])
    clustered, table = labels.labelled(Scripted(), *typed)
    assert table["name"].tolist() == ["names a wrong shade", *typed[1]["name"][1:]]
    assert clustered["category"].tolist() == typed[0]["category"].tolist() and len(table) == 3


@pytest.mark.parametrize(("false", "taken"), [(1, True), (2, False)])
def test_a_label_must_be_true_of_four_members_in_five(monkeypatch, typed, false, taken):
    refused = iter([False] * false)
    script(monkeypatch, true=lambda prompt: next(refused, True) if "what colour" in prompt else False)
    name = labels.labelled(Scripted(), *typed)[1]["name"][0]
    assert (name == "names a wrong shade") == taken and (taken or name == typed[1]["name"][0])


def test_types_that_the_model_calls_the_same_are_one_within_a_skill(monkeypatch, typed):
    script(monkeypatch, same=True)
    clustered, table = labels.labelled(Scripted(), *typed)
    assert table["size"].tolist() == [10, 5] and table["category"].tolist() == [0, 1]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert clustered["category"].tolist() == [0] * 10 + [1] * 5


def test_the_order_of_the_rows_does_not_change_what_is_asked(monkeypatch, typed):
    clustered, table = typed
    first = script(monkeypatch)
    labels.labelled(Scripted(), clustered, table)
    second = script(monkeypatch)
    labels.labelled(Scripted(), clustered.iloc[::-1], table)
    assert first == second and len(first) > 6 and not any("<eos>" in prompt for prompt in first)


def test_a_real_tiny_model_answers_and_its_nonsense_changes_no_name(tmp_path, typed):
    llm = load_llm(test_panel.save_llm(tmp_path, "llama", test_panel.TEMPLATE))
    assert all(isinstance(text, str) and "\n" not in text for text in labels.written(llm, ["red ?", "is it blue ?"]))
    clustered, table = labels.labelled(llm, *typed)
    assert table["size"].sum() == typed[1]["size"].sum() and set(clustered["category"]) == set(table["category"])
    assert table["name"].is_unique


def test_no_type_is_no_question(monkeypatch, typed):
    seen = script(monkeypatch)
    clustered, table = labels.labelled(Scripted(), typed[0].head(0), typed[1].head(0))
    assert not seen and table.empty and clustered.empty
