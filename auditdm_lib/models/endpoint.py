"""Models behind OpenAI-compatible servers, wherever a model is only asked: many requests at once, asked again where a server
fails, every text kept (`store`).

An error is never an answer: a question that a server does not answer has none, and a server that is gone stops the stage.
"""

import base64
import hashlib
import io
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from auditdm_lib.models import store
from auditdm_lib.models.asking import CHAT, Asking, Sampling, fingerprints, worded
from auditdm_lib.replies import clean
from auditdm_lib.run import endpoints
from auditdm_lib.run.manifest import Stop

PATIENCE = 150  # seconds for which a question is asked again where a server fails (our choice)
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two tries, doubled each time (our choice)
NONSENSE_TRIES = 4  # of a question to which the server sends something that is no answer (our choice)
IN_A_ROW = 30  # questions without an answer, after which a server counts as broken (our choice)
LARGEST_REPLY, LONGEST_TOKEN = 4_000_000, 100  # bytes; characters (our choice)
LIMIT = "the limit of calls or of cost is reached"  # why a question was not asked
AT_LIMIT = ("The limit of calls or of cost is reached, and here each question needs an answer: raise max_target_calls or "
            "max_cost and run the same command again; what was answered is kept.")
REFUSED = {401: "set the environment variable OPENAI_API_KEY to a key that it takes and run the same command",
           402: "see to the account there and run the same command",
           404: "name a model that it has, or correct the address, and run the command again"}  # HTTP status -> the remedy
TOO_MANY = "set requests_per_minute, or lower requests_at_once, or see to the account there, and run the same command"
UNFIT = ("look into its log, and whether the model takes such requests (a picture, max_tokens, a temperature and a seed), and "
         "run the same command")
LIKE_A_TOKEN = re.compile(r"<[|/]*\w+[|/]*>|\[/?INST\]")


class Gone(Stop):
    """A server does not answer any more, or refuses everything."""


class Unanswered(RuntimeError):
    """One question that a server does not answer, whereas it may answer others."""


class Nonsense(ValueError):
    """What a server sent is no answer, or not a whole one."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind a server: its whole name (`openai:MODEL@URL`), the model as the server calls it, the server's address, how
    it is asked and sampled (as of a `VLM`), and whether its questions count as target calls."""

    name: str
    model: str
    url: str
    asking: Asking = CHAT
    sampling: Sampling | None = None
    is_target: bool = False


@dataclass
class Requests:
    """How this process may use servers (0: no limit), and what it has used.

    Prices are per million tokens of what is sent and of what is written, in any currency, as `max_cost` is. A limit stops the
    process where `stop` is set; else what is left is not asked. `counts`: calls, target_calls, kept (texts that were found in the
    store), unanswered, not_asked, tokens_sent, tokens_written.
    """

    at_once: int = 8
    per_minute: int = 0
    max_target_calls: int = 0
    max_cost: float = 0.0
    prices: tuple[float, float] = (0.0, 0.0)
    stop: bool = False
    counts: Counter = field(default_factory=Counter)
    next_slot: float = 0.0  # when the next request may be sent, by `time.monotonic`
    in_a_row: Counter = field(default_factory=Counter)  # server -> questions without an answer since its last answer
    last_answer: Counter = field(default_factory=Counter)  # server -> when that came, by `time.monotonic`
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cost(self) -> float:
        """What the tokens so far cost."""
        return (self.counts["tokens_sent"] * self.prices[0] + self.counts["tokens_written"] * self.prices[1]) / 1e6

    @property
    def too_dear(self) -> bool:
        """Whether `max_cost` is reached."""
        return bool(self.max_cost) and self.cost >= self.max_cost


requests = Requests()


def limit(at_once: int = 8, per_minute: int = 0, max_target_calls: int = 0, max_cost: float = 0.0,
          price_per_million: Sequence[float] = (), stop: bool = False) -> Counter:
    """Set how this process may use servers, and count anew; gives the counts, which grow (see `Requests`)."""
    global requests
    requests = Requests(at_once, per_minute, max_target_calls, max_cost, tuple(price_per_million) or (0.0, 0.0), stop)
    return requests.counts


