"""The trainer's side: records into a deque, a thread that commits them and fetches commands. Never in the way.

report() builds nothing and wakes nobody: one append. The thread wakes every 50 ms, commits what has gathered in one
transaction, and reads commands.db for what the agent has decided. When the disk cannot keep up, the oldest step rows
go (never events) and a Lost record says which.
"""

import itertools
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from trainer_core.spec.commands import AcceptedCommand, CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    CommandChanged,
    Lost,
    MetricsMeasured,
    PredictedStretch,
    Record,
    RunStarted,
    RunState,
    StepRecord,
)
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.codec import CodecError, encode
from trainer_core.telemetry.commands_db import CommandsReader, Decided
from trainer_core.telemetry.compaction import Compaction
from trainer_core.telemetry.damage import move_aside
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.rundir import RUN_LOCK, RunLock
from trainer_core.telemetry.segments import KEPT_ROWS, SEGMENT_ROWS

_LOOK_S = 1.0
_JOURNAL_ALERT = "journal-1"
_Item = tuple[int, float, int, Record]
"""(order, time, attempt, record)."""


class Reporter:
    """One per trainer process. Inert in a forked child (a DataLoader worker)."""

    def __init__(
        self,
        run_dir: Path,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = 0.05,
        capacity: int = 50_000,
        segment_rows: int = SEGMENT_ROWS,
        kept_rows: int = KEPT_ROWS,
        lock: RunLock | None = None,
    ) -> None:
        self._lock = lock
        """The run's, to be looked after."""
        self._clock, self._interval_s, self._capacity = clock, interval_s, capacity
        self._run_dir = Path(run_dir)
        self._compaction = Compaction(Path(run_dir), segment_rows, kept_rows)
        self._journal = JournalWriter(Path(run_dir))
        self._commands_db = CommandsReader(Path(run_dir))
        self._seen_id = self._commands_db.last_id()
        self._unreadable = set(self._commands_db.unreadable)
        """Rows of commands.db that were told of, or are of before this process."""
        self._steps: deque[_Item] = deque()
        self._events: deque[_Item] = deque()
        self._order = itertools.count()
        self._commands: deque[AcceptedCommand] = deque()
        self._pid = os.getpid()
        self._drop_lock = threading.Lock()
        self._dropped: tuple[int, int, int] | None = None
        """(first step, last step, count) not yet told in a Lost record."""
        self.lost = 0
        """Records dropped so far: steps the disk was too slow for, and what could not be written at all."""
        self.failures = 0
        """Commits that failed and were tried again."""
        self._pending: list[_Item] = []
        self._mark = self._settled = -1
        """Everything with a smaller order is in the pending batch or before it; is committed."""
        self.open_alerts: set[str] = set()
        """Ids of the alerts that are open, its own about the journal with them."""
        self._look_at = 0.0
        self._words: dict[type[Record], Record] = {}
        """What a journal begins with: how the run was started, and the trainer's last word."""
        self._step, self._phase, self._state_rev, self._attempt = 0, Phase.WARMUP, 0, 0
        self._wake, self._committed = threading.Event(), threading.Condition()
        self._stopping = self._closed = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._tell_of_set_aside()
        self._thread.start()

    # -- the step thread --------------------------------------------------------------------------------------------

    def report(self, record: Record, attempt: int) -> None:
        """Take a record. Costs one append; never raises and never waits."""
        if self._closed or os.getpid() != self._pid:
            return
        item = (next(self._order), self._clock(), attempt, record)
        if not isinstance(record, (StepRecord, PredictedStretch, MetricsMeasured)):
            if isinstance(record, AlertRaised):
                self.open_alerts.add(record.alert_id)
            elif isinstance(record, AlertResolved):
                self.open_alerts.discard(record.alert_id)
            self._events.append(item)
            return
        self._steps.append(item)
        if len(self._steps) > self._capacity:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        with self._drop_lock:
            try:
                dropped = self._steps.popleft()[3]
            except IndexError:
                return  # the thread has just taken them all
            self.lost += 1
            first, last, count = self._dropped or (dropped.step, dropped.step, 0)
            self._dropped = (min(first, dropped.step), max(last, dropped.step), count + 1)

    def take_commands(self) -> list[AcceptedCommand]:
        """Commands accepted since the last call, in order."""
        taken = []
        while self._commands:
            taken.append(self._commands.popleft())
        return taken

    # -- for those who wait -----------------------------------------------------------------------------------------

    @property
    def next_seq(self) -> int:
        """Seq of the next row to be committed."""
        return self._journal.next_seq

    @property
    def queued(self) -> int:
        """Records not committed yet."""
        return len(self._steps) + len(self._events) + len(self._pending)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything reported so far is committed; False when ``timeout`` seconds did not suffice."""
        goal = next(self._order)
        deadline = time.monotonic() + timeout
        with self._committed:
            while self._settled < goal:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._wake.set()
                self._committed.wait(min(left, self._interval_s))
        return True

    def close(self, timeout: float = 5.0) -> bool:
        """Commit what is left and stop; returns whether everything was committed within ``timeout`` seconds."""
        if os.getpid() != self._pid or self._closed:
            return True
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        self._closed = True
        return not self._thread.is_alive() and self.queued == 0

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._tick()
        deadline = time.monotonic() + 4.0
        while self.queued and time.monotonic() < deadline:
            if not self._commit():
                time.sleep(self._interval_s)
        self._commands_db.close()
        self._journal.close()

    def _tick(self) -> None:
        """One round. Whatever goes wrong is counted and tried again: the thread outlives it."""
        try:
            self._look_after_journal()
            self._commit()
            self._fetch()
            self._compaction.tick(self._journal)
        except Exception:
            self.failures += 1

    def _look_after_journal(self) -> None:
        """A journal that somebody took away is begun anew: rows in a file that nobody can open would be lost unseen."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        self._look_after_lock()
        what = self._journal.taken_away()
        if what is None:
            return
        instead = move_aside(self._journal.path, what).name if what == "replaced" else None
        present, self._journal = self._journal, JournalWriter(self._run_dir)
        present.close()
        alert = self._alert(
            f"journal.db was {what} while the run goes on: what it held is gone, and a new one begins here"
            + (f"; the file in its place was set aside as {instead}" if instead else "")
        )
        self._journal.append([(self._clock(), self._attempt, record) for record in (*self._words.values(), alert)])

    def _look_after_lock(self) -> None:
        """A lock file that somebody took away is put back: without it the run looks crashed, and is anybody's."""
        restored = self._lock.restored() if self._lock is not None else None
        if restored is None:
            return
        what = f"{RUN_LOCK} was removed while the run goes on"
        if restored:
            said: Record = Annotated(self._step, f"{what}; it was made and locked again", "telemetry")
        else:
            said, self._lock = self._alert(f"{what}, and another process has claimed the run: end one of the two"), None
        self._events.append((next(self._order), self._clock(), self._attempt, said))

    def _commit(self) -> bool:
        """Commit what has gathered; on failure it is kept and tried again at the next tick."""
        if not self._pending:
            self._mark = next(self._order)
            self._pending = self._drained()
        try:
            if self._pending:
                self._journal.append([(stamp, attempt, record) for _, stamp, attempt, record in self._pending])
        except sqlite3.Error:
            self.failures += 1
            return False
        except CodecError:
            self._drop_unwritable()
            return False
        for _, _, attempt, record in self._pending:
            self._note(record, attempt)
        with self._committed:
            self._pending, self._settled = [], self._mark
            self._committed.notify_all()
        return True

    def _drop_unwritable(self) -> None:
        """Leave out records that have no encoding (a caller's mistake), and say so in their place."""
        kept: list[_Item] = []
        for order, stamp, attempt, record in self._pending:
            try:
                encode(record)
                kept.append((order, stamp, attempt, record))
            except CodecError as error:
                self.lost += 1
                kept.append((order, stamp, attempt, self._alert(f"a record was left out: {error}")))
        self._pending = kept

    def _drained(self) -> list[_Item]:
        items: list[_Item] = []
        for queue in (self._steps, self._events):
            while True:
                try:
                    items.append(queue.popleft())
                except IndexError:
                    break
        with self._drop_lock:
            dropped, self._dropped = self._dropped, None
        items.sort(key=lambda item: item[0])
        if dropped:
            first, last, count = dropped
            lost = Lost(last, first, last, count)
            items.insert(0, (items[0][0] if items else next(self._order), self._clock(), self._attempt, lost))
        return items

    def _note(self, record: Record, attempt: int) -> None:
        """Remember where the run is, for command states that are written here."""
        self._attempt = attempt
        if isinstance(record, StepRecord):
            self._step, self._phase = record.step, record.phase
        elif isinstance(record, RunStarted | RunState):
            self._words[type(record)] = record
        elif isinstance(record, CommandChanged):
            self._state_rev = max(self._state_rev, record.state_rev)

    def _fetch(self) -> None:
        """Read what the agent has decided; accepted commands go to the trainer, every decision into the journal."""
        try:
            if self._commands_db.replaced():
                self._seen_id, self._unreadable = 0, set()
            decided = self._commands_db.decided(self._seen_id)
        except sqlite3.Error:
            self.failures += 1
            return
        for decision in decided:
            self._seen_id = decision.id
            self._events.append((next(self._order), self._clock(), self._attempt, self._changed(decision)))
            if decision.state is CommandState.ACCEPTED:
                self._commands.append(decision.command)
        for row_id in sorted(set(self._commands_db.unreadable) - self._unreadable):
            self._seen_id = max(self._seen_id, row_id)
            self._unreadable.add(row_id)
            why = self._commands_db.unreadable[row_id]
            alert = self._alert(f"command {row_id} of commands.db cannot be read and was passed over: {why}")
            self._events.append((next(self._order), self._clock(), self._attempt, alert))

    def _changed(self, decision: Decided) -> CommandChanged:
        request = decision.command.request
        return CommandChanged(
            step=self._step,
            phase=self._phase,
            command_id=request.command_id,
            command=request.command,
            state=decision.state,
            actor=decision.command.actor,
            state_rev=self._state_rev,
            refusal=decision.refusal,
            detail=decision.detail,
            reason=request.reason,
            on_behalf_of=request.on_behalf_of,
        )

    def _tell_of_set_aside(self) -> None:
        aside = self._journal.set_aside
        if aside is not None:
            alert = self._alert(
                f"the journal was damaged and set aside as {aside.name}; a new one begins here. What is good of it: "
                f"hybrid export {quote(str(aside.parent))} OUT.parquet --journal {aside.name}"
            )
            self._events.append((next(self._order), self._clock(), 0, alert))
        for loss in self._journal.losses:
            alert = self._alert(
                f"steps in rows {loss.first} to {loss.last} are missing: their segment is {loss.what}; "
                "events among them are still in the journal"
            )
            self._events.append((next(self._order), self._clock(), 0, alert))

    def _alert(self, message: str) -> AlertRaised:
        self.open_alerts.add(_JOURNAL_ALERT)
        return AlertRaised(self._step, _JOURNAL_ALERT, "journal", Severity.CRITICAL, "journal", None, None, message)
