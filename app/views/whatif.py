"""What the newest recorded steps would have led to under another value of a setting: spec's own guards, replayed. Pure.

What was recorded stays as it was: a replay asks the transition table anew at every step, with the journal's numbers.
Predictions that were never made have no outcome, and looks that were not taken found nothing: it says so.
"""

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64
from trainer_core.spec.commands import CommandState, LockPrediction
from trainer_core.spec.config import SETTINGS, Config, with_live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.ladders import SIGNALS, ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, PredictionProbed
from trainer_core.spec.severity import Ladder, Severity
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import TRANSITIONS, Effect, Transition, guard_name

LAST_STEPS = 2000
ALERTS = "health"
"""The section whose settings are read by alerts alone."""
GONE_BACK = "The run went back and has not stepped since: there is nothing to replay yet."
LENGTHS = ("full_steps", "min_full_steps", "max_predict_steps", "min_predict_steps", "correct_steps", "trust_region")
"""Settings that move lengths which were chosen, and recorded, as training went."""
_COUNTS = ("step_in_phase", "since_divergence", "sign_changes", "full_needed", "horizon")
_NUMBERS = (
    "loss_change", "loss_deviation", "update_ratio", "prediction_error", "grad_norm", "grad_norm_baseline",
)  # fmt: skip
_ROWS = {phase: [row for row in TRANSITIONS if row.source is phase and row.cause != "operator"] for phase in Phase}
_WAY_IN = next(row for row in _ROWS[Phase.FULL] if row.target is Phase.PREDICT)


@dataclass(frozen=True)
class Outcome:
    """What one value would have led to."""

    value: float
    begun: int
    """Looks at which the way to PREDICT was open."""
    predicted: int
    """Steps these would have predicted, at the horizon that each look had found."""
    blocked: tuple[tuple[str, int], ...]
    """First guard that kept a FULL step out of PREDICT -> such steps, most first."""
    ended: tuple[tuple[str, int], ...]
    """Cause that ended a prediction with measured steps -> such predictions, most first."""
    rollbacks: int
    """Steps that would have been followed by an automatic rollback."""


@dataclass(frozen=True)
class Rung:
    """Measured steps beyond a healthy limit, before and after."""

    signal: str
    severity: Severity
    now: int
    then: int


@dataclass(frozen=True)
class WhatIf:
    """A setting's value in force and another one, over the same recorded steps."""

    steps: int
    first_step: int
    last_step: int
    looks: int
    made: int
    """Predictions that did begin in these steps."""
    now: Outcome
    then: Outcome
    rungs: tuple[Rung, ...]
    unknown: tuple[str, ...]
    """What the replay cannot tell, in sentences."""
    phases: bool = True
    """A loop of its own has none, and nothing that could be decided otherwise: only limits are counted."""
    about_alerts: bool = False
    """The setting is one of alerts on what no step records."""

    @property
    def same(self) -> bool:
        """Whether nothing at all would have differed."""
        fields = ("begun", "predicted", "blocked", "ended", "rollbacks")
        return not self.rungs and all(getattr(self.now, name) == getattr(self.then, name) for name in fields)

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        if self.same and self.about_alerts:
            tell = "Which alerts there would have been, the recorded steps do not tell."
            return f"No transition would have differed. {tell}" if self.phases else tell
        if not self.phases:
            otherwise = "Steps" if self.rungs else f"None of the last {self.steps:,} measured steps"
            return f"{otherwise} would have stood at another limit{', as below' * bool(self.rungs)}."
        if self.same and not self.looks and self.now.value != self.then.value:
            return f"Nothing would have differed: no proposal was looked at in the last {self.steps:,} measured steps."
        if self.same:
            return f"None of the last {self.steps:,} measured steps would have been decided otherwise."
        if self.now.begun == self.then.begun and self.now.predicted == self.then.predicted:
            return "As many predictions would have begun; what follows below would have differed."
        more = self.then.predicted - self.now.predicted
        word = "more" if more > 0 else "fewer"
        return (
            f"{self.then.begun:,} predictions would have begun instead of {self.now.begun:,}: about {abs(more):,} "
            f"{word} predicted steps."
        )