def limit_as(parameters: dict[str, Any], stop: bool = False) -> Counter:
    """`limit` by the parameters of a notebook."""
    return limit(*(parameters[name] for name in ("requests_at_once", "requests_per_minute", "max_target_calls", "max_cost",
                                                 "price_per_million")), stop)


def load_endpoint(name: str, asked: dict | None = None) -> Endpoint:
    """A model behind a server; `asked` replaces fields of its `Asking`. Raises ValueError if it cannot be asked now."""
    model, url = endpoints.parts(name)
    if found := endpoints.unavailable(name):
        raise ValueError(f"{name}: {found}")
    return Endpoint(name, model, url, replace(CHAT, **asked or {}))


def replies(endpoint: Endpoint, images: list[Image.Image], questions: list[str], max_new_tokens: int | None = None,
            desc: str | None = None, bare: bool = False) -> pd.DataFrame:
    """What the model replies to question i about image i, put in its own way but for `bare` ones (`ask`'s table).

    With a `sampling` each picture and question has its seed.
    """
    texts = [question if bare else worded(endpoint.asking, question) for question in questions]
    tokens, temperature, seeds = max_new_tokens or endpoint.asking.max_new_tokens, 0.0, None
    if endpoint.sampling:
        temperature = endpoint.sampling.temperature
        seeds = [_seed(endpoint.sampling.seed, text, picture) for text, picture in zip(texts, fingerprints(images), strict=True)]
    return ask(endpoint, images, texts, tokens, temperature, seeds, desc)


def whole(given: pd.DataFrame, name: str) -> pd.DataFrame:
    """The replies of a model that answered every question: reply, ended. Raises Gone if it did not."""
    if (errors := given["error"].dropna()).empty:
        return given[["reply", "ended"]]
    if errors.eq(LIMIT).any():
        raise Gone(AT_LIMIT)
    raise Gone(f"{len(errors)} of {len(given)} questions to {name} have no answer ({errors.iloc[0]}), and here each needs one: "
               "run the same command again, which asks only these.")


def written(endpoint: Endpoint, images: list[Image.Image], instruction: str, temperature: float, seed: int, max_new_tokens: int,
            desc: str | None = None) -> pd.DataFrame:
    """One sampled text per image: text, ended, error (why there is none, as in `ask`)."""
    seeds = [_seed(str(seed), str(i)) for i in range(len(images))]
    given = ask(endpoint, images, [instruction] * len(images), max_new_tokens, temperature, seeds, desc)
    return given.rename(columns={"reply": "text"})


def _seed(*parts: str | bytes) -> int:
    """A seed below 2^31, which every server takes."""
    texts = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    return int.from_bytes(hashlib.sha256(b"/".join(texts)).digest()[:4], "big") >> 1


def ask(endpoint: Endpoint, images: list[Image.Image] | None, texts: list[str], max_new_tokens: int, temperature: float = 0.0,
        seeds: list[int] | None = None, desc: str | None = None) -> pd.DataFrame:
    """What a model says to text i about image i (None: to the texts alone), with a progress bar named `desc` if given.

    One row for each: reply, ended (whether it ended within `max_new_tokens` tokens), error (why there is no reply, or None). What
    is kept is not asked again, equal rows once. From the first row that a limit keeps from being asked, error is LIMIT in all,
    also where a text is kept, since those were no fair sample. Raises Gone if the server is gone, or if a limit is to stop the
    process; what it answered before is kept.
    """
    seeds, texts = seeds or [0] * len(texts), [as_data(text) for text in texts]
    pictures = fingerprints(images) if images is not None else [b""] * len(texts)
    keys = [store.key(endpoint.name, picture, text, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
                      longest_side=endpoints.LONGEST_SIDE)
            for picture, text, seed in zip(pictures, texts, seeds, strict=True)]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    said = {key: (text, True, None) for key, text in store.kept(store.shared(), list(first)).items()}
    requests.counts["kept"] += len(said)
    todo = _allowed(endpoint, [(key, first[key]) for key in sorted(first, key=first.get) if key not in said])
    over, pool = threading.Event(), ThreadPoolExecutor(requests.at_once)
    try:
        jobs = {pool.submit(_one, endpoint, over, key, images and images[i], texts[i], {
            "max_tokens": max_new_tokens, "temperature": temperature, "seed": seeds[i]}): key for key, i in todo}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=desc, disable=desc is None):
            said[jobs[job]] = job.result()
    finally:  # after an error or an interrupt: none is begun, and those that have been sent are waited for and kept
        over.set()
        pool.shutdown(cancel_futures=True)
    missing = (None, False, LIMIT)
    rows = [said.get(key, missing) for key in keys]
    begun = 0 if rows and _is_over(endpoint) else next((i for i, row in enumerate(rows) if row == missing), len(rows))
    rows[begun:] = [missing] * (len(rows) - begun)
    if begun < len(rows):
        _at_the_limit(len(rows) - begun)
    return pd.DataFrame(rows, columns=["reply", "ended", "error"], dtype=object).astype({"ended": bool})


