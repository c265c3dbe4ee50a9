"""Processes that a command starts and must not leave behind. Knows pids and signals, not what the processes do."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

POLL_S = 0.05
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class Told:
    """Whether a signal has told this process to end."""

    def __init__(self) -> None:
        self.to_end = False

    def _end(self, _signal: int, _frame: FrameType | None) -> None:
        self.to_end = True

    @contextmanager
    def listening(self) -> Iterator["Told"]:
        """Take SIGINT, SIGTERM and SIGHUP as a wish to end, and give them back afterwards."""
        wishes = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [(number, signal.signal(number, self._end)) for number in wishes]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)


class Child:
    """One process in a session of its own, so that Ctrl-C in the terminal reaches only us and we end it in order.

    On Linux it is told to end (SIGTERM) also when we are killed and can tell it nothing.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_ending_with(os.getpid())
        )

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def end(self, patience_s: float) -> None:
        """Ask it to end; after ``patience_s`` kill its whole group. Returns when it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _ending_with(parent: int) -> Callable[[], None] | None:
    """What a child does between fork and exec so that it gets SIGTERM when ``parent`` dies; None where it cannot."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we had asked
            os._exit(1)

    return ask


def wait_until(holds: Callable[[], bool], patience_s: float) -> bool:
    """Whether ``holds`` became true within ``patience_s``."""
    ends = time.monotonic() + patience_s
    while not (held := holds()) and time.monotonic() < ends:
        time.sleep(POLL_S)
    return held
