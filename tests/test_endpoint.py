"""Models behind servers: a server's errors are never a model's answers, and nothing that was answered is lost or asked again."""

import random
import sqlite3
import subprocess
import sys
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny_models
from click.testing import CliRunner
from faulty_server import MODEL, Server
from PIL import Image
from scripted import replies_by

from auditdm_lib import paths
from auditdm_lib.audit import checking, probes
from auditdm_lib.audit.auditor import Search, empty_proposals, propose
from auditdm_lib.audit.diffusion import Drawing
from auditdm_lib.audit.panel import Panel, agreement, judge
from auditdm_lib.audit.pictures import Pictures
from auditdm_lib.evaluate import benchmarks
from auditdm_lib.models import endpoint, llm, store, vlm
from auditdm_lib.models.asking import CHAT
from auditdm_lib.models.endpoint import Gone
from auditdm_lib.results.drawn import drawings, reasons
from auditdm_lib.results.findings import references_agree
from auditdm_lib.run import chain, endpoints, inventory, params, stage
from auditdm_lib.run.manifest import Stop
from auditdm_lib.taxonomy.cluster import select_failures

PICTURE = Image.new("RGB", (9, 7), "red")
ONCE = [500, 503, 429, 408, "told to wait", "slow", "reset", "cut off", "half of it", "two choices", "no choice", "empty", "null",
        "an error in it", "a list", "deep", "huge", "compressed", "an error cut off", "an error, slow"]
ALONE = [400, 500, "slow", "cut off", "two choices", "empty", "deep", "huge", "filtered", "an error cut off"]


