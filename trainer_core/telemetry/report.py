"""What a run did, in figures: rows of its journal -> Report. Pure; knows no file, and invents no baseline.

Every figure is measured, save those under ``estimate``, which says of itself what it is.
"""

from collections.abc import Iterable

import msgspec

from trainer_core.spec.commands import CommandState, ForcePhase
from trainer_core.spec.commands import kind_of as tag_of
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AttemptStarted,
    CommandChanged,
    Lost,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    Record,
    Row,
    RunStarted,
    RunState,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.telemetry.comparison import Comparison, Told, compare
from trainer_core.telemetry.savings import Ledger, LedgerTally


class Predictions(msgspec.Struct, frozen=True):
    """PREDICT phases entered, and what became of them; one still running is entered and neither."""

    entered: int
    kept: int
    undone: int


class PhaseChange(msgspec.Struct, frozen=True, rename={"from_phase": "from", "to_phase": "to"}):
    """One transition; ``step`` is the first step of the new phase."""

    step: int
    from_phase: Phase
    to_phase: Phase
    because: tuple[str, ...]
    attempt: int


class Alert(msgspec.Struct, frozen=True):
    """One alert as it was raised."""

    step: int
    rule: str
    severity: str
    signal: str
    value: float | None
    limit: float | None
    message: str


class CommandLine(msgspec.Struct, frozen=True):
    """The last known state of one command."""

    command_id: str
    kind: str
    state: CommandState
    step: int
    before: str | None
    after: str | None
    actor: str
    why: str
    """Why it was refused, failed or expired; empty when it was not."""
    reason: str
    """The operator's own reason."""
    on_behalf_of: str = ""
    """Whom the actor says it acts for."""


class Estimate(msgspec.Struct, frozen=True):
    """What plain training would have taken for the same number of steps: an estimate, no baseline was run."""

    baseline_seconds: float
    """Steps times the median cost of a full step, without prediction and bookkeeping."""
    speedup: float
    """baseline_seconds / training_seconds, at equal steps, not at equal loss."""
    full_steps_measured: int
    method: str = "steps x median measured cost of a full step"
    basis: str = "estimate"


class Report(msgspec.Struct, frozen=True):
    """The final statistics of the document's appendix, and what led to them."""

    run_id: str | None
    task: str | None
    state: str | None
    """The trainer's last word: running, paused, finished, stopped or failed; None: it said nothing."""
    steps: int
    """Nominal steps of the surviving attempt; abandoned stretches are not in it."""
    wall_seconds: float
    """While a trainer process lived, pauses included, time between a crash and the resume not."""
    training_seconds: float
    """Measured cost of all steps, predictions and rollbacks, abandoned ones included: what the ledger charges."""
    steps_per_phase: dict[Phase, int]
    backward_passes: int
    """Over all attempts: abandoned work was paid for too."""
    backward_reduction: float | None
    """1 - backward_passes / steps, as a share; None before the first step."""
    predictions: Predictions
    final_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    attempts: int
    phase_changes: tuple[PhaseChange, ...]
    alerts: tuple[Alert, ...]
    commands: tuple[CommandLine, ...]
    lost_records: int
    estimate: Estimate | None
    plain: bool
    """A plain baseline: prediction was locked from the start."""
    baseline: str | None
    """The baseline run named when this one was started; relative to its directory."""
    ledger: Ledger
    comparison: Comparison | None
    """With a paired baseline run; None: none was given."""
    own_loop: bool = False
    """A loop of the user's own: nothing was predicted, and nothing is compared with a plain loop."""
    validated_at: int | None = None
    """Step of the last validation."""


def report(rows: Iterable[Row], base: Told | None = None, name: str = "the run") -> Report:
    """The report of a run's rows, in the order of ``seq``; with ``base``, compared with that baseline.

    Raises UserError when the two cannot be compared.
    """
    tally = _Tally()
    for row in rows:
        tally.take(row)
    return tally.report(base, name)


def spoken(command: CommandChanged) -> str:
    """The command's kind as a person types it: ``force-full`` and its like for ForcePhase, else its tag."""
    asked = command.command
    return f"force-{asked.phase.lower()}" if isinstance(asked, ForcePhase) else tag_of(asked)


