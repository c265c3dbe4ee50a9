"""What a run says beside its steps: its health, the machine under it, where it came from, metrics of its own."""

import msgspec

from trainer_core.spec.step_record import JournalRecord


class MetricsMeasured(JournalRecord, frozen=True, tag="metrics"):
    """Named values of the user's own at one step; NaN is measured and not a number."""

    step: int
    values: dict[str, float]


class HealthMeasured(JournalRecord, frozen=True, tag="health"):
    """The signals behind the warning signs that are in no step record, every 20 steps (``ladders.HEALTH_SIGNALS``)."""

    step: int
    values: dict[str, float]
    """By name of the signal; one that is absent has no evidence yet."""


class GpuMeasured(msgspec.Struct, frozen=True):
    """One GPU; None: the driver does not say."""

    index: int
    name: str
    utilisation: float | None = None
    """Share of the last sampling period in which a kernel ran, in [0, 1]."""
    memory_used: int | None = None
    """Bytes, of all processes."""
    memory_total: int | None = None
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""


class SystemMeasured(JournalRecord, frozen=True, tag="system"):
    """The machine under the run, every few seconds; never by the step's thread. None: it could not be read."""

    step: int
    """The step the run was at."""
    cpu: float | None = None
    """CPU of this process since the last record, in cores: 1.0 is one core fully used."""
    cpu_machine: float | None = None
    """Share of the whole machine's CPU in use, in [0, 1]."""
    rss: int | None = None
    """Resident memory of this process, bytes."""
    memory_used: int | None = None
    """Bytes of host memory that are not available."""
    memory_total: int | None = None
    disk_free: int | None = None
    """Bytes left on the run directory's file system."""
    disk_total: int | None = None
    gpus: tuple[GpuMeasured, ...] = ()
    """Empty: there is none, or the package that reads them (extra ``gpu``) is not installed."""


class RunEnvironment(JournalRecord, frozen=True, tag="environment"):
    """Where the process came from, once at its start. Holds no environment variable."""

    step: int
    command_line: tuple[str, ...]
    """As it was given, with the values of flags that look like secrets left out."""
    directory: str
    """Working directory."""
    host: str
    system: str
    python: str
    device: str
    packages: dict[str, str]
    """Version by name, of the installed packages that this program or its dashboard uses."""
    cpus: int | None = None
    git_commit: str | None = None
    """Of the working directory; None: it is in no repository, or there is no git."""
    git_dirty: bool | None = None
    """Whether tracked files differ from the commit."""
