"""The transition table: the specification of the phase machine. Everything that speaks of transitions reads this table.

First matching row wins; guards within a row are joined by AND, rows by OR.
"""

from enum import StrEnum

import msgspec

from trainer_core.spec import guards as g
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import GuardLine
from trainer_core.spec.signals import Signals

_W, _F, _P, _C = Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT


class Effect(StrEnum):
    """What the engine does on the way."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    """Keep the weights to come back to."""
    UNDO = "undo"
    """Back to the snapshot."""
    JUDGE = "judge"
    """Paired test against the snapshot; back to it if that was better."""
    SETTLE = "settle"
    """Keep, or undo and lengthen FULL, by the paired test of the validation."""
    ROLLBACK = "rollback"
    """Back to the last good checkpoint, learning rate / 10, clip 1.0."""


class Transition(msgspec.Struct, frozen=True):
    """One row. ``cause`` is the short name that charts and the journal use."""

    source: Phase
    target: Phase
    guards: tuple[g.Guard, ...]
    cause: str
    effect: Effect = Effect.NONE
    divergence: bool = False
    """Whether taking it counts as a divergence (keeps the next prediction away for a while)."""


TRANSITIONS: tuple[Transition, ...] = (
    *(Transition(p, _F, (g.not_finite,), "NaN or Inf", Effect.ROLLBACK, divergence=True) for p in (_W, _F, _C)),
    *(
        Transition(
            p,
            _F,
            (g.gradient_extreme,),
            "extreme gradient",
            Effect.ROLLBACK,
            divergence=True,
        )
        for p in (_W, _F, _C)
    ),
    Transition(_P, _F, (g.not_finite,), "NaN or Inf", Effect.UNDO, divergence=True),
    Transition(_W, _F, (g.asked_for(_F),), "operator"),
    Transition(_P, _F, (g.asked_for(_F),), "operator", Effect.JUDGE),
    Transition(_C, _F, (g.asked_for(_F),), "operator", Effect.SETTLE),
    Transition(_F, _P, (g.asked_for(_P), g.unlocked, g.calm), "operator", Effect.SNAPSHOT),
    Transition(_P, _C, (g.asked_for(_C),), "operator"),
    Transition(_W, _F, (g.warmup_ran, g.loss_stable), "warmup complete"),
    Transition(_W, _F, (g.warmup_waited,), "loss never settled"),
    Transition(
        _F,
        _P,
        (g.full_cycle_ran, g.confident, g.calm, g.unlocked),
        "confident",
        Effect.SNAPSHOT,
    ),
    Transition(_P, _F, (g.loss_deviates,), "loss deviation", Effect.JUDGE, divergence=True),
    Transition(_P, _F, (g.update_exploded,), "update explosion", Effect.JUDGE, divergence=True),
    Transition(_P, _F, (g.update_vanished,), "update vanishing", Effect.JUDGE, divergence=True),
    Transition(_P, _F, (g.confidence_dropped,), "confidence drop", Effect.JUDGE),
    Transition(_P, _C, (g.prediction_off,), "prediction error"),
    Transition(_P, _C, (g.oscillates,), "oscillation"),
    Transition(_P, _C, (g.horizon_reached,), "horizon reached"),
    Transition(
        _C,
        _F,
        (g.validation_complete, g.correction_applied),
        "validated",
        Effect.SETTLE,
    ),
)


_FROM = {phase: tuple(row for row in TRANSITIONS if row.source is phase) for phase in Phase}
_EXPLAINED = {
    phase: tuple((row, guard) for row in rows if row.cause != "operator" for guard in row.guards)
    for phase, rows in _FROM.items()
}
"""By phase: the rows out of it, and the guards that its checklist shows."""


class Decision(msgspec.Struct, frozen=True):
    """A transition that is due, with the guards that say so."""

    transition: Transition
    because: tuple[str, ...]


def guard_name(guard: g.Guard) -> str:
    """The guard's name as the journal and the checklist print it."""
    return guard.__name__


def decide(phase: Phase, signals: Signals, config: Config) -> Decision | None:
    """The first row out of ``phase`` whose guards all hold, or None to stay."""
    for row in _FROM[phase]:
        lines = []
        for guard in row.guards:
            answer = guard(signals, config)
            if not answer.holds:
                break
            lines.append((guard, answer))
        else:
            return Decision(row, tuple([f"{guard_name(guard)} ({answer.detail})" for guard, answer in lines]))
    return None


def explain(phase: Phase, signals: Signals, config: Config) -> tuple[GuardLine, ...]:
    """Every guard of every row out of ``phase`` with its numbers: the "why not predicting yet?" checklist."""
    return tuple(
        GuardLine(row.target, guard_name(guard), answer.holds, answer.detail)
        for row, guard in _EXPLAINED[phase]
        for answer in [guard(signals, config)]
    )


def holding(phase: Phase, signals: Signals, config: Config) -> tuple[bool, ...]:
    """Which lines of ``explain`` hold, without their words."""
    return tuple([guard(signals, config).holds for _, guard in _EXPLAINED[phase]])


def refusal(phase: Phase, asked: Phase, signals: Signals, config: Config) -> str | None:
    """Why an operator's request for ``asked`` cannot be met now, in one sentence; None when it can."""
    if asked is phase:
        return None
    rows = [r for r in TRANSITIONS if r.source is phase and r.target is asked and r.cause == "operator"]
    if not rows:
        return f"there is no way from {phase} to {asked}"
    wanted = msgspec.structs.replace(signals, asked=asked)
    failed = [
        f"{guard_name(guard)} ({answer.detail})"
        for guard in rows[0].guards
        for answer in [guard(wanted, config)]
        if not answer.holds
    ]
    return "; ".join(failed) or None


def row_for(phase: Phase, asked: Phase) -> Transition:
    """The operator's row from ``phase`` to ``asked``. Raises KeyError when there is none (see ``refusal``)."""
    for row in TRANSITIONS:
        if row.source is phase and row.target is asked and row.cause == "operator":
            return row
    raise KeyError(f"{phase} -> {asked}")
