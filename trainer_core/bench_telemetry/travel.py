"""How long a record takes to a client, what the agent needs for it, and how many a second go through. No torch."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from trainer_core.bench_telemetry import watcher
from trainer_core.bench_telemetry.records import VECTOR, a_record
from trainer_core.bench_telemetry.results import Agent, Delay, Throughput, delay_of
from trainer_core.spec.records import StepRecord
from trainer_core.telemetry.agent_process import AgentProcess, start_agent
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import claim

PATIENCE_S = 60.0
_MOST_QUEUED = 20_000


@contextlib.contextmanager
def served(run_dir: Path) -> Iterator[tuple[Reporter, Follower, AgentProcess]]:
    """A run with an agent and a client that hears it."""
    run_dir.mkdir()
    with contextlib.closing(claim(run_dir)):
        reporter = Reporter(run_dir)
        agent = start_agent(run_dir)
        follower = Follower(run_dir)
        try:
            reporter.report(a_record(0, VECTOR), 0)
            ends = time.monotonic() + PATIENCE_S
            while follower.heartbeat is None:
                follower.poll(0.1)
                if time.monotonic() > ends:
                    raise RuntimeError(f"no agent was heard within {PATIENCE_S:g} s")
            yield reporter, follower, agent
        finally:
            follower.close()
            reporter.close()
            agent.close()


def record_to_client(run_dir: Path, rate: int, records: int) -> tuple[Delay, Agent]:
    """From ``report`` to a client's hands through journal, agent and socket, at ``rate`` steps a second."""
    with served(run_dir) as (reporter, follower, agent):
        begin, used = time.monotonic(), _cpu_seconds(agent.pid)

        def report() -> None:
            for step in range(1, records + 1):
                time.sleep(max(0.0, begin + step / rate - time.monotonic()))
                reporter.report(a_record(step, VECTOR), 0)

        taken = _received(threading.Thread(target=report, name="bench reporter"), follower, records)
        spent, lasted = _cpu_seconds(agent.pid) - used, time.monotonic() - begin
        memory = _memory_mb(agent.pid)
    return delay_of(f"record -> client at {rate} steps/s", taken), Agent(rate, 100 * spent / lasted, memory)


def _received(thread: threading.Thread, follower: Follower, records: int) -> list[float]:
    """Milliseconds of each record."""
    taken: list[float] = []
    thread.start()
    quiet_until = time.monotonic() + PATIENCE_S
    while len(taken) < records and time.monotonic() < quiet_until:
        rows = follower.poll(0.1)
        now = time.time()
        taken += [(now - row.time) * 1e3 for row in rows if isinstance(row.record, StepRecord) and row.record.step > 0]
        if rows:
            quiet_until = time.monotonic() + PATIENCE_S
    thread.join()
    if len(taken) < records:
        raise RuntimeError(f"{records - len(taken)} of {records} records did not reach the client")
    return taken


def throughput(run_dir: Path, records: int) -> Throughput:
    """As fast as the journal takes them, until a client in another process has them all.

    The reporting side waits when the queue is long, which no trainer does.
    """
    with served(run_dir) as (reporter, _, _agent):
        reporter.flush(PATIENCE_S)
        client = watcher.started("follow", run_dir, reporter.next_seq - 1 + records)
        assert client.stdout is not None
        try:
            if client.stdout.readline().strip() != "live":
                raise RuntimeError("a client did not hear its agent")
            begin = time.monotonic()
            for step in range(1, records + 1):
                while reporter.queued > _MOST_QUEUED:
                    time.sleep(0.001)
                reporter.report(a_record(step, VECTOR), 0)
            if client.stdout.readline().strip() != "all":
                raise RuntimeError("a client ended before it had every record")
            return Throughput(records, time.monotonic() - begin, reporter.lost)
        finally:
            client.kill()
            client.wait()
            client.stdout.close()


def _cpu_seconds(pid: int | None) -> float:
    """User and system time of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int | None) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