def _is_over(endpoint: Endpoint) -> bool:
    """Whether an earlier question to this model has met a limit."""
    return bool(requests.counts["not_asked"]) and (requests.too_dear or endpoint.is_target and bool(requests.max_target_calls))


def _at_the_limit(left: int) -> None:
    """Stop, or say once that so many questions, and those to come, are not asked."""
    if requests.stop:
        raise Gone(AT_LIMIT)
    if not requests.counts["not_asked"]:
        print(f"Here {LIMIT}: no more questions are asked. Repeat the stage (--force) to go on from here.")
    requests.counts["not_asked"] += left


def _allowed(endpoint: Endpoint, todo: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """The first of the questions, as many as `max_target_calls` leaves."""
    if _is_over(endpoint):
        return []
    if endpoint.is_target:
        if requests.max_target_calls:
            todo = todo[:max(0, requests.max_target_calls - requests.counts["target_calls"])]
        requests.counts["target_calls"] += len(todo)
    return todo


def as_data(text: str) -> str:
    """`text` with what looks like a special token broken up by spaces, and lone surrogates replaced."""
    text = LIKE_A_TOKEN.sub(lambda token: " ".join(token[0]), text)
    return text.encode("utf-8", "replace").decode("utf-8")


PICTURES = threading.Lock()  # a picture that is opened when it is needed belongs to one thread at a time


def data_url(image: Image.Image) -> str:
    """A picture as a data URL of a PNG, reduced to `endpoints.LONGEST_SIDE`."""
    with PICTURES:
        image = image.convert("RGB")
    image.thumbnail((endpoints.LONGEST_SIDE,) * 2, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _one(endpoint: Endpoint, over: threading.Event, key: bytes, image: Image.Image | None, text: str,
         decoding: dict[str, float]) -> tuple[str | None, bool, str | None]:
    """The reply to one question, whether it ended, and why there is none. One that ended is kept."""
    if over.is_set():
        raise CancelledError
    if requests.too_dear:
        return None, False, LIMIT
    picture = [] if image is None else [{"type": "image_url", "image_url": {"url": data_url(image)}}]
    content = [*picture, {"type": "text", "text": text}] if picture else text
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": content}], **decoding}
    with requests.lock:
        requests.counts["calls"] += 1
    try:
        reply, ended = _until_answered(endpoint, over, body)
    except Unanswered as error:
        with requests.lock:
            requests.counts["unanswered"] += 1
            requests.in_a_row[endpoint.url] += 1
        if requests.in_a_row[endpoint.url] >= IN_A_ROW:
            raise _gone(endpoint, f"gave no answer to {IN_A_ROW} questions in a row, lastly because of {error}",
                        UNFIT) from error
        return None, False, str(error)
    with requests.lock:
        requests.in_a_row[endpoint.url], requests.last_answer[endpoint.url] = 0, time.monotonic()
    if ended:
        store.keep(store.shared(), key, endpoint.name, reply)
    return reply, ended, None


def _until_answered(endpoint: Endpoint, over: threading.Event, body: dict[str, Any]) -> tuple[str, bool]:
    """Send a question until there is an answer, at growing intervals. Raises Unanswered, or Gone."""
    import openai

    began, wait, tries = time.monotonic(), FIRST_WAIT, 0
    while True:
        _take_turn(over)
        tries += 1
        try:
            return _sent(endpoint, body)
        except Nonsense as error:
            why, pause, alone, ends = str(error), wait, True, tries >= NONSENSE_TRIES
        except openai.APIStatusError as error:
            code = error.status_code
            if code in REFUSED:
                raise _gone(endpoint, f"refuses every question ({endpoints.reason(error)})", REFUSED[code]) from error
            if code not in (408, 409, 429) and code < 500:
                raise Unanswered(endpoints.reason(error)) from error
            why, pause, alone = endpoints.reason(error), _told_to_wait(error.response.headers) or wait, code != 429
            gone = f"takes no more questions ({why})", TOO_MANY
            since = began if alone else max(began, requests.last_answer[endpoint.url])  # it answers others meanwhile
            ends = time.monotonic() + pause > since + PATIENCE
        except openai.APIConnectionError as error:
            why, pause, alone = endpoints.reason(error), wait, isinstance(error, openai.APITimeoutError)
            gone = f"cannot be reached ({why})", "start it again and run the same command"
            ends = time.monotonic() + pause > began + PATIENCE
        if ends and alone:  # it may be this question's fault
            raise Unanswered(why)
        if ends:
            raise _gone(endpoint, *gone)
        over.wait(pause * random.uniform(1, 1.25))  # so that not all come back at once, and none before it was told to
        wait = min(2 * wait, LONGEST_WAIT)


def _gone(endpoint: Endpoint, what: str, remedy: str) -> Gone:
    return Gone(f"The server at {endpoint.url} {what}: {remedy}; what was answered is kept.")


def _take_turn(over: threading.Event) -> None:
    """Wait until the next request may be sent."""
    if requests.per_minute:
        with requests.lock:
            slot = max(time.monotonic(), requests.next_slot)
            requests.next_slot = slot + 60 / requests.per_minute
        over.wait(slot - time.monotonic())
    if over.is_set():
        raise CancelledError


def _told_to_wait(headers: Any) -> float | None:
    """Seconds that a server says to wait. A date, or more than it can be waited for, is left to our own intervals."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 < seconds < PATIENCE:
            return seconds
    return None


def _sent(endpoint: Endpoint, body: dict[str, Any]) -> tuple[str, bool]:
    """Send a question once: the reply, and whether it ended. Raises Nonsense, Unanswered, or what openai raises."""
    import openai

    began, data = time.monotonic(), b""
    try:
        with endpoints.client(endpoint.url).chat.completions.with_streaming_response.create(**body) as response:
            for chunk in response.http_response.iter_raw():
                data += chunk
                if len(data) > LARGEST_REPLY or time.monotonic() - began > 2 * endpoints.REPLYING:
                    break
    except openai.OpenAIError:
        raise
    except Exception as error:  # of the transport, whose library openai changes at times; openai reads a reply to an error itself
        raise Nonsense(f"the reply broke off ({endpoints.reason(error)})") from error
    if len(data) > LARGEST_REPLY:
        raise Nonsense(f"a reply of more than {LARGEST_REPLY:,} bytes")
    reply, ended = read(data)
    longest = LONGEST_TOKEN * body["max_tokens"]  # a server may not keep to it
    return reply[:longest], ended and len(reply) <= longest


def read(data: bytes) -> tuple[str, bool]:
    """The text in a server's reply, and whether it ended; its tokens are counted. Raises Nonsense, or Unanswered for a reply
    that a filter withholds.

    An empty text is the model's own where the server counts tokens that it wrote, its end token at least.
    """
    try:
        given = json.loads(data)
        if given.get("error"):
            raise Nonsense(f"an error: {endpoints.one_line(given['error'])}")
        if len(given["choices"]) != 1:
            raise Nonsense(f"{len(given['choices'])} choices instead of one")
        choice, tokens = given["choices"][0], given.get("usage") or {}
        said, why = choice["message"].get("content"), choice.get("finish_reason")
        text = said or choice["message"].get("refusal") or ""
        sent, written = (int(tokens.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        text = clean(text).strip()
    except Nonsense:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Nonsense("something that is no chat completion") from error
    if requests.max_cost and not sent:
        raise Gone("max_cost cannot be kept, since the server does not say how many tokens it reads: set max_cost to 0, and "
                   "max_target_calls if wanted.")
    with requests.lock:
        requests.counts.update(tokens_sent=sent, tokens_written=written)
    if why == "content_filter":
        raise Unanswered("a filter of the server withholds the reply")
    if why is None:
        raise Nonsense("a reply that does not say why it ended")
    if not text and why != "length" and (said is None or not written):
        raise Nonsense("an empty reply")
    return text, why != "length"
