"""What a run may be told, and the life of one command. A closed union: every ``match`` over it ends in assert_never."""

from enum import StrEnum
from typing import Annotated

import msgspec

from trainer_core.spec.phases import Phase

HIGHEST_RATE = 100.0
"""Largest learning rate that a command may set."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Unknown fields are refused: a misspelt argument must not become a default."""


class ForcePhase(_Command, frozen=True, tag="force-phase"):
    """Go to ``phase`` at the next boundary. FULL is always allowed; PREDICT and CORRECT when their guards allow."""

    phase: Phase


class SetThreshold(_Command, frozen=True, tag="set-threshold"):
    """Set one live setting (``spec.config.SETTINGS[name].live``) to ``value``, within its bounds."""

    name: Name
    value: float


class Rollback(_Command, frozen=True, tag="rollback"):
    """Restore a checkpoint by name, or the last good one; begins a new attempt."""

    checkpoint: Name | None = None


class SaveCheckpoint(_Command, frozen=True, tag="checkpoint"):
    """Save a checkpoint at the next boundary."""


class Pause(_Command, frozen=True, tag="pause"):
    """Stop stepping at the next boundary and wait; commands are still taken."""


class Resume(_Command, frozen=True, tag="resume"):
    """Go on after a pause."""


class Stop(_Command, frozen=True, tag="stop"):
    """Save a checkpoint, end the run; it can be resumed later."""


class SetLearningRate(_Command, frozen=True, tag="set-learning-rate"):
    """Scale the schedule so that the learning rate is ``value`` now; later steps keep the scale."""

    value: Annotated[float, msgspec.Meta(gt=0, le=HIGHEST_RATE)]


class ScaleLearningRate(_Command, frozen=True, tag="scale-learning-rate"):
    """Multiply the scale on the schedule by ``factor``."""

    factor: Positive


class SetGradientClip(_Command, frozen=True, tag="set-gradient-clip"):
    """Clip the global gradient norm to ``max_norm``; 0 switches clipping off."""

    max_norm: NonNegative


class SetWeightDecay(_Command, frozen=True, tag="set-weight-decay"):
    """Set the optimizer's weight decay in every parameter group that has one."""

    value: NonNegative


class SetKnob(_Command, frozen=True, tag="set-knob"):
    """Set a knob that the training script has declared (``KnobDeclared``), within the bounds it gave."""

    name: Name
    value: float


class SetPhaseLength(_Command, frozen=True, tag="set-phase-length"):
    """Set the length setting of ``phase`` in steps (the longest horizon, for PREDICT)."""

    phase: Phase
    steps: Annotated[int, msgspec.Meta(ge=1)]


class LockPrediction(_Command, frozen=True, tag="lock-prediction"):
    """``locked``: stay in FULL and enter no PREDICT phase until unlocked."""

    locked: bool


class AcknowledgeAlert(_Command, frozen=True, tag="acknowledge-alert"):
    """Somebody has seen the alert."""

    alert_id: Name


class SilenceAlert(_Command, frozen=True, tag="silence-alert"):
    """Do not raise this rule again for ``steps`` steps."""

    rule: Name
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Annotate(_Command, frozen=True, tag="annotate"):
    """Put a note into the record at the present step."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class ApplyRemedy(_Command, frozen=True, tag="apply-remedy"):
    """Apply every command of a named remedy (``spec.remedies``), or none of them."""

    remedy: Name


Command = (
    ForcePhase
    | SetThreshold
    | Rollback
    | SaveCheckpoint
    | Pause
    | Resume
    | Stop
    | SetLearningRate
    | ScaleLearningRate
    | SetGradientClip
    | SetWeightDecay
    | SetKnob
    | SetPhaseLength
    | LockPrediction
    | AcknowledgeAlert
    | SilenceAlert
    | Annotate
    | ApplyRemedy
)

STICKY: tuple[type, ...] = (
    SetThreshold,
    SetLearningRate,
    ScaleLearningRate,
    SetGradientClip,
    SetWeightDecay,
    SetKnob,
    SetPhaseLength,
    LockPrediction,
    Pause,
    Resume,
)
"""Settings that a resume applies again when they were accepted after its checkpoint; all others are one-shots."""


def kind_of(command: Command) -> str:
    """The tag of a command, e.g. ``"set-threshold"``."""
    return str(command.__struct_config__.tag)


UNCONFIRMED = "waits for its confirmation: "
"""What a RECEIVED command's answer begins with, before why it is dangerous."""

