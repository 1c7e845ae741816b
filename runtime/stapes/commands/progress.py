"""How far a long run has come, on standard error."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

BAR = 20
EVERY_S = 0.1, 30.0
"""Between two lines: on a terminal, where each replaces the last, and in a log."""


class Progress:
    """A bar of files, with the sound and the speed so far. Safe to call from many threads."""

    def __init__(self, files: int, shown: bool) -> None:
        self.seconds = 0.0
        """Of sound, done."""
        self._files, self._done = files, 0
        self._begin = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._wait = EVERY_S[not self._terminal]
        self._next = self._begin + self._wait if shown else float("inf")
        self._drawn = 0
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    def hear(self, seconds: float) -> None:
        """So much more sound is done."""
        with self._lock:
            self.seconds += seconds
            self._draw()

    def finish(self, files: int = 1) -> None:
        """So many more files are done."""
        with self._lock:
            self._done += files
            self._draw()

    def clear(self) -> None:
        """Take the line away, so that another can be printed in its place."""
        if self._drawn:
            print("\r" + " " * self._drawn + "\r", end="", file=sys.stderr, flush=True)
            self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._wait
        filled = BAR * self._done // max(1, self._files)
        speed = self.seconds / max(now - self._begin, 1e-9)
        bar = "#" * filled + "." * (BAR - filled)
        line = f"[{bar}] {self._done}/{self._files} files, {clock(self.seconds)} of sound, {speed:.1f}x real time"
        if self._terminal:
            print(f"\r{line:<{self._drawn}}", end="", file=sys.stderr, flush=True)
            self._drawn = len(line)
        else:
            print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration as people say it: 12.3 s, 4 min 05 s, 3 h 02 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
