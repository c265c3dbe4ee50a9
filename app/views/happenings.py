"""What happened lately, newest first: commands, checkpoints, validations, verdicts, notes. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.commands import Outcome, sentence, title
from trainer_core.spec.records import (
    Annotated,
    AttemptStarted,
    CheckpointSaved,
    CheckpointSkipped,
    CommandChanged,
    Lost,
    PredictionEnded,
    ProgressCompared,
    Record,
    Row,
    RunState,
    ValidationMeasured,
)

MOST, MANY = 12, 60
"""Lines; rows of commands that they are chosen from, several each."""
KINDS = (
    Annotated,
    AttemptStarted,
    CheckpointSaved,
    CheckpointSkipped,
    CommandChanged,
    Lost,
    PredictionEnded,
    ProgressCompared,
    RunState,
    ValidationMeasured,
)


@dataclass(frozen=True)
class Happening:
    """One line."""

    seq: int
    step: int
    icon: str
    text: str


def happenings(snapshot: Snapshot) -> list[Happening]:
    """The newest events of the kinds above."""
    rows = [row for kind in KINDS for row in snapshot.events[kind][-MOST if kind is not CommandChanged else -MANY :]]
    newest = _once_each(sorted(rows, key=lambda row: row.seq, reverse=True))[:MOST]
    return [Happening(row.seq, getattr(row.record, "step", 0), *_said(row.record)) for row in newest]


def _once_each(rows: list[Row]) -> list[Row]:
    """Of each command only where it stands now; ``rows`` newest first."""
    known: set[str] = set()
    found = []
    for row in rows:
        if isinstance(row.record, CommandChanged):
            if row.record.command_id in known:
                continue
            known.add(row.record.command_id)
        found.append(row)
    return found


def _said(record: Record) -> tuple[str, str]:
    """A sign and a sentence."""
    match record:
        case CommandChanged():
            outcome = Outcome(
                record.state, record.step, record.phase, record.before, record.after, record.refusal, record.detail
            )
            return "▼", f"{title(record.command)}: {sentence(outcome)}"
        case CheckpointSaved():
            return (
                "⛁",
                f"checkpoint {record.name} saved: {record.because}{'' if record.good else ', not known to be good'}",
            )
        case CheckpointSkipped():
            return "⛁", f"checkpoint {record.name} was passed over: {record.because}"
        case Lost():
            lost = words.several(record.count, "step record")
            return "▨", f"{lost} lost, {record.first_step:,} to {record.last_step:,}: the disk could not keep up"
        case ValidationMeasured():
            accuracy = f", accuracy {words.percent(record.accuracy)}" if record.accuracy is not None else ""
            return "≈", f"validation loss {words.number(record.loss)}{accuracy}"
        case PredictionEnded():
            return (
                ("✓", f"{words.several(record.steps, 'predicted step')} kept")
                if record.kept
                else ("✕", f"undone: {words.reason(record.because)}")
            )
        case ProgressCompared(paused_steps=0):
            return "≈", f"predictions go on: for their cost not slower than full steps (z = {record.z:.1f})"
        case ProgressCompared():
            return (
                "◼",
                f"predictions pause for {record.paused_steps} full steps: slower for their cost (z = {record.z:.1f})",
            )
        case AttemptStarted():
            return "↶", f"attempt {record.attempt} goes on from step {record.step:,}: {record.because}"
        case RunState():
            return "●", f"{record.state}: {record.because}"
        case Annotated():
            return "✎", f"{record.actor}: {record.text}"
        case _:
            return "·", type(record).__name__
