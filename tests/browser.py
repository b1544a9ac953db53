"""A headless Chromium, spoken to through its DevTools pipe: one page, what it logged, what it asked the network for."""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--remote-debugging-pipe", "about:blank"),
)


def find() -> str | None:
    """Where Chromium is; None when there is none."""
    return next((place for name in PROGRAMS if (place := shutil.which(name))), None)


class Browser:
    """One page of a headless Chromium, in a ``with`` statement.

    The DevTools protocol goes through two pipes (JSON texts that end with a zero byte), which needs no WebSocket and
    no port. The browser reads from descriptor 3 and writes to descriptor 4.
    """

    def __init__(self, profile: Path, timeout: float = 60.0) -> None:
        program = find()
        if program is None:
            raise FileNotFoundError("There is no Chromium on PATH.")
        self.timeout, self.events, self.last = timeout, [], 0
        theirs, self.to = os.pipe()
        self.back, ours = os.pipe()
        # the shell moves the pipes to 3 and 4, wherever Python was given them
        shell = f'exec "$0" "$@" 3</dev/fd/{theirs} 4>/dev/fd/{ours}'
        command = ["sh", "-c", shell, program, *OPTIONS[:-2], f"--user-data-dir={profile}", *OPTIONS[-2:]]
        self.process = subprocess.Popen(
            command, pass_fds=(theirs, ours), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(ours)
        self.rest = b""
        self.session: str | None = None

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session = None
        try:
            self.call("Browser.close")
            self.process.wait(self.timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self.to)
            os.close(self.back)

    def call(self, method: str, **params: Any) -> Any:
        """Send one command and wait for its answer; events that come before it are kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != message["id"]:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, width: int = 1200, dark: bool = False, phone: bool = False) -> None:
        """Open a file in a window of `width` CSS pixels and wait until it is drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def requests(self) -> list[str]:
        """What the page asked for, itself and ``data:`` apart."""
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def complaints(self) -> list[str]:
        """Everything in the console and every exception."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def screenshot(self, place: Path) -> None:
        """Write the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        place.write_bytes(base64.b64decode(image))

    def print(self, place: Path) -> None:
        """Write the page as it would be printed on A4, as PDF."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        place.write_bytes(base64.b64decode(self.call("Page.printToPDF", **paper)["data"]))

    def _read(self) -> dict[str, Any]:
        """The next message of the browser."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.back, selectors.EVENT_READ)
            while b"\0" not in self.rest:
                if not selector.select(self.timeout):
                    raise TimeoutError(f"Chromium said nothing for {self.timeout} s.")
                part = os.read(self.back, 1 << 20)
                if not part:
                    raise ConnectionError("Chromium ended.")
                self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)
