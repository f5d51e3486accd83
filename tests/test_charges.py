"""What a plan says that servers are asked, and what that costs, against a server that counts its tokens."""

import pytest
from faulty_server import Server
from PIL import Image

from auditdm_lib import paths
from auditdm_lib.audit.arms import random_arm
from auditdm_lib.audit.auditor import Search
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures
from auditdm_lib.models import endpoint
from auditdm_lib.models.asking import render
from auditdm_lib.models.vlm import load_members, load_vlm
from auditdm_lib.results.first_look import group
from auditdm_lib.run import charges, devices, endpoints, inventory, params, plan

CHECKPOINTS = paths.LIBRARY / "testbed" / "checkpoints"
NAME = "openai:org/some-model@http://127.0.0.1:9/v1"
PRICES = [1.0, 4.0]
WITHIN = 0.3  # of what is counted: the tolerance of this estimate


@pytest.fixture(scope="module")
def declared():
    return params.declared_anywhere()


def planned(declared, **values):
    values = params.effective(dict(price_per_million=PRICES) | values, declared)
    return plan.make_plan(values, declared, devices.Device("a processor", 1e10, 1e10, 64 * 10 ** 9, 4))


def test_calls_and_cost_are_about_those_of_a_server_that_counts_tokens(declared, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers.sqlite")
    endpoints.client.cache_clear()
    server, teller = Server(), load_vlm(CHECKPOINTS / "gemma3-s").processor

    def tokens(content, said):
        read = teller(images=[[Image.new("RGB", (48, 48))]], text=[render(teller, content[-1]["text"])])
        return len(read["input_ids"][0]), len(teller.tokenizer(said)["input_ids"])
    server.tokens, server.answer = tokens, lambda text: "two cups" if len(text) % 2 else "red"
    counts = endpoint.limit()
    values = params.effective(dict(target=server.name, gallery=24), declared)
    pictures = load_pictures("testbed", 24, 0, split="probe")
    members = load_members(server.name, [CHECKPOINTS / "gemma3-s"])
    panel = Panel(members[0], members[1:])
    random_arm(panel, pictures, 0, pictures.names)
    search = Search({"question": values["question_prompt"]}, {"question": values["question_tokens"]}, {"question": 1.0}, 1.0)
    group(panel, load_vlm(values["auditor"]), pictures.take(range(12)), search, 0)
    server.stop()
    row = planned(declared, target=server.name, gallery=24)["stages"][0]["servers"]
    cost = (counts["tokens_sent"] * PRICES[0] + counts["tokens_written"] * PRICES[1]) / 1e6
    assert row["requests"] == row["target_requests"] == pytest.approx(counts["calls"], rel=WITHIN) and counts["calls"] > 100
    assert row["cost"] == pytest.approx(cost, rel=WITHIN)
    endpoint.limit()


def test_every_role_is_asked_and_paid_by_stage_and_by_server(declared):
    other = NAME.replace("some", "other")
    given = dict(references=[NAME, str(CHECKPOINTS / "gemma3-s")], judge_model=other, verifier=other, auditor=other)
    made = planned(declared, **given)
    rows = {row["model"]: row for row in made["servers"]}
    assert rows[NAME]["role"] == "reference 1" and rows[other]["role"] == "judge_model, auditor, verifier"
    stages = {row["stage"]: row["servers"] for row in made["stages"]}
    assert stages["01_train_auditor"]["requests"] == 0  # it cannot train what is behind a server
    assert any(text.startswith("auditor: stage 01 trains it") for text in made["missing"])
    for column in ("requests", "tokens_sent", "tokens_written", "cost"):
        assert sum(row[column] for row in rows.values()) == pytest.approx(sum(row[column] for row in stages.values()), rel=1e-3)
    assert all(row["target_requests"] == 0 for row in rows.values())
    free = planned(declared, **given, price_per_million=[])
    assert {row["cost"] for row in free["servers"]} == {None} and free["servers"][0]["requests"] == made["servers"][0]["requests"]
    assert planned(declared)["servers"] == [] and planned(declared)["limits"] == []


def test_a_run_that_will_reach_a_limit_is_told_so_stage_by_stage(declared):
    texts = planned(declared, target=NAME, max_target_calls=10_000, max_cost=100.0)["limits"]
    assert [text.partition(" may reach ")[0] for text in texts[:-1]] == ["01_train_auditor", "02_generate_probes"]
    assert "10,000 is the limit: the training stops there" in texts[0] and "is not asked and does not count" in texts[1]
    assert texts[-1] == "No stage reaches max_cost, which is 100.0."
    dear = planned(declared, target=NAME, max_cost=0.5)["limits"]
    assert all("max_cost: it takes about" in text for text in dear) and len(dear) == 2
    assert planned(declared, target=NAME)["limits"] == [
        "Nothing limits what servers are asked: set max_target_calls, or price_per_million and max_cost."]


def test_a_picture_costs_what_the_model_or_the_size_of_the_files_says(tmp_path):
    def model(name):
        return inventory._vision("target", f"openai:{name}@http://127.0.0.1:9/v1")
    assert charges.picture_tokens(model("google/gemma-3-4b-it"), "datasets:x", []) == 256
    assert charges.picture_tokens(model(str(CHECKPOINTS / "gemma3-s")), "testbed", []) == 9
    assert charges.picture_tokens(model("some"), "datasets:x", []) == 23 * 17
    Image.new("RGB", (4096, 2048)).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert charges.picture_tokens(model("some"), str(tmp_path), []) == 73 * 37  # reduced by half, as it is sent
