"""One run of the benchmark, from nothing to figures. Knows which module measures what."""

import json as json_format
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from trainer_core.bench_telemetry import commands, cost, past, travel
from trainer_core.bench_telemetry.page import page
from trainer_core.bench_telemetry.results import FORMAT, QUICK, Figures, Place, Scale, goals
from trainer_core.bench_telemetry.trackers import installed
from trainer_core.spec.errors import UserError


def run(json: bool = False, quick: bool = False, write: Path | None = None, recorded: Path | None = None) -> None:
    """Measure (or read what ``recorded`` holds), print a page or JSON, and write the page to ``write``.

    Raises UserError for a file that is none of this benchmark's, or that cannot be written.
    """
    if write is not None and (write.is_dir() or not write.absolute().parent.is_dir()):
        raise UserError(f"--write {write}: there is no folder {write.absolute().parent}, or it is a folder itself")
    if recorded is not None:
        figures = read(recorded)
    else:
        with tempfile.TemporaryDirectory(prefix="hybrid-bench-") as folder:
            figures = measure(Path(folder), QUICK if quick else Scale())
    if write is not None:
        write.write_text(page(figures), encoding="utf-8")
    if json:
        print(
            json_format.dumps({**msgspec.to_builtins(figures), "goals": msgspec.to_builtins(goals(figures))}, indent=2)
        )
    else:
        print(page(figures), end="")


def read(file: Path) -> Figures:
    """The figures that ``--json`` printed. Raises UserError."""
    try:
        figures = msgspec.json.decode(file.read_bytes(), type=Figures)
    except OSError as error:
        raise UserError(f"--from {file}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"--from {file}: is no JSON of hybrid bench telemetry: {error}") from None
    if figures.format != FORMAT:
        raise UserError(f"--from {file}: has format {figures.format}; this version reads format {FORMAT}")
    return figures


def measure(folder: Path, scale: Scale) -> Figures:
    """All of it, in run directories under ``folder``; progress goes to stderr."""
    begin = time.monotonic()
    _say("step thread, four situations")
    costs, lost = cost.measure(folder, scale)
    delays, agents = [], []
    for rate, records in scale.rates:
        _say(f"record to client at {rate} steps/s")
        delay, agent = travel.record_to_client(folder / f"rate-{rate}", rate, records)
        delays.append(delay)
        agents.append(agent)
    _say("throughput")
    through = travel.throughput(folder / "throughput", scale.throughput)
    command = None
    if installed("torch"):
        _say("commands")
        command = commands.command_to_applied(folder / "commands", scale.commands)
    joins = []
    for rows in scale.histories:
        _say(f"a run of {rows:,} rows: writing it, then joining it")
        joins.append(past.late_join(folder / f"rows-{rows}", rows))
    spent = time.monotonic() - begin
    return Figures(FORMAT, scale, _place(), spent, costs, lost, delays, agents, through, joins, command)


def _say(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def _place() -> Place:
    processor = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if os.path.exists("/proc/cpuinfo") else []
    ):
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return Place(processor, os.cpu_count() or 1, platform.system(), platform.python_version(), load)
