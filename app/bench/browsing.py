"""Real browsers on a real dashboard process: latency, CPU, bytes, memory. Knows no goal."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, Playwright, sync_playwright

from trainer_core.spec.errors import UserError
from trainer_core.spec.records import StepRecord
from trainer_core.telemetry.journal import JournalReader

PATIENCE_S = 90.0
STRIP = (
    "[data-bind='strip.step']",
    "Number((document.querySelector('[data-bind=\"strip.step\"]')?.textContent ?? '0').replaceAll(',', ''))",
)
CHART = (
    "[data-figure=loss]",
    """(() => { const drawn = document.querySelector('[data-figure=loss] .hy-plot')?.data;
    const trace = drawn?.find((one) => one.name === 'measured');
    return trace && trace.x.length ? trace.x[trace.x.length - 1] : 0; })()""",
)
NAIVE = (
    "body",
    """(() => { const plots = [...document.querySelectorAll('.js-plotly-plot')];
    const x = plots[plots.length - 1]?.data?.[0]?.x; return x && x.length ? x[x.length - 1] : 0; })()""",
)
"""What changes, and how to read the newest step in it."""
WATCH = """([name, where, look, deep]) => {
  const seen = (window.benchSeen ??= {})[name] = [];
  const note = () => requestAnimationFrame(() => {
    let now = 0;
    try { now = eval(look); } catch { now = 0; }
    if (now && (!seen.length || seen[seen.length - 1][1] !== now)) seen.push([Date.now(), now]);
  });
  new MutationObserver(note).observe(document.querySelector(where),
    { subtree: deep, childList: true, characterData: true, attributes: true, attributeFilter: ["data-revision"] });
}"""
"""Notes the clock in the frame after a change, when the newest step on the screen is another one."""


def chromium_path() -> str:
    """The system's browser. Raises UserError when there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise UserError("hybrid bench dashboard needs Chromium: apt-get install chromium, or set CHROMIUM to its path")
    return found


@contextlib.contextmanager
def process(words: list[str], log: Path) -> Iterator[psutil.Process]:
    """A child that is ended with the block."""
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_port() -> int:
    """A port nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def dashboard(runs_dir: Path, log: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The product's own process, as users start it."""
    port = free_port()
    words = [sys.executable, "-m", "app", str(runs_dir), "--port", str(port), "--no-browser"]
    with process(words, log) as child:
        wait_for(lambda: _answers(port), f"a dashboard on port {port}")
        yield child, f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def naive(run_dir: Path, log: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The control."""
    port = free_port()
    page = Path(__file__).with_name("naive.py")
    words = [sys.executable, "-m", "streamlit", "run", str(page), "--server.port", str(port), "--server.headless"]
    words += ["true", "--server.address", "127.0.0.1", "--browser.gatherUsageStats", "false", "--", str(run_dir)]
    with process(words, log) as child:
        wait_for(lambda: _answers(port), f"the naive page on port {port}")
        yield child, f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def writer(run_dir: Path, rate: float, seconds: float, log: Path) -> Iterator[psutil.Process]:
    """A run that steps meanwhile."""
    words = [sys.executable, "-m", "app.bench.writer", str(run_dir), str(rate), str(seconds)]
    with process(words, log) as child:
        wait_for(lambda: (run_dir / "journal.db").is_file(), "the run's journal")
        yield child


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def wait_for(claim: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Until a claim holds. Raises RuntimeError naming ``what``."""
    ends = time.monotonic() + patience_s
    while not claim():
        if time.monotonic() > ends:
            raise RuntimeError(f"{what}: not within {patience_s:g} s")
        time.sleep(0.05)


@contextlib.contextmanager
def browser() -> Iterator[Chromium]:
    """A headless Chromium."""
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                 "--enable-precise-memory-info", "--disable-renderer-backgrounding"]  # fmt: skip
    with sync_playwright() as playwright:
        started = _launch(playwright, arguments)
        try:
            yield started
        finally:
            started.close()


def _launch(playwright: Playwright, arguments: list[str]) -> Chromium:
    return playwright.chromium.launch(executable_path=chromium_path(), args=arguments)


@dataclass
class Viewer:
    """One open page whose socket is counted."""

    page: Page
    received: int = 0
    """Bytes of text and data."""
    sent: int = 0
    """The same as it travels: deflated with the window kept from message to message, as the socket does it."""
    errors: list[str] = field(default_factory=list)

    def watch(self, name: str, what: tuple[str, str], deep: bool = False) -> None:
        """Begin to note when new steps are seen; ``seen`` gives what was noted."""
        self.page.evaluate(WATCH, [name, *what, deep])

    def seen(self, name: str) -> list[list[float]]:
        """(clock in milliseconds, newest step) of every change."""
        return [list(map(float, pair)) for pair in self.page.evaluate("window.benchSeen")[name]]

    def heap_mb(self) -> float:
        """The page's JavaScript heap."""
        return float(self.page.evaluate("performance.memory?.usedJSHeapSize ?? 0")) / 2**20

    def drawn(self) -> int:
        """How often the loss chart has been drawn."""
        return int(self.page.evaluate("Number(document.querySelector('[data-figure=loss]')?.dataset.revision ?? 0)"))


def look(chromium: Chromium, url: str, ready: str) -> Viewer:
    """Open a page and wait until ``ready`` is on it."""
    viewer = Viewer(chromium.new_context(viewport={"width": 1440, "height": 1300}).new_page())
    viewer.page.on("pageerror", lambda error: viewer.errors.append(str(error)))

    deflate = zlib.compressobj(wbits=-12, memLevel=5)  # uvicorn's

    def count(payload: str | bytes) -> None:
        content = payload.encode() if isinstance(payload, str) else payload
        viewer.received += len(content)
        viewer.sent += len(deflate.compress(content) + deflate.flush(zlib.Z_SYNC_FLUSH))

    viewer.page.on("websocket", lambda opened: opened.on("framereceived", count))
    viewer.page.goto(url)
    viewer.page.wait_for_selector(ready, timeout=PATIENCE_S * 1000)
    return viewer


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of the processes that are still there."""
    total = 0.0
    for one in processes:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def own_memory_mb(process: psutil.Process) -> float:
    """Memory of a process without the pages of mapped files, which the system takes back when it needs them."""
    found = process.memory_info()
    return float(found.rss - getattr(found, "shared", 0)) / 2**20


def browser_processes() -> list[psutil.Process]:
    """Chromium's, which Playwright started for this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in child.name():
                found.append(child)
    return found


def shown_after(run_dir: Path, seen: list[list[float]]) -> list[float]:
    """Milliseconds from each step's report until it, or a later one, was on the screen; steps of the window only."""
    reader, said, after = JournalReader(run_dir), list[tuple[int, float]](), 0
    with contextlib.closing(reader):
        while rows := reader.rows(after, 5000):
            said += [(row.record.step, row.time) for row in rows if isinstance(row.record, StepRecord)]
            after = rows[-1].seq
    shown_at = np.array([moment for moment, _ in seen]) / 1e3
    shown = np.maximum.accumulate(np.array([step for _, step in seen]))
    steps, times = (np.array(column, dtype=np.float64) for column in zip(*said, strict=True))
    inside = (steps > shown[0]) & (steps <= shown[-1])
    first = np.searchsorted(shown, steps[inside], "left")
    return [float(value) for value in 1e3 * (shown_at[first] - times[inside])]
