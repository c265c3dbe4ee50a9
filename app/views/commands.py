"""The life of every command in words, and what a rollback would throw away. Pure."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from app.store import Snapshot
from app.views import words
from app.views.settings import present_config
from app.views.timeline import SAMPLED, at_work, shortest_pause
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    CommandState,
    ForcePhase,
    LockPrediction,
    Refusal,
    Rollback,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    is_dangerous,
    kind_of,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CheckpointSaved, CommandChanged, PredictionEnded, Row

ICONS: dict[CommandState | None, str] = {
    None: "?",
    CommandState.RECEIVED: "◌",
    CommandState.ACCEPTED: "◔",
    CommandState.APPLYING: "◑",
    CommandState.APPLIED: "✓",
}
TONES: dict[CommandState | None, str] = {
    None: "warning",
    CommandState.RECEIVED: "muted",
    CommandState.ACCEPTED: "muted",
    CommandState.APPLYING: "muted",
    CommandState.APPLIED: "healthy",
    CommandState.EXPIRED: "caution",
    CommandState.SUPERSEDED: "muted",
    CommandState.UNDONE_BY_RESTART: "caution",
}


@dataclass(frozen=True)
class Stage:
    """One transition of a command."""

    state: CommandState
    time: float
    """Unix seconds."""
    step: int


@dataclass(frozen=True)
class Life:
    """Where one command stands."""

    command_id: str
    title: str
    state: CommandState | None
    """None: nobody knows; no reply came."""
    sentence: str
    actor: str
    reason: str
    stages: tuple[Stage, ...] = ()
    """Its way so far, oldest first; empty while the journal does not have it."""
    seq: int = 0
    """Of its newest row."""
    effect: str = ""
    """What came after it was applied, in words."""

    def with_effect(self, words_: str) -> "Life":
        """The same, with what came after it."""
        return replace(self, effect=words_)

    @property
    def icon(self) -> str:
        """A sign for the state."""
        return ICONS.get(self.state, "✖")

    @property
    def tone(self) -> str:
        """The colour token of the state."""
        return TONES.get(self.state, "critical")


@dataclass(frozen=True)
class Outcome:
    """The fields that decide the sentence, from a journal row or from a reply."""

    state: CommandState | None
    step: int | None = None
    phase: Phase | None = None
    before: str | None = None
    after: str | None = None
    refusal: Refusal | None = None
    detail: str = ""


def lives(snapshot: Snapshot) -> list[Life]:
    """Every command the journal knows, by its newest state, newest command first."""
    rows: dict[str, list[Row]] = {}
    for row in snapshot.events[CommandChanged]:
        if isinstance(row.record, CommandChanged):
            rows.setdefault(row.record.command_id, []).append(row)
    return [_life(found) for found in sorted(rows.values(), key=lambda found: found[-1].seq, reverse=True)]


def _life(rows: list[Row]) -> Life:
    changes = [row.record for row in rows if isinstance(row.record, CommandChanged)]
    last = changes[-1]
    outcome = Outcome(last.state, last.step, last.phase, last.before, last.after, last.refusal, last.detail)
    stages = tuple(Stage(change.state, row.time, change.step) for row, change in zip(rows, changes, strict=True))
    return Life(
        last.command_id, title(last.command), last.state, sentence(outcome), last.by, last.reason, stages,
        rows[-1].seq,
    )  # fmt: skip


def state_rev(snapshot: Snapshot) -> int:
    """The run's revision: it grows by one with every command that is applied, whoever gave it."""
    newest = snapshot.latest(CommandChanged)
    return newest.state_rev if newest is not None else 0


def expected_rev(snapshot: Snapshot, seen: int, mine: Collection[str]) -> int:
    """The revision to send with a change: the one that was ``seen``, or a later one that is only ``mine``.

    ``mine``: ids of commands of this browser. What another operator did meanwhile stays a conflict.
    """
    now = state_rev(snapshot)
    for row in reversed(snapshot.events[CommandChanged]):
        change = row.record
        if not isinstance(change, CommandChanged) or change.state_rev <= seen:
            break
        if change.state is CommandState.APPLIED and change.command_id not in mine:
            return seen
    return now