@pytest.fixture
def server(request, tmp_path, monkeypatch):
    """A server and a store of their own, and no long waits, above all where a reply is too slow."""
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers.sqlite")
    for name, value in dict(FIRST_WAIT=0.01, PATIENCE=0.6).items():
        monkeypatch.setattr(endpoint, name, value)
    slow = "fault" in request.fixturenames and "slow" in str(request.getfixturevalue("fault"))
    monkeypatch.setattr(endpoints, "REPLYING", 1.0 if slow else 20.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    endpoints.client.cache_clear()
    endpoint.limit()
    made = Server()
    yield made
    made.stop()
    endpoint.limit()
    endpoints.client.cache_clear()


def loaded(server, **asked):
    """The server's model as a target that is told the question alone."""
    member, = vlm.load_members(server.name, [], ["{question}"], **asked)
    return member


def said(member, texts):
    return endpoint.replies(member, [PICTURE] * len(texts), texts)


def panel_of(server, references=2):
    """A panel whose references always say RIGHT, in this process."""
    return Panel(loaded(server), [Right()] * references)


class Right:
    """A model here."""

    name, asking, processor = "right", CHAT, SimpleNamespace(chat_template="chat")


@pytest.fixture
def right(monkeypatch):
    monkeypatch.setattr("auditdm_lib.audit.panel.replies", replies_by(lambda member, images, asked: ["RIGHT"] * len(asked)))


# A server that fails

@pytest.mark.parametrize("fault", ONCE)
def test_a_question_that_fails_once_is_asked_again(server, monkeypatch, fault):
    monkeypatch.setattr(endpoint, "PATIENCE", 30)
    server.faults["b"] = [fault]
    given = said(loaded(server), ["a", "b", "c", "b"])
    assert given["reply"].tolist() == ["A", "B", "C", "B"] and given["ended"].all() and given["error"].isna().all()
    assert server.asked == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize("fault", ALONE)
def test_a_question_that_always_fails_has_no_answer_is_no_failure_and_is_asked_again_next_time(server, right, fault):
    server.answer = lambda text: "wrong"
    server.faults["b"] = fault
    panel, texts = panel_of(server), ["a", "b", "c"]
    with pytest.warns(UserWarning, match="1 answers are missing"):
        judged = judge(panel, [PICTURE] * 3, texts, [None] * 3)
    assert judged["disagrees"].tolist() == [True, False, True] and judged["errors"].tolist() == [0, 1, 0]
    assert judged["target_missing"].tolist() == [None, "error", None] and judged["target_answer"][1] is None
    assert judged["unfinished"].sum() == 0
    server.faults.clear()
    server.asked.clear()
    again = judge(panel, [PICTURE] * 3, texts, [None] * 3)
    assert again["disagrees"].all() and server.asked == {"b": 1}


def test_the_server_says_how_long_to_wait(server, monkeypatch):
    monkeypatch.setattr(endpoint, "PATIENCE", 30)
    server.faults["a"] = ["told to wait"]
    said(loaded(server), ["a"])
    assert server.times[1] - server.times[0] > 0.29 > 10 * endpoint.FIRST_WAIT  # its own wait would be far shorter


@pytest.mark.parametrize("fault", ["unfinished", "far too long"])
def test_an_unfinished_reply_is_no_answer_and_is_never_kept(server, right, fault):
    server.faults["a"] = fault
    judged = judge(panel_of(server), [PICTURE], ["a"], [None])
    assert judged["unfinished"].tolist() == [1] and judged["target_missing"].tolist() == ["unfinished"]
    server.faults.clear()
    assert said(loaded(server), ["a"])["reply"].tolist() == ["A"] and server.asked["a"] == 2


def test_a_model_that_says_nothing_says_so_where_the_server_counts_its_end_token(server):
    server.answer = lambda text: ""
    given = said(loaded(server), ["a"])
    assert given.iloc[0].tolist() == ["", True, None] and server.asked["a"] == 1


def test_a_server_that_was_killed_and_started_again_loses_nothing_and_counts_nothing_twice(server, right):
    endpoint.limit(at_once=4)
    server.dies_after, texts = 20, [f"question {i}" for i in range(60)]
    panel, pictures, free = panel_of(server), [PICTURE] * 60, [None] * 60
    with pytest.raises(Gone, match="cannot be reached .* start it again and run the same command; what was answered is kept"):
        judge(panel, pictures, texts, free)
    first = dict(server.answered)
    assert 20 <= len(first) < 30
    server.start_again()
    judged = judge(panel, pictures, texts, free)
    assert judged["target_answer"].tolist() == [text.upper() for text in texts] and judged["errors"].sum() == 0
    assert set(server.answered.values()) == {1} and len(server.answered) == 60
    assert endpoint.requests.counts["target_calls"] == 60 + (60 - len(first))
    judge(panel, pictures, texts, free)
    assert sum(server.answered.values()) == 60


def test_a_server_that_is_away_for_a_while_stops_nothing(server, monkeypatch):
    monkeypatch.setattr(endpoint, "PATIENCE", 20)
    member, port = loaded(server), server.port
    server.stop()
    threading.Timer(0.7, lambda: server._serve(port)).start()
    assert said(member, ["a", "b"])["reply"].tolist() == ["A", "B"]


def test_a_server_that_answers_nothing_stops_the_stage(server, right):
    texts = [f"question {i}" for i in range(2 * endpoint.IN_A_ROW)]
    server.faults = dict.fromkeys(texts, 400)
    with pytest.raises(Stop, match="gave no answer to 30 questions in a row, lastly because of HTTP 400 it is overheated: "
                                   "look into its log, and whether the model takes such requests"):
        judge(panel_of(server), [PICTURE] * len(texts), texts, [None] * len(texts))
    assert len(server.asked) < endpoint.IN_A_ROW + 2 * endpoint.requests.at_once


@pytest.mark.parametrize(("status", "remedy"), [(401, "set the environment variable OPENAI_API_KEY"), (402, "see to the account"),
                                                (404, "name a model that it has")])
def test_a_server_that_refuses_every_question_stops_the_stage_at_once(server, status, remedy):
    server.faults = dict.fromkeys("abc", status)
    with pytest.raises(Gone, match=f"refuses every question .HTTP {status} it is overheated.: {remedy}"):
        said(loaded(server), list("abc"))


def test_a_server_that_takes_no_more_questions_is_not_to_be_started_again(server):
    server.faults = dict.fromkeys("abc", 429)
    with pytest.raises(Gone, match="takes no more questions .HTTP 429 it is overheated.: set requests_per_minute, or lower"):
        said(loaded(server), list("abc"))


def test_where_each_question_needs_an_answer_a_missing_one_stops_the_stage(server):
    server.faults["b"] = 400
    with pytest.raises(Gone, match="1 of 3 questions to openai:.* have no answer"):
        vlm.replies(loaded(server), [PICTURE] * 3, list("abc"))
    assert vlm.answer(loaded(server), [PICTURE] * 3, list("abc")) == ["A", None, "C"]


def test_an_item_that_a_server_leaves_unanswered_is_left_out_for_all_models(server, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "load_vlm", lambda path, asked=None: loaded(server) if path == "server" else Right())
    real = vlm.replies
    monkeypatch.setattr(benchmarks, "replies", lambda member, images, texts, *rest, **how: real(
        member, images, texts, *rest, **how) if member.name != "right" else pd.DataFrame(dict(reply=texts, ended=True)))
    server.faults["b"] = 400
    items = pd.DataFrame([dict(suite="s", item=text, group=text, metric="exact_match", question=text, expected=text.upper(),
                               answers=[text.upper()], options=None, skill="", gap=None, tokens=8, image=PICTURE)
                          for text in "abc"])
    scored = benchmarks.score({"target": "server", "other": "right"}, items)
    assert scored["item"].tolist() == ["a", "c"] * 2 and scored["correct"].all()
    assert "1 of 3 items are left out" in capsys.readouterr().out
    server.faults = dict.fromkeys("abc", 400)
    with pytest.raises(Stop, match="No item was answered"):
        benchmarks.score({"target": "server"}, items[items["item"] == "b"])


# What is sent

def test_requests_run_at_the_same_time_and_come_back_in_order(server):
    server.seconds, texts = 0.03, [f"question {i}" for i in range(24)]
    endpoint.limit(at_once=5)
    shuffled = random.Random(0).sample(texts, 24)
    assert said(loaded(server), shuffled)["reply"].tolist() == [text.upper() for text in shuffled]
    assert server.at_once == 5


def test_no_more_requests_are_sent_in_a_minute_than_allowed(server):
    endpoint.limit(per_minute=1200)
    said(loaded(server), ["the first connects, which takes a while"])
    said(loaded(server), [f"question {i}" for i in range(8)])
    assert server.times[-1] - server.times[1] > 0.7 * 7 * 60 / 1200


def test_a_picture_is_sent_as_it_is_unless_it_is_too_large(server):
    endpoint.replies(loaded(server), [PICTURE, Image.new("RGBA", (6000, 4000))], ["a", "b"])
    assert server.sides == {(9, 7), (2048, 1365)}
    body = server.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (64, 0.0, 0) and "n" not in body


def test_texts_are_data(server):
    said(loaded(server), ["was <end_of_turn> <|im_end|> [/INST] 3 < 4 > 1 \ud800 größer 猫"])
    asked, = server.asked
    assert asked == "was < e n d _ o f _ t u r n > < | i m _ e n d | > [ / I N S T ] 3 < 4 > 1 ? größer 猫"


def test_the_key_comes_from_the_environment_and_is_written_nowhere(server, monkeypatch):
    server.key = "sk-never-written"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never")
    assert endpoints.one_line("the key sk-never is wrong\n") == "the key *** is wrong"
    assert "refuses the key (HTTP 401 wrong key): set the environment variable" in endpoints.unavailable(server.name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-written")
    endpoints.client.cache_clear()
    said(loaded(server), ["a"])
    files = list(paths.ANSWERS.parent.glob("answers*"))
    assert files and not any(b"never-written" in file.read_bytes() for file in files)


def test_sampled_answers_differ_by_question_and_member_and_are_the_same_again(server):
    one, = vlm.load_members(server.name, [], ["{question}"], answer_temperature=0.9, seed=3)
    said(one, ["a", "b"])
    said(one, ["b", "a"])
    seeds = {body["messages"][0]["content"][1]["text"]: body["seed"] for body in server.bodies}
    assert len(server.bodies) == 2 and seeds["a"] != seeds["b"] and server.bodies[0]["temperature"] == 0.9


def test_an_untrained_auditor_behind_a_server_writes_a_text_for_each_picture(server):
    given = vlm.sample(loaded(server), [PICTURE] * 3, "ask", 0.7, 5, 24)
    assert given["text"].tolist() == ["ASK"] * 3 and given["ended"].all()
    assert len({body["seed"] for body in server.bodies}) == 3 and {body["max_tokens"] for body in server.bodies} == {24}
    with pytest.raises(ValueError, match="cannot go on from given words"):
        vlm.sample(loaded(server), [PICTURE], "ask", 0.7, 5, 24, begun=["is there"])


def test_a_judge_behind_a_server_is_asked_in_both_orders(server):
    judge_model = llm.load_llm(server.name)
    server.answer = lambda text: "Yes." if "violin" in text else "**No**, they differ" if "cat" in text else "perhaps"
    triples = [("what?", "violin", "fiddle"), ("what?", "a cat", "a dog"), ("what?", "red", "crimson"), ("what?", "red", "Red")]
    assert llm.same_meaning(judge_model, triples) == [True, False, False, True]
    assert len(server.asked) == 6  # the last pair is equal by rule
    server.answer = lambda text: "yes" if text.index("oak") < text.index("tree") else "no"
    assert llm.same_meaning(judge_model, [("what?", "oak", "tree")]) == [False]
    server.answer, server.faults = str.upper, {llm.judge_prompt(judge_model, "what?", "x", "y"): 400}
    why, same = llm.same_meaning(judge_model, [("what?", "x", "y"), ("what?", "red", "Red")])
    assert why == "HTTP 400 it is overheated" and same is True


# Limits

def test_a_limit_of_target_calls_ends_with_what_was_found_and_goes_on_from_there(server, right, capsys):
    server.answer, panel = (lambda text: "wrong"), panel_of(server)
    texts, pictures = [f"question {i}" for i in range(12)], [PICTURE] * 12
    endpoint.limit(max_target_calls=5)
    judged = judge(panel, pictures, texts, [None] * 12)
    assert judged["disagrees"].tolist() == [True] * 5 + [False] * 7 and judged["errors"].sum() == 0
    assert judged["target_missing"].tolist() == [None] * 5 + ["not asked"] * 7 and len(server.asked) == 5
    assert "limit of calls or of cost is reached" in capsys.readouterr().out
    counts = endpoint.limit(max_target_calls=5)
    judged = judge(panel, pictures, texts, [None] * 12)
    assert judged["disagrees"].sum() == 10 and len(server.asked) == 10
    assert counts == {"kept": 5, "calls": 5, "target_calls": 5, "not_asked": 2, "tokens_sent": 50, "tokens_written": 10}
    endpoint.limit(max_target_calls=1, stop=True)
    with pytest.raises(Gone, match="raise max_target_calls or max_cost"):
        judge(panel, pictures, texts, [None] * 12)
    assert len(server.asked) == 11


def test_probes_beyond_the_limit_are_no_attempts(server, right):
    endpoint.limit(max_target_calls=3)
    server.answer, table, panel = (lambda text: "wrong"), empty_proposals(["question"] * 8), panel_of(server)
    table["question"] = [f"question {i}" for i in (0, 1, 2, 3, 4, 0, 1, 2)]  # the last three are kept, but beyond the limit
    table.loc[[1, 6], "invalid_reason"] = "unfinished"
    pictures = Pictures([f"p{i}" for i in range(8)], [PICTURE] * 8)
    made = [probes.make_probes(panel, pictures, name, table, 0, pictures.names, pictures.names) for name in ("random", "trained")]
    assert made[0]["invalid_reason"].tolist() == [None, "unfinished", None, None, *[probes.NOT_ASKED] * 4]
    assert set(made[1]["invalid_reason"]) == {probes.NOT_ASKED}
    found = probes.search_table(pd.concat(made), None, None, {})
    columns = ["attempts", "disagrees", "invalid", "probing_calls", "no_consensus"]
    assert found[columns].to_numpy().tolist() == [[4, 3, 1, 3, 0], [0, 0, 0, 0, 0]]
    assert len(server.asked) == 3


def test_a_limit_of_cost_counts_the_tokens(server):
    counts = endpoint.limit(at_once=1, max_cost=1.0, price_per_million=[10_000.0, 50_000.0])  # 0.2 a question
    given = said(loaded(server), [f"question {i}" for i in range(9)])
    assert given["error"].isna().tolist() == [True] * 5 + [False] * 4 and counts["calls"] == 5
    assert endpoint.requests.cost == pytest.approx(1.0)


PRICE = dict(at_once=1, max_cost=1.0, price_per_million=[10_000.0, 50_000.0])  # 0.2 a question: five are asked


def by_judge(server, monkeypatch, n):
    """`n` questions of two references that say A and of a target that says B, which a judge behind a server compares."""
    monkeypatch.setattr("auditdm_lib.audit.panel.replies", replies_by(
        lambda member, images, asked: [f"{'b' if member.name == 'target' else 'a'} {text}" for text in asked]))
    server.answer = lambda text: "no"
    target, other = (SimpleNamespace(name=name, asking=CHAT) for name in ("target", "other"))
    panel, table = Panel(target, [other, other], llm=llm.load_llm(server.name)), empty_proposals(["question"] * n)
    table["question"] = texts = [f"question {'i' * i}" for i in range(n)]
    pictures = Pictures([f"p{i}" for i in range(n)], [PICTURE] * n)
    return panel, texts, lambda: probes.make_probes(panel, pictures, "trained", table, 0, pictures.names, pictures.names)


def test_a_judge_that_reaches_the_limit_ends_with_what_was_found(server, monkeypatch, capsys):
    panel, texts, made = by_judge(server, monkeypatch, 6)
    endpoint.limit(**PRICE)
    first = made()  # each pair of answers takes two questions
    assert first["disagrees"].tolist() == [True] * 2 + [False] * 4 and server.asked.total() == 5
    assert first["invalid_reason"].tolist() == [None] * 2 + [probes.NOT_ASKED] * 4 and len(probes.attempts(first)) == 2
    assert references_agree(first)[:2] == (2, 2)  # of the others nobody can say
    assert "limit of calls or of cost is reached" in capsys.readouterr().out
    endpoint.limit(**PRICE)
    again = made()  # goes on from there
    assert again["disagrees"].sum() == 5 and server.asked.total() == 10
    endpoint.limit(**PRICE | {"max_cost": 0.2}, stop=True)
    with pytest.raises(Gone, match="raise max_target_calls or max_cost"):
        made()


def test_what_a_judge_s_server_does_not_answer_is_neither_a_failure_nor_an_attempt(server, monkeypatch):
    panel, texts, made = by_judge(server, monkeypatch, 3)
    server.faults = {llm.judge_prompt(panel.llm, texts[1], f"a {texts[1]}", f"b {texts[1]}"): 400}
    found = made()
    assert found["disagrees"].tolist() == [True, False, True] and found["consensus"].isna().tolist() == [False, True, False]
    assert found["invalid_reason"].tolist() == [None, "target not judged", None] and len(probes.attempts(found)) == 2
    assert found["in_full"].tolist() == [True, False, True]
    assert agreement(panel.target, "target", [PICTURE] * 3, texts, [f"a {text}" for text in texts], panel.llm).isna(
        )["answer"].tolist() == [False, True, False]
    server.faults.clear()
    assert made()["disagrees"].all()


def test_an_auditor_that_reaches_the_limit_or_a_fault_writes_no_attempts(server, right, capsys):
    pictures = Pictures([f"p{i}" for i in range(8)], [PICTURE.rotate(i) for i in range(8)])
    search, panel = Search({"question": "ask"}, {"question": 24}, {"question": 1.0}, 0.7), Panel(Right(), [Right()] * 2)
    server.faults, writer = {"ask": [400]}, loaded(server)
    endpoint.limit(**PRICE)
    table, drawn = propose(writer, pictures, ["question"] * 8, search, 0)
    assert table["question"].notna().tolist() == [False] + [True] * 5 + [False] * 2  # the one that failed cost nothing
    made = probes.make_probes(panel, drawn, "prompt_only", table, 0, pictures.names, pictures.names)
    assert made["invalid_reason"].tolist() == [probes.UNWRITTEN] + [None] * 5 + [probes.NOT_ASKED] * 2
    assert len(probes.attempts(made)) == 5 and "limit of calls or of cost" in capsys.readouterr().out


def test_a_verifier_that_reaches_the_limit_or_a_fault_says_nothing_of_a_picture(server, right):
    verifier, texts = loaded(server), [f"thing {i}" for i in range(8)]
    server.answer = lambda text: "no" if "thing 2" in text else "yes"
    server.faults = {checking.VERIFY_PROMPTS["edit"].replace("{text}", "thing 1"): 400}
    seen = Pictures([f"p{i}" for i in range(8)], [PICTURE] * 8)
    drawn = Pictures(seen.names, [PICTURE.rotate(i) for i in range(8)])
    endpoint.limit(**PRICE)
    check = checking.checked(Drawing("diffusion"), seen, drawn, ["edit"] * 8, texts, verifier)
    assert check.verdicts == ["yes", None, "no", "yes", "yes", "yes", None, None]
    assert check.reasons == [None, probes.UNVERIFIED, checking.REFUSED] + [None] * 3 + [probes.NOT_ASKED] * 2
    table = empty_proposals(["edit"] * 8)
    table["edit"], table["question"] = texts, texts
    made = probes.make_probes(Panel(Right(), [Right()] * 2), check.pictures, "trained", table, 0, seen.names,
                              [f"new/{name}" for name in seen.names], check.reasons, check.verdicts)
    assert made["invalid_reason"].tolist() == [None, f"picture: {probes.UNVERIFIED}", f"picture: {checking.REFUSED}"] + [
        None] * 3 + [probes.NOT_ASKED] * 2
    assert len(probes.attempts(made)) == 5
    failing = select_failures(made.assign(disagrees=True))  # a panel here answers about every picture
    assert failing["image"].tolist() == ["new/p0", "new/p3", "new/p4", "new/p5"]
    assert reasons(drawings(made)).to_dict() == {checking.REFUSED: 1} and len(drawings(made)) == 5


# Names

@pytest.mark.parametrize(("name", "words"), [
    ("openai:", "write openai:MODEL@http://host:port/v1"), ("openai:m@ftp://h/v1", "write openai:MODEL@"),
    ("openai:@http://h/v1", "write openai:MODEL@"), ("openai:m@http://:8000/v1", "write openai:MODEL@"),
    ("openai:m@http://h:port/v1", "write openai:MODEL@"), ("openai:a b@http://h/v1", "write openai:MODEL@"),
    ("openai:m@http://[::1/v1", "write openai:MODEL@"), ("openai:m@http://sk-12@h/v1", "OPENAI_API_KEY"),
    ("openai:m@https://user:sk-12@h/v1", "OPENAI_API_KEY"), ("openai:m@https://h/v1?key=sk-12", "OPENAI_API_KEY")])
def test_a_name_is_checked_before_anything_is_asked_and_a_key_in_it_is_not_repeated(name, words):
    fault = params.model_fault(name)
    assert words in fault and "sk-12" not in fault


def test_the_model_may_have_any_name():
    assert endpoints.parts("openai:org/m:7b@main@https://h.org:8/v1/") == ("org/m:7b@main", "https://h.org:8/v1")
    assert params.model_fault("openai:m@http://h/v1") is None


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(endpoints.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e .[endpoints]" in params.model_fault("openai:m@http://h/v1")


def test_a_server_is_asked_for_the_model_before_work_starts(server):
    assert endpoints.unavailable(server.name) is None
    assert f"no model other that answers (HTTP 404 no model other; it lists {MODEL})" in endpoints.unavailable(
        server.name.replace(MODEL, "other"))
    with pytest.raises(ValueError, match="no model other"):
        vlm.load_vlm(server.name.replace(MODEL, "other"))
    server.stop()
    found = endpoints.unavailable(server.name)
    assert found.endswith("start it, or correct the address.") and "Connection refused" in found
    known = {name: params.Parameter(name, "str", "", "<model> x") for name in ("target", "judge_model")}
    with pytest.raises(params.BadParameters, match="(?s)02_x: nothing was run.*judge_model: .*target: "):
        params.check_servers(dict.fromkeys(known, server.name), known, "02_x")
    server._serve(server.port)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    endpoints.client.cache_clear()
    assert said(loaded(server), ["a"])["reply"].tolist() == ["A"]


def test_only_models_that_are_asked_may_stand_behind_a_server(server):
    declared = params.declared_anywhere()
    for name in ("encoder", "naming_model"):
        with pytest.raises(params.BadParameters, match="behind a server, which cannot do this"):
            params.check({name: server.name}, declared, "x")
    params.check(dict(target=server.name, references=[server.name + "/"], verifier=server.name, judge_model=server.name,
                      auditor=server.name), declared, "x")
    assert stage.input_hash(server.name, "model") == server.name


@pytest.mark.parametrize(("values", "words"), [
    (dict(max_cost=1.0), "without price_per_million nothing has a price"), (dict(price_per_million=[1.0]), "two prices")])
def test_a_cost_needs_prices(values, words):
    with pytest.raises(params.BadParameters, match=words):
        params.check(values, params.declared_anywhere(), "x")


@pytest.mark.parametrize(("setting", "words"), [
    (["--set", "target={}"], "target: stage 04 trains it"),
    (["--set", "auditor={}", "--to", "01"], "auditor: stage 01 trains it"),
    (["--set", "judge_model={}", "--set", "launch=--num_processes 2", "--to", "01"], "launch: each process of the auditor's")])
def test_a_model_behind_a_server_is_not_trained_and_that_is_said_before_work_starts(server, setting, words):
    done = CliRunner().invoke(chain.main, ["run", "testbed", *(part.format(server.name) for part in setting)])
    assert done.exit_code == 2 and done.output.count(words) == 1 and not server.asked
    assert params.training_fault("02_generate_probes", dict(target=server.name, auditor=server.name)) is None


@pytest.mark.parametrize("stage", ["04", "05", "06"])
def test_a_target_behind_a_server_ends_with_stage_03_whose_report_is_named(server, stage):
    settings = ["--set", f"target={server.name}", "--set", "run=served"]
    done = CliRunner().invoke(chain.main, ["run", "testbed", "--only", stage, *settings])
    assert done.exit_code == 2 and "--from 04" not in done.output
    assert "so such a run ends with 03 (--to 03): runs/served/03_taxonomy/report.md says what was found" in done.output


def test_a_plan_counts_a_server_s_calls_without_asking_it():
    from auditdm_lib.run import devices, plan

    declared = params.declared_anywhere()
    values = params.effective(dict(target="openai:m@http://127.0.0.1:9/v1"), declared)
    made = plan.make_plan(values, declared, devices.this_device(1))
    model = made["models"][0]
    assert (model["where"], model["download"]) == ("server", 0) and made["total"]["target_calls"] > 1000
    assert [text for text in made["missing"] if "openai" in text] == [params.training_fault("04", values)]
    assert made["total"]["unknown"] == [values["target"]]
    assert inventory.models(values)[0].parameters is None


# The store

def test_a_text_is_found_by_all_that_it_depends_on(tmp_path):
    opened, keys = store.opened(tmp_path / "a.sqlite"), set()
    for model in ("openai:a@http://h/v1", "openai:b@http://h/v1"):
        for picture in (b"", b"1"):
            for prompt in ("what?", "what? "):
                for decoding in (dict(temperature=0.0, seed=0), dict(temperature=0.0, seed=1), dict(temperature=0.5, seed=0)):
                    keys.add(store.key(model, picture, prompt, **decoding))
    assert len(keys) == 24
    for i, key in enumerate(sorted(keys)):
        store.keep(opened, key, "m", f"text {i}")
    store.keep(opened, min(keys), "m", "another")
    assert store.kept(opened, sorted(keys)) == {key: f"text {i}" for i, key in enumerate(sorted(keys))}
    assert store.kept(store.opened(tmp_path / "a.sqlite"), [b"none"]) == {}


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A folder of a small model that counts as a large one, and a function that asks it as a member."""
    monkeypatch.setattr(paths, "ANSWERS", tmp_path / "answers.sqlite")
    monkeypatch.setattr(vlm, "LARGE", 1)
    folder = tiny_models.gemma3(tmp_path / "model")
    texts, pictures = [f"how many {word} ?" for word in ("red", "blue", "green")], [PICTURE, PICTURE.rotate(90), PICTURE]
    return folder, lambda **how: vlm.replies(vlm.load_members(folder, [], **how)[0], pictures, texts)


def test_a_large_model_here_is_not_asked_again_either(large, monkeypatch):
    folder, asked = large
    generate, batches = vlm._generate, []
    monkeypatch.setattr(vlm, "_generate", lambda vlm, images, inputs, *rest, **how: batches.append(len(images)) or [
        (text, i != 1) for i, (text, _) in enumerate(generate(vlm, images, inputs, *rest, **how))])
    first = asked()
    again = asked()
    assert batches == [3, 1] and again["reply"].equals(first["reply"])  # the one that did not end is asked again
    assert asked(answer_tokens=[3]) is not None and batches == [3, 1, 3]
    assert asked(answer_prompts=["Say: {question}"]) is not None and batches[3:] == [3]
    assert asked(answer_temperature=0.5, seed=1) is not None and asked(answer_temperature=0.5, seed=2) is not None
    assert batches[4:] == [3, 3]
    (folder / "note.json").write_text("{}")  # as other weights would
    asked()
    assert batches[6:] == [3]


def test_a_small_model_s_answers_are_not_kept_and_neither_are_those_of_one_that_may_have_been_trained(large, monkeypatch):
    folder, asked = large
    assert vlm.load_vlm(folder).identity is None
    monkeypatch.setattr(vlm, "LARGE", 10 ** 8)
    asked()
    assert not paths.ANSWERS.exists()


class Switching(sqlite3.Connection):
    """A file that others open too, just when this process sets SQLite's log: SQLite then gives up without waiting."""
    left = 3

    def execute(self, words, *more):
        if "journal_mode=" in words and self.left:
            self.left -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(words, *more)


def test_a_store_that_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr(store.sqlite3, "connect", lambda file, **how: real(file, factory=Switching, **how))
    made = store.opened(tmp_path / "a.sqlite")
    assert made.left == 0 and made.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    monkeypatch.setattr(store, "WAIT", 0)
    with pytest.raises(Stop, match="database is locked"):
        store.opened(tmp_path / "b.sqlite")


def test_a_killed_process_loses_no_text(tmp_path):
    writes = ("import os; from pathlib import Path; from auditdm_lib.models import store; s = store.opened(Path('a.sqlite'))\n"
              "for i in range(500): store.keep(s, b'%d' % i, 'm', 'x')\nos.kill(os.getpid(), 9)")
    two = [subprocess.Popen([sys.executable, "-c", writes.replace("%d", f"{k} %d")], cwd=tmp_path,
                            env={"PYTHONPATH": str(paths.ROOT)}) for k in range(2)]
    assert [process.wait(60) for process in two] == [-9, -9]
    keys = [b"%d %d" % (k, i) for k in range(2) for i in range(500)]
    assert len(store.kept(store.opened(tmp_path / "a.sqlite"), keys)) == 1000


def test_a_damaged_store_is_named(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Stop, match="delete this file"):
        store.opened(tmp_path / "a.sqlite")
    opened = store.opened(tmp_path / "b.sqlite")
    opened.execute("DROP TABLE texts")
    with pytest.raises(Stop, match="b.sqlite .no such table"):
        store.keep(opened, b"k", "m", "x")


def test_answers_that_cannot_be_kept_stop_the_stage_and_are_no_error_of_the_model(large, monkeypatch):
    folder, _ = large
    monkeypatch.setattr(vlm, "_generate", lambda vlm, images, *rest, **how: [(f"{image.size}", True) for image in images])
    panel = Panel(vlm.load_members(folder, [])[0], [])
    store.shared().execute("PRAGMA busy_timeout = 0")
    other = store.opened(paths.ANSWERS)
    other.execute("BEGIN IMMEDIATE")
    for n in (1, 3):
        with pytest.raises(Stop, match="^Answers cannot be kept in .* .database is locked.: make room or allow writing"):
            judge(panel, [PICTURE] * n, ["how many red ?", "how many blue ?", "where ?"][:n], [None] * n)
    other.execute("ROLLBACK")
    assert judge(panel, [PICTURE], ["how many red ?"], [None])["errors"].tolist() == [0]
