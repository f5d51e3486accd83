"""A vLLM server writes GRPO's texts with the weights of each step; one that cannot is refused before work starts."""

import json

import pytest
import tiny_models
import torch
import trainings as small
import vllm_server
from transformers import AutoProcessor

from auditdm_lib import paths
from auditdm_lib.audit import auditor
from auditdm_lib.models.vlm import load_vlm
from auditdm_lib.run import devices, executor, params, stage
from auditdm_lib.run.manifest import Stop
from auditdm_lib.training import grpo, rollouts
from auditdm_lib.training.trainings import last_checkpoint


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(auditor, "judge", small.judge)
    with vllm_server.for_rollouts(small.START, monkeypatch) as made:
        yield made


@pytest.mark.parametrize("how", [dict(replay_weight=0.4), dict(lora_rank=4, accumulation=2, checkpointing=True)],
                         ids=["all weights", "adapters"])
def test_a_server_writes_the_texts_of_each_step_with_the_weights_of_that_step(how, server, tmp_path):
    step, history, asked = small.reinforce(tmp_path, steps=3, vllm_server=server.url, **how)
    generated = server.posted("/inference/v1/generate")
    assert len(generated) == len(server.posted("/v1/chat/completions/render")) == 3 * 2  # one request for each picture
    assert len(server.posted("/update_weights")) == len(server.posted("/reset_prefix_cache")) == 3
    assert {body["sampling_params"]["n"] for body in generated} == {4} and len(asked) == 3 * 2 * 4
    assert len({json.dumps(body["features"]["kwargs_data"]) for body in generated}) == 6  # each picture is its own
    logged = json.loads((last_checkpoint(tmp_path / "training") / "trainer_state.json").read_text())["log_history"]
    for row in logged[:3]:  # what the server sampled by is what is trained: the same weights, pictures, tokens and temperature
        assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)
        assert row["sampling/sampling_logp_difference/max"] < 1e-3
    start, served, trained = (dict(vlm.model.named_parameters()) for vlm in (load_vlm(small.START), server.vlm, load_vlm(step)))
    for one, other in ((start, served), (served, trained)):  # the server has the weights before the last step
        assert any((one[name] != other[name]).any() for name in start)
    assert history["reward"].notna().all() and set(asked["kind"]) == {"question", "edit"}
    written = asked[asked["invalid_reason"].isna()]
    assert len(written) > 5 and written["question"].notna().all()  # to an edit command, the trained model here adds it


def test_a_server_that_ends_in_mid_training_stops_it_and_another_one_goes_on(server, tmp_path, monkeypatch):
    real, calls = vllm_server.Server.write, []

    def failing(self, body):
        calls.append(body)
        if len(calls) > 2 * 2:
            self.replies["/inference/v1/generate"] = 400
            return {}
        return real(self, body)
    monkeypatch.setattr(vllm_server.Server, "write", failing)
    monkeypatch.setattr(rollouts.GRPOTrainer, "is_world_process_zero", lambda trainer: closed.append(trainer) or True)
    closed = []
    with pytest.raises(Stop, match="The vLLM server at http.* does not write the rollouts any more .*run the same command"):
        small.reinforce(tmp_path, steps=4, vllm_server=server.url)
    assert closed and closed[0].vllm_generation.vllm_client.communicator is None  # its port is free
    monkeypatch.setattr(vllm_server.Server, "write", real)
    with vllm_server.for_rollouts(small.START, monkeypatch) as other:
        small.reinforce(tmp_path, steps=4, vllm_server=other.url)  # another address is no other training
        assert len(other.posted("/inference/v1/generate")) == 2 * 2
    with pytest.raises(Stop, match="changed since"):
        small.reinforce(tmp_path, steps=4)


def test_a_server_that_has_ended_before_grpo_begins_is_told_in_a_sentence(server, tmp_path, monkeypatch):
    server.replies["/v1/models"] = 404
    with pytest.raises(Stop, match="does not write the rollouts any more .Request failed: 404.*run the same command"):
        small.reinforce(tmp_path / "one", steps=1, vllm_server=server.url)
    with monkeypatch.context() as own, pytest.raises(Stop, match="The vLLM server can't be reached at http://127.0.0.1:9"):
        own.setattr(grpo, "by_server", lambda url, auditor: rollouts.by_server(url, auditor) | dict(vllm_server_timeout=0.1))
        small.reinforce(tmp_path / "two", steps=1, vllm_server="http://127.0.0.1:9")


def test_an_error_that_is_not_the_server_s_is_not_laid_at_its_door(server, tmp_path, monkeypatch):
    def judge(*_, **__):
        raise LookupError("no judge")
    monkeypatch.setattr(auditor, "judge", judge)
    with pytest.raises(LookupError, match="no judge"):
        small.reinforce(tmp_path, steps=1, vllm_server=server.url)


def test_trl_looks_for_a_picture_by_an_id_that_in_gemma3_is_not_its_tokens():
    # so `answering` sets it; where this fails, TRL or transformers has mended it and that line can go
    processor = AutoProcessor.from_pretrained(small.START)
    assert processor.image_token_id == processor.tokenizer.boi_token_id != processor.image_token_ids[0]


