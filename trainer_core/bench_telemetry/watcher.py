"""A dashboard's client in a process of its own: follows a run until killed, or joins one and says how long it took.

Started by ``started("follow", RUN_DIR)`` or ``joined(RUN_DIR)``.
"""

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.history import chunks
from trainer_core.telemetry.journal import JournalReader

PAINTED = 2000
_EVERY_KIND = frozenset({"run-started", "run-state", "phase", "stretch", "prediction", "command", "alert-raised"})


def follow(run_dir: Path, rows: int = 0) -> None:
    """Take every row, as a dashboard does; prints a line once an agent is heard, and another after ``rows`` rows."""
    said = False
    with Follower(run_dir) as follower:
        while not 0 < rows <= follower.seq:
            follower.poll(0.1)
            if follower.heartbeat is not None and not said:
                print("live", flush=True)
                said = True
    print("all", flush=True)


def join(run_dir: Path) -> dict[str, float]:
    """Newest rows first, then the whole past as columns, then one table; seconds, and the memory of the first two."""
    begin = time.perf_counter()
    with closing(JournalReader(run_dir)) as reader:
        reader.last_rows(PAINTED)
        first = time.perf_counter() - begin
        parts = [chunk.steps for chunk in chunks(reader, _EVERY_KIND, frozenset({"explained"}))]
    everything = time.perf_counter() - begin
    memory = _peak_memory_mb()
    rows = sum(part.height for part in parts)
    del parts
    begin = time.perf_counter()
    assert frame(run_dir).height == rows
    table = time.perf_counter() - begin
    return {"first": first, "all": everything, "memory_mb": memory, "rows": rows, "table": table}


def _peak_memory_mb() -> float:
    """Largest resident set so far. getrusage will not do: it passes on the figure of the parent process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def started(what: str, run_dir: Path, rows: int = 0) -> "subprocess.Popen[str]":
    """This module as a process; its output is piped."""
    words = [sys.executable, "-c", f"from {__name__} import main; main()", what, str(run_dir), str(rows)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def joined(run_dir: Path) -> dict[str, Any]:
    """What ``join`` finds, in a process of its own."""
    process = started("join", run_dir)
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a client that joins {run_dir} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def main() -> None:
    """What the process does: its arguments are ``follow`` or ``join``, the run directory, a number of rows."""
    what, run_dir, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "follow":
        follow(run_dir, rows)
    else:
        print(json.dumps(join(run_dir)))
