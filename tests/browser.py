"""A headless Chromium that opens a page, measures it and takes pictures of it, over its DevTools protocol."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from contextlib import contextmanager
from threading import Thread
from urllib.request import urlopen

import websocket  # comes with jupyter_server

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1", "--no-first-run",
         "--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]


class Tab:
    """One tab. `call` sends a command of the protocol and gives its result."""

    def __init__(self, address: str):
        self.socket, self.sent = websocket.create_connection(address, timeout=300), 0

    def call(self, method: str, **more) -> dict:
        self.sent += 1
        self.socket.send(json.dumps(dict(id=self.sent, method=method, params=more)))
        while (reply := json.loads(self.socket.recv())).get("id") != self.sent:
            pass
        assert "error" not in reply, reply["error"]
        return reply["result"]

    def open(self, file, width: int, dark: bool = False, media: str = "screen") -> None:
        """Open a file at so many pixels, in light or dark, as on the screen or in print."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = dict(name="prefers-color-scheme", value="dark" if dark else "light")
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=file.as_uri())
        self.run("new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', () => done(1)))")

    def run(self, script: str) -> object:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get("value")

    def picture(self, height: int | None = None) -> bytes:
        """A PNG of the page, as a whole or of its first `height` pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = dict(x=0, y=0, width=size["width"], height=height or size["height"], scale=1)
        return b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])

    def pdf(self) -> bytes:
        return b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])


@contextmanager
def opened(folder):
    """A tab of a new browser, which keeps its profile in `folder` and ends with the block."""
    with subprocess.Popen([FOUND, *FLAGS, f"--user-data-dir={folder}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          text=True) as browser:
        try:
            port = next(found[1] for line in browser.stderr if (found := re.search(r"listening on ws://[^:]+:(\d+)/", line)))
            Thread(target=browser.stderr.read, daemon=True).start()  # a full pipe would hold the browser up
            with urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
                pages = json.loads(reply.read())
            yield Tab(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
        finally:
            browser.terminate()