@pytest.fixture
def with_gpus(monkeypatch):
    monkeypatch.setattr(devices, "unfit", lambda values, gpu: [])


def changed(info, part, **values):
    info["vllm_config"][part] = values and info["vllm_config"][part] | values or None
    return info


@pytest.mark.parametrize(("path", "reply", "words"), [
    ("/health", 503, "is not ready .HTTP 503.: correct the address, or start it as"),
    ("/v1/models", 401, "cannot write rollouts .Request failed: 401, .*without --api-key"),
    ("/server_info", 404, "VLLM_SERVER_DEV_MODE=1"),
    ("/v1/chat/completions/render", 404, "From vLLM 0.30.0, restart it with .--enable-scale-out"),
    ("/v1/chat/completions/render", 400, "Request failed: 400"),
    ("/v1/chat/completions/render", {"features": None}, "takes no pictures with"),
    ("/server_info", {"vllm_config": {}}, "cannot write rollouts .'model_config'.: start it as"),
    ("/server_info", lambda info: changed(info, "weight_transfer_config"), "takes no weights: start it as `VLLM_SERVER_DEV"),
    ("/server_info", lambda info: changed(info, "model_config", model="org/other-4b"), "serves org/other-4b, not .*auditor"),
    ("/server_info", lambda info: changed(info, "model_config", logprobs_mode="raw_logprobs"), "before the temperature")])
def test_a_server_that_cannot_do_it_is_refused_with_the_command_that_starts_one(path, reply, words, server, with_gpus):
    rollouts.check_server(server.url, small.START)  # else it would do
    server.replies[path] = reply(server.about()) if callable(reply) else reply
    with pytest.raises(Stop, match=f"^vllm_server: the server at {server.url} .*{words}") as caught:
        rollouts.check_server(server.url, small.START)
    assert "\n" not in str(caught.value) and f"vllm serve {small.START} --weight-transfer-config" in str(caught.value)


def test_a_server_that_is_not_there_is_refused(with_gpus):
    with pytest.raises(Stop, match="127.0.0.1:9 is not ready .no reply.: correct the address"):
        rollouts.check_server("http://127.0.0.1:9", small.START)
    rollouts.check_server("", small.START)


def test_an_auditor_whose_pictures_trl_cannot_send_is_refused(with_gpus, tmp_path):
    processor = AutoProcessor.from_pretrained(tiny_models.idefics3(tmp_path / "idefics3"))
    rollouts.check_prompt(processor)
    processor.image_processor.do_image_splitting, processor.image_processor.size = True, {"longest_edge": 64}
    processor.save_pretrained(tmp_path / "idefics3")
    with pytest.raises(ValueError, match="shows a picture in 5 runs of image tokens, .*: set vllm_server to ''"):
        rollouts.check_server("http://127.0.0.1:9", tmp_path / "idefics3")
    with pytest.raises(ValueError, match="TRL's GRPO does not train PaliGemma correctly"):
        rollouts.check_server("http://127.0.0.1:9", tiny_models.paligemma2(tmp_path / "paligemma2"))


def test_without_a_gpu_or_vllm_nothing_begins(monkeypatch):
    given = dict(vllm_server="http://10.0.0.1:8000")
    assert devices.unfit(given, gpu=False) == [
        "vllm_server: http://10.0.0.1:8000 works on NVIDIA GPUs only, and there is none here: set vllm_server to ''."]
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    assert devices.unfit(given, gpu=True) == [
        "vllm_server: http://10.0.0.1:8000 needs a package that is not installed: pip install -e .[vllm]."]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Stop, match="pip install -e .*vllm"):
        rollouts.check_server(given["vllm_server"], small.START)
    monkeypatch.setattr(devices, "nvidia", lambda: None)
    monkeypatch.setattr(executor, "check_writable", lambda values: None)
    with pytest.raises(Stop, match="Nothing was run.\n  vllm_server: "):
        executor.run_chain((), params.effective(given, params.declared_anywhere()), False, False)


def test_the_address_is_plain_and_no_part_of_what_a_stage_is_known_by():
    step, known = paths.step("01_train_auditor"), params.declared(paths.NOTEBOOKS / "01_train_auditor.ipynb")
    keys = [stage.stage_key(step, params.effective(dict(vllm_server=url), known), known)
            for url in ("", "http://one:8000", "http://two:8000")]
    assert keys[1] == keys[2] != keys[0] and "one:8000" not in json.dumps(keys[1])
    for url in ("host:8000", "http://", "http://host:8000/v1", "http://me:secret@host:8000", "http://host:8000?key=secret"):
        with pytest.raises(params.BadParameters, match="vllm_server: it is not the address of a server: write http") as caught:
            params.check(dict(vllm_server=url), known, "profile")
        assert "secret" not in str(caught.value)
    params.check(dict(vllm_server="https://host"), known, "profile")
