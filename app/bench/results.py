"""The figures of one run of the benchmark and the goals beside them. Measures nothing."""

from collections.abc import Sequence

import msgspec
import numpy as np

FORMAT = 2


class Latency(msgspec.Struct, frozen=True):
    """From the moment a step was reported until a browser showed it or a later one, over all steps of a window."""

    what: str
    steps_per_second: int
    steps: int
    p50_ms: float
    p95_ms: float


class Browser(msgspec.Struct, frozen=True):
    """One browser that looks at one page."""

    page: str
    steps_per_second: int
    refreshes_per_second: float
    """Of the charts."""
    cpu_ms_per_refresh: float
    """Of all its processes, of one core."""
    kilobytes_per_second: float
    """Over all its sockets, deflated as they are."""
    kilobytes_unpacked: float
    heap_mb: float


class Server(msgspec.Struct, frozen=True):
    """The dashboard's process."""

    viewers: int
    steps_per_second: int
    cpu_percent: float
    """Of one core."""
    memory_mb: float
    """Its own: without mapped files, whose pages the system takes back when it needs them."""


class Tick(msgspec.Struct, frozen=True):
    """CPU time of one refresh on the server, for one viewer, with so much history."""

    steps: int
    glance_ms: float
    drawings_ms: float


class FirstPaint(msgspec.Struct, frozen=True):
    """Opening a long run in a dashboard that knows nothing of it."""

    steps: int
    painted_seconds: float
    """From the address being opened until the first chart is drawn."""
    whole_seconds: float
    """Until every step of the run is in the chart."""


class Soak(msgspec.Struct, frozen=True):
    """Memory over a long watch: the first and the last minute of it, mean; of the server as ``Server.memory_mb``."""

    minutes: float
    steps_per_second: int
    server_first_mb: float
    server_last_mb: float
    heap_first_mb: float
    heap_last_mb: float
    mounts: int


class Figures(msgspec.Struct, frozen=True):
    """Everything one run measured."""

    format: int
    processor: str
    cores: int
    load: float
    seconds: float
    latencies: list[Latency]
    browsers: list[Browser]
    servers: list[Server]
    ticks: list[Tick]
    paint: FirstPaint | None
    soak: Soak | None


class Goal(msgspec.Struct, frozen=True):
    """A target of the design beside what was measured."""

    what: str
    target: str
    measured: str
    met: bool


NAIVE = "naive page"


def latency(what: str, rate: int, milliseconds: Sequence[float]) -> Latency:
    """The percentiles of some delays."""
    p50, p95 = (float(np.percentile(milliseconds, p)) for p in (50, 95))
    return Latency(what, rate, len(milliseconds), p50, p95)


def goals(found: Figures) -> list[Goal]:
    """The design's targets, met or missed."""
    rows = []
    for one in found.latencies:
        if one.what.startswith(NAIVE):
            continue
        most = 100 if one.what.startswith("strip") else 1000
        what = f"step to pixel, {one.what}, {one.steps_per_second} steps/s: p95"
        rows.append(Goal(what, f"<= {most} ms", f"{one.p95_ms:.0f} ms", one.p95_ms <= most))
    for viewer in found.browsers:
        if viewer.page != NAIVE:
            what = f"per viewer, {viewer.page}, {viewer.steps_per_second} steps/s"
            said = f"{viewer.kilobytes_per_second:.1f} kB/s"
            rows.append(Goal(what, "<= 5 kB/s", said, viewer.kilobytes_per_second <= 5))
    for server in found.servers:
        most_cpu = 3 + server.viewers
        what = f"server CPU, {server.viewers} viewer{'s' * (server.viewers > 1)}, {server.steps_per_second} steps/s"
        rows.append(Goal(what, f"<= {most_cpu} %", f"{server.cpu_percent:.1f} %", server.cpu_percent <= most_cpu))
    if len(found.ticks) > 1:
        short, long = found.ticks[0], found.ticks[-1]
        ratio = (long.glance_ms + long.drawings_ms) / (short.glance_ms + short.drawings_ms)
        what = f"a refresh at {long.steps:,} steps / at {short.steps:,}"
        rows.append(Goal(what, "<= 1.5x", f"{ratio:.2f}x", ratio <= 1.5))
    if found.paint is not None:
        paint = found.paint
        what = f"first paint of a run of {paint.steps:,} steps"
        rows.append(Goal(what, "<= 3 s", f"{paint.painted_seconds:.1f} s", paint.painted_seconds <= 3))
    if found.soak is not None:
        soak = found.soak
        grown = max(soak.server_last_mb / soak.server_first_mb, soak.heap_last_mb / soak.heap_first_mb)
        what = f"memory after {soak.minutes:.0f} minutes / at the start"
        rows.append(Goal(what, "flat: <= 1.2x", f"{grown:.2f}x", grown <= 1.2))
        rows.append(Goal("remounts", "0", str(soak.mounts - 1), soak.mounts == 1))
    return rows


