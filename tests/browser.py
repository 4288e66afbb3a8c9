"""Drives a headless Chromium over its pipe, for tests of pages; no library between."""

import base64
import contextlib
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Of the whole machine's sandbox this runs beside; root has none of its own.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
    *("--disable-extensions", "--disable-component-update", "--force-device-scale-factor=1"),
    "--remote-debugging-pipe",
)
PATIENCE_S = 60.0


def path() -> str | None:
    """Where the browser lies, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab.

    Attributes:
        requests: addresses of everything that the page asked for.
        complaints: errors and warnings of its scripts.
    """

    def __init__(self, commands: int, answers: int, process: "subprocess.Popen[bytes]"):
        self._commands, self._answers, self._process = commands, answers, process
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        made = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = made["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))[0]
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(f"the browser is silent (exit code {self._process.poll()})")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, given: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"][:200])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(given["exceptionDetails"])[:600])
        elif event == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.complaints.append(str(given["args"])[:600])
        elif event == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(given["entry"])[:600])
        elif event == "Page.loadEventFired":
            self._loaded += 1

    def size(self, width: int, height: int) -> None:
        """The window, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def open(self, address: str) -> None:
        """Load a page and wait for it."""
        before = self._loaded
        self.call("Page.navigate", url="about:blank")
        while self._loaded == before:
            self._next()
        before = self._loaded
        self.call("Page.navigate", url=address)
        while self._loaded == before:
            self._next()

    def run(self, script: str) -> Any:
        """The value of an expression in the page, of a promise too."""
        made = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in made:
            raise RuntimeError(f"{script}: {made['exceptionDetails']}")
        return made["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression in the page is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise RuntimeError(f"never true: {condition}")
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element of that selector."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="char", text=letter)

    def key(self, name: str) -> None:
        """Press a key without a letter, such as "ArrowRight"."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screen(self) -> NDArray[np.uint8]:
        """What is on the screen, `row column 3`, RGB."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return np.ascontiguousarray(found[..., ::-1])


@contextlib.contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """A Chromium whose profile lies in `home`; it is closed in the end."""
    command = [str(path()), *FLAGS, f"--user-data-dir={home}", "about:blank"]
    taken, commands = os.pipe()
    answers, given = os.pipe()
    # The protocol's pipes are numbers 3 and 4.
    line = f"exec {shlex.join(command)} 3<&{taken} 4>&{given}"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", line], pass_fds=(taken, given), stdout=log, stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    os.close(taken)
    os.close(given)
    try:
        made = Browser(commands, answers, process)
        yield made
        made._session = None
        made.call("Browser.close")
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