def what_if(snapshot: Snapshot, config: Config, name: str, value: float, last: int = LAST_STEPS) -> WhatIf | str:
    """The answer for one live setting; a sentence where there is none: no steps yet, or a value the rules forbid."""
    try:
        changed = with_live_setting(config, name, value)
    except ConfigError as error:
        return str(error)
    moments = list(_moments(snapshot, last))
    if not moments:
        return GONE_BACK if snapshot.steps.length else "No step has been measured yet."
    setting = SETTINGS[name]
    present = float(getattr(getattr(config, setting.section), name))
    if snapshot.own_loop:
        now, then = Outcome(present, 0, 0, (), (), 0), Outcome(value, 0, 0, (), (), 0)
    else:
        now, then = _outcome(moments, config, present), _outcome(moments, changed, value)
    return WhatIf(
        steps=len(moments),
        first_step=moments[0].signals.step,
        last_step=moments[-1].signals.step,
        looks=sum(moment.look is not None for moment in moments),
        made=_made(moments),
        now=now,
        then=then,
        rungs=_rungs(snapshot, len(moments), config, changed),
        unknown=() if snapshot.own_loop else _unknown(name, now, then),
        phases=not snapshot.own_loop,
        about_alerts=setting.section == ALERTS and not _moved(config, changed),
    )


@dataclass(frozen=True)
class _Moment:
    """The boundary after one measured step."""

    phase: Phase
    cycle: int
    signals: Signals
    look: PredictionProbed | None


def _moments(snapshot: Snapshot, last: int) -> Iterator[_Moment]:
    """The newest measured steps of the present attempt, oldest first."""
    steps = snapshot.steps
    if not steps.length:
        return
    start = max(steps.starts[-1], steps.length - last)
    if start == steps.length:  # a new attempt that has not stepped yet
        return
    column = {
        name: steps[name][start:].tolist()
        for name in (*_COUNTS, *_NUMBERS, "step", "seq", "phase", "cycle", "loss", "confidence")
    }
    looks = _looks(snapshot, float(steps["seq"][start]))
    changed_at, locked = _locks(snapshot)
    paying = False
    for row, step in enumerate(column["step"]):
        phase = PHASES[int(column["phase"][row])]
        look = looks.get(int(step)) if phase is Phase.FULL else None
        paying = paying if look is None else look.paying
        said = column["confidence"][row] if phase is Phase.PREDICT else None
        counts = {name: _whole(column[name][row]) for name in _COUNTS}
        numbers = {name: _known(column[name][row]) for name in _NUMBERS}
        signals = Signals(
            step=int(step),
            steps_in_phase=counts["step_in_phase"] or 0,
            full_needed=counts["full_needed"] or 0,
            horizon=counts["horizon"] or 0,
            since_divergence=counts["since_divergence"],
            sign_changes=counts["sign_changes"],
            confidence=look.confidence if look is not None else _known(said),
            paying=paying,
            locked=locked[bisect_right(changed_at, column["seq"][row])],
            finite=math.isfinite(column["loss"][row]),
            loss_change=numbers["loss_change"],
            loss_deviation=numbers["loss_deviation"],
            update_ratio=numbers["update_ratio"],
            prediction_error=numbers["prediction_error"],
            grad_norm=numbers["grad_norm"],
            grad_norm_baseline=numbers["grad_norm_baseline"],
        )
        yield _Moment(phase, int(column["cycle"][row]), signals, look)


def _looks(snapshot: Snapshot, first_seq: float) -> dict[int, PredictionProbed]:
    """Step -> the proposal that was probed after it; shadows are no looks."""
    found: dict[int, PredictionProbed] = {}
    for row in reversed(snapshot.events[PredictionProbed]):
        if row.seq < first_seq:
            break
        if isinstance(row.record, PredictionProbed) and not row.record.shadow:
            found.setdefault(row.record.step, row.record)
    return found


def _locks(snapshot: Snapshot) -> tuple[list[int], list[bool]]:
    """Seqs at which prediction was locked or unlocked, and whether it was locked before, between and after them."""
    rows, states = [], [False]
    for row in snapshot.events[CommandChanged]:
        match row.record:
            case CommandChanged(state=CommandState.APPLIED, command=LockPrediction(locked=locked)):
                rows.append(row.seq)
                states.append(locked)
            case _:
                pass
    return rows, states


