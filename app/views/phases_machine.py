"""The transition table with the numbers of one moment: which guard holds, which edge was taken, and why. Pure.

The phase that the run is in is asked with the numbers of its newest step; a phase that it has left answers with what it
said when it was left. It knows no colour and no figure.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from app.store import PHASES, Snapshot
from app.views.commands import prediction_locked
from app.views.needed import paying
from trainer_core.spec.commands import CommandState, LockPrediction
from trainer_core.spec.config import Config
from trainer_core.spec.guards import Answer
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, PhaseChanged, PredictedStretch, RunStarted, StepRecord
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import TRANSITIONS, Transition, explain, guard_name

OPERATOR = "operator"
"""Cause of the rows that only a command takes."""
PLAIN = "locked from the start: a plain run"
LOOK_BACK = 2000
"""Steps among which the newest one of a phase is looked for."""
CHANGES_BACK = 16
"""Phase changes among which the newest one out of a phase is looked for."""
COUNTS = ("step_in_phase", "horizon", "full_needed", "since_divergence", "sign_changes")
_REASON = re.compile(r"^(\w+) \((.*)\)$", re.DOTALL)

Value = Callable[[str], float | None]


@dataclass(frozen=True)
class Standing:
    """What the guards out of one phase say."""

    phase: Phase
    live: bool
    """The run is in this phase."""
    step: int | None = None
    """The step they were asked at; None: never."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """Guard name -> its answer; one that is missing could not be asked."""


@dataclass(frozen=True)
class Taken:
    """The newest phase change."""

    source: Phase
    target: Phase
    step: int
    because: tuple[str, ...]
    row: int | None
    """Index into TRANSITIONS; None: no row names these guards (a rollback says its reason in words)."""


@dataclass(frozen=True)
class Machine:
    """The state machine at one moment."""

    active: Phase | None
    standings: dict[Phase, Standing]
    counts: dict[tuple[Phase, Phase], int]
    taken: Taken | None


def machine(snapshot: Snapshot, config: Config | None) -> Machine:
    """The machine of a snapshot; a loop without phases has none of it."""
    if snapshot.own_loop:
        return Machine(None, {phase: Standing(phase, False) for phase in PHASES}, {}, None)
    return Machine(
        active=snapshot.phase,
        standings={phase: standing(snapshot, phase, config) for phase in PHASES},
        counts=dict(snapshot.edges),
        taken=_taken(snapshot.latest(PhaseChanged)),
    )


def locked(snapshot: Snapshot) -> bool:
    """Whether prediction is locked: by the newest command, or from the first step on in a plain run."""
    return plain(snapshot) or prediction_locked(snapshot)


def plain(snapshot: Snapshot) -> bool:
    """Whether prediction is locked because it is a plain run, and no operator has said otherwise."""
    started = snapshot.latest(RunStarted)
    return (
        started is not None
        and started.plain
        and not any(
            change.state is CommandState.APPLIED and isinstance(change.command, LockPrediction)
            for change in snapshot.of(CommandChanged)
        )
    )


def standing(snapshot: Snapshot, phase: Phase, config: Config | None) -> Standing:
    """The guards out of ``phase``."""
    found = _live(snapshot, phase, config) if snapshot.phase is phase else _left(snapshot, phase, config)
    answer = found.answers.get("unlocked")
    if answer is not None and not answer.holds and plain(snapshot):
        answers = {**found.answers, "unlocked": Answer(False, PLAIN)}
        return replace(found, answers=answers)
    return found


def _live(snapshot: Snapshot, phase: Phase, config: Config | None) -> Standing:
    """The engine's own word where it is of the newest step; else the same guards on that step's numbers."""
    last, said = snapshot.last, snapshot.explained
    if isinstance(last, StepRecord) and last.phase is phase:
        if said is not None and said.phase is phase and (said.step >= last.step or config is None):
            return Standing(
                phase, True, said.step, {line.guard: Answer(line.holds, line.detail) for line in said.lines}
            )
        if config is not None:
            signals = signals_of(phase, last.step, lambda name: getattr(last, name), config, locked(snapshot))
            signals = msgspec.structs.replace(signals, paying=paying(snapshot))
            return Standing(phase, True, last.step, _asked(phase, signals, config))
    if isinstance(last, PredictedStretch) and phase is Phase.PREDICT and config is not None:
        change = snapshot.latest(PhaseChanged)
        begun = change.step if change is not None and change.to_phase is phase else last.first_step
        horizon = change.budget if change is not None and change.budget is not None else last.last_step - begun + 1
        signals = Signals(step=last.step, steps_in_phase=last.last_step - begun + 1, horizon=horizon)
        answers = _asked(phase, signals, config)
        return Standing(phase, True, last.step, {name: answers[name] for name in ("horizon_reached",)})
    return Standing(phase, True)


def _left(snapshot: Snapshot, phase: Phase, config: Config | None) -> Standing:
    """What a phase said when it was left: the guards that took it away, and the others at its last measured step."""
    change = next((c for c in reversed(_recent_changes(snapshot)) if c.from_phase is phase), None)
    if change is None:
        return Standing(phase, False)
    answers: dict[str, Answer] = {}
    row = newest_row(snapshot, phase)
    if row is not None and config is not None and int(snapshot.steps["step"][row]) + 1 == change.step:
        step = int(snapshot.steps["step"][row])
        answers = _asked(phase, signals_of(phase, step, _row_value(snapshot, row), config, False, left=True), config)
    return Standing(phase, False, change.step - 1, {**answers, **reasons(change.because)})


def _recent_changes(snapshot: Snapshot) -> list[PhaseChanged]:
    """The newest phase changes, and the first one, which left WARMUP."""
    rows = snapshot.events[PhaseChanged]
    first = [rows[0].record] if len(rows) > CHANGES_BACK else []
    return [r for r in (*first, *snapshot.newest(PhaseChanged, CHANGES_BACK)) if isinstance(r, PhaseChanged)]


def newest_row(snapshot: Snapshot, phase: Phase) -> int | None:
    """The newest measured step of a phase, as a row of ``snapshot.steps``, among the last LOOK_BACK."""
    first = max(0, snapshot.steps.length - LOOK_BACK)
    found = np.flatnonzero(snapshot.steps["phase"][first:] == PHASES.index(phase))
    return first + int(found[-1]) if len(found) else None


def _row_value(snapshot: Snapshot, row: int) -> Value:
    def value(name: str) -> float | None:
        number = float(snapshot.steps[name][row])
        return None if math.isnan(number) else number

    return value


def signals_of(phase: Phase, step: int, value: Value, config: Config, is_locked: bool, left: bool = False) -> Signals:
    """What the policy saw after a measured step, from what the step recorded.

    FULL has no proposal between two looks, so its confidence is "not measured". ``left``: the phase is over, so
    what CORRECT begins with was done.
    """
    whole = {name: None if (number := value(name)) is None else int(number) for name in COUNTS}
    inside, grad_norm = whole["step_in_phase"] or 0, value("grad_norm")
    loss, update_norm = value("loss"), value("update_norm")
    if _overflowed(config, loss, grad_norm):
        grad_norm = None
    budget = value("phase_budget")
    return Signals(
        step=step,
        steps_in_phase=inside,
        loss_change=value("loss_change"),
        full_needed=whole["full_needed"] or 0,
        confidence=value("confidence") if phase is Phase.PREDICT else None,
        since_divergence=whole["since_divergence"],
        locked=is_locked,
        horizon=(whole["horizon"] or 0) if phase is Phase.PREDICT else 0,
        finite=all(number is None or math.isfinite(number) for number in (loss, grad_norm, update_norm)),
        loss_deviation=value("loss_deviation"),
        update_ratio=value("update_ratio"),
        prediction_error=value("prediction_error"),
        sign_changes=whole["sign_changes"],
        grad_norm=grad_norm,
        grad_norm_baseline=value("grad_norm_baseline"),
        validated_steps=inside if phase is Phase.CORRECT else 0,
        correct_needed=int(budget) if budget is not None else 0,
        corrected=left or phase is Phase.CORRECT,
    )


def _overflowed(config: Config, loss: float | None, grad_norm: float | None) -> bool:
    """A gradient that loss scaling throws away (fp16) is no fault of the training."""
    scaled = config.training.use_mixed_precision and config.training.precision != "bf16"
    return scaled and grad_norm is not None and not math.isfinite(grad_norm) and loss is not None and loss == loss


def _asked(phase: Phase, signals: Signals, config: Config) -> dict[str, Answer]:
    return {line.guard: Answer(line.holds, line.detail) for line in explain(phase, signals, config)}


def reasons(because: Iterable[str]) -> dict[str, Answer]:
    """The guards that a phase change names, which all held: ``confident (0.91 > 0.85)``."""
    found = (_REASON.match(line) for line in because)
    return {match[1]: Answer(True, match[2]) for match in found if match}


def _taken(change: PhaseChanged | None) -> Taken | None:
    if change is None:
        return None
    named = tuple(reasons(change.because))
    rows = (
        index
        for index, row in enumerate(TRANSITIONS)
        if (row.source, row.target) == (change.from_phase, change.to_phase) and _names(row) == named
    )
    return Taken(change.from_phase, change.to_phase, change.step, change.because, next(rows, None))


def _names(row: Transition) -> tuple[str, ...]:
    return tuple(guard_name(guard) for guard in row.guards)
