"""Chromium without a screen, by its own DevTools protocol over a pipe: JSON that ends with a zero byte, and no package between."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class PageError(AssertionError):
    """An exception that nobody caught in the page."""


class Page:
    """One page: `evaluate` runs JavaScript in it."""

    def __init__(self, commands: int, answers: int, seconds: float) -> None:
        self._commands, self._answers, self._seconds = commands, answers, seconds
        self._received = b""
        self._last = 0
        self._session: str | None = None
        self.uncaught: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """The answer to one command of the protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._seconds
        while True:
            answer = self._receive(deadline, method)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.uncaught.append(_text(answer["params"]["exceptionDetails"]))
            if answer.get("id") != self._last:
                continue
            if "error" in answer:
                raise PageError(f"{method}: {answer['error']}")
            return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise PageError(_text(done["exceptionDetails"]))
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > deadline:
                raise PageError(f"not true after {seconds} s: {script}; the page says {self.evaluate('document.body.innerText')!r}")
            time.sleep(0.05)
        return value

    def choose(self, selector: str, *files: Path) -> None:
        """Gives files to an input, as its dialog would."""
        found = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self.send("DOM.setFileInputFiles", objectId=found["objectId"], files=[str(file) for file in files])

    def drop(self, selector: str, *files: Path) -> None:
        """Lets files fall onto the middle of an element."""
        x, y = self.evaluate(
            f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def show(self, width: int, height: int, scheme: str) -> None:
        """The size of the window, and whether the page is `light` or `dark`."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._answers, 2**20) if ready else b""
            if not block:
                raise PageError(f"{method}: the browser {'closed the pipe' if ready else f'gave no answer in {self._seconds} s'}")
            self._received += block
        message, self._received = self._received.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer


def _text(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


@contextmanager
def browser(profile: Path, *flags: str, seconds: float = 120) -> Iterator[Page]:
    """A new Chromium that keeps everything in `profile`, and its page."""
    chromium = program()
    assert chromium, "no Chromium on this machine"
    command_end, commands = os.pipe()
    answers, answer_end = os.pipe()
    # DevTools' pipes are the descriptors 3 and 4, whatever else is open
    shell = f'exec "$0" "$@" 3<&{command_end} 4>&{answer_end}'
    options = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *flags,
    ]
    log = profile.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        ["bash", "-c", shell, chromium, *options],
        pass_fds=(command_end, answer_end),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    os.close(command_end)
    os.close(answer_end)
    try:
        page = Page(commands, answers, seconds)
        yield page
        if page.uncaught:
            raise PageError("; ".join(page.uncaught))
    finally:
        os.close(commands)  # the browser ends with its pipe
        os.close(answers)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
