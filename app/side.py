"""What a run says beside its steps: layers, health, alerts, the machine under it, its own metrics. Knows no drawing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.alert_log import NO_ALERTS, AlertLog, AlertLogStore
from app.columns import Growing
from app.layers import NOTHING, LayerHistory, LayerNorms
from app.smoothing import Smoothings
from app.table import Extremes, Table
from trainer_core.spec.records import HealthMeasured, MetricsMeasured, Row, StepRecord, SystemMeasured
from trainer_core.telemetry.history import Chunk

SYSTEM = ("cpu", "cpu_machine", "rss", "memory_share", "disk_free", "gpu", "gpu_memory", "gpu_temperature", "gpu_power")
"""Per record: cores of this process, share of the machine, bytes, share, bytes; of several GPUs the mean use, the
fullest memory, the hottest and the sum of their power."""
MOST_METRICS = 64
"""Named metrics kept; more are counted and left out."""


@dataclass(frozen=True)
class Side:
    """One moment of it."""

    layers: LayerNorms
    system: Table
    newest: SystemMeasured | None
    metrics: Mapping[str, Table]
    left_out: int
    """Named metrics beyond MOST_METRICS."""
    health: HealthMeasured | None = None
    """The newest signals behind the warning signs."""
    alerts: AlertLog = NO_ALERTS


class Column:
    """A growing table of a few columns whose charted ones keep their extremes."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._growing = Growing(("step", *names, "attempt", "time", "seq"))
        self._extremes = {name: Extremes() for name in names}
        self._starts: list[int] = []
        self._attempt = -1
        self._smoothings = Smoothings()
        self._frozen: Table | None = None

    def add(self, row: Row, values: tuple[float | None, ...]) -> None:
        """One record's values."""
        if row.attempt != self._attempt:
            self._attempt = row.attempt
            self._starts.append(self._growing.length)
        self._growing.extend([(row.record.step, *values, row.attempt, row.time, row.seq)])

    def seal(self) -> None:
        """Give the memory of older rows back."""
        self._growing.seal()

    def frozen(self) -> Table:
        """An immutable look at it; the same object until something is added."""
        length, starts = self._growing.length, tuple(self._starts)
        if self._frozen is None or self._frozen.length != length:
            self._frozen = Table(self._growing.columns(), length, self._extremes, starts, self._smoothings)
        return self._frozen


class SideStore:
    """Takes rows in; the store holds its lock around it."""

    def __init__(self) -> None:
        self._layers = LayerHistory()
        self._system = Column(SYSTEM)
        self._newest: SystemMeasured | None = None
        self._metrics: dict[str, Column] = {}
        self._left_out: set[str] = set()
        self._health: HealthMeasured | None = None
        self._alerts = AlertLogStore()

    def note_steps(self, steps: Sequence[StepRecord]) -> None:
        """The layers of some steps."""
        known = [(step.step, step.layer_grad_norms) for step in steps if step.layer_grad_norms]
        self._layers.add([step for step, _ in known], [norms for _, norms in known])

    def note(self, row: Row) -> None:
        """One row that is no step."""
        self._alerts.note(row)
        match row.record:
            case SystemMeasured():
                self._newest = row.record
                self._system.add(row, system_values(row.record))
            case HealthMeasured():
                self._health = row.record
            case MetricsMeasured(values=values):
                for name, value in values.items():
                    self._metric(name, row, value)
            case _:
                pass

    def extend(self, chunk: Chunk) -> None:
        """The layers of a chunk's steps; its rows are noted one by one."""
        self._layers.extend(chunk.steps)

    def seal(self) -> None:
        """Give the memory of older rows back."""
        for column in (self._system, *self._metrics.values()):
            column.seal()

    def frozen(self, names: Iterable[str]) -> Side:
        """Everything as it is now."""
        metrics = {name: column.frozen() for name, column in self._metrics.items()}
        return Side(
            self._layers.frozen(tuple(names)), self._system.frozen(), self._newest, metrics, len(self._left_out),
            self._health, self._alerts.frozen(),
        )  # fmt: skip

    def _metric(self, name: str, row: Row, value: float) -> None:
        if name not in self._metrics:
            if len(self._metrics) >= MOST_METRICS:
                self._left_out.add(name)
                return
            self._metrics[name] = Column(("value",))
        self._metrics[name].add(row, (value if math.isfinite(value) else None,))


EMPTY = Side(NOTHING, Column(SYSTEM).frozen(), None, {}, 0)


def system_values(record: SystemMeasured) -> tuple[float | None, ...]:
    """The columns of one record."""
    share = record.memory_used / record.memory_total if record.memory_used is not None and record.memory_total else None
    use = [gpu.utilisation for gpu in record.gpus if gpu.utilisation is not None]
    filled = [g.memory_used / g.memory_total for g in record.gpus if g.memory_used is not None and g.memory_total]
    heat = [gpu.temperature for gpu in record.gpus if gpu.temperature is not None]
    power = [gpu.power for gpu in record.gpus if gpu.power is not None]
    return (
        record.cpu, record.cpu_machine, record.rss, share, record.disk_free, float(np.mean(use)) if use else None,
        max(filled, default=None), max(heat, default=None), sum(power) if power else None,
    )  # fmt: skip
