"""Models behind OpenAI-compatible servers: what their names look like, whether a server is there and has the model.

The API key is read from the environment (OPENAI_API_KEY) and never written anywhere.
"""

import contextlib
import functools
import importlib.util
import ipaddress
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

PREFIX = "openai:"
FORM = "openai:MODEL@http://host:port/v1"
NAME = re.compile(r"openai:(?P<model>[^\s\x00-\x1f]+)@(?P<url>https?://[!-~]+)")
CONNECTING, LISTING, REPLYING = 10, 20, 120  # seconds for a connection, the list of models, a reply (our choice)
LONGEST_SIDE = 2048  # pixels to which a picture is reduced before it is sent (our choice)


def is_endpoint(name: str | Path) -> bool:
    """Whether a model's name means a server."""
    return str(name).startswith(PREFIX)


def parts(name: str) -> tuple[str, str]:
    """The model as its server calls it, and the server's address. Raises ValueError with what is wrong with the name."""
    if found := fault(name):
        raise ValueError(found)
    matched = NAME.fullmatch(name)
    return matched["model"], matched["url"].rstrip("/")


def fault(name: str) -> str | None:
    """What is wrong with the name of a model behind a server, by the name alone, or None."""
    matched = NAME.fullmatch(name)
    if matched and ("@" in (url := matched["url"]) or "?" in url or "#" in url):  # the whole name may hold a key: not repeated
        return ("an address of a server holds a user, a key or a query: leave them out, and put the key into the environment "
                "variable OPENAI_API_KEY.")
    if not (matched and _has_host(matched["url"])):
        return f"{name!r} does not name a model behind a server: write {FORM}, with the model as the server calls it."
    if importlib.util.find_spec("openai") is None:
        return f"{name}: the package openai is not installed; install it with `pip install -e .[endpoints]`."
    return None


def launch_fault(notebook: str, values: dict[str, Any]) -> str | None:
    """Why a stage cannot train in several processes with the models that these values name, or None."""
    asked = [values.get("target", ""), *values.get("references", []), values.get("judge_model", "")]
    if notebook[:2] != "01" or not values.get("launch") or not any(map(is_endpoint, asked)):
        return None
    return ("launch: each process of the auditor's training would ask the model behind a server by itself, past max_target_calls "
            "and max_cost: set launch to \"\".")


def address_fault(url: str) -> str | None:
    """What is wrong with a server's plain address, or None. The address is not repeated, since it may hold a key."""
    if re.fullmatch(r"https?://[^\s/@?#]+", url) and _has_host(url):
        return None
    return "it is not the address of a server: write http://host:port, without a user, a path or a query."


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


@functools.lru_cache
def client(url: str):
    """The client of a server. It asks once: what is asked again, and how long, is decided by the caller."""
    from openai import DefaultHttpxClient, OpenAI  # a second

    # a server on this machine is never behind the proxy that the environment may name
    http = DefaultHttpxClient(trust_env=not _on_this_machine(urlsplit(url).hostname))
    # uncompressed, since a few bytes can become any number of them
    return OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=0, http_client=http,
                  timeout=_seconds(REPLYING), default_headers={"Accept-Encoding": "identity"})


def _on_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _seconds(reply: float):
    from openai import Timeout

    return Timeout(reply, connect=CONNECTING)


def unavailable(name: str) -> str | None:
    """Why a model behind a server cannot be asked now, in one sentence, or None.

    The server is asked for its list of models. Where the list lacks the model, or there is no list, a word is asked for, since
    some servers load models that they do not list.
    """
    import openai

    model, url = parts(name)
    try:
        listed = [row.id for row in client(url).with_options(timeout=_seconds(LISTING), max_retries=1).models.list().data or []]
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        return f"the server at {url} refuses the key ({reason(error)}): set the environment variable OPENAI_API_KEY."
    except openai.APIStatusError:
        listed = []
    except Exception as error:  # openai's, httpx's, and those of a reply that is no list of models
        return f"the server at {url} cannot be reached ({reason(error)}): {_remedy(url, reason(error))}."
    if model in listed:
        return None
    try:
        client(url).with_options(max_retries=1).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say yes."}], max_tokens=1, temperature=0)
    except openai.APIStatusError as error:
        others = f"; it lists {', '.join(map(one_line, listed[:5]))}" if listed else ""
        return f"the server at {url} has no model {model} that answers ({reason(error)}{others}): name one that it has."
    except Exception as error:
        return f"the server at {url} does not answer for the model {model} ({reason(error)}): look at its log."
    return None


def _remedy(url: str, why: str) -> str:
    if "CERTIFICATE" in why:
        return "name the certificate that it is signed by in the environment variable SSL_CERT_FILE"
    proxy = not _on_this_machine(urlsplit(url).hostname) and getproxies()
    return "start it, or correct the address" + (", or the proxy that the environment names" if proxy else "")


def reason(error: BaseException) -> str:
    """An error of the client in a few words of one line: the server's own where it said some, else its cause's."""
    body = getattr(error, "body", None)
    said = body.get("message") or body.get("detail") if isinstance(body, dict) else None
    status = getattr(error, "status_code", None)
    deepest = error
    while said is None and status is None and deepest.__cause__ is not None:
        deepest = deepest.__cause__  # "Connection error." alone says nothing
    return one_line(" ".join(str(part) for part in (status and f"HTTP {status}", said or (
        None if status else str(deepest) or type(deepest).__name__)) if part))


def one_line(text: object) -> str:
    """At most 200 characters of a server's text, on one line, without the key, which some repeat."""
    text, key = str(text), os.environ.get("OPENAI_API_KEY")
    text = text.replace(key, "***") if key else text
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip().rstrip(".")
