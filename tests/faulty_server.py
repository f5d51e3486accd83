"""A small OpenAI-compatible server in this process that answers by a rule and fails on demand."""

import base64
import gzip
import io
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

MODEL = "org/small"


class Server:
    """`answer(text)` is what it says; `faults[text]` lists what goes wrong with a question, one after the other, before it is
    answered. `asked` and `answered` count, `at_once` is the most questions it had at a time, `sides` holds sizes of pictures."""

    def __init__(self, answer=str.upper, port=0, seconds=0.0):
        self.answer, self.seconds, self.faults, self.key = answer, seconds, {}, None
        self.tokens = lambda content, said: (10, 2)  # of what it is sent, a text or parts, and of what it says
        self.asked, self.answered, self.bodies, self.times, self.sides = Counter(), Counter(), [], [], set()
        self.at_once, self.now, self.dies_after, self.lock = 0, 0, None, threading.Lock()
        self._serve(port)

    def _serve(self, port):
        handler = type("Handler", (Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def name(self):
        return f"openai:{MODEL}@http://127.0.0.1:{self.port}/v1"

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def start_again(self):
        self.dies_after = None
        self._serve(self.port)


class Handler(BaseHTTPRequestHandler):
    """One connection for each request (HTTP 1.0)."""

    def log_message(self, *_):
        pass

    def send(self, data, status=200, length=None, headers=()):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.owner.key and self.headers["Authorization"] != f"Bearer {self.owner.key}":
            return self.send({"error": {"message": "wrong key"}}, 401)
        self.send({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "org"}]})

    def do_POST(self):
        owner = self.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] != MODEL:
            return self.send({"error": {"message": f"no model {body['model']}"}}, 404)
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        with owner.lock:
            owner.asked[text] += 1
            owner.now += 1
            owner.at_once = max(owner.at_once, owner.now)
            owner.bodies.append(body)
            owner.times.append(time.monotonic())
            faults = owner.faults.get(text, [])
            fault = faults.pop(0) if isinstance(faults, list) and faults else faults or None
            if owner.dies_after is not None and sum(owner.answered.values()) >= owner.dies_after:
                fault = "reset"
                threading.Thread(target=owner.stop, daemon=True).start() if owner.dies_after >= 0 else None
                owner.dies_after = -1
        if not isinstance(content, str):
            data = base64.b64decode(content[0]["image_url"]["url"].partition("base64,")[2])
            owner.sides.add(Image.open(io.BytesIO(data)).size)
        time.sleep(owner.seconds)
        try:
            self.reply(text, fault, content)
        except (BrokenPipeError, ConnectionResetError):  # the client waits no longer
            pass
        with owner.lock:
            owner.now -= 1

    def reply(self, text, fault, content):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.owner.answer(text)}}
        sent, written = self.owner.tokens(content, choice["message"]["content"])
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice],
                 "usage": {"prompt_tokens": sent, "completion_tokens": written, "total_tokens": sent + written}}
        empty = {**choice, "message": {"role": "assistant", "content": ""}}
        match fault:
            case None:
                self.owner.answered[text] += 1
                self.send(whole)
            case int():
                self.send({"error": {"message": "it is overheated"}}, fault, headers=[("retry-after-ms", "10")])
            case "told to wait":
                self.send({"error": {"message": "slower"}}, 429, headers=[("Retry-After", "0.3")])
            case "slow":
                time.sleep(1.5)
                self.send(whole)
            case "reset":
                self.connection.close()
            case "cut off":
                self.send(json.dumps(whole).encode()[:40], length=400)
            case "an error cut off":
                self.send({"error": {"message": "it is overheated"}}, 500, length=400)
            case "an error, slow":
                self.send(b"{", 500, length=400)
                time.sleep(1.5)
            case "half of it":
                self.send(json.dumps(whole).encode()[:40])
            case "two choices":
                self.send({**whole, "choices": [choice, choice]})
            case "no choice":
                self.send({**whole, "choices": []})
            case "empty":
                self.send({**whole, "choices": [empty], "usage": {"prompt_tokens": 10, "completion_tokens": 0}})
            case "null":
                self.send({**whole, "choices": [{**choice, "message": {"role": "assistant", "content": None}}]})
            case "an error in it":
                self.send({"error": {"message": "out of memory"}})
            case "a list":
                self.send([1, 2])
            case "deep":
                self.send(b"[" * 100_000)
            case "huge":
                self.send(b" " * 5_000_000 + json.dumps(whole).encode())
            case "far too long":
                message = {"role": "assistant", "content": "it is " * 3000}
                self.send({**whole, "choices": [{**choice, "message": message}]})
            case "compressed":
                data = gzip.compress(json.dumps(whole).encode())
                self.send(data, headers=[("Content-Encoding", "gzip")])
            case "unfinished":
                self.send({**whole, "choices": [{**choice, "finish_reason": "length"}]})
            case "filtered":
                self.send({**whole, "choices": [{**choice, "finish_reason": "content_filter"}]})
            case _:
                raise AssertionError(fault)
