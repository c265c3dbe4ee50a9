"""How a database file of a run is opened: to write, and to read from anywhere; which file it is. Knows no table."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path


def connect(path: Path) -> sqlite3.Connection:
    """For its one writer."""
    return sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Read-only, its log included. Where the directory cannot be written to, as by another user or on a read-only disk:
    ``immutable`` when there is no log; a copy when there is one whose shared-memory file is missing and cannot be made.
    """
    log = path.with_name(f"{path.name}-wal")
    if os.access(path.parent, os.W_OK):
        return _opened(path, "mode=ro")
    if not log.exists():
        return _opened(path, "mode=ro&immutable=1")
    if path.with_name(f"{path.name}-shm").exists():
        return _opened(path, "mode=ro")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        shutil.copy(log, folder)
        db = _opened(Path(folder) / path.name, "mode=ro")
        db.execute("SELECT count(*) FROM sqlite_schema")  # both files are open now, and outlast their names
    return db


def _opened(path: Path, how: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?{how}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)


def identity(path: Path) -> tuple[int, int] | None:
    """(device, inode): which file it is, whatever its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
