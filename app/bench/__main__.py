"""``python -m app.bench``: one run of the benchmark, from nothing to figures."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from app.bench import browsing
from app.bench.browsing import CHART, NAIVE, STRIP, Viewer
from app.bench.past import long_run
from app.bench.results import FORMAT, Browser, Figures, FirstPaint, Latency, Server, Soak, goals, latency, page
from app.bench.results import NAIVE as NAIVE_NAME
from app.bench.ticks import ticks
from trainer_core.spec.errors import UserError

SOAKED_AT = 200
"""Steps a second of the run that is watched for long."""
DRAWN = "[data-figure=loss][data-revision]"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rates: tuple[int, ...] = (10, 200)
    seconds: float = 30.0
    settle: float = 5.0
    histories: tuple[int, ...] = (10_000, 1_000_000)
    long_run: int = 1_000_000


QUICK = Scale((200,), 8.0, 3.0, (10_000, 100_000), 0)


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="hybrid bench dashboard", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="one rate, short windows, no run of a million steps")
    parser.add_argument("--write", type=Path, help="write the page, as docs/benchmarks-dashboard.md")
    parser.add_argument("--from", dest="recorded", type=Path, help="measure nothing: show what --json printed before")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="watch a run for so long")
    asked = parser.parse_args()
    try:
        found = _read(asked.recorded) if asked.recorded is not None else _measure(asked.quick, asked.soak)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if asked.write is not None:
        asked.write.write_text(page(found), encoding="utf-8")
    if asked.json:
        print(json.dumps({**msgspec.to_builtins(found), "goals": msgspec.to_builtins(goals(found))}, indent=2))
    else:
        print(page(found), end="")
    return 0


def _read(file: Path) -> Figures:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Figures)
    except OSError as error:
        raise UserError(f"--from {file}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"--from {file}: is no JSON of hybrid bench dashboard: {error}") from None
    if found.format != FORMAT:
        raise UserError(f"--from {file}: has format {found.format}; this version reads format {FORMAT}")
    return found


def _measure(quick: bool, soak_minutes: float) -> Figures:
    scale = QUICK if quick else Scale()
    begin = time.monotonic()
    latencies: list[Latency] = []
    browsers: list[Browser] = []
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="hybrid-bench-") as name:
        folder = Path(name)
        for rate in scale.rates:
            _say(f"one and four viewers at {rate} steps/s")
            _live(folder / f"rate-{rate}", rate, scale, latencies, browsers, servers)
        _say("the naive page")
        _naive(folder / "naive", scale.rates[-1], scale, latencies, browsers)
        _say("refreshes by length of history")
        measured = ticks(scale.histories)
        paint = None
        if scale.long_run:
            _say(f"opening a run of {scale.long_run:,} steps")
            paint = _first_paint(folder / "long", scale.long_run)
        soaked = _soak(folder / "soak", soak_minutes) if soak_minutes else None
    spent = time.monotonic() - begin
    place = (_processor(), os.cpu_count() or 1, os.getloadavg()[0])
    return Figures(FORMAT, *place, spent, latencies, browsers, servers, measured, paint, soaked)


def _live(
    folder: Path, rate: int, scale: Scale, latencies: list[Latency], browsers: list[Browser], servers: list[Server]
) -> None:
    runs, long = folder / "runs", 3 * (scale.seconds + scale.settle) + 60
    runs.mkdir(parents=True)
    with (
        browsing.writer(runs / "run", rate, long, folder / "writer.log"),
        browsing.dashboard(runs, folder / "dashboard.log") as (server, url),
        browsing.browser() as chromium,
    ):
        viewer = browsing.look(chromium, f"{url}/?run=run&last=10000", DRAWN)
        time.sleep(scale.settle)
        viewer.watch("strip", STRIP)
        viewer.watch("chart", CHART)
        browsers.append(_window(viewer, rate, scale.seconds, "Live"))
        strip, chart = viewer.seen("strip"), viewer.seen("chart")
        servers.append(_server(server, 1, rate, scale.seconds))
        others = [browsing.look(chromium, f"{url}/?run=run", DRAWN) for _ in range(3)]
        time.sleep(scale.settle)
        servers.append(_server(server, 4, rate, scale.seconds))
        for other in (viewer, *others):
            if other.errors:
                raise RuntimeError(f"script errors on the page: {other.errors}")
    latencies.append(latency("strip and lifecycle", rate, browsing.shown_after(runs / "run", strip)))
    latencies.append(latency("charts", rate, browsing.shown_after(runs / "run", chart)))


def _naive(folder: Path, rate: int, scale: Scale, latencies: list[Latency], browsers: list[Browser]) -> None:
    run_dir = folder / "runs" / "run"
    run_dir.parent.mkdir(parents=True)
    with (
        browsing.writer(run_dir, rate, 2 * scale.seconds + 60, folder / "writer.log"),
        browsing.naive(run_dir, folder / "naive.log") as (_, url),
        browsing.browser() as chromium,
    ):
        viewer = browsing.look(chromium, url, ".js-plotly-plot")
        time.sleep(scale.settle)
        viewer.watch("chart", NAIVE, deep=True)
        browsers.append(_window(viewer, rate, max(20.0, scale.seconds), NAIVE_NAME))
        seen = viewer.seen("chart")
    latencies.append(latency(f"{NAIVE_NAME}, charts", rate, browsing.shown_after(run_dir, seen)))


def _window(viewer: Viewer, rate: int, seconds: float, name: str) -> Browser:
    """One viewer over a stretch of time."""
    processes = browsing.browser_processes()
    used, drawn = browsing.cpu_seconds(processes), _drawn(viewer, name)
    sent, received = viewer.sent, viewer.received
    begin = time.monotonic()
    viewer.page.wait_for_timeout(1000 * seconds)
    lasted = time.monotonic() - begin
    times = max(1, _drawn(viewer, name) - drawn)
    spent = browsing.cpu_seconds(processes) - used
    packed, unpacked = (size / 1e3 / lasted for size in (viewer.sent - sent, viewer.received - received))
    return Browser(name, rate, times / lasted, 1e3 * spent / times, packed, unpacked, viewer.heap_mb())


def _drawn(viewer: Viewer, name: str) -> int:
    """Chart refreshes so far; of the naive page, steps its last chart has shown."""
    return viewer.drawn() if name != NAIVE_NAME else int(viewer.page.evaluate("window.benchSeen.chart.length"))


def _server(server: psutil.Process, viewers: int, rate: int, seconds: float) -> Server:
    used, begin = browsing.cpu_seconds([server]), time.monotonic()
    time.sleep(seconds)
    share = (browsing.cpu_seconds([server]) - used) / (time.monotonic() - begin)
    return Server(viewers, rate, 100 * share, browsing.own_memory_mb(server))


def _first_paint(folder: Path, steps: int) -> FirstPaint:
    runs = folder / "runs"
    long_run(runs / "long", steps)
    with browsing.dashboard(runs, folder / "dashboard.log") as (_, url), browsing.browser() as chromium:
        begin = time.monotonic()
        viewer = browsing.look(chromium, f"{url}/?run=long&last=0", DRAWN)
        painted = time.monotonic() - begin
        whole = "(document.querySelector('[data-figure=loss] small')?.textContent ?? '').includes(`of ${%s} points`)"
        viewer.page.wait_for_function(whole % f"({steps}).toLocaleString('en-US')", timeout=120_000)
        return FirstPaint(steps, painted, time.monotonic() - begin)


def _soak(folder: Path, minutes: float) -> Soak:
    """A viewer that looks for so long; memory of the first and the last minute."""
    _say(f"watching for {minutes:g} minutes")
    runs = folder / "runs"
    runs.mkdir(parents=True)
    with (
        browsing.writer(runs / "run", SOAKED_AT, 60 * minutes + 120, folder / "writer.log"),
        browsing.dashboard(runs, folder / "dashboard.log") as (server, url),
        browsing.browser() as chromium,
    ):
        viewer = browsing.look(chromium, f"{url}/?run=run", DRAWN)
        time.sleep(20)
        readings: list[tuple[float, float]] = []
        ends = time.monotonic() + 60 * minutes
        while time.monotonic() < ends or len(readings) < 2:
            viewer.page.wait_for_timeout(5000)
            readings.append((browsing.own_memory_mb(server), viewer.heap_mb()))
        mounts = int(viewer.page.evaluate("window.hybridMounts"))
    part = max(1, min(12, len(readings) // 2))
    first, last = readings[:part], readings[-part:]
    (server_first, heap_first), (server_last, heap_last) = (
        (sum(r[0] for r in side) / part, sum(r[1] for r in side) / part) for side in (first, last)
    )
    return Soak(minutes, SOAKED_AT, server_first, server_last, heap_first, heap_last, mounts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