STEERABLE = ("working", "paused", "stalled")
"""States of a run that takes commands."""

COMPARED = (
    SetThreshold, SetLearningRate, ScaleLearningRate, SetGradientClip, SetWeightDecay, SetKnob, SetPhaseLength,
    ApplyRemedy,
)  # fmt: skip
"""Commands whose sender read a value first: refused when somebody else has changed the run meanwhile."""


def asks_first(command: Command, rate: float | None) -> bool:
    """Whether a command is put to its sender once more; ``rate``: the learning rate now."""
    if isinstance(command, SetLearningRate):
        return not rate or not 0.1 < command.value / rate < 10.0
    if isinstance(command, ScaleLearningRate):
        return not 0.1 < command.factor < 10.0
    return is_dangerous(command)


def title(command: Command) -> str:
    """What was asked for."""
    match command:
        case ForcePhase(phase=phase):
            return f"Force {phase.value}"
        case SetThreshold(name=name, value=value):
            return f"Set {name} to {value:g}"
        case Rollback(checkpoint=name):
            return f"Roll back to {name or 'the last good checkpoint'}"
        case SetLearningRate(value=value):
            return f"Set learning rate to {value:g}"
        case SetPhaseLength(phase=phase, steps=steps):
            return f"Set length of {phase.value} to {steps:,} steps"
        case ApplyRemedy(remedy=remedy):
            return f"Apply remedy {remedy.replace('_', ' ')}"
        case ScaleLearningRate(factor=factor):
            return f"Scale learning rate by {factor:g}"
        case SetGradientClip(max_norm=value):
            return f"Set gradient clip to {value:g}"
        case SetWeightDecay(value=value):
            return f"Set weight decay to {value:g}"
        case SetKnob(name=name, value=value):
            return f"Set {name} to {value:g}"
        case LockPrediction(locked=locked):
            return "Lock prediction" if locked else "Unlock prediction"
        case _:
            return kind_of(command).replace("-", " ").capitalize()


def sentence(seen: Outcome) -> str:
    """What became of it. Only APPLIED is called applied."""
    because = f": {seen.detail}" if seen.detail else ""
    match seen.state:
        case None:
            return f"unknown: no reply came{because}; it is asked about again, never sent twice"
        case CommandState.RECEIVED:
            return "received; waits for its confirmation"
        case CommandState.ACCEPTED:
            return "accepted; waits for the next step boundary"
        case CommandState.APPLYING:
            return "being applied"
        case CommandState.APPLIED:
            where = f"at step {seen.step:,}" if seen.step is not None else ""
            phase = f" in {seen.phase.value}" if seen.phase is not None else ""
            moved = f": {seen.before} → {seen.after}" if seen.before is not None and seen.after is not None else because
            return f"applied {where}{phase}{moved}"
        case CommandState.REJECTED if seen.refusal is Refusal.CONFLICT:
            return f"refused: somebody else changed the run first{because}. Look at the values again, then press again"
        case CommandState.REJECTED:
            return f"refused ({seen.refusal.value if seen.refusal else 'no reason given'}){because}"
        case CommandState.UNDONE_BY_RESTART:
            return f"undone by a restart{because}"
        case _:
            return f"{seen.state.value}{because}"


def _loss_ema(snapshot: Snapshot, seq: int) -> float | None:
    """The loss EMA of the last measured step up to ``seq``."""
    steps = snapshot.steps
    row = int(np.searchsorted(steps["seq"], seq, "right")) - 1
    value = float(steps["loss_ema"][row]) if row >= 0 else math.nan
    return value if math.isfinite(value) else None


RESTORED = "weights, optimizer state, predictor, confidence and the step counter"
NOT_RESTORED = "settings you changed, the learning rate's scale, what was recorded, the data already read, and time"


