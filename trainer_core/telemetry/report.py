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
    CheckpointSaved,
    CheckpointSkipped,
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
from trainer_core.telemetry.path import SurvivingPath
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


class _Tally:
    """Adds up rows, one record at a time."""

    def __init__(self) -> None:
        self.path = SurvivingPath()
        self.started: RunStarted | None = None
        self.state: str | None = None
        self.attempts: set[int] = set()
        self.wall = 0.0
        self.lost = 0
        self.validations: list[tuple[int, ValidationMeasured]] = []
        """(branch of the path, validation)."""
        self.entered = 0
        self.under_way = False
        """Whether a prediction was entered and has no verdict yet."""
        self.verdicts: list[bool] = []
        self.changes: list[PhaseChange] = []
        self.alerts: list[Alert] = []
        self.commands: dict[str, CommandLine] = {}
        self.ledger = LedgerTally()
        self.plain = False
        self.baseline: str | None = None
        self._last_time: float | None = None
        self._perhaps: list[float] = []
        """Seconds up to rows that a process may have written before its RunStarted."""

    def take(self, row: Row) -> None:
        """Count one row."""
        self._lived(row)
        self.attempts.add(row.attempt)
        self.ledger.take(row)
        match row.record:
            case StepRecord():
                self._stepped(row.record)
            case PhaseChanged():
                self._changed(row.record, row.attempt)
            case _:
                self._happened(row.record)

    def _lived(self, row: Row) -> None:
        """Time between two processes belongs to none. One that resumes says what it goes on from, what was damaged and
        what it was told before its RunStarted: the longest wait among these rows is the one without a process."""
        seconds = 0.0 if self._last_time is None else max(0.0, row.time - self._last_time)
        self._last_time = row.time
        match row.record:
            case AttemptStarted() | CheckpointSkipped() | AlertRaised() | CommandChanged():
                self._perhaps.append(seconds)
            case RunStarted():
                waits = [*self._perhaps, seconds]
                self.wall, self._perhaps = self.wall + sum(waits) - max(waits), []
            case _:
                self.wall, self._perhaps = self.wall + sum(self._perhaps) + seconds, []

    def _stepped(self, record: StepRecord) -> None:
        self.path.went(record.step, record.step, record.phase)
        if record.loss is not None:
            self.path.measured(record.step, record.loss)

    def _changed(self, record: PhaseChanged, attempt: int) -> None:
        if record.to_phase is Phase.PREDICT:
            self.entered, self.under_way = self.entered + 1, True
        self.changes.append(
            PhaseChange(record.step, record.from_phase, record.to_phase, record.because, attempt),
        )

    def _happened(self, record: Record) -> None:
        match record:
            case PredictedStretch():
                self.path.went(record.first_step, record.last_step, Phase.PREDICT)
            case PredictionEnded():
                self.entered += not self.under_way  # one that was saved under way, and went on after a resume
                self.under_way = False
                self.verdicts.append(record.kept)
            case AttemptStarted(step=step, attempt=attempt, parent=parent, checkpoint=checkpoint):
                self.path.begin(attempt, parent, checkpoint, step)
            case CheckpointSaved(name=name):
                self.path.branches.saved(name)
            case RunStarted():
                self.started = record
                self.plain = self.plain or record.plain
                self.baseline = record.baseline or self.baseline
            case RunState():
                self.state = record.state
            case ValidationMeasured():
                self.validations.append((self.path.branches.now, record))
            case AlertRaised():
                self.alerts.append(alert_line(record))
            case CommandChanged():
                self.commands[record.command_id] = command_line(record)
            case Lost():
                self.lost += record.count
            case _:
                pass

    def report(self, base: Told | None, name: str) -> Report:
        """The figures so far."""
        per_phase = self.path.per_phase()
        steps = sum(per_phase.values())
        ledger = self.ledger.ledger()
        validation = self._last_validation()
        comparison = None
        if base is not None:
            comparison = compare(Told(name, self.started, self.state, ledger, self.ledger.curve()), base)
            ledger = msgspec.structs.replace(ledger, saved=comparison.saved or ledger.saved)
        return Report(
            run_id=self.started.run_id if self.started else None,
            task=self.started.task if self.started else None,
            state=self.state,
            steps=steps,
            wall_seconds=self.wall + sum(self._perhaps),
            training_seconds=ledger.charged_seconds,
            steps_per_phase=per_phase,
            backward_passes=ledger.backward_passes,
            backward_reduction=1 - ledger.backward_passes / steps if steps else None,
            predictions=Predictions(self.entered, self.verdicts.count(True), self.verdicts.count(False)),
            final_loss=self.path.last_loss,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            validated_at=validation.step if validation else None,
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

    def _last_validation(self) -> ValidationMeasured | None:
        """Of the steps that stand."""
        upto = dict(self.path.branches.way())
        return next((v for branch, v in reversed(self.validations) if v.step <= upto.get(branch, -1)), None)

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
