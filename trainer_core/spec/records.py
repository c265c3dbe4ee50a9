"""What a run says: the closed union of journal records. Knows nothing of how they are stored or sent.

Absence has a meaning everywhere: ``None`` is "not measured", NaN is "measured, and it is not a number".
"""

import msgspec

from trainer_core.spec.commands import Command, CommandState, Refusal, spoken_for
from trainer_core.spec.knobs import KnobDeclared as KnobDeclared
from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity
from trainer_core.spec.step_record import JournalRecord
from trainer_core.spec.step_record import StepRecord as StepRecord
from trainer_core.spec.surroundings import HealthMeasured as HealthMeasured
from trainer_core.spec.surroundings import MetricsMeasured as MetricsMeasured
from trainer_core.spec.surroundings import RunEnvironment as RunEnvironment
from trainer_core.spec.surroundings import SystemMeasured as SystemMeasured


class PredictedStretch(JournalRecord, frozen=True, tag="stretch"):
    """Predicted steps ``first_step..last_step`` taken without a forward pass each: one move along the path.

    ``expected_loss`` is the predicted path (one value per step, or two: both ends); nothing in it was measured.
    """

    step: int
    """Equal to last_step."""
    first_step: int
    last_step: int
    batch: int
    cycle: int
    expected_loss: tuple[float, ...]
    expected_low: tuple[float, ...]
    expected_high: tuple[float, ...]
    update_norm: float
    confidence: float | None
    seconds: float
    backward_passes: int


class RunStarted(JournalRecord, frozen=True, tag="run-started"):
    """First record of a process on a run: also written by a resume."""

    step: int
    run_id: str
    task: str
    config: dict[str, dict[str, bool | int | float | str | None]]
    """The resolved configuration: section -> key -> value."""
    layers: tuple[str, ...]
    """Names of ``StepRecord.layer_grad_norms``."""
    parameters: int
    total_steps: int | None
    device: str
    versions: dict[str, str]
    pid: int
    resumed_from: str | None = None
    plain: bool = False
    """A plain baseline: prediction was locked before the first step, so nothing was ever probed."""
    baseline: str | None = None
    """The plain run this one is compared with: its directory, relative to this run's; None: none was given."""
    own_loop: bool = False
    """A loop of the user's own that a Monitor watches: it has no phases, and its steps are recorded as FULL."""
    world_size: int = 1
    """Processes that train together; rank 0 writes the journal."""


class RunState(JournalRecord, frozen=True, tag="run-state"):
    """The trainer's own word for what it is doing: running, paused, finished, stopped or failed."""

    step: int
    state: str
    because: str


class PhaseChanged(JournalRecord, frozen=True, tag="phase"):
    """``step`` is the first step of the new phase; ``because`` the guards that held, with their numbers."""

    step: int
    from_phase: Phase
    to_phase: Phase
    because: tuple[str, ...]
    cycle: int
    budget: int | None
    """Steps the new phase may last."""


class GuardLine(msgspec.Struct, frozen=True):
    """One line of the "why not predicting yet?" checklist."""

    to_phase: Phase
    guard: str
    holds: bool
    detail: str


class Explained(JournalRecord, frozen=True, tag="explained"):
    """Every guard out of the present phase with its numbers; written when one of them flips, or every 20 steps."""

    step: int
    phase: Phase
    lines: tuple[GuardLine, ...]


class PredictionProbed(JournalRecord, frozen=True, tag="probe"):
    """A proposal compared with the present weights on the same batch (paired test)."""

    step: int
    cycle: int
    horizon: int
    loss_before: float
    loss_after: float
    gain: float
    """Mean over samples of (before - after)."""
    gain_se: float
    """Its standard error."""
    z: float
    confidence: float
    better: bool
    shadow: bool
    """True: probed and put back, only to learn the confidence."""
    seconds: float
    uncertainty: float | None = None
    """Relative spread of an ensemble's members over the proposal; it lowers the confidence. None: no ensemble."""
    paying: bool = False
    """The run's last control had found that predictions pay: a lower confidence was enough."""


