"""The prompts of a training by GRPO hold no picture; a batch has its own, the very ones of the audit."""

from trainings import search_of

from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.training import grpo

SETTINGS = grpo.GRPOSettings(40, 4, 3, 1e-3, 0.0, 0.0, 0.0, 0, False, 20)


def test_prompts_name_their_pictures_and_a_batch_has_them():
    pictures, search = load_pictures("testbed", 5, 0), search_of(edit=0.4)
    prompts = grpo.prompts(len(pictures), search, SETTINGS, 0)
    assert set(prompts.column_names) == {"prompt", "kind", "picture"} and len(prompts) == 120
    assert prompts["picture"][:7] == [0, 1, 2, 3, 4, 0, 1]
    assert len(set(prompts["kind"][:3])) == 1 and set(prompts["kind"]) == {"question", "edit"}
    batch = grpo._with_pictures(pictures, [prompts[i] for i in (6, 6, 3)])
    assert [row["image"] for row in batch] == [pictures.images[i] for i in (1, 1, 3)]
    assert batch[0]["image"] is pictures.images[1] and batch[2]["prompt"][0]["content"] == search.prompts[batch[2]["kind"]]
