"""commands.db: everything a run was told, accepted or refused. One writer, the agent; the trainer reads. No sockets."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from trainer_core.spec.commands import AcceptedCommand, CommandRequest, CommandState, Refusal
from trainer_core.spec.errors import RunError
from trainer_core.telemetry.codec import PROTOCOL
from trainer_core.telemetry.damage import is_damage, move_aside

FILE = "commands.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commands(
    id INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, actor TEXT NOT NULL, received_at REAL NOT NULL,
    body BLOB NOT NULL, state TEXT NOT NULL, refusal TEXT, detail TEXT NOT NULL);
"""
_COLUMNS = "id, actor, received_at, body, state, refusal, detail"
_decoder = msgspec.msgpack.Decoder(CommandRequest)


class Decided(msgspec.Struct, frozen=True):
    """One command with the agent's decision: ACCEPTED or REJECTED."""

    id: int
    command: AcceptedCommand
    state: CommandState
    refusal: Refusal | None
    detail: str


class CommandsWriter:
    """The agent's side: a row is durable before its sender hears ACCEPTED. Raises RunError for another version."""

    def __init__(self, run_dir: Path) -> None:
        set_damaged_aside(run_dir)
        self._db = sqlite3.connect(Path(run_dir) / FILE, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO meta VALUES('protocol', ?)", (str(PROTOCOL),))
        _check_version(self._db, Path(run_dir) / FILE)

    def add(self, command: AcceptedCommand, state: CommandState, refusal: Refusal | None, detail: str) -> None:
        """Store a decision. Raises sqlite3.Error, and then nothing was accepted."""
        self._db.execute(
            "INSERT INTO commands(command_id, actor, received_at, body, state, refusal, detail) VALUES(?,?,?,?,?,?,?)",
            (
                command.request.command_id,
                command.actor,
                command.received_at,
                msgspec.msgpack.encode(command.request),
                state.value,
                refusal.value if refusal else None,
                detail,
            ),
        )

    def find(self, command_id: str) -> Decided | None:
        """The decision on a command, if there was one."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM commands WHERE command_id = ?", (command_id,)).fetchone()
        return _decided(row) if row else None

    def close(self) -> None:
        self._db.close()


class CommandsReader:
    """The trainer's side. The file may not exist yet: then there are no commands."""

    def __init__(self, run_dir: Path) -> None:
        self._path = Path(run_dir) / FILE
        self._db: sqlite3.Connection | None = None
        self._file = (0, 0)
        self.unreadable: dict[int, str] = {}
        """Row id -> why, of rows that were passed over: one that cannot be read holds no later one up."""

    def replaced(self) -> bool:
        """Whether another file stands in the place of the one that is read; it is read from now on."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        if self._db is None or (found.st_dev, found.st_ino) == self._file:
            return False
        self.close()
        self._db, self.unreadable = None, {}
        return True

    def decided(self, after_id: int = 0) -> list[Decided]:
        """Decisions after a row id, in order. Raises sqlite3.Error."""
        if self._db is None:
            if not self._path.exists():
                return []
            uri = f"{self._path.resolve().as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0, check_same_thread=False)
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
        try:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM commands WHERE id > ? ORDER BY id", (after_id,)).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        decided = []
        for row in rows:
            try:
                decided.append(_decided(row))
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                self.unreadable[row[0]] = f"{error}"
        return decided

    def last_id(self) -> int:
        """The newest row id; 0 when there is none."""
        return max([*(one.id for one in self.decided()), *self.unreadable], default=0)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


def set_damaged_aside(run_dir: Path) -> Path | None:
    """Rename a file that SQLite finds damaged, so that the run can be told something again; where it went.

    What was accepted is in the journal, too. Raises sqlite3.Error for what says nothing about the file.
    """
    path = Path(run_dir) / FILE
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=5.0)) as db:
            if db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return None
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    return move_aside(path)


def accepted(run_dir: Path, after_id: int = 0) -> list[tuple[int, AcceptedCommand]]:
    """(row id, command) of the accepted ones, in the order they were accepted."""
    reader = CommandsReader(run_dir)
    try:
        return [(d.id, d.command) for d in reader.decided(after_id) if d.state is CommandState.ACCEPTED]
    finally:
        reader.close()


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (found,) = db.execute("SELECT value FROM meta WHERE key = 'protocol'").fetchone()
    if found != str(PROTOCOL):
        raise RunError(f"{path} was written by protocol version {found}; this program reads version {PROTOCOL}")


def _decided(row: tuple[int, str, float, bytes, str, str | None, str]) -> Decided:
    id_, actor, received_at, body, state, refusal, detail = row
    command = AcceptedCommand(_decoder.decode(body), actor, received_at)
    return Decided(id_, command, CommandState(state), Refusal(refusal) if refusal else None, detail)
