"""A stand-in for `vllm serve` on a processor: what of its HTTP interface TRL 1.16 and the kit use, by a model of transformers.

The paths and the fields of requests and replies are vLLM's own (0.22 to 0.31: vllm/entrypoints/serve, TRL's vllm_client.py).
Only NCCL, which needs GPUs, is replaced: the weights are handed over within the process, by name, once the server is told.
"""

import base64
import contextlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import torch
from PIL import Image
from trl.generation import vllm_client, vllm_generation

from auditdm_lib.models.vlm import load_vlm, replies


class Server(ThreadingHTTPServer):
    """`asked` holds (path, body) of what was posted; `replies` replaces replies by path: a status, or a dictionary."""

    daemon_threads = True

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.path, self.vlm, self.asked, self.replies, self.lock = str(path), load_vlm(path), [], {}, threading.Lock()
        self.told = threading.Semaphore(0)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def posted(self, path):
        return [body for asked, body in self.asked if asked == path]

    def receive(self, tensors):
        """Take the weights that the last /update_weights announced."""
        assert self.told.acquire(timeout=60)  # it is told by another thread, as NCCL wants it
        names, own = self.posted("/update_weights")[-1]["update_info"]["names"], dict(self.vlm.model.named_parameters())
        assert set(names) == set(own)
        for expected, (name, tensor) in zip(names, tensors, strict=True):
            assert name == expected
            own[name].data.copy_(tensor)

    def about(self):
        return {"vllm_config": {"weight_transfer_config": {"backend": "nccl"},
                                "model_config": {"model": self.path, "logprobs_mode": "processed_logprobs"}}}

    @torch.no_grad()
    def write(self, body):
        """n texts for one prompt of token ids with one picture, each with the probabilities of its tokens."""
        how, model = body["sampling_params"], self.vlm.model
        [place], [data] = body["features"]["mm_placeholders"]["image"], body["features"]["kwargs_data"]["image"]
        ids = torch.tensor(body["token_ids"]).repeat(how["n"], 1)
        seen = torch.zeros_like(ids)
        seen[:, place["offset"]:place["offset"] + place["length"]] = 1
        pixels = self.vlm.processor.image_processor(Image.open(io.BytesIO(base64.b64decode(data))), return_tensors="pt")
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=seen,
            pixel_values=pixels["pixel_values"].repeat(how["n"], 1, 1, 1), do_sample=True, temperature=how["temperature"],
            top_k=how["top_k"], top_p=how["top_p"], max_new_tokens=how["max_tokens"], eos_token_id=how["stop_token_ids"],
            output_scores=True, return_dict_in_generate=True)
        choices, texts = [], made.sequences[:, ids.shape[1]:].tolist()
        for k, text in enumerate(texts):
            end = next((i + 1 for i, token in enumerate(text) if token in how["stop_token_ids"]), len(text))
            scored = [made.scores[i][k].log_softmax(-1)[text[i]].item() for i in range(end)]
            choices.append({"index": k, "token_ids": text[:end], "logprobs": {"content": [
                {"token": f"token_id:{token}", "logprob": score, "top_logprobs": []}
                for token, score in zip(text[:end], scored, strict=True)]}})
        return {"request_id": body["request_id"], "choices": choices}


    def chat(self, body):
        """The most probable reply to a picture and a text, which the model is told as it is."""
        picture, text = body["messages"][0]["content"]
        image = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
        (said, ended), = replies(self.vlm, [image], [text["text"]], body["max_tokens"], bare=True).itertuples(index=False)
        choice = {"index": 0, "finish_reason": "stop" if ended else "length", "message": {"role": "assistant", "content": said}}
        return {"object": "chat.completion", "usage": {"prompt_tokens": 9, "completion_tokens": 3}, "choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, reply):
        status, data = (reply, b'{"error": "no"}') if isinstance(reply, int) else (200, json.dumps(reply).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        server, path = self.server, self.path.partition("?")[0]
        usual = {"/health": {}, "/v1/models": {"data": [{"id": "served"}]}, "/server_info": server.about()}
        self.send(server.replies.get(path, usual.get(path, 404)))

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        with server.lock:
            server.asked.append((self.path, body))
            if self.path == "/update_weights":
                server.told.release()
            if self.path in server.replies:
                self.send(server.replies[self.path])
            elif self.path == "/v1/chat/completions/render":
                pictures = [part["image_url"]["url"].partition(",")[2] for part in body["messages"][0]["content"]]
                self.send({"features": {"mm_placeholders": {"image": [{"offset": 0, "length": 1}] * len(pictures)},
                                        "kwargs_data": {"image": pictures}}})
            else:
                work = {"/inference/v1/generate": server.write, "/v1/chat/completions": server.chat}.get(self.path)
                self.send(work(body) if work else {"success": True})


@contextlib.contextmanager
def serving(path):
    """A server of the model at `path`."""
    server = Server(path)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def for_rollouts(path, patch):
    """A server of the model at `path`, and TRL as if vLLM were installed here; NCCL hands weights to that server."""
    with serving(path) as server:
        nccl = SimpleNamespace(trainer_send_weights=lambda iterator, trainer_args: server.receive(iterator))
        for module in (vllm_client, vllm_generation):
            patch.setattr(module, "is_vllm_available", lambda *_: True)
        patch.setattr(vllm_client, "NCCLWeightTransferEngine", nccl, raising=False)
        patch.setattr(vllm_client, "NCCLTrainerSendWeightsArgs", lambda **_: None, raising=False)
        patch.setattr(vllm_client.VLLMClient, "init_communicator", lambda client, device: setattr(
            client, "communicator", SimpleNamespace(group=SimpleNamespace(store=server, socket=server))))
        yield server