def page(found: Figures) -> str:
    """docs/benchmarks-dashboard.md, which is also what the terminal shows."""
    goal_rows = [(g.what, g.target, g.measured, "met" if g.met else "**missed**") for g in goals(found)]
    sections = [
        "# Benchmarks of the dashboard",
        "Written by `hybrid bench dashboard --write` from its own JSON; edit nothing here by hand.",
        f"{found.processor}, {found.cores} cores, headless Chromium on the same cores; load at the end "
        f"{found.load:.1f}; it took {found.seconds:.0f} s. The run, its agent, the dashboard and the browsers share "
        "the machine.",
        "## Goals",
        _table(("figure", "goal", "measured", ""), goal_rows),
        "## Step to pixel, milliseconds",
        _table(
            ("what", "steps a second", "p50", "p95", "steps"),
            [
                (one.what, str(one.steps_per_second), f"{one.p50_ms:.0f}", f"{one.p95_ms:.0f}", str(one.steps))
                for one in found.latencies
            ],
        ),
        "The naive page is the control: twelve `st.plotly_chart` in a fragment of one second, the journal read whole.",
        "## One browser",
        "Refreshes of the charts it sees; bytes of all its sockets.",
        _table(
            ("page", "steps/s", "refreshes a second", "CPU a refresh, ms", "kB a second", "unpacked", "heap, MB"),
            [
                (b.page, str(b.steps_per_second), f"{b.refreshes_per_second:.2f}", f"{b.cpu_ms_per_refresh:.0f}",
                 f"{b.kilobytes_per_second:.1f}", f"{b.kilobytes_unpacked:.1f}", f"{b.heap_mb:.0f}")
                for b in found.browsers
            ],
        ),
        "## The server",
        "Its own memory is what lies in no file: pages of mapped files are the system's to take back.",
        _table(
            ("viewers", "steps a second", "CPU, % of a core", "own memory, MB"),
            [(str(s.viewers), str(s.steps_per_second), f"{s.cpu_percent:.1f}", f"{s.memory_mb:.0f}")
             for s in found.servers],
        ),
        _table(
            ("steps in the run", "strip, diagram and lists, ms", "all figures, ms"),
            [(f"{t.steps:,}", f"{t.glance_ms:.2f}", f"{t.drawings_ms:.2f}") for t in found.ticks],
        ),
    ]  # fmt: skip
    if found.paint is not None:
        paint = found.paint
        sections.append(
            f"A run of {paint.steps:,} steps: painted after {paint.painted_seconds:.1f} s, all of it there after "
            f"{paint.whole_seconds:.1f} s."
        )
    if found.soak is not None:
        soak = found.soak
        sections.append(
            f"Watched for {soak.minutes:.0f} minutes at {soak.steps_per_second} steps/s: the server's own memory "
            f"{soak.server_first_mb:.0f} -> {soak.server_last_mb:.0f} MB, the page's heap {soak.heap_first_mb:.0f} -> "
            f"{soak.heap_last_mb:.0f} MB, {soak.mounts - 1} remounts."
        )
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