TENFOLD = 10.0
"""A learning rate that changes by this factor or more, either way, is dangerous."""


def danger(command: Command, learning_rate: float | None = None) -> str | None:
    """Why a command needs a second, confirming message, in words; None when it needs none.

    ``learning_rate`` is the run's present one. None: it is not known, and then no new value is known to be near it.
    """
    match command:
        case Rollback():
            return "it throws training away"
        case Stop():
            return "it ends the run"
        case ApplyRemedy():
            return "it is several commands at once"
        case ScaleLearningRate(factor=factor):
            return f"it multiplies the learning rate by {factor:g}" if _tenfold(factor) else None
        case SetLearningRate(value=value):
            if learning_rate is None or not learning_rate > 0:
                return "the present learning rate is not known, so that the new one may be another by a factor of ten"
            if _tenfold(value / learning_rate):
                return f"it changes the learning rate tenfold or more: {learning_rate:g} -> {value:g}"
            return None
        case _:
            return None


def _tenfold(factor: float) -> bool:
    """Both ways; a value that was rounded on its way through a text still counts."""
    return not 1 / (TENFOLD * (1 - 1e-6)) < factor < TENFOLD * (1 - 1e-6)


def is_dangerous(command: Command) -> bool:
    """Whether a command needs a second, confirming message whatever the run's learning rate is."""
    return not isinstance(command, SetLearningRate) and danger(command) is not None


class CommandState(StrEnum):
    """``RECEIVED -> ACCEPTED (durable) -> APPLYING -> APPLIED``, or one of the other ends."""

    RECEIVED = "received"
    """Known, waiting for its confirmation. Nothing is durable yet."""
    ACCEPTED = "accepted"
    APPLYING = "applying"
    APPLIED = "applied"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    UNDONE_BY_RESTART = "undone-by-restart"

    @property
    def final(self) -> bool:
        """Whether the command can still change."""
        return self not in (
            CommandState.RECEIVED,
            CommandState.ACCEPTED,
            CommandState.APPLYING,
        )


class Refusal(StrEnum):
    """Why a command was REJECTED."""

    AUTH = "auth"
    SCHEMA = "schema"
    RUN = "run"
    PRECONDITION = "precondition"
    RATE = "rate"
    CONFLICT = "conflict"


ID_LENGTHS = 8, 64
"""Fewest and most characters of a command's id."""


MOST_STEPS = 2**53
"""Largest step that a command may wait for: the largest that every format here holds exactly."""


def spoken_for(actor: str, on_behalf_of: str) -> str:
    """``operator``, or ``operator for WHOM`` where the holder of the key says whom it acts for."""
    return f"{actor} for {on_behalf_of}" if on_behalf_of else actor


class CommandRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operator command as it travels. The actor is not in it: that is the authenticated key's name."""

    command_id: Annotated[str, msgspec.Meta(min_length=ID_LENGTHS[0], max_length=ID_LENGTHS[1])]
    """Minted when the form is shown, so that a double click is one command."""
    command: Command
    expect_state_rev: int | None = None
    """Compare-and-set: refused as a conflict when the run's state_rev has moved on."""
    at_step: Annotated[int, msgspec.Meta(ge=0, le=MOST_STEPS)] | None = None
    """Apply at the boundary before this step, or at the first one after it where a prediction jumps over it; None means
    the next boundary."""
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 60.0
    """Seconds after which an unapplied command expires."""
    reason: Text = ""
    on_behalf_of: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Whom the holder of the key says it acts for, e.g. somebody at a dashboard. Its word; no right comes of it."""


class AcceptedCommand(msgspec.Struct, frozen=True):
    """A command as ``commands.db`` holds it and as the trainer receives it."""

    request: CommandRequest
    actor: str
    received_at: float
    """Unix seconds."""

    @property
    def by(self) -> str:
        """The actor, and for whom it acts."""
        return spoken_for(self.actor, self.request.on_behalf_of)