@dataclass(frozen=True)
class Target:
    """A checkpoint to go back to, and what going back would cost."""

    name: str
    step: int
    good: bool
    steps_lost: int
    seconds_lost: float
    predictions_lost: int
    best: bool = False
    loss: float | None = None
    """Loss EMA when it was saved; None: not measured."""
    loss_now: float | None = None

    @property
    def label(self) -> str:
        """One line of the choice."""
        marks = [*(["best validation loss"] if self.best else []), *([] if self.good else ["not known to be good"])]
        return f"{self.name} (step {self.step:,}{''.join(f', {mark}' for mark in marks)})"

    @property
    def cost(self) -> str:
        """What will be thrown away."""
        plural = "s" if self.predictions_lost != 1 else ""
        kept = f", {self.predictions_lost} kept prediction{plural} among them" if self.predictions_lost else ""
        return f"{words.several(self.steps_lost, 'step')} ({words.duration(self.seconds_lost)} of training{kept})"


def rollback_targets(snapshot: Snapshot) -> list[Target]:
    """Checkpoints of the surviving line that should still be there, newest first."""
    if snapshot.last is None:
        return []
    there, now = _on_disk(snapshot), snapshot.step
    kept = [(row, saved) for row, saved in there if saved.step <= snapshot.cuts.get(row.attempt, saved.step)]
    kept = [(row, saved) for row, saved in kept if saved.step <= now]
    best = [pair for pair in kept if pair[1].best][:1]
    verdicts = [verdict for verdict in snapshot.surviving(PredictionEnded) if verdict.kept]
    pause = shortest_pause(snapshot.steps["time"][-SAMPLED:])
    return [
        Target(
            name=record.name,
            step=record.step,
            good=record.good,
            steps_lost=now - record.step,
            seconds_lost=_seconds_since(snapshot, row, pause),
            predictions_lost=sum(record.step < verdict.step <= now for verdict in verdicts),
            best=(row, record) in best,
            loss=_loss_ema(snapshot, row.seq),
            loss_now=_loss_ema(snapshot, snapshot.last_seq),
        )
        for row, record in kept
    ]


def _seconds_since(snapshot: Snapshot, saved: Row, pause: float) -> float:
    """Seconds at work on the surviving line since a checkpoint was saved."""
    steps = snapshot.steps
    after = np.arange(int(np.searchsorted(steps["seq"], saved.seq, "right")), steps.length)
    spent = np.diff(at_work(np.concatenate([[saved.time], steps["time"][after]]), pause))
    return float(spent[~snapshot.abandoned(steps, after)].sum())


def _on_disk(snapshot: Snapshot) -> list[tuple[Row, CheckpointSaved]]:
    """What was saved and not deleted since, newest first."""
    there: dict[str, tuple[Row, CheckpointSaved]] = {}
    told = False
    for row in snapshot.events[CheckpointSaved]:
        saved = row.record
        if isinstance(saved, CheckpointSaved):
            there[saved.name] = row, saved
            told = saved.removed is not None
            for name in saved.removed or ():
                there.pop(name, None)
    newest = sorted(there.values(), key=lambda pair: pair[0].seq, reverse=True)
    if told:
        return newest
    config = present_config(snapshot)  # a run of an earlier version: by the rule that it followed
    keep = config.checkpoint.keep_last if config else 3
    good = next((row.seq for row, saved in newest if saved.good), None)
    best = next((row.seq for row, saved in newest if saved.best), None)
    return [pair for i, pair in enumerate(newest) if i < keep or pair[0].seq in (good, best)]


def prediction_locked(snapshot: Snapshot) -> bool:
    """Whether the operator keeps the run in FULL."""
    changes = [c for c in snapshot.of(CommandChanged) if c.state is CommandState.APPLIED]
    locks = [c.command.locked for c in changes if isinstance(c.command, LockPrediction)]
    return bool(locks and locks[-1])
