"""Journals that were set aside: what of one is provably good, as a journal of its own. Changes nothing on the disk.

Rows of two journals are never mixed: each counts its seq from 1. What is read is what was sealed and every row of the
damaged file that SQLite still finds and whose checksum holds; the rest is lost and is told.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from trainer_core.spec.errors import UserError
from trainer_core.telemetry.codec import PROTOCOL, STEP_FIELDS, RawRow
from trainer_core.telemetry.damage import fields_in
from trainer_core.telemetry.journal import FILE, UNREADABLE, JournalReader, meta_in, rows_between
from trainer_core.telemetry.segments import ENVELOPE, FOLDER, VECTOR, SegmentDamaged, listed

_PAGE = 1000


class SetAside(msgspec.Struct, frozen=True):
    """A journal that is not the run's any more."""

    journal_id: str
    """Empty when the file no longer says it."""
    file: Path | None
    """The damaged file; None when only segments are left."""
    folder: Path | None
    """Its sealed segments, if it has any."""

    @property
    def name(self) -> str:
        """What ``--journal`` takes: the id, or the file's name where no id is left."""
        return self.journal_id or (self.file.name if self.file is not None else "")


def set_aside(run_dir: Path) -> list[SetAside]:
    """The journals of a run directory that were set aside, by name. Raises JournalError for no run."""
    with contextlib.closing(JournalReader(run_dir)) as present:
        now = present.journal_id
    folders = {path.name.removeprefix(FOLDER): path for path in Path(run_dir).glob(f"{FOLDER}*") if listed(path)}
    folders.pop(now, None)
    found = []
    for file in chain.from_iterable(Path(run_dir).glob(f"{FILE}.{what}-*") for what in ("corrupt", "replaced")):
        if not file.name.endswith(("-wal", "-shm")):
            journal_id = _id_in(_meta(file))
            found.append(SetAside(journal_id, file, folders.pop(journal_id, None)))
    found += [SetAside(journal_id, None, folder) for journal_id, folder in folders.items()]
    return sorted(found, key=lambda one: one.name)


def opened(run_dir: Path, journal: str | None = None) -> JournalReader:
    """The run's journal, or what is good of the one that was set aside under that id or file name.

    Raises JournalError for no run, UserError for a journal that is not there.
    """
    if journal is None:
        return JournalReader(run_dir)
    there = set_aside(run_dir)
    for one in there:
        if journal in (one.journal_id, one.file.name if one.file is not None else None):
            return _recovered(run_dir, one)
    names = ", ".join(one.name for one in there) or "none"
    raise UserError(f"--journal {journal}: {run_dir} has no journal set aside under that name; it has {names}")


def _recovered(run_dir: Path, one: SetAside) -> JournalReader:
    """A journal in memory that holds the good rows of the file, before its segments on the disk."""
    meta = {"protocol": str(PROTOCOL), "journal_id": one.journal_id or "-", "step_fields": json.dumps(_fields(one))}
    rows = _good_rows(one.file) if one.file is not None else iter(())
    return JournalReader.recovered(run_dir, meta, rows)


def _fields(one: SetAside) -> Sequence[str]:
    """The fields of a step: as the columns of a whole segment name them, else as the file does, else today's.

    What the file says has no checksum; it counts when it names fields that there are, each once.
    """
    for segment in listed(one.folder) if one.folder is not None else ():
        with contextlib.suppress(SegmentDamaged):
            return [name for name in segment.frame().columns if name not in (*ENVELOPE, VECTOR)]
    if one.file is not None:
        with contextlib.suppress(KeyError, ValueError):
            fields = fields_in(_meta(one.file))
            if len(set(fields)) == len(fields) and set(fields) <= set(STEP_FIELDS):
                return fields
    return STEP_FIELDS


def _id_in(meta: Mapping[str, str]) -> str:
    """The journal's id; empty when what stands there cannot be one."""
    said = meta.get("journal_id", "")
    return said if isinstance(said, str) and re.fullmatch("[0-9a-f]{16}", said) else ""


def _meta(file: Path) -> dict[str, str]:
    """What the damaged file still says of itself."""
    with contextlib.suppress(*UNREADABLE), contextlib.closing(_connected(file)) as db:
        return meta_in(db)
    return {}


def _good_rows(file: Path) -> Iterator[RawRow]:
    """Every row that can still be read and whose checksum holds, by seq."""
    with contextlib.suppress(*UNREADABLE), contextlib.closing(_connected(file)) as db:
        (last,) = db.execute("SELECT max(seq) FROM rows").fetchone()
        for first in range(1, (last or 0) + 1, _PAGE):
            yield from _read(db, first, first + _PAGE - 1)


def _read(db: sqlite3.Connection, first: int, last: int) -> Iterator[RawRow]:
    """The good rows of a range; where a page of the file is damaged, what is before and behind it."""
    try:
        found = rows_between(db, first, last)
    except UNREADABLE:
        if first == last:
            return
        middle = (first + last) // 2
        yield from _read(db, first, middle)
        yield from _read(db, middle + 1, last)
        return
    yield from (row for row in found if _is_good(row, first, last))


def _is_good(row: RawRow, first: int, last: int) -> bool:
    try:
        return first <= row.seq <= last and row.intact
    except (TypeError, ValueError, AttributeError):  # a damaged page gives values of other types
        return False


def _connected(file: Path) -> sqlite3.Connection:
    """Read-only; without the write-ahead log where that cannot be had."""
    for options in ("mode=ro", "mode=ro&immutable=1"):
        db = sqlite3.connect(f"{file.resolve().as_uri()}?{options}", uri=True, isolation_level=None)
        try:
            db.execute("SELECT count(*) FROM meta").fetchone()
            return db
        except UNREADABLE:
            if "immutable" in options:
                return db
            db.close()
    raise AssertionError
