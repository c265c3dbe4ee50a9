"""What one record costs the training thread, in four situations, beside other trackers. Knows nothing of sockets."""

import contextlib
import hashlib
import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from trainer_core.bench_telemetry import watcher
from trainer_core.bench_telemetry.records import LAYERS, VECTOR, a_record
from trainer_core.bench_telemetry.results import RECORD, Cost, Scale, percentile
from trainer_core.bench_telemetry.trackers import trackers
from trainer_core.spec.records import StepRecord
from trainer_core.telemetry.agent_process import start_agent
from trainer_core.telemetry.journal import FILE
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import claim

WARM_UP = 100
PATIENCE_S = 30.0
_WORK = bytes(500_000)


@contextmanager
def absent(run_dir: Path) -> Iterator[None]:
    """Nobody watches, no agent runs."""
    yield


@contextmanager
def present(run_dir: Path, stopped: bool = False) -> Iterator[None]:
    """An agent, and a client in a process of its own that takes every row; ``stopped``: both by SIGSTOP."""
    agent = start_agent(run_dir)
    client = watcher.started("follow", run_dir)
    pids = [pid for pid in (agent.pid, client.pid) if pid is not None]
    try:
        assert client.stdout is not None
        if client.stdout.readline().strip() != "live":
            raise RuntimeError("a client did not hear its agent")
        if stopped:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        agent.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        client.wait()
        if client.stdout is not None:
            client.stdout.close()


@contextmanager
def stalled(run_dir: Path) -> Iterator[None]:
    """A disk that does not take a byte: another connection holds the journal's write lock, so every commit waits."""
    stranger = sqlite3.connect(run_dir / FILE, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        stranger.execute("ROLLBACK")
        stranger.close()


SITUATIONS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "dashboard absent": absent,
    "dashboard present": present,
    "dashboard stopped": lambda run_dir: present(run_dir, stopped=True),
    "disk stalled": stalled,
}


def measure(folder: Path, scale: Scale) -> tuple[list[Cost], dict[str, int]]:
    """Costs in every situation, and how many records each lost."""
    costs, lost = list[Cost](), dict[str, int]()
    for number, (name, situation) in enumerate(SITUATIONS.items()):
        run_dir = folder / f"cost-{number}"
        run_dir.mkdir()
        ours, theirs, lost[name] = _one(run_dir, situation, scale)
        costs += [_cost(f"{RECORD} ({_scalars()} scalars + {LAYERS}-vector)", name, ours)]
        costs += [_cost(what, name, taken) for what, taken in theirs.items()]
    return costs, lost


def _one(
    run_dir: Path, situation: Callable[[Path], contextlib.AbstractContextManager[None]], scale: Scale
) -> tuple[list[int], dict[str, list[int]], int]:
    ours, steps = list[int](), itertools.count(1)
    with contextlib.closing(claim(run_dir)), trackers(run_dir) as others:
        theirs: dict[str, list[int]] = {what: [] for what in others}
        reporter = Reporter(run_dir)

        def report() -> None:
            reporter.report(a_record(next(steps), VECTOR), 0)

        try:
            reporter.flush(PATIENCE_S)
            with situation(run_dir):
                _timed(report, WARM_UP)
                for _ in range(scale.rounds):
                    ours += _timed(report, scale.records // scale.rounds)
                    for what, log in others.items():
                        theirs[what] += _timed(log, scale.tensorboard_steps // scale.rounds)
            if not reporter.flush(PATIENCE_S):
                raise RuntimeError(f"the journal took nothing within {PATIENCE_S:g} s")
        finally:
            reporter.close()
    return ours, theirs, reporter.lost


def _timed(act: Callable[[], None], times: int) -> list[int]:
    """Nanoseconds of each call. Between calls works something that lets go of the GIL, as a tensor operation does."""
    taken = []
    for _ in range(times):
        hashlib.sha256(_WORK).digest()
        start = time.perf_counter_ns()
        act()
        taken.append(time.perf_counter_ns() - start)
    return taken


def _scalars() -> int:
    """Scalars the record holds."""
    record = a_record(1, VECTOR)
    names = [f.name for f in msgspec.structs.fields(StepRecord) if f.name not in ("phase", "layer_grad_norms")]
    return sum(getattr(record, name) is not None for name in names)


def _cost(what: str, situation: str, nanoseconds: Sequence[int]) -> Cost:
    microseconds = [n / 1e3 for n in nanoseconds]
    return Cost(what, situation, len(microseconds), percentile(microseconds, 50), percentile(microseconds, 99))