class PredictionEnded(JournalRecord, frozen=True, tag="prediction"):
    """The verdict on one PREDICT phase and its correction."""

    step: int
    cycle: int
    kept: bool
    steps: int
    """Steps predicted (0 when undone before moving)."""
    because: str
    loss_before: float | None
    loss_after: float | None
    confidence: float | None
    """When it was entered."""
    mean_error: float | None
    """Mean relative loss error over the phase."""
    snapshot_seconds: float | None = None
    """Taking the snapshot to come back to; None: a run of before this was measured."""
    seconds: float | None = None
    """The verdict: its paired test, and going back where it was undone."""
    better: bool | None = None
    """Whether its probe and its validation, pooled, say that the loss fell: what the confidence is measured against.
    None: kept on the strength of its probe, without a validation of its own."""
    implied_rate: float | None = None
    """The learning rate it amounted to: rate * (1 + steps predicted / full steps before them)."""


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Outcomes whose stated confidence lay in one tenth of [0, 1]."""

    outcomes: int
    better: int
    """Of them, those whose loss fell: both batches of the prediction, or of its shadow, pooled."""
    stated: float | None
    """Their mean stated confidence; None without an outcome."""


class CalibrationMeasured(JournalRecord, frozen=True, tag="calibration"):
    """Stated confidence against what came of it, over the run so far; at every eighth outcome and at the end."""

    step: int
    outcomes: int
    brier: float
    """Mean of (confidence - outcome)^2."""
    bins: tuple[ReliabilityBin, ...]
    """Ten, from [0, 0.1) to [0.9, 1]."""


class ProgressCompared(JournalRecord, frozen=True, tag="progress"):
    """A stretch with predictions against a stretch of full steps: which made more progress for its cost?"""

    step: int
    with_predictions: float
    """Loss per forward pass (a full step costs three), from one paired test over the stretch."""
    without: float
    z: float
    """Standard errors between the two; below -1 predictions pause."""
    paused_steps: int
    """Full steps without a prediction that follow; 0: none."""
    seconds: float
    """Of its two paired tests."""


class ResidualWeight(msgspec.Struct, frozen=True):
    """One selected residual."""

    residual_id: int
    similarity: float
    weight: float


class CorrectionApplied(JournalRecord, frozen=True, tag="correction"):
    """Residual selection and its paired probe (methodology, "Correction Phase")."""

    step: int
    cycle: int
    history: int
    similar: int
    weights: tuple[ResidualWeight, ...]
    magnitude: float | None
    """Norm of the correction; None: there was none to try, or it was not tried."""
    gain: float | None
    """Paired loss gain of the correction; None: nothing to probe."""
    applied: bool
    because: str
    seconds: float | None = None


class ValidationMeasured(JournalRecord, frozen=True, tag="validation"):
    """Loss on held-out data."""

    step: int
    loss: float
    accuracy: float | None
    seconds: float


class AlertRaised(JournalRecord, frozen=True, tag="alert-raised"):
    """A ladder rung held long enough, or an event nobody should miss. One open alert per rule."""

    step: int
    alert_id: str
    rule: str
    severity: Severity
    signal: str
    value: float | None
    limit: float | None
    message: str
    remedy: str | None = None
    """Name in ``spec.remedies``."""
    commands: tuple[Command, ...] = ()
    """What the remedy would send now; empty when there is none, or when it would change nothing."""
    causes: str = ""
    """What the document says is behind it."""
    advice: str = ""
    """Settings changes that can only be made in the next run, in words."""


class AlertResolved(JournalRecord, frozen=True, tag="alert-resolved"):
    step: int
    alert_id: str
    rule: str
    message: str


class ChecklistItem(msgspec.Struct, frozen=True):
    """One line of a checklist."""

    item: str
    met: bool | None
    """None: not measured yet."""
    detail: str
    """The numbers that were compared."""


class Checklist(JournalRecord, frozen=True, tag="checklist"):
    """A checklist of the document at one step: "warmup", "before training" or "during training"."""

    step: int
    name: str
    items: tuple[ChecklistItem, ...]


class CommandChanged(JournalRecord, frozen=True, tag="command"):
    """One transition in the life of a command: the audit trail, the broadcast and the late joiner's answer."""

    step: int
    phase: Phase | None
    command_id: str
    command: Command
    state: CommandState
    actor: str
    state_rev: int
    """Grows by one with every APPLIED command."""
    before: str | None = None
    after: str | None = None
    refusal: Refusal | None = None
    detail: str = ""
    """Why it was refused, failed or expired; one sentence."""
    reason: str = ""
    """The operator's own reason."""
    on_behalf_of: str = ""
    """Whom the actor says it acts for; its word, not checked."""

    @property
    def by(self) -> str:
        """The actor, and for whom it acts."""
        return spoken_for(self.actor, self.on_behalf_of)


class CheckpointSaved(JournalRecord, frozen=True, tag="checkpoint"):
    step: int
    name: str
    bytes: int
    good: bool
    """The loss was finite and training healthy: a target for "last good"."""
    because: str
    seconds: float
    best: bool = False
    """Its validation loss is the lowest so far; kept until a better one comes."""
    removed: tuple[str, ...] | None = None
    """Older ones that were deleted for it; None: not told, in records of earlier versions."""


class CheckpointSkipped(JournalRecord, frozen=True, tag="checkpoint-skipped"):
    """A damaged or unfinished checkpoint that was passed over."""

    step: int
    name: str
    because: str


class AttemptStarted(JournalRecord, frozen=True, tag="attempt"):
    """A rollback or resume: what follows replaces the steps after ``step`` of the earlier attempts."""

    step: int
    attempt: int
    parent: int
    abandoned_step: int
    """The step that had been reached."""
    checkpoint: str | None
    because: str
    seconds: float | None = None
    """Reading the checkpoint and putting everything back."""


class Annotated(JournalRecord, frozen=True, tag="note"):
    step: int
    text: str
    actor: str


class Lost(JournalRecord, frozen=True, tag="lost"):
    """Step records dropped because the disk could not keep up; events are never dropped."""

    step: int
    first_step: int
    last_step: int
    count: int


Record = (
    StepRecord
    | PredictedStretch
    | RunStarted
    | RunState
    | PhaseChanged
    | Explained
    | PredictionProbed
    | PredictionEnded
    | CalibrationMeasured
    | ProgressCompared
    | CorrectionApplied
    | ValidationMeasured
    | AlertRaised
    | AlertResolved
    | Checklist
    | CommandChanged
    | CheckpointSaved
    | CheckpointSkipped
    | AttemptStarted
    | Annotated
    | Lost
    | KnobDeclared
    | MetricsMeasured
    | RunEnvironment
    | SystemMeasured
    | HealthMeasured
)


class Row(msgspec.Struct, frozen=True):
    """One journal row. ``seq`` is given at commit: it grows by one, without holes, over restarts and attempts."""

    seq: int
    time: float
    """Unix seconds when the record was reported."""
    attempt: int
    record: Record


def kind_of(record: Record) -> str:
    """The tag of a record, e.g. ``"step"``."""
    return str(record.__struct_config__.tag)
