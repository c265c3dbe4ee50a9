"""The figures of one run of the benchmark, and the goals beside them. Measures nothing, draws nothing."""

import statistics
from collections.abc import Sequence

import msgspec

FORMAT = 2


class Scale(msgspec.Struct, frozen=True):
    """How much is measured; the defaults take some minutes, ``QUICK`` well under one."""

    records: int = 2000
    """In each of the four situations; the writers take turns in ``rounds``, so that a disturbance meets both."""
    rounds: int = 4
    tensorboard_steps: int = 200
    rates: tuple[tuple[int, int], ...] = ((10, 60), (200, 600))
    """(steps a second, records) sent to a client."""
    throughput: int = 40_000
    histories: tuple[int, ...] = (1000, 100_000, 1_000_000)
    commands: int = 20


QUICK = Scale(200, 2, 20, ((10, 10), (200, 100)), 4000, (1000, 80_000), 5)


class Cost(msgspec.Struct, frozen=True):
    """Time in the training thread, microseconds."""

    what: str
    situation: str
    measured: int
    p50_us: float
    p99_us: float


class Delay(msgspec.Struct, frozen=True):
    """Time from one process to another and, for commands, how many steps were taken meanwhile."""

    what: str
    measured: int
    p50_ms: float
    p95_ms: float
    most_steps: int | None = None


class Agent(msgspec.Struct, frozen=True):
    """What the agent's process took while rows went through it."""

    steps_per_second: int
    cpu_percent: float
    """Of one core."""
    memory_mb: float
    """Resident set."""


class Throughput(msgspec.Struct, frozen=True):
    """Records reported as fast as they are committed, until a client has the last one."""

    records: int
    seconds: float
    lost: int

    @property
    def per_second(self) -> float:
        return self.records / self.seconds


class Join(msgspec.Struct, frozen=True):
    """A client that opens a run of ``rows`` rows, in a process of its own; imports are not counted."""

    rows: int
    sealed: int
    """Of them in segments."""
    first_seconds: float
    """Until the newest 2000 rows are there."""
    all_seconds: float
    memory_mb: float
    """Largest resident set of that process."""
    to_polars_seconds: float
    """The whole run as one polars table."""
    bytes_per_step: float
    """On disk, journal.db and segments together."""


class Place(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    system: str
    python: str
    load: float
    """Processes running or waiting, at the end."""


class Figures(msgspec.Struct, frozen=True):
    """Everything one run measured."""

    format: int
    scale: Scale
    place: Place
    seconds: float
    costs: list[Cost]
    lost: dict[str, int]
    """Records lost in each situation: none, unless the disk stands still for longer than the queue lasts."""
    delays: list[Delay]
    agents: list[Agent]
    throughput: Throughput
    joins: list[Join]
    command: Delay | None
    """None: torch is not installed, so there is no training loop to steer."""

    def cost(self, what: str, situation: str) -> Cost | None:
        """One row of ``costs``; None when it was not measured."""
        return next((c for c in self.costs if c.situation == situation and c.what.startswith(what)), None)


class Goal(msgspec.Struct, frozen=True):
    """A target of the design beside what was measured."""

    what: str
    target: str
    measured: str
    met: bool


def goals(figures: Figures) -> list[Goal]:
    """The design's targets, met or missed."""
    found = []
    for cost in figures.costs:
        if cost.what.startswith(RECORD):
            what = f"one record in the training thread, {cost.situation}: p50 / p99"
            met = cost.p50_us <= 15 and cost.p99_us <= 100
            found.append(Goal(what, "<= 15 / 100 us", f"{cost.p50_us:.1f} / {cost.p99_us:.1f} us", met))
    for delay in figures.delays:
        found.append(Goal(f"{delay.what}: p95", "<= 150 ms", f"{delay.p95_ms:.0f} ms", delay.p95_ms <= 150))
    if figures.command is not None:
        command = figures.command
        measured = f"{command.p95_ms:.0f} ms, {command.most_steps} steps"
        target = "<= 2 steps + 150 ms"
        found.append(Goal("command sent -> applied: p95", target, measured, command.p95_ms <= 150))
    lost = figures.throughput.lost
    found.append(Goal("records lost at full throughput", "0", f"{lost}", lost == 0))
    for join in figures.joins:
        measured = f"{join.first_seconds:.2f} / {join.all_seconds:.1f} s"
        met = join.first_seconds <= 0.3 and join.all_seconds <= 10
        found.append(Goal(f"late join of {join.rows:,} rows: newest 2000 / all", "<= 0.3 / 10 s", measured, met))
    return found


RECORD = "one StepRecord"


def percentile(values: Sequence[float], percent: int) -> float:
    """By linear interpolation."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def delay_of(what: str, milliseconds: Sequence[float], most_steps: int | None = None) -> Delay:
    """The percentiles of some delays."""
    return Delay(what, len(milliseconds), percentile(milliseconds, 50), percentile(milliseconds, 95), most_steps)
