"""One thread a watched run: rows from telemetry into a store. Knows nothing of pages, figures or browsers."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.listing import Listing
from app.store import KINDS, LATEST, Snapshot, Store
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    AttemptStarted,
    CheckpointSaved,
    CommandChanged,
    Record,
    Row,
    RunStarted,
)
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.history import chunks
from trainer_core.telemetry.journal import FILE, JournalReader
from trainer_core.telemetry.rundir import RunStatus, RunSummary, status

POLL_S = 0.1
STATUS_EVERY_S = 1.0
RETRY_S = (0.5, 1.0, 2.0, 5.0)
CAUGHT_UP_BELOW = 500
"""A poll that brings fewer rows than this has reached the present."""
PAINTED_FIRST = 2000
"""Of a longer run the newest rows are shown while the rest is being read."""
RARE_FIRST = (RunStarted, AttemptStarted, AlertRaised, AlertResolved, CommandChanged, CheckpointSaved)
"""Kinds whose older rows are shown with them: what is open, locked or abandoned now was often said long ago."""
MOST_RARE = 500
DRAWN_WITHIN_S = 3.0
"""The rest is read when the newest rows have been drawn, which reading would slow down; at the latest after so long."""
MOST_FEEDS = 12
"""Runs kept in memory at a time; the one nobody looked at for longest goes first."""
IN_USE_S = 10.0
"""A run that somebody has looked at within so long stays, however many there are: else a page would stand still."""


class Rows(Protocol):
    """Where rows come from: ``telemetry.follower.Follower``, or a list in a test."""

    @property
    def journal_id(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def damaged(self) -> set[int]: ...
    def poll(self, timeout_s: float) -> list[Row]: ...
    def status(self) -> RunStatus: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Connection:
    """How the watching itself is doing; an error here says nothing about training."""

    error: str | None = None
    live: bool = False
    """Rows come from the run's agent; otherwise from the journal file."""
    whole: bool = True
    """Everything that was on disk has been read; otherwise only the newest rows are known."""


