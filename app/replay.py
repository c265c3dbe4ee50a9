"""A recorded run shown again as it happened, faster: a feed whose clock the reader moves. Knows no socket, no page."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from app.feed import Connection
from app.store import KINDS, LATEST, Snapshot, Store
from app.table import F64
from app.views.timeline import at_work
from trainer_core.telemetry.history import Chunk, chunks
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.rundir import RunStatus

SPEEDS = (1, 2, 5, 10, 20, 50)
BY_ROW = 300
"""The last rows before the place that is shown are read one by one: they say what the newest of everything is."""
MOST_ROWS = 5000
"""Rows taken at one tick; a replay that falls behind its clock lets the clock wait."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the reader wants of a replay. A new ``turn`` means: go to ``at`` now."""

    speed: int = 10
    playing: bool = True
    at: float = 0.0
    """Share of the run's time at work, in [0, 1]."""
    turn: int = 0

    def __post_init__(self) -> None:
        if self.speed not in SPEEDS:
            raise ValueError(f"speed = {self.speed}: must be one of {', '.join(map(str, SPEEDS))}")
        if not 0.0 <= self.at <= 1.0:
            raise ValueError(f"at = {self.at}: must be from 0 to 1")


@dataclass(frozen=True)
class Timeline:
    """When each measured step was said, in seconds at work since the first one: pauses are not replayed."""

    seq: F64
    spent: F64
    time: F64

    @property
    def length(self) -> float:
        """Seconds at work of the whole run."""
        return float(self.spent[-1]) if len(self.spent) else 0.0

    def seq_at(self, spent: float) -> int:
        """The newest row that had been said after ``spent`` seconds; 0 before the first step."""
        at = int(np.searchsorted(self.spent, spent, "right"))
        return int(self.seq[at - 1]) if at else 0

    def time_at(self, spent: float) -> float:
        """The recorded clock after ``spent`` seconds (Unix seconds)."""
        return float(np.interp(spent, self.spent, self.time)) if len(self.spent) else 0.0


def timeline(snapshot: Snapshot) -> Timeline:
    """The timeline of everything a snapshot holds."""
    steps = snapshot.steps
    return Timeline(steps["seq"], at_work(steps["time"]), steps["time"])


class Source(Protocol):
    """A run to show: ``app.feed.Feed``, or a Replay of one."""

    @property
    def run_dir(self) -> Path: ...
    @property
    def status(self) -> RunStatus | None: ...
    @property
    def connection(self) -> Connection: ...
    def snapshot(self) -> Snapshot: ...


class Replay:
    """One reader's replay of one run. ``tick`` moves it on; one thread at a time."""

    def __init__(self, feed: Source, most_rows: int = MOST_ROWS) -> None:
        self.run_dir = feed.run_dir
        self.store = Store()
        self.wish = Wish(turn=-1)
        self.spent = 0.0
        self._most_rows = most_rows
        self._line = timeline(feed.snapshot())
        self._last_seq = feed.snapshot().last_seq
        self._ticked: float | None = None
        self._lock = threading.Lock()
        self._reader = JournalReader(self.run_dir)

    @property
    def connection(self) -> Connection:
        """A replay is never live."""
        return Connection()

    @property
    def status(self) -> RunStatus:
        """What the strip says of it."""
        over = self.spent >= self._line.length
        word = "at its end" if over else f"at {self.wish.speed}x" if self.wish.playing else "held"
        return RunStatus("replay", f"recorded steps, {word}")

    @property
    def at(self) -> float:
        """Share of the run's time at work that has been shown."""
        return self.spent / self._line.length if self._line.length else 1.0

    @property
    def clock(self) -> float:
        """The recorded time of what is shown (Unix seconds)."""
        return self._line.time_at(self.spent)

    def snapshot(self) -> Snapshot:
        """The run as it was then."""
        return self.store.snapshot()

    def tick(self, wish: Wish, now: float) -> None:
        """Go where the reader wants, and on by the time since the last tick. ``now``: a monotonic clock, seconds."""
        with self._lock:
            passed = 0.0 if self._ticked is None else now - self._ticked
            self._ticked = now
            if wish.turn != self.wish.turn:
                self.spent, passed = wish.at * self._line.length, 0.0
                self._begin_at(self._seq())
            self.wish = wish
            if wish.playing and passed > 0.0:
                self.spent = min(self._line.length, self.spent + passed * wish.speed)
            self._go_on(self._seq())

    def close(self) -> None:
        """Let go of the journal."""
        with self._lock:
            self._reader.close()

    def _seq(self) -> int:
        """The row to be shown; everything after the last step comes with it."""
        return self._last_seq if self.spent >= self._line.length else self._line.seq_at(self.spent)

    def _begin_at(self, seq: int) -> None:
        """A fresh store with what had been said before ``seq``, most of it as columns."""
        store, by_column = Store(), seq - BY_ROW
        with contextlib.closing(JournalReader(self.run_dir)) as reader:
            for chunk in chunks(reader, KINDS, LATEST) if by_column > 0 else ():
                store.extend(chunk if chunk.last_seq <= by_column else _cut(chunk, by_column))
                if chunk.last_seq >= by_column:
                    break
        self.store = store
        self._reach(seq)

    def _go_on(self, seq: int) -> None:
        """Take what was said until ``seq``; the clock waits when that is more than one tick can take."""
        if seq - self.store.last_seq > self._most_rows:
            seq = self.store.last_seq + self._most_rows
            at = int(np.searchsorted(self._line.seq, seq, "right"))
            self.spent = float(self._line.spent[max(0, at - 1)])
        self._reach(seq)

    def _reach(self, seq: int) -> None:
        while self.store.last_seq < seq:
            rows = self._reader.rows(self.store.last_seq, min(2000, seq - self.store.last_seq))
            rows = [row for row in rows if row.seq <= seq]
            if not rows:  # damaged rows, or the journal's end
                return
            self.store.append(rows)


def _cut(chunk: Chunk, seq: int) -> Chunk:
    """A chunk as it would have been if the journal had ended at ``seq``; its newest step is told again by row."""
    steps = chunk.steps.filter(chunk.steps["seq"] <= seq)
    return Chunk(steps, [row for row in chunk.rows if row.seq <= seq], None, seq)
