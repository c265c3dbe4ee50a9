"""Whether a journal's file can be written on, and where it goes when it cannot. Reads no row for anybody."""

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from trainer_core.telemetry.codec import PROTOCOL, RawRow

_CHECKED_AT_START = 200
"""Rows, the newest: those that a crash may have torn."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def sound(path: Path) -> bool:
    """Whether SQLite finds the file whole and the newest rows have their checksums."""
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return False
            newest = db.execute(
                "SELECT seq, time, attempt, kind, body, crc FROM rows ORDER BY seq DESC LIMIT ?", (_CHECKED_AT_START,)
            )
            if not all(RawRow(*row).intact for row in newest):
                return False
            meta = dict(db.execute("SELECT key, value FROM meta"))
            return meta.get("protocol") != str(PROTOCOL) or ("journal_id" in meta and bool(fields_in(meta)))
        finally:
            db.close()
    except (KeyError, ValueError):
        return False  # it does not say any more how its rows are laid out
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise  # a full disk or a lock says nothing about the file


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite says something about the file: that it is damaged, no database, or lacks its tables."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def fields_in(meta: Mapping[str, str]) -> list[str]:
    """The scalar fields of a step in their order. Raises KeyError or ValueError for what is no such list."""
    fields = json.loads(meta["step_fields"])
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields) or "phase" not in fields:
        raise ValueError("no list of fields")
    return fields


def move_aside(path: Path, what: str = "corrupt") -> Path:
    """Rename a journal that is not written on any more, its log with it; returns where it went."""
    target = path.with_name(f"{path.name}.{what}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    for suffix in ("-wal", "-shm"):
        if (extra := path.with_name(path.name + suffix)).exists():
            extra.rename(target.with_name(target.name + suffix))
    path.rename(target)
    return target
