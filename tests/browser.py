"""A real Chromium, driven by its DevTools protocol: what a page logs, asks for and looks like."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--no-first-run", "--remote-debugging-port=0", "--disable-dev-shm-usage", "--mute-audio"),
)


def chromium() -> str | None:
    """Return where Chromium is; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Tab:
    """A page in a browser: what it logged and asked for since it was opened."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.numbers = count(1)
        self.events: list[dict[str, Any]] = []
        for name in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{name}.enable")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            said = json.loads(self.socket.recv(timeout=60))
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])
            self.events.append(said)

    def open(self, place: Path | str, width: int, dark: bool = False) -> None:
        """Open a file or an address, and wait until it is loaded."""
        url = place if isinstance(place, str) else place.as_uri()
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url=url)
        for _ in range(600):
            if (
                self.value("document.readyState") == "complete"
                and self.value("document.location.href") == url
            ):
                return
            time.sleep(0.05)
        raise AssertionError(f"{url} did not load")

    def value(self, expression: str) -> Any:
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until something is true on the page."""
        for _ in range(1200):
            if self.value(f"!!({expression})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def press(self, key: str, code: int = 0, *, control: bool = False, text: str = "") -> None:
        """Press a key, and let it go."""
        own = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 * control}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **own)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **own)

    def logged(self) -> list[str]:
        """What the console shows: errors, warnings and exceptions."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(e["params"]) for e in self.events if e["method"] in kinds]

    def asked_for(self) -> list[str]:
        """The addresses that the page asked for, but for its own and data inside it."""
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [each["request"]["url"] for each in sent]
        own = self.value("document.location.href")
        return [url for url in urls if url != own and not url.startswith("data:")]

    def picture(self, path: Path, height: int | None = None, top: int = 0) -> None:
        """Write a PNG of the page, or of ``height`` pixels of it."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "scale": 1}
        clip["height"] = height or size["height"]
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.printToPDF")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run Chromium with ``folder`` as its profile, and give a tab of it."""
    from websockets.sync.client import connect

    found = chromium()
    assert found is not None
    process = subprocess.Popen(
        [found, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = folder / "DevToolsActivePort"
        for _ in range(600):
            if port.exists() and port.read_text().count("\n"):
                break
            time.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        with connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as socket:
            yield Tab(_Attached(socket))
    finally:
        process.terminate()
        process.wait(20)


class _Attached:
    """The browser's socket, spoken to in the name of its one tab."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        targets = self._plain("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self.session = self._plain("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def _plain(self, method: str, **given: Any) -> dict[str, Any]:
        self.socket.send(json.dumps({"id": 0, "method": method, "params": given}))
        while True:
            said = json.loads(self.socket.recv(timeout=60))
            if said.get("id") == 0:
                return dict(said["result"])

    def send(self, text: str) -> None:
        self.socket.send(json.dumps({**json.loads(text), "sessionId": self.session}))

    def recv(self, timeout: float) -> str:
        while True:
            said = json.loads(self.socket.recv(timeout=timeout))
            if said.get("sessionId") == self.session:
                return json.dumps(said)
