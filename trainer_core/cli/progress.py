"""Records of a running training as a progress bar, or as plain lines where there is no terminal. Starts nothing."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from trainer_core.cli.output import figure, visible
from trainer_core.spec.commands import CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AttemptStarted,
    CheckpointSkipped,
    CommandChanged,
    Lost,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    Record,
    RunStarted,
    RunState,
    StepRecord,
)
from trainer_core.telemetry.report import spoken

PLAIN_EVERY_S = 5.0
"""Seconds between two plain lines."""


def event_line(record: Record) -> str | None:
    """The one line a person should see when this happens, or None."""
    said = _event(record)
    return None if said is None else visible(said)


def _event(record: Record) -> str | None:
    match record:
        case PredictionEnded(kept=False):
            return f"step {record.step}: prediction undone ({record.because})"
        case AlertRaised():
            return f"step {record.step}: {record.severity.name}: {record.message}"
        case AttemptStarted():
            return f"step {record.step}: attempt {record.attempt} begins ({record.because})"
        case CheckpointSkipped():
            return f"checkpoint {record.name} skipped: {record.because}"
        case CommandChanged() if record.state.final:
            return _command_line(record)
        case RunState(state="paused"):
            return f"step {record.step}: paused ({record.because})"
        case Lost():
            return f"step {record.step}: {record.count} step records lost, the disk cannot keep up"
        case _:
            return None


def _command_line(record: CommandChanged) -> str:
    said = f"step {record.step}: {spoken(record)} {record.state} by {record.by}"
    if record.state is CommandState.APPLIED:
        change = f" ({record.before} -> {record.after})" if record.after is not None else ""
        return said + change
    return f"{said}: {record.detail or record.refusal or 'no reason given'}"


class Standing:
    """Where training is, from the records so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.step = 0
        self.total: int | None = None
        self.phase: Phase = Phase.WARMUP
        self.loss: float | None = None
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque(maxlen=200)

    def take(self, record: Record) -> None:
        """Note what ``record`` says about the step, the phase and the loss."""
        match record:
            case RunStarted():
                self.step, self.total = record.step, record.total_steps
            case PhaseChanged():
                self.phase = record.to_phase
            case StepRecord():
                self._reached(record.step)
                self.phase = record.phase
                self.loss = record.loss if record.loss is not None else self.loss
            case PredictedStretch():
                self._reached(record.last_step)
                self.phase = Phase.PREDICT
            case AttemptStarted():
                self.step = record.step
                self._recent.clear()
            case _:
                pass

    def _reached(self, step: int) -> None:
        self.step = step
        self._recent.append((self._clock(), step))

    @property
    def rate(self) -> float | None:
        """Steps per second over the recent records; None before two of them."""
        if len(self._recent) < 2:
            return None
        (began, first), (ended, last) = self._recent[0], self._recent[-1]
        return (last - first) / (ended - began) if ended > began and last >= first else None

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate; None when either is unknown."""
        rate = self.rate
        return (self.total - self.step) / rate if self.total is not None and rate else None

    def figures(self) -> dict[str, str]:
        """Phase, loss, rate and time left as text of steady width; "-" is unknown."""
        rate, eta = self.rate, self.eta_s
        return {
            "phase": f"{self.phase.value:<7}",
            "loss": "-" if self.loss is None else figure(self.loss, ".4f", 0.001),
            "rate": "-" if rate is None else f"{rate:.1f}",
            "eta": "-" if eta is None else clock_text(eta),
        }


def clock_text(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Lines:
    """Progress as plain lines: one now and then, one for each event."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._standing = Standing(clock)
        self._next = 0.0

    def take(self, record: Record, attempt: int) -> None:
        """Show ``record``."""
        self._standing.take(record)
        line = event_line(record)
        if line is not None:
            self._console.print(line)
        if isinstance(record, StepRecord | PredictedStretch) and self._clock() >= self._next:
            self._next = self._clock() + PLAIN_EVERY_S
            s, f = self._standing, self._standing.figures()
            total = "" if s.total is None else f"/{s.total}"
            self._console.print(f"step {s.step}{total} {s.phase} loss {f['loss']} {f['rate']} it/s ETA {f['eta']}")


class Bar:
    """Progress as one bar at the bottom of the terminal, events above it."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._standing = Standing()
        self._bar: TaskID = shown.add_task("", total=None, **self._fields())
        self._next = 0.0

    def take(self, record: Record, attempt: int) -> None:
        """Show ``record``: the bar at most ten times a second, an event at once."""
        self._standing.take(record)
        line = event_line(record)
        if line is not None:
            self._shown.console.print(line)
        now = time.monotonic()
        if now >= self._next or not isinstance(record, StepRecord):
            self._next = now + 0.1
            self._draw()

    def _draw(self) -> None:
        s = self._standing
        self._shown.update(self._bar, completed=s.step, total=s.total, **self._fields())

    def _fields(self) -> dict[str, Any]:
        s = self._standing
        return {**s.figures(), "steps": f"{s.step}" if s.total is None else f"{s.step}/{s.total}"}

    def finish(self) -> None:
        """Draw where it ended."""
        self._draw()


class Shown:
    """What is shown of a run while it trains, for as long as somebody can see it: no run ends of its display."""

    def __init__(self, display: Lines | Bar, console: Console) -> None:
        self._display, self._console = display, console
        self._gone = False

    def take(self, record: Record, attempt: int) -> None:
        """Show ``record``."""
        self.tried(lambda: self._display.take(record, attempt))

    def say(self, text: str, console: Console | None = None) -> None:
        """Show a line of the command's own, on its console or another."""
        self.tried(lambda: (console or self._console).print(text))

    def finish(self) -> None:
        """Draw where it ended."""
        if isinstance(self._display, Bar):
            self.tried(self._display.finish)

    def tried(self, show: Callable[[], object]) -> None:
        """Show something, unless nobody can see it any more."""
        if self._gone:
            return
        try:
            show()
        except (OSError, ValueError):  # a full disk, a reader that went away, a terminal that was closed
            self._gone = True


@contextmanager
def progress(console: Console) -> Iterator[Shown]:
    """The progress display that fits where standard output goes."""
    if not console.is_terminal:
        yield Shown(Lines(console), console)
        return
    columns = (
        TextColumn("{task.fields[phase]}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[steps]}", markup=False),
        TextColumn("loss {task.fields[loss]}", markup=False),
        TextColumn("{task.fields[rate]} it/s", markup=False),
        TextColumn("ETA {task.fields[eta]}", markup=False),
    )
    live = Progress(*columns, console=console, expand=True)
    shown = Shown(Bar(live), console)
    shown.tried(live.start)
    try:
        yield shown
    finally:
        shown.finish()
        with contextlib.suppress(OSError, ValueError):  # its last drawing; its thread has ended before
            live.stop()