class _Path:
    """Which phase took each nominal step, with abandoned stretches taken back."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, Phase]] = []

    def went(self, first: int, last: int, phase: Phase) -> None:
        """Steps ``first..last`` were taken in ``phase``; what stood at or after ``first`` is replaced."""
        self.back_to(first - 1)
        if self._stretches:
            begin, end, same = self._stretches[-1]
            if same is phase and end == first - 1:
                self._stretches[-1] = (begin, last, phase)
                return
        self._stretches.append((first, last, phase))

    def back_to(self, step: int) -> None:
        """Forget everything after ``step``."""
        while self._stretches and self._stretches[-1][1] > step:
            begin, _, phase = self._stretches.pop()
            if begin <= step:
                self._stretches.append((begin, step, phase))

    def per_phase(self) -> dict[Phase, int]:
        """Steps by phase, all four of them."""
        counts = dict.fromkeys(Phase, 0)
        for first, last, phase in self._stretches:
            counts[phase] += last - first + 1
        return counts


class _Tally:
    """Adds up rows, one record at a time."""

    def __init__(self) -> None:
        self.path = _Path()
        self.started: RunStarted | None = None
        self.state: str | None = None
        self.attempts: set[int] = set()
        self.wall = 0.0
        self.lost = 0
        self.final_loss: float | None = None
        self.validation: ValidationMeasured | None = None
        self.entered = 0
        self.verdicts: list[bool] = []
        self.changes: list[PhaseChange] = []
        self.alerts: list[Alert] = []
        self.commands: dict[str, CommandLine] = {}
        self.ledger = LedgerTally()
        self.plain = False
        self.baseline: str | None = None
        self._last_time: float | None = None

    def take(self, row: Row) -> None:
        """Count one row. Time before a RunStarted belongs to no process."""
        if self._last_time is not None and not isinstance(row.record, RunStarted):
            self.wall += max(0.0, row.time - self._last_time)
        self._last_time = row.time
        self.attempts.add(row.attempt)
        self.ledger.take(row)
        match row.record:
            case StepRecord():
                self._stepped(row.record)
            case PhaseChanged():
                self._changed(row.record, row.attempt)
            case _:
                self._happened(row.record)

    def _stepped(self, record: StepRecord) -> None:
        self.path.went(record.step, record.step, record.phase)
        if record.loss is not None:
            self.final_loss = record.loss

    def _changed(self, record: PhaseChanged, attempt: int) -> None:
        self.entered += record.to_phase is Phase.PREDICT
        self.changes.append(
            PhaseChange(record.step, record.from_phase, record.to_phase, record.because, attempt),
        )

    def _happened(self, record: Record) -> None:
        match record:
            case PredictedStretch():
                self.path.went(record.first_step, record.last_step, Phase.PREDICT)
            case PredictionEnded():
                self.verdicts.append(record.kept)
            case AttemptStarted():
                self._went_back(record.step)
            case RunStarted():
                self.started = record
                self.plain = self.plain or record.plain
                self.baseline = record.baseline or self.baseline
            case RunState():
                self.state = record.state
            case ValidationMeasured():
                self.validation = record
            case AlertRaised():
                self.alerts.append(alert_line(record))
            case CommandChanged():
                self.commands[record.command_id] = command_line(record)
            case Lost():
                self.lost += record.count
            case _:
                pass

    def _went_back(self, step: int) -> None:
        self.path.back_to(step)
        self.final_loss = None
        if self.validation is not None and self.validation.step > step:
            self.validation = None

    def report(self, base: Told | None, name: str) -> Report:
        """The figures so far."""
        per_phase = self.path.per_phase()
        steps = sum(per_phase.values())
        ledger = self.ledger.ledger()
        comparison = None
        if base is not None:
            comparison = compare(Told(name, self.started, self.state, ledger, self.ledger.curve()), base)
            ledger = msgspec.structs.replace(ledger, saved=comparison.saved or ledger.saved)
        return Report(
            run_id=self.started.run_id if self.started else None,
            task=self.started.task if self.started else None,
            state=self.state,
            steps=steps,
            wall_seconds=self.wall,
            training_seconds=ledger.charged_seconds,
            steps_per_phase=per_phase,
            backward_passes=ledger.backward_passes,
            backward_reduction=1 - ledger.backward_passes / steps if steps else None,
            predictions=Predictions(self.entered, self.verdicts.count(True), self.verdicts.count(False)),
            final_loss=self.final_loss,
            validation_loss=self.validation.loss if self.validation else None,
            validation_accuracy=self.validation.accuracy if self.validation else None,
            validated_at=self.validation.step if self.validation else None,
            attempts=len(self.attempts),
            phase_changes=tuple(self.changes),
            alerts=tuple(self.alerts),
            commands=tuple(self.commands.values()),
            lost_records=self.lost,
            estimate=self._estimate(),
            plain=self.plain,
            own_loop=self.started is not None and self.started.own_loop,
            baseline=self.baseline,
            ledger=ledger,
            comparison=comparison,
        )

    def _estimate(self) -> Estimate | None:
        """The baseline estimate; None where no full step was timed."""
        own = self.ledger.ledger().saved
        return None if own is None else Estimate(own.baseline_seconds, own.speedup, len(self.ledger.plain_costs))


def alert_line(record: AlertRaised) -> Alert:
    """The alert as the report lists it."""
    return Alert(
        step=record.step,
        rule=record.rule,
        severity=record.severity.name,
        signal=record.signal,
        value=record.value,
        limit=record.limit,
        message=record.message,
    )


def command_line(record: CommandChanged) -> CommandLine:
    """The command as the report lists it, at this transition of its life."""
    why = record.detail or (record.refusal.value if record.refusal is not None else "")
    return CommandLine(
        command_id=record.command_id,
        kind=spoken(record),
        state=record.state,
        step=record.step,
        before=record.before,
        after=record.after,
        actor=record.actor,
        why=why,
        reason=record.reason,
        on_behalf_of=record.on_behalf_of,
    )
