"""Real processes for the dashboard's tests: a trainer, the dashboard, a browser."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from streamlit.testing.v1 import AppTest

from app.access import Gate, Login, Right, Role, install
from tests.app.rows import Script
from trainer_core.telemetry.journal import JournalError, JournalWriter
from trainer_core.telemetry.rundir import status

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_ARGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def until(claim: Callable[[], T], timeout_s: float, what: str) -> T:
    """Wait for a claim to hold and give its value; fail with ``what`` and the last value when it does not."""
    ends = time.monotonic() + timeout_s
    while True:
        value = claim()
        if value:
            return value
        assert time.monotonic() < ends, f"{what}: not within {timeout_s:g} s; last: {value!r}"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A child with its output in a file."""

    def __init__(self, words: list[str], log: Path, cwd: Path) -> None:
        self.log = log
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                words, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, sign: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(sign)
        try:
            return self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait(timeout_s)


class Dashboard(Process):
    """``python -m app`` on a free port."""

    def __init__(self, runs_dir: Path, log: Path, port: int = 0, flags: tuple[str, ...] = (), cwd: Path = ROOT) -> None:
        words = [sys.executable, "-m", "app", str(runs_dir), "--port", str(port), "--no-browser", *flags]
        super().__init__(words, log, cwd)
        self.url = until(self._said, 30, "the dashboard says its address")
        self.port = int(self.url.rsplit(":", 1)[1])

    def _said(self) -> str:
        assert self.child.poll() is None, self.output
        return next((line.split()[-1] for line in self.output.splitlines() if line.startswith("Dashboard of")), "")

    @property
    def link(self) -> str:
        """The newest one-time link."""
        return until(lambda: self._after("works once: "), 10, "a link is printed")

    @property
    def code(self) -> str:
        """The operator code."""
        return until(lambda: self._after("Operator code: "), 10, "the operator code is printed")

    def _after(self, words: str) -> str:
        return next((line.split(words)[1] for line in reversed(self.output.splitlines()) if words in line), "")


def unlock(page: Page, dashboard: Dashboard, who: str = "") -> Page:
    """Give a page's browser the right to steer, as the form does."""
    form = {"code": dashboard.code, "who": who}
    answer = page.request.post(f"{dashboard.url}/access/unlock", form=form, headers={"Origin": dashboard.url})
    assert answer.ok, answer.text()
    return page


Spawn = Callable[..., Process]


class Unlocked(Gate):
    """A gate for pages without a browser: whoever runs them may steer."""

    def right(self, session: str | None, login: Login | None = None) -> Right:
        return Right(Role.OPERATOR, "Test")


@pytest.fixture
def steering() -> Iterator[None]:
    """Pages that this test runs may steer."""
    install(Unlocked())
    yield
    install(None)


@pytest.fixture
def start_dashboard(tmp_path: Path, runs_dir: Path) -> Iterator[Callable[..., Dashboard]]:
    """Start a dashboard over ``runs_dir``; ended after the test."""
    started: list[Dashboard] = []

    def start(port: int = 0, flags: tuple[str, ...] = ()) -> Dashboard:
        dashboard = Dashboard(runs_dir, tmp_path / f"dashboard-{len(started)}.log", port, flags)
        started.append(dashboard)
        return dashboard

    yield start
    for dashboard in started:
        dashboard.end()


def train(run_dir: Path, log: Path) -> Process:
    """A real training run of ``digits`` that goes on for long. No checkpoint goes while somebody thinks about it."""
    words = [sys.executable, "-m", "trainer_core", "train", "digits", "--steps", "10000000", "--seed", "0"]
    words += ["--set", "confidence_threshold=0.85", "--set", "keep_last=10000"]
    log.parent.mkdir(parents=True, exist_ok=True)
    process = Process([*words, "--run-dir", str(run_dir)], log, log.parent)
    until(lambda: process.child.poll() is not None or _has_stepped(run_dir), 90, "training starts")
    assert process.child.poll() is None, process.output
    return process


def _has_stepped(run_dir: Path) -> bool:
    with contextlib.suppress(JournalError):
        return status(run_dir).step > 0
    return False


@pytest.fixture
def start_training(tmp_path: Path, runs_dir: Path) -> Iterator[Callable[[str], Process]]:
    """Start a real training run in ``runs_dir/name``; ended after the test."""
    started: list[Process] = []

    def start(name: str) -> Process:
        started.append(train(runs_dir / name, tmp_path / f"train-{name}.log"))
        return started[-1]

    yield start
    for process in started:
        process.end()


def write_run(run_dir: Path, script: Script) -> Path:
    """A run directory whose journal holds a script's records."""
    run_dir.mkdir(parents=True)
    writer = JournalWriter(run_dir)
    writer.append([(row.time, row.attempt, row.record) for row in script.rows])
    writer.close()
    return run_dir


@pytest.fixture
def written_run(runs_dir: Path) -> Callable[[str, Script], Path]:
    """Write a run into ``runs_dir``."""
    return lambda name, script: write_run(runs_dir / name, script)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; for a module only, because Playwright leaves an event loop running in this thread."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "these tests need Chromium: apt-get install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        started.new_page().screenshot()  # its helper processes start now, not in the middle of a test
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address; a script error on the page fails the test."""
    opened, errors = [], []

    def open_(
        url: str, scheme: str = "light", width: int = 1440, height: int = 1300, steering: Dashboard | None = None
    ) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport=ViewportSize(width=width, height=height))  # type: ignore[arg-type]
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if steering is not None:
            unlock(page, steering)
        page.goto(url)
        opened.append(context)
        return page

    yield open_
    for context in opened:
        context.close()
    assert not errors, errors


def told(page: AppTest) -> list[dict[str, Any]]:
    """What the sliders and fields of a page that runs without a browser were told to show."""
    found = [json.loads(element.proto.json or "{}") for element in page.get("bidi_component")]
    return [data for data in found if "title" in data]