def _outcome(moments: Sequence[_Moment], config: Config, value: float) -> Outcome:
    most = config.hybrid_trainer_config.max_predict_steps
    begun = predicted = rollbacks = 0
    blocked: Counter[str] = Counter()
    ended: dict[int, str] = {}
    for moment in moments:
        row = due(moment.phase, moment.signals, config)
        rollbacks += row is not None and row.effect is Effect.ROLLBACK
        if moment.phase is Phase.FULL and row is _WAY_IN:
            begun += 1
            predicted += min(most, moment.look.horizon) if moment.look is not None else 0
        elif moment.phase is Phase.FULL and row is None:
            blocked[_first_no(moment.signals, config)] += 1
        elif moment.phase is Phase.PREDICT and row is not None:
            ended.setdefault(moment.cycle, row.cause)
    causes = Counter(ended.values())
    return Outcome(value, begun, predicted, tuple(blocked.most_common()), tuple(causes.most_common()), rollbacks)


def due(phase: Phase, signals: Signals, config: Config) -> Transition | None:
    """The row that ``decide`` takes when no operator asks, without its words: each row is left at its first no."""
    for row in _ROWS[phase]:
        if all(guard(signals, config).holds for guard in row.guards):
            return row
    return None


def _first_no(signals: Signals, config: Config) -> str:
    """The first guard on the way to PREDICT that says no; a look that was not taken says so itself."""
    for guard in _WAY_IN.guards:
        if not guard(signals, config).holds:
            name = guard_name(guard)
            return "no look taken" if name == "confident" and signals.confidence is None else name
    return "open"


def _made(moments: Sequence[_Moment]) -> int:
    """Predictions that began: FULL steps after which the steps went on in another phase, or jumped."""
    return sum(
        here.phase is Phase.FULL and (there.phase is not Phase.FULL or there.signals.step > here.signals.step + 1)
        for here, there in itertools.pairwise(moments)
    )


def _rungs(snapshot: Snapshot, count: int, config: Config, changed: Config) -> tuple[Rung, ...]:
    """Signals whose ladder differs, with the steps at each rung that has a different number of them."""
    before, after = ladders(config), ladders(changed)
    found = []
    for signal in _moved(config, changed):
        values = snapshot.steps[signal][-count:]
        values = values[np.isfinite(values)]
        was, will = (_at_rungs(values, ladder) for ladder in (before[signal], after[signal]))
        found += [Rung(signal, rung, was[rung], will[rung]) for rung in was if was[rung] != will[rung]]
    return tuple(found)


def _moved(config: Config, changed: Config) -> list[str]:
    """The signals of steps whose ladder differs."""
    before, after = ladders(config), ladders(changed)
    return [signal for signal in SIGNALS if before[signal] != after[signal]]


def _at_rungs(values: F64, ladder: Ladder) -> dict[Severity, int]:
    """How many values are at each rung above healthy."""
    left = np.ones(len(values), dtype=bool)
    counts = {}
    for severity, above, below in ladder.rungs():
        passed = np.zeros(len(values), dtype=bool)
        if above is not None:
            passed |= values > above
        if below is not None:
            passed |= values < below
        counts[severity] = int((passed & left).sum())
        left &= ~passed
    return counts


def _unknown(name: str, now: Outcome, then: Outcome) -> tuple[str, ...]:
    said = []
    if then.begun > now.begun:
        said.append("Whether predictions that were never made would have been kept: they have no outcome.")
    if name == "confidence_threshold" and then.value < now.value:
        said.append("How many more looks there would have been: the trainer looks again when the threshold is lowered.")
    if name == "divergence_window" and then.value < now.value:
        said.append("What looks within the window would have found: none were taken there.")
    if name in LENGTHS:
        said.append("Which lengths would have been chosen: the replay keeps the recorded ones, cut to the new bound.")
    said.append("How the steps after a different decision would have gone: the recorded ones stand in for them.")
    return tuple(said)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
