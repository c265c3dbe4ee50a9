"""What is known of one run: rows in, immutable snapshots out. Knows nothing of drawing, sockets or Streamlit."""

import math
import operator
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from app import bulk
from app.columns import F64, Growing
from app.kept import KEPT, Kept
from app.side import Side, SideStore
from app.smoothing import Smoothings
from app.table import I64, Extremes, Table
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    Explained,
    HealthMeasured,
    MetricsMeasured,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    Record,
    Row,
    RunStarted,
    StepRecord,
    SystemMeasured,
)
from trainer_core.telemetry.history import Chunk

PHASES = tuple(Phase)
MEASURED = tuple(
    field.name for field in msgspec.structs.fields(StepRecord) if field.name not in ("phase", "layer_grad_norms")
)
"""The numeric fields of StepRecord, each a column of ``Snapshot.steps``."""
_measured = operator.attrgetter(*MEASURED)
STEP_COLUMNS = (*MEASURED, "phase", "attempt", "time", "seq")
PATH_COLUMNS = ("step", "loss", "low", "high", "attempt", "cycle", "seq")
CHARTED = ("loss", "confidence", "grad_norm")
"""Signals whose values that are no numbers are remembered."""
DRAWN = (*CHARTED, "grad_param_ratio", "grad_variance", "micro_grad_snr", "learning_rate")
"""Signals whose extremes over the whole run are kept up to date."""
KINDS = frozenset(
    str(kind.__struct_config__.tag) for kind in (*KEPT, PredictedStretch, SystemMeasured, MetricsMeasured)
)
LATEST = frozenset(str(kind.__struct_config__.tag) for kind in (Explained, HealthMeasured))
"""What a store wants of history: these kinds, and of these the newest."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class NotFinite:
    """A stretch of steps at which a signal was measured and was NaN or infinite."""

    signal: str
    first_step: int
    last_step: int
    count: int
    attempt: int


@dataclass(frozen=True)
class PhaseTally:
    """How often a phase was entered and how many steps it took, over all attempts."""

    entered: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Verdicts:
    """How many predictions were kept and how many undone."""

    kept: int = 0
    undone: int = 0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One consistent, immutable moment of a run."""

    last_seq: int
    steps: Table
    path: Table
    """Predicted loss: one row a predicted step, of StepRecord.predicted_loss and PredictedStretch alike."""
    cuts: Mapping[int, float]
    """Attempt -> the step a later attempt went on from: everything above it was abandoned."""
    events: Mapping[type, tuple[Row, ...]]
    last: StepRecord | PredictedStretch | None
    last_time: float | None
    phase: Phase | None
    """The phase of the newest step or of the phase change after it."""
    explained: Explained | None
    spans: Mapping[str, F64]
    """Where each phase began on the surviving line: columns ``start`` (step) and ``phase`` (index into PHASES)."""
    tallies: Mapping[Phase, PhaseTally]
    edges: Mapping[tuple[Phase, Phase], int]
    """How often each phase change happened, over all attempts."""
    verdicts: Verdicts
    not_finite: tuple[NotFinite, ...]
    predicted_steps: int
    backward_passes: int
    side: Side
    """Layers, the machine, metrics of the user's own."""

    def of(self, kind: type[R]) -> list[R]:
        """All records of one kept kind, oldest first."""
        return [row.record for row in self.events[kind] if isinstance(row.record, kind)]

    def newest(self, kind: type[R], count: int) -> list[R]:
        """The newest ``count`` records of one kept kind, oldest first; costs the same however long the run."""
        return [row.record for row in self.events[kind][-count:] if isinstance(row.record, kind)]

    def latest(self, kind: type[R]) -> R | None:
        """The newest record of one kept kind."""
        rows = self.events[kind]
        return rows[-1].record if rows and isinstance(rows[-1].record, kind) else None

    def surviving(self, kind: type[R], count: int = 0) -> list[R]:
        """Of the newest ``count`` records (0: of all) of one kept kind those that no later attempt took back."""
        return [
            row.record
            for row in self.events[kind][-count:]
            if isinstance(row.record, kind) and row.record.step <= self.cuts.get(row.attempt, math.inf)
        ]

    def abandoned(self, table: Table, rows: I64) -> npt.NDArray[np.bool_]:
        """For each of ``rows`` of a table: whether a later attempt replaced it."""
        attempts = table["attempt"][rows].astype(np.int64)
        limits = np.full(int(attempts.max(initial=0)) + 1, np.inf)
        for attempt, step in self.cuts.items():
            if attempt < len(limits):
                limits[attempt] = step
        return table["step"][rows] > limits[attempts]

    @property
    def step(self) -> int:
        """Where training stands: at its newest step, or where it went back to and has not stepped since."""
        began = self.events[AttemptStarted]
        newest = max((table.last("seq") for table in (self.steps, self.path) if table.length), default=0.0)
        if began and began[-1].seq > newest:
            return began[-1].record.step
        return self.last.step if self.last is not None else 0

    @property
    def own_loop(self) -> bool:
        """Whether a Monitor watches somebody's own loop: it has no phases."""
        started = self.latest(RunStarted)
        return started is not None and started.own_loop

    @property
    def empty(self) -> bool:
        """Whether nothing at all has been said by the run."""
        return self.last_seq == 0


