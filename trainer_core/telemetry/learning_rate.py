"""The learning rate a run has now, by its journal: the newest step's, or what a command has made of it since.

Knows no schedule: where only the schedule could tell, the answer is None.
"""

from trainer_core.spec.commands import ApplyRemedy, CommandState, ScaleLearningRate, SetLearningRate
from trainer_core.spec.records import CommandChanged, Row, StepRecord
from trainer_core.telemetry.journal import JournalReader

_STEPS, _COMMANDS = 20, 50


def present_learning_rate(journal: JournalReader) -> float | None:
    """None: no step has been measured yet, the run went back since, or something else changed it in unknown ways."""
    measured = [row for row in journal.last_steps(_STEPS) if isinstance(row.record, StepRecord)]
    if not measured:
        return None
    newest = measured[-1]
    if any(row.seq > newest.seq for row in journal.events("attempt", newest=1)):
        return None
    changes = [row for row in journal.events("command", newest=_COMMANDS) if row.seq > newest.seq]
    return _after(newest.record, changes) if len(changes) < _COMMANDS else None


def _after(step: object, rows: list[Row]) -> float | None:
    rate = step.learning_rate if isinstance(step, StepRecord) else None
    for row in rows:
        change = row.record
        if isinstance(change, CommandChanged) and change.state is CommandState.APPLIED:
            if isinstance(change.command, SetLearningRate | ScaleLearningRate):
                rate = _number(change.after)
            elif isinstance(change.command, ApplyRemedy):
                rate = None
    return rate


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
