"""The life of every command in words, and what a rollback would throw away. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.settings import present_config
from trainer_core.spec.commands import (
    Command,
    CommandState,
    ForcePhase,
    LockPrediction,
    Refusal,
    Rollback,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetThreshold,
    SetWeightDecay,
    kind_of,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CheckpointSaved, CommandChanged, PredictionEnded

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
class Life:
    """Where one command stands."""

    command_id: str
    title: str
    state: CommandState | None
    """None: nobody knows; no reply came."""
    sentence: str
    actor: str
    reason: str

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
    newest: dict[str, CommandChanged] = {}
    for change in snapshot.of(CommandChanged):
        newest[change.command_id] = change
    return [_life(change) for change in reversed(newest.values())]


def _life(change: CommandChanged) -> Life:
    outcome = Outcome(
        change.state, change.step, change.phase, change.before, change.after, change.refusal, change.detail
    )
    return Life(change.command_id, title(change.command), change.state, sentence(outcome), change.actor, change.reason)


def title(command: Command) -> str:
    """What was asked for."""
    match command:
        case ForcePhase(phase=phase):
            return f"Force {phase.value}"
        case SetThreshold(name=name, value=value):
            return f"Set {name} to {value:g}"
        case Rollback(checkpoint=name):
            return f"Roll back to {name or 'the last good checkpoint'}"
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
            return f"unknown: no reply came{because}; it is asked about again with the same id"
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
        case CommandState.REJECTED:
            return f"refused ({seen.refusal.value if seen.refusal else 'no reason given'}){because}"
        case CommandState.UNDONE_BY_RESTART:
            return f"undone by a restart{because}"
        case _:
            return f"{seen.state.value}{because}"


@dataclass(frozen=True)
class Target:
    """A checkpoint to go back to, and what going back would cost."""

    name: str
    step: int
    good: bool
    steps_lost: int
    seconds_lost: float
    predictions_lost: int

    @property
    def label(self) -> str:
        """One line of the choice."""
        return f"{self.name} (step {self.step:,}{'' if self.good else ', not known to be good'})"

    @property
    def cost(self) -> str:
        """What will be thrown away."""
        plural = "s" if self.predictions_lost != 1 else ""
        kept = f", {self.predictions_lost} kept prediction{plural} among them" if self.predictions_lost else ""
        return f"{self.steps_lost:,} steps ({words.duration(self.seconds_lost)} of training{kept})"


def rollback_targets(snapshot: Snapshot) -> list[Target]:
    """Checkpoints of the surviving line that should still be there, newest first."""
    last = snapshot.last
    if last is None:
        return []
    config = present_config(snapshot)
    keep = config.checkpoint.keep_last if config else 3
    saved = {
        row.record.name: (row, row.record)
        for row in snapshot.events[CheckpointSaved]
        if isinstance(row.record, CheckpointSaved) and row.record.step <= last.step
    }
    newest = sorted(saved.values(), key=lambda pair: pair[0].seq, reverse=True)
    newest = [pair for pair in newest if pair[1].step <= snapshot.cuts.get(pair[0].attempt, pair[1].step)]
    good = [pair for pair in newest if pair[1].good][:1]
    kept = [pair for pair in newest if pair in newest[:keep] or pair in good]
    verdicts = [verdict for verdict in snapshot.of(PredictionEnded) if verdict.kept]
    return [
        Target(
            name=record.name,
            step=record.step,
            good=record.good,
            steps_lost=last.step - record.step,
            seconds_lost=max(0.0, (snapshot.last_time or row.time) - row.time),
            predictions_lost=sum(record.step < verdict.step <= last.step for verdict in verdicts),
        )
        for row, record in kept
    ]