class Feed:
    """Follows one run until closed. Errors are kept for the banner and retried; the thread does not die of them."""

    def __init__(self, run_dir: Path, follow: Callable[[Path, int], Rows] = Follower) -> None:
        self.run_dir = run_dir
        self.store = Store()
        self.connection = Connection()
        self.status: RunStatus | None = None
        self.looked_at = time.monotonic()
        self._follow = follow
        self._journal_id = ""
        self._past_to_read = follow is Follower
        self._past_damaged: set[int] = set()
        self._listeners: dict[Callable[[], object], None] = {}
        self._closing = threading.Event()
        self._begun = threading.Event()
        self._read_on = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed {run_dir.name}", daemon=True)
        self._thread.start()

    def snapshot(self) -> Snapshot:
        """The run as it is now."""
        self.looked_at = time.monotonic()
        return self.store.snapshot()

    def wait(self, timeout_s: float) -> bool:
        """Wait until what was on disk at the start has been read; whether it has."""
        self._read_on.set()
        return self._caught_up.wait(timeout_s)

    @property
    def journal_id(self) -> str:
        """Which journal is followed: another one may take its place under the same name. Empty before it is opened."""
        return self._journal_id

    @property
    def begun(self) -> bool:
        """Whether there is something to show: all that was on disk, or of a long run its newest rows."""
        return self._begun.is_set()

    def read_on(self) -> None:
        """A browser shows what there is, or nobody waits for it: the rest may be read now."""
        self._read_on.set()

    def listen(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` from the feed's thread whenever rows have come, until what is returned is called."""
        self._listeners[heard] = None
        return lambda: self._listeners.pop(heard, None)

    @property
    def closed(self) -> bool:
        """Whether it follows its run no more: whoever still shows it asks the Watch for another."""
        return self._closing.is_set()

    def close(self) -> None:
        """End the thread; at most three seconds."""
        self._closing.set()
        self._read_on.set()
        self._thread.join(timeout=3.0)

    def _at_present(self) -> None:
        self._begun.set()
        self._caught_up.set()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._follow_until_replaced()
                failures = 0
            except Exception as error:  # the banner is where it belongs: watching must go on whatever it was
                self.connection = Connection(self._said(error), whole=self.connection.whole)
                self._at_present()
                self._closing.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    def _said(self, error: Exception) -> str:
        """What went wrong, for the banner; this project's own errors are sentences."""
        if not self.run_dir.is_dir():
            return f"{self.run_dir} is gone: deleted or moved. Shown is what had been read of it."
        return str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"

    def _follow_until_replaced(self) -> None:
        """Follow until closed, or until another file has taken the journal's place."""
        file = _file_number(self.run_dir)
        if self._past_to_read:
            self._read_past()
        rows_from = self._opened()
        due = 0.0
        try:
            while not self._closing.is_set():
                if time.monotonic() >= due:
                    if _file_number(self.run_dir) != file:
                        return
                    self.status = rows_from.status()
                    due = time.monotonic() + STATUS_EVERY_S
                self._take(rows_from.poll(POLL_S), rows_from)
        finally:
            rows_from.close()

    def _read_past(self) -> None:
        """All that is on disk, as columns; of a long run the newest rows are shown meanwhile."""
        with contextlib.closing(JournalReader(self.run_dir)) as reader:
            self._journal_id = reader.journal_id
            if reader.last_seq() > 2 * PAINTED_FIRST:
                first = Store()
                newest = reader.last_rows(PAINTED_FIRST)
                rare = [row for kind in RARE_FIRST for row in reader.events(_tag(kind), MOST_RARE)]
                first.append(sorted({row.seq: row for row in (*rare, *newest)}.values(), key=lambda row: row.seq))
                self.store, self.connection, self.status = first, Connection(whole=False), status(self.run_dir)
                self._begun.set()
                self._tell()
                self._read_on.wait(DRAWN_WITHIN_S)
            full = Store()
            for chunk in chunks(reader, KINDS, LATEST):
                if self._closing.is_set():
                    return
                full.extend(chunk)
                if reader.last_seq() - full.last_seq < CAUGHT_UP_BELOW:
                    break  # what has come meanwhile is read by row: a chunk of a few costs as much as one of thousands
            self._past_damaged, self.store, self._past_to_read = reader.damaged, full, False
            self.connection = Connection()

    def _opened(self) -> Rows:
        """A follower behind what is known; from the beginning when the journal is another one."""
        rows_from = self._follow(self.run_dir, self.store.last_seq)
        if rows_from.journal_id == self._journal_id or not self.store.last_seq:
            self._journal_id = rows_from.journal_id
            return rows_from
        rows_from.close()
        self.store.reset()
        self._past_damaged = set()
        self._journal_id = ""
        return self._opened()

    def _take(self, rows: list[Row], rows_from: Rows) -> None:
        self.store.append(rows)
        damaged = len(rows_from.damaged | self._past_damaged)
        error = f"{damaged} damaged rows of the journal were left out" if damaged else None
        self.connection = Connection(error, rows_from.live)
        if rows:
            self._tell()
        if len(rows) < CAUGHT_UP_BELOW:
            self._at_present()

    def _tell(self) -> None:
        for heard in tuple(self._listeners):
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                heard()


def _tag(kind: type[Record]) -> str:
    """What rows of a kind are called in the journal."""
    return str(kind.__struct_config__.tag)


def _file_number(run_dir: Path) -> int | None:
    """Which file the journal is; None while there is none."""
    try:
        return (run_dir / FILE).stat().st_ino
    except OSError:
        return None


class Watch:
    """All runs under one directory, and a feed for each that somebody looks at."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self._listing = Listing(runs_dir)
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[RunSummary]:
        """Every run, live or finished, newest first."""
        return self._listing.runs()

    def feed(self, name: str) -> Feed | None:
        """The feed of the run called ``name``, started if need be; None when there is no such run."""
        with self._lock:
            held = self._feeds.get(name)
            if held is not None:
                return held
            found = next((run for run in self.runs() if run.name == name), None)
            if found is None:
                return None
            self._make_room()
            started = self._feeds[name] = Feed(found.path)
            return started

    def close(self) -> None:
        """End every feed."""
        with self._lock:
            for feed in self._feeds.values():
                feed.close()
            self._feeds.clear()

    def _make_room(self) -> None:
        unused = time.monotonic() - IN_USE_S
        for name in sorted(self._feeds, key=lambda held: self._feeds[held].looked_at):
            if len(self._feeds) < MOST_FEEDS or self._feeds[name].looked_at > unused:
                return
            self._feeds.pop(name).close()
