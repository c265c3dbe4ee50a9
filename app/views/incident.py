"""The trainer's own rollback, while it is news: what happened, what was done about it, what there is to press. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.commands import STEERABLE
from app.views.settings import present_config
from trainer_core.spec.commands import CommandState, ScaleLearningRate, SetGradientClip
from trainer_core.spec.records import AttemptStarted, CommandChanged, Row

CAUSES = {"not_finite": "NaN or Inf", "gradient_extreme": "Extreme gradient"}
"""The guards that make the trainer go back by itself; other attempts were asked for."""
NEWS_STEPS = 200
"""Steps beyond the one that had been reached; then it is history, as on the charts and under Lately."""


@dataclass(frozen=True)
class Incident:
    """A rollback of the trainer's own."""

    seq: int
    said: str
    """What happened and what was done."""
    next: str
    """What there is to do now; empty: nothing."""

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.said} {self.next}".strip()


def incident(snapshot: Snapshot, state: str = "working") -> Incident | None:
    """The newest attempt, when the trainer began it by itself and the run is not past it by NEWS_STEPS.

    ``state`` is that of the process (``RunStatus.state``): a run that has ended cannot be paused.
    """
    rows = snapshot.events[AttemptStarted]
    if not rows or not isinstance(rows[-1].record, AttemptStarted) or snapshot.last is None:
        return None
    row, began = rows[-1], rows[-1].record
    guard, _, numbers = began.because.partition(" ")
    if guard not in CAUSES or snapshot.last.step > began.abandoned_step + NEWS_STEPS:
        return None
    limit = re.fullmatch(r"\((\S+) > (\S+)\)", numbers)
    cause = f"{CAUSES[guard]} ({limit[1]}, limit {limit[2]})" if limit else CAUSES[guard]
    lost = began.abandoned_step - began.step
    done = [f"went back to step {began.step:,} ({words.several(lost, 'step')} thrown away)", *_set(snapshot, row)]
    said = f"{cause} at step {began.abandoned_step:,}: the trainer {', '.join(done)}."
    times = _times_from(began.step, rows)
    if state not in (*STEERABLE, "replay"):
        again = f"It had gone back there {times} times in a row. " if times > 1 else ""
        look = "" if state == "finished" else "Look at that batch and the learning rate before you go on."
        return Incident(row.seq, said, again + look)
    if times == 1:
        return Incident(row.seq, said, "Nothing to press. If it comes again: look at that batch and the learning rate.")
    config = present_config(snapshot)
    most = f", which ends after {config.divergence_config.max_recoveries}" if config is not None else ""
    ask = f"It has gone back there {times} times in a row{most}: pause the run and look for the cause."
    return Incident(row.seq, said, ask)


def _times_from(step: int, rows: Sequence[Row]) -> int:
    """How many of the newest attempts, one after another, the trainer began by itself at ``step``."""
    times = 0
    for row in reversed(rows):
        began = row.record
        if not isinstance(began, AttemptStarted) or began.step != step or began.because.split(" ")[0] not in CAUSES:
            break
        times += 1
    return times


def _set(snapshot: Snapshot, row: Row) -> list[str]:
    """What the trainer set after going back."""
    found = []
    for held in snapshot.events[CommandChanged]:
        change = held.record
        if held.seq <= row.seq or not isinstance(change, CommandChanged) or change.actor != "trainer":
            continue
        if change.state is not CommandState.APPLIED or change.before in (None, change.after):
            continue
        if isinstance(change.command, ScaleLearningRate):
            found.append(f"learning rate {change.before} → {change.after}")
        elif isinstance(change.command, SetGradientClip):
            before = "off" if change.before == "0" else change.before
            found.append(f"gradient clip {before} → {change.after}")
    return found[:2]