class Store:
    """The columns of one run. ``append`` is called by one thread; ``snapshot`` by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._last_seq = 0
        self._steps, self._path = Growing(STEP_COLUMNS), Growing(PATH_COLUMNS)
        self._step_extremes = {name: Extremes() for name in DRAWN}
        self._path_extremes = {"loss": Extremes()}
        self._step_starts: list[int] = []
        self._path_starts: list[int] = []
        self._smoothings = Smoothings()
        self._attempt = -1
        self._cuts: dict[int, float] = {}
        self._spans = Growing(("start", "phase"))
        self._band: tuple[float, Phase] | None = None
        """Start and phase of the newest of them."""
        self._kept = Kept()
        self._last: StepRecord | PredictedStretch | None = None
        self._last_time: float | None = None
        self._phase: Phase | None = None
        self._explained: Explained | None = None
        self._tallies = {phase: PhaseTally() for phase in PHASES}
        self._edges: dict[tuple[Phase, Phase], int] = {}
        self._verdicts = Verdicts()
        self._not_finite: list[NotFinite] = []
        self._predicted_steps = 0
        self._side = SideStore()
        self._snapshot: Snapshot | None = None

    @property
    def last_seq(self) -> int:
        """The seq of the last row taken in."""
        return self._last_seq

    def reset(self) -> None:
        """Forget everything: the journal was replaced by another one."""
        with self._lock:
            self._reset()

    def append(self, rows: Sequence[Row]) -> None:
        """Take in rows of rising seq; rows already known are passed over, so a repeated batch changes nothing."""
        with self._lock:
            fresh = [row for row in rows if row.seq > self._last_seq]
            if not fresh:
                return
            self._extend(fresh)
            self._side.note_steps([row.record for row in fresh if isinstance(row.record, StepRecord)])
            for row in fresh:
                self._note(row)
            self._last_seq = fresh[-1].seq
            self._snapshot = None
        self._seal()

    def extend(self, chunk: Chunk) -> None:
        """As ``append``, for history that comes as columns: the same result in a fraction of the time.

        A predicted loss of NaN counts as none here. The chunk must follow ``last_seq``.
        """
        with self._lock:
            stretches = [row for row in chunk.rows if isinstance(row.record, PredictedStretch)]
            columns = bulk.step_columns(chunk.steps, MEASURED)
            self._side.extend(chunk)
            bands = bulk.bands(columns, stretches)
            self._join(columns, stretches, bulk.attempt_changes(columns, chunk.rows, self._attempt))
            first = bands.first_seq()
            for row in chunk.rows:
                entered = row.record.to_phase if isinstance(row.record, PhaseChanged) else None
                if entered is not None and first.get(PHASES.index(entered), row.seq) < row.seq:
                    self._count(entered, 0)
                if not isinstance(row.record, PredictedStretch):
                    self._note(row)
            for step, phase in bands.changes():
                self._span(step, PHASES[phase])
            for phase in first:
                self._count(PHASES[phase], int(bands.length[bands.phase == phase].sum()))
            self._predicted_steps += int(sum(r.last_step - r.first_step + 1 for r in bulk.stretches_of(stretches)))
            for signal, step, attempt in bulk.not_finite(chunk.steps, CHARTED):
                self._note_not_finite(signal, step, attempt)
            self._note_newest([row for row in (chunk.last_step, *stretches[-1:]) if row is not None], chunk.rows)
            self._last_seq = chunk.last_seq
            self._snapshot = None
        self._seal()

    def _seal(self) -> None:
        """Give the memory of older rows back; nobody waits for the disk meanwhile."""
        for part in (self._steps, self._path, self._side):
            part.seal()

    def _join(self, columns: dict[str, F64], stretches: Sequence[Row], changes: Sequence[tuple[int, int]]) -> None:
        path_rows = [line for row in stretches for line in bulk.path_rows(row)]
        path = bulk.path_columns(columns, path_rows, PATH_COLUMNS)
        for seq, attempt in changes:
            self._attempt = attempt
            self._step_starts.append(self._steps.length + int(np.searchsorted(columns["seq"], seq)))
            self._path_starts.append(self._path.length + int(np.searchsorted(path["seq"], seq)))
        self._steps.join(columns)
        self._path.join(path)

    def _note_newest(self, measured: Sequence[Row], rows: Sequence[Row]) -> None:
        """The newest step or stretch, and the phase: its own, or that of a later phase change."""
        newest = max(measured, key=lambda row: row.seq, default=None)
        if newest is None or not isinstance(newest.record, StepRecord | PredictedStretch):
            return
        self._last, self._last_time = newest.record, newest.time
        changed = [row for row in rows if isinstance(row.record, PhaseChanged) and row.seq > newest.seq]
        if not changed:
            self._phase = newest.record.phase if isinstance(newest.record, StepRecord) else Phase.PREDICT

    def snapshot(self) -> Snapshot:
        """The run as it is now; the same object until rows arrive."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = self._freeze()
            return self._snapshot

    def _extend(self, rows: Sequence[Row]) -> None:
        """Turn step and stretch rows into columns."""
        steps: list[tuple[float | None, ...]] = []
        path: list[tuple[float | None, ...]] = []
        for row in rows:
            record = row.record
            if row.attempt != self._attempt:
                self._attempt = row.attempt
                self._step_starts.append(self._steps.length + len(steps))
                self._path_starts.append(self._path.length + len(path))
            if isinstance(record, StepRecord):
                steps.append((*_measured(record), PHASES.index(record.phase), row.attempt, row.time, row.seq))
                if record.predicted_loss is not None:
                    expected = (record.predicted_loss, record.predicted_low, record.predicted_high)
                    path.append((record.step, *expected, row.attempt, record.cycle, row.seq))
            elif isinstance(record, PredictedStretch):
                path.extend(bulk.path_rows(row))
        self._steps.extend(steps)
        self._path.extend(path)

    def _abandon(self, started: AttemptStarted) -> None:
        for attempt in range(started.attempt):
            self._cuts[attempt] = min(self._cuts.get(attempt, math.inf), started.step)

    def _note(self, row: Row) -> None:
        record = row.record
        if not isinstance(record, StepRecord):
            self._side.note(row)
        if isinstance(record, StepRecord):
            self._last, self._last_time, self._phase = record, row.time, record.phase
            self._count(record.phase, 1)
            self._span(record.step, record.phase)
            for signal in CHARTED:
                value = getattr(record, signal)
                if value is not None and not math.isfinite(value):
                    self._note_not_finite(signal, record.step, row.attempt)
        elif isinstance(record, PredictedStretch):
            self._last, self._last_time, self._phase = record, row.time, Phase.PREDICT
            length = record.last_step - record.first_step + 1
            self._predicted_steps += length
            self._count(Phase.PREDICT, length)
            self._span(record.first_step, Phase.PREDICT)
        elif isinstance(record, Explained):
            self._explained = record
        elif self._kept.add(row):
            self._note_event(record)

    def _note_event(self, record: Record) -> None:
        match record:
            case PhaseChanged(from_phase=left, to_phase=entered):
                self._phase = entered
                tally = self._tallies[entered]
                self._tallies[entered] = replace(tally, entered=tally.entered + 1)
                self._edges[left, entered] = self._edges.get((left, entered), 0) + 1
            case PredictionEnded(kept=kept):
                held = self._verdicts
                self._verdicts = Verdicts(held.kept + kept, held.undone + (not kept))
            case AttemptStarted():
                self._abandon(record)
                self._explained = None  # it was of steps that are gone
            case _:
                pass

    def _span(self, step: int, phase: Phase) -> None:
        """Begin a phase band where the phase changes; a rollback takes the bands after its step away."""
        if self._band is not None and self._band[1] is phase and self._band[0] <= step:
            return
        if self._spans.length and self._spans.last("start") > step:
            self._spans = self._spans.upto(int(np.searchsorted(self._spans.columns()["start"], step, "left")))
        if not self._spans.length or self._spans.last("phase") != PHASES.index(phase):
            self._spans.extend([(step, PHASES.index(phase))])
        self._band = self._spans.last("start"), phase

    def _count(self, phase: Phase, steps: int) -> None:
        tally = self._tallies[phase]
        self._tallies[phase] = PhaseTally(max(tally.entered, 1), tally.steps + steps)

    def _note_not_finite(self, signal: str, step: int, attempt: int) -> None:
        for position in range(len(self._not_finite) - 1, max(-1, len(self._not_finite) - 1 - len(CHARTED)), -1):
            held = self._not_finite[position]
            if held.signal == signal and held.attempt == attempt and held.last_step + 1 >= step:
                self._not_finite[position] = replace(held, last_step=step, count=held.count + 1)
                return
        self._not_finite.append(NotFinite(signal, step, step, 1, attempt))

    def _layer_names(self) -> tuple[str, ...]:
        started = self._kept.frozen()[RunStarted]
        return started[-1].record.layers if started and isinstance(started[-1].record, RunStarted) else ()

    def _freeze(self) -> Snapshot:
        return Snapshot(
            last_seq=self._last_seq,
            steps=_table(self._steps, self._step_extremes, self._step_starts, self._smoothings),
            path=_table(self._path, self._path_extremes, self._path_starts, Smoothings()),
            cuts=dict(self._cuts),
            events=self._kept.frozen(),
            last=self._last,
            last_time=self._last_time,
            phase=self._phase,
            explained=self._explained,
            spans=self._spans.columns(),
            tallies=dict(self._tallies),
            edges=dict(self._edges),
            verdicts=self._verdicts,
            not_finite=tuple(self._not_finite),
            predicted_steps=self._predicted_steps,
            backward_passes=self._last.backward_passes if self._last is not None else 0,
            side=self._side.frozen(self._layer_names()),
        )


def _table(growing: Growing, extremes: Mapping[str, Extremes], starts: Sequence[int], smoothings: Smoothings) -> Table:
    return Table(growing.columns(), growing.length, extremes, tuple(starts), smoothings)
