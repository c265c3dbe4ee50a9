"""journal.db: everything a run has said, in order. One writer, the trainer; any number of readers. No sockets.

SQLite in WAL mode; the writer alone checkpoints; a batch is one transaction, synced before anybody sees it. ``seq`` is
given at commit, so it has no holes by construction, over restarts too. A row whose checksum fails is never shown. Old
rows are sealed into segments (by another process) and then deleted here; readers see both as one journal.
"""

import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trainer_core.spec.errors import RunError
from trainer_core.spec.records import Record, Row
from trainer_core.telemetry.codec import (
    PHASES,
    PROTOCOL,
    STEP_FIELDS,
    CodecError,
    RawRow,
    StepLayout,
    checksum,
    decode_row,
    encode,
)
from trainer_core.telemetry.damage import fields_in, move_aside, sound
from trainer_core.telemetry.opening import connect, connect_read_only, identity
from trainer_core.telemetry.segments import BULK, KEPT_ROWS, Segment, SegmentDamaged, Segments

FILE = "journal.db"
_CHECKPOINT_EVERY, _CHECKPOINT_ROWS = 200, 20_000
"""Batches between WAL checkpoints (10 s at one batch every 50 ms); rows, for a loop whose batches are large."""
_RARE = "kind NOT IN ('step', 'stretch')"
_SEALED = f"kind IN ({', '.join(repr(kind) for kind in BULK)})"
_COMPACTED = "compacted_through"
"""Key in ``meta``: the seq up to which sealed bulk rows have been deleted."""
_COLUMNS = "seq, time, attempt, kind, body, crc"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows(
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS events ON rows(kind, seq) WHERE {_RARE};
"""


_FAR = 2**62
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: sqlite3 decodes the words of an error as UTF-8, whatever is in them."""


class JournalError(RunError):
    """A journal that is missing, of another version, or damaged; one sentence."""


class NoJournal(JournalError):
    """A directory that is no run's."""

    exit_code = 2


class JournalWriter:
    """Appends to ``run_dir/journal.db``. Only the trainer makes one, under the run's lock."""

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / FILE
        self.set_aside: Path | None = None
        """Where a corrupt journal was moved to, when there was one."""
        try:
            self._open(run_dir)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{self.path} cannot be written: {error}; nothing in it was changed") from None

    def _open(self, run_dir: Path) -> None:
        if self.path.exists() and not sound(self.path):
            self.set_aside = move_aside(self.path)
        if not self.path.exists():
            _create(self.path)
        self._db = connect(self.path)
        self._folder, self._file = identity(self.path.parent), identity(self.path)
        stored = _meta_of(self._db, self.path)
        _check_version(stored, self.path)
        self.journal_id, self._layout = _identity_in(stored, self.path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        self.sealed = Segments(run_dir, self.journal_id, self._layout)
        self._compacted = int(stored.get(_COMPACTED, 0))
        self.losses = self.sealed.set_damaged_aside(self._compacted)
        """Sealed rows that were found damaged or gone just now."""
        self._trusted = self._compacted
        self.next_seq = max([self._newest(), *(segment.last for segment in self.sealed.all)]) + 1
        self._batches = self._rows = 0

    def append(self, items: Sequence[tuple[float, int, Record]]) -> tuple[int, int]:
        """Commit (time, attempt, record) items durably; returns the first and last seq. Raises sqlite3.Error."""
        first = seq = self.next_seq
        rows = []
        for stamp, attempt, record in items:
            kind, body = encode(record, self._layout)
            rows.append((seq, stamp, attempt, kind, body, checksum(seq, stamp, attempt, kind, body)))
            seq += 1
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(f"INSERT INTO rows({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if self._newest() < seq - 1:  # a commit may be durable and yet report an error: then it is not repeated
                raise
        self.next_seq = seq
        self._batches, self._rows = self._batches + 1, self._rows + len(rows)
        if self._batches >= _CHECKPOINT_EVERY or self._rows >= _CHECKPOINT_ROWS:
            self._batches = self._rows = 0
            with contextlib.suppress(sqlite3.Error):  # a full disk: the rows are durable in the log, and stay there
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return first, seq - 1

    def taken_away(self) -> Literal["removed", "replaced"] | None:
        """What became of the file under it; None while it, or its whole directory, is where it was or has moved."""
        if identity(self.path.parent) != self._folder or (now := identity(self.path)) == self._file:
            return None
        return "removed" if now is None else "replaced"

    def unsealed(self, kept: int = KEPT_ROWS) -> int:
        """How many rows could be sealed now: all that are in no segment but the newest ``kept``."""
        return self.next_seq - 1 - kept - self.sealed.covered(self._compacted)

    def compact(self, kept: int = KEPT_ROWS, most: int = 2000) -> bool:
        """Delete up to ``most`` bulk rows that a durable segment holds; whether any are left. Raises sqlite3.Error."""
        self.sealed.refresh()
        end = min(self.sealed.covered(self._compacted), self.next_seq - 1 - kept)
        if end <= self._compacted or not self._trust(self._compacted + 1):
            return False
        through = min(end, self._compacted + most, self._trusted)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            span = (self._compacted, through)
            self._db.execute(f"DELETE FROM rows WHERE seq > ? AND seq <= ? AND {_SEALED}", span)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (_COMPACTED, str(through)))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._compacted = through
        return through < end

    def _trust(self, seq: int) -> bool:
        """Look at the bytes of the segment that holds ``seq`` once more before its rows are deleted here."""
        if seq <= self._trusted:
            return True
        segment = self.sealed.next(seq - 1)
        try:
            if segment is None or not segment.first <= seq <= segment.last or not segment.content():
                return False
        except SegmentDamaged:
            return False
        self._trusted = segment.last
        return True

    def _newest(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM rows").fetchone()[0])

    def close(self) -> None:
        """Fold the write-ahead log into the file and close."""
        with contextlib.suppress(sqlite3.Error):  # a reader may be in the way: the log then stays beside the file
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()


class JournalReader:
    """Reads ``run_dir/journal.db``, live or finished. Raises JournalError when it cannot."""

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / FILE
        if not self.path.is_file():
            raise NoJournal(f"{run_dir} is not a run directory: it has no {FILE}")
        try:
            db = connect_read_only(self.path)
        except (*UNREADABLE, OSError) as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from None
        self._begin(run_dir, db)

    @classmethod
    def recovered(cls, run_dir: Path, meta: Mapping[str, str], rows: Iterable[RawRow]) -> "JournalReader":
        """A journal that is no file any more: rows that were saved, held in memory, and its segments on the disk."""
        db = connect(Path(":memory:"))
        db.executescript(_SCHEMA)
        db.executemany("INSERT INTO meta VALUES(?, ?)", meta.items())
        values = ((row.seq, row.time, row.attempt, row.kind, row.body, row.crc) for row in rows)
        db.executemany(f"INSERT INTO rows({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)", values)
        reader = cls.__new__(cls)
        reader.path = Path(run_dir) / FILE
        reader._begin(run_dir, db)
        return reader

    def _begin(self, run_dir: Path, db: sqlite3.Connection) -> None:
        self._db = db
        stored = _meta_of(self._db, self.path)
        _check_version(stored, self.path)
        self.journal_id, self.layout = _identity_in(stored, self.path)
        self._file = identity(self.path)
        self.sealed = Segments(run_dir, self.journal_id, self.layout)
        self.damaged: set[int] = set()
        """Rows that were passed over: their checksum failed, or the segment that held them is damaged or gone."""

    def in_place(self) -> bool:
        """Whether the file that was opened is still the run's journal; False when it was set aside or replaced."""
        return identity(self.path) == self._file

    def last_seq(self) -> int:
        """The newest seq; 0 for an empty journal."""
        stored = int(self._one("SELECT coalesce(max(seq), 0) FROM rows"))
        return max([stored, *(segment.last for segment in self.sealed.all[-1:])])

    def version(self) -> int:
        """A number that changes when another process commits."""
        return int(self._one("PRAGMA data_version"))

    def raw_rows(self, after_seq: int = 0, limit: int = 2000, up_to: int | None = None) -> list[RawRow]:
        """Rows with ``seq > after_seq``, oldest first, unchecked: sealed ones first, then those of the file."""
        bound = up_to if up_to is not None else _FAR
        rows = self._joined(after_seq, limit, bound)
        if (not rows or _missing(rows, after_seq)) and self.sealed.refresh():  # sealed and deleted since the last look
            rows = self._joined(after_seq, limit, bound)
        self.damaged.update(_missing(rows, after_seq))
        return rows

    def _joined(self, after_seq: int, limit: int, bound: int) -> list[RawRow]:
        rows: list[RawRow] = []
        while len(rows) < limit and after_seq < bound and (segment := self.sealed.next(after_seq)) is not None:
            if after_seq < segment.first - 1:  # what lies before it is in the file, or is gone
                rows += self.stored_rows(after_seq, limit - len(rows), min(bound, segment.first - 1))
            if len(rows) < limit:
                rows += self._sealed_rows(segment, after_seq, limit - len(rows), bound)
            after_seq = segment.last
        if len(rows) < limit and after_seq < bound:
            rows += self.stored_rows(after_seq, limit - len(rows), bound)
        return rows

    def _sealed_rows(self, segment: Segment, after_seq: int, limit: int, bound: int) -> list[RawRow]:
        """Rows of a segment; of a damaged one, those that are still in the file."""
        try:
            return self.sealed.rows(segment, after_seq, limit, bound)
        except SegmentDamaged:
            return self.stored_rows(max(after_seq, segment.first - 1), limit, min(bound, segment.last))

    def stored_rows(self, after_seq: int, limit: int, up_to: int = _FAR) -> list[RawRow]:
        """As ``raw_rows``, from journal.db alone."""
        query = f"SELECT {_COLUMNS} FROM rows WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return [RawRow(*row) for row in self._all(query, (after_seq, up_to, limit))]

    def unsealed_from(self) -> int:
        """The first seq that is in no segment and still in journal.db."""
        found = self._all("SELECT value FROM meta WHERE key = ?", (_COMPACTED,))
        return self.sealed.covered(int(found[0][0]) if found else 0) + 1

    def rows(self, after_seq: int = 0, limit: int = 2000) -> list[Row]:
        """Checked rows with ``seq > after_seq``; damaged ones are left out and noted in ``damaged``.

        Empty only when there is no intact row after ``after_seq``.
        """
        while raw := self.raw_rows(after_seq, limit):
            if good := list(self._checked(raw)):
                return good
            after_seq = raw[-1].seq
        return []

    def last_rows(self, count: int) -> list[Row]:
        """The newest ``count`` rows, oldest first."""
        return self.rows(after_seq=max(0, self.last_seq() - count), limit=count)

    def events(self, kind: str, newest: int | None = None) -> list[Row]:
        """All rows of a kind that is neither steps nor stretches, or the newest few, oldest first."""
        query = f"SELECT {_COLUMNS} FROM rows WHERE kind = ? AND {_RARE} ORDER BY seq DESC LIMIT ?"
        raw = [RawRow(*row) for row in self._all(query, (kind, -1 if newest is None else newest))][::-1]
        if kind in BULK and (newest is None or len(raw) < newest) and self._resealed():
            raw = [*(row for row in self.sealed.of_kind(kind) if not raw or row.seq < raw[0].seq), *raw]
            raw = raw if newest is None else raw[-newest:]
        return list(self._checked(raw))

    def last_steps(self, count: int) -> list[Row]:
        """The newest measured steps and predicted stretches, oldest first."""
        query = f"SELECT {_COLUMNS} FROM rows WHERE kind IN ('step', 'stretch') ORDER BY seq DESC LIMIT ?"
        raw = [RawRow(*row) for row in self._all(query, (count,))][::-1]
        if len(raw) < count and self._resealed():
            for segment in reversed(self.sealed.all):
                rows = self._sealed_rows(segment, segment.first - 1, segment.last, segment.last)
                older = [row for row in rows if row.kind in ("step", "stretch") and (not raw or row.seq < raw[0].seq)]
                raw = [*older, *raw]
                if len(raw) >= count:
                    break
        return list(self._checked(raw[-count:]))

    def _resealed(self) -> bool:
        """Look for new segments; whether there are any at all."""
        self.sealed.refresh()
        return bool(self.sealed.all)

    def _checked(self, raw: Iterable[RawRow]) -> Iterator[Row]:
        for row in raw:
            try:
                yield decode_row(row, self.layout)
            except CodecError:
                self.damaged.add(row.seq)

    def _one(self, query: str) -> int:
        return int(self._all(query, ())[0][0])

    def _all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except UNREADABLE as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from None

    def close(self) -> None:
        self._db.close()


def _missing(rows: Sequence[RawRow], after_seq: int) -> set[int]:
    """Seqs that a page lacks, before its first row or between two."""
    if not rows or rows[-1].seq - after_seq == len(rows):
        return set()
    return set(range(after_seq + 1, rows[-1].seq)).difference(row.seq for row in rows)


def _create(path: Path) -> None:
    """An empty journal, made beside its place and moved there whole: no reader ever sees half of one."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    db = connect(unfinished)
    db.executescript(_SCHEMA)
    meta = {
        "protocol": str(PROTOCOL),
        "journal_id": secrets.token_hex(8),
        "created": repr(time.time()),
        "step_fields": json.dumps(STEP_FIELDS),
        "phases": json.dumps(PHASES),
    }
    db.executemany("INSERT INTO meta VALUES(?, ?)", meta.items())
    db.close()
    unfinished.rename(path)


def meta_in(db: sqlite3.Connection) -> dict[str, str]:
    """What a journal says of itself. Raises sqlite3.Error."""
    return dict(db.execute("SELECT key, value FROM meta"))


def rows_between(db: sqlite3.Connection, first: int, last: int) -> list[RawRow]:
    """The stored rows of a range, both ends included, unchecked. Raises sqlite3.Error."""
    query = f"SELECT {_COLUMNS} FROM rows WHERE seq BETWEEN ? AND ? ORDER BY seq"
    return [RawRow(*row) for row in db.execute(query, (first, last))]


def _meta_of(db: sqlite3.Connection, path: Path) -> dict[str, str]:
    try:
        return meta_in(db)
    except UNREADABLE as error:
        db.close()
        raise JournalError(f"{path} cannot be read: {error}") from None


def _identity_in(meta: Mapping[str, str], path: Path) -> tuple[str, StepLayout]:
    """The journal's id and how its steps are laid out. Raises JournalError when it no longer says so."""
    try:
        return meta["journal_id"], StepLayout(fields_in(meta))
    except (KeyError, ValueError):
        raise JournalError(f"{path} is damaged: it does not say any more how its rows are laid out") from None


def _check_version(meta: dict[str, str], path: Path) -> None:
    found = meta.get("protocol", "none")
    if found != str(PROTOCOL):
        raise JournalError(f"{path} was written by protocol version {found}; this program reads version {PROTOCOL}")
